"""The evaluation commands: run a benchmark, print its table, write its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from priorscope.errors import InputError
from priorscope.evaluation.figures import Panel, figure_to_image, side_by_side
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.tables import print_table
from priorscope_depth.alignment import AffineFit, Space, fit_affine
from priorscope_depth.archives import DepthArchive, DepthSample
from priorscope_depth.base import ImagePredictor
from priorscope_depth.baselines import BASELINES
from priorscope_depth.compared import evaluate_compared, load_compared
from priorscope_depth.configs import EvaluateConfig, EvaluateNormalsConfig, ModelConfig, refuse_idle
from priorscope_depth.evaluate import evaluate_depth, in_space, predict_at_own_size
from priorscope_depth.evaluate_normals import evaluate_normals
from priorscope_depth.held_out import SCENES_PROTOCOL, HeldOutScenes
from priorscope_depth.metrics import DEPTH_METRICS
from priorscope_depth.normals_data import NormalsArchive
from priorscope_depth.predict import load_predictor
from priorscope_depth.predictor import NativePredictor
from priorscope_depth.protocols import DepthProtocol, depth_protocol
from priorscope_depth.scores import DepthEvaluation

_MAY_DIFFER = ("resume", "settings.device", "settings.batch_size", "out")

#: Which way a metric is better.
BETTER = {name: "greatest" if name.startswith("delta") else "least" for name in DEPTH_METRICS}
_LABELS = {
    "prediction": "prediction",
    "constant": "best constant (sees the truth)",
    "plane": "best plane (sees the truth)",
}


def run_evaluation(config: EvaluateConfig) -> int:
    """Run ``priorscope depth evaluate``; 1 when some images failed."""
    protocol, samples = _depth_samples(config)
    predictor = load_predictor(config.settings)
    if predictor.task != "depth":
        raise InputError(f"{predictor.name} predicts {predictor.task}", remedy="Use `evaluate-normals`.")
    predictor.check_items([sample.key for sample in samples])
    native = _native(predictor, config.settings)
    others = load_compared(config)
    run = RunFolder.create(config.out, config, resume=config.resume, may_differ=_MAY_DIFFER)
    measured = _native(predictor, config.settings, run)
    evaluation = evaluate_depth(
        measured,
        samples,
        protocol,
        alignments=config.alignments,
        compat=config.compat,
        batch_size=config.settings.batch_size,
        baselines=config.baselines,
        run=run,
        progress=protocol.title,
    )
    compared = evaluate_compared(others, config, samples, protocol)
    processed = native.geometry.resolution or "the protocol's"
    summary = {"model": predictor.name, "processing_resolution": processed, **evaluation.summary()}
    if compared:
        summary["compared"] = {name: other.summary() for name, other in compared.items()}
    run.write_metrics(summary)
    tables = {
        space: _with_compared(table_of(evaluation, space, predictor.name), compared, space, evaluation.images)
        for space in config.alignments
    }
    tables = {space: rows for space, rows in tables.items() if rows}
    for space in tables:
        print(f"\n{protocol.title}, {evaluation.images} images, aligned in {space}:")
        print_table(tables[space], ".4g")
        published = _published(evaluation, native, space, tables[space])
        if published:
            print("\nPublished under the same protocol, alignment and convention:")
            print_table(published, ".4g")
    missing = [f"Not aligned in {space}: {reason}." for space, reason in evaluation.undefined.items()]
    for name, other in compared.items():
        missing += [f"{name}: not aligned in {space}: {reason}." for space, reason in other.undefined.items()]
    for line in missing:
        print(f"\n{line}")
    for failure in evaluation.failures:
        print(f"failed: {failure.key}: {failure.error}")
    if protocol.images != evaluation.images:
        print(f"\n{evaluation.images} of the set's {protocol.images} images: not comparable with published figures.")
    report = Report(
        f"{predictor.name} on {protocol.title}",
        f"{evaluation.images} images, protocol {evaluation.compat.name}, processing resolution {processed}",
    )
    for space in tables:
        report.heading(f"Aligned in {space}")
        report.table(
            tables[space],
            "Unweighted means over images after a least-squares scale and shift per image"
            f" in {space} space. Baselines are fitted to the truth itself.",
            best=BETTER,
        )
        published = _published(evaluation, native, space, tables[space])
        if published:
            report.table(published, "Published figures of the same protocol, alignment, convention and images.")
    for line in (*missing, _cost(measured)):
        report.paragraph(line)
    if evaluation.failures:
        report.heading("Failed images").table([{"image": f.key, "error": f.error} for f in evaluation.failures])
    if evaluation.alignments():
        space = evaluation.alignments()[0]
        _add_pictures(report, evaluation, native, samples, space)
        report.heading("Every image").table(
            [
                {"image": row["key"], **{name: row[name] for name in ("abs_rel", "delta1", "rmse", "silog")}}
                for row in evaluation.per_image(space)[:500]
            ],
            f"Aligned in {space}" + (", the first 500; all are in items.jsonl." if evaluation.images > 500 else "."),
        )
    report.environment(run).write(run.report_path, overwrite=True)
    print(f"\nreport: {run.report_path}")
    return 1 if evaluation.failures else 0


def table_of(evaluation: DepthEvaluation, space: Space, name: str) -> list[dict[str, Any]]:
    """Rows of one alignment space: the prediction and the baselines, with the ten metrics."""
    rows = []
    for method in ("prediction", *BASELINES):
        if space in evaluation.alignments(method):  # type: ignore[arg-type]
            label = name if method == "prediction" else _LABELS[method]
            rows.append({"method": label, **evaluation.means(space, method)})  # type: ignore[arg-type]
    return rows


def aligned_panels(
    sample: DepthSample, prediction: np.ndarray, protocol: DepthProtocol, space: Space, fit: AffineFit | None = None
) -> list[Panel]:
    """Photograph, truth, aligned prediction and relative error of one image; ``fit`` is made where not given."""
    if fit is None:
        fit = fit_affine(prediction, sample.depth, sample.valid, space)
    depth = fit.depth(prediction, protocol.min_depth, protocol.max_depth)
    known = sample.depth[sample.valid]
    low, high = (float(value) for value in np.quantile(known, [0.01, 0.99]))
    error = np.abs(depth - sample.depth) / np.maximum(sample.depth, 1e-6)
    return [
        Panel(sample.rgb, "photograph"),
        Panel(sample.depth, "true depth", lo=low, hi=high, label="metres", valid=sample.valid),
        Panel(depth, f"prediction, aligned in {space}", lo=low, hi=high, label="metres"),
        Panel(error, "relative error", "magma", 0.0, 0.5, label="|p - g| / g", valid=sample.valid),
    ]


def _with_compared(
    rows: list[dict[str, Any]], compared: Mapping[str, DepthEvaluation], space: Space, images: int
) -> list[dict[str, Any]]:
    """Rows of the other models below the first's, above the baselines, where they have this space."""
    others = [
        {"method": name if other.images == images else f"{name} ({other.images} images)", **other.means(space)}
        for name, other in compared.items()
        if space in other.alignments("prediction")
    ]
    own = [row for row in rows if row["method"] not in _LABELS.values()]
    return [*own, *others, *rows[len(own) :]]


def _native(predictor: ImagePredictor, settings: ModelConfig, run: RunFolder | None = None) -> NativePredictor:
    """At the protocol's size, or at the resolution that was asked for; ``run`` gets the cost of every call."""
    geometry = None if settings.resolution is None else predictor.geometry
    return NativePredictor(predictor, seed=settings.seed, ensemble=settings.ensemble, geometry=geometry, run=run)


def _cost(predictor: NativePredictor) -> str:
    return "" if predictor.cost is None else predictor.cost.sentence()


def _check_limit(limit: int) -> None:
    if limit < 0:
        raise InputError(f"a limit of {limit} images", remedy="Use --limit 0 for all, or a positive number.")


def _published(
    evaluation: DepthEvaluation, native: NativePredictor, space: Space, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The prediction's row and published ones below it, where they may be compared; else nothing."""
    if native.geometry.resolution:  # another size than the protocol's
        return []
    published = evaluation.published(space)
    name = evaluation.protocol.name
    figures = [{"method": row.method, row.metric: row.values[name], "source": row.source} for row in published]
    return [{"method": rows[0]["method"], "abs_rel": rows[0]["abs_rel"], "source": "here"}, *figures] if figures else []


def _depth_samples(config: EvaluateConfig) -> tuple[DepthProtocol, Sequence[Any]]:
    _check_limit(config.limit)
    if config.dataset != "kitti":
        refuse_idle(config, ("kitti_region",), f"of {config.dataset}")
    if config.dataset == "scenes":
        refuse_idle(config, ("data", "list_file"), "of scenes, which are drawn here")
        return SCENES_PROTOCOL, HeldOutScenes(config.limit or SCENES_PROTOCOL.images)
    protocol = depth_protocol(config.dataset, kitti_region=config.kitti_region)
    if config.data is None:
        raise InputError(
            f"where are the data of {protocol.title}?",
            remedy=f"--data FOLDER, the folder that holds {protocol.tar}; `evaluate scenes` needs none.",
        )
    archive = DepthArchive(config.data, protocol, list_file=config.list_file)
    return protocol, archive[: config.limit] if config.limit else archive


def _add_pictures(
    report: Report, evaluation: DepthEvaluation, predictor: NativePredictor, samples: Sequence[Any], space: Space
) -> None:
    """Best, middle and worst image by AbsRel."""
    rows = sorted(evaluation.per_image(space), key=lambda row: row["abs_rel"])
    chosen = {"best": rows[0], "median": rows[len(rows) // 2], "worst": rows[-1]}
    by_key = {item.key: item for item in samples}
    report.heading("Best, median and worst image")
    for word, row in chosen.items():
        sample = by_key[row["key"]].load()
        [prediction] = predict_at_own_size(predictor, [sample], evaluation.protocol, evaluation.compat)
        fit = AffineFit(space, row["scale"], row["shift"], row["fit_pixels"])  # the one that was scored
        shown = in_space(prediction, predictor, space)
        figure = side_by_side(aligned_panels(sample, shown, evaluation.protocol, space, fit))
        report.figure(figure_to_image(figure), f"{word}: {row['key']}, AbsRel {row['abs_rel']:.3f}")


def run_normals_evaluation(config: EvaluateNormalsConfig) -> int:
    """Run ``priorscope depth evaluate-normals``; 1 when some images failed."""
    _check_limit(config.limit)
    archive = NormalsArchive(config.data, config.dataset)
    samples: Sequence[Any] = archive[: config.limit] if config.limit else archive
    predictor = load_predictor(config.settings)
    if predictor.task != "normals":
        raise InputError(f"{predictor.name} predicts {predictor.task}, not normals", remedy="Choose another --model.")
    run = RunFolder.create(config.out, config, resume=config.resume, may_differ=_MAY_DIFFER)
    native = _native(predictor, config.settings, run)
    evaluation = evaluate_normals(
        native,
        samples,
        pooling=config.pooling,
        compat=config.compat,
        x_axis="right",
        batch_size=config.settings.batch_size,
        run=run,
        progress=config.dataset,
    )
    summary = evaluation.summary()
    run.write_metrics({"model": predictor.name, **summary})
    rows = [{"method": predictor.name, **evaluation.means}]
    print(f"\n{config.dataset}, {evaluation.images} images, angles in degrees, pooled over {config.pooling}:")
    print_table(rows, ".4g")
    for failure in evaluation.failures:
        print(f"failed: {failure.key}: {failure.error}")
    report = Report(f"{predictor.name} on {config.dataset}", f"surface normals, {evaluation.images} images")
    report.table(rows, f"Angles in degrees; share of pixels below a threshold in %; pooled over {config.pooling}.")
    report.paragraph(_cost(native))
    if evaluation.failures:
        report.heading("Failed images").table([{"image": f.key, "error": f.error} for f in evaluation.failures])
    report.environment(run).write(run.report_path, overwrite=True)
    print(f"\nreport: {run.report_path}")
    return 1 if evaluation.failures else 0

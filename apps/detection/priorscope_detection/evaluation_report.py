"""The report of an evaluation: tables, curves over noise and delay, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.suite import SuiteResult
from priorscope_detection.configs import EvaluateConfig
from priorscope_detection.data.frame import Frames
from priorscope_detection.evaluate import Outcome, chosen_frames
from priorscope_detection.evaluation.ap import RANGES, THRESHOLDS, VISIBILITIES
from priorscope_detection.evaluation.conditions import Condition, Reader, curves_of
from priorscope_detection.messages import vehicles_only
from priorscope_detection.picture import bird_view
from priorscope_detection.predictor import Predictor
from priorscope_detection.training.sources import spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(
    run: RunFolder,
    config: EvaluateConfig,
    frames: Frames,
    predictors: dict[str, Predictor],
    conditions: Sequence[Condition],
    found: Sequence[Outcome],
    result: SuiteResult,
) -> None:
    """Write report.html; an earlier one of this run is replaced."""
    base = conditions[0]
    at_base = [each for each in found if each.setting == base.setting]
    chosen = chosen_frames(frames, config)
    report = Report(
        f"Detection on {config.data}",
        f"{len(chosen)} frames; pose noise {base.how.position:g} m and {base.how.yaw:g} degrees "
        f"({base.how.distribution}), delay {base.how.delay:g} ms.",
    )
    report.heading("Result")
    report.table([_row(each) for each in at_base], best={f"BEV {limit:g}": "greatest" for limit in THRESHOLDS})
    report.paragraph(
        "Average precision (area under the envelope of precision over recall) of all detections by falling score, at "
        "overlaps of 0.3, 0.5 and 0.7 in bird's-eye view and of volumes. legacy: frame after frame, each by falling "
        "score, as some published tables were made; not comparable with the others."
    )
    report.heading("What is sent")
    report.table(
        [
            {
                "model": each.model,
                "bytes per agent and frame": each.figures["bytes_per_agent"],
                "seconds per frame": each.figures["seconds_per_frame"],
            }
            for each in at_base
        ]
    )
    report.paragraph(
        "Mean bytes that another agent than the ego sends for a frame, its pose among them"
        + f", {config.bytes_per_value} bytes a value of a feature. "
        + (
            f"Bytes of features are counted as if they were compressed by {config.compression:g}; precision is that of "
            "features as they are. "
            if config.compression > 1
            else ""
        )
        + "Seconds are the median, without reading."
    )
    for title, parts in (("By range", RANGES), ("By visibility", VISIBILITIES)):
        report.heading(title)
        report.table([_parts(each, parts) for each in at_base])
    report.paragraph(
        "BEV 0.5 of parts of the true boxes: by distance from the ego in metres, and by the points that all agents "
        "have on a box without disturbance. By visibility, every detection that finds nothing counts as false."
    )
    young = {row["key"].rpartition(" | ")[2] for row in result.rows if row.get("young")}
    if young:
        report.paragraph(
            f"{len(young)} of {len(chosen)} frames come so early in their sequence that some messages are younger than "
            "asked; --skip leaves them out."
        )
    if config.robustness:
        _robustness(report, config, conditions, found)
    if config.pictures:
        _pictures(report, config, frames, predictors, base, chosen)
    if result.failures:
        report.heading("Failed")
        report.table([{"frame": failure.key, "error": failure.error} for failure in result.failures[:50]])
    report.environment(run).write(run.report_path, overwrite=True)


def _row(each: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {"model": each.model}
    row |= {f"BEV {limit:g}": each.figures[f"ap_bev_{limit:g}"] for limit in THRESHOLDS}
    row |= {f"3D {limit:g}": each.figures[f"ap_3d_{limit:g}"] for limit in THRESHOLDS}
    row |= {f"BEV {limit:g} legacy": each.figures[f"ap_bev_{limit:g}_per_frame"] for limit in THRESHOLDS}
    if each.seeds > 1:
        row["std of BEV 0.5"] = each.spread.get("ap_bev_0.5")
    return row | {"recall 0.5": each.figures["recall_bev_0.5"]}


def _parts(each: Outcome, parts: Sequence[Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"model": each.model}
    for part in parts:
        unit = "m" if part.by == "range" else "points"
        limits = f"{part.low:g} to {part.high:g}" if isfinite(part.high) else f"{part.low:g} or more"
        row[f"{limits} {unit}"] = each.figures[f"ap_bev_0.5_{part.name}"]
        row[f"true boxes {limits}"] = int(each.figures[f"truths_{part.name}"] or 0)
    return row


def _robustness(
    report: Report, config: EvaluateConfig, conditions: Sequence[Condition], found: Sequence[Outcome]
) -> None:
    base = conditions[0].how
    by_sigma, by_delay = curves_of(base, config.sigmas, config.delays)
    report.heading("Robustness")
    report.figure(
        draw_curves(found, by_sigma, by_delay),
        f"BEV 0.5 over pose noise (at {base.delay:g} ms) and over delay (at {base.position:g} m, {base.yaw:g} "
        "degrees); bars are the standard deviation over seeds.",
    )
    table = {(each.model, each.setting): each.figures["ap_bev_0.5"] for each in found}
    for title, curve, unit in (("pose noise", by_sigma, "m, degrees"), ("delay", by_delay, "ms")):
        rows = []
        for model in dict.fromkeys(each.model for each in found):
            rows.append({"model": model, **{f"{x:g}": table.get((model, name)) for x, name in curve.items()}})
        report.table(rows, f"BEV 0.5 over {title} ({unit}).")


def draw_curves(found: Sequence[Outcome], by_sigma: dict[float, str], by_delay: dict[float, str]) -> Figure:
    """Average precision over pose noise and over delay, a line a model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    table = {(each.model, each.setting): each for each in found}
    panels = ((axes[0], by_sigma, "pose noise (m, degrees)"), (axes[1], by_delay, "delay (ms)"))
    for axis, curve, title in panels:
        for model in dict.fromkeys(each.model for each in found):
            points = [(x, table[model, name]) for x, name in sorted(curve.items()) if (model, name) in table]
            points = [(x, each) for x, each in points if each.figures["ap_bev_0.5"] is not None]
            axis.errorbar(
                [x for x, _ in points],
                [each.figures["ap_bev_0.5"] for _, each in points],
                [each.spread.get("ap_bev_0.5", 0.0) for _, each in points],
                marker="o",
                markersize=3,
                capsize=2,
                label=model,
            )
        axis.set_xlabel(title)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("AP at 0.5, bird's-eye view")
    axes[0].legend(fontsize="small")
    return figure


def _pictures(
    report: Report,
    config: EvaluateConfig,
    frames: Frames,
    predictors: dict[str, Predictor],
    base: Condition,
    chosen: Sequence[int],
) -> None:
    report.heading("Frames")
    reader = Reader(frames, config.reach)
    for index in spread(chosen, config.pictures):
        frame = vehicles_only(reader.disturbed(index, base))
        for model, predictor in predictors.items():
            boxes = predictor(frame).boxes.boxes.numpy()
            picture = bird_view(frame, boxes, predictor.detector.spec.extent, metres=0.15)
            report.figure(picture, f"{frame.name}, {model}: points by agent, green true boxes, red found ones.")

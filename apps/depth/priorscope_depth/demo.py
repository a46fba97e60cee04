"""The demo: a real photograph with known depth, measured, drawn and put into a report."""

from __future__ import annotations

from typing import Any

import numpy as np

from priorscope.data.images import write_png
from priorscope.data.samples import motorcycle
from priorscope.errors import InputError
from priorscope.evaluation.demo_folder import demo_folder
from priorscope.evaluation.figures import figure_to_image, side_by_side
from priorscope.evaluation.report import Report
from priorscope.evaluation.tables import print_table
from priorscope_depth.alignment import Space, fit_affine
from priorscope_depth.archives import DepthSample
from priorscope_depth.configs import DemoConfig, ModelConfig
from priorscope_depth.evaluate import evaluate_depth
from priorscope_depth.held_out import SCENES_PROTOCOL, HeldOutScenes
from priorscope_depth.output import Meaning, to_colours
from priorscope_depth.point_cloud import point_cloud
from priorscope_depth.predict import load_predictor
from priorscope_depth.predictor import NativePredictor
from priorscope_depth.protocols import DepthProtocol
from priorscope_depth.report import BETTER, aligned_panels, table_of

#: The whole image counts, wherever its depth is known.
MOTORCYCLE = DepthProtocol(
    "motorcycle", "the Motorcycle photograph", tar="", list_file="", images=1, min_depth=1e-3, max_depth=100.0
)
_SHOWN = ("method", "abs_rel", "delta1", "rmse", "silog")


def demo(config: DemoConfig) -> int:
    """Run ``priorscope depth demo``."""
    out = config.out
    if config.scenes < 0:
        raise InputError(f"{config.scenes} scenes", remedy="Use --scenes 0 for none.")
    predictor = load_predictor(ModelConfig(model=config.model, device=config.device))
    if predictor.task != "depth":
        raise InputError(f"{predictor.name} predicts {predictor.task}", remedy="The demo needs a depth model.")
    run = demo_folder(out, config, "priorscope depth demo")
    stereo = motorcycle()
    sample = DepthSample("motorcycle", stereo.left, stereo.depth, stereo.valid)
    native = NativePredictor(predictor, geometry=predictor.geometry)
    space = predictor.space
    print(f"Model {predictor.name} ({space}). Photograph: Middlebury 2014 Motorcycle, {sample.rgb.shape[1]} x "
          f"{sample.rgb.shape[0]}, true depth {sample.depth[sample.valid].min():.2f} to "
          f"{sample.depth[sample.valid].max():.2f} m.\n")  # fmt: skip

    evaluation = evaluate_depth(native, [sample], MOTORCYCLE, alignments=("depth", "disparity"), baselines=True,
                                progress=False)  # fmt: skip
    report = Report("Depth from one photograph", f"{predictor.name} on the Motorcycle photograph, whose depth is known")
    other: Space = "depth" if space == "disparity" else "disparity"
    tables: dict[Space, list[dict[str, Any]]] = {}
    for name in (space, other):
        rows = [{key: row[key] for key in _SHOWN} for row in table_of(evaluation, name, predictor.name)]
        tables[name] = rows
        print(f"Fitted in {name} space:")
        print_table(rows, ".4g")
        print()
    prediction = predictor(sample.rgb)
    fit = fit_affine(prediction.values, sample.depth, sample.valid, space)
    depth = fit.depth(prediction.values, MOTORCYCLE.min_depth, MOTORCYCLE.max_depth)
    picture = figure_to_image(side_by_side(aligned_panels(sample, prediction.values, MOTORCYCLE, space, fit)))
    write_png(run.figures / "motorcycle.png", picture)
    write_png(run.figures / "motorcycle_prediction.png", to_colours(prediction.values, Meaning(space)))

    report.heading("Measured").table(
        tables[space],
        f"After a least-squares scale and shift in {space} space. The constant and the plane are fitted to the truth "
        "itself, the plane with one free number more than the prediction.",
        best={name: BETTER[name] for name in _SHOWN[1:]},
    )
    report.table(
        tables[other],
        f"Fitted in {other} space, for which the metric prediction was inverted."
        if predictor.scale == "metric"
        else f"The baselines fitted in {other} space. The prediction is affine-invariant {space}: it has no fit here.",
    )
    report.heading("Seen").figure(picture, "Photograph, truth, aligned prediction, relative error.")
    # the fit's farthest reach would make the cloud a needle: show up to just beyond the farthest truth
    near_enough = depth < 1.5 * float(sample.depth[sample.valid].max())
    points, colours = point_cloud(depth, stereo.intrinsics, sample.rgb, near_enough)
    report.heading("Turned").point_cloud(points, colours, "The aligned prediction, back-projected.")
    metrics = {"motorcycle": evaluation.summary()["means"]}
    if config.scenes:
        print(f"{config.scenes} held-out procedural scenes:")
        scenes = HeldOutScenes(config.scenes)
        on_scenes = evaluate_depth(native, scenes, SCENES_PROTOCOL, alignments=(space,), baselines=True, batch_size=8,
                                   progress="scenes")  # fmt: skip
        rows = [{key: row[key] for key in _SHOWN} for row in table_of(on_scenes, space, predictor.name)]
        print_table(rows, ".4g")
        metrics["scenes"] = on_scenes.summary()["means"]
        report.heading("On held-out procedural scenes").table(
            rows, f"{config.scenes} scenes, fitted in {space} space.", best={name: BETTER[name] for name in _SHOWN[1:]}
        )
        for item in scenes[:4]:
            loaded = item.load()
            values = predictor(loaded.rgb).values
            report.figure(
                figure_to_image(side_by_side(aligned_panels(loaded, values, SCENES_PROTOCOL, space))), item.key
            )
    report.paragraph(
        "The bundled model is small and has seen procedural scenes only. Published checkpoints are far better: "
        "`priorscope models` lists them."
    )
    report.environment(run).write(run.report_path, overwrite=True)
    run.write_metrics(metrics)
    np.save(out / "depth.npy", depth.astype(np.float32))
    print(f"\nreport: {run.report_path}")
    return 0

"""The demo: a photograph, drawn people whose joints are known, as drawn and in another style, and a clip."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from priorscope.data.images import write_png
from priorscope.data.samples import photo
from priorscope.data.video import write_video
from priorscope.errors import InputError
from priorscope.evaluation.demo_folder import demo_folder
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.tables import print_table
from priorscope_pose.configs import DemoConfig, EvaluateConfig, StylesConfig, check_numbers
from priorscope_pose.data.annotations import Annotations
from priorscope_pose.data.boxes import annotated_boxes
from priorscope_pose.data.coco import read_coco
from priorscope_pose.detectors.base import WholeImage, image_boxes
from priorscope_pose.estimators import Estimator, load_estimator
from priorscope_pose.evaluate import figures_of, predict_all, predictions_of
from priorscope_pose.evaluation.mean_pose import mean_pose
from priorscope_pose.evaluation.pck import head_sizes, pck
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.evaluation_report import rank_people, spread
from priorscope_pose.overlay import draw_poses
from priorscope_pose.people import HELD_OUT_SEED, Truth, draw_clip
from priorscope_pose.poses import Poses
from priorscope_pose.styles import run_styles
from priorscope_pose.tracking import Tracker
from priorscope_pose.training.sources import draw_stills

#: Seeds of the demo's people: beyond those that evaluation and training look at.
FIRST_SEED = HELD_OUT_SEED + 900_000
#: Of two people who walk near the camera.
_CLIP_SEED = FIRST_SEED + 2
#: Of the pictures that the mean pose is taken from.
_USUAL_SEED = 900_000
_USUAL = 60
_FRAMES_A_SECOND = 12.0
_STYLE: Literal["oil"] = "oil"
_SHOWN = 8
_FIGURES = ("AP", "AP .5", "AR")


def demo(config: DemoConfig) -> int:
    """Run ``priorscope pose demo``; returns the exit status."""
    if config.pictures < 1 or config.frames < 0:
        raise InputError(f"--pictures {config.pictures} --frames {config.frames}", remedy="Use 1 or more, 0 or more.")
    check_numbers(config, "keypoint_threshold")
    estimator = load_estimator(config.settings)
    if estimator.skeleton.name != "coco":
        raise InputError(
            f"{estimator.name} finds keypoints of {estimator.skeleton.name}", remedy="The demo needs COCO's 17."
        )
    run = demo_folder(config.out, config, "priorscope pose demo")
    report = Report("People and their joints", f"{estimator.name}: a photograph, drawn people, a clip")
    _photograph(run, report, estimator, config)
    metrics: dict[str, Any] = {"stills": _stills(run, report, estimator, config)}
    if config.frames:
        metrics["clip"] = _clip(run, report, estimator, config)
    report.paragraph(
        "The bundled model is small and has seen drawn people only. Published checkpoints are far better: "
        "`priorscope models pose` lists them."
    )
    report.environment(run).write(run.report_path)
    run.write_metrics(metrics)
    print(f"\nreport: {run.report_path}")
    return 0


def _photograph(run: RunFolder, report: Report, estimator: Estimator, config: DemoConfig) -> None:
    picture = photo("astronaut")
    poses = estimator.pictures([picture], WholeImage()([picture], []), ["astronaut"])[0]
    drawn = draw_poses(picture, poses, threshold=config.keypoint_threshold, boxes=False)
    write_png(run.figures / "astronaut.png", drawn)
    seen = int((poses.scores >= config.keypoint_threshold).sum())
    print(f"astronaut: {seen} of {poses.scores.size} keypoints above {config.keypoint_threshold:g}")
    report.heading("A photograph").figure(
        drawn,
        f"The whole picture is taken for one person. {seen} of {poses.scores.size} keypoints have a score of at least "
        f"{config.keypoint_threshold:g} and are drawn; blue: the person's left. Nobody has marked its joints: look.",
    )


def _stills(run: RunFolder, report: Report, estimator: Estimator, config: DemoConfig) -> list[dict[str, Any]]:
    drawn = draw_stills(run.path / "people", config.pictures, FIRST_SEED, progress=False)
    source = run.path / "people/annotations/person_keypoints_drawn.json"
    run_styles(StylesConfig(source, run.path / "styles", styles=(_STYLE,)))
    restyled = read_coco(run.path / "styles" / _STYLE / "annotations" / source.name)
    usual = mean_pose(draw_stills(run.path / "usual", _USUAL, _USUAL_SEED, progress=False))
    rows: list[dict[str, Any]] = []
    report.heading("Drawn people").paragraph(
        f"{config.pictures} pictures that the model was not trained on, their joints known exactly; each once more as "
        "oil paint. Boxes are the annotated ones. COCO's figures; the mean pose puts the joints where they are on "
        "average in a box, whatever the picture shows."
    )
    galleries = []
    for name, people in (("as drawn", drawn), (_STYLE, restyled)):
        predictions = _predicted(estimator, people, config)
        rows.append({"pictures": name, "method": estimator.name, **_figures(people, predictions)})
        rows.append({"pictures": name, "method": "mean pose", **_figures(people, usual.predictions(people))})
        galleries.append((name, people, predictions))
    print_table(rows, ".3f")
    report.table(rows)
    for name, people, predictions in galleries:
        said = f"{name}: left the truth, right what was found, from the worst to the best."
        report.gallery(spread(rank_people(people, predictions), predictions, _SHOWN), said, width=300)
    return rows


def _predicted(estimator: Estimator, people: Annotations, config: DemoConfig) -> Predictions:
    result = predict_all(estimator, people, annotated_boxes(people), batch_size=config.settings.batch_size)
    if result.failures:
        raise InputError(f"{result.failures[0].key}: {result.failures[0].error}")
    return predictions_of(result.rows, people.skeleton)


def _figures(people: Annotations, predictions: Predictions) -> dict[str, float]:
    found, _ = figures_of(people, predictions, EvaluateConfig("", metric="coco"))
    return {name: found[name] for name in _FIGURES}


def _clip(run: RunFolder, report: Report, estimator: Estimator, config: DemoConfig) -> dict[str, Any]:
    frames, truths = draw_clip(_CLIP_SEED, config.frames, 240, 192, 2, action="walk", occluders=0.0, blur=0.3)
    boxes = [image_boxes([one.box for one in truth.people], np.ones(len(truth.people))) for truth in truths]
    tracker = Tracker(estimator.skeleton, keypoint_threshold=config.keypoint_threshold)
    found = estimator.clip(list(frames), boxes, "clip")
    tracked = [tracker.update(poses, number) for number, poses in enumerate(found)]
    pictures = [
        draw_poses(frame, poses, threshold=config.keypoint_threshold)
        for frame, poses in zip(frames, tracked, strict=True)
    ]
    film = run.figures / "clip.mp4"
    write_video(film, pictures, _FRAMES_A_SECOND)
    share = _within_half_a_head(tracked, truths)
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(6, len(pictures))).round().astype(int))
    report.heading("A clip").figure(
        np.concatenate([pictures[place] for place in chosen], 1),
        f"{len(pictures)} frames of two people who walk, their boxes known, their numbers kept by the tracker. Of the "
        f"joints that are seen {share:.0%} are found within half a head's size (PCKh@0.5). The film is "
        f"figures/{film.name}.",
    )
    print(f"clip: {len(pictures)} frames, PCKh@0.5 {share:.3f}\nfilm: {film}")
    return {"frames": len(pictures), "PCKh@0.5": share}


def _within_half_a_head(found: list[Poses], truths: list[Truth]) -> float:
    """PCKh@0.5 over all frames; only joints that are seen count."""
    people = [one for truth in truths for one in truth.people]
    predicted = np.concatenate([poses.keypoints for poses in found])
    annotated = np.array([one.coco for one in people])
    heads = head_sizes([one.head_box for one in people])
    return pck(predicted, annotated[..., :2], annotated[..., 2] == 2, 0.5, heads, inclusive=True).mean

"""The report of an evaluation: figures, how they were counted, people as they were found, and the worst of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.images import read_image
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.suite import SuiteResult
from priorscope_pose.configs import EvaluateConfig
from priorscope_pose.data.annotations import AnnotatedImage, Annotations, PersonAnnotation
from priorscope_pose.data.boxes import DetectedBoxes
from priorscope_pose.evaluation.oks import similarity_to_annotated
from priorscope_pose.evaluation.people import matched_rows
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.overlay import draw_poses
from priorscope_pose.poses import Poses
from priorscope_pose.skeletons import Skeleton

_SAMPLE = 6
_SIDE = 220
_SHOWN_FROM = 0.2


def write_report(
    run: RunFolder,
    config: EvaluateConfig,
    annotations: Annotations,
    predictions: Predictions,
    figures: dict[str, float],
    about: dict[str, Any],
    result: SuiteResult,
    boxes: DetectedBoxes,
) -> None:
    """Write ``report.html``; an earlier one of this run is replaced."""
    report = Report(
        "Pose evaluation", f"{about['model']} on {config.data} ({config.metric}), {len(annotations)} pictures"
    )
    report.heading("Figures")
    report.table([{"figure": name, "value": value} for name, value in figures.items()])
    report.paragraph(_said(config, about, result, boxes))
    report.table([{"condition": name, "value": str(value)} for name, value in about.items()], "How it was counted.")
    ranked = rank_people(annotations, predictions)
    if ranked:
        similar = np.array([value for _, _, value, _ in ranked])
        shares = [
            {"OKS at least": level, "share of people": float((similar >= level).mean())} for level in (0.5, 0.75, 0.9)
        ]
        report.table(shares, "Annotated people by the similarity of what was found for them; 0 where nobody was.")
        report.heading("People as they were found")
        said = "Left the annotation, right what was found; from the worst to the best, evenly chosen."
        report.gallery(spread(ranked, predictions, _SAMPLE), said, width=2 * _SIDE)
        if config.worst:
            report.heading("The worst")
            report.gallery(
                [_shown(one, predictions) for one in ranked[: config.worst]],
                "Left the annotation, right what was found.",
                width=2 * _SIDE,
            )
    if result.failures:
        report.heading("Failures")
        report.table([{"picture": failure.key, "error": failure.error} for failure in result.failures])
    report.environment(run)
    report.write(run.report_path, overwrite=True)


Ranked = tuple[AnnotatedImage, PersonAnnotation, float, int]


def rank_people(annotations: Annotations, predictions: Predictions) -> list[Ranked]:
    """Annotated people with their picture, the OKS of what was found for them, and its row or -1; worst first."""
    pairs = annotations.usable_people()
    people = [person for _, person in pairs]
    rows = matched_rows(annotations, predictions, people)
    sigmas = annotations.skeleton.sigma_array()
    found: list[Ranked] = []
    for (image, person), row in zip(pairs, rows.tolist(), strict=True):
        value = 0.0
        if row >= 0:
            similar = similarity_to_annotated(
                predictions.keypoints[[row]],
                person.keypoints[None, :, :2],
                person.visible[None],
                np.array([person.area]),
                person.box[None],
                sigmas,
            )
            value = float(similar[0, 0])
        found.append((image, person, value, row))
    return sorted(found, key=lambda one: one[2])


def spread(ranked: Sequence[Ranked], predictions: Predictions, count: int) -> list[tuple[NDArray[np.uint8], str]]:
    """``count`` people, evenly chosen from the worst to the best: as annotated, on the right as found; and captions."""
    places = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
    return [_shown(ranked[place], predictions) for place in places]


def _said(config: EvaluateConfig, about: dict[str, Any], result: SuiteResult, boxes: DetectedBoxes) -> str:
    where = "the annotated boxes" if config.boxes is None else f"the boxes in {config.boxes}"
    lines = [f"Keypoints of {about['people']} people in {where}."]
    if boxes.left_out:
        lines.append(
            f"{boxes.left_out} boxes or people were left out: no area, outside, groups, or below the threshold."
        )
    if "counted_keypoints" in about:
        lines.append(
            f"The model lacks keypoints of the data: only {len(about['counted_keypoints'])} count, so the figures "
            "are not those of the benchmark."
        )
    if config.limit:
        lines.append(
            f"Only the first {config.limit} pictures or videos count, so the figures are not those of the set."
        )
    if result.failures:
        lines.append(f"{len(result.failures)} pictures failed; their people count as missed.")
    return " ".join(lines)


def _shown(one: Ranked, predictions: Predictions) -> tuple[NDArray[np.uint8], str]:
    image, person, similar, row = one
    picture = read_image(image.path)
    skeleton = predictions.skeleton
    truth = _poses(person.keypoints[:, :2], person.keypoints[:, 2] > 0, person.box, skeleton)
    views = [_view(draw_poses(picture, truth, threshold=0.5, boxes=False), person.box)]
    if row >= 0:
        shown = predictions.keypoint_scores[row] >= _SHOWN_FROM
        poses = _poses(predictions.keypoints[row], shown, person.box, skeleton)
        views.append(_view(draw_poses(picture, poses, threshold=0.5, boxes=False), person.box))
    return np.concatenate(views, 1), f"{image.path.name}, OKS {similar:.2f}" + ("" if row >= 0 else ", nobody found")


def _poses(
    points: NDArray[np.float64], shown: NDArray[np.bool_], box: NDArray[np.float64], skeleton: Skeleton
) -> Poses:
    one = np.ones(1, np.float32)
    return Poses(
        points[None].astype(np.float64),
        shown[None].astype(np.float32),
        box[None].astype(np.float32),
        one,
        skeleton.name,
        "",
    )


def _view(picture: NDArray[np.uint8], box: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The part about a box, as a square picture of a fixed size."""
    from PIL import Image

    side = 1.4 * max(box[2] - box[0], box[3] - box[1], 8.0)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    corners = (round(x - side / 2), round(y - side / 2), round(x + side / 2), round(y + side / 2))
    return np.asarray(Image.fromarray(picture).crop(corners).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))

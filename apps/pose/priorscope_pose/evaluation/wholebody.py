"""COCO-WholeBody's figures: OKS AP of the whole body and of each of its parts."""

from __future__ import annotations

from priorscope.errors import InputError
from priorscope_pose.data.annotations import Annotations
from priorscope_pose.evaluation.coco import DetectionArea, coco_figures
from priorscope_pose.evaluation.predictions import Predictions

PARTS = ("body", "foot", "face", "lefthand", "righthand")


def wholebody_figures(
    annotations: Annotations, predictions: Predictions, *, detection_area: DetectionArea = "keypoints"
) -> dict[str, dict[str, float]]:
    """Figures of ``wholebody`` (133 key points), body (17), foot (6), face (68), lefthand and righthand (21 each).

    A part counts for the people in whom one of its key points is labelled. Areas are those of the person, also for a
    part, and detections are medium or large by their 17 body points: COCO-WholeBody's own protocol (xtcocotools).

    Parameters as for :func:`priorscope_pose.evaluation.coco.coco_figures`.

    Returns
    -------
    dict of dict
        Part -> figure -> value in [0, 1].

    Raises
    ------
    InputError
        Annotations of another skeleton.
    """
    if annotations.skeleton.name != "coco_wholebody":
        raise InputError(
            f"annotations have the skeleton {annotations.skeleton.name}, not coco_wholebody", path=annotations.path
        )
    whole = coco_figures(annotations, predictions, detection_area=detection_area)
    parts = {part: coco_figures(annotations, predictions, part=part, detection_area=detection_area) for part in PARTS}
    return {"wholebody": whole, **parts}

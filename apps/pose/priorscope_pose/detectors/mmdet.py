"""Boxes out of what mmdet returns; mmdet itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from priorscope.errors import InputError
from priorscope_pose.data.boxes import ImageBoxes
from priorscope_pose.detectors.base import image_boxes


def boxes_from_mmdet(result: Any, *, person: int = 0) -> ImageBoxes:
    """The people of one image in a result of mmdet.

    Parameters
    ----------
    result : object
        mmdet 3: a ``DetDataSample``, its ``pred_instances``, or a prediction of ``DetInferencer`` (a mapping): boxes
        (N, 4) with scores and labels. mmdet 2: one array (N, 5) a class, or that of the people alone: left, top, right,
        bottom, score. Also plain arrays (N, 4) without scores.
    person : int
        Label of people; 0 in COCO.

    Raises
    ------
    InputError
        Nothing of this kind, or boxes that scores and labels do not match.
    """
    instances = getattr(result, "pred_instances", result)
    boxes = _part(instances, "bboxes")
    if boxes is not None:
        boxes = np.asarray(_plain(boxes), np.float64).reshape(-1, 4)
        scores, labels = (_part(instances, name) for name in ("scores", "labels"))
        values = np.ones(len(boxes)) if scores is None else np.asarray(_plain(scores), np.float64)
        kinds = np.full(len(boxes), person) if labels is None else np.asarray(_plain(labels))
        if values.shape != (len(boxes),) or kinds.shape != (len(boxes),):
            raise InputError(f"{len(boxes)} boxes with {values.size} scores and {kinds.size} labels")
        chosen = kinds == person
        return image_boxes(boxes[chosen], values[chosen])
    if isinstance(result, list | tuple) and result and all(np.ndim(_plain(part)) == 2 for part in result):
        if not 0 <= person < len(result):
            raise InputError(f"a result of {len(result)} classes has no label {person}")
        result = result[person]
    try:
        array = np.asarray(_plain(result), np.float64)
    except (TypeError, ValueError):
        array = np.zeros(())
    if array.ndim != 2 or array.shape[1] not in (4, 5):
        raise InputError(
            f"{type(result).__name__} is no result of mmdet",
            remedy="Give a DetDataSample, its pred_instances, or an array (N, 4) or (N, 5).",
        )
    return image_boxes(array[:, :4], array[:, 4] if array.shape[1] == 5 else np.ones(len(array)))


def _part(instances: Any, name: str) -> Any:
    return instances.get(name) if isinstance(instances, Mapping) else getattr(instances, name, None)


def _plain(value: Any) -> Any:
    """Tensors, also those on a GPU, as numpy arrays."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value

"""Results in files: COCO's list of people, COCO-WholeBody's with parts, PoseTrack's one file a video."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from priorscope.data.files import write_text
from priorscope.data.json_file import read_json
from priorscope.errors import InputError
from priorscope_pose.data.annotations import Annotations, ImageId
from priorscope_pose.data.coco import PART_FIELDS, keypoints_of
from priorscope_pose.data.records import box_array, id_of, number_of, whole_number_of
from priorscope_pose.evaluation.posetrack_file import read_video_results
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.skeletons import COCO_WHOLEBODY, POSETRACK, Skeleton

#: Parts of COCO-WholeBody that may have scores of their own, ``foot_score`` and so on; the body's is ``score``.
PART_SCORES = ("wholebody", "foot", "face", "lefthand", "righthand")


def write_results(
    path: str | PathLike[str], predictions: Predictions, *, boxes: bool = False, overwrite: bool = False
) -> Path:
    """Write COCO's results list: image_id, category_id, keypoints (x, y, score, ...), score, and track_id where known.

    Parameters
    ----------
    path : path-like
    predictions : Predictions
        COCO-WholeBody's key points go to the fields that its tools read: keypoints, foot_kpts, face_kpts, ...
    boxes : bool
        Also write ``bbox``. COCO's tools then take a detection's area from it, not from its key points, which changes
        AP (M) and AP (L): mmpose 1.3.2 does so, SDPose does not.
    overwrite : bool

    Raises
    ------
    InputError
        The file exists, or no boxes are known.
    """
    if boxes and predictions.boxes is None:
        raise InputError("predictions have no boxes to write", path=path)
    skeleton = predictions.skeleton
    values = np.concatenate([predictions.keypoints, predictions.keypoint_scores[..., None]], -1)
    parts = {"keypoints": slice(None)}
    if skeleton.name == COCO_WHOLEBODY.name:
        parts = {
            name: slice(skeleton.parts[part][0], skeleton.parts[part][-1] + 1) for part, name in PART_FIELDS.items()
        }
    rows = []
    for row, image_id in enumerate(predictions.image_ids):
        record: dict[str, Any] = {"image_id": image_id, "category_id": 1}
        record |= {name: values[row, where].reshape(-1).tolist() for name, where in parts.items()}
        record["score"] = float(predictions.scores[row])
        record |= {f"{part}_score": float(its[row]) for part, its in predictions.part_scores.items()}
        if boxes and predictions.boxes is not None:
            left, top, right, bottom = predictions.boxes[row].tolist()
            record["bbox"] = [left, top, right - left, bottom - top]
        if predictions.track_ids is not None:
            record["track_id"] = int(predictions.track_ids[row])
        rows.append(json.dumps(record))
    return write_text(path, "[" + ",\n".join(rows) + "]\n", overwrite=overwrite)


def read_results(path: str | PathLike[str], target: Skeleton | Annotations) -> Predictions:
    """Read results, ours or those of other tools.

    Parameters
    ----------
    path : path-like
        COCO's results list. For PoseTrack also a file of a video, or a folder of them: with ``images`` and
        ``annotations`` (mmpose), or an ``annolist`` (poseval, DCPose).
    target : Skeleton or Annotations
        What they are results for. An ``annolist`` names its frames by their files: annotations are needed then.

    Raises
    ------
    InputError
        No such layout, another number of key points, a record without image_id, keypoints or score, numbers that are
        not finite.
    """
    path = Path(path)
    skeleton = target.skeleton if isinstance(target, Annotations) else target
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise InputError("holds no .json file", path=path, remedy="Results are one file, or one a video.")
        return Predictions.join([_read_file(file, skeleton, target) for file in files])
    return _read_file(path, skeleton, target)


def _read_file(path: Path, skeleton: Skeleton, target: Skeleton | Annotations) -> Predictions:
    content = read_json(path)
    if isinstance(content, list):
        return _read_list(content, skeleton, path)
    if skeleton.name == POSETRACK.name and isinstance(content, dict):
        return read_video_results(content, target if isinstance(target, Annotations) else None, path)
    raise InputError(
        f"holds a JSON {type(content).__name__}, not a list of people",
        path=path,
        remedy="COCO's results are a list of objects with image_id, keypoints and score.",
    )


def _read_list(content: list[Any], skeleton: Skeleton, path: Path) -> Predictions:
    image_ids: list[ImageId] = []
    keypoints, scores, boxes, tracks = [], [], [], []
    parts: dict[str, list[Any]] = {part: [] for part in PART_SCORES}
    for place, record in enumerate(content):
        what = f"result {place}"
        if not isinstance(record, dict):
            raise InputError(f"{what} is no object", path=path)
        if record.get("category_id", 1) != 1:
            continue
        image_ids.append(id_of(record, "image_id", what, path))
        if not record.get("keypoints"):
            raise InputError(f"{what} has no key points", path=path, remedy="These may be the boxes of a detector.")
        keypoints.append(keypoints_of(record, skeleton, what, path))
        scores.append(number_of(record, "score", what, path))
        boxes.append(box_array(record["bbox"], what, path) if record.get("bbox") else None)
        tracks.append(whole_number_of(record, "track_id", what, path))
        for part, values in parts.items():
            name = f"{part}_score"
            values.append(None if record.get(name) is None else number_of(record, name, what, path))
    points = np.stack(keypoints) if keypoints else np.zeros((0, len(skeleton), 3))
    return Predictions(
        skeleton,
        image_ids,
        points[..., :2],
        points[..., 2],
        np.asarray(scores, np.float64),
        boxes=None if any(box is None for box in boxes) or not boxes else np.stack(boxes),  # type: ignore[arg-type]
        track_ids=None if any(track is None for track in tracks) or not tracks else np.asarray(tracks, np.int64),
        part_scores={
            part: np.asarray(values, np.float64)
            for part, values in parts.items()
            if values and not any(value is None for value in values)
        },
        path=path,
    )

"""OpenPose's JSON: body of 18 or 25 points with a neck, and face, hands and feet of whole-body models.

Points are found by the names of their key points, so every skeleton that has arms and legs can be written; what it
lacks is missing in the file. A missing point is x = y = score = 0, as OpenPose writes it.

Sources: OpenPose's documentation of its output (github.com/CMU-Perceptual-Computing-Lab/openpose, doc/02_output.md).
The neck is the middle of the shoulders, the mid-hip that of the hips, each with the lower score of both. Of the face's
70 points, COCO-WholeBody has the first 68 in the same order; the last two, the pupils, are the body's eyes.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import write_text
from priorscope.errors import InputError
from priorscope_pose.poses import Poses
from priorscope_pose.skeletons import Skeleton, skeleton

Body = Literal[18, 25]
_ARMS = tuple(f"{side}_{joint}" for side in ("right", "left") for joint in ("shoulder", "elbow", "wrist"))
_RIGHT_LEG, _LEFT_LEG = (tuple(f"{side}_{joint}" for joint in ("hip", "knee", "ankle")) for side in ("right", "left"))
_HEAD = ("right_eye", "left_eye", "right_ear", "left_ear")
_FEET = tuple(f"{side}_{point}" for side in ("left", "right") for point in ("big_toe", "small_toe", "heel"))
#: The points of the layout that OpenPose calls COCO, which ControlNet uses.
BODY_18: tuple[str, ...] = ("nose", "neck", *_ARMS, *_RIGHT_LEG, *_LEFT_LEG, *_HEAD)
#: The points of OpenPose's own layout, BODY_25.
BODY_25: tuple[str, ...] = ("nose", "neck", *_ARMS, "mid_hip", *_RIGHT_LEG, *_LEFT_LEG, *_HEAD, *_FEET)
_BETWEEN = {"neck": ("left_shoulder", "right_shoulder"), "mid_hip": ("left_hip", "right_hip")}
_FACE = (*(f"face-{point}" for point in range(68)), "right_eye", "left_eye")
_HAND = (
    "hand_root",
    *(
        f"{finger}{joint}"
        for finger in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
        for joint in range(1, 5)
    ),
)


def names_of(part: str, body: Body = 18) -> tuple[str, ...]:
    """Names of a part's points in OpenPose's order: of ``body``, ``face``, ``left_hand``, ``right_hand``, ``feet``."""
    if part == "body":
        if body not in (18, 25):
            raise InputError(f"no body of {body} points", remedy="OpenPose has 18 and 25.")
        return BODY_18 if body == 18 else BODY_25
    if part == "face":
        return _FACE
    return _FEET if part == "feet" else tuple(f"{part.removesuffix('_hand')}_{name}" for name in _HAND)


def has_part(which: Skeleton, part: str) -> bool:
    """Whether a skeleton has points of a part besides those of the body."""
    return any(name in which.keypoints for name in names_of(part) if name not in BODY_18)


def part_points(poses: Poses, part: str, *, body: Body = 18, threshold: float = 0.0) -> NDArray[np.float64]:
    """Points (N, P, 3) of a part: x, y in pixels, score cut to [0, 1]; all 0 where missing.

    Parameters
    ----------
    poses : Poses
    part : str
        As for :func:`names_of`.
    body : {18, 25}
    threshold : float
        Points with a lower score, or none above 0, are missing.
    """
    which = skeleton(poses.skeleton)
    values = np.concatenate([poses.keypoints, poses.scores[..., None].astype(np.float64)], -1)
    points = np.zeros((len(poses), len(names_of(part, body)), 3))
    for place, name in enumerate(names_of(part, body)):
        if name in which.keypoints:
            points[:, place] = values[:, which.index(name)]
        elif name in _BETWEEN and set(_BETWEEN[name]) <= set(which.keypoints):
            one, other = (values[:, which.index(side)] for side in _BETWEEN[name])
            points[:, place, :2] = (one[:, :2] + other[:, :2]) / 2
            points[:, place, 2] = np.minimum(one[:, 2], other[:, 2])
    points[(points[..., 2] < threshold) | (points[..., 2] <= 0)] = 0
    points[..., 2] = np.minimum(points[..., 2], 1)
    return points


def body_points(poses: Poses, body: Body = 18, *, threshold: float = 0.0) -> NDArray[np.float64]:
    """The body's points (N, 18 or 25, 3); see :func:`part_points`."""
    return part_points(poses, "body", body=body, threshold=threshold)


def openpose_document(
    poses: Poses, width: int, height: int, *, body: Body = 18, threshold: float = 0.0
) -> dict[str, Any]:
    """What OpenPose's JSON holds for one image.

    ``people``, each with ``pose_keypoints_2d`` (3 numbers a point) and, empty where the model has none of them,
    ``face_keypoints_2d`` (70 points), ``hand_left_keypoints_2d`` and ``hand_right_keypoints_2d`` (21 each). With the
    body of 18 points, feet are in ``foot_keypoints_2d`` (left big toe, small toe, heel, right ...). ``canvas_width``
    and ``canvas_height`` are what ControlNet's tools ask for.

    Parameters
    ----------
    poses : Poses
    width, height : int
        Of the image, in pixels.
    body : {18, 25}
    threshold : float
        Keypoints with a lower score are missing.
    """
    which = skeleton(poses.skeleton)
    fields = {"pose": "body", "face": "face", "hand_left": "left_hand", "hand_right": "right_hand"}
    if body == 18 and has_part(which, "feet"):
        fields["foot"] = "feet"
    parts = {
        field: part_points(poses, part, body=body, threshold=threshold)
        for field, part in fields.items()
        if part == "body" or has_part(which, part)
    }
    people = []
    for place in range(len(poses)):
        person: dict[str, Any] = {"person_id": [-1 if poses.ids is None else int(poses.ids[place])]}
        for field in fields:
            values = parts[field][place].reshape(-1) if field in parts else np.zeros(0)
            person[f"{field}_keypoints_2d"] = [round(float(value), 3) for value in values]
        empty: dict[str, Any] = {f"{field}_keypoints_3d": [] for field in ("pose", "face", "hand_left", "hand_right")}
        people.append(person | empty)
    return {"version": 1.3, "people": people, "canvas_width": width, "canvas_height": height}


def write_openpose(
    path: str | PathLike[str],
    poses: Poses,
    width: int,
    height: int,
    *,
    body: Body = 18,
    threshold: float = 0.0,
    overwrite: bool = False,
) -> Path:
    """Write :func:`openpose_document`. OpenPose calls such files ``NAME_keypoints.json``."""
    document = openpose_document(poses, width, height, body=body, threshold=threshold)
    return write_text(path, json.dumps(document) + "\n", overwrite=overwrite)

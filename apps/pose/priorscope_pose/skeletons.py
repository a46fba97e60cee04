"""What each data set calls a body: key points, which of them swap in a mirror, how well people place them.

The numbers are facts of the data sets, as mmpose's dataset configs state them (Apache-2.0): sigmas are COCO's standard
deviations of human annotation, relative to the square root of the person's area.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError


@dataclass(frozen=True)
class Skeleton:
    """The key points of one data set, K in number.

    Parameters
    ----------
    name : str
    keypoints : tuple of str
        Names, in the order of the data set's files.
    sigmas : tuple of float
        OKS falls to exp(-1/2) at a distance of 2 sigma sqrt(area).
    flip_indices : tuple of int
        ``mirrored[k] = seen[flip_indices[k]]`` for key points (or heatmaps) of an image flipped left to right.
    joint_weights : tuple of float
        What some training losses weight the key points with; 1 for most.
    edges : tuple of (int, int)
        Limbs to draw.
    parts : mapping of str to tuple of int
        Named groups of key points, such as ``upper`` and ``lower``; of COCO-WholeBody also body, foot, face, lefthand
        and righthand.
    """

    name: str
    keypoints: tuple[str, ...]
    sigmas: tuple[float, ...]
    flip_indices: tuple[int, ...]
    joint_weights: tuple[float, ...]
    edges: tuple[tuple[int, int], ...]
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keypoints)

    def __post_init__(self) -> None:
        lengths = {len(self.keypoints), len(self.sigmas), len(self.flip_indices), len(self.joint_weights)}
        if len(lengths) > 1:
            raise InputError(f"skeleton {self.name!r} has lists of {sorted(lengths)} key points")
        object.__setattr__(self, "parts", MappingProxyType(dict(self.parts)))

    def index(self, keypoint: str) -> int:
        """Place of a key point by name.

        Raises
        ------
        InputError
            The skeleton has none of that name.
        """
        if keypoint not in self.keypoints:
            raise InputError(
                f"{self.name} has no key point {keypoint!r}", remedy=f"It has {', '.join(self.keypoints[:20])}."
            )
        return self.keypoints.index(keypoint)

    def sigma_array(self, part: str | None = None) -> NDArray[np.float64]:
        """Sigmas [K], or those of a part."""
        sigmas = np.asarray(self.sigmas, np.float64)
        return sigmas if part is None else sigmas[list(self.parts[part])]


def _mirrored(names: tuple[str, ...]) -> tuple[int, ...]:
    """Flip indices of names that begin with ``left_`` and ``right_``; others stay."""

    def partner(name: str) -> str:
        if name.startswith("left_"):
            return "right_" + name.removeprefix("left_")
        return "left_" + name.removeprefix("right_") if name.startswith("right_") else name

    return tuple(names.index(partner(name)) for name in names)


def _both(*names: str) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for name in names for side in ("left", "right"))


_LIMBS = _both("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_COCO = ("nose", *_both("eye", "ear"), *_LIMBS)
_LIMB_SIGMAS = (0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089)
_COCO_SIGMAS = (0.026, 0.025, 0.025, 0.035, 0.035, *_LIMB_SIGMAS)
_COCO_WEIGHTS = (1.0,) * 7 + (1.2, 1.2, 1.5, 1.5, 1.0, 1.0, 1.2, 1.2, 1.5, 1.5)
_TRUNK_AND_LIMBS = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12)),
    *((5, 6), (5, 7), (6, 8), (7, 9), (8, 10)),
)
_COCO_EDGES = (*_TRUNK_AND_LIMBS, (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6))
_UPPER_LOWER = {"upper": tuple(range(11)), "lower": tuple(range(11, 17))}


def _seventeen(name: str) -> Skeleton:
    return Skeleton(name, _COCO, _COCO_SIGMAS, _mirrored(_COCO), _COCO_WEIGHTS, _COCO_EDGES, _UPPER_LOWER)


def _wholebody() -> Skeleton:
    feet = tuple(f"{side}_{name}" for side in ("left", "right") for name in ("big_toe", "small_toe", "heel"))
    fingers = tuple(
        f"{f}{i}" for f in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger") for i in "1234"
    )
    hands = tuple(f"{side}_{name}" for side in ("left", "right") for name in ("hand_root", *fingers))
    names = (*_COCO, *feet, *(f"face-{i}" for i in range(68)), *hands)
    body_and_others = _mirrored((*_COCO, *feet, *hands))
    flip = [i if i < 23 else i + 68 for i in body_and_others]
    flip[23:23] = [23 + i for i in _FACE_MIRROR]
    edges = [*_COCO_EDGES, *((15, i) for i in (17, 18, 19)), *((16, i) for i in (20, 21, 22))]
    for root in (91, 112):
        for finger in range(5):
            chain = (root, *range(root + 1 + 4 * finger, root + 5 + 4 * finger))
            edges += pairwise(chain)
    return Skeleton(
        "coco_wholebody",
        names,
        (*_COCO_SIGMAS, *_FOOT_SIGMAS, *_FACE_SIGMAS, *_HAND_SIGMAS, *_HAND_SIGMAS),
        tuple(flip),
        (1.0,) * 133,
        tuple(edges),
        {
            "upper": tuple(range(11)),
            "lower": tuple(range(11, 23)),
            "body": tuple(range(17)),
            "foot": tuple(range(17, 23)),
            "face": tuple(range(23, 91)),
            "lefthand": tuple(range(91, 112)),
            "righthand": tuple(range(112, 133)),
        },
    )


_FOOT_SIGMAS = (0.068, 0.066, 0.066, 0.092, 0.094, 0.094)
_FACE_SIGMAS = (
    *(
        0.042,
        0.043,
        0.044,
        0.043,
        0.040,
        0.035,
        0.031,
        0.025,
        0.020,
        0.023,
        0.029,
        0.032,
        0.037,
        0.038,
        0.043,
        0.041,
        0.045,
    ),
    *(0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013, 0.015),
    *(0.009, 0.007, 0.007, 0.007, 0.012, 0.009, 0.008, 0.016, 0.010),
    *(0.017, 0.011, 0.009, 0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034),
    *(0.008, 0.008, 0.009, 0.008, 0.008, 0.007, 0.010, 0.008, 0.009, 0.009),
    *(0.009, 0.007, 0.007, 0.008, 0.011, 0.008, 0.008, 0.008, 0.010, 0.008),
)
_HAND_SIGMAS = (
    *(0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024),
    *(0.022, 0.026, 0.017, 0.021, 0.021, 0.032, 0.020, 0.019, 0.022, 0.031),
)
#: Mirror of the 68 face points: outline, brows, bridge, nostrils, eyes, outer and inner lips.
_FACE_MIRROR = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *range(54, 47, -1),
    *range(59, 54, -1),
    *range(64, 59, -1),
    *(67, 66, 65),
)
_POSETRACK = ("nose", "head_bottom", "head_top", "left_ear", "right_ear", *_LIMBS)
_CROWDPOSE = (*_LIMBS, "top_head", "neck")
_JHMDB = (
    *("neck", "belly", "head", "right_shoulder", "left_shoulder", "right_hip", "left_hip", "right_elbow", "left_elbow"),
    *("right_knee", "left_knee", "right_wrist", "left_wrist", "right_ankle", "left_ankle"),
)

COCO = _seventeen("coco")
HUMANART = _seventeen("humanart")
COCO_WHOLEBODY = _wholebody()
#: 17 places in a file, 15 of them annotated: both ears are always empty.
POSETRACK = Skeleton(
    "posetrack",
    _POSETRACK,
    _COCO_SIGMAS,
    _mirrored(_POSETRACK),
    _COCO_WEIGHTS,
    (*_TRUNK_AND_LIMBS, (0, 1), (0, 2), (1, 5), (1, 6)),
    {**_UPPER_LOWER, "annotated": (0, 1, 2, *range(5, 17))},
)
CROWDPOSE = Skeleton(
    "crowdpose",
    _CROWDPOSE,
    (*_LIMB_SIGMAS, 0.079, 0.079),
    _mirrored(_CROWDPOSE),
    (0.2, 0.2, 0.2, 1.3, 1.5, 0.2, 1.3, 1.5, 0.2, 0.2, 0.5, 0.2, 0.2, 0.5),
    (
        *((10, 8), (8, 6), (11, 9), (9, 7), (6, 7), (0, 6), (1, 7)),
        *((0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (12, 13), (1, 13), (0, 13)),
    ),
    {"upper": (0, 1, 2, 3, 4, 5, 12, 13), "lower": tuple(range(6, 12))},
)
JHMDB = Skeleton(
    "jhmdb",
    _JHMDB,
    (0.025, 0.107, 0.025, 0.079, 0.079, 0.107, 0.107, 0.072, 0.072, 0.087, 0.087, 0.062, 0.062, 0.089, 0.089),
    _mirrored(_JHMDB),
    (1.0,) * 7 + (1.2,) * 4 + (1.5,) * 4,
    (
        *((13, 9), (9, 5), (5, 1), (1, 6), (6, 10), (10, 14), (1, 0)),
        *((0, 2), (0, 3), (3, 7), (7, 11), (0, 4), (4, 8), (8, 12)),
    ),
    {"upper": (0, 1, 2, 3, 4, 7, 8, 11, 12), "lower": (5, 6, 9, 10, 13, 14)},
)
SKELETONS: Mapping[str, Skeleton] = MappingProxyType(
    {s.name: s for s in (COCO, COCO_WHOLEBODY, HUMANART, POSETRACK, CROWDPOSE, JHMDB)}
)


def skeleton(name: str | Skeleton) -> Skeleton:
    """The skeleton of that name; one that is given comes back.

    Raises
    ------
    InputError
        There is none of that name.
    """
    if isinstance(name, Skeleton):
        return name
    if name not in SKELETONS:
        raise InputError(f"no skeleton {name!r}", remedy=f"There are {', '.join(SKELETONS)}.")
    return SKELETONS[name]

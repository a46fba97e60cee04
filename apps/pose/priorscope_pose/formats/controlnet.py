"""Skeletons on black as ControlNet's pose models were trained on them: OpenPose's drawing of 18 points.

Limb k and point k have the hue 20 k degrees, limbs at 0.6 of the brightness; hands are lines of all hues with blue
points, faces white points. At a shorter side of 512 pixels limbs are 8 pixels wide, and everything grows with the
picture, so that it looks the same to a model whatever the resolution.
"""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from priorscope_pose.formats.openpose import BODY_18, body_points, has_part, part_points
from priorscope_pose.poses import Poses
from priorscope_pose.skeletons import skeleton

if TYPE_CHECKING:
    from PIL import ImageDraw

_ENDS = (
    *(("neck", "right_shoulder"), ("neck", "left_shoulder")),
    *(("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist")),
    *(("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist")),
    *(("neck", "right_hip"), ("right_hip", "right_knee"), ("right_knee", "right_ankle")),
    *(("neck", "left_hip"), ("left_hip", "left_knee"), ("left_knee", "left_ankle")),
    *(("neck", "nose"), ("nose", "right_eye"), ("right_eye", "right_ear"), ("nose", "left_eye")),
    ("left_eye", "left_ear"),
)
#: The limbs by places in the body of 18 points, in the order of their colours.
LIMBS: tuple[tuple[int, int], ...] = tuple((BODY_18.index(one), BODY_18.index(other)) for one, other in _ENDS)
_FINGERS = tuple(
    (0 if joint == 1 else 4 * finger + joint - 1, 4 * finger + joint) for finger in range(5) for joint in range(1, 5)
)
_HAND_POINTS = (0, 0, 255)
_LIMB_BRIGHTNESS = 0.6
_AT = 512.0


def hue(turn: float) -> tuple[int, int, int]:
    """The pure colour at a part of a turn, 0 red, 1/3 green; RGB in 0 ... 255."""
    red, green, blue = (round(255 * value) for value in colorsys.hsv_to_rgb(turn, 1, 1))
    return red, green, blue


def controlnet_image(
    poses: Poses, width: int, height: int, *, threshold: float = 0.3, hands: bool = True, face: bool = True
) -> NDArray[np.uint8]:
    """Draw the poses on black.

    Parameters
    ----------
    poses : Poses
        Of a skeleton with arms and legs; feet are not drawn.
    width, height : int
        Of the picture, that of the image the poses are from.
    threshold : float
        Keypoints with a lower score are not drawn.
    hands, face : bool
        Of whole-body poses.

    Returns
    -------
    uint8 array (height, width, 3), RGB
    """
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(canvas)
    unit = min(width, height) / _AT
    which = skeleton(poses.skeleton)
    body = body_points(poses, threshold=threshold)
    for person in body:
        for place, (one, other) in enumerate(LIMBS):
            if person[one, 2] > 0 and person[other, 2] > 0:
                bright = hue(place / 18)
                dim = tuple(int(value * _LIMB_BRIGHTNESS) for value in bright)
                _ellipse(draw, person[one, :2], person[other, :2], 4 * unit, dim)
    for person in body:
        for place, point in enumerate(person):
            _dot(draw, point, 4 * unit, hue(place / 18))
    for part in ("left_hand", "right_hand"):
        if hands and has_part(which, part):
            for hand in part_points(poses, part, threshold=threshold):
                _hand(draw, hand, unit)
    if face and has_part(which, "face"):
        for point in part_points(poses, "face", threshold=threshold).reshape(-1, 3):
            _dot(draw, point, 3 * unit, (255, 255, 255))
    return np.asarray(canvas).copy()


def _hand(draw: ImageDraw.ImageDraw, hand: NDArray[np.float64], unit: float) -> None:
    for place, (one, other) in enumerate(_FINGERS):
        if hand[one, 2] > 0 and hand[other, 2] > 0:
            ends = [tuple(hand[one, :2]), tuple(hand[other, :2])]
            draw.line(ends, fill=hue(place / len(_FINGERS)), width=max(1, round(2 * unit)))
    for point in hand:
        _dot(draw, point, 4 * unit, _HAND_POINTS)


def _dot(draw: ImageDraw.ImageDraw, point: NDArray[np.float64], radius: float, colour: tuple[int, int, int]) -> None:
    if point[2] > 0:
        x, y = point[:2]
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _ellipse(
    draw: ImageDraw.ImageDraw, one: NDArray[np.float64], other: NDArray[np.float64], radius: float, colour: tuple
) -> None:
    """An ellipse that has both points at its ends and ``radius`` as its other half axis."""
    middle, half = (one + other) / 2, (other - one) / 2
    length = float(np.hypot(*half))
    across = np.array([-half[1], half[0]]) / length * radius if length else np.array([0.0, radius])
    turn = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    outline = middle + np.cos(turn)[:, None] * half + np.sin(turn)[:, None] * across
    draw.polygon([tuple(point) for point in outline], fill=colour)

"""Skeletons drawn over the picture they were found in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from priorscope.data.images import check_rgb
from priorscope_pose.formats.controlnet import hue
from priorscope_pose.poses import Poses
from priorscope_pose.skeletons import Skeleton, skeleton

if TYPE_CHECKING:
    from PIL import ImageDraw

Colour = tuple[int, int, int]
#: What a point or a limb of each side is drawn in; told apart by people who are colour-blind, too.
COLOURS: dict[str, Colour] = {"left": (30, 144, 255), "right": (255, 140, 0), "middle": (240, 240, 240)}
_OUTLINE = (0, 0, 0)
_GOLDEN = 0.618034
# Beyond so many pixels, edges are drawn without smoothing: it costs four times the picture's memory.
_SMOOTH_PIXELS = 9_000_000


def draw_poses(
    image: NDArray[np.uint8], poses: Poses, *, threshold: float = 0.3, boxes: bool = True
) -> NDArray[np.uint8]:
    """The picture with the people's skeletons: the person's left side blue, the right side orange, the middle white.

    Parameters
    ----------
    image : uint8 array (H, W, 3), RGB
    poses : Poses
        In its pixels; may be empty.
    threshold : float
        Keypoints with a lower score, and limbs that end in one, are not drawn.
    boxes : bool
        Also the boxes, and where people have numbers, these.

    Returns
    -------
    uint8 array (H, W, 3)
        Another array; pixels that nothing is drawn on are as they were.
    """
    from PIL import Image, ImageDraw

    check_rgb(image)
    if not len(poses):
        return image.copy()
    height, width = image.shape[:2]
    factor = 2 if height * width <= _SMOOTH_PIXELS else 1
    canvas = Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    which = skeleton(poses.skeleton)
    if boxes:
        for place in range(len(poses)):
            _box(draw, poses, place, factor, min(height, width))
    # the best last, over the others
    for place in np.argsort(poses.box_scores, kind="stable"):
        points = (poses.keypoints[place] + 0.5) * factor - 0.5
        shown = (poses.scores[place] >= threshold) & np.isfinite(points).all(1)
        unit = _stroke(poses.boxes[place], min(height, width)) * factor
        _person(draw, points, shown, which, unit)
    return np.asarray(canvas.reduce(factor) if factor > 1 else canvas).copy()


def side_of(name: str) -> str:
    """``left``, ``right`` or ``middle``: where a keypoint of that name is."""
    return next((side for side in ("left", "right") if name.startswith(f"{side}_")), "middle")


def _stroke(box: NDArray[np.float32], shorter: int) -> float:
    """Width of a limb in pixels of the picture: by the person's size, but seen in any picture."""
    size = float(np.sqrt(max((box[2] - box[0]) * (box[3] - box[1]), 0)))
    return min(max(0.018 * size, 1.5, shorter / 400), max(shorter / 60, 1.5))


def _fine(name: str) -> bool:
    """Points that lie close together: of face and hands."""
    return name.startswith("face-") or name.endswith("hand_root") or (name[-1:].isdigit() and side_of(name) != "middle")


def _person(
    draw: ImageDraw.ImageDraw, points: NDArray[np.float64], shown: NDArray[np.bool_], which: Skeleton, unit: float
) -> None:
    names = which.keypoints
    limbs = [(one, other) for one, other in which.edges if shown[one] and shown[other]]
    widths = [unit * (0.4 if _fine(names[one]) or _fine(names[other]) else 1) for one, other in limbs]
    lines = [[tuple(points[one]), tuple(points[other])] for one, other in limbs]
    for line, width in zip(lines, widths, strict=True):
        draw.line(line, fill=_OUTLINE, width=max(1, round(width * 1.6)))
    for line, width, (one, other) in zip(lines, widths, limbs, strict=True):
        sides = {side_of(names[one]), side_of(names[other])}
        draw.line(line, fill=COLOURS[sides.pop() if len(sides) == 1 else "middle"], width=max(1, round(width)))
    for place in np.flatnonzero(shown):
        radius = unit * (0.4 if _fine(names[place]) else 0.95)
        x, y = points[place]
        for grown, colour in ((1.4, _OUTLINE), (1.0, COLOURS[side_of(names[place])])):
            reach = max(radius * grown, 0.5)
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)


def _box(draw: ImageDraw.ImageDraw, poses: Poses, place: int, factor: int, shorter: int) -> None:
    from PIL import ImageFont

    colour = COLOURS["middle"] if poses.ids is None else hue(float(poses.ids[place] * _GOLDEN % 1))
    left, top, right, bottom = (round(float(value)) * factor for value in poses.boxes[place])
    ends = (left, top, right + factor - 1, bottom + factor - 1)
    draw.rectangle(ends, outline=colour, width=factor * max(1, round(shorter / 400)))
    if poses.ids is None:
        return
    text, size = str(int(poses.ids[place])), max(9, shorter // 28) * factor
    font = ImageFont.load_default(size)
    x, y = max(left, 0), max(top - size * 1.25, 0)
    x2, y2 = x + draw.textlength(text, font) + size * 0.5, y + size * 1.25
    draw.rectangle((x, y, x2, y2), fill=colour)
    bright = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2] > 100
    draw.text((x + size * 0.25, y), text, fill=_OUTLINE if bright else COLOURS["middle"], font=font)

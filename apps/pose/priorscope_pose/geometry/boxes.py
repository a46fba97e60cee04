"""Person boxes: their two layouts, what makes one usable, and the region of the image that a crop shows.

A box is (x1, y1, x2, y2) in pixels of the image, the centre of the first pixel at (0, 0), unless a name says
``xywh`` (COCO's layout: left, top, width, height).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError

#: Share by which the evaluated crop is larger than the box.
PADDING = 1.25


def xywh_to_xyxy(boxes: ArrayLike) -> NDArray[np.float32]:
    """[N, 4] left, top, width, height -> x1, y1, x2, y2."""
    boxes = _boxes(boxes)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def xyxy_to_xywh(boxes: ArrayLike) -> NDArray[np.float32]:
    """[N, 4] x1, y1, x2, y2 -> left, top, width, height."""
    boxes = _boxes(boxes)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def clip_boxes(boxes: ArrayLike, width: int, height: int) -> NDArray[np.float32]:
    """Boxes [N, 4] moved into [0, width - 1] x [0, height - 1].

    The published evaluation does this with annotated boxes and not with those of a detector (mmpose's COCO data set).
    """
    limits = np.array([width - 1, height - 1, width - 1, height - 1], np.float32)
    return np.clip(_boxes(boxes), np.float32(0), limits)


def usable_boxes(boxes: ArrayLike, width: int, height: int) -> NDArray[np.bool_]:
    """Which boxes [N, 4] have finite corners, a positive area, and a part inside the image.

    A predictor that gets boxes from a detector drops the others; :func:`check_boxes` is for boxes a user gave.
    """
    boxes = _boxes(boxes)
    x1, y1, x2, y2 = boxes.T
    inside = (x1 < width) & (y1 < height) & (x2 > 0) & (y2 > 0)
    return np.isfinite(boxes).all(1) & (x2 > x1) & (y2 > y1) & inside


def check_boxes(boxes: ArrayLike, width: int, height: int) -> NDArray[np.float32]:
    """The boxes [N, 4] as float32.

    Raises
    ------
    InputError
        Unless all are usable (see :func:`usable_boxes`); names the first that is not.
    """
    boxes = _boxes(boxes)
    usable = usable_boxes(boxes, width, height)
    if not usable.all():
        index = int(np.argmin(usable))
        corners = ", ".join(f"{value:g}" for value in boxes[index])
        x1, y1, x2, y2 = boxes[index]
        if not np.isfinite(boxes[index]).all():
            wrong = "is not finite"
        elif x2 <= x1 or y2 <= y1:
            wrong = "has no area"
        else:
            wrong = f"lies outside the image of {width} x {height} pixels"
        raise InputError(f"box {index} ({corners}) {wrong}", remedy="Give x1, y1, x2, y2 in pixels of the image.")
    return boxes


def center_scale(
    boxes: ArrayLike, size: tuple[int, int], padding: float = PADDING
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Centre and size of the image region that a crop shows.

    The box is enlarged by ``padding``; then its shorter side grows until the region has the crop's aspect ratio.

    Parameters
    ----------
    boxes : array_like, [N, 4]
        x1, y1, x2, y2 in pixels.
    size : (width, height)
        Of the crop, in pixels.
    padding : float
        1 takes the box as it is.

    Returns
    -------
    center, scale : ndarray, float32, [N, 2]
        (x, y) and (width, height) in pixels of the image. mmpose's ``bbox_center`` and ``bbox_scale``; also in
        float32, for the pixels of the crop depend on the rounding.
    """
    boxes = _boxes(boxes)
    aspect = size[0] / size[1]
    center = (boxes[:, :2] + boxes[:, 2:]) * np.float32(0.5)
    w, h = ((boxes[:, 2:] - boxes[:, :2]) * np.float32(padding)).T
    wide = w > h * aspect
    scale = np.stack([np.where(wide, w, h * aspect), np.where(wide, w / aspect, h)], 1)
    return center, scale.astype(np.float32)


def _boxes(boxes: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(boxes, dtype=np.float32)
    if array.size == 0:
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise InputError(f"boxes of shape {list(array.shape)}", remedy="Give [N, 4]: four numbers a person.")
    return array

"""Oriented boxes and their conventions.

Inside the app a box is (x, y, z, l, w, h, yaw): centre and full sizes in metres, yaw in radians, counter-clockwise
about z, in the ego's LiDAR frame (x ahead, y left, z up). Published code uses other layouts; the functions here have
their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import torch
from torch import Tensor

from priorscope.errors import InputError

# Signs of (l, w, h) / 2 at the eight corners, in OpenCOOD's order: round the floor from the front right, then the roof.
_SIGNS = ((1, -1, -1), (1, 1, -1), (-1, 1, -1), (-1, -1, -1), (1, -1, 1), (1, 1, 1), (-1, 1, 1), (-1, -1, 1))
_HWL = [0, 1, 2, 5, 4, 3, 6]


def check_boxes(boxes: Tensor, name: str = "boxes") -> Tensor:
    """Refuse what is no set of boxes.

    Parameters
    ----------
    boxes : Tensor
        To be (N, 7), finite, with sizes above 0.
    name : str
        What the message calls them.

    Returns
    -------
    Tensor
        The same boxes.

    Raises
    ------
    InputError
        Naming the first wrong box.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 7:
        raise InputError(
            f"{name} have shape {tuple(boxes.shape)}", remedy="Give (N, 7): x, y, z of the centre, l, w, h, yaw."
        )
    for fact, wrong in (
        ("is not finite", ~boxes.isfinite().all(1)),
        ("has a size of 0 or less", ~(boxes[:, 3:6] > 0).all(1)),
    ):
        if wrong.any():
            index = int(wrong.nonzero()[0])
            values = ", ".join(f"{value:g}" for value in boxes[index].tolist())
            raise InputError(
                f"{name}[{index}] {fact}: ({values}); {int(wrong.sum())} of {len(boxes)} are so",
                remedy="Leave such boxes out, or look where they come from (x, y, z, l, w, h, yaw).",
            )
    return boxes


def from_hwl(boxes: Tensor) -> Tensor:
    """Ours from published (x, y, z, h, w, l, yaw), the order of anchors and regression in OpenCOOD and CoAlign.

    Parameters
    ----------
    boxes : Tensor
        (..., 7).

    Returns
    -------
    Tensor
        (..., 7), with l, w, h.
    """
    return boxes[..., _HWL]


def to_hwl(boxes: Tensor) -> Tensor:
    """Published (x, y, z, h, w, l, yaw) from ours; the inverse of :func:`from_hwl`."""
    return boxes[..., _HWL]


def limit_period(value: Tensor, offset: float = 0.5, period: float = 2 * pi) -> Tensor:
    """Shift by whole periods into [-offset * period, (1 - offset) * period).

    Parameters
    ----------
    value : Tensor
        Angles, in radians.
    offset : float
        0.5: symmetric about 0; 0: from 0 on.
    period : float
        In radians.

    Returns
    -------
    Tensor
        Of the shape of ``value``.
    """
    return value - torch.floor(value / period + offset) * period


def corners(boxes: Tensor) -> Tensor:
    """Corners of boxes.

    Parameters
    ----------
    boxes : Tensor
        (..., 7).

    Returns
    -------
    Tensor
        (..., 8, 3): the floor from the front right corner on, counter-clockwise as seen from above, then the roof, as
        in OpenCOOD's ``boxes_to_corners_3d``.
    """
    half = boxes.new_tensor(_SIGNS) * boxes[..., None, 3:6] / 2
    cos, sin = torch.cos(boxes[..., 6:7]), torch.sin(boxes[..., 6:7])
    x = half[..., 0] * cos - half[..., 1] * sin
    y = half[..., 0] * sin + half[..., 1] * cos
    return torch.stack([x, y, half[..., 2]], -1) + boxes[..., None, :3]


def bev_corners(boxes: Tensor) -> Tensor:
    """Corners in bird's-eye view, (..., 4, 2), counter-clockwise from the front right."""
    return corners(boxes)[..., :4, :2]


def boxes_from_corners(points: Tensor) -> Tensor:
    """Boxes whose corners these are; for corners of a tilted box, the upright box with its mean edges and heading.

    The heading is that of the sum of the four edges along the box, so that edges near the heading of pi do not cancel,
    as they do in OpenCOOD's mean of four angles.

    Parameters
    ----------
    points : Tensor
        (..., 8, 3), in the order of :func:`corners`.

    Returns
    -------
    Tensor
        (..., 7), yaw in (-pi, pi].
    """
    along = points[..., [0, 1, 4, 5], :] - points[..., [3, 2, 7, 6], :]
    across = points[..., [1, 2, 5, 6], :2] - points[..., [0, 3, 4, 7], :2]
    up = points[..., 4:, 2] - points[..., :4, 2]
    sizes = [along[..., :2].norm(dim=-1).mean(-1), across.norm(dim=-1).mean(-1), up.abs().mean(-1)]
    heading = along.sum(-2)
    yaw = torch.atan2(heading[..., 1], heading[..., 0])
    return torch.cat([points.mean(-2), torch.stack([*sizes, yaw], -1)], -1)


def standup(boxes: Tensor) -> Tensor:
    """Smallest axis-parallel rectangles round boxes in bird's-eye view.

    Parameters
    ----------
    boxes : Tensor
        (..., 7).

    Returns
    -------
    Tensor
        (..., 4): x1, y1, x2, y2.
    """
    return standup_of_corners(corners(boxes))


def standup_of_corners(points: Tensor) -> Tensor:
    """The same from corners (..., 8, 3) or (..., 4, 2)."""
    plane = points[..., :2]
    return torch.cat([plane.amin(-2), plane.amax(-2)], -1)


def transform_points(points: Tensor, transform: Tensor) -> Tensor:
    """Points in another frame.

    Parameters
    ----------
    points : Tensor
        (..., 3) or more columns; those after z are kept as they are.
    transform : Tensor
        (4, 4), from the frame of the points to the other.

    Returns
    -------
    Tensor
        Of the shape of ``points``.
    """
    transform = transform.to(points)
    moved = points[..., :3] @ transform[:3, :3].T + transform[:3, 3]
    return torch.cat([moved, points[..., 3:]], -1)


def transform_boxes(boxes: Tensor, transform: Tensor) -> Tensor:
    """Boxes in another frame, upright there too (:func:`boxes_from_corners`).

    Parameters
    ----------
    boxes : Tensor
        (..., 7).
    transform : Tensor
        (4, 4), from the frame of the boxes to the other.

    Returns
    -------
    Tensor
        (..., 7).
    """
    return boxes_from_corners(transform_points(corners(boxes), transform))


def corners_inside(points: Tensor, limits: Sequence[float], *, axes: str = "xyz") -> Tensor:
    """Whether all corners of a box lie in a range.

    Parameters
    ----------
    points : Tensor
        (..., 8, 3).
    limits : sequence of float
        x1, y1, z1, x2, y2, z2, inclusive, in metres.
    axes : {"xyz", "xy"}
        What counts.

    Returns
    -------
    Tensor
        (...), bool.
    """
    low, high = points.new_tensor(limits[:3]), points.new_tensor(limits[3:])
    used = len(axes)
    inside = (points >= low) & (points <= high)
    return inside[..., :used].all(-1).all(-1)

"""Boxes as the regression head gives them: residuals to anchors, and the heading's half as a class.

A code is (dx, dy, dz, dh, dw, dl, dyaw), in the published order: offsets over the anchor's diagonal (dx, dy) and height
(dz), logarithms of the ratios of sizes, difference of yaws (PointPillars; CoAlign's ``bbx_encode``).
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from priorscope_detection.geometry.boxes import from_hwl, limit_period, to_hwl

#: Where the two halves of a heading's circle meet, in radians; off the axes, where most headings are.
DIRECTION_OFFSET = 0.7853
# Sizes up to 55 times an anchor's, or down to that share: what an untrained head gives stays finite.
_LARGEST_LOG_RATIO = 4.0


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Codes of boxes.

    Parameters
    ----------
    boxes, anchors : Tensor
        (..., 7) boxes, one anchor each.

    Returns
    -------
    Tensor
        (..., 7).
    """
    box, anchor = to_hwl(boxes), to_hwl(anchors)
    offset = (box[..., :3] - anchor[..., :3]) / _scale(anchor)
    ratio = torch.log(box[..., 3:6] / anchor[..., 3:6])
    return torch.cat([offset, ratio, box[..., 6:] - anchor[..., 6:]], -1)


def decode(codes: Tensor, anchors: Tensor) -> Tensor:
    """Boxes of codes, the inverse of :func:`encode`; ratios of sizes are held between exp(-4) and exp(4).

    Parameters
    ----------
    codes : Tensor
        (..., 7).
    anchors : Tensor
        (..., 7) boxes that broadcast against the codes.

    Returns
    -------
    Tensor
        (..., 7) boxes in the dtype of ``codes``.
    """
    anchor = to_hwl(anchors).to(codes)
    centre = codes[..., :3] * _scale(anchor) + anchor[..., :3]
    size = torch.exp(codes[..., 3:6].clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)) * anchor[..., 3:6]
    return from_hwl(torch.cat([centre, size, codes[..., 6:] + anchor[..., 6:]], -1))


def _scale(anchor: Tensor) -> Tensor:
    """(..., 3): diagonal, diagonal, height of anchors in hwl order."""
    diagonal = torch.hypot(anchor[..., 4], anchor[..., 5])
    return torch.stack([diagonal, diagonal, anchor[..., 3]], -1)


def direction_class(yaw: Tensor, offset: float = DIRECTION_OFFSET) -> Tensor:
    """Half of the circle a heading lies in.

    Parameters
    ----------
    yaw : Tensor
        (...), radians.
    offset : float
        Where half 0 begins; half 1 begins pi later.

    Returns
    -------
    Tensor
        (...), 0 or 1, int64.
    """
    half = torch.floor(limit_period(yaw - offset, 0, 2 * pi) / pi)
    return half.long().clamp(0, 1)


def with_direction(yaw: Tensor, half: Tensor, offset: float = DIRECTION_OFFSET) -> Tensor:
    """Headings whose axis the regression gave and whose half a classifier.

    Parameters
    ----------
    yaw : Tensor
        (...), radians, right up to multiples of pi.
    half : Tensor
        (...), as from :func:`direction_class`.
    offset : float
        As there.

    Returns
    -------
    Tensor
        (...), in [-pi, pi).
    """
    return limit_period(limit_period(yaw - offset, 0, pi) + offset + pi * half)

"""Overlap of oriented boxes, exact, for all pairs at once, on CPU and CUDA, in float64 inside.

The area in common of a polygon P and a box B with axis-parallel sides needs no list of corners. Let phi take a point to
the nearest point of B. It does not move what is inside B, and takes everything else to B's border, along segments that
never cross B's inside; so the curve phi(border of P) winds round a point inside B as often as the border of P does,
that is once where the point is in P and else not at all. The area that phi(border of P) encloses is hence that of P and
B in common. phi clamps both coordinates, so a straight edge becomes at most five straight pieces, whose share of the
line integral of x dy has a closed form without case distinctions. It changes continuously with the boxes: edges that
coincide, touch or are parallel need no tolerance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from priorscope_detection.geometry.boxes import check_boxes

#: Pairs that are worked on at once, in some 40 arrays of this length in float64: on a CPU, what its cache holds.
CHUNK = {"cpu": 1 << 14, "cuda": 1 << 18}
#: Distances that are worked on at once when pairs that cannot touch are left out.
ROWS = 1 << 20

Pairwise = Callable[[Tensor, Tensor], Tensor]


def bev_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union in bird's-eye view, of all pairs.

    Parameters
    ----------
    a : Tensor
        (N, 7) boxes.
    b : Tensor
        (M, 7) boxes.

    Returns
    -------
    Tensor
        (N, M) in the dtype of ``a``, 0 to 1. Memory beside it is bounded, some 100 MB, whatever N and M.

    Raises
    ------
    InputError
        Boxes that are not finite or without size.
    """
    return _all_pairs(check_boxes(a, "first boxes"), check_boxes(b, "second boxes"), _bev_iou_of_pairs)


def iou_3d(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of volumes, of all pairs; the rest as in :func:`bev_iou`."""
    return _all_pairs(check_boxes(a, "first boxes"), check_boxes(b, "second boxes"), _iou_3d_of_pairs)


def bev_intersection(a: Tensor, b: Tensor) -> Tensor:
    """Area in common in bird's-eye view, in square metres, of all pairs. Boxes without size have 0 in common with all.

    Parameters
    ----------
    a : Tensor
        (N, 7) boxes.
    b : Tensor
        (M, 7) boxes.

    Returns
    -------
    Tensor
        (N, M) in the dtype of ``a``.
    """
    return _all_pairs(a, b, intersection_of_pairs)


def intersection_of_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Area in common in bird's-eye view of a[i] and b[i].

    Parameters
    ----------
    a, b : Tensor
        (K, 7) boxes in float64 (float32 works with float32's exactness).

    Returns
    -------
    Tensor
        (K,), in square metres.
    """
    # a in the frame of b, whose sides are then axis-parallel
    x, y = a[:, 0] - b[:, 0], a[:, 1] - b[:, 1]
    cos, sin = torch.cos(b[:, 6]), torch.sin(b[:, 6])
    x, y = x * cos + y * sin, y * cos - x * sin
    turn = a[:, 6] - b[:, 6]
    cos, sin = torch.cos(turn), torch.sin(turn)
    half_x, half_y = b[:, 3] / 2, b[:, 4] / 2
    # half the edges of a along (l) and across (w)
    lx, ly = cos * (a[:, 3] / 2), sin * (a[:, 3] / 2)
    wx, wy = -sin * (a[:, 4] / 2), cos * (a[:, 4] / 2)
    px, py, mx, my = lx + wx, ly + wy, lx - wx, ly - wy
    # corners of a, counter-clockwise from the front right
    xs, ys = (x + mx, x + px, x - mx, x - px), (y + my, y + py, y - my, y - py)
    ends = [_clamp(corner, half_y) for corner in ys]
    # Metres x a metre of y: an edge with less than 1e-30 m of it adds less than that, whatever its slope.
    along_w = torch.where(wy.abs() > 1e-30, wx / wy, 0.0)
    along_l = torch.where(ly.abs() > 1e-30, lx / ly, 0.0)
    area = torch.zeros_like(x)
    for i, slope in enumerate((along_w, along_l, along_w, along_l)):
        j = (i + 1) % 4
        # where the edge enters and leaves the band of b's height; outside of it y is clamped and dy is 0
        start = xs[i] + (ends[i] - ys[i]) * slope
        stop = xs[j] + (ends[j] - ys[j]) * slope
        inner_start, inner_stop = _clamp(start, half_x), _clamp(stop, half_x)
        run, inner_run = stop - start, inner_stop - inner_start
        sum_inner = inner_start + inner_stop
        share = inner_run / torch.where(run == 0, 1.0, run)
        # twice the mean of the clamped x between start and stop: that of its middle piece, and of what is cut off
        twice_mean = sum_inner + (start + stop - sum_inner) * share
        area = area + twice_mean * (ends[j] - ends[i])
    return (area / 2).clamp_(min=0)


def _clamp(value: Tensor, half: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(value, -half), half)


def _bev_iou_of_pairs(a: Tensor, b: Tensor) -> Tensor:
    common = intersection_of_pairs(a, b)
    return common / (a[:, 3] * a[:, 4] + b[:, 3] * b[:, 4] - common)


def _iou_3d_of_pairs(a: Tensor, b: Tensor) -> Tensor:
    top = torch.minimum(a[:, 2] + a[:, 5] / 2, b[:, 2] + b[:, 5] / 2)
    bottom = torch.maximum(a[:, 2] - a[:, 5] / 2, b[:, 2] - b[:, 5] / 2)
    common = intersection_of_pairs(a, b) * (top - bottom).clamp_(min=0)
    return common / (a[:, 3:6].prod(1) + b[:, 3:6].prod(1) - common)


@torch.no_grad()
def _all_pairs(a: Tensor, b: Tensor, measure: Pairwise) -> Tensor:
    result = torch.zeros(len(a), len(b), dtype=a.dtype, device=a.device)
    if result.numel() == 0:
        return result
    wide_a, wide_b = a.double(), b.double()
    flat, size = result.view(-1), CHUNK.get(a.device.type, CHUNK["cpu"])
    rows = max(1, ROWS // len(b))
    for first in range(0, len(a), rows):
        near_a, near_b = _touching(wide_a[first : first + rows], wide_b)
        near_a += first
        for begin in range(0, len(near_a), size):
            i, j = near_a[begin : begin + size], near_b[begin : begin + size]
            flat[i * len(b) + j] = measure(wide_a[i], wide_b[j]).to(a.dtype)
    return result


def _touching(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of pairs whose circumscribed circles touch."""
    x, y = a[:, None, 0], a[:, None, 1]
    u, v = b[None, :, 0], b[None, :, 1]
    reach = torch.hypot(a[:, 3], a[:, 4])[:, None] / 2, torch.hypot(b[:, 3], b[:, 4])[None] / 2
    i, j = ((x - u).square() + (y - v).square() <= (reach[0] + reach[1]).square()).nonzero(as_tuple=True)
    return i, j

"""Which anchors stand for which vehicle: the targets of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from typing import Literal

import torch
from torch import Tensor

from priorscope.errors import InputError
from priorscope_detection.box_coder import encode
from priorscope_detection.geometry.boxes import check_boxes, limit_period, standup
from priorscope_detection.geometry.overlap import bev_iou

Overlap = Literal["nearest", "rotated", "standup", "published"]


@dataclass(frozen=True)
class Targets:
    """Targets of the anchors of one frame.

    Parameters
    ----------
    positive, negative : Tensor
        (H, W, A), bool. Anchors that are neither do not count.
    codes : Tensor
        (H, W, A, 7), 0 where not positive; its last two axes flattened are the published ``targets``.
    vehicle : Tensor
        (H, W, A), int64: which box a positive anchor stands for, -1 elsewhere.
    """

    positive: Tensor
    negative: Tensor
    codes: Tensor
    vehicle: Tensor

    def to(self, device: torch.device | str) -> Targets:
        """The same on another device."""
        return Targets(
            self.positive.to(device), self.negative.to(device), self.codes.to(device), self.vehicle.to(device)
        )


def assign(
    anchors: Tensor,
    boxes: Tensor,
    *,
    positive: float = 0.6,
    negative: float = 0.45,
    overlap: Overlap = "nearest",
) -> Targets:
    """Assign anchors to boxes.

    An anchor is positive that overlaps a box by more than ``positive``, and so is the best anchor of each box that any
    anchor overlaps; negative is one that overlaps every box by less than ``negative`` and is no box's best.

    Parameters
    ----------
    anchors : Tensor
        (H, W, A, 7) boxes.
    boxes : Tensor
        (N, 7) true boxes; N may be 0.
    positive, negative : float
        Limits of the overlap.
    overlap : {"nearest", "rotated", "standup", "published"}
        nearest: of both boxes turned to the nearest axis (SECOND), so that a box's heading does not decide how many
        anchors it gets. rotated: exact. standup: of the axis-parallel rectangles round both. published: OpenCOOD's, the
        last with 1 added to each side, a convention for pixels that adds a metre here; and of several boxes that an
        anchor fits it gets the first rather than the best.

    Returns
    -------
    Targets
        On the device of the anchors.

    Raises
    ------
    InputError
        Boxes that are not finite or without size; limits out of order.
    """
    if not 0 <= negative <= positive <= 1:
        raise InputError(
            f"limits of the overlap are {negative} (negative) and {positive} (positive)",
            remedy="Give 0 <= negative <= positive <= 1.",
        )
    check_boxes(boxes, "true boxes")
    boxes, grid = boxes.to(anchors), anchors.shape[:-1]
    near = _near(anchors, boxes)
    flat = anchors[near]
    vehicle = torch.full((len(flat),), -1, device=flat.device)
    quiet = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
    if len(flat):
        iou = _OVERLAPS[overlap](flat, boxes)
        choose = _first_that_fits if overlap == "published" else _best
        vehicle, forced = choose(iou, positive)
        quiet = (iou < negative).all(1)
        quiet[forced] = False
    chosen = vehicle >= 0
    codes = torch.zeros_like(flat)
    codes[chosen] = encode(boxes[vehicle[chosen]], flat[chosen])
    # what is far from all boxes overlaps them by 0
    result = Targets(
        torch.zeros(grid, dtype=torch.bool, device=flat.device),
        torch.full(grid, not len(boxes) or negative > 0, device=flat.device),
        torch.zeros_like(anchors),
        torch.full(grid, -1, device=flat.device),
    )
    result.positive[near], result.negative[near] = chosen, quiet & ~chosen
    result.codes[near], result.vehicle[near] = codes, vehicle
    return result


def _near(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Anchors (H, W, A), bool, that may overlap a box, and some more: those in rows and columns that a box reaches.

    A metre is added, for the published overlap.
    """
    far = torch.hypot(boxes[:, 3], boxes[:, 4]) / 2 + 1
    reach = torch.hypot(anchors[..., 3], anchors[..., 4]) / 2
    crossed = []
    for axis, others in ((1, (1, 2)), (0, (0, 2))):  # rows lie along y, columns along x
        low = (anchors[..., axis] - reach).amin(others)[:, None]
        high = (anchors[..., axis] + reach).amax(others)[:, None]
        place = boxes[None, :, axis]
        crossed.append(((low <= place + far) & (high >= place - far)).to(anchors.dtype))
    rows, columns = crossed
    return (rows @ columns.T > 0)[..., None].expand(anchors.shape[:-1])


def _best_anchors(iou: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Best anchor of each box that any overlaps, that box, and the overlap; of equal ones the first."""
    # not argmax, which may take any of equal values
    value = iou.amax(0)
    anchor = _first(iou == value)
    box = torch.nonzero(value > 0)[:, 0]
    return anchor[box], box, value[box]


def _first(mask: Tensor) -> Tensor:
    """Row of the first True of each column; one past the end where there is none."""
    order = torch.arange(len(mask), device=mask.device)[:, None]
    return torch.where(mask, order, len(mask)).amin(0)


def _best(iou: Tensor, positive: float) -> tuple[Tensor, Tensor]:
    value, vehicle = iou.max(1)
    vehicle = torch.where(value > positive, vehicle, -1)
    anchor, box, value = _best_anchors(iou)
    for index in torch.argsort(value, stable=True).tolist():
        vehicle[anchor[index]] = box[index]
    return vehicle, anchor


def _first_that_fits(iou: Tensor, positive: float) -> tuple[Tensor, Tensor]:
    fits = iou > positive
    vehicle = torch.where(fits.any(1), _first(fits.T), -1)
    anchor, box, _ = _best_anchors(iou)
    for index in reversed(range(len(anchor))):
        if not fits[anchor[index]].any():
            vehicle[anchor[index]] = box[index]
    return vehicle, anchor


def _nearest(anchors: Tensor, boxes: Tensor) -> Tensor:
    return _rectangle_iou(_to_nearest_axis(anchors), _to_nearest_axis(boxes))


def _to_nearest_axis(boxes: Tensor) -> Tensor:
    upright = limit_period(boxes[:, 6], 0.5, pi).abs() > pi / 4
    half = torch.where(upright[:, None], boxes[:, [4, 3]], boxes[:, 3:5]) / 2
    return torch.cat([boxes[:, :2] - half, boxes[:, :2] + half], 1)


def _rectangle_iou(a: Tensor, b: Tensor) -> Tensor:
    common, union = _common_and_union(a, b)
    return common / union


def _common_and_union(a: Tensor, b: Tensor, more: float = 0.0) -> tuple[Tensor, Tensor]:
    """Areas of all pairs of rectangles, with ``more`` added to each side."""
    edges = torch.minimum(a[:, None, 2:], b[None, :, 2:]) - torch.maximum(a[:, None, :2], b[None, :, :2]) + more
    common = edges.clamp_(min=0).prod(-1)
    areas = [(r[:, 2:] - r[:, :2] + more).prod(1) for r in (a, b)]
    return common, areas[0][:, None] + areas[1][None] - common


def _published(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Stand-up rectangles with a metre added to each side; float32, but for the quotient, as the compiled original.

    Anchors in a row tie up to rounding, so that the precision decides which is the best.
    """
    common, union = _common_and_union(standup(anchors.float()), standup(boxes.float()), 1.0)
    return common.double() / union.double()


_OVERLAPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nearest": _nearest,
    "rotated": bev_iou,
    "standup": lambda anchors, boxes: _rectangle_iou(standup(anchors), standup(boxes)),
    "published": _published,
}

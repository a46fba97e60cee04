"""Non-maximum suppression of oriented boxes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from priorscope.errors import InputError
from priorscope_detection.geometry.boxes import check_boxes
from priorscope_detection.geometry.overlap import bev_iou


def rotated_nms(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    *,
    limit: int = 1000,
    overlap: Callable[[Tensor, Tensor], Tensor] = bev_iou,
) -> Tensor:
    """Of boxes that overlap, the best.

    Greedy, from the highest score down, as in OpenCOOD's ``nms_rotated``. Equal scores keep their order.

    Parameters
    ----------
    boxes : Tensor
        (N, 7).
    scores : Tensor
        (N,).
    threshold : float
        A box goes if its overlap with a better one that stays is more than this; 0 to 1.
    limit : int
        Only so many boxes with the highest scores are looked at: the rest goes. The matrix of overlaps has its square.
    overlap : callable
        :func:`~priorscope_detection.geometry.overlap.bev_iou` or ``iou_3d``.

    Returns
    -------
    Tensor
        Indices of those that stay, by falling score; int64.

    Raises
    ------
    InputError
        For scores that are not finite or do not fit, boxes that are not finite or without size, or a threshold outside
        0 to 1.
    """
    check_boxes(boxes)
    if scores.shape != boxes.shape[:1]:
        raise InputError(f"{len(boxes)} boxes have scores of shape {tuple(scores.shape)}", remedy="Give one a box.")
    if not scores.isfinite().all():
        raise InputError(f"{int((~scores.isfinite()).sum())} of {len(scores)} scores are not finite")
    if not 0 <= threshold <= 1:
        raise InputError(f"NMS threshold is {threshold}", remedy="Give an overlap from 0 to 1.")
    order = torch.sort(scores, descending=True, stable=True).indices[:limit]
    best = boxes[order]
    # one transfer for all; a step a kept box is then cheaper on the host than any kernel
    clash = (overlap(best, best) > threshold).cpu().numpy()
    alive, kept = np.ones(len(best), bool), []
    for index in range(len(best)):
        if alive[index]:
            kept.append(index)
            alive &= ~clash[index]
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]

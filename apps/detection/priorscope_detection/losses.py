"""The detector's losses: focal for classes, smooth L1 for boxes, cross-entropy for headings.

As CoAlign's ``PointPillarLoss``; SECOND is where the form comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from priorscope.errors import InputError
from priorscope_detection.box_coder import DIRECTION_OFFSET, direction_class
from priorscope_detection.targets import Targets


@dataclass(frozen=True)
class LossSettings:
    """Weights and shapes of the losses; the defaults are CoAlign's.

    Parameters
    ----------
    alpha, gamma : float
        Of the focal loss.
    positive : float
        Weight of positive anchors in it.
    classes, boxes, direction : float
        Weights of the three losses.
    sigma : float
        Of the smooth L1 loss, which is quadratic below 1 / sigma^2.
    """

    alpha: float = 0.25
    gamma: float = 2.0
    positive: float = 2.0
    classes: float = 2.0
    boxes: float = 2.0
    direction: float = 0.2
    sigma: float = 3.0


@dataclass(frozen=True)
class Losses:
    """Weighted losses: scalars, of which ``total`` is the sum of the rest."""

    total: Tensor
    classes: Tensor
    boxes: Tensor
    direction: Tensor


def detection_loss(
    classes: Tensor,
    codes: Tensor,
    direction: Tensor | None,
    targets: Sequence[Targets],
    anchors: Tensor,
    settings: LossSettings | None = None,
) -> Losses:
    """Losses of a batch. Each frame is divided by its number of positive anchors, then frames are averaged.

    Parameters
    ----------
    classes : Tensor
        (B, A, H, W) logits.
    codes : Tensor
        (B, 7 * A, H, W).
    direction : Tensor, optional
        (B, 2 * A, H, W) logits.
    targets : sequence of Targets
        One a frame.
    anchors : Tensor
        (H, W, A, 7) boxes.
    settings : LossSettings, optional
        Weights.

    Returns
    -------
    Losses
        In float32.

    Raises
    ------
    InputError
        Outputs that do not fit the targets.
    """
    weights = settings or LossSettings()
    logits, codes, halves = by_anchor(classes, codes, direction)
    positive = torch.stack([frame.positive for frame in targets])
    if positive.shape != logits.shape:
        raise InputError(
            f"targets have shape {tuple(positive.shape)}, the network's classes {tuple(logits.shape)} (B, H, W, A)",
            remedy="Make both from the same AnchorGrid.",
        )
    negative = torch.stack([frame.negative for frame in targets])
    wanted = torch.stack([frame.codes for frame in targets]).to(codes)
    count = positive.flatten(1).sum(1).clamp(min=1).view(-1, 1, 1, 1)
    share, background = positive / count, negative / count
    batch = len(logits)

    focal = _focal(logits, positive, weights.alpha, weights.gamma)
    of_classes = weights.classes * (focal * (background + weights.positive * share)).sum() / batch
    difference = codes - wanted
    # a box turned by pi is the same box; which of both is the direction's business
    difference = torch.cat([difference[..., :6], torch.sin(difference[..., 6:])], -1)
    smooth = F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none", beta=weights.sigma**-2)
    of_boxes = weights.boxes * (smooth.sum(-1) * share).sum() / batch
    of_direction = logits.new_zeros(())
    if halves is not None:
        truth = direction_class(wanted[..., 6] + anchors[..., 6].to(wanted), DIRECTION_OFFSET)
        entropy = F.cross_entropy(halves.movedim(-1, 1), truth, reduction="none")
        of_direction = weights.direction * (entropy * share).sum() / batch
    return Losses(of_classes + of_boxes + of_direction, of_classes, of_boxes, of_direction)


def by_anchor(classes: Tensor, codes: Tensor, direction: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The heads' maps with anchors as axis, in float32.

    Parameters
    ----------
    classes, codes, direction : Tensor
        (B, A, H, W), (B, 7 * A, H, W), (B, 2 * A, H, W) or None.

    Returns
    -------
    (Tensor, Tensor, Tensor or None)
        (B, H, W, A), (B, H, W, A, 7), (B, H, W, A, 2).
    """
    count = classes.shape[1]

    def apart(maps: Tensor, each: int) -> Tensor:
        if maps.shape[1] != each * count or maps.shape[2:] != classes.shape[2:]:
            raise InputError(
                f"heads give {tuple(classes.shape)} (classes) and {tuple(maps.shape)}",
                remedy=f"The second needs {each} channels an anchor, {each * count}, and the same H and W.",
            )
        return maps.movedim(1, -1).unflatten(-1, (count, each)).float()

    halves = None if direction is None else apart(direction, 2)
    return apart(classes, 1)[..., 0], apart(codes, 7), halves


def _focal(logits: Tensor, positive: Tensor, alpha: float, gamma: float) -> Tensor:
    truth = positive.to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    wrong = torch.where(positive, torch.sigmoid(-logits), torch.sigmoid(logits))
    return torch.where(positive, alpha, 1 - alpha) * wrong**gamma * entropy

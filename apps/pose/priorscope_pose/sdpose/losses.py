"""The loss that SDPose is trained with on heatmaps."""

from __future__ import annotations

import torch

from priorscope.errors import InputError


def heatmap_loss(heatmaps: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Squared error of heatmaps, weighted by keypoint; the mean over all elements.

    Parameters
    ----------
    heatmaps, target : Tensor (B, K, h, w)
    weights : Tensor (B, K)
        0 for keypoints that are not labelled. They count in the denominator all the same: a batch with few labelled
        keypoints gives a small loss, as published.

    Returns
    -------
    Tensor, a scalar. Source: mmpose ``KeypointMSELoss(use_target_weight=True)``.
    """
    if heatmaps.shape != target.shape or weights.shape != heatmaps.shape[:2]:
        raise InputError(
            f"heatmaps of shape {tuple(heatmaps.shape)}, targets {tuple(target.shape)}, weights {tuple(weights.shape)}"
        )
    return (weights[..., None, None] * (heatmaps - target).square()).mean()

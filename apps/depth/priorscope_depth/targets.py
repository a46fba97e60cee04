"""What a depth model learns to paint: metric depth made relative, in [-1, 1]."""

from __future__ import annotations

import torch

from priorscope.errors import InputError


def truncated_disparity(depth: torch.Tensor, low: float = 0.02) -> torch.Tensor:
    """Disparity between its two quantiles, stretched to [-1, 1] and clipped.

    Parameters
    ----------
    depth : Tensor (B, H, W)
        Metres; 0 where there is none. Such pixels (sky) count as infinitely far: disparity 0.
    low : float
        The quantiles are ``low`` and ``1 - low``, over all pixels of an image.

    Returns
    -------
    Tensor (B, 1, H, W) in [-1, 1], larger is nearer.

    Source: Lotus' ``trunc_disparity`` with ``truncnorm_min`` 0.02.
    """
    if depth.ndim != 3:
        raise InputError(f"depth must be (B, H, W), got {tuple(depth.shape)}")
    disparity = torch.where(depth > 0, 1.0 / depth.clamp(min=1e-6), torch.zeros_like(depth))
    levels = torch.tensor([low, 1.0 - low], dtype=disparity.dtype)
    near_far = torch.quantile(disparity.flatten(1), levels, dim=1)
    bottom, top = near_far[0][:, None, None], near_far[1][:, None, None]
    return (((disparity - bottom) / (top - bottom + 1e-5) - 0.5) * 2).clamp(-1, 1)[:, None]

"""Noise of several resolutions: a little of the coarse structure that white noise lacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from priorscope.errors import InputError


def multi_resolution_noise(like: torch.Tensor, strength: float, draw: np.random.Generator) -> torch.Tensor:
    """White noise plus ever coarser, weaker noise, brought to variance 1.

    Parameters
    ----------
    like : Tensor (1, C, H, W)
        Shape, device and dtype.
    strength : float
        Weight of each coarser level relative to the one before.
    draw : numpy Generator

    Notes
    -----
    Each level is 2 to 4 times smaller than the one before, until a side is one pixel; levels are enlarged
    bilinearly. The sum is divided by its own standard deviation.
    """
    height, width = like.shape[-2:]
    total = torch.from_numpy(draw.standard_normal(like.shape, dtype=np.float32))
    if strength > 0:
        scale, level = 1.0, 1
        while min(height, width) / scale > 1:
            scale *= draw.uniform(2, 4)
            size = max(int(height / scale), 1), max(int(width / scale), 1)
            coarse = torch.from_numpy(draw.standard_normal((*like.shape[:2], *size), dtype=np.float32))
            total += strength**level * functional.interpolate(
                coarse, (height, width), mode="bilinear", align_corners=False
            )
            level += 1
        total /= total.std()
    return total.to(like)


def annealed_noise(
    like: torch.Tensor, shares: Sequence[float], draws: Sequence[np.random.Generator], *, strength: float = 0.9
) -> torch.Tensor:
    """Multi-resolution noise whose coarse part fades as the noise level falls.

    Parameters
    ----------
    like : Tensor (B, C, H, W)
        Shape, device and dtype.
    shares : sequence of B float
        How high each item's level is, from 0 to 1: t / T for step t of T.
    draws : sequence of B numpy Generator
        One an item, so that an item's noise does not depend on its batch.
    strength : float
        At share 1; in proportion to the share below. 0: white noise.

    Returns
    -------
    Tensor (B, C, H, W)

    Source: Ke et al. 2024 (Marigold), where the strength is 0.9.
    """
    if not len(like) == len(shares) == len(draws):
        raise InputError(f"{len(shares)} levels and {len(draws)} generators for a batch of {len(like)}")
    rows = zip(like.split(1), shares, draws, strict=True)
    return torch.cat([multi_resolution_noise(row, strength * share, draw) for row, share, draw in rows])

"""Fusions without weights: the ego alone, the maximum, and CoAlign's attention over agents at each cell."""

from __future__ import annotations

import torch


def ego_only(sets: torch.Tensor) -> torch.Tensor:
    """The ego's own features (B, C, H, W) of sets (B, L, C, H, W)."""
    return sets[:, 0]


def max_fusion(sets: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Largest value over the agents, cell by cell (F-Cooper; CoAlign's ``MaxFusion``).

    Parameters
    ----------
    sets : Tensor (B, L, C, H, W)
        In the ego's frame, zero where an agent's map does not reach.
    present : bool Tensor (B, L)
        Which entries are agents.
    """
    lowest = torch.finfo(sets.dtype).min
    return sets.masked_fill(~present[:, :, None, None, None], lowest).amax(1)


def attention_fusion(sets: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """The ego's row of scaled dot-product self-attention over the agents, at each cell on its own; no weights.

    Parameters
    ----------
    sets : Tensor (B, L, C, H, W)
    present : bool Tensor (B, L) or (B, L, H, W)
        Which entries take part; the ego always does. As published an agent takes part with zeros where its map does
        not reach, which draws the ego's features towards zero; pass its coverage (B, L, H, W) to leave it out there.

    Notes
    -----
    Source: Xu et al. 2022 (OPV2V, AttFuse); multi-scale in Lu et al. 2023 (CoAlign).
    """
    if present.ndim == 2:
        present = present[:, :, None, None]
    score = torch.einsum("bchw,blchw->blhw", sets[:, 0], sets) / sets.shape[2] ** 0.5
    score = score.masked_fill(~present, -torch.inf)
    return torch.einsum("blhw,blchw->bchw", score.softmax(1), sets)

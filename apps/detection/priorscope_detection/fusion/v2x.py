"""Attention between agents of different kinds, in the style of V2X-ViT: weights by kind, delays told, windows in space.

This is our own arrangement of the paper's ideas (Xu et al. 2022, "V2X-ViT"), without its published weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

#: Kinds of agents: a vehicle is 0, a road-side unit 1.
KINDS = 2


class AgentAttention(nn.Module):
    """Attention over the agents at each cell; weights depend on the kinds of both agents.

    Every kind has its own query, key, value and output matrices, and every ordered pair of kinds its own matrices
    between query and key and on the value.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Parameter(torch.empty(KINDS, width, width)) for _ in range(4))
        each = width // heads
        self.relation = nn.Parameter(torch.eye(each).repeat(KINDS, KINDS, heads, 1, 1))
        self.message = nn.Parameter(torch.eye(each).repeat(KINDS, KINDS, heads, 1, 1))
        for weight in (self.query, self.key, self.value, self.out):
            nn.init.uniform_(weight, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(
        self, sets: torch.Tensor, present: torch.Tensor, kinds: torch.Tensor, asking: int | None = None
    ) -> torch.Tensor:
        """The change of the sets.

        Parameters
        ----------
        sets : Tensor (B, L, C, H, W)
        present : bool Tensor (B, L, H, W)
            Who is asked, and where.
        kinds : int64 Tensor (B, L)
        asking : int, optional
            Only so many agents, the first, ask; default: all.

        Returns
        -------
        Tensor (B, asking, C, H, W)
        """
        tokens = sets.permute(0, 3, 4, 1, 2)  # (B, H, W, L, C)
        whose = kinds[:, :asking]

        def project(weight: torch.Tensor, rows: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
            return torch.einsum("bhwlc,blcd->bhwld", rows, weight[of]).unflatten(-1, (self.heads, -1))

        query = project(self.query, tokens[..., :asking, :], whose)
        key, value = project(self.key, tokens, kinds), project(self.value, tokens, kinds)
        pair = (whose[:, :, None], kinds[:, None, :])
        asked = torch.einsum("bhwind,bijnde->bhwijne", query, self.relation[pair])
        score = torch.einsum("bhwijne,bhwjne->bhwijn", asked, key) / math.sqrt(key.shape[-1])
        score = score.masked_fill(~present.permute(0, 2, 3, 1)[:, :, :, None, :, None], -torch.inf)
        # an absent agent that sees nobody stays as it is
        weight = torch.nan_to_num(score.softmax(4))
        told = torch.einsum("bhwjnd,bijnde->bhwijne", value, self.message[pair])
        seen = torch.einsum("bhwijn,bhwijne->bhwine", weight, told).flatten(-2)
        return torch.einsum("bhwlc,blcd->bhwld", seen, self.out[whose]).permute(0, 3, 4, 1, 2)


class WindowAttention(nn.Module):
    """Self-attention in square windows of several sides, averaged; maps of any size."""

    def __init__(self, width: int, heads: int, sides: Sequence[int]) -> None:
        super().__init__()
        self.heads, self.sides = heads, tuple(sides)
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in sides)
        self.out = nn.Linear(width, width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        height, width = images.shape[2:]
        total = torch.zeros_like(images)
        for side, qkv in zip(self.sides, self.qkv, strict=True):
            pad = (0, -width % side, 0, -height % side)
            padded = functional.pad(images, pad)
            inside = functional.pad(images.new_ones(1, 1, height, width), pad) > 0
            tokens, mask = _windows(padded, side), _windows(inside, side)[..., 0]
            mask = mask.repeat(len(images), 1)[:, None, None]
            query, key, value = qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            seen = self.out(seen.transpose(1, 2).flatten(2))
            total = total + _unwindowed(seen, side, padded.shape)[:, :, :height, :width]
        return total / len(self.sides)


def _windows(images: torch.Tensor, side: int) -> torch.Tensor:
    """(N, C, H, W) to (N windows, side side, C)."""
    count, width = images.shape[:2]
    cut = images.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # (N, C, h, side, w, side)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(-1, side * side, width) if count else images.flatten(2)


def _unwindowed(tokens: torch.Tensor, side: int, shape: torch.Size) -> torch.Tensor:
    count, width, rows, columns = shape
    cut = tokens.view(count, rows // side, columns // side, side, side, width)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(shape)


class V2XFusion(nn.Module):
    """Blocks of attention over agents, attention in windows, and a perceptron; the ego's features are the result.

    Parameters
    ----------
    width : int
        Channels; a multiple of ``heads``.
    heads : int
    windows : sequence of int
        Sides of the windows, in cells.
    depth : int
    """

    def __init__(self, width: int, heads: int = 4, windows: Sequence[int] = (2, 4), depth: int = 1) -> None:
        super().__init__()
        self.rates = 8
        self.delay = nn.Linear(2 * self.rates, width)
        nn.init.zeros_(self.delay.weight)
        nn.init.zeros_(self.delay.bias)
        self.blocks = nn.ModuleList(_Block(width, heads, windows) for _ in range(depth))

    def forward(
        self,
        sets: torch.Tensor,
        present: torch.Tensor,
        kinds: torch.Tensor | None = None,
        delays: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Fuse the agents' features.

        Parameters
        ----------
        sets : Tensor (B, L, C, H, W)
            In the ego's frame; the ego at index 0.
        present : bool Tensor (B, L) or (B, L, H, W)
            Who takes part, and where.
        kinds : int64 Tensor (B, L), optional
            0 a vehicle, 1 a road-side unit; default: vehicles.
        delays : Tensor (B, L), optional
            Age of each agent's message in seconds; default: 0.

        Returns
        -------
        Tensor (B, C, H, W)
        """
        frames, most = sets.shape[:2]
        if present.ndim == 2:
            present = present[:, :, None, None].expand(-1, -1, *sets.shape[3:])
        if kinds is None:
            kinds = torch.zeros(frames, most, dtype=torch.int64, device=sets.device)
        if delays is not None:
            rate = 2 ** torch.arange(self.rates, device=sets.device, dtype=sets.dtype)
            angle = delays.to(sets.dtype)[..., None] * rate
            sets = sets + self.delay(torch.cat([angle.sin(), angle.cos() - 1], -1))[..., None, None]
        for number, block in enumerate(self.blocks):
            # of the last one only the ego's features are wanted
            sets = block(sets, present, kinds, 1 if number == len(self.blocks) - 1 else None)
        return sets[:, 0]


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, windows: Sequence[int]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in range(3))
        self.agents = AgentAttention(width, heads)
        self.windows = WindowAttention(width, heads, windows)
        self.mlp = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1))

    def forward(
        self, sets: torch.Tensor, present: torch.Tensor, kinds: torch.Tensor, asking: int | None = None
    ) -> torch.Tensor:
        normed = self.norms[0](sets.flatten(0, 1)).unflatten(0, sets.shape[:2])
        sets = sets[:, :asking] + self.agents(normed, present, kinds, asking)
        images = sets.flatten(0, 1)
        images = images + self.windows(self.norms[1](images))
        return (images + self.mlp(self.norms[2](images))).unflatten(0, sets.shape[:2])

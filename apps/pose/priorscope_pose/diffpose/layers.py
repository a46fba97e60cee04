"""The pieces that the representation learner and the pose decoder share."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional


class TransformerLayer(nn.Module):
    """A pre-norm layer: ``x + MHSA(LN x)``, then ``x + FFN(LN x)``, of constant width.

    Parameters
    ----------
    width, heads : int
    ratio : float
        Width of the hidden layer over ``width``; 4 (ours) unless told otherwise.
    """

    def __init__(self, width: int, heads: int, ratio: float = 4.0) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, round(ratio * width)), nn.GELU(), nn.Linear(round(ratio * width), width)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (B, N, width)."""
        query, key, value = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.out(seen.transpose(1, 2).flatten(2))
        return tokens + self.ffn(self.norm2(tokens))


class ConvNorm(nn.Sequential):
    """3 x 3 convolution, group norm, ReLU.

    Group norm is ours where the lineage has batch norm: it treats every item and every noise draw alike, whatever is
    in the batch.
    """

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(inside, outside, 3, stride, 1, bias=False), group_norm(outside), nn.ReLU())


def group_norm(width: int) -> nn.GroupNorm:
    """Groups of 8 channels, or of the largest common divisor with 8."""
    return nn.GroupNorm(width // math.gcd(width, 8), width)


def tokens_of(features: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) to (B, H W, C)."""
    return features.flatten(2).transpose(1, 2)


def map_of(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(B, H W, C) to (B, C, H, W)."""
    return tokens.transpose(1, 2).unflatten(2, (height, width))


class StepEmbedding(nn.Module):
    """Sinusoids of the noise level (B,), then a perceptron to (B, width)."""

    def __init__(self, width: int, outside: int) -> None:
        super().__init__()
        self.rates = width // 2
        self.mlp = nn.Sequential(nn.Linear(2 * self.rates, outside), nn.SiLU(), nn.Linear(outside, outside))

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(self.rates, device=t.device, dtype=torch.float32)
        angle = t.float()[:, None] * torch.exp(-math.log(10_000.0) / self.rates * steps)
        return self.mlp(torch.cat([angle.sin(), angle.cos()], -1).to(next(self.parameters()).dtype))

"""The block that small convolutional networks are made of."""

from __future__ import annotations

import torch
from torch import nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions about a shortcut, group norm in 8 groups and SiLU before each.

    Parameters
    ----------
    channels : int
        Going in and coming out, a multiple of 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, channels, H, W) of the same shape."""
        return x + self.layers(x)

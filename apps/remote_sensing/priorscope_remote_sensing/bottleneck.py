"""The residual bottleneck that projects a tap to the width of the fuser."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class ConvNorm(nn.Conv2d):
    """A convolution without bias that owns its group norm (``norm``), so that keys are the published ones."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, groups: int) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(groups, out_channels)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(super().forward(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with group norms around a shortcut: (N, C_in, h, w) -> (N, C_out, h, w).

    Parameters
    ----------
    in_channels, out_channels : int
        Where they differ, the shortcut is a 1x1 convolution; else the identity.
    groups : int
        Of every group norm; the inner width is a quarter of ``out_channels``.

    Source: Detectron2's ``BottleneckBlock`` (He et al. 2016, 3x3 stride), as SatDiFuser and Diffusion
    Hyperfeatures use it.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int = 32) -> None:
        super().__init__()
        inner = out_channels // 4
        self.shortcut = ConvNorm(in_channels, out_channels, 1, groups) if in_channels != out_channels else None
        self.conv1 = ConvNorm(in_channels, inner, 1, groups)
        self.conv2 = ConvNorm(inner, inner, 3, groups)
        self.conv3 = ConvNorm(inner, out_channels, 1, groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.conv2(functional.relu(self.conv1(x))))
        return functional.relu(self.conv3(inner) + (x if self.shortcut is None else self.shortcut(x)))


def bottlenecks(in_channels: int, out_channels: int, groups: int, blocks: int) -> nn.Sequential:
    """``blocks`` bottlenecks in a row, the first of which changes the width."""
    widths = [in_channels] + [out_channels] * blocks
    return nn.Sequential(*(Bottleneck(widths[i], widths[i + 1], groups) for i in range(blocks)))

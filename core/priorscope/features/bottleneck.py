"""The residual bottleneck that projects a tap to the common width of an aggregation network."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from priorscope.errors import InputError


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
        Where they differ the shortcut is a 1x1 convolution, else the identity.
    groups : int
        Of every group norm; the inner width is a quarter of ``out_channels``.
    embedding : int, optional
        Width of a time embedding, added to the inner features (Readout Guidance).

    Source: Detectron2's ``BottleneckBlock`` as Diffusion Hyperfeatures, Readout Guidance and SatDiFuser use it.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int = 32, embedding: int | None = None) -> None:
        super().__init__()
        inner = out_channels // 4
        if inner < 1 or inner % groups or out_channels % groups:
            raise InputError(
                f"{groups} norm groups for widths {inner} and {out_channels}",
                remedy="Use a width that is four times a multiple of the groups.",
            )
        self.shortcut = ConvNorm(in_channels, out_channels, 1, groups) if in_channels != out_channels else None
        self.conv1 = ConvNorm(in_channels, inner, 1, groups)
        self.conv2 = ConvNorm(inner, inner, 3, groups)
        self.conv3 = ConvNorm(inner, out_channels, 1, groups)
        self.emb_layers = None if embedding is None else nn.Linear(embedding, inner)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor | None = None) -> torch.Tensor:
        inner = functional.relu(self.conv1(x))
        if embedding is not None and self.emb_layers is not None:
            inner = inner + functional.relu(self.emb_layers(embedding))[:, :, None, None]
        inner = functional.relu(self.conv2(inner))
        return functional.relu(self.conv3(inner) + (x if self.shortcut is None else self.shortcut(x)))

"""The bird's-eye-view backbone: residual stages at falling resolution, brought back to one size and concatenated.

Keys are those of CoAlign's ``backbone``: ``resnet.layerI.J.{conv1,bn1,conv2,bn2,downsample}`` and ``deblocks.I.{0,1}``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from priorscope.errors import InputError


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm around a shortcut (He et al. 2016); the first of a stage projects it."""

    def __init__(self, inside: int, outside: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
            if project
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inside, H, W) to (B, outside, H / stride, W / stride)."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNetStages(nn.Module):
    """The stages ``layer0``, ``layer1``, ... of basic blocks."""

    def __init__(self, inside: int, layers: Sequence[int], strides: Sequence[int], filters: Sequence[int]) -> None:
        super().__init__()
        self.count = len(layers)
        for number, (blocks, stride, width) in enumerate(zip(layers, strides, filters, strict=True)):
            first = BasicBlock(inside, width, stride, project=True)
            rest = [BasicBlock(width, width, 1, project=False) for _ in range(blocks - 1)]
            setattr(self, f"layer{number}", nn.Sequential(first, *rest))
            inside = width

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What each stage gives, finest first."""
        scales = []
        for number in range(self.count):
            x = getattr(self, f"layer{number}")(x)
            scales.append(x)
        return scales


class ResNetBEVBackbone(nn.Module):
    """Stages, and for each a transposed convolution back to the finest one's size over its stride.

    Parameters
    ----------
    inside : int
        Channels of the pillars' map.
    layers, strides, filters, up_strides, up_filters : sequence of int
        As in :class:`~priorscope_detection.network.spec.DetectorSpec`.
    """

    def __init__(
        self,
        inside: int,
        layers: Sequence[int],
        strides: Sequence[int],
        filters: Sequence[int],
        up_strides: Sequence[int],
        up_filters: Sequence[int],
    ) -> None:
        super().__init__()
        self.resnet = ResNetStages(inside, layers, strides, filters)
        self.deblocks = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(width, up_width, factor, factor, bias=False),
                nn.BatchNorm2d(up_width, eps=1e-3, momentum=0.01),
                nn.ReLU(inplace=True),
            )
            for width, factor, up_width in zip(filters, up_strides, up_filters, strict=True)
        )

    def scales(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Features (B, filters[i], H_i, W_i) of a map (B, inside, H, W), finest first."""
        return self.resnet(image)

    def decode(self, scales: Sequence[torch.Tensor]) -> torch.Tensor:
        """All scales at one size, concatenated: (B, sum(up_filters), H, W)."""
        maps = [block(scale) for block, scale in zip(self.deblocks, scales, strict=True)]
        if any(image.shape[2:] != maps[0].shape[2:] for image in maps):
            raise InputError(
                f"scales that come back as {[tuple(image.shape[2:]) for image in maps]}",
                remedy="Use a range whose number of cells is divisible by the network's stride.",
            )
        return torch.cat(maps, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """:meth:`decode` of :meth:`scales`: one agent's features."""
        return self.decode(self.scales(image))


class DoubleConv(nn.Module):
    """Two 3 x 3 convolutions with ReLU."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(inside, outside, 3, 1, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(outside, outside, 3, 1, 1),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inside, H, W) to (B, outside, H, W)."""
        return self.double_conv(x)


class ShrinkConv(nn.Module):
    """What narrows the concatenated features before the heads; keys as CoAlign's ``shrink_conv``."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DoubleConv(inside, outside)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inside, H, W) to (B, outside, H, W)."""
        for layer in self.layers:
            x = layer(x)
        return x

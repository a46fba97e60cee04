"""UPerNet: the segmentation head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from priorscope.errors import InputError
from priorscope_remote_sensing.batch_norm import BatchNorm, process_count
from priorscope_remote_sensing.decoder import Decoder, DecoderConfig


class UPerNet(Decoder):
    """Pyramid pooling on the coarsest map, a top-down feature pyramid, and a class for every pixel.

    Source: Xiao et al. 2018 (UPerNet, arXiv 1807.10221), in the layout of SatDiFuser's decoder. Its neck, which
    rescales the maps by 1, is left out.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        width, channels = config.projection_dim, config.channels
        finer = len(config.taps) - 1
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), *_conv(width, channels, 1)) for scale in config.pool_scales
        )
        self.bottleneck = _conv(width + len(config.pool_scales) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(_conv(width, channels, 1) for _ in range(finer))
        self.fpn_convs = nn.ModuleList(_conv(channels, channels, 3) for _ in range(finer))
        self.fpn_bottleneck = _conv((finer + 1) * channels, channels, 3)
        self.dropout = nn.Dropout2d(config.dropout)
        self.conv_seg = nn.Conv2d(channels, config.num_classes, 1)

    def decode(self, maps: Sequence[torch.Tensor], size: tuple[int, int] | None = None) -> torch.Tensor:
        if self.training and len(maps[0]) * process_count() == 1:
            raise InputError(
                "a batch of one image cannot train this head: pooled to one pixel, it has no variance to normalise by",
                remedy="Use batches of 2 or more.",
            )
        coarsest = maps[-1]
        pooled = [_resize(pool(coarsest), coarsest) for pool in self.psp_modules]
        levels = [self.bottleneck(torch.cat([coarsest, *pooled], 1))]
        for lateral, finer in zip(reversed(self.lateral_convs), reversed(maps[:-1]), strict=True):
            level = lateral(finer)
            levels.insert(0, level + _resize(levels[0], level))
        outputs = [conv(level) for conv, level in zip(self.fpn_convs, levels[:-1], strict=True)] + levels[-1:]
        joined = self.fpn_bottleneck(torch.cat([_resize(output, outputs[0]) for output in outputs], 1))
        logits = self.conv_seg(self.dropout(joined))
        return logits if size is None else functional.interpolate(logits, size, mode="bilinear", align_corners=False)


def _conv(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2), BatchNorm(out_channels), nn.ReLU()
    )


def _resize(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)

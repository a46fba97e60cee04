"""The classification head: one vector an image, one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from priorscope_remote_sensing.decoder import Decoder, DecoderConfig


class Classifier(Decoder):
    """The sum of all scales at the widest one's size, averaged over positions, through a linear layer.

    The official classifier works for a projection of 384 only (its fuser ignores the setting); this one for any.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.decoder_head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(config.projection_dim, config.num_classes)
        )

    def decode(self, maps: Sequence[torch.Tensor], size: tuple[int, int] | None = None) -> torch.Tensor:
        total = maps[0]
        for smaller in maps[1:]:
            total = total + functional.interpolate(smaller, maps[0].shape[-2:], mode="bilinear", align_corners=False)
        return self.decoder_head(total)

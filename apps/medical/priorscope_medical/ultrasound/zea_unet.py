"""The U-Net of zea's diffusion models, told the noise's variance as sines and cosines beside the image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

from priorscope.diffusion.denoiser import Denoiser
from priorscope.errors import InputError
from priorscope_medical.ultrasound.angle_schedule import AngleSchedule


class ZeaUNet(ModelMixin, ConfigMixin):
    """Estimates the noise of images that an :class:`AngleSchedule` has made noisy.

    Parameters
    ----------
    image_channels : int
    widths : sequence of int
        Channels of each level, from the full resolution down; each level halves the sides.
    block_depth : int
        Residual blocks a level and direction.
    lowest_frequency, highest_frequency : float
        Of the embedding of the variance, in periods.
    embedding : int
        Its size, an even number.

    Source: zea, ``unet_time_conditional`` with batch normalisation; the shape of Keras' example of DDIM.
    """

    @register_to_config
    def __init__(
        self,
        image_channels: int = 1,
        widths: Sequence[int] = (32, 64, 96, 128),
        block_depth: int = 2,
        lowest_frequency: float = 1.0,
        highest_frequency: float = 1000.0,
        embedding: int = 32,
    ) -> None:
        super().__init__()
        if min(image_channels, block_depth, *widths, len(widths) - 1) < 1 or embedding < 4 or embedding % 2:
            raise InputError(f"widths {tuple(widths)}, {block_depth} blocks a level and an embedding of {embedding}")
        widths = list(widths)
        self.begin = nn.Conv2d(image_channels, widths[0], 1)
        channels, skips = widths[0] + embedding, []
        down = []
        for width in widths[:-1]:
            for _ in range(block_depth):
                down.append(ZeaBlock(channels, width))
                channels = width
                skips.append(width)
        middle = []
        for _ in range(block_depth):
            middle.append(ZeaBlock(channels, widths[-1]))
            channels = widths[-1]
        up = []
        for width in reversed(widths[:-1]):
            for _ in range(block_depth):
                up.append(ZeaBlock(channels + skips.pop(), width))
                channels = width
        self.down, self.middle, self.up = nn.ModuleList(down), nn.ModuleList(middle), nn.ModuleList(up)
        self.end = nn.Conv2d(channels, image_channels, 1)
        self.depth, self.levels = block_depth, len(widths) - 1
        # in float32, as published: at 1000 periods the rounding of a frequency is seen
        count = embedding // 2
        low, high = np.float32(math.log(lowest_frequency)), np.float32(math.log(highest_frequency))
        steps = np.arange(count, dtype=np.float32) / np.float32(count - 1) * (high - low) + low
        speeds = np.float32(2 * math.pi) * np.exp(steps.astype(np.float32))
        self.register_buffer("speeds", torch.from_numpy(speeds.astype(np.float32)), persistent=False)
        self.speeds: torch.Tensor

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """``x`` (B, image_channels, H, W) and the noise's variance (B,) to the noise.

        The sides must be multiples of 2^(levels - 1).
        """
        multiple = 2**self.levels
        if x.shape[-2] % multiple or x.shape[-1] % multiple:
            raise InputError(
                f"an image of {x.shape[-2]} x {x.shape[-1]} in a U-Net that halves it {self.levels} times",
                remedy=f"Pad the sides to multiples of {multiple}.",
            )
        angle = self.speeds * label.reshape(-1, 1).to(self.speeds)
        embedded = torch.cat([angle.sin(), angle.cos()], 1).to(x.dtype)[:, :, None, None]
        h = self.begin(x)
        h = torch.cat([h, embedded.expand(-1, -1, *h.shape[2:])], 1)
        skips = []
        for index, block in enumerate(self.down):
            h = block(h)
            skips.append(h)
            if (index + 1) % self.depth == 0:
                h = functional.avg_pool2d(h, 2)
        for block in self.middle:
            h = block(h)
        for index, block in enumerate(self.up):
            if index % self.depth == 0:
                h = functional.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)
            h = block(torch.cat([h, skips.pop()], 1))
        return self.end(h)

    def blocks(self) -> Iterator[ZeaBlock]:
        """The residual blocks from input to output."""
        for block in [*self.down, *self.middle, *self.up]:
            assert isinstance(block, ZeaBlock)
            yield block


class ZeaBlock(nn.Module):
    """Normalisation, convolution, swish, convolution; plus the input, through a 1 x 1 convolution to another width."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inside, eps=1e-3, momentum=0.01, affine=False)
        self.conv_0 = nn.Conv2d(inside, outside, 3, padding=1)
        self.conv_1 = nn.Conv2d(outside, outside, 3, padding=1)
        self.shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv_1(functional.silu(self.conv_0(self.norm(x)))) + self.shortcut(x)


def zea_denoiser(network: ZeaUNet, schedule: AngleSchedule | None = None) -> Denoiser:
    """The network as a denoiser of images in its range, by default zea's."""
    return Denoiser(network, schedule or AngleSchedule())

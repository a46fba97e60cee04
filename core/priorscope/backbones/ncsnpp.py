"""NCSN++: the pixel network of score-based models on variance-exploding noise (Song et al. 2021).

Modules are registered in the order and under the names of the official code (``score_sde_pytorch``), so that
published weights load without renaming.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional
from torch.nn.init import xavier_uniform_

from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.schedule import VESchedule
from priorscope.errors import InputError

#: Gain of the layers that start at zero: official ``init_scale = 0`` means a variance of 1e-10.
_NEARLY_ZERO = 1e-5


class NCSNpp(ModelMixin, ConfigMixin):
    """NCSN++ with residual blocks that resample ("biggan"), told the noise level sigma itself.

    The defaults are the AAPM and the knee checkpoint of DiffusionMBIR (61.4 M parameters).

    Parameters
    ----------
    image_size : int
        Side of the training images; with ``attention_at`` it only says which levels attend. The network runs at
        every size that divides by 2 a level.
    in_channels : int
    channels : int
        Width of the first level.
    multipliers : sequence of int
        Width of each level in units of ``channels``.
    blocks : int
        Residual blocks a level on the way down; one more on the way up.
    attention_at : sequence of int
        Sides at which blocks attend; the deepest level always does.
    fir_kernel : sequence of float
        One-dimensional low-pass filter of the resampling, of even length. (1, 1) is the mean of 2 x 2 pixels.
    progressive_input : {"residual", "none"}
        Whether the image, filtered and subsampled, joins each level on the way down.
    fourier_scale : float
        Spread of the random frequencies that log(sigma) is embedded with.
    sigma_min, sigma_max : float
        Noise levels the network is trained on.
    num_scales : int
        Levels of the discrete table that published samplers step through.
    scale_by_sigma : bool
        Divide the output by sigma: the network then works at unit scale and its output is the score.
    centered : bool
        Images are in [-1, 1]; otherwise in [0, 1] and mapped to [-1, 1] inside.
    dropout : float

    Raises
    ------
    InputError
        Sizes that make no network.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        image_size: int = 256,
        in_channels: int = 1,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 4,
        attention_at: Sequence[int] = (16,),
        fir_kernel: Sequence[float] = (1.0, 3.0, 3.0, 1.0),
        progressive_input: Literal["residual", "none"] = "residual",
        fourier_scale: float = 16.0,
        sigma_min: float = 0.01,
        sigma_max: float = 378.0,
        num_scales: int = 2000,
        scale_by_sigma: bool = True,
        centered: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(channels, multipliers, blocks, in_channels, fir_kernel, progressive_input)
        self.gradient_checkpointing = False
        self.attends = [image_size >> level in attention_at for level in range(len(multipliers))]
        temb = 4 * channels
        widths = [channels * multiple for multiple in multipliers]
        kernel = tuple(float(tap) for tap in fir_kernel)

        def block(inside: int, outside: int, resample: Resampling = "") -> nn.Module:
            return ResidualBlock(inside, outside, temb, dropout, kernel, resample)

        modules: list[nn.Module] = [FourierFeatures(channels, fourier_scale)]
        modules += [nn.Linear(2 * channels, temb), nn.Linear(temb, temb)]
        modules.append(nn.Conv2d(in_channels, channels, 3, padding=1))
        width, pyramid = channels, in_channels
        skips = [channels]
        for level, wide in enumerate(widths):
            for _ in range(blocks):
                modules.append(block(width, wide))
                width = wide
                if self.attends[level]:
                    modules.append(PixelAttention(width))
                skips.append(width)
            if level < len(widths) - 1:
                modules.append(block(width, width, "down"))
                if progressive_input == "residual":
                    modules.append(FilteredConv(pyramid, width, kernel))
                    pyramid = width
                skips.append(width)
        modules += [block(width, width), PixelAttention(width), block(width, width)]
        for level, wide in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                modules.append(block(width + skips.pop(), wide))
                width = wide
            if self.attends[level]:
                modules.append(PixelAttention(width))
            if level > 0:
                modules.append(block(width, width, "up"))
        modules += [_group_norm(width), nn.Conv2d(width, in_channels, 3, padding=1)]
        self.all_modules = nn.ModuleList(modules)
        self._start()

    def _start(self) -> None:
        """Weights as the official code draws them, so that a new network trains as a published one did."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                xavier_uniform_(module.Conv_1.weight, _NEARLY_ZERO)
        xavier_uniform_(self.all_modules[-1].weight, _NEARLY_ZERO)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The score of the noisy images.

        Parameters
        ----------
        x : Tensor (B, C, H, W)
            Noisy images; the clean ones are in [0, 1] (or [-1, 1] where ``centered``).
        sigma : Tensor (B,)
            Their noise levels, above 0.

        Returns
        -------
        Tensor (B, C, H, W)
            In the dtype of ``x``.

        Raises
        ------
        InputError
            Whole numbers, another number of channels, or sides that cannot be halved once a level.
        """
        if not x.is_floating_point():
            raise InputError(f"NCSN++ got images of {x.dtype}", remedy="Convert them to floating-point numbers.")
        config = self.config
        levels, residual = len(config.multipliers), config.progressive_input == "residual"
        if x.ndim != 4 or x.shape[1] != config.in_channels or any(side % 2 ** (levels - 1) for side in x.shape[2:]):
            raise InputError(
                f"NCSN++ got images of shape {tuple(x.shape)}",
                remedy=f"Give (B, {config.in_channels}, H, W), sides that divide by {2 ** (levels - 1)}.",
            )
        modules: Iterator[nn.Module] = iter(self.all_modules)
        temb = next(modules)(sigma.to(self.dtype if self.dtype == torch.float64 else torch.float32).log())
        temb = next(modules)(temb.to(self.dtype))
        temb = functional.silu(next(modules)(functional.silu(temb)))

        image = x.to(self.dtype) if config.centered else 2 * x.to(self.dtype) - 1
        h = next(modules)(image)
        skips = [h]
        for level in range(levels):
            for _ in range(config.blocks):
                h = self._run(next(modules), h, temb)
                if self.attends[level]:
                    h = next(modules)(h)
                skips.append(h)
            if level < levels - 1:
                h = self._run(next(modules), h, temb)
                if residual:
                    image = h = (next(modules)(image) + h) / math.sqrt(2)
                skips.append(h)
        h = self._run(next(modules), h, temb)
        h = next(modules)(h)
        h = self._run(next(modules), h, temb)
        for level in reversed(range(levels)):
            for _ in range(config.blocks + 1):
                h = self._run(next(modules), torch.cat([h, skips.pop()], 1), temb)
            if self.attends[level]:
                h = next(modules)(h)
            if level > 0:
                h = self._run(next(modules), h, temb)
        h = functional.silu(next(modules)(h))
        output = next(modules)(h).to(x.dtype)
        return output / sigma.to(x.dtype)[:, None, None, None] if config.scale_by_sigma else output

    def _run(self, block: nn.Module, h: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, h, temb)
        return block(h, temb)


def ncsnpp_denoiser(network: NCSNpp) -> Denoiser:
    """The network on its :class:`VESchedule`: levels t in [0, 1], told as sigma(t)."""
    config: Any = network.config
    schedule = VESchedule(config.sigma_min, config.sigma_max)
    return Denoiser(network, schedule, "score", time_label=schedule.sigma)


Resampling = Literal["", "down", "up"]


class FourierFeatures(nn.Module):
    """Random Fourier features of a number: (B,) to (B, 2 ``channels``), sines first. The frequencies stay fixed."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(channels) * scale, requires_grad=False)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        angle = value[:, None] * self.W.to(value)[None] * 2 * math.pi
        return torch.cat([angle.sin(), angle.cos()], 1)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, with the noise level between; both branches may be resampled first.

    The sum is divided by sqrt(2), which keeps its variance.
    """

    def __init__(
        self, inside: int, outside: int, temb: int, dropout: float, kernel: tuple[float, ...], resample: Resampling
    ) -> None:
        super().__init__()
        self.GroupNorm_0 = _group_norm(inside)
        self.resample = _Fir(inside, kernel, resample) if resample else nn.Identity()
        self.Conv_0 = nn.Conv2d(inside, outside, 3, padding=1)
        self.Dense_0 = nn.Linear(temb, outside)
        self.GroupNorm_1 = _group_norm(outside)
        self.Dropout_0 = nn.Dropout(dropout)
        self.Conv_1 = nn.Conv2d(outside, outside, 3, padding=1)
        self.Conv_2 = nn.Conv2d(inside, outside, 1) if inside != outside or resample else nn.Identity()

    def forward(self, x: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
        """``x`` (B, inside, H, W) and the activated embedding ``temb`` (B, temb)."""
        h = self.Conv_0(self.resample(functional.silu(self.GroupNorm_0(x))))
        h = h + self.Dense_0(temb)[:, :, None, None]
        h = self.Conv_1(self.Dropout_0(functional.silu(self.GroupNorm_1(h))))
        return (self.Conv_2(self.resample(x)) + h) / math.sqrt(2)


class PixelAttention(nn.Module):
    """Self-attention over all pixels with one head; the sum with the input is divided by sqrt(2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.GroupNorm_0 = _group_norm(channels)
        self.NIN_0 = _Projection(channels, 0.1)
        self.NIN_1 = _Projection(channels, 0.1)
        self.NIN_2 = _Projection(channels, 0.1)
        self.NIN_3 = _Projection(channels, 1e-10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.GroupNorm_0(x).flatten(2).transpose(1, 2)[:, None]
        answer = functional.scaled_dot_product_attention(self.NIN_0(tokens), self.NIN_1(tokens), self.NIN_2(tokens))
        answer = self.NIN_3(answer)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])
        return (x + answer) / math.sqrt(2)


class FilteredConv(nn.Module):
    """Low-pass filter, then a convolution of stride 2: a level of the image pyramid."""

    def __init__(self, inside: int, outside: int, kernel: tuple[float, ...]) -> None:
        super().__init__()
        self.filter = _Fir(inside, kernel, "")
        self.Conv2d_0 = nn.Conv2d(inside, outside, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.Conv2d_0(self.filter(x))


class _Projection(nn.Module):
    """A linear map of channels, stored as the official "network in network" layer is: input axis first."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.W = nn.Parameter(xavier_uniform_(torch.empty(channels, channels), math.sqrt(scale)))
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return functional.linear(tokens, self.W.T, self.b)


class _Fir(nn.Module):
    """Filter every channel with the outer product of a kernel, and halve or double the sides (zeros outside).

    One depthwise convolution. Doubling puts zeros between the pixels and filters, which is a transposed one; the
    gain of 4 keeps the mean. Without resampling the sides grow so that a 3 x 3 convolution of stride 2 halves them.
    """

    def __init__(self, channels: int, kernel: tuple[float, ...], resample: Resampling) -> None:
        super().__init__()
        taps = torch.tensor(kernel, dtype=torch.float64)
        weight = torch.outer(taps, taps) / taps.sum() ** 2
        if resample == "up":
            weight = 4 * weight
        else:
            weight = weight.flip(0, 1)  # torch correlates
        self.channels, self.resample, self.taps = channels, resample, len(kernel)
        self.register_buffer("weight", weight.float()[None, None], persistent=False)
        self.weight: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.to(x.dtype).expand(self.channels, 1, -1, -1)
        half = self.taps // 2
        if self.resample == "up":
            return functional.conv_transpose2d(x, weight, stride=2, padding=half - 1, groups=self.channels)
        if self.resample == "down":
            return functional.conv2d(x, weight, stride=2, padding=half - 1, groups=self.channels)
        return functional.conv2d(x, weight, padding=half, groups=self.channels)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


def _check(
    channels: int,
    multipliers: Sequence[int],
    blocks: int,
    in_channels: int,
    fir_kernel: Sequence[float],
    progressive_input: str,
) -> None:
    if progressive_input not in ("residual", "none"):
        raise InputError(f"progressive_input {progressive_input!r}", remedy="Use 'residual' or 'none'.")
    if len(fir_kernel) < 2 or len(fir_kernel) % 2 or not sum(fir_kernel):
        raise InputError(f"fir_kernel {tuple(fir_kernel)}", remedy="Give an even number of taps with a sum above 0.")
    if min(in_channels, blocks, channels // 4, len(multipliers), *multipliers, 1) < 1:
        raise InputError(f"NCSN++ of {channels} channels, multipliers {tuple(multipliers)} and {blocks} blocks a level")
    widths = [channels, *(channels * multiple for multiple in multipliers)]
    normed = [*widths, *(sum(pair) for pair in pairwise(widths)), *(2 * width for width in widths)]
    for width in normed:
        if width % min(width // 4, 32):
            raise InputError(
                f"{width} channels cannot be normalised in {min(width // 4, 32)} groups",
                remedy="Choose channels as a power of two of at least 4, or a multiple of 32.",
            )

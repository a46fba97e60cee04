"""The U-Net of CoDiff's released code (lucidrains' lineage), with its published keys.

Linear attention at every level, full attention in the middle, space-to-depth on the way down. Its RMS norm multiplies
by the square root of the map's width instead of that of the number of channels: ``width_norm`` keeps this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from priorscope.errors import InputError


class RMSNorm(nn.Module):
    """Unit length over the channels, times a weight and sqrt(C); as released sqrt(W)."""

    def __init__(self, width: int, width_norm: bool) -> None:
        super().__init__()
        self.width_norm = width_norm
        self.g = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same."""
        return functional.normalize(x, dim=1) * self.g * x.shape[3 if self.width_norm else 1] ** 0.5


class Block(nn.Module):
    """3 x 3 convolution, norm, scale and shift, SiLU."""

    def __init__(self, inside: int, outside: int, width_norm: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inside, outside, 3, 1, 1)
        self.norm = RMSNorm(outside, width_norm)

    def forward(self, x: torch.Tensor, scale_shift: tuple[torch.Tensor, ...] | None = None) -> torch.Tensor:
        """(B, inside, H, W) to (B, outside, H, W)."""
        x = self.norm(self.proj(x))
        if scale_shift is not None:
            scale, shift = scale_shift
            x = x * (scale + 1) + shift
        return functional.silu(x)


class ResnetBlock(nn.Module):
    """Two blocks, the first told of the noise level, around a shortcut."""

    def __init__(self, inside: int, outside: int, time_width: int, width_norm: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_width, 2 * outside))
        self.block1 = Block(inside, outside, width_norm)
        self.block2 = Block(outside, outside, width_norm)
        self.res_conv: nn.Module = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """(B, inside, H, W) and (B, time width) to (B, outside, H, W)."""
        scale_shift = self.mlp(time)[:, :, None, None].chunk(2, 1)
        return self.block2(self.block1(x, scale_shift)) + self.res_conv(x)


class LinearAttention(nn.Module):
    """Attention whose cost grows with the number of pixels only; values are not divided by it."""

    def __init__(self, width: int, width_norm: bool, heads: int = 4, each: int = 32) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Conv2d(width, 3 * heads * each, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(heads * each, width, 1), RMSNorm(width, width_norm))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same."""
        query, key, value = self.to_qkv(x).unflatten(1, (3, self.heads, -1)).flatten(4).unbind(1)
        query = query.softmax(2) * query.shape[2] ** -0.5
        content = torch.einsum("bhdn,bhen->bhde", key.softmax(3), value)
        seen = torch.einsum("bhde,bhdn->bhen", content, query)
        return self.to_out(seen.flatten(1, 2).unflatten(2, x.shape[2:]))


class Attention(nn.Module):
    """Attention over all pixels."""

    def __init__(self, width: int, heads: int = 4, each: int = 32) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Conv2d(width, 3 * heads * each, 1, bias=False)
        self.to_out = nn.Conv2d(heads * each, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same."""
        tokens = self.to_qkv(x).unflatten(1, (3, self.heads, -1)).flatten(4).transpose(3, 4)
        seen = functional.scaled_dot_product_attention(*tokens.unbind(1))
        return self.to_out(seen.transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[2:]))


class _Named(nn.Module):
    """Keeps a module under a name of the published keys."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


class _Attended(nn.Module):
    """``x + attention(norm(x))``, under the keys ``fn.norm`` and ``fn.fn``."""

    def __init__(self, width: int, attention: nn.Module, width_norm: bool) -> None:
        super().__init__()
        self.fn = _Named(norm=RMSNorm(width, width_norm), fn=attention)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fn.fn(self.fn.norm(x))  # type: ignore[operator]


class ReleasedUnet(nn.Module):
    """CoDiff's released network: noisy latent and condition in, noise out.

    Parameters
    ----------
    width : int
        Channels of the first level; 104 as released.
    channels : int
        Of the latent, and of the condition; 8 as released.
    multiples : sequence of int
        Width after each level over ``width``; (1, 2, 4, 8) as released.
    width_norm : bool
        The released RMS norm, which makes the output depend on the map's width.
    """

    def __init__(
        self, width: int = 104, channels: int = 8, multiples: Sequence[int] = (1, 2, 4, 8), *, width_norm: bool = True
    ) -> None:
        super().__init__()
        self.levels = len(multiples)
        time_width = 4 * width
        widths = [width, *(width * factor for factor in multiples)]
        pairs = list(pairwise(widths))

        def linear(count: int) -> nn.Module:
            return _Attended(count, LinearAttention(count, width_norm), width_norm)

        def block(inside: int, outside: int) -> nn.Module:
            return ResnetBlock(inside, outside, time_width, width_norm)

        self.init_conv = nn.Conv2d(2 * channels, width, 7, 1, 3)
        self.time_mlp = nn.Sequential(
            _Sinusoid(width), nn.Linear(width, time_width), nn.GELU(), nn.Linear(time_width, time_width)
        )
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for number, (inside, outside) in enumerate(pairs):
            last = number == len(pairs) - 1
            smaller = nn.Conv2d(inside, outside, 3, 1, 1) if last else _halved(inside, outside)
            self.downs.append(nn.ModuleList([block(inside, inside), block(inside, inside), linear(inside), smaller]))
        middle = widths[-1]
        self.mid_block1 = block(middle, middle)
        self.mid_attn = _Attended(middle, Attention(middle), width_norm)
        self.mid_block2 = block(middle, middle)
        for number, (inside, outside) in enumerate(reversed(pairs)):
            last = number == len(pairs) - 1
            larger = nn.Conv2d(outside, inside, 3, 1, 1) if last else _doubled(outside, inside)
            self.ups.append(
                nn.ModuleList(
                    [block(outside + inside, outside), block(outside + inside, outside), linear(outside), larger]
                )
            )
        self.final_res_block = block(2 * width, width)
        self.final_conv = nn.Conv2d(width, channels, 1)

    def forward(self, x: torch.Tensor, log_snr: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Noise in a latent.

        Parameters
        ----------
        x, condition : Tensor (B, channels, H, W)
            H and W divisible by 2 ** (levels - 1).
        log_snr : Tensor (B,)
            Log of alpha^2 / sigma^2.

        Raises
        ------
        InputError
            Maps that cannot be halved often enough.
        """
        factor = 2 ** (self.levels - 1)
        if x.shape[2] % factor or x.shape[3] % factor:
            raise InputError(
                f"a latent of {x.shape[2]} x {x.shape[3]} cells", remedy=f"Pad it to multiples of {factor}."
            )
        first = x = self.init_conv(torch.cat([condition, x], 1))
        time = self.time_mlp(log_snr.to(x.dtype))
        skips = []
        for level in self.downs:
            one, two, attention, smaller = level.children()
            x = one(x, time)
            skips.append(x)
            x = attention(two(x, time))
            skips.append(x)
            x = smaller(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, time)), time)
        for level in self.ups:
            one, two, attention, larger = level.children()
            x = one(torch.cat([x, skips.pop()], 1), time)
            x = two(torch.cat([x, skips.pop()], 1), time)
            x = larger(attention(x))
        return self.final_conv(self.final_res_block(torch.cat([x, first], 1), time))


class _Sinusoid(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.rates = width // 2

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        rate = torch.exp(-math.log(10_000) / (self.rates - 1) * torch.arange(self.rates, device=t.device))
        angle = t[:, None] * rate[None]
        return torch.cat([angle.sin(), angle.cos()], -1)


class _Apply(nn.Module):
    """A function as a layer without weights."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def _halved(inside: int, outside: int) -> nn.Module:
    return nn.Sequential(_Apply(_space_to_depth), nn.Conv2d(4 * inside, outside, 1))


def _doubled(inside: int, outside: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(inside, outside, 3, 1, 1))


def _space_to_depth(x: torch.Tensor) -> torch.Tensor:
    return functional.pixel_unshuffle(x, 2)

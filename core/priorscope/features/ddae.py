"""DDAE's pixel U-Net: a DDPM or EDM network whose up path classifies (Xiang et al. 2023).

Module names are those of the official checkpoints (FutureXiang/ddae).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.schedule import EDMSchedule, VPSchedule
from priorscope.errors import InputError

_GROUPS = 32
_SIGMA_DATA = 0.5


class DDAEUNet(nn.Module):
    """The U-Net, images (B, C, H, W) in [-1, 1] to the network's output of the same shape.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height, width; the sides must divide by 2 a level.
    n_channels : int
        Width of the first level; a multiple of 32.
    ch_mults : sequence of int
        Width of each level in units of ``n_channels``.
    is_attn : sequence of bool
        Levels whose blocks end with self-attention.
    dropout : float
    n_blocks : int
        Blocks a level on the way down; one more on the way up.
    use_res_for_updown : bool
        Residual blocks that resample; the only kind implemented.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (3, 32, 32),
        n_channels: int = 128,
        ch_mults: Sequence[int] = (1, 2, 2, 2),
        is_attn: Sequence[bool] = (False, True, False, False),
        dropout: float = 0.1,
        n_blocks: int = 2,
        use_res_for_updown: bool = True,
    ) -> None:
        super().__init__()
        if not use_res_for_updown:
            raise InputError("a DDAE U-Net that resamples without residual blocks", remedy="It is not implemented.")
        if n_channels % _GROUPS or len(ch_mults) != len(is_attn) or not ch_mults or n_blocks < 1:
            raise InputError(f"a DDAE U-Net of width {n_channels} with levels {list(ch_mults)}, {list(is_attn)}")
        width = 4 * n_channels
        self.image_proj = nn.Conv2d(image_shape[0], n_channels, 3, padding=1)
        self.time_emb = _TimeEmbedding(n_channels)
        down: list[nn.Module] = []
        skips = [n_channels]
        channels = n_channels
        for level, (multiple, attends) in enumerate(zip(ch_mults, is_attn, strict=True)):
            for _ in range(n_blocks):
                down.append(_Block(channels, n_channels * multiple, width, dropout, attends))
                channels = n_channels * multiple
                skips.append(channels)
            if level < len(ch_mults) - 1:
                down.append(_Resample(channels, width, dropout, "down"))
                skips.append(channels)
        self.down = nn.ModuleList(down)
        self.middle = _Middle(channels, width, dropout)
        up: list[nn.Module] = []
        for level, (multiple, attends) in reversed(list(enumerate(zip(ch_mults, is_attn, strict=True)))):
            for _ in range(n_blocks + 1):
                up.append(_Block(channels + skips.pop(), n_channels * multiple, width, dropout, attends))
                channels = n_channels * multiple
            if level > 0:
                up.append(_Resample(channels, width, dropout, "up"))
        self.up = nn.ModuleList(up)
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.final = nn.Conv2d(channels, image_shape[0], 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Output for ``x`` (B, C, H, W); ``t`` (B,) is t / 1000 for DDPM, ln(sigma) / 4 for EDM."""
        emb = self.time_emb(t)
        x = self.image_proj(x)
        skips = [x]
        for module in self.down:
            x = module(x, emb)
            skips.append(x)
        x = self.middle(x, emb)
        for module in self.up:
            x = module(x if isinstance(module, _Resample) else torch.cat([x, skips.pop()], 1), emb)
        return self.final(functional.silu(self.norm(x)))


def ddae_denoiser(unet: DDAEUNet, kind: Literal["ddpm", "edm"]) -> Denoiser:
    """The U-Net as trained by DDPM (epsilon, linear betas, levels 0 ... 999) or by EDM (levels are sigmas).

    DDAE counts DDPM's steps from 1: its t = 11 is the level 10 here.
    """
    if kind == "ddpm":
        schedule = VPSchedule.from_betas("linear", beta_start=1e-4, beta_end=0.02)
        return Denoiser(unet, schedule, "epsilon", time_label=lambda t: (t + 1) / schedule.num_steps)
    if kind == "edm":
        return Denoiser(_Preconditioned(unet), EDMSchedule(), "sample")
    raise InputError(f"DDAE network {kind!r}", remedy="Use 'ddpm' or 'edm'.")


class _Preconditioned:
    """EDM's preconditioning (Karras et al. 2022, table 1): the clean image from x and sigma."""

    def __init__(self, unet: nn.Module) -> None:
        self.unet = unet

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        spread = sigma.double().reshape(-1, *(1,) * (x.ndim - 1))
        power = spread**2 + _SIGMA_DATA**2
        scale_in, scale_out = power.rsqrt(), spread * _SIGMA_DATA * power.rsqrt()
        output = self.unet(scale_in.to(x) * x, (sigma.double().log() / 4).to(x))
        return (_SIGMA_DATA**2 / power).to(x) * x + scale_out.to(x) * output


class _TimeEmbedding(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.angles = channels // 2
        self.lin1 = nn.Linear(channels, 4 * channels)
        self.lin2 = nn.Linear(4 * channels, 4 * channels)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(self.angles, device=t.device, dtype=t.dtype)
        phases = t[:, None] * torch.exp(steps * (-math.log(10_000) / (self.angles - 1)))
        return self.lin2(functional.silu(self.lin1(torch.cat([phases.sin(), phases.cos()], 1))))


class _Residual(nn.Module):
    """Norm, SiLU, convolution, twice, with the time embedding between, plus the input; may resample first."""

    def __init__(self, inside: int, outside: int, width: int, dropout: float, resample: str = "") -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = nn.GroupNorm(_GROUPS, inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.time_emb = nn.Sequential(nn.SiLU(), nn.Linear(width, outside))
        self.norm2 = nn.GroupNorm(_GROUPS, outside)
        self.conv2 = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(outside, outside, 3, padding=1))
        self.shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        hidden = self.conv1(self._resized(functional.silu(self.norm1(x))))
        hidden = hidden + self.time_emb(emb)[:, :, None, None]
        return self.conv2(functional.silu(self.norm2(hidden))) + self.shortcut(self._resized(x))

    def _resized(self, x: torch.Tensor) -> torch.Tensor:
        if self.resample == "down":
            return functional.avg_pool2d(x, 2)
        return functional.interpolate(x, scale_factor=2.0) if self.resample == "up" else x


class _Attention(nn.Module):
    """Self-attention over pixels with one head, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.projection = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        query, key, value = self.projection(tokens)[:, None].chunk(3, -1)
        answer = self.output(functional.scaled_dot_product_attention(query, key, value)[:, 0])
        return x + answer.transpose(1, 2).unflatten(2, (x.shape[-2], x.shape[-1]))


class _Block(nn.Module):
    def __init__(self, inside: int, outside: int, width: int, dropout: float, attends: bool) -> None:
        super().__init__()
        self.res = _Residual(inside, outside, width, dropout)
        self.attn = _Attention(outside) if attends else nn.Identity()

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        return self.attn(self.res(x, emb))


class _Middle(nn.Module):
    def __init__(self, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.res1 = _Residual(channels, channels, width, dropout)
        self.attn = _Attention(channels)
        self.res2 = _Residual(channels, channels, width, dropout)

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        return self.res2(self.attn(self.res1(x, emb)), emb)


class _Resample(nn.Module):
    def __init__(self, channels: int, width: int, dropout: float, kind: str) -> None:
        super().__init__()
        self.op = _Residual(channels, channels, width, dropout, kind)

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        return self.op(x, emb)

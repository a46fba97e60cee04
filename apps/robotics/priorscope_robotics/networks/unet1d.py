"""The temporal U-Net of Diffusion Policy: convolutions over the plan's time steps, conditioned through FiLM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from priorscope.errors import InputError


class StepEmbedding(nn.Module):
    """Sinusoids of a noise level: (...) -> (..., dim), sines first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        half = self.dim // 2
        exponent = torch.arange(half, device=t.device, dtype=torch.float32) * (-math.log(10_000) / (half - 1))
        angle = t[..., None].float() * exponent.exp()
        return torch.cat([angle.sin(), angle.cos()], -1)


class TimeConv(nn.Conv1d):
    """A convolution over time, quicker where a single plan is made on a CPU.

    There torch spends most of its time on bringing the weights into another order. So a copy of the frozen weights is
    kept in the order of channels-last images, of height 1, and used for a batch of one.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight
        if len(x) != 1 or weight.requires_grad or x.device.type != "cpu" or self.kernel_size[0] == 1:
            return super().forward(x)
        mark = weight.data_ptr(), weight._version, weight.dtype
        mine = self.__dict__.get("_laid_out")
        if mine is None or mine[0] != mark:
            mine = mark, weight.detach().unsqueeze(2).contiguous(memory_format=torch.channels_last)
            self.__dict__["_laid_out"] = mine
        stride, padding = (1, self.stride[0]), (0, int(self.padding[0]))
        return F.conv2d(x.unsqueeze(2), mine[1], self.bias, stride, padding).squeeze(2)


class ConvBlock(nn.Module):
    """Convolution over time, GroupNorm, Mish."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, groups: int = 8) -> None:
        super().__init__()
        self.block = nn.Sequential(
            TimeConv(inputs, outputs, kernel_size, padding=kernel_size // 2), nn.GroupNorm(groups, outputs), nn.Mish()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class FilmBlock(nn.Module):
    """Two :class:`ConvBlock` with FiLM between them and a residual connection.

    With ``scale`` the features are multiplied by what the condition says (not by 1 plus it) and shifted; without, only
    shifted. The condition is (B, C), or (B, C, T) with one for every time step.
    """

    def __init__(
        self, inputs: int, outputs: int, condition: int, *, kernel_size: int, groups: int, scale: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [ConvBlock(inputs, outputs, kernel_size, groups), ConvBlock(outputs, outputs, kernel_size, groups)]
        )
        self.scale = scale
        # Linear, not Conv1d: the published shape is (outputs, condition)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(condition, outputs * (2 if scale else 1)))
        self.residual_conv = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        h = self.blocks[0](x)
        if condition.ndim == 3:
            film = self.cond_encoder(condition.mT).mT
        else:
            film = self.cond_encoder(condition)[..., None]
        if self.scale:
            factor, shift = film.chunk(2, 1)
            h = factor * h + shift
        else:
            h = h + film
        return self.blocks[1](h) + self.residual_conv(x)


class Downsample(nn.Module):
    """Halve the time axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = TimeConv(channels, channels, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Double the time axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, channels, 4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class ConditionalUnet1D(nn.Module):
    """Denoise plans (B, T, D).

    Parameters
    ----------
    input_dim : int
        D: actions, or actions and observations where these are inpainted.
    global_cond_dim : int
        Of the vector that conditions every block, besides the noise level; 0: none.
    local_cond_dim : int
        Of what conditions single time steps; 0: none.
    diffusion_step_embed_dim : int
    down_dims : sequence of int
        Channels of each stage; T must be a multiple of 2^(stages - 1).
    kernel_size, n_groups : int
    cond_predict_scale : bool
        FiLM with a factor, or a shift alone.

    Notes
    -----
    Keys and arithmetic are those of ``diffusion_policy/model/diffusion/conditional_unet1d.py``. Two of its oddities are
    kept, since published weights were trained with them: the features of the first stage never reach the decoder, and
    the second encoder of the local condition has weights but no use.
    """

    def __init__(
        self,
        input_dim: int,
        global_cond_dim: int = 0,
        local_cond_dim: int = 0,
        *,
        diffusion_step_embed_dim: int = 256,
        down_dims: Sequence[int] = (256, 512, 1024),
        kernel_size: int = 5,
        n_groups: int = 8,
        cond_predict_scale: bool = True,
    ) -> None:
        super().__init__()
        if len(down_dims) < 2:
            raise InputError(f"down_dims {tuple(down_dims)}", remedy="Use two stages or more.")
        if any(width % n_groups for width in down_dims) or down_dims[0] % 8:
            raise InputError(
                f"down_dims {tuple(down_dims)} and {n_groups} groups", remedy="Use multiples of both and 8."
            )
        if diffusion_step_embed_dim < 4 or diffusion_step_embed_dim % 2:
            raise InputError(
                f"diffusion_step_embed_dim {diffusion_step_embed_dim}", remedy="Use an even number from 4 on."
            )
        self.stride = 2 ** (len(down_dims) - 1)
        step = diffusion_step_embed_dim
        self.diffusion_step_encoder = nn.Sequential(
            StepEmbedding(step), nn.Linear(step, 4 * step), nn.Mish(), nn.Linear(4 * step, step)
        )
        condition = step + global_cond_dim

        def block(inputs: int, outputs: int) -> FilmBlock:
            return FilmBlock(
                inputs, outputs, condition, kernel_size=kernel_size, groups=n_groups, scale=cond_predict_scale
            )

        widths = [input_dim, *down_dims]
        stages = list(pairwise(widths))
        self.local_cond_encoder = None
        if local_cond_dim:
            first = stages[0][1]
            self.local_cond_encoder = nn.ModuleList([block(local_cond_dim, first), block(local_cond_dim, first)])
        self.down_modules = nn.ModuleList(
            nn.ModuleList(
                [
                    block(inputs, outputs),
                    block(outputs, outputs),
                    Downsample(outputs) if index < len(stages) - 1 else nn.Identity(),
                ]
            )
            for index, (inputs, outputs) in enumerate(stages)
        )
        middle = widths[-1]
        self.mid_modules = nn.ModuleList([block(middle, middle), block(middle, middle)])
        self.up_modules = nn.ModuleList(
            nn.ModuleList([block(2 * outputs, inputs), block(inputs, inputs), Upsample(inputs)])
            for inputs, outputs in reversed(stages[1:])
        )
        self.final_conv = nn.Sequential(
            ConvBlock(down_dims[0], down_dims[0], kernel_size), nn.Conv1d(down_dims[0], input_dim, 1)
        )

    def forward(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        global_cond: torch.Tensor | None = None,
        local_cond: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the network says of ``x``.

        Parameters
        ----------
        x : Tensor (B, T, D)
        t : Tensor (), (B,) or (B, T)
            Steps of the schedule; the last is one level for every time step (streaming policies).
        global_cond : Tensor (B, C), optional
        local_cond : Tensor (B, T, C), optional

        Returns
        -------
        Tensor (B, T, D)
        """
        if x.shape[1] % self.stride:
            raise InputError(
                f"a plan of {x.shape[1]} steps does not fit a U-Net that halves it to a {self.stride}th",
                remedy=f"Use a horizon that is a multiple of {self.stride}.",
            )
        x = x.mT
        if t.ndim == 0:
            t = t.expand(x.shape[0])
        embedding: StepEmbedding = self.diffusion_step_encoder[0]  # type: ignore[assignment]
        condition = self.diffusion_step_encoder[1:](embedding(t).to(x.dtype))
        if condition.ndim == 3:
            condition = condition.mT
            if global_cond is not None:
                whole = global_cond[..., None].expand(-1, -1, condition.shape[-1])
                condition = torch.cat([condition, whole], 1)
        elif global_cond is not None:
            condition = torch.cat([condition, global_cond], -1)
        levels = [condition]
        for _ in self.down_modules[1:]:
            levels.append(F.avg_pool1d(levels[-1], 2) if condition.ndim == 3 else condition)

        local = None
        if local_cond is not None and self.local_cond_encoder is not None:
            local = self.local_cond_encoder[0](local_cond.mT, condition)
        kept = []
        for index, stage in enumerate(self.down_modules):
            x = stage[0](x, levels[index])  # type: ignore[index]
            if index == 0 and local is not None:
                x = x + local
            x = stage[1](x, levels[index])  # type: ignore[index]
            kept.append(x)
            x = stage[2](x)  # type: ignore[index]
        for block in self.mid_modules:
            x = block(x, levels[-1])
        for index, stage in enumerate(self.up_modules):
            x = torch.cat([x, kept.pop()], 1)
            level = levels[-1 - index]
            x = stage[2](stage[1](stage[0](x, level), level))  # type: ignore[index]
        return self.final_conv(x).mT

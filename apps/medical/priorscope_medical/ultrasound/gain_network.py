"""A denoiser of speckle: gains for the local spectrum of the noisy RF, chosen by a network.

Given the power spectrum at a place, tissue's echoes and haze's are Gaussian, and the best estimate under noise is
Wiener's: each frequency times S / (S + noise). What a network has to find is S. So it looks at the power of the noisy
values in short windows of rows, beams and all frames, and answers with a gain for each of their frequencies: phases,
which are random, stay out of it. There is no normalisation over space, so whole frames are treated as patches are.
"""

from __future__ import annotations

import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

from priorscope.errors import InputError

#: Power of a coefficient over the noise's, below which differences are no longer seen.
_FLOOR = 1e-2


class LocalSpectrum:
    """Spectra of windows of ``side`` rows by ``side`` beams, half overlapping, and all frames.

    Windows at the rim see the frame mirrored. White noise keeps its variance.

    Parameters
    ----------
    side : int
        Even.
    """

    def __init__(self, side: int) -> None:
        if side < 2 or side % 2:
            raise InputError(f"windows of {side} rows", remedy="Use an even number.")
        self.side, self.hop = side, side // 2

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Complex (B, F, H, W) to coefficients (B, F side^2, h, w)."""
        side, hop = self.side, self.hop
        for axis in (2, 3):
            frames = frames.index_select(axis, self._mirrored(frames.shape[axis], frames.device))
        windows = frames.unfold(2, side, hop).unfold(3, side, hop)  # (B, F, h, w, side, side)
        spectrum = torch.fft.fftn(2 * windows * self._window(frames), dim=(1, 4, 5), norm="ortho")
        return spectrum.permute(0, 1, 4, 5, 2, 3).flatten(1, 3)

    def inverse(self, spectrum: torch.Tensor, shape: torch.Size | tuple[int, ...]) -> torch.Tensor:
        """Frames of ``shape`` with these coefficients: the windows' values, weighted and added."""
        side, hop = self.side, self.hop
        batch, count, height, width = shape
        h, w = spectrum.shape[-2:]
        coefficients = spectrum.reshape(batch, count, side, side, h, w)
        windows = torch.fft.ifftn(coefficients, dim=(1, 2, 3), norm="ortho")
        windows = windows * self._window(spectrum)[:, :, None, None] / 2
        pieces = torch.view_as_real(windows).permute(0, 1, 6, 2, 3, 4, 5).reshape(batch * count * 2, side * side, h * w)
        whole = functional.fold(pieces, ((h + 1) * hop, (w + 1) * hop), side, stride=hop)
        whole = whole.reshape(batch, count, 2, *whole.shape[-2:])[..., hop : hop + height, hop : hop + width]
        return torch.complex(whole[:, :, 0].contiguous(), whole[:, :, 1].contiguous())

    def _mirrored(self, count: int, device: torch.device) -> torch.Tensor:
        """Places of ``count`` values with hop more on either side, and as many as a last window needs."""
        places = torch.arange(-self.hop, count + self.hop + -count % self.hop, device=device)
        period = max(1, 2 * (count - 1))
        folded = places % period
        return torch.minimum(folded, period - folded) if count > 1 else torch.zeros_like(places)

    def _window(self, like: torch.Tensor) -> torch.Tensor:
        places = torch.arange(self.side, device=like.device, dtype=like.real.dtype)
        sine = torch.sin(math.pi * (places + 0.5) / self.side)
        return sine[:, None] * sine[None, :]


class GainNetwork(ModelMixin, ConfigMixin):
    """Gains S / (S + noise) in (0, 1) of the coefficients of a noisy sequence, from their power and depth.

    Parameters
    ----------
    frames : int
        Frames of a sequence.
    side : int
        Of the windows.
    width : int
        Channels.
    dilations : sequence of int
        One residual block each.
    """

    @register_to_config
    def __init__(
        self, frames: int = 6, side: int = 8, width: int = 128, dilations: tuple[int, ...] = (1, 2, 1, 2)
    ) -> None:
        super().__init__()
        self.spectrum = LocalSpectrum(side)
        bins = frames * side * side
        self.enter = nn.Conv2d(bins, width, 1)
        self.place = nn.Conv2d(2, width, 1)
        self.level = nn.Sequential(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(_Block(width, dilation) for dilation in dilations)
        self.leave = nn.Conv2d(width, bins, 1)
        self.own = nn.Parameter(torch.full((bins, 1, 1), 0.3))
        nn.init.zeros_(self.leave.weight)
        self.leave.bias = nn.Parameter(torch.full((bins,), -2.0))

    def forward(self, spectrum: torch.Tensor, level: torch.Tensor, top: torch.Tensor | None = None) -> torch.Tensor:
        """Gains like ``spectrum``.

        Parameters
        ----------
        spectrum : complex Tensor (B, bins, h, w)
            Of the noisy sequence.
        level : Tensor (B,)
            Logarithm of the noise's standard deviation.
        top : Tensor (B,), optional
            Row of the line at which the sequence begins; default 0.
        """
        wide = level[:, None, None, None]
        power = torch.view_as_real(spectrum).square().sum(-1)
        seen = (power + _FLOOR * torch.exp(2 * wide)).log() / 2
        rows = self.spectrum.hop * torch.arange(spectrum.shape[2], device=level.device, dtype=level.dtype)
        depth = rows + (torch.zeros_like(level) if top is None else top.to(level))[:, None]
        places = torch.stack([depth / 128, torch.log1p(depth / 16)], 1)[..., None]
        told = self.level(torch.stack([level / 3, (level / 3).square()], -1))[:, :, None, None] + self.place(places)
        hidden = self.enter(seen - wide) + told
        for block in self.blocks:
            hidden = block(hidden, told)
        # the logarithm of S, and of S over the noise's variance
        return torch.sigmoid(self.leave(hidden).float() + 2 * self.own * seen - 2 * wide)


class _Block(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.around = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, padding_mode="zeros")
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, hidden: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        even = self.norm(hidden.movedim(1, -1)).movedim(-1, 1)
        return hidden + self.out(functional.silu(self.around(even + told)))

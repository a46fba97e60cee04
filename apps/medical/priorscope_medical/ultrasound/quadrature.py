"""Lines of RF as rows of I and Q, one every half wavelength: all that a band of one carrier holds, in half the numbers.

At four samples a period RF reads I, -Q, -I, Q and so on. Rows have the same length in wavelengths whatever the probe
and the sampling, so a network meets the same patterns in all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from priorscope.errors import InputError

#: Rows of silence behind the last sample: the transform is periodic.
_SILENT = 8


def carrier_of(rf: torch.Tensor) -> float:
    """Mean frequency of RF (..., samples, beams) in cycles a sample, weighted by power.

    Raises
    ------
    InputError
        No signal, or a band that reaches beyond a third of the sampling rate.
    """
    if rf.ndim < 2 or rf.shape[-2] < 16:
        raise InputError(f"RF of shape {tuple(rf.shape)}", remedy="Give (..., samples, beams), 16 samples or more.")
    power = torch.fft.rfft(rf.double(), dim=-2).abs().square()
    power = power.movedim(-2, 0).flatten(1).sum(1)
    power[0] = 0.0
    if not 0 < float(power.sum()) < math.inf:
        raise InputError("RF without a signal, or not finite", remedy="Check the file.")
    frequencies = torch.arange(len(power), dtype=torch.float64) / rf.shape[-2]
    return float((power * frequencies).sum() / power.sum())


@dataclass(frozen=True)
class Quadrature:
    """The way from RF to rows and back.

    Parameters
    ----------
    samples : int
        Of a line.
    carrier : float
        Cycles a sample: below 1/3, so that the band of 0.5 to 1.5 carriers is there.
    """

    samples: int
    carrier: float

    def __post_init__(self) -> None:
        if not 0 < self.carrier < 1 / 3:
            raise InputError(
                f"a carrier of {self.carrier:.3g} cycles a sample",
                remedy="Beamform lines with at least three samples a period (a sixth of a wavelength apart).",
            )
        if self.samples * self.carrier < 4:
            raise InputError(f"lines of {self.samples * self.carrier:.2g} periods", remedy="Use longer lines.")

    @property
    def rows(self) -> int:
        """Rows of a line, the silent ones included: an even number."""
        return 2 * round((self.samples * self.carrier + _SILENT) / 2)

    @property
    def padded(self) -> int:
        return round(self.rows / self.carrier)

    def forward(self, rf: torch.Tensor) -> torch.Tensor:
        """RF (..., samples, beams) to complex rows (..., rows, beams); their size is the envelope."""
        if rf.shape[-2] != self.samples:
            raise InputError(f"lines of {rf.shape[-2]} samples, not {self.samples}")
        spectrum = torch.fft.rfft(rf, self.padded, dim=-2)
        half = self.rows // 2
        band = spectrum[..., self.rows - half : self.rows + half, :]
        centred = torch.cat([band[..., half:, :], band[..., :half, :]], -2)
        return torch.fft.ifft(centred, dim=-2) * (2 * self.rows / self.padded)

    def inverse(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows to RF (..., samples, beams) of their band."""
        if rows.shape[-2] != self.rows:
            raise InputError(f"{rows.shape[-2]} rows, not {self.rows}")
        half = self.rows // 2
        centred = torch.fft.fft(rows, dim=-2) * (self.padded / (2 * self.rows))
        spectrum = rows.new_zeros(*rows.shape[:-2], self.padded // 2 + 1, rows.shape[-1])
        spectrum[..., self.rows : self.rows + half, :] = centred[..., :half, :]
        spectrum[..., self.rows - half : self.rows, :] = centred[..., half:, :]
        return torch.fft.irfft(spectrum, self.padded, dim=-2)[..., : self.samples, :]


def as_channels(rows: torch.Tensor) -> torch.Tensor:
    """Complex rows (..., frames, rows, beams) as real channels (..., 2 frames, rows, beams): I and Q of each frame."""
    parts = torch.stack([rows.real, rows.imag], -3)
    return parts.reshape(*rows.shape[:-3], 2 * rows.shape[-3], *rows.shape[-2:])


def as_rows(channels: torch.Tensor) -> torch.Tensor:
    """The way back of :func:`as_channels`."""
    if channels.shape[-3] % 2:
        raise InputError(f"{channels.shape[-3]} channels are no pairs of I and Q")
    parts = channels.reshape(*channels.shape[:-3], channels.shape[-3] // 2, 2, *channels.shape[-2:])
    return torch.complex(parts[..., 0, :, :].contiguous(), parts[..., 1, :, :].contiguous())

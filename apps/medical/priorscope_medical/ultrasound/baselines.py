"""Classical ways to take haze out of RF [frames, samples, beams], each with the options it should be tuned by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.signal import hilbert

from priorscope.errors import InputError
from priorscope_medical.ultrasound.display import to_decibel
from priorscope_medical.ultrasound.gain_network import LocalSpectrum
from priorscope_medical.ultrasound.quadrature import Quadrature, carrier_of

Rf = NDArray[np.float32]


def scaled(rf: Rf, *, gain: float) -> Rf:
    """The hazy RF times one number: the best that needs to know nothing but the power."""
    return (gain * rf).astype(np.float32)


def high_pass(rf: Rf, *, frames: float, amount: float = 1.0) -> Rf:
    """Slow time: less ``amount`` times the Gaussian mean over frames (standard deviation; inf: of the whole cine)."""
    _several(rf)
    still = rf.mean(0, keepdims=True) if math.isinf(frames) else gaussian_filter1d(rf, frames, axis=0, mode="nearest")
    return (rf - np.float32(amount) * still).astype(np.float32)


def svd_filter(rf: Rf, *, rank: int, amount: float = 1.0, block: tuple[int, int] | None = None) -> Rf:
    """Clutter filter: less ``amount`` times the first ``rank`` singular components of frames by places.

    ``block`` (samples, beams) filters places block by block, default all at once. Source: Demene et al. 2015.
    """
    _several(rf)
    if not 0 < rank < len(rf):
        raise InputError(f"{rank} components of {len(rf)} frames", remedy="Take fewer than there are frames.")
    analytic = hilbert(rf, axis=1)
    height, width = rf.shape[1:] if block is None else block
    out = np.empty_like(rf)
    for top in range(0, rf.shape[1], height):
        for left in range(0, rf.shape[2], width):
            place = (slice(None), slice(top, top + height), slice(left, left + width))
            matrix = analytic[place].reshape(len(rf), -1)
            u, _, _ = np.linalg.svd(matrix @ matrix.conj().T)
            still = u[:, :rank] @ (u[:, :rank].conj().T @ matrix)
            out[place] = (matrix - amount * still).real.reshape(out[place].shape)
    return out


def non_local_means(rf: Rf, *, h: float, floor: float, patch: int = 5, reach: int = 7) -> Rf:
    """The envelope in decibels, denoised frame by frame, and what lies below ``floor`` dB under its loudest taken down.

    The published comparison is BM3D on such images; haze is no noise to either, so a curve follows which pushes low
    grey values down: below the floor twice as many decibels are lost. RF gets the gain that its envelope got.
    """
    from skimage.restoration import denoise_nl_means

    size = np.abs(hilbert(rf, axis=1))
    decibel = to_decibel(torch.from_numpy(size), dynamic_range=80.0).numpy()
    every = max(1, round(rf.shape[1] / 256))  # along the lines the envelope is smooth
    out = np.empty_like(rf)
    for index, frame in enumerate(decibel):
        coarse = gaussian_filter1d(frame, every / 2, axis=0)[::every]
        found = denoise_nl_means(coarse, patch_size=patch, patch_distance=reach, h=h, fast_mode=True)
        places = np.arange(len(frame)) / every
        fine = np.stack([np.interp(places, np.arange(len(found)), column) for column in found.T], 1)
        fine = np.where(fine < floor, floor + 2 * (fine - floor), fine)
        out[index] = rf[index] * 10 ** (np.minimum(fine - gaussian_filter(frame, (every, 1)), 0) / 20)
    return out


class MeanSpectra:
    """Mean local power spectra of tissue and haze, over slow time, depth and beams, known from other cines.

    Parameters
    ----------
    tissue, haze : sequence of arrays [frames, samples, beams]
        Pairs whose sum has been scaled as the cines that will be filtered are: this class divides each by its sum's
        RMS.
    by_depth : bool
        Spectra of each depth, or of all depths together.
    side : int
        Of the windows in rows and beams; all frames are transformed.
    """

    def __init__(self, tissue: Sequence[Rf], haze: Sequence[Rf], *, by_depth: bool, side: int = 8) -> None:
        self.spectrum = LocalSpectrum(side)
        sums = []
        for one, other in zip(tissue, haze, strict=True):
            carrier = carrier_of(torch.from_numpy(one + other))
            way = Quadrature(one.shape[1], carrier)
            scale = way.forward(torch.from_numpy(one + other)).abs().square().mean().sqrt()
            sums.append([self._power(way, part, float(scale), by_depth) for part in (one, other)])
        rows = min(part.shape[2] for pair in sums for part in pair)
        self.tissue, self.haze = (
            torch.stack([pair[index][:, :, :rows] for pair in sums]).mean(0) for index in range(2)
        )

    def wiener(self, rf: Rf, *, over: float = 1.0) -> Rf:
        """S / (S + over N) at each local frequency: the best linear filter for these spectra, with ``over`` 1."""
        return self._filtered(rf, lambda power, tissue, haze: tissue / (tissue + over * haze))

    def subtracted(self, rf: Rf, *, over: float = 1.0, smooth: float = 1.0, floor: float = 0.05) -> Rf:
        """Spectral subtraction: gain 1 - over N / power, at least ``floor``, the power smoothed over places."""

        def gain(power: torch.Tensor, tissue: torch.Tensor, haze: torch.Tensor) -> torch.Tensor:
            even = torch.from_numpy(gaussian_filter(power.numpy(), (0, 0, smooth, smooth)))
            return (1 - over * haze / even.clamp(min=1e-12)).clamp(min=floor)

        return self._filtered(rf, gain)

    def _power(self, way: Quadrature, rf: Rf, scale: float, by_depth: bool) -> torch.Tensor:
        power = self.spectrum.forward(way.forward(torch.from_numpy(rf))[None] / scale).abs().square()
        power = power.mean(3, keepdim=True)
        return power if by_depth else power.mean(2, keepdim=True).expand_as(power)

    def _filtered(self, rf: Rf, gain) -> Rf:  # type: ignore[no-untyped-def]
        lines = torch.from_numpy(np.ascontiguousarray(rf))
        way = Quadrature(rf.shape[1], carrier_of(lines))
        rows = way.forward(lines)
        scale = float(rows.abs().square().mean().sqrt())
        found = self.spectrum.forward(rows[None] / scale)
        tissue, haze = (self._stretched(part, found.shape[2]) for part in (self.tissue, self.haze))
        kept = gain(found.abs().square(), tissue, haze)
        removed = self.spectrum.inverse((1 - kept) * found, rows[None].shape)[0] * scale
        return (lines - way.inverse(removed)).numpy()

    @staticmethod
    def _stretched(part: torch.Tensor, rows: int) -> torch.Tensor:
        """Spectra of as many depths."""
        if part.shape[2] == rows:
            return part
        return torch.nn.functional.interpolate(part, size=(rows, 1), mode="bilinear", align_corners=True)


def _several(rf: Rf) -> None:
    if rf.ndim != 3 or len(rf) < 2:
        raise InputError(f"RF of shape {list(rf.shape)}", remedy="Slow time needs two or more frames.")

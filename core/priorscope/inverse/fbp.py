"""The parts of filtered back-projection: filters, weights of the views, interpolation on the detector.

Kak and Slaney, Principles of Computerized Tomographic Imaging, chapter 3.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import torch
from torch.nn import functional

from priorscope.errors import InputError

FilterName = Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"]


def filter_response(length: int, name: FilterName | None) -> torch.Tensor:
    """Response of a reconstruction filter at the frequencies of a real transform of ``length`` (length // 2 + 1,).

    The ramp is the transform of its band-limited impulse response 1/4, -1/(pi n)^2 for odd n, 0 for even n (Kak and
    Slaney, eq. 61), which has no offset at frequency 0; the others are windows on it that fall to the Nyquist
    frequency. Normalised for a pitch of 1, so that it tends to the absolute value of the frequency in cycles.
    """
    if name is None:
        return torch.ones(length // 2 + 1, dtype=torch.float64)
    if name not in get_args(FilterName):
        raise InputError(f"a filter named {name!r}", remedy=f"Use one of {', '.join(get_args(FilterName))}, or none.")
    distance = torch.minimum(torch.arange(length), length - torch.arange(length)).double()
    impulse = torch.where(distance % 2 == 1, -1 / (math.pi * distance.clamp(min=1)) ** 2, 0.0)
    impulse[0] = 0.25
    ramp = torch.fft.rfft(impulse).real
    frequency = torch.arange(length // 2 + 1, dtype=torch.float64) / length
    window = {
        "ramp": torch.ones_like(frequency),
        "shepp-logan": torch.sinc(frequency),
        "cosine": torch.cos(math.pi * frequency),
        "hamming": 0.54 + 0.46 * torch.cos(2 * math.pi * frequency),
        "hann": 0.5 + 0.5 * torch.cos(2 * math.pi * frequency),
    }[name]
    return ramp * window


def filter_sinogram(sinogram: torch.Tensor, name: FilterName | None, pitch: float = 1.0) -> torch.Tensor:
    """Filter (B, 1, detectors, views) along the detectors, zero-padded to twice their number at least.

    ``pitch`` is the distance of detectors: the result is per unit of it. None returns the sinogram.
    """
    if name is None:
        return sinogram
    detectors = sinogram.shape[-2]
    length = max(64, 2 ** math.ceil(math.log2(2 * detectors)))
    response = filter_response(length, name).to(sinogram.device, sinogram.dtype)[:, None]
    spectrum = torch.fft.rfft(sinogram, n=length, dim=-2) * response
    return torch.fft.irfft(spectrum, n=length, dim=-2)[..., :detectors, :] / pitch


def angular_weights(angles: np.ndarray, period: float) -> np.ndarray:
    """Arc that each view stands for, (views,) in radians: half the way to its neighbours on either side.

    Angles count modulo ``period`` (pi for parallel rays, 2 pi for a fan); views at the same angle share. A gap of more
    than twice the usual (median) one is where nothing was measured: beside it a view gets half a usual gap. One view
    stands for the whole period.
    """
    order = np.argsort(angles % period, kind="stable")
    turned = (angles % period)[order]
    gaps = np.diff(turned, append=turned[0] + period)
    apart = gaps > 1e-6
    if not apart.any():
        return np.full(len(angles), period / len(angles))
    usual = np.median(gaps[apart])
    gaps = np.where(gaps > 2.001 * usual, usual, np.where(apart, gaps, 0.0))
    # Views at one angle: their arcs are shared evenly among them.
    group = np.concatenate([[0], np.cumsum(apart[:-1])])
    if not apart[-1]:
        group[group == group[-1]] = 0
    arcs = np.bincount(group, weights=(gaps + np.roll(gaps, 1)) / 2) / np.bincount(group).clip(min=1)
    weights = np.empty(len(angles))
    weights[order] = arcs[group]
    return weights


def backproject_view(columns: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Interpolate a view (detectors, B) linearly at ``position`` (any shape, in detectors); returns (positions, B).

    It fades to zero within one detector beyond either end.
    """
    detectors = len(columns)
    padded = functional.pad(columns, (0, 0, 1, 1))
    place = position.reshape(-1).clamp(-1, detectors) + 1
    left = place.floor().clamp(max=detectors)
    part = (place - left).to(columns.device, columns.dtype)[:, None]
    left = left.long().to(columns.device)
    return torch.lerp(padded[left], padded[left + 1], part)

"""The parts of filtered back-projection: filters, weights of the views, interpolation on the detector.

Kak and Slaney, Principles of Computerized Tomographic Imaging, chapter 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from torch.nn import functional

from priorscope.errors import InputError

FilterName = Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"]


def filter_response(length: int, name: FilterName | None, arc: float = 0.0, reach: int = 0) -> torch.Tensor:
    """Response of a reconstruction filter at the frequencies of a real transform of ``length`` (length // 2 + 1,).

    The ramp is the transform of its band-limited impulse response 1/4, -1/(pi n)^2 for odd n, 0 for even n (Kak and
    Slaney, eq. 61), which has no offset at frequency 0; the others are windows on it that fall to the Nyquist
    frequency. Normalised for a pitch of 1, so that it tends to the absolute value of the frequency in cycles.

    For detectors on an arc around the source, ``arc`` radians apart, the impulse response is stretched by
    (n arc / sin(n arc))^2 (Kak and Slaney, eq. 102) up to n = ``reach``, the last that meets any detector.
    """
    if name is None:
        return torch.ones(length // 2 + 1, dtype=torch.float64)
    if name not in get_args(FilterName):
        raise InputError(f"a filter named {name!r}", remedy=f"Use one of {', '.join(get_args(FilterName))}, or none.")
    distance = torch.minimum(torch.arange(length), length - torch.arange(length)).double()
    impulse = torch.where(distance % 2 == 1, -1 / (math.pi * distance.clamp(min=1)) ** 2, 0.0)
    impulse[0] = 0.25
    if arc:
        turned = arc * distance.clamp(max=reach)
        impulse = impulse / torch.sinc(turned / math.pi) ** 2
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


def filter_sinogram(
    sinogram: torch.Tensor, name: FilterName | None, pitch: float = 1.0, *, arc: bool = False
) -> torch.Tensor:
    """Filter (B, 1, detectors, views) along the detectors, zero-padded to twice their number at least.

    ``pitch`` is the distance of detectors, with ``arc`` the angle between them: the result is per unit of it. None
    returns the sinogram.
    """
    if name is None or len(sinogram) == 0:
        return sinogram
    detectors = sinogram.shape[-2]
    length = max(64, 2 ** math.ceil(math.log2(2 * detectors)))
    response = filter_response(length, name, pitch if arc else 0.0, detectors - 1)
    response = response.to(sinogram.device, sinogram.dtype)[:, None]
    spectrum = torch.fft.rfft(sinogram, n=length, dim=-2) * response
    return torch.fft.irfft(spectrum, n=length, dim=-2)[..., :detectors, :] / pitch


def angular_weights(angles: np.ndarray, period: float) -> np.ndarray:
    """Arc that each view stands for, (views,) in radians: half the way to its neighbours on either side.

    Angles count modulo ``period`` (pi for parallel rays, 2 pi for a fan); views at the same angle share. The widest
    gap, if it is more than twice the next one, is where nothing was measured: on that side a view gets half the median
    of the other gaps. One view stands for the whole period.
    """
    order = np.argsort(angles % period, kind="stable")
    turned = (angles % period)[order]
    gaps = np.diff(turned, append=turned[0] + period)
    apart = gaps > 1e-6
    if not apart.any():
        return np.full(len(angles), period / len(angles))
    gaps = np.where(apart, gaps, 0.0)
    widest = int(gaps.argmax())
    others = np.delete(gaps, widest)
    if others.any() and gaps[widest] > 2.001 * others.max():
        gaps[widest] = np.median(others[others > 0])
    # Views at one angle: their arcs are shared evenly among them.
    group = np.concatenate([[0], np.cumsum(apart[:-1])])
    if not apart[-1]:
        group[group == group[-1]] = 0
    arcs = np.bincount(group, weights=(gaps + np.roll(gaps, 1)) / 2) / np.bincount(group).clip(min=1)
    weights = np.empty(len(angles))
    weights[order] = arcs[group]
    return weights


def pixel_places(
    size: tuple[int, int], axis: tuple[float, float], pixel: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """x (1, W) to the right and y (H, 1) downwards of the pixels' centres, in mm from the rotation axis, float64."""
    x = (torch.arange(size[1], dtype=torch.float64, device=device) - axis[1]) * pixel
    y = (torch.arange(size[0], dtype=torch.float64, device=device) - axis[0]) * pixel
    return x[None], y[:, None]


def backproject(
    filtered: torch.Tensor,
    seen: Callable[[int], tuple[torch.Tensor, torch.Tensor | None]],
    weights: torch.Tensor,
    size: tuple[int, int],
) -> torch.Tensor:
    """Weighted sum over views of what each pixel's detector saw, interpolated linearly: (B, 1, H, W).

    Parameters
    ----------
    filtered : torch.Tensor
        (B, 1, detectors, views).
    seen : callable
        From the number of a view to the position (H, W) on which a pixel falls, in detectors, and a factor (H, W) or
        None.
    weights : torch.Tensor
        (views,).
    size : (int, int)
        Height and width of the image.
    """
    columns = functional.pad(filtered[:, 0].permute(2, 1, 0), (0, 0, 1, 1)).contiguous()
    detectors = filtered.shape[-2]
    out = filtered.new_zeros((size[0] * size[1], len(filtered)))
    for view, weight in enumerate(weights.tolist()):
        position, factor = seen(view)
        # Padded by a zero on either side, so that a view fades out within one detector.
        place = position.reshape(-1).clamp(-1, detectors) + 1
        left = place.floor().clamp(max=detectors)
        part = (place - left).to(filtered.dtype)[:, None]
        left = left.long()
        value = torch.lerp(columns[view, left], columns[view, left + 1], part)
        if factor is not None:
            value = value * factor.reshape(-1, 1).to(filtered.dtype)
        out = out.add_(value, alpha=weight) if not value.requires_grad else out + weight * value
    return out.T.reshape(-1, 1, *size)

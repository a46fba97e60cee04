"""Delay and sum: each point of the image is the sum of what the elements recorded when its echo reached them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_medical.ultrasound.channel_data import ChannelData, Transmit
from priorscope_medical.ultrasound.demodulation import to_iq

Window = Literal["boxcar", "hann", "tukey"]
Points = NDArray[np.float64]
#: Complex numbers held at a time, 8 bytes each, a few times over.
_AT_ONCE = 2**22


def linear_grid(x: Sequence[float] | Points, z: Sequence[float] | Points) -> Points:
    """Points (len(z), len(x), 3) of an image in the plane y = 0; both in m."""
    depth, across = np.meshgrid(np.asarray(z, dtype=np.float64), np.asarray(x, dtype=np.float64), indexing="ij")
    return np.stack([across, np.zeros_like(across), depth], -1)


def sector_grid(angles: Sequence[float] | Points, depths: Sequence[float] | Points, *, radius: float = 0.0) -> Points:
    """Points (len(depths), len(angles), 3) on beams from an apex.

    Parameters
    ----------
    angles : sequence of float
        In radians, from z towards x.
    depths : sequence of float
        Along the beams, in m, from the probe's surface.
    radius : float
        Of a curved probe in m, whose middle is the origin; 0 for a phased array.
    """
    length, angle = np.meshgrid(
        np.asarray(depths, dtype=np.float64), np.asarray(angles, dtype=np.float64), indexing="ij"
    )
    return np.stack(
        [(length + radius) * np.sin(angle), np.zeros_like(angle), (length + radius) * np.cos(angle) - radius], -1
    )


def beam_lines(data: ChannelData, depths: Sequence[float] | Points) -> Points:
    """Points (transmits, len(depths), 3) along the beam of each transmit, from its origin, in m."""
    along = np.asarray(depths, dtype=np.float64)[:, None]
    return np.stack([np.array(wave.origin) + along * np.array(wave.direction) for wave in data.transmits])


def beamform(
    data: ChannelData,
    points: Points,
    *,
    f_number: float = 1.5,
    window: Window = "boxcar",
    normalise: bool = True,
    device: str | torch.device = "cpu",
) -> torch.Tensor:
    """Delay and sum over elements and transmits.

    Parameters
    ----------
    data : ChannelData
        RF is demodulated first; the samples between are interpolated linearly in IQ, whose phase is put right.
    points : ndarray (..., 3)
        In m: :func:`linear_grid` or :func:`sector_grid`.
    f_number : float
        Depth over aperture: an element listens to points for which their depth is at least 2 f_number times their
        distance along x. 0: all elements listen to all points.
    window : {"boxcar", "hann", "tukey"}
        Weights across that aperture.
    normalise : bool
        Divide by the weights of the elements that listened, so that an aperture that grows with depth does not
        brighten what is deep.
    device : str or torch.device

    Returns
    -------
    Tensor of complex64 (frames, ...)
        Coherent mean over transmits; its size is the envelope.
    """
    iq, flat = _prepared(data, points, f_number, window)
    total = torch.zeros(len(iq.samples), len(flat), dtype=torch.complex64, device=device)
    for index in range(len(iq.transmits)):
        total += _one_transmit(iq, index, flat, f_number, window, normalise, device)
    return (total / len(iq.transmits)).reshape(-1, *points.shape[:-1])


def beamform_lines(
    data: ChannelData,
    points: Points,
    *,
    f_number: float = 1.5,
    window: Window = "boxcar",
    normalise: bool = True,
    device: str | torch.device = "cpu",
) -> torch.Tensor:
    """Delay and sum of scanned beams: each transmit makes a line of its own.

    Parameters
    ----------
    data : ChannelData
        Focused, or diverging, one beam after the other.
    points : ndarray (transmits, depths, 3)
        In m: :func:`beam_lines`.
    f_number, window, normalise, device
        As for :func:`beamform`.

    Returns
    -------
    Tensor of complex64 (frames, depths, transmits)
    """
    if points.ndim != 3 or len(points) != len(data.transmits):
        raise InputError(f"points of shape {list(points.shape)} for {len(data.transmits)} beams")
    iq, _ = _prepared(data, points, f_number, window)
    lines = [
        _one_transmit(iq, index, line, f_number, window, normalise, device)
        for index, line in enumerate(points.astype(np.float64))
    ]
    return torch.stack(lines, -1)


def transmit_delay(wave: Transmit, points: Points, speed: float) -> NDArray[np.float64]:
    """When a wave reaches ``points`` (..., 3), in s after it has passed its origin.

    A focused wave comes together before its focus and runs apart behind it: the delay jumps sign about the plane
    through the focus that its direction is normal to.
    """
    origin = np.array(wave.origin)
    direction = np.array(wave.direction)
    if wave.source is None:
        return (points - origin) @ direction / speed
    source = np.array(wave.source)
    distance = np.linalg.norm(points - source, axis=-1)
    reach = float(np.linalg.norm(source - origin))
    if source[2] < origin[2]:
        return (distance - reach) / speed
    behind = (points - source) @ direction >= 0
    return (reach + np.where(behind, distance, -distance)) / speed


def aperture_weights(lateral: torch.Tensor, depth: torch.Tensor, f_number: float, window: Window) -> torch.Tensor:
    """Weights (points, elements) of elements ``lateral`` metres aside of points at ``depth`` (points, 1)."""
    if f_number == 0:
        return torch.ones_like(lateral)
    share = lateral.abs() * (2 * f_number) / depth.clamp(min=1e-9)  # 1 at the rim of the aperture
    inside = (share <= 1) & (depth > 0)
    if window == "boxcar":
        weights = torch.ones_like(share)
    elif window == "hann":
        weights = 0.5 + 0.5 * torch.cos(math.pi * share.clamp(max=1))
    else:
        weights = 0.5 + 0.5 * torch.cos(2 * math.pi * (share.clamp(0.5, 1) - 0.5))
    return weights * inside


def _prepared(data: ChannelData, points: Points, f_number: float, window: Window) -> tuple[ChannelData, Points]:
    if points.shape[-1] != 3 or not np.isfinite(points).all():
        raise InputError(f"points of shape {list(points.shape)}", remedy="Give finite (x, y, z) in metres, last.")
    if np.abs(points).max() > 10:
        raise InputError(
            f"a point {np.abs(points).max():.3g} m away", remedy="Coordinates are in metres: were millimetres given?"
        )
    if not 0 <= f_number < math.inf or window not in get_args(Window):
        raise InputError(f"f-number {f_number}, window {window!r}", remedy=f"From 0; one of {get_args(Window)}.")
    if data.carrier is None:
        raise InputError("channel data without a carrier", path=data.source, remedy="Give its frequency in Hz.")
    return to_iq(data), points.reshape(-1, 3).astype(np.float64)


def _one_transmit(
    iq: ChannelData,
    index: int,
    points: Points,
    f_number: float,
    window: Window,
    normalise: bool,
    device: str | torch.device,
) -> torch.Tensor:
    """The image of one transmit at ``points`` (points, 3): complex64 (frames, points)."""
    frames, _, count, elements = iq.samples.shape
    assert iq.carrier is not None
    wave = iq.transmits[index]
    samples = torch.from_numpy(np.ascontiguousarray(iq.samples[:, index])).to(device).reshape(frames, -1)
    alive = torch.ones(elements, dtype=torch.float64, device=device)
    alive[list(iq.dead)] = 0
    positions = torch.from_numpy(iq.elements).to(device)
    column = torch.arange(elements, device=device)
    arrival = torch.from_numpy(transmit_delay(wave, points, iq.speed)).to(device)
    where = torch.from_numpy(points).to(device)
    lines = []
    for chunk in range(0, len(points), max(1, _AT_ONCE // (elements * frames))):
        part = slice(chunk, chunk + max(1, _AT_ONCE // (elements * frames)))
        offsets = where[part, None] - positions
        time = arrival[part, None] + offsets.norm(dim=-1) / iq.speed
        place = (time - wave.start) * iq.sampling
        first = place.floor()
        recorded = (first >= 0) & (first < count - 1)
        weights = aperture_weights(offsets[..., 0], offsets[..., 2], f_number, window) * alive
        # elements that listen but have recorded too little count as silent
        cycles = iq.carrier * time
        turn = (2 * math.pi * (cycles - cycles.round())).float()
        rotation = torch.polar((weights * recorded).float(), turn)
        fraction = (place - first).to(torch.float32)
        start = (first.clamp(0, count - 2).long() * elements + column).flatten()
        low = samples[:, start].reshape(frames, *place.shape)
        high = samples[:, start + elements].reshape(frames, *place.shape)
        summed = (torch.lerp(low, high, fraction.to(low.dtype)) * rotation).sum(-1)
        lines.append(summed / weights.sum(-1).clamp(min=1e-9).to(torch.float32) if normalise else summed)
    return torch.cat(lines, 1)

"""Haze: echoes of the chest wall that come back over detours, and so lie over the deeper image.

A strong layer near the probe is repeated at many random later depths, weaker and wider across the beams each time, and
with a lower frequency, as high ones are attenuated more. It hardly moves: it breathes, and changes a little from frame
to frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, ifft2, next_fast_len

from priorscope.errors import InputError
from priorscope_medical.ultrasound.echo_lines import LineScan, spread

Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Haze:
    """How much of it there is, how far it reaches, and how it changes.

    Parameters
    ----------
    level : float
        RMS over the nearest third of the lines, in dB relative to amplitude 1.
    layer : float
        Thickness of the near layer in m.
    reach : float
        Depth over which the detours' strength falls to 1 / e, in m.
    paths : int
        Detours.
    smear : float
        Their width across the beams, full width at half maximum in beams.
    lower : float
        By how much of the carrier their frequency is lower.
    memory : float
        Correlation of one frame with the next, from 0 to 1.
    breath, breath_period : float
        Amplitude in m and period in s of its slow motion.
    """

    level: float = 0.0
    layer: float = 12e-3
    reach: float = 25e-3
    paths: int = 60
    smear: float = 8.0
    lower: float = 0.12
    memory: float = 0.98
    breath: float = 0.3e-3
    breath_period: float = 4.0

    def __post_init__(self) -> None:
        if min(self.layer, self.reach, self.smear, self.breath_period, self.paths) <= 0:
            raise InputError(f"haze with {self}", remedy="Lengths, paths and periods are positive.")
        if not (0 <= self.memory <= 1 and 0 <= self.lower < 1):
            raise InputError(f"a memory of {self.memory}, {self.lower} lower", remedy="Both lie from 0 to 1.")


def random_haze(draw: np.random.Generator) -> Haze:
    """Weak to strong, near to far."""
    return Haze(
        level=draw.uniform(-8, 6),
        layer=draw.uniform(8e-3, 16e-3),
        reach=draw.uniform(15e-3, 40e-3),
        smear=draw.uniform(4, 14),
        lower=draw.uniform(0.05, 0.2),
        memory=draw.uniform(0.95, 0.998),
        breath=draw.uniform(0, 0.6e-3),
    )


def haze_lines(scan: LineScan, haze: Haze, frames: int, frame_rate: float, draw: np.random.Generator) -> Complex:
    """IQ of haze alone: (frames, samples, beams), in the baseband of :func:`~.echo_lines.iq_lines`.

    Parameters
    ----------
    scan : LineScan
    haze : Haze
    frames : int
    frame_rate : float
        In Hz.
    draw : numpy Generator
    """
    if frames < 1 or not 0 < frame_rate < math.inf:
        raise InputError(f"{frames} frames at {frame_rate} Hz", remedy="Use one or more, at a positive rate.")
    rows = next_fast_len(2 * scan.samples)
    columns = next_fast_len(scan.beams + 2 * math.ceil(2 * haze.smear))
    transfer = _detours(scan, haze, (rows, columns), draw) * spread(scan, (rows, columns))
    depth = np.arange(rows) * scan.spacing
    envelope = np.exp(-((depth / haze.layer) ** 2))[:, None] * _patches(columns, draw)
    layer = _complex_noise((rows, columns), draw)
    # echoes of a lower frequency turn against the carrier's baseband
    absolute = scan.sector.depths[0] + depth
    lowered = np.exp(-4j * np.pi * haze.lower * scan.carrier * absolute / scan.speed)[:, None]
    left = (columns - scan.beams) // 2
    lines = np.empty((frames, scan.samples, scan.beams), dtype=np.complex128)
    for index in range(frames):
        if index:
            kept = haze.memory
            layer = kept * layer + math.sqrt(1 - kept**2) * _complex_noise((rows, columns), draw)
        shift = haze.breath * math.sin(2 * math.pi * index / frame_rate / haze.breath_period)
        turn = np.exp(-4j * np.pi * scan.carrier * shift / scan.speed)
        spread_out = ifft2(fft2(layer * envelope) * transfer) * lowered * turn
        lines[index] = spread_out[: scan.samples, left : left + scan.beams]
    near = lines[:, : max(1, scan.samples // 3)]
    return lines * 10 ** (haze.level / 20) / math.sqrt(float(np.mean(np.abs(near) ** 2)))


def _detours(scan: LineScan, haze: Haze, shape: tuple[int, int], draw: np.random.Generator) -> Complex:
    """Transfer function of the direct way and of all detours; the longer one is, the wider it is across the beams."""
    along, across = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[:, None]
    farthest = 0.8 * scan.samples * scan.spacing
    delays = draw.uniform(0, farthest, haze.paths)
    gains = np.exp(-delays / haze.reach) * (draw.normal(size=(2, haze.paths)).T @ [1, 1j]) / math.sqrt(2)
    widths = haze.smear / (2 * math.sqrt(2 * math.log(2))) * np.sqrt(0.2 + delays / farthest)
    shifts = draw.normal(0, haze.smear / 4, haze.paths)
    rows = np.exp(-2j * np.pi * along * delays / scan.spacing)
    columns = np.exp(-2 * (np.pi * across * widths) ** 2 - 2j * np.pi * across * shifts)
    return 1 + (gains * rows) @ columns.T


def _patches(columns: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """Smooth brightness across the beams (1, columns): ribs leave some of them dark."""
    places = np.arange(columns) / columns
    waves = sum(draw.normal() * np.cos(2 * np.pi * (number * places + draw.uniform())) for number in (1, 2, 3))
    return np.exp(0.6 * np.asarray(waves))[None, :]


def _complex_noise(shape: tuple[int, int], draw: np.random.Generator) -> Complex:
    parts = draw.normal(size=(2, *shape))
    return np.asarray(parts[0] + 1j * parts[1], dtype=np.complex128) / math.sqrt(2)

"""B-mode cines of a beating heart, with haze and without: what a scanner would show of the same echoes.

Echoes of tissue, haze and noise are simulated apart (as RF lines, by the convolution simulator) and go together
through one scanner: envelope, gain, log compression, grey curve, smoothing, scan conversion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from priorscope.errors import InputError
from priorscope_medical.ultrasound.echo_lines import LineScan, iq_lines
from priorscope_medical.ultrasound.four_chambers import ChamberScatterers, FourChambers, random_chambers
from priorscope_medical.ultrasound.multipath_haze import Haze, haze_lines
from priorscope_medical.ultrasound.rf_simulator import wall_amplitude
from priorscope_medical.ultrasound.scan_conversion import Sector, scan_convert

#: Samples of a line that become one after detection.
_DECIMATION = 4


@dataclass(frozen=True)
class Scanner:
    """How echoes become grey values.

    Parameters
    ----------
    lines : LineScan
    dynamic_range : float
        From black to white in dB.
    white : float
        Level of white in dB over the wall's echoes.
    curve : float
        Exponent of the grey curve; 1: linear in dB.
    smooth : (float, float)
        Standard deviation of the smoothing after compression, in decimated samples and in beams.
    persistence : float
        Share of the last frame that stays, from 0 to below 1.
    shading : ndarray (samples / 4, beams)
        Gain that differs over the picture (ribs, poor contact, depth gain that is off), in dB.
    """

    lines: LineScan
    dynamic_range: float
    white: float
    curve: float
    smooth: tuple[float, float]
    persistence: float
    shading: NDArray[np.float64]

    def grey(self, iq: NDArray[np.complexfloating]) -> NDArray[np.float32]:
        """Lines (frames, samples, beams) of IQ to (frames, samples / 4, beams) from 0 (black) to 1 (white)."""
        rows = iq.shape[1] // _DECIMATION * _DECIMATION
        power = np.abs(iq[:, :rows]) ** 2
        power = power.reshape(len(iq), -1, _DECIMATION, iq.shape[2]).mean(2)
        decibel = 10 * np.log10(np.maximum(power, 1e-12)) + self.shading[: power.shape[1]] - self.white
        shown = np.clip(1 + decibel / self.dynamic_range, 0, 1) ** self.curve
        shown = gaussian_filter(shown, (0, *self.smooth))
        for index in range(1, len(shown)):
            shown[index] = self.persistence * shown[index - 1] + (1 - self.persistence) * shown[index]
        return shown.astype(np.float32)


@dataclass(frozen=True)
class BmodeCine:
    """A sequence of pictures, and what it should look like.

    Parameters
    ----------
    clean, hazy : ndarray of float32 [frames, size, size]
        0 (black) to 1 (white).
    inside : ndarray of bool [size, size]
        The sector.
    regions : ndarray of uint8 [frames, size, size]
        Index into :data:`~.four_chambers.CHAMBER_REGIONS`.
    frame_rate : float
        In Hz.
    """

    clean: NDArray[np.float32]
    hazy: NDArray[np.float32]
    inside: NDArray[np.bool_]
    regions: NDArray[np.uint8]
    frame_rate: float


def simulate_bmode(
    seed: int,
    *,
    frames: int = 20,
    frame_rate: float = 30.0,
    size: int = 128,
    hazy: bool = True,
    heart: FourChambers | None = None,
    haze: Haze | None = None,
    density: float = 5e6,
) -> BmodeCine:
    """A four-chamber view behind haze.

    Parameters
    ----------
    seed : int
        Fixes everything that is drawn. The clean sequence of a seed is the same whatever the haze.
    frames : int
    frame_rate : float
        In Hz.
    size : int
        Side of the pictures in pixels; the sector fills them.
    hazy : bool
        False: without haze, which takes less time; ``hazy`` is ``clean`` then.
    heart, haze : optional
        Drawn unless given.
    density : float
        Scatterers a square metre.
    """
    if frames < 1 or not 0 < frame_rate < math.inf or size < 16:
        raise InputError(f"{frames} frames of {size} pixels at {frame_rate} Hz", remedy="Use 1, 16 and a rate above 0.")
    shapes, blood, hazes, noises = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4))
    scanner, noise = random_scanner(shapes)
    scan = scanner.lines
    heart = random_chambers(shapes) if heart is None else heart
    scatterers = ChamberScatterers(heart, scan.sector.extent(), density=density, draw=shapes)
    gain = 1 / wall_amplitude(scan, density)[:, None]
    iq = np.stack([gain * iq_lines(scan, *scatterers.at(n / frame_rate, blood)) for n in range(frames)])
    level = 10 ** (noise / 20) / math.sqrt(2)
    iq += level * (noises.normal(size=iq.shape) + 1j * noises.normal(size=iq.shape))
    clean = scanner.grey(iq)
    if hazy:
        haze = random_bmode_haze(hazes) if haze is None else haze
        behind = scanner.grey(iq + haze_lines(scan, haze, frames, frame_rate, hazes))
    places = _pixels(scan.sector, size)
    times = np.arange(frames) / frame_rate
    regions = np.stack([heart.regions(*np.meshgrid(*places), time) for time in times])
    found = _converted(clean, scan.sector, places)
    inside = _converted(np.ones_like(clean[:1]), scan.sector, places)[0] > 0.5
    return BmodeCine(found, _converted(behind, scan.sector, places) if hazy else found, inside, regions, frame_rate)


def random_bmode_haze(draw: np.random.Generator) -> Haze:
    """Weak to strong, near to far: as :func:`~.multipath_haze.random_haze`, for deeper pictures."""
    return Haze(
        level=draw.uniform(-12, 4),
        layer=draw.uniform(8e-3, 25e-3),
        reach=draw.uniform(15e-3, 45e-3),
        smear=draw.uniform(4, 14),
        lower=draw.uniform(0.05, 0.2),
        memory=draw.uniform(0.95, 0.998),
        breath=draw.uniform(0, 0.6e-3),
    )


def random_scanner(draw: np.random.Generator) -> tuple[Scanner, float]:
    """A scanner's settings, and the level of its electronic noise in dB relative to the wall."""
    depth, half = draw.uniform(0.12, 0.18), math.radians(draw.uniform(32, 45))
    beams, near = int(draw.integers(72, 128)), draw.uniform(2e-3, 8e-3)
    samples = _DECIMATION * 256
    spacing = (depth - near) / (samples - 1)
    most = 1540.0 / (2 * spacing) / 2.7  # the lines' carrier at this sampling
    scan = LineScan(
        Sector((near, depth), (-half, half)),
        samples=samples,
        beams=beams,
        carrier=min(most, draw.uniform(1.6e6, 2.4e6)),
        bandwidth=draw.uniform(0.4, 0.7),
        beam_width=draw.uniform(1.3, 3.0),
    )
    scanner = Scanner(
        scan,
        dynamic_range=draw.uniform(42, 70),
        white=draw.uniform(6, 22),
        curve=draw.uniform(0.9, 1.7),
        smooth=(draw.uniform(0.3, 1.6), draw.uniform(0.0, 0.9)),
        persistence=draw.choice([0.0, draw.uniform(0, 0.4)]),
        shading=_shading(samples // _DECIMATION, beams, draw),
    )
    return scanner, draw.uniform(-58, -38)


def _shading(rows: int, beams: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """Smooth over depth and beams, and darker to the sides more often than not."""
    depth, side = np.linspace(0, 1, rows)[:, None], np.linspace(-1, 1, beams)[None, :]
    decibel = (
        draw.normal(0, 4) * (depth - 0.5) - max(0.0, draw.normal(8, 10)) * np.abs(side - draw.normal(0, 0.15)) ** 3
    )
    for number in (1, 2, 3, 4):
        decibel = decibel + draw.normal(0, 2.0) / number * np.cos(np.pi * number * (side + 1) / 2 + draw.uniform(0, 6))
        decibel = decibel + draw.normal(0, 2.0) / number * np.cos(np.pi * number * depth + draw.uniform(0, 6))
    return np.asarray(decibel)


def _pixels(sector: Sector, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows in m of a square picture around the sector."""
    left, right, near, far = sector.extent()
    pixel = 1.02 * max(right - left, far - near) / size
    offsets: NDArray[np.float64] = (np.arange(size, dtype=np.float64) - (size - 1) / 2) * pixel
    return (left + right) / 2 + offsets, (near + far) / 2 + offsets


def _converted(
    lines: NDArray[np.float32], sector: Sector, places: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> NDArray[np.float32]:
    """Pictures from lines, each pixel the mean of four points in it."""
    x, z = places
    quarter = (x[1] - x[0]) / 4
    fine_x = (x[:, None] + [-quarter, quarter]).ravel()
    fine_z = (z[:, None] + [-quarter, quarter]).ravel()
    fine = scan_convert(torch.from_numpy(lines), sector, fine_x, fine_z)
    return torch.nn.functional.avg_pool2d(fine, 2).numpy()

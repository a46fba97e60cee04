"""Hazy cines of beamformed RF whose tissue and haze are known apart: what priors are trained and methods judged on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_medical.ultrasound.echo_lines import LineScan, iq_lines, rf_of
from priorscope_medical.ultrasound.heart_scatterers import HeartScatterers, Ventricle, random_ventricle
from priorscope_medical.ultrasound.multipath_haze import Haze, haze_lines, random_haze
from priorscope_medical.ultrasound.scan_conversion import Sector

#: A phased array at 2.5 MHz, 1 to 11 cm deep, 75 degrees.
CARDIAC = LineScan(Sector((10e-3, 110e-3), (-math.radians(37.5), math.radians(37.5))), samples=1300, beams=96)


@dataclass(frozen=True)
class SimulatedCine:
    """A sequence and what it is made of; amplitude 1 is that of the wall's echoes (RMS of their envelope).

    Parameters
    ----------
    tissue, haze, noise : ndarray of float32 [frames, samples, beams]
        RF.
    regions : ndarray of uint8 [frames, samples, beams]
        Index into :data:`~.heart_scatterers.REGIONS`.
    scan : LineScan
    frame_rate : float
        In Hz.
    ventricle : Ventricle
    made_of : Haze
    """

    tissue: NDArray[np.float32]
    haze: NDArray[np.float32]
    noise: NDArray[np.float32]
    regions: NDArray[np.uint8]
    scan: LineScan
    frame_rate: float
    ventricle: Ventricle
    made_of: Haze

    def hazy(self, strength: float = 1.0) -> NDArray[np.float32]:
        """What is recorded: tissue + strength haze + noise."""
        return self.tissue + np.float32(strength) * self.haze + self.noise

    @property
    def clean(self) -> NDArray[np.float32]:
        """What would be recorded without haze."""
        return self.tissue + self.noise


def simulate_cine(
    seed: int,
    *,
    frames: int = 30,
    frame_rate: float = 50.0,
    scan: LineScan = CARDIAC,
    ventricle: Ventricle | None = None,
    haze: Haze | None = None,
    noise: float = -50.0,
    density: float = 8e6,
    begin: float = 0.0,
) -> SimulatedCine:
    """A beating ventricle behind haze.

    Parameters
    ----------
    seed : int
        Fixes everything that is drawn. Tissue, haze and noise have generators of their own: the tissue of a seed is the
        same whatever the haze.
    frames : int
    frame_rate : float
        In Hz.
    scan : LineScan
    ventricle, haze : optional
        Drawn unless given.
    noise : float
        RMS of the electronic noise in dB relative to the wall.
    density : float
        Scatterers a square metre.
    begin : float
        Time of the first frame in s; the ventricle is relaxed, and at rest, at 0.
    """
    if frames < 1 or not 0 < frame_rate < math.inf or not -math.inf <= noise < math.inf:
        raise InputError(
            f"{frames} frames at {frame_rate} Hz, noise of {noise} dB",
            remedy="Use one or more, at a positive rate, and noise below infinity.",
        )
    shapes, blood, hazes, noises = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4))
    ventricle = random_ventricle(shapes) if ventricle is None else ventricle
    haze = random_haze(hazes) if haze is None else haze
    heart = HeartScatterers(ventricle, scan.sector.extent(), density=density, draw=shapes)
    gain = 1 / wall_amplitude(scan, density)
    x, z = scan.points
    tissue, regions = [], []
    for index in range(frames):
        time = begin + index / frame_rate
        tissue.append(rf_of(scan, gain[:, None] * iq_lines(scan, *heart.at(time, blood))))
        regions.append(ventricle.regions(x, z, time))
    clutter = rf_of(scan, haze_lines(scan, haze, frames, frame_rate, hazes))
    level = 10 ** (noise / 20) / math.sqrt(2)  # of RF, for an envelope of that RMS
    electronic = (level * noises.normal(size=clutter.shape)).astype(np.float32)
    return SimulatedCine(np.stack(tissue), clutter, electronic, np.stack(regions), scan, frame_rate, ventricle, haze)


def wall_amplitude(scan: LineScan, density: float) -> NDArray[np.float64]:
    """RMS envelope (samples,) of scatterers of strength 1 at each depth, by the energy of the point-spread function.

    Beams grow wider with depth and meet more scatterers, which a scanner's gain makes up for.
    """
    per_beam = (scan.depths + scan.sector.radius) * (scan.sector.angles[1] - scan.sector.angles[0]) / (scan.beams - 1)
    across = scan.beam_width / (2 * math.sqrt(2 * math.log(2))) * per_beam
    # the square of a Gaussian of deviation s integrates to s sqrt(pi)
    return np.sqrt(density * math.pi * across * scan.pulse_deviation)

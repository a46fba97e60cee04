"""Hazy cines by pymust's SIMUS: waves computed element by element, lines made by our own beamformer.

An independent check of what was learnt from the convolution simulator: diffraction, sidelobes, the growth of the beam
near the probe and the beamformer are all there. SIMUS is linear in the scatterers, so tissue and haze are simulated
apart and add up. Haze is the echo of a near layer that comes back over detours, later, weaker and of lower frequency.
Detours lead through a gap between ribs at the middle of the probe: one wave comes through it and few elements hear it,
so that they are wide across the beams. (Bent wavefronts alone are not, nor are gaps at the side: how wide speckle is
follows from the aperture that heard it.) For research use only.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.ndimage import gaussian_filter1d

from priorscope.errors import InputError
from priorscope_medical.ultrasound.beamforming import Window, beamform, sector_grid
from priorscope_medical.ultrasound.channel_data import ChannelData, Transmit, linear_array
from priorscope_medical.ultrasound.echo_lines import LineScan
from priorscope_medical.ultrasound.heart_scatterers import HeartScatterers, Ventricle, random_ventricle
from priorscope_medical.ultrasound.multipath_haze import Haze, random_haze
from priorscope_medical.ultrasound.rf_simulator import SimulatedCine
from priorscope_medical.ultrasound.scan_conversion import Sector

Numbers = NDArray[np.float64]
#: A P4-2v phased array, 1 to 9 cm deep, 70 degrees. Carrier, band and width are those measured of its speckle: beams
#: are wider at low frequencies, which so count more than in the pulse of 2.72 MHz.
SIMUS_SCAN = LineScan(
    Sector((10e-3, 90e-3), (-math.radians(35), math.radians(35))),
    samples=1010,
    beams=64,
    carrier=2.43e6,
    bandwidth=0.66,
    beam_width=1.4,
)
#: Virtual sources behind the probe in m: x and z.
SOURCES = ((-6e-3, -12e-3), (0.0, -12e-3), (6e-3, -12e-3))
PROBE = "P4-2v"
WINDOW: Window = "boxcar"
F_NUMBER = 0.0


@dataclass(frozen=True)
class Array:
    """A probe of pymust and the waves it sends.

    Parameters
    ----------
    scan : LineScan
        Where the beamformed lines lie; its width and band are not used.
    sources : tuple of (float, float)
        x and z of the virtual sources of diverging waves in m, z below 0.
    """

    scan: LineScan = SIMUS_SCAN
    sources: tuple[tuple[float, float], ...] = SOURCES

    def parameters(self) -> Any:
        """pymust's description of the probe."""
        pymust = _pymust()
        found = pymust.getparam(PROBE)
        found.fs, found.c = 4 * found.fc, self.scan.speed
        return found

    def elements(self) -> Numbers:
        found = self.parameters()
        return linear_array(int(found.Nelements), float(found.pitch))


def random_near_ventricle(draw: np.random.Generator) -> Ventricle:
    """One that lies within 9 cm."""
    found = random_ventricle(draw)
    return replace(
        found,
        centre=(found.centre[0], draw.uniform(46e-3, 54e-3)),
        axes=(found.axes[0], draw.uniform(22e-3, 30e-3)),
    )


def simus_cine(
    seed: int, *, frames: int = 6, frame_rate: float = 50.0, density: float = 2e6, noise: float = -50.0
) -> SimulatedCine:
    """A beating ventricle behind haze, as :func:`~.rf_simulator.simulate_cine` gives it; amplitude 1 is the wall's.

    Parameters
    ----------
    seed : int
        Fixes everything that is drawn.
    frames : int
    frame_rate : float
        In Hz.
    density : float
        Scatterers a square metre.
    noise : float
        RMS of the electronic noise in dB relative to the wall.
    """
    if frames < 1 or not 0 < frame_rate < math.inf:
        raise InputError(f"{frames} frames at {frame_rate} Hz", remedy="Use one or more, at a positive rate.")
    array = Array()
    scan = array.scan
    shapes, blood, hazes, noises = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4))
    ventricle, haze = random_near_ventricle(shapes), random_haze(hazes)
    heart = HeartScatterers(ventricle, scan.sector.extent(), density=density, draw=shapes)
    gain = uniform_gain(density)
    x, z = scan.points
    begin = shapes.uniform(0, ventricle.period)
    tissue, regions = [], []
    for index in range(frames):
        time = begin + index / frame_rate
        tissue.append(received(array, *_inside(scan, *heart.at(time, blood))))
        regions.append(ventricle.regions(x, z, time))
    echoes = lines(array, np.stack(tissue)) * gain
    clutter = lines(array, haze_received(array, haze, frames, frame_rate, hazes)) * gain
    near = clutter[:, : scan.samples // 3]
    clutter *= 10 ** (haze.level / 20) / math.sqrt(2 * float(np.mean(near**2)))
    electronic = 10 ** (noise / 20) / math.sqrt(2) * noises.normal(size=clutter.shape)
    return SimulatedCine(
        echoes.astype(np.float32),
        clutter.astype(np.float32),
        electronic.astype(np.float32),
        np.stack(regions),
        scan,
        frame_rate,
        ventricle,
        haze,
    )


def received(array: Array, x: Numbers, z: Numbers, amplitudes: Numbers) -> NDArray[np.float32]:
    """RF (transmits, samples, elements) of scatterers at x, z in m, from the moment the first element fires."""
    pymust = _pymust()
    parameters, elements = array.parameters(), array.elements()
    sampling = float(parameters.fs)
    farthest = array.scan.sector.depths[1] + 3e-3
    late = max(float(_fired(elements, source, array.scan.speed)[0].max()) for source in array.sources)
    samples = math.ceil((2 * farthest / array.scan.speed + late) * sampling)
    found = []
    for source in array.sources:
        options = pymust.utils.Options()
        # twice the step in frequency: the record is as long as the farthest echo needs, and we use all of it
        options.dBThresh, options.FrequencyStep, options.ParPool = -40, 2, False
        delays, _ = _fired(elements, source, array.scan.speed)
        corner = np.append(x, 0.0), np.append(z, farthest), np.append(amplitudes, 0.0)
        with _quiet():
            _, spectrum = pymust.simus(*corner, delays[None], copy.deepcopy(parameters), options)
        whole = 2 * math.ceil(sampling / 2 / parameters.fc * (len(spectrum) - 1) / 2)
        rf = np.fft.irfft(np.conj(spectrum), whole, axis=0)[:samples]
        found.append(np.pad(rf, ((0, samples - len(rf)), (0, 0))))
    return np.stack(found).astype(np.float32)


def lines(array: Array, recorded: NDArray[np.float32]) -> NDArray[np.float32]:
    """Beamformed RF (frames, samples, beams) of what was received, (frames, transmits, samples, elements)."""
    parameters, elements, scan = array.parameters(), array.elements(), array.scan
    waves = tuple(
        Transmit(-_fired(elements, source, scan.speed)[1], source=(source[0], 0.0, source[1]))
        for source in array.sources
    )
    data = ChannelData(recorded, float(parameters.fs), float(parameters.fc), elements, waves, scan.speed)
    points = sector_grid(scan.angles, scan.depths)
    return beamform(data, points, f_number=F_NUMBER, window=WINDOW).real.numpy()


def haze_received(
    array: Array, haze: Haze, frames: int, frame_rate: float, draw: np.random.Generator
) -> NDArray[np.float32]:
    """RF (frames, transmits, samples, elements) of a near layer's echoes over all detours."""
    scan, elements, parameters = array.scan, array.elements(), array.parameters()
    width, deepest = 25e-3, 2.2 * haze.layer
    count = round(2 * width * deepest * 2e6)
    x, z = draw.uniform(-width, width, count), draw.uniform(2e-3, deepest, count)
    bright = np.exp(0.6 * sum(draw.normal() * np.cos(k * math.pi * x / width + draw.uniform(0, 6.3)) for k in (1, 2)))
    envelope = np.exp(-((z / haze.layer) ** 2)) * bright
    strength = draw.normal(size=count)
    found = []
    for index in range(frames):
        if index:
            strength = haze.memory * strength + math.sqrt(1 - haze.memory**2) * draw.normal(size=count)
        found.append(received(array, x, z, envelope * strength))
    layer = np.stack(found)
    padded = next_fast_len(2 * layer.shape[2])
    frequency = np.fft.rfftfreq(padded, 1 / float(parameters.fs)).astype(np.float64)
    transfer = _detours(frequency, elements, haze, array, draw)
    shifts = haze.breath * np.sin(2 * np.pi * np.arange(frames) / frame_rate / haze.breath_period)
    breath = np.exp(-4j * np.pi * frequency * shifts[:, None] / scan.speed)
    spectrum = np.fft.rfft(layer, padded, axis=2) * transfer * breath[:, None, :, None]
    return np.fft.irfft(spectrum, padded, axis=2)[:, :, : layer.shape[2]].astype(np.float32)


@cache
def uniform_gain(density: float, seed: int = 77, repeats: int = 3) -> Numbers:
    """Gain (samples, beams) that makes scatterers of strength 1 an envelope of RMS 1 everywhere.

    A scanner's gain over depth and angle: measured on uniform phantoms and smoothed.
    """
    array = Array()
    left, right, near, far = array.scan.sector.extent()
    power: Any = 0.0
    for index in range(repeats):
        draw = np.random.default_rng([seed, index])
        count = round((right - left) * (far - near) * density)
        x, z = draw.uniform(left, right, count), draw.uniform(near, far, count)
        kept = _inside(array.scan, x, z, draw.normal(size=count))
        power = power + lines(array, received(array, *kept)[None])[0].astype(np.float64) ** 2
    power = gaussian_filter1d(power / repeats, 90, axis=0, mode="nearest")
    power = gaussian_filter1d(power, 5, axis=1, mode="nearest")
    return 1 / np.sqrt(2 * power)


def _detours(
    frequency: Numbers, elements: Numbers, haze: Haze, array: Array, draw: np.random.Generator
) -> NDArray[np.complex128]:
    """Transfer function (transmits, frequencies, elements) of the direct way and all detours."""
    scan = array.scan
    farthest = 0.8 * scan.samples * scan.spacing
    delays = draw.uniform(0, farthest, haze.paths)
    gains = np.exp(-delays / haze.reach) * draw.normal(size=haze.paths)
    beam = (scan.sector.angles[1] - scan.sector.angles[0]) / (scan.beams - 1)
    widths = haze.smear * beam * np.sqrt(0.2 + delays / farthest)  # in radians, full at half maximum
    gaps = 2 * math.sqrt(2 * math.log(2)) * scan.speed / (2 * math.pi * scan.carrier * widths)
    places = draw.normal(0, 0.7e-3, haze.paths)
    middle = len(array.sources) // 2
    total = np.ones((len(array.sources), len(frequency), len(elements)), dtype=np.complex128)
    for path in range(haze.paths):
        heard = np.exp(-(((elements[:, 0] - places[path]) / gaps[path]) ** 2) / 2)
        heard *= gains[path] * len(elements) * len(array.sources) / heard.sum()
        total[middle] += np.exp(-4j * np.pi * frequency[:, None] * delays[path] / scan.speed) * heard
    # a tilt of the spectrum moves a Gaussian band down without changing its width
    deviation = scan.bandwidth * scan.carrier / (2 * math.sqrt(2 * math.log(2)))
    tilt = np.exp(-haze.lower * scan.carrier * (frequency - scan.carrier) / deviation**2)
    return total * np.minimum(tilt, 10.0)[:, None]


def _fired(elements: Numbers, source: tuple[float, float], speed: float) -> tuple[Numbers, float]:
    """When elements fire (from 0 on), and how long after the first the wave passes the origin, in s."""
    late = (np.hypot(elements[:, 0] - source[0], source[1]) - math.hypot(*source)) / speed
    return late - late.min(), float(-late.min())


def _inside(scan: LineScan, x: Numbers, z: Numbers, amplitudes: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """The scatterers in and near the sector."""
    depth, angle = np.hypot(x, z), np.arctan2(x, z)
    near, far = scan.sector.depths
    kept = (depth > near - 2e-3) & (depth < far + 2e-3) & (np.abs(angle) < scan.sector.angles[1] + 0.05)
    return x[kept], z[kept], amplitudes[kept]


@contextmanager
def _quiet() -> Iterator[None]:
    """pymust warns of the longer step, and its warning does not format."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _pymust() -> Any:
    try:
        import pymust
    except ImportError:
        raise InputError("SIMUS needs pymust", remedy="pip install 'priorscope[medical]'") from None
    return pymust

"""Beamformed RF lines of point scatterers: every scatterer adds the point-spread function, at its place and phase.

A sector scan sees a point as a pulse along the beam and as a bell across neighbouring beams, of one width in angle at
all depths. So the lines are the scatterers, put on the grid with their carrier's phase, convolved with a single kernel:
that is much faster than adding up the signals of the elements, and leaves out the sidelobes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, ifft2, next_fast_len

from priorscope.errors import InputError
from priorscope_medical.ultrasound.scan_conversion import Sector

Numbers = NDArray[np.float64]

#: Columns a beam while scatterers are put on the grid: a point between two beams must not look weaker.
_FINE = 3


@dataclass(frozen=True)
class LineScan:
    """Where the samples of beamformed lines lie, and how a point looks in them.

    Parameters
    ----------
    sector : Sector
        First and last depth and beam.
    samples, beams : int
        Along a beam, and number of beams.
    carrier : float
        In Hz.
    bandwidth : float
        Of the echo in parts of the carrier, between -6 dB points.
    beam_width : float
        Full width at half maximum of a point across the beams, in beams.
    speed : float
        In m/s.
    """

    sector: Sector
    samples: int
    beams: int
    carrier: float = 2.5e6
    bandwidth: float = 0.6
    beam_width: float = 2.0
    speed: float = 1540.0

    def __post_init__(self) -> None:
        if self.samples < 2 or self.beams < 2:
            raise InputError(f"lines of {self.samples} samples on {self.beams} beams", remedy="Use at least 2 of each.")
        for name in ("carrier", "bandwidth", "beam_width", "speed"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}", remedy="It must be positive.")
        if self.sampling < self.carrier * (2 + self.bandwidth):
            raise InputError(
                f"samples {1e3 * self.spacing:.3g} mm apart are {self.sampling / 1e6:.3g} MHz, too few for "
                f"{self.carrier / 1e6:.3g} MHz",
                remedy="Take more samples, or a lower carrier.",
            )

    @property
    def spacing(self) -> float:
        """Distance of samples along a beam in m."""
        return (self.sector.depths[1] - self.sector.depths[0]) / (self.samples - 1)

    @property
    def sampling(self) -> float:
        """Samples a second in Hz: an echo from a metre away has gone two."""
        return self.speed / (2 * self.spacing)

    @property
    def depths(self) -> Numbers:
        """Of the samples, in m (samples,)."""
        return np.linspace(*self.sector.depths, self.samples)

    @property
    def angles(self) -> Numbers:
        """Of the beams, in radians (beams,)."""
        return np.linspace(*self.sector.angles, self.beams)

    @property
    def points(self) -> tuple[Numbers, Numbers]:
        """x and z of the samples in m, each (samples, beams)."""
        reach = self.depths[:, None] + self.sector.radius
        return reach * np.sin(self.angles), reach * np.cos(self.angles) - self.sector.radius

    @property
    def pulse_deviation(self) -> float:
        """Standard deviation of the pulse's envelope along a beam in m, a Gaussian."""
        seconds = math.sqrt(2 * math.log(2)) / (math.pi * self.bandwidth * self.carrier)
        return seconds * self.speed / 2


def iq_lines(scan: LineScan, x: Numbers, z: Numbers, amplitudes: Numbers) -> NDArray[np.complex128]:
    """IQ of scatterers at x, z (in m): (samples, beams); points outside of the sector count as far as they reach in.

    Heights and widths are right to 3 %: a point that falls on the grid is that much too high, others less.

    The baseband is the carrier's, with phase 0 at the probe: a scatterer at depth d has phase -4 pi d / wavelength.
    """
    reach = np.hypot(x, z + scan.sector.radius) - scan.sector.radius
    angle = np.arctan2(x, z + scan.sector.radius)
    phase = np.exp(-4j * np.pi * scan.carrier * reach / scan.speed)
    row = (reach - scan.sector.depths[0]) / scan.spacing
    column = (angle - scan.sector.angles[0]) * (scan.beams - 1) / (scan.sector.angles[1] - scan.sector.angles[0])
    above, beside = _margins(scan)
    shape = (next_fast_len(scan.samples + 2 * above), next_fast_len(_FINE * (scan.beams + 2 * beside)))
    grid = _deposited(row + above, _FINE * (column + beside), amplitudes * phase, shape)
    lines = ifft2(fft2(grid) * spread(scan, shape, fine=_FINE) / _sharing(shape))
    return lines[above : above + scan.samples, _FINE * beside :: _FINE][:, : scan.beams]


def rf_of(scan: LineScan, iq: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    """RF (..., samples, beams) of IQ with the carrier's phase 0 at the probe."""
    carrier = np.exp(4j * np.pi * scan.carrier * scan.depths / scan.speed)[:, None]
    return (iq * carrier).real.astype(np.float32)


def iq_of(scan: LineScan, rf: NDArray[np.floating]) -> NDArray[np.complex128]:
    """IQ (..., samples, beams) of RF: the positive frequencies, without the carrier."""
    count = rf.shape[-2]
    spectrum = np.fft.fft(rf, axis=-2)
    keep = np.zeros(count)
    keep[0] = 1
    keep[1 : (count + 1) // 2] = 2
    if count % 2 == 0:
        keep[count // 2] = 1
    carrier = np.exp(-4j * np.pi * scan.carrier * scan.depths / scan.speed)[:, None]
    return np.fft.ifft(spectrum * keep[:, None], axis=-2) * carrier


def spread(scan: LineScan, shape: tuple[int, int], *, fine: int = 1) -> NDArray[np.float64]:
    """The transfer function of a point on a periodic grid: its image is a Gaussian of height 1 in both directions.

    ``fine`` columns of the grid are one beam.
    """
    across = fine * scan.beam_width / (2 * math.sqrt(2 * math.log(2)))
    sides = []
    for count, deviation in zip(shape, (scan.pulse_deviation / scan.spacing, across), strict=True):
        frequency = np.fft.fftfreq(count)
        sides.append(deviation * math.sqrt(2 * np.pi) * np.exp(-2 * (np.pi * frequency * deviation) ** 2))
    return sides[0][:, None] * sides[1][None, :]


def _sharing(shape: tuple[int, int]) -> NDArray[np.float64]:
    """The transfer function of sharing a value linearly among its neighbours, on average over its places."""
    return np.sinc(np.fft.fftfreq(shape[0])[:, None]) ** 2 * np.sinc(np.fft.fftfreq(shape[1])[None, :]) ** 2


def _margins(scan: LineScan) -> tuple[int, int]:
    """Rows and columns beyond the sector from which a point still reaches in."""
    return math.ceil(5 * scan.pulse_deviation / scan.spacing) + 1, math.ceil(2.2 * scan.beam_width) + 1


def _deposited(
    rows: Numbers, columns: Numbers, values: NDArray[np.complexfloating], shape: tuple[int, int]
) -> NDArray[np.complex128]:
    """Each value shared among the four grid points around it."""
    inside = (rows >= 0) & (rows < shape[0] - 1) & (columns >= 0) & (columns < shape[1] - 1)
    rows, columns, values = rows[inside], columns[inside], values[inside]
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = rows - top, columns - left
    flat = np.zeros(shape[0] * shape[1], dtype=np.complex128)
    for row, row_share in ((0, 1 - down), (1, down)):
        for column, share in ((0, 1 - right), (1, right)):
            place = (top + row) * shape[1] + left + column
            weight = values * row_share * share
            flat += np.bincount(place, weight.real, len(flat)) + 1j * np.bincount(place, weight.imag, len(flat))
    return flat.reshape(shape)

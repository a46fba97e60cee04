"""Lines of RF from channel data, sampled finely enough for dehazing. For research use only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_medical.ultrasound.beamforming import beam_lines, beamform, beamform_lines, linear_grid, sector_grid
from priorscope_medical.ultrasound.channel_data import ChannelData

#: Samples a wavelength of depth: four a period of RF.
_A_WAVELENGTH = 8


@dataclass(frozen=True)
class RfLines:
    """Beamformed RF, and where its samples lie.

    Parameters
    ----------
    rf : ndarray of float32 [frames, samples, beams]
    points : ndarray [samples, beams, 3]
        In m.
    carrier : float
        Cycles a sample, as :func:`~.rf_dehaze.dehaze_rf` takes it.
    """

    rf: NDArray[np.float32]
    points: NDArray[np.float64]
    carrier: float


def rf_lines(data: ChannelData, *, f_number: float = 1.5, beams: int | None = None, device: str = "cpu") -> RfLines:
    """Beamform lines eight samples a wavelength apart, over all depths that were recorded.

    Parameters
    ----------
    data : ChannelData
        Plane waves: lines straight ahead, one below each element. Several focused waves of different directions or
        origins: a line along each. Diverging waves: a sector of 70 degrees.
    f_number : float
        As for :func:`~.beamforming.beamform`.
    beams : int, optional
        Lines of a plane-wave image or a sector; default: as many as elements.
    device : str

    Raises
    ------
    InputError
        No carrier, or a record too short for a line.
    """
    if data.carrier is None:
        raise InputError(
            "the carrier is not stated, and RF may have been sampled below it",
            path=data.source,
            remedy="Give the centre frequency of the pulse in Hz (--carrier of the command).",
        )
    step = data.speed / data.carrier / _A_WAVELENGTH
    starts = [wave.start for wave in data.transmits]
    near = max(0.0, max(starts) * data.speed / 2)
    far = (min(starts) + (data.samples.shape[2] - 1) / data.sampling) * data.speed / 2
    count = math.floor((far - near) / step) + 1
    if count < 64:
        raise InputError(
            f"{data.samples.shape[2]} samples are {max(0.0, far - near) * 1e3:.2g} mm: too short a line",
            path=data.source,
        )
    depths = near + step * np.arange(count)
    number = len(data.elements) if beams is None else beams
    sources = [wave.source for wave in data.transmits]
    if all(source is None for source in sources):
        points = linear_grid(np.linspace(data.elements[0, 0], data.elements[-1, 0], number), depths)
    elif any(source is not None and source[2] < 0 for source in sources):
        points = sector_grid(np.radians(np.linspace(-35, 35, number)), np.maximum(depths, step))
    else:
        lines = beam_lines(data, depths)
        iq = beamform_lines(data, lines, f_number=f_number, device=device)
        return _lines(iq.real.cpu().numpy(), lines.swapaxes(0, 1))
    iq = beamform(data, points, f_number=f_number, device=device)
    return _lines(iq.real.cpu().numpy(), points)


def _lines(rf: NDArray[np.float32], points: NDArray[np.float64]) -> RfLines:
    # two ways along a sample's depth, eight samples a wavelength
    return RfLines(rf, points, 2 / _A_WAVELENGTH)

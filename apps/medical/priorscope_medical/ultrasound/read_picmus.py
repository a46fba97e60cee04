"""PICMUS files: plane waves of a linear probe in HDF5.

``US/US_DATASET0000`` holds ``angles`` (radians), ``data/real`` and ``data/imag`` [angles, elements, samples],
``initial_time``, ``modulation_frequency`` (0 for RF), ``probe_geometry`` [3, elements], ``sampling_frequency``,
``sound_speed`` and ``PRF``. Source: Liebgott et al. 2016.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from priorscope.errors import InputError
from priorscope_medical.ultrasound.channel_data import NO_CARRIER, ChannelData, Transmit
from priorscope_medical.ultrasound.hdf5 import check_size, complex_or_real, item, number, optional_number

DATASET = "US/US_DATASET0000"


def read_picmus(file: Any, path: Path, *, frames: slice, max_gigabytes: float) -> ChannelData:
    """Channel data of an open file; see :func:`~priorscope_medical.ultrasound.read.read_channel_data`."""
    group = item(file, DATASET, path)
    angles = np.asarray(item(group, "angles", path)[()], dtype=np.float64).ravel()
    values = item(group, "data", path)
    real = item(values, "real", path)
    check_size(real, path, max_gigabytes)
    samples = complex_or_real(real[()], values["imag"][()] if "imag" in values else None)
    if samples.ndim == 2:
        samples = samples[None]
    if samples.ndim == 3:
        samples = samples[None]
    if samples.ndim != 4:
        raise InputError(f"data has {samples.ndim} axes", path=path, remedy="[angles, elements, samples] was expected.")
    start = number(group, "initial_time", path)
    geometry = np.asarray(item(group, "probe_geometry", path)[()], dtype=np.float64)
    if geometry.ndim == 2 and geometry.shape[0] == 3:
        geometry = geometry.T
    carrier = optional_number(group, "modulation_frequency", path)
    rate = optional_number(group, "PRF", path)
    return ChannelData(
        samples.transpose(0, 1, 3, 2)[frames],
        number(group, "sampling_frequency", path),
        carrier,
        geometry,
        tuple(Transmit(start, angle=float(angle)) for angle in angles),
        number(group, "sound_speed", path),
        frame_rate=None if rate is None else rate / len(angles),
        source=path,
        notes=() if carrier else (NO_CARRIER,),
    )

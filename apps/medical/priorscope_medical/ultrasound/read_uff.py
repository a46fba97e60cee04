"""UFF files of the USTB toolbox: objects as HDF5 groups that carry their class as an attribute.

MATLAB's axes [samples, channels, waves, frames] come reversed, and without trailing ones of length 1. Time zero is when
a wave passes the origin. Source: the ultrasound file format, uff.channel_data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_medical.ultrasound.channel_data import NO_CARRIER, ChannelData, Transmit
from priorscope_medical.ultrasound.hdf5 import check_size, complex_or_real, item, number, optional_number

CLASS = "uff.channel_data"


def find_channel_data(file: Any) -> Any | None:
    """The first group whose class is uff.channel_data, or None."""
    found: list[Any] = []

    def visit(name: str, group: Any) -> Any:
        if _text(group.attrs.get("class")) == CLASS and hasattr(group, "keys"):
            found.append(group)
            return True
        return None

    file.visititems(visit)
    return found[0] if found else None


def read_uff(file: Any, path: Path, *, frames: slice, max_gigabytes: float) -> ChannelData:
    """Channel data of an open file; see :func:`~priorscope_medical.ultrasound.read.read_channel_data`."""
    group = find_channel_data(file)
    if group is None:
        raise InputError(f"holds no {CLASS}", path=path, remedy="Beamformed data is no channel data.")
    values = item(group, "data", path)
    if hasattr(values, "keys"):
        check_size(item(values, "real", path), path, max_gigabytes / 2)
        samples = complex_or_real(values["real"][()], item(values, "imag", path)[()])
    else:
        check_size(values, path, max_gigabytes)
        samples = complex_or_real(values[()], None)
    if not 2 <= samples.ndim <= 4:
        raise InputError(f"data has {samples.ndim} axes, 2 to 4 were expected", path=path)
    samples = samples.reshape((1,) * (4 - samples.ndim) + samples.shape).transpose(0, 1, 3, 2)
    geometry = np.asarray(item(item(group, "probe", path), "geometry", path)[()], dtype=np.float64)
    if geometry.ndim == 2 and geometry.shape[0] == 7:
        geometry = geometry.T
    if geometry.ndim != 2 or geometry.shape[1] != 7:
        raise InputError(
            f"probe/geometry has shape {list(geometry.shape)}, 7 numbers an element were expected", path=path
        )
    start = number(group, "initial_time", path)
    waves = tuple(_wave(wave, start, path) for wave in _sequence(item(group, "sequence", path)))
    notes: tuple[str, ...] = ()
    carrier = optional_number(group, "modulation_frequency", path)
    if carrier is None and "pulse" in group and not np.iscomplexobj(samples):
        carrier = optional_number(group["pulse"], ["center_frequency", "centre_frequency"], path)
    if carrier is None:
        notes = (NO_CARRIER,)
    rate = optional_number(group, ["PRF", "prf"], path)
    return ChannelData(
        samples[frames],
        number(group, "sampling_frequency", path),
        carrier,
        geometry[:, :3],
        waves,
        number(group, "sound_speed", path),
        frame_rate=None if rate is None else rate / len(waves),
        source=path,
        notes=notes,
    )


def _sequence(group: Any) -> list[Any]:
    """The waves: children in the order of their numbers, or the one that the group itself is."""
    return [group] if "source" in group else [group[name] for name in sorted(group)]


def _wave(group: Any, start: float, path: Path) -> Transmit:
    source = item(group, "source", path)
    distance, azimuth, elevation = (_coordinate(source, name) for name in ("distance", "azimuth", "elevation"))
    kind = round(float(np.squeeze(group["wavefront"][()]))) if "wavefront" in group else 1
    delay = _coordinate(group, "delay")
    if kind not in (0, 1):
        raise InputError(f"wavefront {kind}", path=path, remedy="Plane (0) and spherical (1) waves are read.")
    origin = (0.0, 0.0, 0.0)
    if "origin" in group:
        place = group["origin"]
        origin = _cartesian(*(_coordinate(place, name) for name in ("distance", "azimuth", "elevation")))
    if kind == 0 or not np.isfinite(distance):
        return Transmit(start + delay, azimuth, None, origin)
    return Transmit(start + delay, 0.0, _cartesian(distance, azimuth, elevation), origin)


def _coordinate(group: Any, name: str) -> float:
    return float(np.squeeze(group[name][()])) if name in group and group[name].shape != (0,) else 0.0


def _cartesian(distance: float, azimuth: float, elevation: float) -> tuple[float, float, float]:
    return (
        float(distance * np.sin(azimuth) * np.cos(elevation)),
        float(distance * np.sin(elevation)),
        float(distance * np.cos(azimuth) * np.cos(elevation)),
    )


def _text(value: str | bytes | NDArray[Any] | None) -> str:
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else None
    return value.decode() if isinstance(value, bytes) else str(value)

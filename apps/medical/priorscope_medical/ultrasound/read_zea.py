"""zea's HDF5 files: ``data/raw_data`` [frames, transmits, samples, elements, 1 or 2] beside ``scan`` and ``probe``.

Time zero there is when the first element fires; here it is when the wave passes its origin, so the transmit delays of
the elements say what lies between. Source: the format of the zea toolbox (0.1.8 and before).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_medical.ultrasound.channel_data import ChannelData, Transmit
from priorscope_medical.ultrasound.hdf5 import check_size, complex_or_real, item, number, optional_number
from priorscope_medical.ultrasound.transmit_fit import moment_of_passing

TRACK = "tracks/track_0"


def read_zea(file: Any, path: Path, *, frames: slice, max_gigabytes: float) -> ChannelData:
    """Channel data of an open file; see :func:`~priorscope_medical.ultrasound.read.read_channel_data`.

    Of a file with several tracks the first is read.
    """
    notes = []
    root = file
    if TRACK in file:
        root = file[TRACK]
        if len(file["tracks"]) > 1:
            notes.append(f"the first of {len(file['tracks'])} tracks is read")
    scan = root["scan"] if "scan" in root else item(file, "scan", path)
    raw = item(item(root, "data", path), "raw_data", path)
    if raw.ndim != 5 or raw.shape[4] not in (1, 2):
        raise InputError(
            f"raw_data has shape {list(raw.shape)}",
            path=path,
            remedy="[frames, transmits, samples, elements, 1 for RF or 2 for IQ] was expected.",
        )
    check_size(raw, path, max_gigabytes, share=len(range(*frames.indices(raw.shape[0]))) / max(1, raw.shape[0]))
    values = raw[frames]
    samples = complex_or_real(values[..., 0], values[..., 1] if raw.shape[4] == 2 else None)
    probe = next((group for group in (root.get("probe"), file.get("probe")) if _has_geometry(group)), scan)
    positions = np.asarray(item(probe, "probe_geometry", path)[()], dtype=np.float64)
    receiving = _receiving(scan, positions, path)
    speed = optional_number(scan, "sound_speed", path)
    if speed is None:
        speed = 1540.0
        notes.append("the speed of sound is not stated: 1540 m/s is taken")
    # IQ may have been demodulated with another frequency than the pulse's: only the file, or the user, knows
    pulse = optional_number(scan, "center_frequency", path)
    carrier = optional_number(scan, "demodulation_frequency", path) if np.iscomplexobj(samples) else pulse
    percent = _optional([(scan, "bandwidth_percent"), (probe, "probe_bandwidth_percent")], path)
    if "tgc_gain_curve" in scan:
        notes.append("the file states a gain over time that the samples have already")
    return ChannelData(
        samples,
        number(scan, "sampling_frequency", path),
        carrier,
        receiving,
        tuple(_transmits(scan, positions, speed, pulse, path)),
        speed,
        None if percent is None else percent / 100,
        source=path,
        notes=tuple(notes),
    )


def _transmits(scan: Any, positions: NDArray[np.float64], speed: float, pulse: float | None, path: Path) -> Any:
    starts = np.asarray(item(scan, "initial_times", path)[()], dtype=np.float64)
    delays = np.atleast_2d(np.asarray(item(scan, "t0_delays", path)[()], dtype=np.float64))
    count = len(starts)
    focus = _per_transmit(scan, "focus_distances", count, np.inf)
    polar = _per_transmit(scan, "polar_angles", count, 0.0)
    azimuth = _per_transmit(scan, "azimuth_angles", count, 0.0)
    origins = np.asarray(scan["transmit_origins"][()]) if "transmit_origins" in scan else np.zeros((count, 3))
    weights = np.asarray(scan["tx_apodizations"][()]) if "tx_apodizations" in scan else np.ones_like(delays)
    if delays.shape != (count, len(positions)) or weights.shape != delays.shape or origins.shape != (count, 3):
        raise InputError(
            f"t0_delays of shape {list(delays.shape)} and tx_apodizations of {list(weights.shape)} for {count} "
            f"transmits and {len(positions)} elements",
            path=path,
        )
    for index in range(count):
        direction = np.array(
            [
                math.sin(polar[index]) * math.cos(azimuth[index]),
                math.sin(polar[index]) * math.sin(azimuth[index]),
                math.cos(polar[index]),
            ]
        )
        origin = tuple(map(float, origins[index]))
        plane = not math.isfinite(focus[index]) or focus[index] == 0
        source = None if plane else tuple(map(float, origins[index] + focus[index] * direction))
        if plane and direction[1]:
            raise InputError("a plane wave is steered out of the image plane", path=path)
        wave = Transmit(0.0, float(polar[index]) if plane else 0.0, source, origin)  # type: ignore[arg-type]
        passing = moment_of_passing(wave, positions, delays[index], weights[index], speed, pulse, path)
        yield Transmit(float(starts[index]) - passing, wave.angle, wave.source, wave.origin)


def _receiving(scan: Any, positions: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    """Positions of the elements that the channels belong to."""
    if "rx_aperture_indices" not in scan:
        return positions
    indices = np.atleast_2d(np.asarray(scan["rx_aperture_indices"][()]))
    if not (indices == indices[:1]).all():
        raise InputError(
            "the receiving elements differ between transmits", path=path, remedy="Such sliding apertures are not read."
        )
    return positions[indices[0]]


def _per_transmit(scan: Any, name: str, count: int, default: float) -> NDArray[np.float64]:
    values = np.asarray(scan[name][()], dtype=np.float64).ravel() if name in scan else np.full(count, default)
    return np.broadcast_to(values, (count,)) if values.size in (1, count) else np.full(count, default)


def _optional(places: list[tuple[Any, str]], path: Path) -> float | None:
    for group, name in places:
        if name in group:
            return optional_number(group, name, path)
    return None


def _has_geometry(group: Any) -> bool:
    return group is not None and hasattr(group, "keys") and "probe_geometry" in group

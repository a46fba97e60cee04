"""Channel data in MATLAB files as the MUST toolbox has it: RF or IQ beside a structure of parameters.

Axes are [samples, elements], [samples, elements, frames] or [samples, elements, transmits, frames]. The parameters are
fs and fc in Hz, c in m/s, pitch in m, t0 in s, bandwidth in percent, Nelements, and TXdelay in s of each element, a row
a transmit. Files of version 7.3 are HDF5, older ones are read by scipy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_medical.ultrasound.channel_data import ChannelData, Transmit, linear_array
from priorscope_medical.ultrasound.hdf5 import check_size
from priorscope_medical.ultrasound.transmit_fit import wave_of_delays

ARRAYS = ("RF", "rf", "IQ", "iq", "SIG", "signals", "data")
STRUCTURES = ("param", "PARAM", "params", "parameters", "P")


def read_matlab(path: Path, *, frames: slice, max_gigabytes: float, hdf5: Any = None) -> ChannelData:
    """Channel data of a file; ``hdf5`` is the open one where it is of version 7.3.

    See :func:`~priorscope_medical.ultrasound.read.read_channel_data`.
    """
    content = _version_5(path) if hdf5 is None else _version_73(hdf5, path, max_gigabytes)
    name = next((name for name in ARRAYS if _is_array(content.get(name))), None)
    if name is None:
        arrays = ", ".join(f"{key} {list(np.shape(value))}" for key, value in sorted(content.items()))
        raise InputError(
            f"has none of the arrays {', '.join(ARRAYS)}; it has {arrays or 'nothing'}", path=path, remedy="Rename it."
        )
    param = next((content[key] for key in STRUCTURES if isinstance(content.get(key), Mapping)), content)
    return _channel_data(np.asarray(content[name]), {key.lower(): value for key, value in param.items()}, path, frames)


def _channel_data(array: NDArray[Any], param: dict[str, Any], path: Path, frames: slice) -> ChannelData:
    count = _number(param, "nelements", path, required=False)
    if count is None:
        count = np.asarray(param["elements"]).shape[-1] if "elements" in param else array.shape[1]
    count = int(count)
    if array.ndim < 2 or array.ndim > 4 or array.shape[1] != count:
        elsewhere = [index + 1 for index, length in enumerate(array.shape) if length == count]
        raise InputError(
            f"channel data of shape {list(array.shape)} for {count} elements",
            path=path,
            remedy="[samples, elements, frames] was expected"
            + (f": the elements seem to be axis {elsewhere[0]}, in another order." if elsewhere else "."),
        )
    samples = array if array.ndim > 2 else array[:, :, None]
    samples = samples if samples.ndim == 4 else samples[:, :, None, :]
    samples = samples.transpose(3, 2, 0, 1)
    kind = np.complex64 if np.iscomplexobj(samples) else np.float32
    if samples.dtype.kind not in "iufc":
        raise InputError(f"channel data of {samples.dtype}", path=path, remedy="Numbers were expected.")
    notes = []
    speed = _number(param, "c", path, required=False)
    if speed is None:
        speed = 1540.0
        notes.append("the speed of sound is not stated: 1540 m/s is taken")
    if samples.dtype.kind == "u":
        notes.append("unsigned samples: their middle is taken as 0")
        samples = samples.astype(np.float32) - (np.iinfo(samples.dtype).max + 1) / 2
    percent = _number(param, "bandwidth", path, required=False)
    carrier = _number(param, "fc", path, required=False)
    elements = _elements(param, count, path)
    sampling = _number(param, "fs", path)
    assert sampling is not None
    return ChannelData(
        samples[frames].astype(kind),
        sampling,
        carrier,
        elements,
        _waves(param, elements, samples.shape[1], speed, carrier or sampling / 4, path),
        speed,
        None if percent is None else percent / 100,
        frame_rate=_number(param, "prf", path, required=False) if samples.shape[1] == 1 else None,
        source=path,
        notes=tuple(notes),
    )


def _elements(param: Mapping[str, Any], count: int, path: Path) -> NDArray[np.float64]:
    if "elements" in param:
        rows = np.atleast_2d(np.asarray(param["elements"], dtype=np.float64))
        if rows.shape[1] != count or len(rows) > 3:
            raise InputError(f"elements of shape {list(rows.shape)}, x (and z) of each were expected", path=path)
        positions = np.zeros((count, 3))
        positions[:, 0] = rows[0]
        if len(rows) > 1:
            positions[:, 2] = rows[-1]
        return positions
    pitch = _number(param, "pitch", path)
    assert pitch is not None
    return linear_array(count, pitch)


def _waves(
    param: Mapping[str, Any],
    elements: NDArray[np.float64],
    transmits: int,
    speed: float,
    carrier: float,
    path: Path,
) -> tuple[Transmit, ...]:
    start = _number(param, "t0", path, required=False) or 0.0
    if "txdelay" not in param:
        return (Transmit(start),) * transmits
    delays = np.atleast_2d(np.asarray(param["txdelay"], dtype=np.float64))
    if delays.shape == (len(elements), transmits) and transmits != len(elements):
        delays = delays.T
    if delays.shape != (transmits, len(elements)):
        raise InputError(
            f"TXdelay of shape {list(delays.shape)} for {transmits} transmits and {len(elements)} elements", path=path
        )
    return tuple(wave_of_delays(elements, row, start, speed, carrier, path) for row in delays)


def _number(param: Mapping[str, Any], name: str, path: Path, *, required: bool = True) -> float | None:
    value = param.get(name)
    if value is None or np.size(value) == 0:
        if required:
            known = ", ".join(sorted(param)) or "none"
            raise InputError(f"the parameters have no {name}; they are {known}", path=path, remedy="Add it.")
        return None
    try:
        number = np.unique(np.asarray(value, dtype=np.float64))
    except (ValueError, TypeError):
        number = np.zeros(0)
    if number.size != 1 or not np.isfinite(number[0]):
        raise InputError(f"parameter {name} is {value!r}, one finite number was expected", path=path)
    return float(number[0])


def _version_5(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        content = loadmat(path, simplify_cells=True)
    except (ValueError, TypeError, OSError, IndexError, KeyError, NotImplementedError, EOFError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(
            f"is truncated or no MATLAB file ({reason})", path=path, remedy="Copy or save it again."
        ) from None
    except Exception as error:  # zlib's and scipy's own errors have no common base
        if type(error).__name__ not in ("error", "MatReadError"):
            raise
        raise InputError(f"is truncated or damaged ({error})", path=path, remedy="Copy it again.") from None
    return {key: value for key, value in content.items() if not key.startswith("__")}


def _version_73(file: Any, path: Path, max_gigabytes: float) -> dict[str, Any]:
    """Arrays with MATLAB's axes, structures as dictionaries."""
    content: dict[str, Any] = {}
    for name, value in file.items():
        if name.startswith("#"):
            continue
        if hasattr(value, "keys"):
            content[name] = {key: _array_73(entry) for key, entry in value.items() if not hasattr(entry, "keys")}
        else:
            check_size(value, path, max_gigabytes)
            content[name] = _array_73(value)
    return content


def _array_73(dataset: Any) -> Any:
    if dataset.attrs.get("MATLAB_empty", 0) or dataset.dtype.kind == "O":
        return np.zeros(0)
    values = dataset[()]
    if values.dtype.names == ("real", "imag"):
        values = values["real"] + 1j * values["imag"]
    return np.asarray(values).T


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim >= 2 and value.dtype.kind in "iufc"

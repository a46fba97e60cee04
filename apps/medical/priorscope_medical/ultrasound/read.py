"""Reading channel data of any known format. For research use only."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from priorscope.data.arrays import MAX_GIGABYTES
from priorscope.errors import InputError
from priorscope_medical.ultrasound.channel_data import NO_CARRIER, ChannelData, checked
from priorscope_medical.ultrasound.hdf5 import open_hdf5
from priorscope_medical.ultrasound.read_matlab import read_matlab
from priorscope_medical.ultrasound.read_picmus import DATASET, read_picmus
from priorscope_medical.ultrasound.read_uff import find_channel_data, read_uff
from priorscope_medical.ultrasound.read_zea import TRACK, read_zea

SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: Later than this no echo is recorded: a time in other units.
LATEST = 0.01


def read_channel_data(
    path: str | PathLike[str],
    *,
    frames: slice = slice(None),
    carrier: float | None = None,
    bandwidth: float | None = None,
    speed: float | None = None,
    max_gigabytes: float = MAX_GIGABYTES,
) -> ChannelData:
    """Read RF or IQ: PICMUS or zea HDF5, UFF, or MATLAB files of the MUST toolbox; the content says which.

    Parameters
    ----------
    path : path-like
    frames : slice
        Which frames.
    carrier : float, optional
        Centre frequency of the pulse in Hz, instead of the file's; of IQ what it was demodulated with, where the file
        does not say.
    bandwidth : float, optional
        In parts of the carrier, instead of the file's.
    speed : float, optional
        Of sound in m/s, instead of the file's.
    max_gigabytes : float
        Larger arrays are refused before their memory is taken.

    Returns
    -------
    ChannelData
        Its ``notes`` say what had to be assumed.

    Raises
    ------
    InputError
        A file that is missing, truncated, of no known format, or whose parts do not belong together; IQ of an unknown
        frequency; samples without any signal, clipped, or not finite.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such file", path=path, remedy="Check the path.")
    if path.is_dir():
        raise InputError("is a folder, a file was expected", path=path)
    if path.stat().st_size == 0:
        raise InputError("is empty (0 bytes)", path=path, remedy="Copy or write it again.")
    head = _head(path)
    if SIGNATURE in (head[:8], head[512:520]):  # MATLAB puts 512 bytes of its own before
        with open_hdf5(path) as file:
            data = _read_hdf5(file, path, frames, max_gigabytes)
    elif head.startswith(b"MATLAB") or path.suffix.lower() == ".mat":
        data = read_matlab(path, frames=frames, max_gigabytes=max_gigabytes)
    else:
        raise InputError(
            "is neither HDF5 nor a MATLAB file", path=path, remedy="Give PICMUS or zea .hdf5, .uff, or .mat."
        )
    if data.is_iq and None not in (carrier, data.carrier) and carrier != data.carrier:
        raise InputError(
            f"holds IQ that was demodulated with {data.carrier:g} Hz, not {carrier:g}",
            path=path,
            remedy="Leave the carrier out: another one would put every delay's phase wrong.",
        )
    data = replace(
        data,
        carrier=data.carrier if carrier is None else carrier,
        bandwidth=data.bandwidth if bandwidth is None else bandwidth,
        speed=data.speed if speed is None else speed,
        notes=tuple(note for note in data.notes if carrier is None or note != NO_CARRIER),
    )
    if data.is_iq and data.carrier is None:
        raise InputError(
            "holds IQ and does not state the frequency that it was demodulated with",
            path=path,
            remedy="Give it (carrier; --carrier of the command), in Hz.",
        )
    data = checked(data)
    latest = max(abs(wave.start) for wave in data.transmits)
    if latest > LATEST:
        raise InputError(
            f"the first sample is {latest:.3g} s after the transmit", path=path, remedy="Times must be in seconds."
        )
    return data


def _read_hdf5(file: Any, path: Path, frames: slice, max_gigabytes: float) -> ChannelData:
    if DATASET in file:
        return read_picmus(file, path, frames=frames, max_gigabytes=max_gigabytes)
    if "data/raw_data" in file or TRACK in file:
        return read_zea(file, path, frames=frames, max_gigabytes=max_gigabytes)
    if find_channel_data(file) is not None:
        return read_uff(file, path, frames=frames, max_gigabytes=max_gigabytes)
    if _head(path).startswith(b"MATLAB 7.3"):
        return read_matlab(path, frames=frames, max_gigabytes=max_gigabytes, hdf5=file)
    raise InputError(
        f"is HDF5 of no known layout; it holds {', '.join(sorted(file)) or 'nothing'}",
        path=path,
        remedy="Known are PICMUS (US/US_DATASET0000), zea (data/raw_data), UFF (uff.channel_data) and MATLAB 7.3.",
    )


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(520)

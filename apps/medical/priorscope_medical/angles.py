"""View angles as users write them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.data.arrays import read_array
from priorscope.errors import InputError


def parse_angles(text: str) -> NDArray[np.float64]:
    """Angles in degrees from ``start:stop:step`` (the stop excluded), numbers with commas between, or a file.

    Raises
    ------
    InputError
        Neither of these, no angle at all, or more than 100 000.
    """
    if ":" in text and not Path(text).exists():
        return _range(text)
    try:
        values = np.array([float(word) for word in text.split(",")])
    except ValueError:
        values = _read(Path(text))
    if not 0 < len(values) <= 100_000 or not np.isfinite(values).all():
        raise InputError(f"the views {text!r} are {len(values)} numbers", remedy="Give finite angles, at least one.")
    return values


def _range(text: str) -> NDArray[np.float64]:
    try:
        start, stop, step = (float(word) for word in text.split(":"))
        count = math.ceil((stop - start) / step - 1e-9)
    except (ValueError, ZeroDivisionError, OverflowError):
        count = -1
    if not 0 <= count <= 100_000:
        raise InputError(f"the views {text!r}", remedy="Write start:stop:step in degrees, as 0:90:1.")
    if count == 0:
        raise InputError(f"the views {text!r} are none", remedy="The stop is excluded: 0:90:1 ends at 89.")
    return start + step * np.arange(count, dtype=np.float64)


def _read(path: Path) -> NDArray[np.float64]:
    if not path.is_file():
        raise InputError(f"the views {str(path)!r} are neither numbers nor a file", remedy="Write 0:90:1, or 0,45,90.")
    if path.suffix.lower() in (".npy", ".npz"):
        return np.asarray(read_array(path, ndim=1), np.float64)
    try:
        return np.atleast_1d(np.loadtxt(path, dtype=np.float64)).ravel()
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"is no list of angles ({error})", path=path, remedy="Write one number a line.") from error

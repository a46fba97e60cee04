"""Numbers in the JSON files of data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from priorscope.errors import InputError
from priorscope_detection.data.rigid import Array


def numbers_of(value: Any, shape: tuple[int, ...], key: str, path: Path) -> Array:
    """Finite numbers of a file's entry, in this shape (the count has to fit; nesting is free).

    Raises
    ------
    InputError
        Something else is there.
    """
    try:
        found = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.full(1, np.nan)
    if found.size != int(np.prod(shape)) or not np.isfinite(found).all():
        raise InputError(f"its {key!r} is not {' x '.join(map(str, shape))} finite numbers", path=path)
    return found.reshape(shape)

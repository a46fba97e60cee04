"""JSON of data sets: tables and lists, with the path in every error."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from priorscope.errors import InputError
from priorscope_detection.data.rigid import Array


def read_json(path: str | PathLike[str]) -> Any:
    """What a JSON file holds.

    Raises
    ------
    InputError
        No such file, or not whole JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("no such file", path=path, remedy="Check the path.") from None
    except (OSError, ValueError, RecursionError) as error:
        what = getattr(error, "msg", None) or str(error)
        line = f" in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"is not valid JSON: {what}{line}", path=path, remedy="Is the file cut off?") from None


def numbers_of(value: Any, shape: tuple[int, ...], key: str, path: Path) -> Array:
    """Finite numbers of a file's entry, in this shape (the count has to fit; nesting is free).

    Raises
    ------
    InputError
        Something else is there.
    """
    try:
        found = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.full(1, np.nan)
    if found.size != int(np.prod(shape)) or not np.isfinite(found).all():
        raise InputError(f"its {key!r} is not {' x '.join(map(str, shape))} finite numbers", path=path)
    return found.reshape(shape)

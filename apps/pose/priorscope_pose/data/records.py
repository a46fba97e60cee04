"""Fields of JSON records: there, of the right kind, finite; else an error that says which record of which file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_pose.data.annotations import ImageId
from priorscope_pose.skeletons import Skeleton


def keypoint_array(
    values: object, skeleton: Skeleton, what: str, path: Path | None, columns: int = 3
) -> NDArray[np.float64]:
    """A flat list of x, y, v as an array (K, columns), checked.

    Raises
    ------
    InputError
        It is no list of numbers, has another number of key points, or one that is not finite.
    """
    try:
        array = np.asarray(values, np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise InputError(f"{what}: its key points are no list of numbers", path=path) from None
    if array.size != len(skeleton) * columns:
        raise InputError(
            f"{what} has {array.size} numbers for key points, {skeleton.name} needs {len(skeleton)} x {columns}",
            path=path,
            remedy="Is it annotated in another layout? Name that one.",
        )
    if not np.isfinite(array).all():
        raise InputError(f"{what} has a key point that is not finite", path=path, remedy="Mark it as not labelled (0).")
    return array.reshape(-1, columns)


def box_array(values: object, what: str, path: Path | None) -> NDArray[np.float64]:
    """COCO's left, top, width, height as left, top, right, bottom (4,), checked.

    Raises
    ------
    InputError
        Not four finite numbers.
    """
    try:
        x, y, w, h = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{what}: its box is not four numbers x, y, width, height", path=path) from None
    if not np.isfinite([x, y, w, h]).all():
        raise InputError(f"{what}: its box is not finite", path=path)
    return np.array([x, y, x + w, y + h])


def field_of(record: Mapping[str, object], name: str, what: str, path: Path | None) -> object:
    """``record[name]``, or an error that says which record lacks it.

    Raises
    ------
    InputError
        It is not there.
    """
    if name not in record:
        raise InputError(
            f"{what} has no {name!r}", path=path, remedy=f"It has {', '.join(map(str, record)) or 'none'}."
        )
    return record[name]


def id_of(record: Mapping[str, object], name: str, what: str, path: Path | None) -> ImageId:
    """``record[name]`` as an id; 7.0 is 7.

    Raises
    ------
    InputError
        It is not there, or neither a whole number nor text.
    """
    value = field_of(record, name, what, path)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise InputError(f"{what}: its {name} is {value!r}, neither a whole number nor text", path=path)
    return value


def number_of(record: Mapping[str, object], name: str, what: str, path: Path | None) -> float:
    """``record[name]`` as a finite number.

    Raises
    ------
    InputError
        It is not there, or no finite number.
    """
    value = field_of(record, name, what, path)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(
            f"{what}: its {name} is {value!r}", path=path, remedy="Drop that record, or give it a finite number."
        )
    return float(value)


def whole_number_of(record: Mapping[str, object], name: str, what: str, path: Path | None) -> int | None:
    """``record[name]`` as a whole number; None where it is not there, or null.

    Raises
    ------
    InputError
        It is another thing.
    """
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise InputError(
            f"{what}: its {name} is {value!r}, no whole number", path=path, remedy="Mend that record, or leave it out."
        )
    return int(value)


def objects_of(content: Mapping[str, object], name: str, what: str, path: Path) -> list[dict[str, object]]:
    """``content[name]``, a list of JSON objects.

    Raises
    ------
    InputError
        It is another thing, or one of its entries is.
    """
    entries = content[name]
    if not isinstance(entries, list):
        raise InputError(f"its {name!r} are no list", path=path)
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(f"{what} {place} is no object", path=path)
    return entries

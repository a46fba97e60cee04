"""Object ids: text, exact, and each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import numpy as np

from priorscope.errors import InputError

#: Names under which catalogues keep the object id, the first that is there counts.
ID_COLUMNS = ("object_id", "dr7objid", "objid", "id_str", "dr8objid", "objID", "id", "ID", "iauname")


def object_ids(values: Any, *, path: str | PathLike[str] | None = None, column: str = "id") -> tuple[str, ...]:
    """Ids as text, checked.

    Parameters
    ----------
    values : sequence
        Whole numbers or text.
    path : path-like, optional
        Named in messages.
    column : str
        Named in messages.

    Raises
    ------
    InputError
        An id is missing or there twice, or the ids are floating-point numbers, which cannot hold 18 digits.
    """
    array = np.ma.asarray(values)
    if array.dtype.kind == "f":
        raise InputError(
            f"the object ids ({column}) are floating-point numbers, which are exact to 16 digits only",
            path=path,
            remedy="Write the column as whole numbers or text, without gaps.",
        )
    if array.dtype.kind not in "iuUSO":
        raise InputError(f"the object ids ({column}) are {array.dtype}", path=path, remedy="Use numbers or text.")
    missing = np.ma.getmaskarray(array)
    ids = [value.decode() if isinstance(value, bytes) else str(value).strip() for value in np.ma.getdata(array)]
    empty = [row for row, value in enumerate(ids) if missing[row] or value in ("", "None", "nan")]
    if empty:
        raise InputError(
            f"row {empty[0] + 1} has no object id ({column}); {len(empty)} rows have none",
            path=path,
            remedy="Every object needs one: splits are made by it.",
        )
    refuse_duplicates(ids, path=path)
    return tuple(ids)


def refuse_duplicates(ids: Sequence[str], *, path: str | PathLike[str] | None = None) -> None:
    """Raise where an id stands twice.

    Raises
    ------
    InputError
        Names the first such id and how many there are.
    """
    if len(set(ids)) != len(ids):
        twice = [value for value, count in Counter(ids).items() if count > 1]
        raise InputError(
            f"object {twice[0]} is there {Counter(ids)[twice[0]]} times ({len(twice)} ids are not unique)",
            path=path,
            remedy="Keep one row an object, or the same galaxy lands in several splits.",
        )


def id_column(names: Iterable[str], wanted: str = "", *, path: str | PathLike[str] | None = None) -> str:
    """The column that holds the object ids: the one asked for, else the first usual name that is there.

    Raises
    ------
    InputError
        There is none.
    """
    from priorscope_astro.conditions.tree import nearest

    there = list(names)
    if wanted:
        if wanted not in there:
            raise InputError(f"has no column {wanted!r}", path=path, remedy=nearest(wanted, there[:200]))
        return wanted
    for name in ID_COLUMNS:
        if name in there:
            return name
    raise InputError(
        f"has no column of object ids among {', '.join(there[:8])}, ...",
        path=path,
        remedy=f"Name it; looked for {', '.join(ID_COLUMNS)}.",
    )

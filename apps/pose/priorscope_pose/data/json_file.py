"""JSON files of annotations and results."""

from __future__ import annotations

from os import PathLike
from typing import Any

from priorscope.data.json_file import read_json
from priorscope.errors import InputError


def read_object(path: str | PathLike[str], *keys: str) -> dict[str, Any]:
    """A JSON object that has all these keys.

    Raises
    ------
    InputError
        As :func:`priorscope.data.read_json`; or it is another kind of value, or a key is missing.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"holds a JSON {type(value).__name__}, not an object", path=path, remedy=_remedy(keys))
    for key in keys:
        if key not in value:
            raise InputError(f"has no {key!r}", path=path, remedy=_remedy(keys))
    return value


def read_list(path: str | PathLike[str]) -> list[Any]:
    """A JSON list.

    Raises
    ------
    InputError
        As :func:`priorscope.data.read_json`; or it is another kind of value.
    """
    value = read_json(path)
    if not isinstance(value, list):
        raise InputError(
            f"holds a JSON {type(value).__name__}, not a list",
            path=path,
            remedy="COCO's results are a list of objects.",
        )
    return value


def _remedy(keys: tuple[str, ...]) -> str:
    return f"Annotations in COCO's layout have {', '.join(keys)}." if keys else ""

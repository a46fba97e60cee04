"""JSON files of annotations and results."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from priorscope.errors import InputError


def read_json(path: str | PathLike[str]) -> Any:
    """What a JSON file holds.

    Raises
    ------
    InputError
        No such file, a folder, or not whole JSON.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("no such file", path=path, remedy="Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as text ({error})", path=path, remedy="A JSON file is expected.") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"is not valid JSON: {error.msg} in line {error.lineno}",
            path=path,
            remedy="Is the file cut off? Copy or download it again.",
        ) from None


def read_object(path: str | PathLike[str], *keys: str) -> dict[str, Any]:
    """A JSON object that has all these keys.

    Raises
    ------
    InputError
        As :func:`read_json`; or it is another kind of value, or a key is missing.
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
        As :func:`read_json`; or it is another kind of value.
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

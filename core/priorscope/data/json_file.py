"""JSON files: whole, or an error that names the file and the line."""

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
        No such file, no text, not whole JSON, or nested deeper than Python's parser goes.
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
        fact = f"is not valid JSON: {error.msg} in line {error.lineno}"
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        fact = f"is not valid JSON: {error}"
    raise InputError(fact, path=path, remedy="Is the file cut off? Copy or download it again.")

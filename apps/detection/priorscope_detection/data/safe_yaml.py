"""YAML of data sets: plain values only, and no file that unfolds to more than it may."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from priorscope.errors import InputError

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: Values a file may hold once its aliases are written out; OPV2V's frames hold some thousands.
MAX_VALUES = 1_000_000
#: Nesting; the C parser builds nested values by recursion.
MAX_DEPTH = 64
MAX_BYTES = 64 * 2**20


def read_yaml(path: str | PathLike[str]) -> Any:
    """What a YAML file holds: dictionaries, lists, numbers, text, dates.

    Raises
    ------
    InputError
        No such file, no YAML, tags of other objects, nesting beyond 64, more than 64 MiB, or aliases that unfold to
        more than a million values ("yaml bombs"; merge keys unfold while it is read).
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"has {size} bytes; a YAML file of at most {MAX_BYTES} is read", path=path)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("no such file", path=path, remedy="Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as text ({error})", path=path, remedy="A YAML file is expected.") from None
    try:
        check_size(text, path)
        return yaml.load(text, Loader=_Loader)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # a date or a number of thousands of digits is a ValueError
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise InputError(
            f"is no YAML of plain values: {problem}{where}", path=path, remedy="Is it cut short, or of other tools?"
        ) from None


def check_size(text: str, path: Path) -> None:
    """Count the values with every alias written out, without building any (InputError: too many, or too deep)."""
    anchors: dict[str, int] = {}
    open_anchors: list[str | None] = []
    counts = [0]
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_anchors.append(event.anchor)
            counts.append(1)
            if len(counts) > MAX_DEPTH:
                raise InputError(f"nests values deeper than {MAX_DEPTH}", path=path)
        elif isinstance(event, yaml.CollectionEndEvent):
            whole = counts.pop()
            anchor = open_anchors.pop()
            if anchor is not None:
                anchors[anchor] = whole
            counts[-1] += whole
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor is not None:
                anchors[event.anchor] = 1
            counts[-1] += 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in open_anchors:
                raise InputError(f"its alias *{event.anchor} stands within what it names", path=path)
            counts[-1] += anchors.get(event.anchor or "", 1)
        if counts[-1] > MAX_VALUES:
            raise InputError(f"its aliases unfold to more than {MAX_VALUES} values", path=path)

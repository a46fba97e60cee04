"""Words such as ``ring=100`` on the command line. Needs neither torch nor astropy."""

from __future__ import annotations

from collections.abc import Sequence

from priorscope.errors import InputError


def assignments(words: Sequence[str], option: str, left: str = "NAME") -> dict[str, str]:
    """NAME=VALUE words as a mapping, in their order; blanks round names and values are dropped.

    Parameters
    ----------
    words : sequence of str
    option, left : str
        For messages: the option that they were given to, and what its names are.

    Raises
    ------
    InputError
        A word without a name or value, or a name twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        name, value = name.strip(), value.strip()
        if not name or not value or name in found:
            raise InputError(f"{option} {word!r}", remedy=f"Write {left}=VALUE, each {left.lower()} once.")
        found[name] = value
    return found

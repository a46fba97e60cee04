"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def print_table(rows: Sequence[Mapping[str, Any]], number: str = ".4f") -> None:
    """Print rows of equal keys as an aligned table: text left, numbers right, what is missing as a dash.

    Parameters
    ----------
    rows : sequence of mappings
        Column -> str, number or None.
    number : str
        Format of floats: ``".4f"`` for shares, ``".4g"`` for figures of different sizes.
    """
    if not rows:
        return

    def shown(value: Any) -> str:
        if value is None:
            return "-"
        return format(value, number) if isinstance(value, float | np.floating) else str(value)

    cells = [list(rows[0]), *([shown(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    text = [all(isinstance(row[name], str) for row in rows) for name in rows[0]]
    for line in cells:
        parts = [c.ljust(w) if left else c.rjust(w) for c, w, left in zip(line, widths, text, strict=True)]
        print("  " + "  ".join(parts).rstrip())

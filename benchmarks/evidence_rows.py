"""The rows of an evidence script: kept as they come, and made once, until the time is used up."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from priorscope.evaluation.run_folder import append_jsonl, read_jsonl


class EvidenceRows:
    """Results in order.

    Parameters
    ----------
    path : Path
        JSON lines; rows are added at its end.
    max_seconds : float
        After which no new piece of work begins.
    not_printed : collection of str
        Columns that are long.
    """

    def __init__(self, path: Path, max_seconds: float, *, not_printed: Collection[str] = ()) -> None:
        self.rows_at, self._not_printed = path, not_printed
        self.deadline = time.monotonic() + max_seconds
        self.rows = read_jsonl(path)

    def write(self, row: dict[str, Any]) -> None:
        append_jsonl(self.rows_at, row)
        self.rows.append(row)
        print(json.dumps({name: value for name, value in row.items() if name not in self._not_printed}), flush=True)

    def lacks(self, **wanted: Any) -> bool:
        return not any(all(row.get(name) == value for name, value in wanted.items()) for row in self.rows)

    def seconds_left(self) -> float:
        """Time for another piece of work; where there is none, the program ends."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise SystemExit("the time is used up; the same command goes on")
        return left

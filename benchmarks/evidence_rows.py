"""The rows of an evidence script, kept as they come and made once, until the time is used up; its command line."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from priorscope.evaluation.run_folder import append_jsonl, read_jsonl

HERE = Path(__file__).parent
Rows = list[dict[str, Any]]


class TimeLimit:
    """A time after which no new piece of work begins."""

    def __init__(self, max_seconds: float) -> None:
        self._deadline = time.monotonic() + max_seconds

    def seconds_left(self) -> float:
        """Time for another piece of work; where there is none, the program ends."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise SystemExit("the time is used up; the same command goes on")
        return left


class EvidenceRows(TimeLimit):
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
        super().__init__(max_seconds)
        self.rows_at, self._not_printed = path, not_printed
        self.rows = read_jsonl(path)

    def write(self, row: dict[str, Any]) -> None:
        append_jsonl(self.rows_at, row)
        self.rows.append(row)
        print(json.dumps({name: value for name, value in row.items() if name not in self._not_printed}), flush=True)

    def lacks(self, **wanted: Any) -> bool:
        return self._found(wanted) is None

    def row(self, **wanted: Any) -> dict[str, Any]:
        """The row with these values; another process may have written it. Where there is none, the program ends."""
        if self.lacks(**wanted):
            self.rows = read_jsonl(self.rows_at)
        found = self._found(wanted)
        if found is None:
            raise SystemExit(f"there is no row {wanted} yet: an earlier part has to be finished")
        return found

    def _found(self, wanted: dict[str, Any]) -> dict[str, Any] | None:
        return next((row for row in self.rows if all(row.get(name) == value for name, value in wanted.items())), None)


def evidence_parser(text: str | None, name: str, parts: Sequence[str]) -> argparse.ArgumentParser:
    """The options of a script whose rehearsal has files of its own; a script adds those that only it has.

    Parameters
    ----------
    text : str
        The script's docstring.
    name : str
        Its rows are NAME.jsonl, its figure is figures/NAME.png.
    parts : sequence of str
        Methods of its evidence, in order.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help=f"folder of data and models (default /tmp/{name}[_small])")
    parser.add_argument("--max-seconds", type=float, default=1200)
    parser.add_argument("--only", choices=parts, help="the other parts are left for other calls")
    parser.add_argument("--table", action="store_true", help="only print the tables and draw the figure")
    parser.add_argument("--small", action="store_true", help="a rehearsal: little data, a few steps")
    parser.set_defaults(name=name, parts=parts)
    return parser


def run_evidence(
    options: argparse.Namespace,
    make: Callable[[argparse.Namespace], EvidenceRows],
    print_tables: Callable[[Rows], None],
    draw: Callable[[Rows, Path], None],
) -> None:
    """Do what is missing of the parts that are asked for, then show all rows, also those of other calls.

    Parameters
    ----------
    options : Namespace
        As :func:`evidence_parser` gives; ``out`` and ``rows`` are filled in for ``make``.
    make, print_tables, draw
        Of the script; the last is told where its figure goes.
    """
    name = f"{options.name}_small" if options.small else options.name
    options.out = options.out or Path("/tmp") / name
    # what a rehearsal gives stays out of the repository
    options.rows = (options.out if options.small else HERE) / f"{name}.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    evidence = make(options)
    try:
        if not options.table:
            for part in options.parts:
                if options.only in (None, part):
                    getattr(evidence, part)()
    finally:
        rows = read_jsonl(options.rows)
        print_tables(rows)
        draw(rows, (options.out if options.small else HERE / "figures") / f"{name}.png")

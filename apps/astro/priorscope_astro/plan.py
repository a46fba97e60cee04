"""A plan: one row an image to draw, with its condition, its seed and its reference galaxy, in an ECSV file.

Everything in it follows from the catalogue, the splits and the settings; so does its id. The same plan made again is
the same file, and an image's seed follows from the plan's id and its row: whoever draws it, wherever, draws the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from priorscope.errors import InputError
from priorscope_astro.conditions.condition import Condition
from priorscope_astro.data.catalogue import column_text, read_catalogue, write_catalogue
from priorscope_astro.data.splits import Splits

#: Changes whenever the same input gives another plan.
PLAN_VERSION = 1
_COLUMNS = (
    "plan_id",
    "row",
    "class_name",
    "prompt",
    "condition",
    "seed",
    "condition_id",
    "reference_id",
    "reference_image",
    "split",
)
_SPLIT = "train"


@dataclass(frozen=True)
class PlanRow:
    """One image to draw.

    Attributes
    ----------
    row : int
        Its number in the plan, from 0.
    class_name : str
    prompt : str
        For text-conditioned models, with weights in braces.
    condition : Condition
        For vector-conditioned models; empty where the plan is of free text.
    seed : int
        63 bits, of the plan's id and the row.
    condition_id : str
        The training galaxy whose votes the condition has, or ''.
    reference_id : str
        The training galaxy to start from, or ''.
    reference_image : str
        Its picture in the catalogue's folder or archive, or ''.
    """

    row: int
    class_name: str
    prompt: str
    condition: Condition
    seed: int
    condition_id: str = ""
    reference_id: str = ""
    reference_image: str = ""


@dataclass(frozen=True)
class Plan:
    """Images to draw.

    Attributes
    ----------
    plan_id : str
        16 hexadecimal digits.
    rows : tuple of PlanRow
    splits_digest : str
        Of the splits it was made with; see :meth:`Splits.digest`.
    meta : mapping
        What it was made from, for the file's header.
    """

    plan_id: str
    rows: tuple[PlanRow, ...]
    splits_digest: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def guard(self, splits: Splits, *, path: str | PathLike[str] | None = None) -> None:
        """Refuse a plan that uses galaxies outside the training split of these splits.

        Raises
        ------
        InputError
            The plan was made with other splits, or a reference or condition galaxy is not a training galaxy.
        """
        try:
            for what, ids in (
                ("reference galaxies", {row.reference_id for row in self.rows}),
                ("galaxies whose votes are used", {row.condition_id for row in self.rows}),
            ):
                splits.guard(sorted(ids - {""}), (_SPLIT,), what=what)
        except InputError as error:
            raise InputError(error.fact, path=path, remedy=error.remedy) from None
        if splits.digest() != self.splits_digest:
            raise InputError(
                f"was made with other splits ({self.splits_digest}, these are {splits.digest()})",
                path=path,
                remedy="Give the splits that it was made with, or make it again.",
            )

    def is_there(self, path: str | PathLike[str], *, overwrite: bool = False) -> bool:
        """Whether a file holds this very plan, and need not be written.

        Raises
        ------
        InputError
            Another plan is there, and `overwrite` is false; or the name does not end in .ecsv.
        """
        path = Path(path)
        if path.suffix != ".ecsv":
            raise InputError("a plan's name ends in .ecsv", path=path)
        if not path.exists() or overwrite:
            return False
        there = Plan.read(path)
        if there.plan_id != self.plan_id or there.rows != self.rows:
            raise InputError(
                f"holds another plan ({there.plan_id}, not {self.plan_id})",
                path=path,
                remedy="Choose another --out, or ask for overwriting.",
            )
        return True

    def write(self, path: str | PathLike[str], *, overwrite: bool = False) -> bool:
        """Write as .ecsv. A file that holds this very plan is left as it is.

        Returns
        -------
        bool
            Whether it was written.

        Raises
        ------
        InputError
            As :meth:`is_there`.
        """
        from astropy.table import QTable

        if self.is_there(path, overwrite=overwrite):
            return False
        columns: dict[str, Any] = {name: [] for name in _COLUMNS}
        for row in self.rows:
            values = asdict(row) | {"plan_id": self.plan_id, "condition": row.condition.to_json(), "split": _SPLIT}
            for name in _COLUMNS:
                columns[name].append(values[name])
        table = QTable(
            {
                name: np.array(values, np.int64) if name in ("row", "seed") else np.array(values, dtype=str)
                for name, values in columns.items()
            }
        )
        header = {"plan_id": self.plan_id, "plan_version": PLAN_VERSION, "splits_digest": self.splits_digest}
        table.meta = {**header, **self.meta}
        write_catalogue(table, path, overwrite=overwrite)
        return True

    @classmethod
    def read(cls, path: str | PathLike[str], *, splits: Splits | None = None) -> Plan:
        """Read a plan and check it.

        Parameters
        ----------
        path : path-like
        splits : Splits, optional
            Checked by :meth:`guard`.

        Raises
        ------
        InputError
            No plan, a column is missing, rows are not numbered from 0, several plans in one file, a seed that does not
            belong to its row, a condition that cannot be, or leakage.
        """
        table = read_catalogue(path)
        missing = [name for name in _COLUMNS if name not in table.colnames]
        if missing:
            raise InputError(
                f"has no column {missing[0]!r}", path=path, remedy="Is it a plan of priorscope astro plan?"
            )
        if table.meta.get("plan_version") != PLAN_VERSION:
            raise InputError(
                f"is a plan of version {table.meta.get('plan_version')}, not {PLAN_VERSION}",
                path=path,
                remedy="Make it again.",
            )
        text = {name: column_text(table[name]) for name in _COLUMNS if name not in ("row", "seed")}
        plan_id = str(table.meta.get("plan_id"))
        if set(text["plan_id"]) != {plan_id} or set(text["split"]) != {_SPLIT}:
            raise InputError("holds rows of several plans or splits", path=path, remedy="One plan a file.")
        if np.asarray(table["row"]).tolist() != list(range(len(table))):
            raise InputError("its rows are not numbered 0, 1, 2, ...", path=path, remedy="Do not sort or cut plans.")
        conditions: dict[str, Condition] = {}
        rows = []
        for row in range(len(table)):
            seed = int(table["seed"][row])
            if seed != row_seed(plan_id, row):
                raise InputError(
                    f"row {row}: the seed {seed} does not belong to it", path=path, remedy="Seeds are not edited."
                )
            line = text["condition"][row]
            if line not in conditions:
                try:
                    conditions[line] = Condition.from_json(line)
                except InputError as error:
                    raise InputError(f"row {row}: {error.fact}", path=path, remedy=error.remedy) from None
            rows.append(
                PlanRow(
                    row,
                    text["class_name"][row],
                    text["prompt"][row],
                    conditions[line],
                    seed,
                    text["condition_id"][row],
                    text["reference_id"][row],
                    text["reference_image"][row],
                )
            )
        own = ("plan_id", "plan_version", "splits_digest")
        plan = cls(
            plan_id,
            tuple(rows),
            str(table.meta.get("splits_digest")),
            {key: value for key, value in table.meta.items() if key not in own},
        )
        if splits is not None:
            plan.guard(splits, path=path)
        return plan


def object_id(plan_id: str, row: int) -> str:
    """The id of an image of a plan: PLAN-ROW."""
    return f"{plan_id}-{row:06d}"


def is_generated(name: str) -> bool:
    """Whether an id is one of :func:`object_id`: no galaxy of the sky is called so."""
    return re.fullmatch(r"[0-9a-f]{16}-\d{6,}", name) is not None


def row_seed(plan_id: str, row: int) -> int:
    """The seed of an image: 63 bits of SHA-256 of the plan's id and the row."""
    return int.from_bytes(hashlib.sha256(f"{plan_id}/{row}".encode()).digest()[:8], "big") >> 1

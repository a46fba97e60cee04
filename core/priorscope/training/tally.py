"""Losses since the last row of the log: kept on the device, read seldom, saved with a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator


class Bad(NamedTuple):
    """A scalar that is not finite."""

    ago: int
    """Steps since, 0 for the last one."""
    name: str
    value: float
    keys: list[str]
    """The examples of that step."""


class Tally:
    """The scalars of each step since the last row; a step need not have those of the step before.

    Reading a number of a GPU waits for it; so the loop only adds here, and looks when it writes a row or a
    checkpoint. A checkpoint holds what has been added, so that a resumed run writes the same rows.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device
        self._rows: list[dict[str, torch.Tensor]] = []
        self._keys: list[list[str]] = []

    def add(self, values: dict[str, torch.Tensor], keys: list[str]) -> None:
        """One step's scalars, and the names of its examples."""
        self._rows.append({name: value.detach().float() for name, value in values.items()})
        self._keys.append(keys)

    def settle(self, accelerator: Accelerator) -> None:
        """Replace every value by its mean over the processes. All processes must call it."""
        if accelerator.num_processes > 1 and self._rows:
            values = torch.stack([value for row in self._rows for value in row.values()])
            means = iter(accelerator.reduce(values, "mean"))
            self._rows = [{name: next(means) for name in row} for row in self._rows]

    def first_bad(self, names: Sequence[str] = ("loss",)) -> Bad | None:
        """The first step at which one of the scalars ``names`` was not finite."""
        if not self._rows:
            return None
        table = torch.stack([torch.stack([row[name] for name in names]) for row in self._rows]).cpu()
        bad = torch.nonzero(~table.isfinite())  # by step, then by name
        if len(bad) == 0:
            return None
        place, column = bad[0].tolist()
        return Bad(len(self._rows) - 1 - place, names[column], float(table[place, column]), self._keys[place])

    def means(self) -> dict[str, float]:
        """Mean of each scalar over the steps that have it."""
        names = dict.fromkeys(name for row in self._rows for name in row)
        return {name: float(torch.stack([row[name] for row in self._rows if name in row]).mean()) for name in names}

    def clear(self) -> None:
        self._rows, self._keys = [], []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [{name: value.cpu() for name, value in row.items()} for row in self._rows], "keys": self._keys}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # back to where the steps to come will be
        self._rows = [{name: value.to(self._device) for name, value in row.items()} for row in state["rows"]]
        self._keys = state["keys"]

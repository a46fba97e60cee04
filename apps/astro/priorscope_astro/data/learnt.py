"""Which galaxies a model or a classifier has learnt: ``learnt.json`` in its folder, an id a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import write_text
from priorscope.data.json_file import read_json
from priorscope.errors import InputError
from priorscope_astro.data.splits import Splits
from priorscope_astro.demo_config import BUNDLED, BUNDLED_FOLDER
from priorscope_astro.published import MODELS

#: The file of a model folder, and of a run of `generate`.
FILE = "learnt.json"
_FAMILY = "learnt-galaxies"


@dataclass(frozen=True)
class Learnt:
    """Ids of galaxies that a training took its steps on; what it only looked at is not among them.

    Attributes
    ----------
    ids : frozenset of str
    complete : bool
        Whether these are all: false where the training began with a model that does not say what it had learnt.
    """

    ids: frozenset[str]
    complete: bool = True

    def mask(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """Which of some galaxies were learnt."""
        return np.array([name in self.ids for name in ids], bool)

    def held_out(self, splits: Splits) -> list[str]:
        """The learnt galaxies that splits call validation or test, sorted: they leak."""
        return sorted(name for name in self.ids if splits.of_id.get(name, "train") != "train")

    def write(self, folder: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write ``learnt.json`` into a folder."""
        content = {"family": _FAMILY, "complete": self.complete, "ids": sorted(self.ids)}
        write_text(Path(folder) / FILE, json.dumps(content, indent=0, ensure_ascii=False) + "\n", overwrite=overwrite)

    @classmethod
    def read(cls, folder: str | PathLike[str]) -> Learnt | None:
        """Read it back; None where the folder has none.

        Raises
        ------
        InputError
            It is damaged.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        content = read_json(path)
        ids = content.get("ids") if isinstance(content, dict) and content.get("family") == _FAMILY else None
        if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
            raise InputError(
                "does not say which galaxies were learnt", path=path, remedy="Copy the model folder again."
            )
        return cls(frozenset(ids), content.get("complete") is True)


def learnt_by(model: str | PathLike[str]) -> Learnt | None:
    """What a model or classifier has learnt, by its run folder or model folder; None where it does not say.

    Raises
    ------
    InputError
        No such folder, or a record that is damaged.
    """
    if str(model) in {row.name for row in MODELS} - {BUNDLED}:
        return None  # published
    folder = BUNDLED_FOLDER if str(model) == BUNDLED else Path(model).expanduser()
    if not folder.is_dir():
        raise InputError("no such model folder", path=folder, remedy="Check the path.")
    found = Learnt.read(folder / "model")
    return found if found is not None else Learnt.read(folder)


def learnt_from(ids: Iterable[str], start: Learnt | None = None, *, new: bool = True) -> Learnt:
    """What a training learns: its galaxies, and those of the model that it began with.

    Parameters
    ----------
    ids : iterable of str
    start : Learnt, optional
        Of the model that it began with.
    new : bool
        Whether it began with new weights.
    """
    before: frozenset[str] = frozenset() if start is None else start.ids
    return Learnt(frozenset(ids) | before, new or (start is not None and start.complete))

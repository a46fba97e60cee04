"""The model table: published checkpoints, where they live and how they are loaded.

Rows are declared by the apps (``MODELS`` of the module that an app's entry point names). Needs no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points

from priorscope.errors import InputError


@dataclass(frozen=True)
class PublishedModel:
    """One published checkpoint.

    Parameters
    ----------
    name : str
        What users type after ``--model``.
    app, task : str
        The app that runs it and what it predicts.
    loader : str
        The family of checkpoints, which names the loader and its settings.
    source : str
        Hub id, or the folder inside the installed package for bundled models.
    licence : str
        As its publisher states it; "not stated" where unknown.
    size : str
        Of the files that are loaded.
    note : str
        What a user must know to read the result.
    bundled : bool
        Shipped inside the wheel.
    by_hand : bool
        Its files cannot be fetched by name; the note says what to do.
    """

    name: str
    app: str
    task: str
    loader: str
    source: str
    licence: str
    size: str
    note: str = ""
    bundled: bool = False
    by_hand: bool = False


def published_models() -> list[PublishedModel]:
    """All rows of all installed apps, in the order the apps declare them."""
    rows: list[PublishedModel] = []
    for entry in sorted(entry_points(group="priorscope.apps"), key=lambda entry: entry.name):
        rows += getattr(entry.load(), "MODELS", [])
    return rows


def refuse_by_hand(row: PublishedModel | None) -> None:
    """InputError, with what to do, for a model whose files cannot be fetched by name."""
    if row is not None and row.by_hand:
        raise InputError(
            f"{row.name} is not on this machine and cannot be fetched by name",
            remedy=f"Download it from {row.source}; {row.note}.",
        )


def find_published(name: str, rows: Iterable[PublishedModel]) -> PublishedModel | None:
    """The row called ``name`` or published as hub id ``name``; None where there is none."""
    return next((row for row in rows if name in (row.name, row.source)), None)


def unknown_model(name: str, rows: Iterable[PublishedModel]) -> InputError:
    """The error for a name that is neither in the table, nor a folder, nor a hub id."""
    names = [row.name for row in rows]
    close = difflib.get_close_matches(name, names, n=3)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"Known names: {', '.join(names)}."
    return InputError(
        f"no model is called {name!r}",
        remedy=f"{hint} `priorscope models` lists them; a local folder or a hub id (owner/name) works too.",
    )

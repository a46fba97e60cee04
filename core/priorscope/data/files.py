"""Files that are either whole or absent, and that never replace another one silently."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from priorscope.errors import InputError


def refuse_overwrite(path: str | PathLike[str], *, remedy: str | None = None) -> Path:
    """Return ``path`` as a Path, or raise if something is there already.

    Raises
    ------
    InputError
        If the path exists (a dangling link counts: writing through it would surprise).
    """
    path = Path(path)
    if os.path.lexists(path):
        raise InputError(
            "exists already and would be overwritten",
            path=path,
            remedy=remedy or "Choose another output, remove it, or ask for overwriting.",
        )
    return path


def refuse_existing(paths: Iterable[str | PathLike[str]]) -> None:
    """Raise if any result of a command is there already: before work begins, not in the middle of it.

    Raises
    ------
    InputError
        Names the first that exists (a dangling link counts) and how many more do.
    """
    existing = [path for path in paths if os.path.lexists(path)]
    if existing:
        more = f" (and {len(existing) - 1} more of the results)" if len(existing) > 1 else ""
        raise InputError(f"exists already{more}", path=existing[0], remedy="Use --overwrite or another --out.")


@contextmanager
def atomic_path(path: str | PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well, rename it to ``path``.

    A reader, or a run that was killed half-way, never sees a half-written file. The temporary name keeps
    the suffix, since Pillow and numpy choose the format by it. Missing parent folders are made.

    Parameters
    ----------
    path : path-like
        The file to write.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    InputError
        If the file exists and ``overwrite`` is false, or if it cannot be written there.
    """
    path = Path(path)
    if not overwrite:
        refuse_overwrite(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
    try:
        yield temporary
        if not overwrite:
            refuse_overwrite(path)  # again: another process may have been quicker
        with writing(path):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, *, remedy: str = "Choose a folder you may write to.") -> Iterator[None]:
    """Turn an OSError of the block, a full disk or a missing permission, into an :class:`InputError` about ``path``."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror or error}",
            path=path,
            remedy=remedy,
        ) from error


def write_text(path: str | PathLike[str], text: str, *, overwrite: bool = False) -> Path:
    """Write a UTF-8 text file atomically and return its path."""
    path = Path(path)
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path

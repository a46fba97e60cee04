"""Errors that the user can mend."""

from __future__ import annotations

from os import PathLike


class InputError(ValueError):
    """Something the user gave is wrong: what it is, where it is, and what to do about it.

    The command line prints it as one line and exits with status 2.

    Parameters
    ----------
    fact : str
        What is wrong, with the values that show it.
    path : str or path-like, optional
        The file or folder concerned.
    remedy : str, optional
        What the user can do.
    """

    def __init__(self, fact: str, *, path: str | PathLike[str] | None = None, remedy: str | None = None) -> None:
        self.fact = fact
        self.path = None if path is None else str(path)
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path is not None else ""
        what_to_do = f" {self.remedy}" if self.remedy else ""
        separator = "" if not self.remedy or self.fact.endswith((".", "!", "?")) else "."
        return " ".join(f"{where}{self.fact}{separator}{what_to_do}".split())

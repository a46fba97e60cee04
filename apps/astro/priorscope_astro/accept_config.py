"""What the acceptance statement of ``priorscope astro generate`` can be told. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from priorscope.errors import InputError


@dataclass(frozen=True)
class AcceptConfig:
    """What the catalogue says about each image, and what makes it accepted. Nothing is thrown away."""

    check: bool = True
    """State it. Without classifier and training galaxies: shape and centring alone."""
    classifier: Path | None = None
    """A galaxy classifier that was not trained on generated images: does it find what was asked for?"""
    training: Path | None = None
    """The galaxies that the model was trained on: is one of them copied?"""
    agreement: float = 0.5
    """Least probability (share of votes) that the classifier gives to what was asked for."""
    worst_flag: int = 1
    """Largest flag of the morphology: 0 good, 1 suspect, 2 bad, 4 nothing could be measured."""
    offset: float = 0.1
    """Largest distance of the galaxy from the middle, as a share of the side."""
    copies: float = 0.01
    """An image nearer to a training galaxy than this share of training galaxies is to its nearest other one is a
    copy."""

    def check_values(self) -> None:
        """Refuse numbers that make no sense, and what changes nothing.

        Raises
        ------
        InputError
            Naming the option and its value.
        """
        for name in ("agreement", "offset", "copies"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"--accept.{name} {getattr(self, name)}", remedy="Use a share from 0 to 1.")
        if self.worst_flag not in (0, 1, 2, 4):
            raise InputError(f"--accept.worst-flag {self.worst_flag}", remedy="Use 0, 1, 2 or 4.")
        changed = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        if not self.check and len(changed) > 1:
            option = changed[1].replace("_", "-")
            raise InputError(f"--accept.{option} with --accept.no-check", remedy="Leave one of the two out.")
        for name, needed in (("agreement", "classifier"), ("copies", "training")):
            if name in changed and getattr(self, needed) is None:
                raise InputError(f"--accept.{name} without --accept.{needed}", remedy=f"Give --accept.{needed}.")

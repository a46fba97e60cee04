"""What each command can be told. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SimulateConfig:
    """Draw a survey of galaxies with exact labels and simulated volunteers, in Galaxy Zoo 2's layout."""

    out: Path = Path("runs/survey")
    """Folder."""


@dataclass(frozen=True)
class PlanConfig:
    """See how a catalogue's classes are balanced, and plan which galaxies to draw."""

    out: Path = Path("plan.ecsv")
    """The plan: one row an image."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a model of galaxies on your own images."""

    out: Path = Path("runs/train")
    """Run folder."""


@dataclass(frozen=True)
class GenerateConfig:
    """Draw the galaxies of a plan, with a catalogue that tells where each came from."""

    out: Path = Path("out")
    """Folder."""

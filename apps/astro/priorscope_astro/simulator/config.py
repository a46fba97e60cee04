"""What ``priorscope astro simulate`` can be told, and the classes it knows. Needs neither torch nor galsim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from priorscope.errors import InputError
from priorscope_astro.assignments import assignments

#: Classes of galaxies, in the order of their numbers, and how often each is drawn.
PREVALENCES: dict[str, float] = {
    "round": 0.18,
    "in_between": 0.22,
    "cigar": 0.06,
    "edge_on": 0.12,
    "spiral": 0.23,
    "barred": 0.11,
    "ring": 0.035,
    "merger": 0.04,
    "dust_lane": 0.005,
}
CLASSES: tuple[str, ...] = tuple(PREVALENCES)
BANDS = ("g", "r", "i")


@dataclass(frozen=True)
class SimulateConfig:
    """Draw a survey of galaxies with exact labels and simulated volunteers, in Galaxy Zoo 2's layout and as flux."""

    out: Path = Path("runs/survey")
    """Folder; it must not hold a survey yet."""
    count: int = 2000
    """Galaxies."""
    size: int = 64
    """Pixels along a side; galaxies fill about the same part of a stamp of any size."""
    seed: int = 0
    """Galaxy number n of a seed is always the same; surveys of different seeds share none."""
    first: int = 0
    """Number of the first galaxy."""
    prevalence: tuple[str, ...] = ()
    """CLASS=SHARE of round, in_between, cigar, edge_on, spiral, barred, ring, merger, dust_lane; the classes that are
    not named share the rest as they are found by default (dust_lane=0.005)."""
    seeing: float = 1.0
    """Full width at half maximum of the point spread function in r, arcsec."""
    pixel_scale: float = 0.396
    """Arcsec; the default is that of SDSS."""
    noise: float = 1.0
    """Sky noise in units of the default, which is 0.013, 0.022 and 0.035 nanomaggies a pixel in g, r and i."""
    volunteers: float = 44.0
    """Mean number of volunteers who see a galaxy."""
    jpeg: bool = True
    """Write pictures beside the flux."""
    workers: int = 1
    """Processes."""

    def check(self) -> None:
        """Refuse numbers that make no sense.

        Raises
        ------
        InputError
            Naming the option and its value.
        """
        for name, low in (("count", 1), ("size", 16), ("seed", 0), ("first", 0), ("workers", 1)):
            if getattr(self, name) < low:
                raise InputError(f"--{name} {getattr(self, name)}", remedy=f"Use {low} or more.")
        if self.size > 1024 or self.size % 2:
            raise InputError(f"--size {self.size}", remedy="Use an even number up to 1024.")
        for name in ("seeing", "pixel_scale", "volunteers"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}", remedy="Use a number above 0.")
        pixels = self.seeing / self.pixel_scale
        if not 0.5 <= pixels <= self.size / 4:
            raise InputError(
                f"--seeing {self.seeing} is {pixels:.3g} pixels",
                remedy=f"Use 0.5 to {self.size / 4:g} pixels of --pixel-scale {self.pixel_scale} arcsec.",
            )
        if not 0 <= self.noise < math.inf:
            raise InputError(f"--noise {self.noise}", remedy="Use 0 or more.")
        if self.seed >= 10_000_000 or self.first + self.count > 100_000_000:
            raise InputError(
                f"--seed {self.seed} --first {self.first} --count {self.count}",
                remedy="Object ids have room for seeds below 10 million and 100 million galaxies each.",
            )
        shares_of(self.prevalence)


def shares_of(given: Sequence[str]) -> dict[str, float]:
    """Share of each class, from words CLASS=SHARE.

    Classes that are not named share what is left in proportion to :data:`PREVALENCES`; where all are named, or the
    named ones add up to 1, nothing is left.

    Raises
    ------
    InputError
        For an unknown or repeated class, a share that is not in [0, 1], or shares that add up to more than 1, or to
        less where all classes are named.
    """
    named: dict[str, float] = {}
    for name, value in assignments(given, "--prevalence", "CLASS").items():
        word = f"{name}={value}"
        if name not in PREVALENCES:
            raise InputError(f"--prevalence {word}", remedy=f"Give CLASS=SHARE, each once, of {', '.join(CLASSES)}.")
        try:
            named[name] = float(value)
        except ValueError:
            named[name] = math.nan
        if not 0 <= named[name] <= 1:
            raise InputError(f"--prevalence {word}", remedy="A share is a number from 0 to 1.")
    left = 1 - sum(named.values())
    others = {name: share for name, share in PREVALENCES.items() if name not in named}
    if left < -1e-9 or (left > 1e-9 and not others):
        raise InputError(f"--prevalence adds up to {1 - left:g}", remedy="Shares add up to 1.")
    scale = max(left, 0.0) / sum(others.values()) if others else 0.0
    return {name: named.get(name, PREVALENCES[name] * scale) for name in CLASSES}

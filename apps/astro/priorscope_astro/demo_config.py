"""What ``priorscope astro demo`` can be told. Needs neither torch nor astropy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: The small model that comes with the package.
BUNDLED = "tiny-galaxies"
BUNDLED_FOLDER = Path(__file__).parent / "models" / BUNDLED


@dataclass(frozen=True)
class DemoConfig:
    """Simulate a small survey, plan its rarest class, draw galaxies of it, and compare them, with a report."""

    out: Path = Path("runs/demo")
    """Run folder; replaced if a demo made it. The report is out/report.html."""
    model: str = BUNDLED
    """A small model of flux with the simulated survey's bands, its run folder or model folder."""
    rare: str = "dust_lane"
    """The class that is drawn."""
    images: int = 48
    """How many are drawn."""
    galaxies: int = 1000
    """Of the simulated survey; an eighth of them of the rare class, so that there is something to compare with."""
    classifier_steps: int = 200
    """Optimiser steps of each of the three small classifiers that are trained to look for the class."""
    steps: int = 20
    """Of the sampler."""
    seed: int = 0
    device: str = "auto"
    """auto, cpu, cuda, cuda:N."""

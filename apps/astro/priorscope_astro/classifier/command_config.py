"""What ``priorscope astro train-classifier`` can be told. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from priorscope.errors import InputError
from priorscope_astro.classifier.config import ClassifierConfig


@dataclass(frozen=True, kw_only=True)
class TrainClassifierConfig(ClassifierConfig):
    """Train a galaxy classifier on real galaxies alone: what `evaluate` and `generate` take as --classifier."""

    data: tyro.conf.Positional[Path]
    """A simulated survey's folder, flux stamps (.npz, .h5, FITS), or galaxies in a public layout: Galaxy Zoo 2's tables
    and JPEGs, Galaxy10 DECaLS (.h5), Zoobot's galaxy-datasets (parquet), pairs of NAME.jpg and NAME.txt (GalaxySD)."""
    out: Path = Path("runs/classifier")
    """Run folder; the classifier is out/model, what to look at is out/report.html."""
    mode: Literal["flux", "display"] = "flux"
    """flux: stamps, shown as `evaluate` shows them; display: 8-bit RGB."""
    splits: Path | None = None
    """A table that says which galaxies belong to train, validation and test (`plan` writes one): only train is learnt,
    validation is looked at. Default: a tenth, 256 at most, is held out at random."""
    side: int = 64
    """Pixels of the images. Stamps are cut to it (take that of the generated ones), displays resized."""
    head: Literal["votes", "classes"] = "votes"
    """votes: counts of volunteers at every question of the Galaxy Zoo 2 tree, by the Dirichlet-multinomial likelihood,
    as Zoobot; classes: one of several classes."""
    id_column: str = ""
    """Column of the object ids, of a table."""
    class_column: str = ""
    """Column of class names. Default: classes of the layout, else by votes, see --classes."""
    classes: str = ""
    """Classes by tags of the Galaxy Zoo 2 tree, also where the data has its own: gz2, or a JSON file. Take what the
    plan was made with."""
    cuts: str = "majority"
    """Which questions have enough votes; as for `plan`."""
    agreement: float = 0.5
    """Smallest share of votes for an answer that decides a class."""

    def check(self) -> None:
        """Refuse settings that make no sense.

        Raises
        ------
        InputError
            Naming the option and its value.
        """
        super().check()
        unit = 2 ** len(self.widths)
        if self.side < 8 or self.side % unit:
            raise InputError(f"--side {self.side}", remedy=f"Use 8 or more, a multiple of {unit} with these --widths.")
        if not 0 <= self.agreement <= 1:
            raise InputError(f"--agreement {self.agreement}", remedy="Use a share from 0 to 1.")
        for name in ("class_column", "classes", "cuts", "agreement"):
            if self.head == "votes" and getattr(self, name) != getattr(TrainClassifierConfig, name):
                option = f"--{name.replace('_', '-')}"
                raise InputError(f"{option} with --head votes", remedy="Use --head classes, or leave it out.")

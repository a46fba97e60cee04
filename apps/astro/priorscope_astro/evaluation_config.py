"""What ``priorscope astro evaluate`` can be told. Needs neither torch nor astropy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from priorscope.errors import InputError
from priorscope_astro.assignments import assignments


@dataclass(frozen=True)
class EvaluateConfig:
    """Compare generated galaxies with real ones: distances, shapes, sky, copies, what a classifier finds."""

    generated: tyro.conf.Positional[Path]
    """What `generate` wrote: its run folder or catalogue. Or galaxies in any layout that the real ones may have."""
    real: tyro.conf.Positional[Path]
    """Real galaxies: Galaxy Zoo 2, Galaxy10 DECaLS, galaxy-datasets, image-text pairs, a simulated survey, stamps
    (.npz, .h5, FITS)."""
    out: Path = Path("runs/evaluate")
    """Run folder; what to look at is out/report.html."""
    splits: Path | None = None
    """The splits that the model was trained with. Default: those of the plan that was drawn, where they can be found.
    Without any, generated galaxies are compared with all real ones, and nothing is said about copies."""
    against: Literal["held-out", "test", "all"] = "held-out"
    """Which real galaxies: those of validation and test, of test alone, or all."""
    accepted_only: bool = False
    """Only generated galaxies that the catalogue calls accepted."""
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
    features: str = "auto"
    """Space of KID, FID and PRDC: classifier (features of --classifier), morphology (C, A, S, Gini, M20), or
    MODULE:FUNCTION of your own, which gets uint8 [N, H, W, 3] and gives [N, D]. auto: classifier where there is one."""
    classifier: Path | None = None
    """A galaxy classifier (its run folder or model folder) that was never trained on generated images."""
    train_classifiers: bool = False
    """Train three here, on the real training galaxies, on these with every class equally often, and with the generated
    ones added (as many as --per-class lets in); the first is --classifier where none is given."""
    classifier_steps: int = 600
    """Optimiser steps of each of them."""
    compare: tuple[str, ...] = ()
    """NAME=FOLDER of further classifiers, such as trainings with focal loss: measured on the same test galaxies."""
    rare: str = ""
    """The class that is searched for. Default: of the generated classes the one with the fewest real galaxies."""
    prevalence: tuple[str, ...] = ()
    """CLASS=SHARE in nature, where the real galaxies are not as found on the sky; classes that are not named share the
    rest as the real galaxies have it."""
    purity: float = 0.9
    """Completeness is given at this purity, with the threshold set on the validation galaxies."""
    best: tuple[int, ...] = (10, 30, 100)
    """Purity among so many of the highest score."""
    sersic: bool = True
    """Fit Sersic profiles (flux only)."""
    per_class: int = 500
    """At most so many real and generated galaxies of a class are compared; 0: all."""
    side: int = 0
    """Pixels that pictures are resized to; 0: those of the generated ones, at most 128. Flux is never resized."""
    repeats: int = 50
    """Draws of each interval."""
    gallery: int = 8
    """Galaxies of a class that the report shows."""
    seed: int = 0
    device: str = "auto"
    """auto, cpu, cuda, cuda:N."""

    def check(self) -> None:
        """Refuse numbers that make no sense, and options that change nothing.

        Raises
        ------
        InputError
            Naming the option and its value.
        """
        for name, least in (("classifier_steps", 1), ("per_class", 0), ("side", 0), ("repeats", 10), ("gallery", 1)):
            if getattr(self, name) < least:
                value = getattr(self, name)
                raise InputError(f"--{name.replace('_', '-')} {value}", remedy=f"Use {least} or more.")
        if not 0 < self.purity <= 1:
            raise InputError(f"--purity {self.purity}", remedy="Use a share above 0, at most 1.")
        if not self.best or min(self.best) < 1:
            raise InputError(f"--best {' '.join(map(str, self.best))}", remedy="Use numbers of 1 or more.")
        assignments(self.compare, "--compare")
        shares(self.prevalence)
        if self.features == "classifier" and self.classifier is None and not self.train_classifiers:
            raise InputError("--features classifier without a classifier", remedy="Give --classifier.")
        if self.classifier_steps != EvaluateConfig.classifier_steps and not self.train_classifiers:
            raise InputError("--classifier-steps goes with --train-classifiers")
        searches = self.train_classifiers or self.classifier is not None or self.compare
        for name in ("prevalence", "purity", "best"):
            if not searches and getattr(self, name) != getattr(EvaluateConfig, name):
                raise InputError(
                    f"--{name} without a classifier",
                    remedy="Give --classifier, --compare or --train-classifiers: nothing is searched for without.",
                )


def shares(words: tuple[str, ...]) -> dict[str, float]:
    """CLASS=SHARE words as a mapping.

    Raises
    ------
    InputError
        A share outside [0, 1], or more than 1 in all.
    """
    found = {}
    for name, value in assignments(words, "--prevalence").items():
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not 0 <= found[name] <= 1:
            raise InputError(f"--prevalence {name}={value}", remedy="A share is a number from 0 to 1.")
    if sum(found.values()) > 1 + 1e-9:
        raise InputError(f"--prevalence adds up to {sum(found.values()):g}", remedy="Shares add up to 1 at most.")
    return found

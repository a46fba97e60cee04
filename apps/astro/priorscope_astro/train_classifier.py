"""``priorscope astro train-classifier``: real galaxies as pictures with votes or classes, and the core's loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from priorscope.errors import InputError
from priorscope.training.loop import FitResult
from priorscope_astro.classifier.command_config import TrainClassifierConfig
from priorscope_astro.classifier.examples import Examples
from priorscope_astro.classifier.train import train_classifier
from priorscope_astro.data.anything import holds_flux, read_flux, read_galaxies, refuse_columns
from priorscope_astro.data.galaxies import GalaxySet
from priorscope_astro.evaluation.look import Look, look_of, pictures_of
from priorscope_astro.evaluation.sample import Real, Survey, survey_of
from priorscope_astro.labels import class_settings, label, refuse_unused
from priorscope_astro.train import divided

#: Galaxies that are read at a time.
_BLOCK = 256


def train(config: TrainClassifierConfig) -> FitResult:
    """Train, or go on training, as ``config`` says; the model folder is ``out/model``.

    All pictures are held in memory, 3 side^2 bytes each.

    Raises
    ------
    InputError
        For options that do not fit together, data that cannot be read, that has no votes or classes, and a folder that
        cannot be written.
    """
    config.check()
    galaxies, survey = _read(config)
    for note in galaxies.notes:
        print(note)
    if config.head == "votes" and galaxies.votes is None:
        raise InputError("has no votes", path=config.data, remedy="Use --head classes.")
    if config.head == "classes":
        settings = class_settings(config.data, config)
        refuse_unused(galaxies, settings)
        galaxies = label(galaxies, settings)
        assert galaxies.labels is not None
        galaxies = galaxies.select(np.array([bool(name) for name in galaxies.labels], bool))
    learnt, looked_at = divided(galaxies, config.splits, config.loop.seed, config.data)
    look = look_of(Real(galaxies, survey, config.side)) if config.mode == "flux" else None
    classes = tuple(sorted(set(learnt.labels or ()))) if config.head == "classes" else ()
    examples = _examples(learnt, survey, look, config.side, classes)
    held_out = None if looked_at is None else _examples(looked_at, survey, look, config.side, classes)
    return train_classifier(examples, config, config.out, held_out=held_out)


def _read(config: TrainClassifierConfig) -> tuple[GalaxySet, Survey]:
    if config.mode == "flux":
        if config.data.exists() and not holds_flux(config.data):
            raise InputError("holds no flux", path=config.data, remedy="Pictures are learnt with --mode display.")
        refuse_columns(config.data, "stamps", config.class_column, config.id_column)
        stamps = read_flux(config.data)
        return stamps.galaxies(), survey_of(stamps)
    galaxies = read_galaxies(config.data, mode="display", label_column=config.class_column, ids=config.id_column)
    if galaxies.mode != "display":
        raise InputError("holds flux, not pictures", path=config.data, remedy="Use --mode flux.")
    if galaxies.images is None:
        raise InputError("has no images", path=config.data, remedy="Give the folder that holds table and pictures.")
    return galaxies, Survey()


def _examples(galaxies: GalaxySet, survey: Survey, look: Look | None, side: int, classes: tuple[str, ...]) -> Examples:
    """Pictures with votes, or with classes where there are some: galaxies of others are left out."""
    if classes:
        assert galaxies.labels is not None
        galaxies = galaxies.select(np.array([name in classes for name in galaxies.labels], bool))
    real = Real(galaxies, survey, side)
    images = np.empty((len(galaxies), 3, side, side), np.uint8)
    for first in range(0, len(galaxies), _BLOCK):
        rows = range(first, min(first + _BLOCK, len(galaxies)))
        images[rows.start : rows.stop] = np.moveaxis(pictures_of(real.sample(rows), look), -1, 1)
    known: dict[str, Any] = {}
    if classes:
        assert galaxies.labels is not None
        known = {"labels": np.array([classes.index(name) for name in galaxies.labels], np.int64), "classes": classes}
    else:
        assert galaxies.votes is not None
        known = {"counts": np.asarray(galaxies.votes.counts, np.int64)}
    return Examples(images, galaxies.ids, **known)


def main(arguments: list[str] | None = None) -> Path:
    """``python -m priorscope_astro.train_classifier``, for ``accelerate launch``."""
    import tyro

    return train(tyro.cli(TrainClassifierConfig, args=arguments)).model


if __name__ == "__main__":
    import sys

    from priorscope.cli import run_training

    sys.exit(run_training(main, app="astro"))

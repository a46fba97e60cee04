"""Classifiers that differ in what they learnt: real galaxies, these with every class equally often, and generated ones.

The second is there because generated galaxies also make their class more frequent: where it does as well as the third,
the frequency has helped and not the galaxies.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from priorscope.errors import InputError
from priorscope.training.settings import LoopConfig
from priorscope_astro.classifier.config import ClassifierConfig
from priorscope_astro.classifier.examples import Examples
from priorscope_astro.classifier.train import train_classifier
from priorscope_astro.evaluation.look import Look, pictures_of
from priorscope_astro.evaluation.sample import Sample

#: What the classifiers are called.
ARMS = ("real", "real, balanced", "real + generated")
_SIDE_UNIT = 8


def examples_of(sample: Sample, look: Look | None, classes: tuple[str, ...]) -> Examples:
    """Pictures and classes for the classifier; galaxies of other classes are left out.

    Raises
    ------
    InputError
        A side that the network cannot halve three times.
    """
    rows = [row for row, label in enumerate(sample.labels) if label in classes]
    chosen = sample.select(rows)
    if chosen.side % _SIDE_UNIT:
        raise InputError(
            f"pictures of {chosen.side} pixels cannot be classified", remedy=f"Use a multiple of {_SIDE_UNIT}."
        )
    images = np.moveaxis(pictures_of(chosen, look), -1, 1)
    labels = np.array([classes.index(label) for label in chosen.labels], np.int64)
    return Examples(np.ascontiguousarray(images), chosen.ids, labels, classes)


def train_arms(
    train: Sample,
    validation: Sample,
    generated: Sample | None,
    look: Look | None,
    out: Path,
    *,
    steps: int,
    seed: int,
    device: str,
) -> dict[str, Path]:
    """Train :data:`ARMS`: on real galaxies, on these with classes balanced, and on these with generated ones.

    The last only where there are some. All see as many batches, of the same size. The classes are
    those of the real training galaxies.

    Returns
    -------
    dict
        Name -> model folder.

    Raises
    ------
    InputError
        Fewer than two classes, a side that does not fit, or a training that a signal has stopped.
    """
    classes = tuple(sorted({label for label in train.labels if label}))
    if len(classes) < 2:
        raise InputError(f"the training galaxies have the classes {list(classes)}", remedy="Two or more are needed.")
    learnt = examples_of(train, look, classes)
    held_out = examples_of(validation, look, classes)
    # as many halvings as the side allows, four at most
    widths = (16, 32, 64, 128)[: 4 if train.side % 16 == 0 else 3]
    loop = LoopConfig(
        steps=steps,
        batch_size=min(64, max(8, len(learnt) // 4)),
        lr=2e-3,
        warmup=min(50, steps // 10),
        ema=0.99 if steps >= 400 else 0.9,
        weight_decay=0.05,
        validate_every=max(1, steps // 3),
        checkpoint_every=steps,
        log_every=max(1, steps // 3),
        device=device,
        seed=seed,
    )
    config = ClassifierConfig(widths=widths, loop=loop)
    balanced = replace(config, sampling="balanced")
    real, even, both = ARMS
    arms = {real: (learnt, config), even: (learnt, balanced)}
    if generated is not None:
        more = examples_of(generated, look, classes)
        if len(more):
            arms[both] = learnt.joined(more), config
    models = {}
    for name, (examples, how) in arms.items():
        folder = out / name.replace(" + ", "-and-").replace(", ", "-")
        result = train_classifier(examples, how, folder, held_out=held_out if len(held_out) else None)
        if not result.finished:
            raise InputError(
                f"the training of the classifier {name!r} was stopped at step {result.step} of {steps}: nothing is "
                "compared with it",
                path=folder,
                remedy="Give the same command with another --out.",
            )
        models[name] = result.model
    return models

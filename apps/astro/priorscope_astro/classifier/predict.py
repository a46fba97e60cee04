"""Asking a trained classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_astro.classifier.network import GalaxyClassifier
from priorscope_astro.conditions.tree import ANSWER, ANSWERS, path_to


@torch.no_grad()
def predict(model: GalaxyClassifier, images: NDArray[Any], *, batch_size: int = 256) -> NDArray[np.float32]:
    """Probabilities of the classes (N, classes), or expected vote fractions (N, 37) in the tree's order.

    Parameters
    ----------
    model : GalaxyClassifier
        Works where its weights are.
    images : ndarray, (N, C, H, H)
        As it was trained on.
    batch_size : int
        Images at a time; the answers do not depend on it.
    """
    return _in_batches(model, model.probabilities, images, batch_size)


@torch.no_grad()
def features(model: GalaxyClassifier, images: NDArray[Any], *, batch_size: int = 256) -> NDArray[np.float32]:
    """Features (N, D) before the last layer; see :meth:`GalaxyClassifier.features`."""
    return _in_batches(model, model.features, images, batch_size)


def answer_probability(fractions: NDArray[Any], answer: str) -> NDArray[Any]:
    """The expected share of all volunteers who would give an answer, (N,): the score of a rare-object search.

    Shares of a question are those among the people who were asked it; this multiplies them along the path from the
    first question.

    Parameters
    ----------
    fractions : ndarray, (N, 37)
        From :func:`predict` of a head for votes.
    answer : str
        Such as ``t08_odd_feature_a38_dust_lane``.

    Raises
    ------
    InputError
        For an unknown answer, or fractions of another shape.
    """
    if answer not in ANSWER:
        raise InputError(f"there is no answer {answer!r}", remedy="priorscope_astro.conditions.tree lists them.")
    if fractions.ndim != 2 or fractions.shape[1] != len(ANSWERS):
        raise InputError(f"vote fractions {fractions.shape}", remedy=f"Give (N, {len(ANSWERS)}).")
    share = fractions[:, ANSWERS.index(answer)].copy()
    for names in path_to(ANSWER[answer].question).values():
        share *= fractions[:, [ANSWERS.index(name) for name in names]].sum(1)
    return share


def _in_batches(model: GalaxyClassifier, ask: Any, images: NDArray[Any], batch_size: int) -> NDArray[np.float32]:
    was_training = model.training
    model.eval()
    device = model.head.weight.device
    try:
        parts = [
            ask(torch.from_numpy(np.ascontiguousarray(images[first : first + batch_size])).to(device)).float().cpu()
            for first in range(0, len(images), batch_size)
        ]
    finally:
        model.train(was_training)
    if not parts:
        raise InputError("there are no images to ask about")
    return torch.cat(parts).numpy()

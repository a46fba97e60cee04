"""What a model is not told while it is trained, so that later it may be told any part."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_astro.conditions.condition import CONDITION_SIZE
from priorscope_astro.conditions.tree import ANSWERS, SLICES

#: Share of the questions that are hidden, each by itself, and of the galaxies of which nothing is told.
QUESTION, ALL = 0.1, 0.1


def drop_questions(
    vector: NDArray[np.float32], random: np.random.Generator, *, question: float = QUESTION, everything: float = ALL
) -> NDArray[np.float32]:
    """Hide answers of a condition: whole questions, or all of them.

    Parameters
    ----------
    vector : float32 (74,)
        Shares and flags, see :meth:`priorscope_astro.conditions.Condition.to_vector`.
    random : Generator
    question : float
        Probability that a question is hidden, for each.
    everything : float
        Probability that all are: what guidance without a condition is trained on.

    Returns
    -------
    float32 (74,)
        A new array. A hidden question has neither shares nor flags.

    Raises
    ------
    InputError
        Another shape, or a probability outside [0, 1].
    """
    if vector.shape != (CONDITION_SIZE,):
        raise InputError(f"a condition of shape {list(vector.shape)}", remedy=f"It has {CONDITION_SIZE} numbers.")
    for name, value in (("question", question), ("everything", everything)):
        if not 0 <= value <= 1:
            raise InputError(f"a dropout {name} of {value}", remedy="Use a number from 0 to 1.")
    draws = random.random(1 + len(SLICES))
    if draws[0] < everything:
        return np.zeros_like(vector)
    kept = vector.copy()
    for place, draw in zip(SLICES.values(), draws[1:], strict=True):
        if draw < question:
            kept[place] = 0
            kept[len(ANSWERS) + place.start : len(ANSWERS) + place.stop] = 0
    return kept

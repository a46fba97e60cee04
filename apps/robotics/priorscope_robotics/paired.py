"""Comparing policies on the same episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from priorscope.errors import InputError


@dataclass(frozen=True)
class PairedDifference:
    """How much better the second is."""

    mean: float
    low: float
    """Lower end of the interval; one-sided at the given level."""
    high: float


def paired_difference(
    first: Sequence[float], second: Sequence[float], *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> PairedDifference:
    """Mean of ``second - first`` over paired episodes, with one-sided bounds by the bootstrap over episodes.

    Parameters
    ----------
    first, second : sequence of float
        Scores of the same episodes in the same order.
    level : float
        0.95: the true mean is above ``low`` in 95 of 100 such comparisons.
    draws, seed : int
        Of the bootstrap.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise InputError(f"{a.size} and {b.size} scores cannot be paired")
    differences = b - a
    places = np.random.default_rng(seed).integers(0, len(a), (draws, len(a)))
    means = differences[places].mean(1)
    low, high = np.quantile(means, [1 - level, level])
    return PairedDifference(float(differences.mean()), float(low), float(high))

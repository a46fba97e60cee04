"""How well a classifier finds a class of galaxies: completeness, purity, F1, at natural prevalence.

A test set of a rare class is enriched, or it would hold too few of them to measure anything. All figures here take
weights, and :func:`prevalence_weights` gives those that restore how often each class is found on the sky.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError
from priorscope.evaluation.distributions import Interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """What a threshold finds."""

    completeness: float
    """Share of the objects of the class that are selected (recall); NaN where there are none."""
    purity: float
    """Share of what is selected that is of the class (precision); NaN where nothing is selected."""
    f1: float
    """Harmonic mean of both; 0 where nothing of the class is selected, NaN where there is none of it."""
    selected: int
    """Objects selected, counted without weights."""
    threshold: float


def found(truth: ArrayLike, selected: ArrayLike, weights: ArrayLike | None = None) -> Found:
    """Completeness, purity and F1 of a selection.

    Parameters
    ----------
    truth : array-like of bool, (N,)
        Which objects are of the class.
    selected : array-like of bool, (N,)
    weights : array-like, (N,), optional
        Of each object, above or at 0; see :func:`prevalence_weights`.

    Returns
    -------
    Found
        With a threshold of NaN.

    Raises
    ------
    InputError
        For arrays of different lengths, or weights below 0 or not finite.
    """
    is_class, chosen, weight = _checked(np.asarray(truth, bool), np.asarray(selected, bool), weights)
    right, of_class, taken = (float(weight[some].sum()) for some in (is_class & chosen, is_class, chosen))
    return Found(
        completeness=right / of_class if of_class > 0 else np.nan,
        purity=right / taken if taken > 0 else np.nan,
        f1=2 * right / (of_class + taken) if of_class > 0 else np.nan,
        selected=int(chosen.sum()),
        threshold=np.nan,
    )


def found_above(scores: ArrayLike, truth: ArrayLike, threshold: float, weights: ArrayLike | None = None) -> Found:
    """As :func:`found`, for objects whose score is at least ``threshold``.

    Parameters
    ----------
    scores : array-like, (N,)
        Higher means more likely of the class; finite.
    truth, weights
        As in :func:`found`.
    threshold : float
        May be infinite: nothing is selected.
    """
    score = _scores(scores)
    return replace(found(truth, score >= threshold, weights), threshold=float(threshold))


def prevalence_weights(labels: ArrayLike, prevalences: Mapping[Any, float]) -> Array:
    """Weights that give each class of a sample the share it has in nature.

    Parameters
    ----------
    labels : array-like, (N,)
        Class of each object.
    prevalences : mapping
        Class -> share in nature; shares add up to 1. A class without an object in the sample may only have share 0.

    Returns
    -------
    ndarray of float64, (N,)
        With mean 1; the weights of class c add up to ``N * prevalences[c]``.

    Raises
    ------
    InputError
        For shares that do not add up to 1, a class without a share, or one that the sample lacks.
    """
    classes, place, count = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    known = classes.tolist()
    shares = dict(prevalences)
    if any(not share >= 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(f"prevalences add up to {sum(shares.values()):g}", remedy="Give shares, 1 in all.")
    strange = [name for name in known if name not in shares]
    missing = [name for name, share in shares.items() if share > 0 and name not in known]
    if strange or missing:
        name = (strange or missing)[0]
        what = "has no prevalence" if strange else "has a prevalence and no object in the sample"
        raise InputError(f"class {name!r} {what}", remedy="Name exactly the classes of the sample.")
    wanted = np.array([shares[name] for name in known])
    return (wanted / count * len(place))[place]


@dataclass(frozen=True)
class Curve:
    """Completeness and purity over all thresholds that tell the objects apart, from strict to loose."""

    thresholds: Array
    completeness: Array
    purity: Array
    """NaN where all selected objects have weight 0."""


def purity_curve(scores: ArrayLike, truth: ArrayLike, weights: ArrayLike | None = None) -> Curve:
    """The purity-completeness curve: one point a distinct score.

    Parameters
    ----------
    scores, truth, weights
        As in :func:`found_above`.

    Raises
    ------
    InputError
        Where no object is of the class (or all of them have weight 0).
    """
    is_class, score, weight = _checked(np.asarray(truth, bool), _scores(scores), weights)
    total = float(weight[is_class].sum())
    if not total > 0:
        raise InputError("no object of the sample is of the class", remedy="Take a sample that holds some.")
    order = np.argsort(-score, kind="stable")
    right, all_of_them = np.cumsum((weight * is_class)[order]), np.cumsum(weight[order])
    last = np.append(score[order][1:] != score[order][:-1], True)  # objects of equal score stand or fall together
    with np.errstate(invalid="ignore"):
        purity = right[last] / all_of_them[last]
    return Curve(score[order][last], right[last] / total, purity)


def threshold_at_purity(scores: ArrayLike, truth: ArrayLike, purity: float, weights: ArrayLike | None = None) -> float:
    """The loosest threshold at which a sample reaches a purity; infinite where none does.

    Set it on a validation sample and use it on another one: :func:`completeness_at_purity`.

    Parameters
    ----------
    scores, truth, weights
        As in :func:`found_above`.
    purity : float
        In (0, 1].
    """
    if not 0 < purity <= 1:
        raise InputError(f"a purity of {purity:g}", remedy="Give a share above 0, at most 1.")
    curve = purity_curve(scores, truth, weights)
    enough = np.flatnonzero(curve.purity >= purity - 1e-12)
    # of thresholds with equal completeness the strictest would do; the loosest has the best completeness
    return float(curve.thresholds[enough[-1]]) if len(enough) else float("inf")


def completeness_at_purity(
    validation: tuple[ArrayLike, ArrayLike, ArrayLike | None],
    test: tuple[ArrayLike, ArrayLike, ArrayLike | None],
    purity: float = 0.9,
) -> Found:
    """What is found in a test sample at the threshold that reaches ``purity`` in a validation sample.

    Parameters
    ----------
    validation, test : tuple
        Scores, truth and weights (or None), as in :func:`found_above`.
    purity : float
        Wanted; the test sample's own purity is in the result.

    Returns
    -------
    Found
        Completeness 0 and purity NaN where the validation sample never reaches that purity.
    """
    threshold = threshold_at_purity(validation[0], validation[1], purity, validation[2])
    return found_above(test[0], test[1], threshold, test[2])


def purity_at(scores: ArrayLike, truth: ArrayLike, k: int, weights: ArrayLike | None = None) -> float:
    """Share of objects of the class among the ``k`` of highest score: what a rare-object search yields.

    Objects that tie for the last places count with the share of them that fits (the mean over their orders).

    Parameters
    ----------
    scores, truth
        As in :func:`found_above`.
    k : int
        From 1 to the size of the sample.
    weights : array-like, (N,), optional
        An object of weight w stands for w objects: with :func:`prevalence_weights` the figure is that of a search
        among N objects drawn from nature.
    """
    is_class, score, weight = _checked(np.asarray(truth, bool), _scores(scores), weights)
    if not 1 <= k <= weight.sum() * (1 + 1e-9):
        raise InputError(f"the best {k} of {weight.sum():g} objects", remedy="Give 1 up to the size of the sample.")
    values, place = np.unique(-score, return_inverse=True)
    size = np.bincount(place, weight, len(values))
    right = np.bincount(place, weight * is_class, len(values))
    taken = np.clip(k - (np.cumsum(size) - size), 0, size)  # of each group of equal scores
    return float((right * np.divide(taken, size, out=np.zeros_like(size), where=size > 0)).sum() / k)


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of a few independent runs with Student's interval; infinitely wide for one run.

    Parameters
    ----------
    values : sequence of float
        One a run (seed), finite.
    level : float
        In (0, 1).
    """
    from scipy.stats import t

    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise InputError(f"the mean of {sample.tolist()}", remedy="Give one finite figure a run.")
    mean = float(sample.mean())
    if len(sample) == 1:
        return Interval(mean, -np.inf, np.inf)
    half = float(t.ppf((1 + level) / 2, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample)))
    return Interval(mean, mean - half, mean + half)


def share_interval(hits: int, total: int, level: float = 0.95) -> Interval:
    """A share ``hits / total`` with Wilson's interval (E. B. Wilson 1927); NaN and [0, 1] where ``total`` is 0."""
    from scipy.stats import norm

    if not 0 <= hits <= total:
        raise InputError(f"{hits} of {total}", remedy="Give a number of hits from 0 to the total.")
    if not total:
        return Interval(np.nan, 0.0, 1.0)
    share, z = hits / total, float(norm.ppf((1 + level) / 2))
    middle = share + z * z / (2 * total)
    half = z * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    scale = 1 + z * z / total
    # the ends of no hits and of all hits are exact, but for rounding
    low = (middle - half) / scale if hits else 0.0
    return Interval(share, low, (middle + half) / scale if hits < total else 1.0)


def _scores(scores: ArrayLike) -> Array:
    score = np.asarray(scores, np.float64)
    if not np.isfinite(score).all():
        raise InputError(
            f"{int((~np.isfinite(score)).sum())} of {score.size} scores are not finite", remedy="Leave them out."
        )
    return score


def _checked(truth: NDArray[np.bool_], other: NDArray[Any], weights: ArrayLike | None) -> tuple[Any, Any, Array]:
    weight = np.ones(len(truth)) if weights is None else np.asarray(weights, np.float64)
    if truth.ndim != 1 or not truth.shape == other.shape == weight.shape or not len(truth):
        raise InputError(
            f"truth {truth.shape}, scores or selection {other.shape}, weights {weight.shape}",
            remedy="Give one of each an object.",
        )
    if not np.isfinite(weight).all() or (weight < 0).any():
        raise InputError("a weight is below 0 or not finite", remedy="Give weights of 0 or more.")
    return truth, other, weight

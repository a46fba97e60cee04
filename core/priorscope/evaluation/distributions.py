"""How far a set of generated samples is from a set of real ones, in a stated feature space.

Features are arrays (N, D), a row a sample; whoever calls says what they are (a network's features, morphology,
colours): a distance without its feature space means nothing. Nothing here normalises them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError

Features = NDArray[np.float64]
#: Rows of a block of pairwise products: at most _BLOCK x N numbers are held at a time.
_BLOCK = 1024


def fid(real: ArrayLike, generated: ArrayLike) -> float:
    """Fréchet distance of two Gaussians with the sets' means and covariances (Heusel et al. 2017, eq. 6).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), covariances with N - 1. It falls with the number of samples even where
    the distributions stay: compare only sets of equal size, and prefer :func:`kid` below some thousands of samples.

    Parameters
    ----------
    real, generated : array (N, D), (M, D)
        At least two rows each.

    Returns
    -------
    float
        Not negative but for rounding; 0 for equal sets.

    Raises
    ------
    InputError
        Shapes that do not go together, too few rows, values that are not finite.
    """
    one, two = _pair(real, generated, least=2)
    first, second = (np.cov(features, rowvar=False).reshape(2 * features.shape[1:]) for features in (one, two))
    # tr (C1 C2)^(1/2) is the sum of the singular values of C1^(1/2) C2^(1/2): real by construction, unlike sqrtm's
    overlap = np.linalg.svd(_root(first) @ _root(second), compute_uv=False).sum()
    apart = one.mean(0) - two.mean(0)
    return float(apart @ apart + np.trace(first) + np.trace(second) - 2 * overlap)


def kid(
    real: ArrayLike, generated: ArrayLike, *, subsets: int | None = None, subset_size: int = 1000, seed: int = 0
) -> float:
    """Kernel distance: the unbiased estimate of MMD^2 with the kernel (x.y / D + 1)^3 (Binkowski et al. 2018).

    Its expectation does not depend on the number of samples, and is 0 for equal distributions: estimates may be
    negative.

    Parameters
    ----------
    real, generated : array (N, D), (M, D)
        At least two rows each.
    subsets : int, optional
        Take the mean over so many random subsets of each set, drawn without replacement; otherwise all rows are used
        once, which varies least.
    subset_size : int
        Rows of a subset; at most the smaller set's.
    seed : int
        Of the subsets.

    Raises
    ------
    InputError
        As for :func:`fid`; subsets that are larger than the sets.
    """
    one, two = _pair(real, generated, least=2)
    if subsets is None:
        return _mmd(one, two)
    if subsets < 1 or not 2 <= subset_size <= min(len(one), len(two)):
        raise InputError(
            f"{subsets} subsets of {subset_size} of {len(one)} real and {len(two)} generated samples",
            remedy="A subset needs two rows and has at most the smaller set's.",
        )
    rng = np.random.default_rng(seed)
    picks = (
        (rng.choice(len(one), subset_size, replace=False), rng.choice(len(two), subset_size, replace=False))
        for _ in range(subsets)
    )
    return float(np.mean([_mmd(one[i], two[j]) for i, j in picks]))


def prdc(real: ArrayLike, generated: ArrayLike, *, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage by k-nearest-neighbour balls (Naeem et al. 2020, eq. 1-4).

    A ball about a sample has the distance to its k-th neighbour in its own set (itself not counted) as radius; a point
    on the border is outside.

    Parameters
    ----------
    real, generated : array (N, D), (M, D)
        More than ``k`` rows each.
    k : int
        Neighbours.

    Returns
    -------
    dict
        ``precision``: generated samples in at least one real ball; ``recall``: real samples in at least one generated
        ball; ``coverage``: real balls that hold a generated sample; each in [0, 1]. ``density``: real balls a generated
        sample lies in, over k; may be above 1.

    Raises
    ------
    InputError
        As for :func:`fid`.
    """
    if k < 1:
        raise InputError(f"{k} neighbours", remedy="Use k of at least 1.")
    one, two = _pair(real, generated, least=k + 1)
    centre = one.mean(0)  # distances come from products: small numbers lose fewer digits
    one, two = one - centre, two - centre
    real_radius, generated_radius = _radii(one, k), _radii(two, k)
    inside = np.zeros(len(two))
    recalled, covered = 0, 0
    for rows, squared in _squared_distances(one, two):
        within = squared < real_radius[rows, None]
        inside += within.sum(0)
        recalled += int((squared < generated_radius).any(1).sum())
        covered += int(within.any(1).sum())
    return {
        "precision": float((inside > 0).mean()),
        "recall": recalled / len(one),
        "density": float(inside.mean()) / k,
        "coverage": covered / len(one),
    }


def wasserstein(real: ArrayLike, generated: ArrayLike) -> NDArray[np.float64]:
    """Wasserstein-1 distance of each feature's distribution: the area between the two empirical quantile functions.

    Parameters
    ----------
    real, generated : array (N, D), (M, D)
        At least one row each.

    Returns
    -------
    array (D,)
        In the feature's own unit; not negative.

    Raises
    ------
    InputError
        As for :func:`fid`.
    """
    one, two = (np.sort(features, axis=0) for features in _pair(real, generated, least=1))
    # both quantile functions are steps at multiples of 1/N and 1/M: constant between all of these
    edges = np.union1d(np.arange(len(one) + 1) * len(two), np.arange(len(two) + 1) * len(one))
    middles = (edges[1:] + edges[:-1]) / (2 * len(one) * len(two))
    share = np.diff(edges) / (len(one) * len(two))
    apart = one[(middles * len(one)).astype(int)] - two[(middles * len(two)).astype(int)]
    return share @ np.abs(apart)


@dataclass(frozen=True)
class Interval:
    """An estimate from all samples, and the ends of its interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def bootstrap(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    repeats: int = 200,
    level: float = 0.95,
    paired: bool = False,
    replace: bool = True,
    strata: ArrayLike | None = None,
    seed: int = 0,
) -> Interval:
    """Interval of a statistic of one or more sets of samples, by drawing their rows again.

    Parameters
    ----------
    statistic : callable
        ``statistic(*samples)``, a float; draws for which it is NaN are left out.
    *samples : array (N, ...)
        Rows are drawn from each set on its own.
    repeats : int
        Draws.
    level : float
        Part of the draws inside, in (0, 1).
    paired : bool
        The sets' rows belong together (labels and scores): all get the same draw.
    replace : bool
        The bootstrap (percentiles of draws of N with replacement). Statistics of pairs and neighbours (:func:`kid`,
        :func:`prdc`, :func:`fid`) take a row that comes twice for a perfect neighbour: give them False, which draws
        halves without replacement. A half varies about the whole's value as the whole does about the truth (delete-half
        jackknife, Shao and Wu 1989), and the halves' bias is taken off by their mean.
    strata : array (N,), optional
        Of paired sets drawn with replacement: a group a row; every draw has as many of each group as the sets have.
    seed : int
        Of the draws.

    Returns
    -------
    Interval
        Its ends are NaN where all draws are.

    Raises
    ------
    InputError
        No samples, no draws, a level outside (0, 1), paired sets of different length, halves of fewer than 4 rows,
        strata that do not fit or of sets that are not paired.
    """
    sets = [np.asarray(sample) for sample in samples]
    lengths = [len(rows) for rows in sets]
    least = 1 if replace else 4
    if not sets or min(lengths) < least:
        raise InputError(f"an interval from sets of {lengths} rows", remedy=f"Each needs at least {least}.")
    if repeats < 1 or not 0 < level < 1:
        raise InputError(f"an interval at level {level} from {repeats} draws", remedy="Use a level within (0, 1).")
    if paired and len(set(lengths)) > 1:
        raise InputError(f"paired sets have {lengths} rows", remedy="Give rows that belong together, or paired=False.")
    groups = None
    if strata is not None:
        place = np.unique(np.asarray(strata), return_inverse=True)[1]
        if not paired or not replace or place.shape != (lengths[0],):
            raise InputError(
                f"{len(place)} strata for sets of {lengths} rows",
                remedy="Give one a row, of paired sets that are drawn with replacement.",
            )
        groups = [np.flatnonzero(place == group) for group in range(place.max() + 1)]
    rng = np.random.default_rng(seed)

    def draw(length: int) -> NDArray[np.intp]:
        if groups is not None:
            return np.concatenate([rng.choice(group, len(group)) for group in groups])
        return rng.choice(length, length if replace else length // 2, replace=replace)

    drawn = np.empty(repeats)
    for repeat in range(repeats):
        rows = [draw(lengths[0])] * len(sets) if paired else [draw(length) for length in lengths]
        drawn[repeat] = statistic(*(sample[index] for sample, index in zip(sets, rows, strict=True)))
    estimate = float(statistic(*sets))
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Interval(estimate, math.nan, math.nan)
    if not replace:
        drawn += estimate - drawn.mean()
    low, high = np.quantile(drawn, ((1 - level) / 2, (1 + level) / 2))
    return Interval(estimate, float(low), float(high))


def _pair(real: ArrayLike, generated: ArrayLike, *, least: int) -> tuple[Features, Features]:
    pair = np.asarray(real, dtype=np.float64), np.asarray(generated, dtype=np.float64)
    for name, features in zip(("real", "generated"), pair, strict=True):
        if features.ndim != 2 or features.shape[1] < 1:
            raise InputError(f"{name} features of shape {features.shape}", remedy="Give an array (N, D).")
        if len(features) < least:
            raise InputError(f"{len(features)} {name} samples", remedy=f"This needs at least {least}.")
        bad = int((~np.isfinite(features)).any(1).sum())
        if bad:
            raise InputError(f"{bad} of {len(features)} {name} samples have features that are not finite")
    if pair[0].shape[1] != pair[1].shape[1]:
        raise InputError(
            f"{pair[0].shape[1]} features of the real and {pair[1].shape[1]} of the generated samples",
            remedy="Take both in the same feature space.",
        )
    return pair


def _root(covariance: Features) -> Features:
    """Symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def _mmd(one: Features, two: Features) -> float:
    n, m = len(one), len(two)
    within = (_kernel_sum(one, one) - _kernel_diagonal(one)) / (n * (n - 1))
    within += (_kernel_sum(two, two) - _kernel_diagonal(two)) / (m * (m - 1))
    return within - 2 * _kernel_sum(one, two) / (n * m)


def _kernel_sum(one: Features, two: Features) -> float:
    blocks = (one[start : start + _BLOCK] @ two.T for start in range(0, len(one), _BLOCK))
    return math.fsum(float(((block / one.shape[1] + 1) ** 3).sum()) for block in blocks)


def _kernel_diagonal(features: Features) -> float:
    return float((((features**2).sum(1) / features.shape[1] + 1) ** 3).sum())


def _squared_distances(one: Features, two: Features) -> Iterator[tuple[slice, Features]]:
    """Blocks of rows of the squared distances from ``one`` to ``two``, with the rows they belong to."""
    lengths = (two**2).sum(1)
    for start in range(0, len(one), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(one)))
        block = one[rows]
        yield rows, ((block**2).sum(1)[:, None] + lengths - 2 * block @ two.T).clip(0)


def _radii(features: Features, k: int) -> Features:
    """Squared distance of each row to its k-th neighbour among the others."""
    radii = np.empty(len(features))
    for rows, squared in _squared_distances(features, features):
        squared[np.arange(len(squared)), np.arange(rows.start, rows.stop)] = np.inf
        radii[rows] = np.partition(squared, k - 1, axis=1)[:, k - 1]
    return radii

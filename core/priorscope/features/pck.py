"""Percentage of correct key points, in the three conventions that published numbers are given in.

They differ in where points are compared and how strictly, so numbers of different conventions are not compared:

=============  ================================  ====================================  ==============
convention     compared in                       threshold                             pooled over
=============  ================================  ====================================  ==============
DIFT           the target image's pixels         <= alpha * longer side of the box     images, points
sd-dino        a padded 840-pixel square         <  alpha * longer side of the box     points
Hyperfeatures  the load size (64 x 64 there)     <= alpha * longer side of box, image  points
=============  ================================  ====================================  ==============

The box is the target's (left, top, right, bottom), and its sides are differences, without + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError


def longer_side(box: Sequence[float]) -> float:
    """Longer side of a box (left, top, right, bottom)."""
    left, top, right, bottom = box
    if not (right > left and bottom > top):
        raise InputError(f"an empty box {tuple(box)}", remedy="Give (left, top, right, bottom).")
    return float(max(right - left, bottom - top))


def rescale_points(points: ArrayLike, size: tuple[int, int], new_size: tuple[int, int]) -> NDArray[np.float64]:
    """Points (N, 2), as (x, y), of an image of ``size`` (height, width) in one of ``new_size``: a plain factor.

    That is what Hyperfeatures does; it holds for pixel corners, not for pixel centres.
    """
    factor = np.array([new_size[1] / size[1], new_size[0] / size[0]])
    return np.asarray(points, dtype=np.float64) * factor


def correct(
    predicted: ArrayLike, true: ArrayLike, size: float, alpha: float = 0.1, *, strict: bool = False
) -> NDArray[np.bool_]:
    """Which predicted points lie within ``alpha * size`` of the true ones.

    Parameters
    ----------
    predicted, true : array [N, 2]
    size : float
        Longer side of the box or of the image, in the unit of the points.
    alpha : float
    strict : bool
        ``<`` (sd-dino) instead of ``<=`` (DIFT, Hyperfeatures).

    Returns
    -------
    bool array [N]
    """
    predicted, true = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if predicted.shape != true.shape or predicted.ndim != 2 or predicted.shape[1] != 2:
        raise InputError(f"predicted points of shape {predicted.shape} for true ones of shape {true.shape}")
    if not (np.isfinite(predicted).all() and np.isfinite(true).all() and size > 0 and alpha > 0):
        raise InputError(f"points with NaN, or size {size} or alpha {alpha} that is not positive")
    distance = np.hypot(*(predicted - true).T)
    return distance < alpha * size if strict else distance <= alpha * size


@dataclass(frozen=True)
class PCK:
    """Fractions of correct points in [0, 1].

    Attributes
    ----------
    per_point : float
        All points pooled.
    per_image : float
        Mean over pairs of each pair's fraction.
    pairs, points : int
        How many of each.
    """

    per_point: float
    per_image: float
    pairs: int
    points: int


def pck(pairs: Sequence[NDArray[np.bool_]]) -> PCK:
    """Reduce the outcome of several pairs, one bool array [N_i] a pair; pairs without points are left out."""
    counted = [np.asarray(pair) for pair in pairs if len(pair)]
    if not counted:
        raise InputError("no key point to count")
    return PCK(
        float(np.concatenate(counted).mean()),
        float(np.mean([pair.mean() for pair in counted])),
        len(counted),
        sum(len(pair) for pair in counted),
    )


def pck_by_category(
    pairs: Sequence[NDArray[np.bool_]], categories: Sequence[str], *, overall: str = "all"
) -> dict[str, PCK]:
    """:func:`pck` of each category, in order of first appearance, and of all pairs under the name ``overall``."""
    if len(pairs) != len(categories):
        raise InputError(f"{len(pairs)} pairs with {len(categories)} categories")
    table = {
        name: pck([pair for pair, its in zip(pairs, categories, strict=True) if its == name])
        for name in dict.fromkeys(categories)
    }
    if overall in table:
        raise InputError(f"a category is called {overall!r}", remedy="Choose another name for the total.")
    return {**table, overall: pck(pairs)}


def macro_average(table: dict[str, PCK], *, overall: str = "all", weights: dict[str, float] | None = None) -> float:
    """Mean over categories of the per-point PCK, plain or with given weights (sd-dino prints both)."""
    names = [name for name in table if name != overall]
    factors = np.array([1.0 if weights is None else weights[name] for name in names])
    return float(np.average([table[name].per_point for name in names], weights=factors))

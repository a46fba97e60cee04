"""KID, FID and PRDC in a stated feature space, at equal numbers, class by class and overall."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.evaluation.distributions import Interval, bootstrap, fid, kid, prdc

#: Neighbours of PRDC, and fewest galaxies of a class that are compared.
NEIGHBOURS, LEAST = 5, 24
OVERALL = "overall"
_SHOWN: dict[str, Callable[[Any, Any], float]] = {
    "KID": kid,
    "FID": fid,
    **{
        name: lambda real, generated, name=name: prdc(real, generated, k=NEIGHBOURS)[name]  # type: ignore[misc]
        for name in ("precision", "recall", "density", "coverage")
    },
}
FIGURES = tuple(_SHOWN)


def own_function(place: str) -> Callable[[NDArray[np.uint8]], Any]:
    """The user's function of ``MODULE:FUNCTION``.

    Raises
    ------
    InputError
        No such module or function.
    """
    module, _, name = place.partition(":")
    if not module or not name:
        raise InputError(f"--features {place}", remedy="Use auto, classifier, morphology or MODULE:FUNCTION.")
    try:
        ask: Callable[[NDArray[np.uint8]], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"--features {place}: {error}", remedy="Is the module on the Python path?") from None
    if not callable(ask):
        raise InputError(f"--features {place} is a {type(ask).__name__}, no function", remedy="Use MODULE:FUNCTION.")
    return ask


def own_features(place: str, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Features of the user's: ``MODULE:FUNCTION`` takes uint8 [N, H, W, 3] and gives [N, D].

    Raises
    ------
    InputError
        As :func:`own_function`, or something else comes back.
    """
    found = np.asarray(own_function(place)(pictures), np.float64)
    if found.ndim != 2 or len(found) != len(pictures) or not np.isfinite(found).all():
        raise InputError(f"{place} gave features of shape {list(found.shape)}, or some that are not finite")
    return found


def equal_rows(
    real_labels: Sequence[str], generated_labels: Sequence[str], seed: int = 0
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows of real and generated galaxies to compare: as many of both in each class, and all of these overall."""
    random = np.random.default_rng([seed, 29])
    one, two = np.array(real_labels), np.array(generated_labels)
    pairs = {}
    for name in dict.fromkeys(generated_labels):
        theirs, ours = np.flatnonzero(one == name), np.flatnonzero(two == name)
        n = min(len(theirs), len(ours))
        pairs[name] = random.permutation(theirs)[:n], random.permutation(ours)[:n]
    if len(pairs) > 1:
        both = [np.concatenate([pair[side] for pair in pairs.values()]) for side in (0, 1)]
        pairs = {OVERALL: (both[0], both[1]), **pairs}
    return pairs


def distances(
    real: NDArray[Any],
    generated: NDArray[Any],
    real_labels: Sequence[str],
    generated_labels: Sequence[str],
    *,
    repeats: int = 50,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Distances of two sets of features.

    Parameters
    ----------
    real, generated : array (N, D), (M, D)
        Rows with values that are not finite are left out.
    real_labels, generated_labels : sequence of str
    repeats, seed : int
        Of the intervals: halves drawn without replacement, see :func:`priorscope.evaluation.distributions.bootstrap`.

    Returns
    -------
    list of dict
        ``class``, ``n`` of either set, each of :data:`FIGURES` as an ``Interval``, and ``KID real``: two halves of the
        real galaxies against each other, which is what nothing but chance gives.
    list of str
        Classes that are too few, in words.
    """
    one, two = np.isfinite(real).all(1), np.isfinite(generated).all(1)
    real, generated = real[one], generated[two]
    real_labels = [name for name, good in zip(real_labels, one, strict=True) if good]
    generated_labels = [name for name, good in zip(generated_labels, two, strict=True) if good]
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for name, (theirs, ours) in equal_rows(real_labels, generated_labels, seed).items():
        if len(theirs) < LEAST:
            notes.append(f"{name}: {len(theirs)} galaxies in the smaller set, {LEAST} are needed")
            continue
        row: dict[str, Any] = {"class": name, "n": len(theirs)}
        for figure, statistic in _SHOWN.items():
            row[figure] = bootstrap(statistic, real[theirs], generated[ours], repeats=repeats, replace=False, seed=seed)
        half = len(theirs) // 2
        row["KID real"] = bootstrap(
            kid, real[theirs[:half]], real[theirs[half:]], repeats=repeats, replace=False, seed=seed
        )
        rows.append(row)
    return rows, notes


def plain_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with intervals as ``[estimate, low, high]``, for JSON."""
    return [
        {key: [v.estimate, v.low, v.high] if isinstance(v, Interval) else v for key, v in row.items()} for row in rows
    ]

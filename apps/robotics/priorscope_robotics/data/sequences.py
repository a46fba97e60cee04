"""Windows of a plan's length, cut from episodes as Diffusion Policy cuts them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError


def window_indices(
    ends: Sequence[int] | NDArray[np.int64],
    horizon: int,
    *,
    before: int = 0,
    after: int = 0,
    mask: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Every window of ``horizon`` steps of every episode.

    Parameters
    ----------
    ends : sequence of int
        One past the last row of each episode.
    horizon : int
    before, after : int
        By how many steps a window may reach beyond the start and the end of its episode; at most ``horizon - 1``.
    mask : bool array, optional
        Which episodes.

    Returns
    -------
    array (windows, 4)
        First row and one past the last row, and where these lie in the window.
    """
    if horizon < 1:
        raise InputError(f"windows of {horizon} steps")
    before, after = (min(max(value, 0), horizon - 1) for value in (before, after))
    found = []
    start = 0
    for number, end in enumerate(int(end) for end in ends):
        if mask is None or mask[number]:
            length = end - start
            for place in range(-before, length - horizon + after + 1):
                first, last = max(place, 0), min(place + horizon, length)
                found.append((first + start, last + start, first - place, last - place))
        start = end
    return np.array(found, np.int64).reshape(-1, 4)


def cut(values: NDArray[np.generic], index: Sequence[int] | NDArray[np.int64], horizon: int) -> NDArray[np.generic]:
    """The window of ``values`` (N, ...) that a row of :func:`window_indices` tells; see :func:`rows_of`."""
    return values[rows_of(index, horizon)]


def rows_of(index: Sequence[int] | NDArray[np.int64], horizon: int) -> NDArray[np.int64]:
    """The rows (horizon,) of a window, the first and the last repeated where it reaches beyond its episode."""
    first, last, offset, _ = (int(value) for value in index)
    return np.clip(np.arange(horizon) - offset + first, first, last - 1)


def held_out_mask(count: int, ratio: float, seed: int) -> NDArray[np.bool_]:
    """Which of ``count`` episodes are held out: at least one and not all, unless ``ratio`` is 0. Seeds as published."""
    chosen = np.zeros(count, bool)
    if ratio <= 0:
        return chosen
    number = min(max(1, round(count * ratio)), count - 1)
    chosen[np.random.default_rng(seed).choice(count, size=number, replace=False)] = True
    return chosen


def fewer(mask: NDArray[np.bool_], most: int | None, seed: int) -> NDArray[np.bool_]:
    """At most ``most`` of the episodes in ``mask``; Push-T is trained on 90."""
    if most is None or mask.sum() <= most:
        return mask
    places = np.nonzero(mask)[0]
    kept = np.zeros_like(mask)
    kept[places[np.random.default_rng(seed).choice(len(places), size=most, replace=False)]] = True
    return kept

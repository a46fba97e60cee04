"""Root finding and minimisation of many functions at once: one step for all of them, until the last has converged.

Each follows the path that scipy's scalar routine takes for one function, so that results agree to its last digits even
where a function has several roots or minima: the reference for morphology (statmorph) uses those routines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
#: ``function(x, rows)``: values of the functions number ``rows`` at ``x``, one each.
Function = Callable[[Array, Rows], Array]


def brent(
    function: Function,
    low: Array,
    high: Array,
    *,
    xtol: Array | float,
    ends: tuple[Array, Array] | None = None,
    rtol: float = 4 * np.finfo(float).eps,
    steps: int = 100,
) -> Array:
    """Roots in brackets by Brent's method (Brent 1973, ch. 4): inverse quadratic interpolation, else bisection.

    Parameters
    ----------
    function : callable
        ``function(x, rows)``.
    low, high : array (B,)
        Ends of the brackets, of different sign or zero.
    xtol : float or array (B,)
        Absolute tolerance of a root; ``rtol`` is added relative to it.
    ends : tuple of array (B,), optional
        Values at the brackets' ends, where they are known.
    steps : int
        Most steps.

    Returns
    -------
    array (B,)
    """
    every = np.arange(len(low))
    before, now = np.array(low, dtype=float), np.array(high, dtype=float)
    f_before, f_now = ends if ends is not None else (function(before, every), function(now, every))
    other, f_other = before.copy(), f_before.copy()
    step = last = np.zeros(len(low))
    root, found = np.where(f_before == 0, before, now), (f_before == 0) | (f_now == 0)
    xtol = np.broadcast_to(np.asarray(xtol, dtype=float), now.shape)
    for _ in range(steps):
        flips = (f_before != 0) & (f_now != 0) & (np.signbit(f_before) != np.signbit(f_now))
        other, f_other = np.where(flips, before, other), np.where(flips, f_before, f_other)
        last, step = np.where(flips, now - before, last), np.where(flips, now - before, step)
        swap = np.abs(f_other) < np.abs(f_now)
        before, now, other = np.where(swap, now, before), np.where(swap, other, now), np.where(swap, now, other)
        f_before, f_now, f_other = (
            np.where(swap, f_now, f_before),
            np.where(swap, f_other, f_now),
            np.where(swap, f_now, f_other),
        )
        least = (xtol + rtol * np.abs(now)) / 2
        half = (other - now) / 2
        done = ~found & ((f_now == 0) | (np.abs(half) < least))
        root, found = np.where(done, now, root), found | done
        if found.all():
            break
        with np.errstate(all="ignore"):
            secant = -f_now * (now - before) / (f_now - f_before)
            slope_before = (f_before - f_now) / (before - now)
            slope_other = (f_other - f_now) / (other - now)
            quadratic = -f_now * (f_other * slope_other - f_before * slope_before)
            quadratic /= slope_other * slope_before * (f_other - f_before)
            guess = np.where(before == other, secant, quadratic)
            short = 2 * np.abs(guess) < np.minimum(np.abs(last), 3 * np.abs(half) - least)
        trusted = (np.abs(last) > least) & (np.abs(f_now) < np.abs(f_before)) & short
        last, step = np.where(trusted, step, half), np.where(trusted, guess, half)
        before, f_before = now, f_now
        now = now + np.where(np.abs(step) > least, step, np.where(half > 0, least, -least))
        rows = np.flatnonzero(~found)
        f_now = f_now.copy()
        f_now[rows] = function(now[rows], rows)
    return np.where(found, root, now)


class Minimum(NamedTuple):
    """Where each function is least, its value there, and whether the tolerances were reached."""

    x: Array
    value: Array
    converged: NDArray[np.bool_]


def nelder_mead(
    function: Function,
    start: Array,
    *,
    xtol: float,
    ftol: float,
    watch: Callable[[Array, Rows], None] | None = None,
) -> Minimum:
    """Minima by the downhill simplex (Nelder and Mead 1965) with reflection 1, expansion 2, contraction and shrink 1/2.

    The first simplex is the start and, for each coordinate, the start with it 5 % larger (0.00025 where it is 0).

    Parameters
    ----------
    function : callable
        ``function(x, rows)`` with x of shape (n, D).
    start : array (B, D)
    xtol, ftol : float
        Converged are simplices whose corners and values both are within these of the best one's.
    watch : callable, optional
        ``watch(simplex, rows)`` is told before each step which functions are left, and their simplices, the best
        corners first.
    """
    count, size = start.shape
    simplex = np.repeat(start[:, None], size + 1, axis=1)
    for axis in range(size):
        simplex[:, axis + 1, axis] = np.where(start[:, axis] != 0, 1.05 * start[:, axis], 0.00025)
    every = np.arange(count)
    values = np.stack([function(simplex[:, corner], every) for corner in range(size + 1)], axis=1)
    simplex, values = _ordered(simplex, values)
    calls = np.full(count, size + 1)
    most = 200 * size
    for _ in range(most - 1):
        far = np.abs(simplex[:, 1:] - simplex[:, :1]).max((1, 2)) > xtol
        far |= np.abs(values[:, 1:] - values[:, :1]).max(1) > ftol
        rows = np.flatnonzero(far & (calls < most))
        if not len(rows):
            break
        if watch is not None:
            watch(simplex[rows], rows)
        corners, heights = simplex[rows], values[rows]
        worst, middle = corners[:, -1], corners[:, :-1].sum(1) / size
        reflected = 2 * middle - worst
        f_reflected = function(reflected, rows)
        better = f_reflected < heights[:, 0]
        taken = ~better & (f_reflected < heights[:, -2])
        outside = ~better & ~taken & (f_reflected < heights[:, -1])
        inside = ~(better | taken | outside)
        # expansion, contraction outside, contraction inside
        reach = np.where(better, -2.0, np.where(outside, -0.5, 0.5))[:, None]
        second = (1 - reach) * middle + reach * worst
        f_second = np.full(len(rows), np.inf)
        asked = np.flatnonzero(~taken)
        if len(asked):
            f_second[asked] = function(second[asked], rows[asked])
        calls[rows] += 1 + ~taken
        use_second = (better & (f_second < f_reflected)) | (outside & (f_second <= f_reflected))
        use_second |= inside & (f_second < heights[:, -1])
        use_reflected = taken | (better & ~use_second)
        for use, point, height in ((use_second, second, f_second), (use_reflected, reflected, f_reflected)):
            corners[use, -1], heights[use, -1] = point[use], height[use]
        shrink = np.flatnonzero(~(use_second | use_reflected))
        if len(shrink):
            corners[shrink, 1:] = corners[shrink, :1] + 0.5 * (corners[shrink, 1:] - corners[shrink, :1])
            for corner in range(1, size + 1):
                heights[shrink, corner] = function(corners[shrink, corner], rows[shrink])
            calls[rows[shrink]] += size
        simplex[rows], values[rows] = _ordered(corners, heights)
    far = np.abs(simplex[:, 1:] - simplex[:, :1]).max((1, 2)) > xtol
    far |= np.abs(values[:, 1:] - values[:, :1]).max(1) > ftol
    return Minimum(simplex[:, 0], values[:, 0], ~far)


def _ordered(simplex: Array, values: Array) -> tuple[Array, Array]:
    order = np.argsort(values, axis=1, kind="stable")
    return np.take_along_axis(simplex, order[:, :, None], axis=1), np.take_along_axis(values, order, axis=1)

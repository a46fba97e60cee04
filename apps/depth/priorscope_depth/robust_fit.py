"""Scale and shift between two sets of values of which some are wrong: least squares after the outliers are found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError

_PAIRS = 500
_SAMPLE = 20_000
#: Median absolute deviation of a normal distribution times this is its standard deviation.
_NORMAL = 1.4826
_LIMIT = 3.0
#: Of fewer values nobody can tell which are wrong: two of three, or of four, always lie on a line.
_FEWEST = 5


@dataclass(frozen=True)
class RobustFit:
    """``scale * value + shift``.

    Attributes
    ----------
    scale, shift : float
    inliers : bool array
        Which values the last fit used.
    spread : float
        Median absolute residual of the inliers, in the target's unit.
    """

    scale: float
    shift: float
    inliers: NDArray[np.bool_]
    spread: float

    def __call__(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """The map, in the dtype of ``values``."""
        return values * values.dtype.type(self.scale) + values.dtype.type(self.shift)


def fit_robust(values: ArrayLike, target: ArrayLike, *, symmetric: bool = False) -> RobustFit:
    """Least-squares ``scale * values + shift`` to ``target``, of which up to nearly half may be wrong.

    Parameters
    ----------
    values, target : array
        Of one shape, finite.
    symmetric : bool
        Take the ratio of the two standard deviations as scale (reduced major axis) rather than the regression's,
        which is smaller by the correlation: a chain of fits, frame to frame, would lose all contrast.

    Returns
    -------
    RobustFit
        Exact where the target is an affine map of more than half the values. Of fewer than five none is left out; two
        give the line through them.

    Raises
    ------
    InputError
        Fewer than two values, all values equal or all targets equal.

    Notes
    -----
    Lines through 500 random pairs (all pairs where there are fewer), always the same ones; that with the least
    median absolute residual; then, twice, least squares on what lies within three robust standard deviations of it
    (1.4826 medians, times 1 + 5 / (n - 2) for few values). More than 20 000 values are thinned out, evenly, for
    everything but the mask of inliers.
    Source: least median of squares and its correction for few values, Rousseeuw 1984; reduced major axis, Kermack and
    Haldane 1950.
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    y = np.asarray(target, dtype=np.float64).ravel()
    if x.shape != y.shape:
        raise InputError(f"{x.size} values and {y.size} targets")
    if x.size < 2:
        raise InputError(f"{x.size} known values: a scale and a shift need at least 2")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("a fit to NaN or infinite values")
    step = -(-x.size // _SAMPLE)
    every_x, every_y = x, y
    x, y = x[::step], y[::step]
    for name, numbers in (("predicted values", x), ("known values", y)):
        # float32 values that differ do so by 6e-8 relative
        if np.ptp(numbers) <= 1e-8 * np.abs(numbers).max():
            raise InputError(f"all {name} at these places are equal ({numbers[0]:.4g}): no scale follows from them")
    if x.size < _FEWEST:
        scale, shift = _line(x, y, symmetric)
        every = np.ones(x.size, dtype=bool)
        return RobustFit(scale, shift, every, float(np.median(np.abs(scale * x + shift - y))))
    scale, shift = _best_line(x, y)
    for _ in range(2):
        residual = np.abs(scale * x + shift - y)
        limit = _bound(residual, y)
        kept = residual <= limit
        scale, shift = _line(x[kept], y[kept], symmetric)
    residual = np.abs(scale * every_x + shift - every_y)
    inliers = residual <= max(limit, _bound(residual, y))
    return RobustFit(float(scale), float(shift), inliers, float(np.median(residual[inliers])))


def _bound(residual: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Residuals up to this are inliers; rounding alone makes no outlier."""
    count = residual.size
    deviation = _NORMAL * (1 + 5 / (count - 2)) * float(np.partition(residual, count // 2)[count // 2])
    return max(_LIMIT * deviation, 1e-6 * float(np.abs(y).max()))


def _best_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """The line through two of the points whose median absolute residual is least."""
    if x.size * (x.size - 1) // 2 <= _PAIRS:
        first, second = np.triu_indices(x.size, 1)
    else:
        rng = np.random.default_rng(0)
        first, second = rng.integers(0, x.size, (2, _PAIRS))
    different = x[first] != x[second]
    first, second = first[different], second[different]
    if not first.size:  # nearly all are equal
        return _line(x, y, False)
    scales = (y[second] - y[first]) / (x[second] - x[first])
    shifts = y[first] - scales * x[first]
    some = slice(None, None, -(-x.size // 2000))
    middle = x[some].size // 2
    errors = [
        np.partition(np.abs(a * x[some] + b - y[some]), middle)[middle] for a, b in zip(scales, shifts, strict=True)
    ]
    best = int(np.argmin(errors))
    return float(scales[best]), float(shifts[best])


def _line(x: NDArray[np.float64], y: NDArray[np.float64], symmetric: bool) -> tuple[float, float]:
    mean_x, mean_y = x.mean(), y.mean()
    covariance, variance = np.mean((x - mean_x) * (y - mean_y)), np.mean((x - mean_x) ** 2)
    if variance == 0:
        return 0.0, float(mean_y)
    scale = covariance / variance
    if symmetric:
        scale = np.sign(covariance) * np.sqrt(np.mean((y - mean_y) ** 2) / variance)
    return float(scale), float(mean_y - scale * mean_x)

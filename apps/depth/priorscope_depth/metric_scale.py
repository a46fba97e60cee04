"""Metres for a relative prediction, from places whose distance is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_depth.alignment import SMALLEST_DEPTH, AffineFit
from priorscope_depth.known_points import KnownPoints
from priorscope_depth.results import DepthResult
from priorscope_depth.robust_fit import fit_robust


def to_metric(result: DepthResult, points: KnownPoints) -> DepthResult:
    """Fit an affine-invariant result to known distances, in its own space.

    Parameters
    ----------
    result : DepthResult
        Affine-invariant depth or disparity.
    points : KnownPoints
        At least two, at different depths. Five or more are fitted robustly (:func:`fit_robust`): lidar returns from
        behind an edge, and whatever else is wrong in less than half of them, are left out.

    Returns
    -------
    DepthResult
        Planar depth in metres, ``scale="metric"``. A disparity of 0 or less after the fit is at infinity: its depth is
        infinite (:func:`within`). ``notes["metric_fit"]`` states space, scale, shift, numbers of points and
        inliers, and the median of |fitted - known| / known over all points, None where that is infinite. An ensemble's
        uncertainty, which has no unit, is left out.

    Raises
    ------
    InputError
        Points outside the picture, predictions or depths that are all equal, a negative scale.
    """
    if result.scale == "metric":
        raise InputError(f"{result.model} predicts metres already: there is nothing to fit")
    values = result.values
    rows, columns = points.pixels(*values.shape)
    if rows.size < 2:
        raise InputError(f"{rows.size} points with a depth: a scale and a shift need at least 2", path=points.source)
    at_points = values[rows, columns].astype(np.float64)
    target = points.depth if result.space == "depth" else 1 / points.depth
    try:
        robust = fit_robust(at_points, target)
    except InputError as error:
        raise InputError(error.fact, path=points.source, remedy="Give points of different depths.") from None
    if robust.scale <= 0:
        raise InputError(
            f"the fit to {rows.size} points has a negative scale ({robust.scale:.3g}): what they say is nearer, "
            f"{result.model or 'the prediction'} sees farther",
            path=points.source,
            remedy="Are they of this picture, as column, row, metres?",
        )
    fit = AffineFit(result.space, robust.scale, robust.shift, int(robust.inliers.sum()))
    fitted = metric_depth(fit, at_points)
    with np.errstate(over="ignore"):
        middle = float(np.median(np.abs(fitted - points.depth) / points.depth))
    note: dict[str, Any] = {
        "space": fit.space,
        "scale": fit.scale,
        "shift": fit.shift,
        "points": int(rows.size),
        "inliers": fit.pixels,
        "median_relative_error": middle if np.isfinite(middle) else None,  # JSON knows no infinity
        "source": points.source,
    }
    depth = metric_depth(fit, values)
    notes = {**result.notes, "metric_fit": note}
    return replace(result, values=depth, space="depth", scale="metric", uncertainty=None, notes=notes)


def metric_depth(fit: AffineFit, values: NDArray[Any]) -> NDArray[np.float32]:
    """Metres; infinite where a fitted disparity is not positive, 0 where a fitted depth is not: behind the camera."""
    aligned = fit(values.astype(np.float64))
    if fit.space == "disparity":
        with np.errstate(divide="ignore"):
            aligned = np.where(aligned > 0, 1 / aligned, np.inf)
    with np.errstate(over="ignore"):
        return np.where(aligned > 0, np.maximum(aligned, SMALLEST_DEPTH), 0).astype(np.float32)


def within(result: DepthResult, max_depth: float) -> NDArray[np.bool_]:
    """Where a metric depth is above 0 and at most ``max_depth`` metres; everywhere for a relative result."""
    if result.scale != "metric":
        return np.ones(result.values.shape, dtype=bool)
    return np.isfinite(result.values) & (result.values > 0) & (result.values <= max_depth)

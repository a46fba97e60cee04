"""Edge maps as lines of one pixel: the crest of every ridge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError


def checked_edges(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """An edge map (H, W) in [0, 1] as float64, or an InputError."""
    values = np.asarray(values)
    if values.dtype == bool:
        return values.astype(np.float64)
    if values.ndim != 2 or values.dtype.kind != "f" or not values.size:
        raise InputError(f"an edge map is floating point or bool [H, W], not {values.dtype} {list(values.shape)}")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise InputError("an edge map lies in [0, 1]", remedy="Divide 8-bit maps by 255.")
    return values.astype(np.float64)


def suppress(values: NDArray[np.floating], *, sigma: float = 0.6) -> NDArray[np.float64]:
    """Non-maximum suppression: each value where it is the crest of its ridge, 0 elsewhere.

    Across a ridge is the direction in which the map, smoothed by a Gaussian of ``sigma`` pixels, is bent down most; a
    crest is no lower there, smoothed, than the two points a pixel to either side. Comparing smoothed values finds the
    middle of a line that is saturated over its width, of two equal middle pixels both.

    Parameters
    ----------
    values : ndarray (H, W) in [0, 1]
    sigma : float
        Wide lines need a larger one (8 pixels: 0.6), but lines nearer to each other than four times as much merge.

    Notes
    -----
    Inside a saturated line that is wider the smoothed map is flat, and every pixel of its interior is a crest: none is
    lower than those beside it. So it is in the benchmark, whose suppression takes a pixel away only where one beside it
    is higher by more than 1 % (edgesNms of Dollar and Zitnick; from memory), and which thins what is left to lines, as
    :func:`~priorscope_depth.edges.metrics.edge_counts` does. To take the interior away would lose the line altogether.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    values = checked_edges(values)

    def derivative(order: tuple[int, int]) -> NDArray[np.float64]:
        return gaussian_filter(values, sigma, order=order, mode="nearest", truncate=6.0)

    smooth, yy, xy, xx = (derivative(order) for order in ((0, 0), (2, 0), (1, 1), (0, 2)))
    # the eigenvector of the Hessian's lower eigenvalue
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2
    dy, dx = np.sin(angle), np.cos(angle)
    places = np.indices(values.shape).astype(np.float64)
    crest = values > 0
    for side in (-1, 1):
        beside = map_coordinates(smooth, places + side * np.stack([dy, dx]), order=1, mode="nearest")
        crest &= smooth >= beside - 1e-9
    return np.where(crest, values, 0.0)


def crispness(values: NDArray[np.floating]) -> float:
    """Share of an edge map's mass that lies on crests: 1 for lines of one pixel, 1 / w for lines of w equal pixels.

    Two equal middle pixels both count, so that it is 2 / w where w is even. Nothing is thinned, as is usual for this
    figure: of saturated lines of more than 8 pixels it says too much, since their flat interior counts
    (:func:`suppress`); (w - 6) / w. NaN for an empty map. Its mean over images is the average crispness (AC).
    """
    values = checked_edges(values)
    mass = values.sum()
    return float(suppress(values).sum() / mass) if mass > 0 else float("nan")

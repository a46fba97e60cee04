"""Oracle baselines: the best constant and the best plane in the image, fitted to the ground truth itself.

They know the answer, so they are no competitors: they show how much of a score a data set gives away for free. In
disparity space the plane is a true plane in the scene: a + b x + c y = 1/depth is the image of a 3-D plane.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError
from priorscope_depth.alignment import SMALLEST_DISPARITY, Space, check_space, clip_depth

Baseline = Literal["constant", "plane"]
BASELINES: tuple[Baseline, ...] = ("constant", "plane")


def oracle_baseline(
    kind: Baseline, depth: ArrayLike, mask: ArrayLike, space: Space, min_depth: float, max_depth: float
) -> NDArray[np.float32]:
    """Return the depth map of a baseline, made from the ground truth by least squares.

    Parameters
    ----------
    kind : {"constant", "plane"}
        A constant, or a + b x + c y in the image position (pixels).
    depth : array, [H, W]
        True depth, metres.
    mask : bool array, [H, W]
        Pixels used. In disparity space only those with positive depth.
    space : {"depth", "disparity"}
        Where the squares are summed. The result is depth in both cases: a disparity is raised to at least
        1e-3 1/m and inverted, as an aligned prediction is.
    min_depth, max_depth : float
        The result is clipped to them.

    Returns
    -------
    float32 array, [H, W]
        Metres, at every pixel.

    Raises
    ------
    InputError
        No usable pixel, or NaN or infinity in one.
    """
    check_space(space)
    if kind not in BASELINES:
        raise InputError(f"unknown baseline {kind!r}", remedy=f"Use one of {', '.join(BASELINES)}.")
    g, m = np.asarray(depth), np.asarray(mask, dtype=bool)
    if g.ndim != 2 or g.shape != m.shape:
        raise InputError(f"depth {list(g.shape)} and mask {list(m.shape)} must be one [H, W]")
    if space == "disparity":
        m = m & (g > 0)
    if not m.any():
        raise InputError("no pixel counts: the mask is empty")
    target = np.where(m, g, 1).astype(np.float64)
    if not np.all(np.isfinite(target)):
        raise InputError("the ground truth is NaN or infinite within the mask")
    if space == "disparity":
        target = 1.0 / target
    target[~m] = 0
    if kind == "constant":
        values = np.full(g.shape, target.sum() / np.count_nonzero(m))
    else:
        values = _plane(target, m)
    if space == "disparity":
        values = 1.0 / np.maximum(values, SMALLEST_DISPARITY)
    return clip_depth(values, min_depth, max_depth).astype(np.float32)


def _plane(target: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Least-squares plane through ``target`` (0 outside the mask), from sums along rows and columns."""
    # centred and scaled positions keep the normal equations well-conditioned
    y, x = (np.arange(size) / size - 0.5 for size in mask.shape)
    in_row, in_column = mask.sum(axis=1), mask.sum(axis=0)
    sum_x, sum_y, sum_xy = in_column @ x, in_row @ y, y @ np.where(mask, x, 0).sum(axis=1)
    normal = np.array(
        [
            [in_row.sum(), sum_x, sum_y],
            [sum_x, in_column @ x**2, sum_xy],
            [sum_y, sum_xy, in_row @ y**2],
        ]
    )
    right = np.array([target.sum(), target.sum(axis=0) @ x, target.sum(axis=1) @ y])
    # the pseudo-inverse copes with pixels on one line
    a, b, c = np.linalg.pinv(normal, hermitian=True) @ right
    return a + b * x + c * y[:, None]

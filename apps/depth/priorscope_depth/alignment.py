"""Affine alignment of a relative prediction to metric depth, in depth or in disparity space.

An affine-invariant prediction is known up to a scale and a shift. Which space those two numbers act in changes
every metric that follows, so a fit carries its space and results of different spaces are never put together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError

Space = Literal["depth", "disparity"]
Subsampling = Literal["both", "width"]
Solver = Literal["normal", "lstsq"]

SPACES: tuple[Space, ...] = get_args(Space)

#: Aligned disparities are raised to this before they are inverted: no depth beyond 1000 m (Lotus evaluation.py).
SMALLEST_DISPARITY = 1e-3
#: Last guard of the official code against a logarithm of zero, in metres.
SMALLEST_DEPTH = 1e-6


def check_space(space: str) -> None:
    """Raise :class:`InputError` unless ``space`` is "depth" or "disparity"."""
    if space not in SPACES:
        raise InputError(f"unknown space {space!r}", remedy=f"Use one of {', '.join(SPACES)}.")


@dataclass(frozen=True)
class AffineFit:
    """The affine map ``scale * prediction + shift`` and the space its result stands in.

    Attributes
    ----------
    space : {"depth", "disparity"}
        The result is metric depth (m) or metric disparity (1/m).
    scale, shift : float
        A negative scale is legal: it means that the prediction is ordered the wrong way round.
    pixels : int
        Pixels the fit used.
    """

    space: Space
    scale: float
    shift: float
    pixels: int

    def __call__(self, prediction: ArrayLike) -> NDArray[np.floating]:
        """Return ``scale * prediction + shift`` in the fit's own space, unclipped, in the prediction's dtype."""
        values = _float_array(prediction)
        return values * values.dtype.type(self.scale) + values.dtype.type(self.shift)

    def depth(
        self, prediction: ArrayLike, min_depth: float = SMALLEST_DEPTH, max_depth: float = np.inf
    ) -> NDArray[np.floating]:
        """Return metric depth (m), clipped to [min_depth, max_depth] and to at least 1e-6 m.

        In disparity space the aligned disparity is raised to at least 1e-3 1/m and inverted first.
        """
        aligned = self(prediction)
        if self.space == "disparity":
            aligned = 1.0 / np.maximum(aligned, SMALLEST_DISPARITY)
        return clip_depth(aligned, min_depth, max_depth)


def clip_depth(depth: NDArray[np.floating], min_depth: float, max_depth: float) -> NDArray[np.floating]:
    """Clip to the range of a data set and to at least 1e-6 m, in the depth's own dtype."""
    return np.clip(depth, max(min_depth, SMALLEST_DEPTH), max_depth)


def fit_affine(
    prediction: ArrayLike,
    depth: ArrayLike,
    mask: ArrayLike,
    space: Space,
    *,
    max_res: int | None = None,
    subsampling: Subsampling = "both",
    positive_only: bool = False,
    solver: Solver = "normal",
) -> AffineFit:
    """Least-squares fit of ``scale * prediction + shift`` to true depth, or to true disparity ``1 / depth``.

    Parameters
    ----------
    prediction : array, [H, W]
        Relative prediction: linear in depth, or in disparity, whichever `space` says.
    depth : array, [H, W]
        True depth in metres.
    mask : bool array, [H, W]
        Pixels with ground truth. In disparity space only those with ``depth > 0`` are used.
    space : {"depth", "disparity"}
    max_res : int, optional
        Fit on a nearest-neighbour subsample whose longer side is at most this.
    subsampling : {"both", "width"}
        "width" reproduces the official code, which by a 1-D ``Upsample`` thins out the columns only.
    positive_only : bool
        In disparity space, leave out pixels with ``prediction <= 0`` as the official code does. Off by default:
        it makes the result depend on the shift of a prediction that is known up to scale and shift only.
    solver : {"normal", "lstsq"}
        "lstsq" solves in the dtype of the inputs as the official code does: the same digits, not better ones.

    Returns
    -------
    AffineFit
        A constant prediction gives scale 0 and the best constant as shift ("lstsq" gives the same aligned values
        by another scale and shift).

    Raises
    ------
    InputError
        Shapes differ, fewer than two usable pixels, or NaN or infinity in a usable pixel.

    Notes
    -----
    "normal": the 2x2 normal equations of the centred prediction, in float64. Official: ``numpy.linalg.lstsq`` in
    float32 (EnVision-Research/Lotus evaluation/util/alignment.py), which agrees to about 1e-7 relative.
    """
    check_space(space)
    p, g = _float_array(prediction), _float_array(depth)
    m = np.asarray(mask, dtype=bool)
    if not (p.shape == g.shape == m.shape) or p.ndim != 2:
        raise InputError(
            f"prediction {list(p.shape)}, depth {list(g.shape)} and mask {list(m.shape)} must be one [H, W]"
        )
    if max_res is not None:
        rows, columns = subsample_indices(p.shape[0], p.shape[1], max_res, subsampling)
        p, g, m = (a[rows][:, columns] for a in (p, g, m))
    if space == "disparity":
        m = m & (g > 0)
        if positive_only:
            m = m & (p > 0)
    p, g = p[m], g[m]
    if solver == "normal":
        p, g = p.astype(np.float64), g.astype(np.float64)
    if p.size < 2:
        raise InputError(f"{p.size} usable pixels: a scale and a shift need at least 2")
    for name, values in (("prediction", p), ("ground truth", g)):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise InputError(f"the {name} is NaN or infinite at {bad} of {values.size} pixels of the mask")
    if space == "disparity":
        g = 1.0 / g
    if solver == "lstsq":
        terms = np.stack([p, np.ones_like(p)], axis=1)
        (scale, shift), *_ = np.linalg.lstsq(terms, g, rcond=None)
        return AffineFit(space, float(scale), float(shift), p.size)
    mean_p, mean_g = float(p.mean()), float(g.mean())
    centred = p - mean_p
    variance = float(np.dot(centred, centred)) / p.size
    # float32 values that differ do so by 6e-8 relative; below 1e-12 only the rounding of the mean is left
    if variance <= (1e-12 * float(np.abs(p).max())) ** 2:
        return AffineFit(space, 0.0, mean_g, p.size)
    scale = float(np.dot(centred, g - mean_g)) / p.size / variance
    return AffineFit(space, scale, mean_g - scale * mean_p, p.size)


def subsample_indices(
    height: int, width: int, max_res: int, subsampling: Subsampling = "both"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns a nearest-neighbour downscaling keeps so that the longer side is at most ``max_res``.

    Everything is kept where the longer side is small enough already. "width" thins out columns only
    (official quirk, see :func:`fit_affine`).
    """
    if max_res < 1:
        raise InputError(f"alignment resolution {max_res} must be at least 1 pixel")
    scale = min(max_res / height, max_res / width)
    if scale >= 1:
        return np.arange(height), np.arange(width)
    rows = np.arange(height) if subsampling == "width" else _nearest(height, scale)
    return rows, _nearest(width, scale)


def _nearest(size: int, scale: float) -> NDArray[np.int64]:
    """Return the source index of every kept pixel, by torch's rule (its float32 rounding is part of parity)."""
    import torch
    import torch.nn.functional as F

    # at least one pixel stays: a 1 x 5000 strip would otherwise vanish
    scale = max(scale, 1 / size)
    kept = F.interpolate(torch.arange(size, dtype=torch.float64)[None, None], scale_factor=scale, mode="nearest")
    return kept[0, 0].numpy().astype(np.int64)


def _float_array(values: ArrayLike) -> NDArray[np.floating]:
    array = np.asarray(values)
    if np.issubdtype(array.dtype, np.floating):
        return array
    if np.issubdtype(array.dtype, np.integer) or array.dtype == bool:
        return array.astype(np.float64)
    raise InputError(f"an array of real numbers is needed, not of {array.dtype}")

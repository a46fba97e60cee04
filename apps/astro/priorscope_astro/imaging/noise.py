"""The sky of stamps: its noise, its power spectrum."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def sky_sigma(images: ArrayLike, *, clip: float = 3.0, steps: int = 20) -> Array:
    """Standard deviation of a pixel of the sky: of what is left once pixels off the median are clipped.

    Parameters
    ----------
    images : array (..., H, W)
        Pixels that are not finite are left out.
    clip : float
        In standard deviations, which come from the median absolute deviation.
    steps : int
        Most clippings.

    Returns
    -------
    array (...)
        In the images' unit; 0 for constant images, NaN where no pixel is finite.
    """
    stack = np.asarray(images, dtype=np.float64)
    flat = stack.reshape(-1, stack.shape[-2] * stack.shape[-1]).copy()
    flat[~np.isfinite(flat)] = np.nan
    known = np.isfinite(flat).any(1)
    deviation = np.full(len(flat), np.nan)
    kept = flat[known]
    for _ in range(steps):
        middle = np.nanmedian(kept, axis=1, keepdims=True)
        spread = 1.4826 * np.nanmedian(np.abs(kept - middle), axis=1, keepdims=True)
        out = np.abs(kept - middle) > clip * spread
        if not out.any():
            break
        kept[out] = np.nan
    if len(kept):
        deviation[known] = spread[:, 0]
    return deviation.reshape(stack.shape[:-2])

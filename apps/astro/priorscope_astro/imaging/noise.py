"""The sky of stamps: its noise, its power spectrum."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError

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

    Raises
    ------
    InputError
        For fewer than one clipping.
    """
    if steps < 1:
        raise InputError(f"{steps} clippings", remedy="Use 1 or more.")
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


def power_spectrum(images: ArrayLike, bins: int | None = None) -> tuple[Array, Array]:
    """Power of square images by spatial frequency, averaged over directions; white noise of variance v has v.

    Parameters
    ----------
    images : array (..., N, N)
        The mean is taken off. Stamps of sky; where galaxies are, the power is theirs.
    bins : int, optional
        Of equal width from 0 to 0.5 cycles a pixel; N / 2 by default. The corners beyond are left out.

    Returns
    -------
    frequency : array (bins,)
        Middles, cycles a pixel.
    power : array (..., bins)
        In the images' unit squared; NaN in a bin that holds no frequency.
    """
    stack = np.asarray(images, dtype=np.float64)
    side = stack.shape[-1]
    bins = max(side // 2, 1) if bins is None else bins
    stack = stack - stack.mean((-2, -1), keepdims=True)
    power = np.abs(np.fft.fft2(stack)) ** 2 / side**2
    one = np.fft.fftfreq(side)
    distance = np.hypot(one[:, None], one)
    index = np.where(distance < 0.5, (distance * 2 * bins).astype(int), bins)
    index[0, 0] = bins  # the mean, which was taken off
    count = np.bincount(index.ravel(), minlength=bins + 1)[:bins]
    flat = power.reshape(-1, side * side)
    sums = np.stack([np.bincount(index.ravel(), row, minlength=bins + 1)[:bins] for row in flat])
    with np.errstate(invalid="ignore"):
        mean = sums / count
    return (np.arange(bins) + 0.5) / (2 * bins), mean.reshape(*stack.shape[:-2], bins)

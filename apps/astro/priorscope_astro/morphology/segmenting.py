"""Sources of a stamp: pixels brighter than their sky once the noise is smoothed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from priorscope_astro.morphology.filters import box, regions

#: Smoothed over BOX x BOX pixels, a source is THRESHOLD standard deviations of the smoothed noise above the sky, and
#: has at least LEAST pixels.
BOX, THRESHOLD, LEAST = 5, 2.25, 5


def segment(images: NDArray[np.float64], sigma: NDArray[np.float64] | None = None) -> NDArray[np.int32]:
    """Number the sources of stamps (B, H, W) with the sky taken off; 0 is sky.

    Parameters
    ----------
    images : array (B, H, W)
    sigma : array, optional
        Noise of a pixel, that broadcasts to the images; by default what
        :func:`~priorscope_astro.imaging.noise.sky_sigma` finds in each stamp.
    """
    from priorscope_astro.imaging.noise import sky_sigma

    whole = np.where(np.isfinite(images), images, 0.0)
    noise = sky_sigma(whole)[:, None, None] if sigma is None else sigma
    labels = regions(box(whole, BOX) > THRESHOLD / BOX * noise)
    small = np.bincount(labels.ravel()) < LEAST
    labels[small[labels]] = 0
    return labels


def middle_source(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Number of the source at, or else nearest to, the middle pixel of each stamp, (B,); 0 where there is none."""
    height, width = labels.shape[1:]
    found = labels[:, height // 2, width // 2].copy()
    y, x = np.ogrid[:height, :width]
    distance = (y - height // 2) ** 2 + (x - width // 2) ** 2
    others = np.flatnonzero(found == 0)
    flat = labels[others].reshape(len(others), height * width)
    near = np.where(flat > 0, distance.ravel(), height**2 + width**2).argmin(1)
    found[others] = flat[np.arange(len(others)), near]
    return found

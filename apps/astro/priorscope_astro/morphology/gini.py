"""Gini coefficient and M20 (Lotz et al. 2004), and the signal to noise of the pixels they use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from priorscope_astro.morphology.filters import brightest, gaussian_each, region_at
from priorscope_astro.morphology.profile import ANNULUS, Shape, aperture_flux

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: The image is smoothed by this part of the Petrosian semi-major axis to find the source's pixels.
SMOOTHING = 0.2
INVALID = np.nan


def petrosian_region(images: Array, shape: Shape, radius: Array) -> tuple[Mask, NDArray[np.int64]]:
    """Pixels of the smoothed image that are as bright as it is at the Petrosian ellipse, joined to the brightest one.

    Parameters
    ----------
    shape : Shape
        Ellipses about the centroid.
    radius : array (B,)
        Petrosian semi-major axis.

    Returns
    -------
    region : bool array (B, H, W)
    flag : array (B,)
        1 where other regions were left out, 2 where the region is empty or the whole image.
    """
    smooth = gaussian_each(images, SMOOTHING * radius)
    inner, outer = radius - 0.5 * ANNULUS, radius + 0.5 * ANNULUS
    level = aperture_flux(smooth, shape, outer) - aperture_flux(smooth, shape, inner)
    level /= shape.area(outer) - shape.area(inner)
    above = smooth >= level[:, None, None]
    region = region_at(above, brightest(smooth))
    size, chosen = above.sum((1, 2)), region.sum((1, 2))
    full = size == above[0].size
    flag = np.where((size == 0) | full, 2, np.where(chosen < size, 1, 0))
    return region, flag


def gini(images: Array, region: Mask) -> tuple[Array, NDArray[np.int64]]:
    """Gini coefficient of the absolute pixel values of a region: 0 where all are equal, 1 where one has all.

    Returns
    -------
    value : array (B,)
        INVALID where there are fewer than two pixels, or no light.
    flag : array (B,)
        2 there.
    """
    batch = len(images)
    count = region.sum((1, 2))
    # pixels outside are zeros and sort first: ranks count from behind
    values = np.sort(np.where(region, np.abs(images), 0.0).reshape(batch, -1), axis=1)
    total = values.sum(1)
    rank = np.arange(1, values.shape[1] + 1) - (values.shape[1] - count[:, None])
    sound = (count > 1) & (total > 0)
    over = np.einsum("bn,bn->b", 2.0 * rank - count[:, None] - 1, values)
    value = over / np.where(sound, (count - 1.0) * total, 1)
    return np.where(sound, value, INVALID), np.where(sound, 0, 2)


def m20(images: Array, region: Mask) -> tuple[Array, NDArray[np.int64]]:
    """log10 of the second moment of the brightest pixels that hold 20 % of the light, over the whole second moment.

    Returns
    -------
    value : array (B,)
        INVALID where a flux or a moment is not positive.
    flag : array (B,)
        2 there.
    """
    batch, height, width = images.shape
    own = np.where(region, images, 0.0)
    flux = own.sum((1, 2))
    sound = (flux > 0) & region.any((1, 2))
    flux = np.where(sound, flux, 1.0)
    x = np.arange(width) - (own.sum(1) @ np.arange(width) / flux)[:, None]
    y = np.arange(height) - (own.sum(2) @ np.arange(height) / flux)[:, None]

    def moment(light: Array) -> Array:
        return (light.sum(1) * x**2).sum(1) + (light.sum(2) * y**2).sum(1)

    values = np.sort(own.reshape(batch, -1), axis=1)
    share = np.cumsum(values, axis=1)
    share /= np.where(sound, values.sum(1), 1.0)[:, None]
    bright = share >= 0.8
    sound &= bright.any(1)
    level = values[np.arange(batch), bright.argmax(1)]
    whole, brightest_part = moment(own), moment(np.where(own >= level[:, None, None], own, 0.0))
    sound &= (whole > 0) & (brightest_part > 0)
    value = np.log10(np.where(sound, brightest_part, 1) / np.where(sound, whole, 1))
    return np.where(sound, value, INVALID), np.where(sound, 0, 2)


def signal_to_noise(images: Array, region: Mask, sigma: Array) -> tuple[Array, NDArray[np.int64]]:
    """Mean of image over sigma of a region's pixels that are not negative and have a sigma; or INVALID, and 2."""
    counted = region & (images >= 0) & (sigma > 0)
    count = counted.sum((1, 2))
    ratio = np.where(counted, images, 0.0) / np.where(counted, sigma, 1.0)
    return np.where(count > 0, ratio.sum((1, 2)) / np.maximum(count, 1), INVALID), np.where(count > 0, 0, 2)

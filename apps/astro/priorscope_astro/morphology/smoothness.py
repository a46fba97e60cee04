"""Smoothness, or clumpiness, S: the light in structure finer than a quarter of the Petrosian radius (Lotz et al. 2004).

Also the same of the sky, and its other statistics.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from priorscope_astro.morphology.filters import box_each, windows
from priorscope_astro.morphology.profile import Shape, aperture_flux

Array = NDArray[np.float64]
#: The box, and the inner and outer edge of the ring that counts, in Petrosian radii.
BOX, EXTENT = 0.25, 1.5
INVALID = np.nan


def boxes(radius: Array) -> NDArray[np.int64]:
    """Sides of the smoothing boxes in pixels."""
    return (BOX * radius).astype(np.int64)


def _fine(images: Array, size: NDArray[np.int64]) -> Array:
    """What stands above the smoothed image."""
    found = images - box_each(images, size)
    return np.maximum(found, 0, out=found)


class Sky:
    """Sky in the squares that :func:`.stamps.skyboxes` found; all NaN where there is none.

    Attributes
    ----------
    mean, median, sigma : array (B,)
    asymmetry : array (B,)
        Mean of |turned - sky| a pixel.
    """

    def __init__(self, images: Array, corner: NDArray[np.intp], side: NDArray[np.intp]) -> None:
        self.images, self.corner, self.side = images, corner, side
        self.mean, self.median, self.sigma, self.asymmetry = np.full((4, len(images)), np.nan)
        for rows, square in self._squares():
            flat = square.reshape(len(rows), -1)
            self.mean[rows], self.median[rows], self.sigma[rows] = flat.mean(1), np.median(flat, 1), flat.std(1)
            self.asymmetry[rows] = np.abs(flat - flat[:, ::-1]).mean(1)

    def _squares(self):
        for size in np.unique(self.side[self.side > 0]):
            rows = np.flatnonzero(self.side == size)
            yield rows, windows(self.images, self.corner[rows], (size, size), rows)

    def smoothness(self, size: NDArray[np.int64]) -> Array:
        """Mean a pixel of what stands above the smoothed sky, for boxes of ``size``."""
        found = np.full(len(self.images), np.nan)
        for rows, square in self._squares():
            found[rows] = _fine(square, size[rows]).mean((1, 2))
        return found


def smoothness(images: Array, centre: Array, radius: Array, sky: Sky) -> tuple[Array, NDArray[np.int64]]:
    """S in the ring between BOX and EXTENT Petrosian radii; may be negative, since the sky's share is taken off.

    Returns
    -------
    value : array (B,)
        INVALID where the light is not positive.
    flag : array (B,)
        2 there.
    """
    size, shape = boxes(radius), Shape(centre)
    inner, outer = BOX * radius, EXTENT * radius
    flux, fine = (
        aperture_flux(one, shape, outer) - aperture_flux(one, shape, inner) for one in (images, _fine(images, size))
    )
    fine = fine - np.nan_to_num(np.pi * (outer**2 - inner**2) * sky.smoothness(size))
    sound = flux > 0
    return np.where(sound, fine / np.where(sound, flux, 1), INVALID), np.where(sound, 0, 2)

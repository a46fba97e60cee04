"""The whole visible extent of a source: pixels a sigma above the sky (Pawlik et al. 2016)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from priorscope_astro.morphology.filters import box, brightest, ranked, region_at
from priorscope_astro.morphology.profile import Shape

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: The sky is taken between these multiples of the Petrosian semi-major axis.
SKY = (2.0, 4.0)


class _Sorted:
    """Sorted values of each image, and statistics of a stretch of them without adding them up again."""

    def __init__(self, values: Array, counted: Mask) -> None:
        self.values, self.count = ranked(values, counted)
        finite = np.where(np.isfinite(self.values), self.values, 0.0)
        self.shift = finite.sum(1) / np.maximum(self.count, 1)  # keeps the squares small
        finite = np.where(np.isfinite(self.values), self.values - self.shift[:, None], 0.0)
        zero = np.zeros((len(values), 1))
        self.sums = np.concatenate([zero, np.cumsum(finite, axis=1)], axis=1)
        self.squares = np.concatenate([zero, np.cumsum(finite**2, axis=1)], axis=1)

    def statistics(self, low: NDArray, high: NDArray) -> tuple[Array, Array, Array]:
        """Mean, median and standard deviation of the values number low to high - 1."""
        rows, count = np.arange(len(low)), np.maximum(high - low, 1)
        mean = (self.sums[rows, high] - self.sums[rows, low]) / count
        variance = (self.squares[rows, high] - self.squares[rows, low]) / count - mean**2
        last = self.values.shape[1] - 1
        middle = [self.values[rows, np.minimum(low + at, last)] for at in ((count - 1) // 2, count // 2)]
        return mean + self.shift, (middle[0] + middle[1]) / 2, np.sqrt(np.maximum(variance, 0))

    def clipped(self, low: NDArray, high: NDArray, centre, most: int) -> tuple[NDArray, NDArray]:  # type: ignore[no-untyped-def]
        """Clip at 3 sigma about ``centre(low, high)`` until nothing changes, at most ``most`` times."""
        left = np.arange(len(low))
        low, high = low.copy(), high.copy()
        rank = np.arange(self.values.shape[1])
        for _ in range(most):
            middle, deviation = centre(low, high), self.statistics(low, high)[2]
            inside = (self.values >= (middle - 3 * deviation)[:, None]) & (
                self.values <= (middle + 3 * deviation)[:, None]
            )
            inside &= (rank >= low[:, None]) & (rank < high[:, None])
            kept = inside.sum(1)
            new_low = np.where(kept > 0, inside.argmax(1), low)
            changed = (kept != high - low)[left]
            low, high = new_low, new_low + kept
            if not changed.any():
                break
        return low, high

    def sky(self) -> tuple[Array, Array]:
        """Mode (2.5 median - 1.5 mean, Bertin and Arnouts 1996) and deviation after clipping about the mode."""

        def mode(low: NDArray, high: NDArray) -> Array:
            mean, median, _ = self.statistics(low, high)
            return 2.5 * median - 1.5 * mean

        def clipped_mode(low: NDArray, high: NDArray) -> Array:
            return mode(*self.clipped(low, high, lambda a, b: self.statistics(a, b)[1], 10))

        low, high = self.clipped(np.zeros_like(self.count), self.count, clipped_mode, 10_000)
        return mode(low, high), self.statistics(low, high)[2]


def outline(
    images: Array,
    masks: Mask,
    centre: Array,
    radius: Array,
    skybox: tuple[NDArray[np.intp], NDArray[np.intp]],
    least_sky: int,
) -> tuple[Mask, NDArray[np.int64]]:
    """Pixels whose mean over 3 x 3 is above the sky's mode + 1 sigma, joined to the brightest one.

    Parameters
    ----------
    radius : array (B,)
        Petrosian semi-major axis.
    skybox : arrays (B, 2), (B,)
        Corner and side of a square of sky, taken where the ring holds fewer pixels than ``least_sky``.

    Returns
    -------
    bool array (B, H, W), and flags: 2 where no sky was found, or the brightest pixel was not above it.
    """
    height, width = images.shape[1:]
    distance = Shape(centre).radii((height, width))
    inner, outer = (times * radius[:, None, None] for times in SKY)
    counted = (distance >= inner) & (distance < outer) & ~masks
    few = np.flatnonzero(counted.sum((1, 2)) < least_sky)
    if len(few):
        corner, side = skybox[0][few, :, None, None], skybox[1][few, None, None]
        y, x = np.arange(height)[:, None], np.arange(width)
        counted[few] = (y >= corner[:, 0]) & (y < corner[:, 0] + side) & (x >= corner[:, 1]) & (x < corner[:, 1] + side)
    known = counted.any((1, 2))
    mode, deviation = _Sorted(images, counted).sky()
    smooth = box(images, 3)
    above = smooth >= (mode + deviation)[:, None, None]
    at, every = brightest(smooth), np.arange(len(images))
    flag = np.where(known & above[every, at[:, 0], at[:, 1]], 0, 2)
    above[every, at[:, 0], at[:, 1]] = True
    found = region_at(above, at)
    found[~known] = ~masks[~known]
    return found, flag


def extent(region: Mask, shape: Shape) -> Array:
    """Largest semi-major axis of an ellipse (or radius of a circle) through a pixel of the region, (B,)."""
    return np.where(region, shape.radii(region.shape[1:]), 0.0).max((1, 2))

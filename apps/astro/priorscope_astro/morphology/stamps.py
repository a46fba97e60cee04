"""What is measured of a source: its cut-out, which pixels count, its moments, and the sky beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: A cut-out has EXTENT times the segment's larger side, and at least MIN_SIZE pixels; bad pixels are OUTLIER sigma off.
EXTENT, MIN_SIZE, OUTLIER, SKYBOX = 2.5, 48, 10.0, 32


@dataclass
class Stamps:
    """Sources of one cut-out's size. ``images`` are 0 where ``masks`` are set."""

    images: Array
    masks: Mask
    segments: Mask
    occupied: Mask
    origin: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: NDArray) -> Stamps:
        """Those of these rows."""
        parts = (self.images, self.masks, self.segments, self.occupied, self.origin)
        return Stamps(*(part[rows] for part in parts))

    @property
    def own(self) -> Array:
        """Images of the segment's unmasked pixels, 0 elsewhere."""
        return np.where(self.segments & ~self.masks, self.images, 0.0)


def cutouts(segments: Mask) -> NDArray[np.intp]:
    """First and last + 1 row, first and last + 1 column of each source's cut-out, (B, 4)."""
    batch, height, width = segments.shape
    found = np.empty((batch, 4), dtype=np.intp)
    rows, columns = np.asarray(segments.any(2)), np.asarray(segments.any(1))
    low, high = rows.argmax(1), height - rows[:, ::-1].argmax(1)
    left, right = columns.argmax(1), width - columns[:, ::-1].argmax(1)
    tall, wide = high - low, right - left
    reach = np.maximum((np.maximum(tall, wide) * EXTENT / 2).astype(int), MIN_SIZE // 2)
    y, x = low + tall // 2, left + wide // 2
    found[:, 0], found[:, 1] = np.maximum(0, y - reach), np.minimum(height, y + reach)
    found[:, 2], found[:, 3] = np.maximum(0, x - reach), np.minimum(width, x + reach)
    return found


def bad_pixels(images: Array) -> Mask:
    """Pixels more than OUTLIER standard deviations of their 8 neighbours from the neighbours' mean (Lotz et al. 2004).

    Images are continued at their edges; values that are not finite count as 0 in their neighbours' mean.
    """
    whole = np.where(np.isfinite(images), images, 0.0)

    def neighbours(values: Array) -> Array:
        padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")
        rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
        return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] - values) / 8

    mean = neighbours(whole)
    with np.errstate(invalid="ignore"):
        return np.abs(images - mean) > OUTLIER * np.sqrt(neighbours(whole**2) - mean**2)


def centroid(own: Array) -> tuple[Array, NDArray[np.int64]]:
    """Centre of light (x, y) of images of positive flux; the stamp's middle, flag 2, where it is outside."""
    height, width = own.shape[1:]
    flux = own.sum((1, 2))
    x, y = own.sum(1) @ np.arange(width) / flux, own.sum(2) @ np.arange(height) / flux
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    centre = np.stack([np.where(outside, width / 2, x), np.where(outside, height / 2, y)], axis=1)
    return centre, np.where(outside, 2, 0)


@dataclass
class Moments:
    """Elongation a/b, and angle of the major axis from the x axis, of the ellipse with a source's second moments."""

    elongation: Array
    theta: Array
    flag: NDArray[np.int64]

    @property
    def ellipticity(self) -> Array:
        return 1 - 1 / self.elongation


def moments(own: Array, centre: Array) -> Moments:
    """Second moments about ``centre``, kept from being thinner than a pixel (SExtractor's manual, eq. 43)."""
    x, y = np.arange(own.shape[2]) - centre[:, :1], np.arange(own.shape[1]) - centre[:, 1:]
    columns = own.sum(1)
    flux = columns.sum(1)
    xx = (columns * x**2).sum(1) / flux
    yy = (own.sum(2) * y**2).sum(1) / flux
    xy = np.einsum("bij,bi,bj->b", own, y, x, optimize=True) / flux
    flag = np.where((xx <= 0) | (yy <= 0), 2, 0)
    pixel = 1 / 12
    for _ in range(100):
        thin = np.abs(xx * yy - xy**2) < pixel**2
        if not thin.any():
            break
        xx, yy = (one + np.where(thin, np.where(one >= 0, pixel, -pixel), 0) for one in (xx, yy))
    middle, apart = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    axes = np.sort(np.abs(np.stack([middle + apart, middle - apart])), axis=0)
    return Moments(np.sqrt(axes[1] / axes[0]), 0.5 * np.arctan2(2 * xy, xx - yy), flag)


def skyboxes(occupied: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First square, row by row, without a source: its row and column (B, 2), and its side (B,), 0 where there is none.

    Sides of SKYBOX pixels are tried, then half of that, down to 2.
    """
    batch, height, width = occupied.shape
    total = np.zeros((batch, height + 1, width + 1), dtype=np.int32)
    np.cumsum(occupied, axis=1, dtype=np.int32, out=total[:, 1:, 1:])
    np.cumsum(total[:, 1:, 1:], axis=2, out=total[:, 1:, 1:])
    corner, side = np.zeros((batch, 2), dtype=np.intp), np.zeros(batch, dtype=np.intp)
    size, left = SKYBOX, np.arange(batch)
    while size >= 2 and len(left):
        if size < min(height, width):
            one = total[left]
            # the last possible place in each direction is not tried, as in the reference
            inside = one[:, size:-1, size:-1] - one[:, : -size - 1, size:-1]
            inside -= one[:, size:-1, : -size - 1] - one[:, : -size - 1, : -size - 1]
            free = (inside == 0).reshape(len(left), -1)
            hit = free.any(1)
            corner[left[hit]] = np.stack(np.unravel_index(free[hit].argmax(1), inside.shape[1:]), axis=1)
            side[left[hit]] = size
            left = left[~hit]
        size //= 2
    return corner, side

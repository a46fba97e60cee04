"""Smoothing, connected regions, windows and ranks of a batch of images, each on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: Neighbours of a pixel with its corners, within its own image of a batch.
NEIGHBOURS = np.zeros((3, 3, 3), dtype=bool)
NEIGHBOURS[1] = True


def windows(
    images: NDArray[Any], corner: NDArray[np.intp], size: tuple[int, int], rows: NDArray[np.intp] | None = None
) -> NDArray[Any]:
    """Windows of one size, of all images or those of ``rows``; ``corner`` is the first row and column of each."""
    views = np.lib.stride_tricks.sliding_window_view(images, size, axis=(1, 2))
    return views[np.arange(len(images)) if rows is None else rows, corner[:, 0], corner[:, 1]]


def ranked(values: Array, counted: Mask) -> tuple[Array, NDArray[np.int64]]:
    """Sorted values of the counted pixels, (B, most), infinity after the last one; and how many there are, (B,)."""
    batch = len(values)
    count = counted.reshape(batch, -1).sum(1)
    found = np.sort(np.where(counted, values, np.inf).reshape(batch, -1), axis=1)
    return found[:, : max(int(count.max()), 1)], count


def regions(masks: Mask) -> NDArray[np.int32]:
    """Label the 8-connected regions of masks (B, H, W), numbered from 1 through the batch, in order of the images."""
    return ndimage.label(masks, structure=NEIGHBOURS)[0]


def region_at(masks: Mask, at: NDArray[np.intp]) -> Mask:
    """The region of each mask that holds the pixel ``at`` (B, 2), row and column; empty where that is not set."""
    labels = regions(masks)
    wanted = labels[np.arange(len(masks)), at[:, 0], at[:, 1]][:, None, None]
    return (labels == wanted) & (wanted > 0)


def brightest(images: Array) -> NDArray[np.intp]:
    """Row and column of the (first) largest value of each image, (B, 2)."""
    places = images.reshape(len(images), -1).argmax(1)
    return np.stack(np.unravel_index(places, images.shape[1:]), axis=1)


def box(images: Array, size: int) -> Array:
    """Mean over a window of ``size`` x ``size``, images mirrored at their edges."""
    return ndimage.uniform_filter(images, size, axes=(1, 2))


def gaussian(images: Array, sigma: float) -> Array:
    """Gaussian smoothing, cut at 4 sigma, images mirrored at their edges."""
    return ndimage.gaussian_filter(images, sigma, axes=(1, 2))


def box_each(images: Array, sizes: NDArray[np.int64]) -> Array:
    """:func:`box` with a size for each image, (B,); sizes below 2 leave it as it is."""
    sizes = np.maximum(sizes, 1)[:, None, None]
    return _filtered(images, lambda offset: (offset >= -(sizes // 2)) & (offset < sizes - sizes // 2), True)


def gaussian_each(images: Array, sigma: Array) -> Array:
    """Gaussian smoothing with a width for each image, (B,), cut at 4 sigma; images are 0 outside."""
    width = np.maximum(sigma, 1e-6)[:, None, None]
    reach = (4 * width + 0.5).astype(int)

    def bell(offset: Array) -> Array:
        return np.where(np.abs(offset) <= reach, np.exp(-0.5 * (offset / width) ** 2), 0)

    return _filtered(images, bell, False)


def _filtered(images: Array, weight, mirrored: bool) -> Array:  # type: ignore[no-untyped-def]
    """Filter along both axes with ``weight(offset)``, by a product with a matrix for each image and axis."""
    height, width = images.shape[1:]
    along_y = _matrices(height, weight, mirrored)
    along_x = along_y if width == height else _matrices(width, weight, mirrored)
    return along_y @ images @ along_x.transpose(0, 2, 1)


def _matrices(size: int, weight, mirrored: bool) -> Array:  # type: ignore[no-untyped-def]
    # weights by distance, from the farthest on one side to the farthest on the other
    wide = np.arange(-3 * size, 3 * size + 1)[None, None]
    weights = weight(wide).astype(float)
    weights /= weights.sum(2, keepdims=True)
    row, column = np.ogrid[:size, :size]
    middle = 3 * size
    found = weights[:, 0, middle + column - row]
    if mirrored:
        found += weights[:, 0, middle - 1 - column - row]
        found += weights[:, 0, middle + 2 * size - 1 - column - row]
    return found

"""The square grid that a volume is reconstructed on. For research use only."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_medical.volumes import Volume

#: What lies outside a volume, by unit.
AIR = {"HU": -1000.0, "attenuation": 0.0, "intensity": 0.0}


def slab(volume: Volume, slices: tuple[int, int] | None) -> Volume:
    """Some slices of a volume, in their place: the first, and one after the last; None takes all."""
    if slices is None:
        return volume
    first, last = slices
    if not 0 <= first < last <= len(volume.data):
        raise InputError(
            f"slices {first} to {last} of {len(volume.data)}",
            path=volume.source,
            remedy=f"Give the first, and one after the last, within 0 and {len(volume.data)}.",
        )
    affine = volume.affine.copy()
    affine[:3, 3] += first * affine[:3, volume.axes[0]]
    return replace(volume, data=volume.data[first:last], affine=affine)


def side_in_mm(volume: Volume) -> float:
    """Side of the smallest square that holds a slice."""
    _, height, width = volume.data.shape
    return max(height * volume.spacing[1], width * volume.spacing[2])


def square(volume: Volume, size: int, pixel: float | None = None) -> Volume:
    """Slices of ``size`` x ``size`` square pixels around the same middle, each the mean over its area.

    Parameters
    ----------
    volume : Volume
        Pixels need not be square, slices neither.
    size : int
        Pixels along a side.
    pixel : float, optional
        mm; by default all of a slice just fits. What lies outside the volume is air.

    Returns
    -------
    Volume
        Where it was; a slice that is on this grid already keeps its values.
    """
    if size < 1:
        raise InputError(f"slices of {size} x {size} pixels", remedy="Use --size 96, say.")
    pixel = side_in_mm(volume) / size if pixel is None else pixel
    air = AIR[volume.unit]
    rows = _overlaps(volume.data.shape[1], volume.spacing[1], size, pixel)
    columns = _overlaps(volume.data.shape[2], volume.spacing[2], size, pixel)
    data = np.empty((len(volume.data), size, size), np.float32)
    for number, image in enumerate(volume.data):
        data[number] = rows @ (image - air) @ columns.T + air
    affine = volume.affine.copy()
    middle = [(count - 1) / 2 for count in volume.data.shape]
    for axis, place, spacing in zip(volume.axes[1:], (1, 2), volume.spacing[1:], strict=True):
        step = volume.affine[:3, axis] * (pixel / spacing)
        affine[:3, 3] += middle[place] * volume.affine[:3, axis] - (size - 1) / 2 * step
        affine[:3, axis] = step
    return replace(volume, data=data, affine=affine, spacing=(volume.spacing[0], pixel, pixel))


def finer_object(volume: Volume, size: int) -> tuple[Volume, int]:
    """The volume on a square grid whose sides are a multiple of ``size``, at least as fine as its own pixels.

    Returns
    -------
    Volume, int
        The object, and how many of its pixels are one of ``size``.

    Raises
    ------
    InputError
        ``size`` is below 8.
    """
    if size < 8:
        raise InputError(f"slices of {size} x {size} pixels", remedy="Use at least 8.")
    own = side_in_mm(volume) / min(volume.spacing[1:])
    coarsen = max(1, math.ceil(own / size - 1e-6))
    return square(volume, size * coarsen), coarsen


def _overlaps(count: int, spacing: float, size: int, pixel: float) -> NDArray[np.float32]:
    """Shares of ``count`` cells of ``spacing`` in each of ``size`` cells of ``pixel``, both rows centred at 0."""
    old = (np.arange(count + 1) - count / 2) * spacing
    new = (np.arange(size + 1) - size / 2) * pixel
    low = np.maximum(old[None, :-1], new[:-1, None])
    high = np.minimum(old[None, 1:], new[1:, None])
    return (np.clip(high - low, 0, None) / pixel).astype(np.float32)

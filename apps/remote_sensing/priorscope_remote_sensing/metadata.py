"""What DiffusionSat is told about an image: where, how fine, how cloudy, and when. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError

#: Lowest and highest value of each entry, and what the normalised 0 and 1000 stand for.
_RANGES = {
    "longitude": (-180.0, 180.0),
    "latitude": (-90.0, 90.0),
    "gsd": (0.0, math.inf),
    "cloud_cover": (0.0, 1.0),
    "year": (1980.0, 2100.0),
    "month": (1.0, 12.0),
    "day": (1.0, 31.0),
}
_ORIGIN = np.array([-180.0, -90.0, 0.0, 0.0, 1980.0, 0.0, 0.0])
_SPAN = np.array([360.0, 180.0, 1.0, 1.0, 120.0, 12.0, 31.0])


@dataclass(frozen=True)
class Metadata:
    """Metadata of one image in natural units; None marks what is unknown.

    Parameters
    ----------
    longitude, latitude : float, optional
        Degrees east and north (WGS 84) of the image's centre.
    gsd : float, optional
        Ground sampling distance in metres a pixel, of the pixels that the network sees: after any resizing
        (:meth:`resized`).
    cloud_cover : float, optional
        Fraction, 0 ... 1.
    year, month, day : int, optional
        Of the acquisition; 1980 ... 2100, 1 ... 12, 1 ... 31.

    Raises
    ------
    InputError
        A value out of its range.

    Notes
    -----
    The network cannot tell "unknown" from the origin of an entry (longitude -180, no cloud at all): it was
    trained with entries dropped to 0. Source: Khanna et al. 2024 (DiffusionSat), samar-khanna/DiffusionSat.
    """

    longitude: float | None = None
    latitude: float | None = None
    gsd: float | None = None
    cloud_cover: float | None = None
    year: int | None = None
    month: int | None = None
    day: int | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, int | float | np.integer | np.floating) or not low <= value <= high:
                raise InputError(
                    f"{name} = {value!r} lies outside {low:g} ... {high:g}", remedy="Use None where it is not known."
                )
            if not math.isfinite(value) or (name == "gsd" and value == 0):
                raise InputError(f"{name} = {value!r} is no distance", remedy="Use None where it is not known.")

    def resized(self, original: int, target: int) -> Metadata:
        """The same scene after an image ``original`` pixels wide was resized to ``target`` pixels."""
        if original < 1 or target < 1:
            raise InputError(f"image widths {original} and {target}")
        return self if self.gsd is None else replace(self, gsd=self.gsd * original / target)

    def normalised(self) -> NDArray[np.float32]:
        """The seven numbers that the network was trained on, nominally 0 ... 1000; unknown entries are 0."""
        values = [getattr(self, field.name) for field in fields(self)]
        known = np.array([value is not None for value in values])
        numbers = np.array([0.0 if value is None else value for value in values], dtype=np.float64)
        return np.where(known, (numbers - _ORIGIN) / _SPAN * 1000, 0.0).astype(np.float32)


#: Entries of the metadata vector, in order.
METADATA_NAMES = tuple(field.name for field in fields(Metadata))


def normalise(metadata: Sequence[Metadata | None]) -> NDArray[np.float32]:
    """Normalised metadata of a batch; None is an image of which nothing is known.

    Returns
    -------
    float32 array (B, 7)
    """
    if not metadata:
        raise InputError("no metadata: the batch is empty")
    return np.stack([(entry or Metadata()).normalised() for entry in metadata])


def denormalise(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Natural units of normalised metadata, shape (..., 7); an unknown entry comes back as its origin."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape[-1:] != (len(METADATA_NAMES),):
        raise InputError(f"metadata has {len(METADATA_NAMES)} entries an image, got shape {numbers.shape}")
    return numbers / 1000 * _SPAN + _ORIGIN

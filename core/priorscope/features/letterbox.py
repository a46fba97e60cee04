"""A picture in a square, its longer side filling it, and the same map for points (sd-dino)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from priorscope.errors import InputError


@dataclass(frozen=True)
class Letterbox:
    """Where a picture of ``width`` x ``height`` pixels lies in a square of ``side`` pixels.

    Attributes
    ----------
    scale : float
        Square pixels per picture pixel.
    left, top : int
        Offset of the picture in the square.
    inner : (width, height)
        Size of the picture in the square.
    """

    width: int
    height: int
    side: int

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.side) < 1 or min(self.inner) < 1:
            raise InputError(f"a picture of {self.width} x {self.height} in a square of {self.side}")

    @property
    def scale(self) -> float:
        return self.side / max(self.width, self.height)

    @property
    def inner(self) -> tuple[int, int]:
        if self.height < self.width:
            return self.side, round(self.side * self.height / self.width)
        return round(self.side * self.width / self.height), self.side

    @property
    def left(self) -> int:
        return (self.side - self.inner[0]) // 2

    @property
    def top(self) -> int:
        return (self.side - self.inner[1]) // 2

    def image(self, picture: Image.Image | NDArray[np.uint8], *, edge: bool = False) -> NDArray[np.uint8]:
        """The picture in its square, uint8 [side, side, 3]: Lanczos, black around it (or its edge repeated)."""
        picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        if picture.size != (self.width, self.height):
            raise InputError(f"a picture of {picture.size} where {(self.width, self.height)} was announced")
        small = np.asarray(picture.convert("RGB").resize(self.inner, Image.Resampling.LANCZOS))
        right, bottom = self.side - self.left - self.inner[0], self.side - self.top - self.inner[1]
        around = ((self.top, bottom), (self.left, right), (0, 0))
        return np.pad(small, around, mode="edge") if edge else np.pad(small, around)

    def points(self, points: ArrayLike, dtype: type[np.floating] = np.float64) -> NDArray[np.floating]:
        """Picture points (..., 2), as (x, y), in the square's pixels.

        ``dtype=np.float32`` rounds as sd-dino does (parity): 45 * 16.8 = 755.99994 then falls into another patch.
        """
        offset = np.array([self.left, self.top], dtype)
        return np.asarray(points, dtype) * dtype(self.scale) + offset

    def undo(self, points: ArrayLike) -> NDArray[np.float64]:
        """Square points (..., 2), as (x, y), in the picture's pixels."""
        return (np.asarray(points, dtype=np.float64) - np.array([self.left, self.top])) / self.scale


def patch_of(points: ArrayLike, side: int, patches: int) -> NDArray[np.int64]:
    """Row-major index of the patch that holds each point (..., 2) of a square of ``side`` pixels.

    float32 points are placed in float32, as sd-dino does.
    """
    points = np.asarray(points)
    places = np.trunc(patches / side * points).astype(np.int64)
    if np.any((places < 0) | (places >= patches)):
        raise InputError(f"points outside the square of {side} pixels")
    return places[..., 1] * patches + places[..., 0]


def patch_centre(index: ArrayLike, side: int, patches: int) -> NDArray[np.float64]:
    """Centre (..., 2), as (x, y), of patches given by row-major index; pixel centres are whole numbers."""
    index = np.asarray(index)
    stride = side / patches
    return np.stack([index % patches, index // patches], axis=-1) * stride + (stride - 1) / 2

"""Pinhole cameras of procedural scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with square pixels in a world whose z points up.

    Attributes
    ----------
    position : ndarray, (3,)
        Metres.
    rotation : ndarray, (3, 3)
        World to camera; its rows are the camera's right, down and forward directions.
    field_of_view : float
        Angle between the left and right border, radians.
    """

    position: Array
    rotation: Array
    field_of_view: float

    def intrinsics(self, height: int, width: int) -> Array:
        """The (3, 3) matrix that maps camera points (right, down, forward) to pixels; centres lie at +0.5."""
        focal = width / 2 / np.tan(self.field_of_view / 2)
        return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])

    def rays(self, columns: Array, rows: Array, height: int, width: int) -> Array:
        """World directions, (N, 3), through image points in pixels; scaled so that depth along the axis is 1."""
        matrix = self.intrinsics(height, width)
        x = (columns - matrix[0, 2]) / matrix[0, 0]
        y = (rows - matrix[1, 2]) / matrix[1, 1]
        return np.stack([x, y, np.ones_like(x)], axis=-1) @ self.rotation


def pixel_centres(height: int, width: int) -> tuple[Array, Array]:
    """Columns and rows of all pixel centres, (H*W,) each, row by row."""
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return columns.ravel(), rows.ravel()


def look_at(position: Array, target: Array, field_of_view: float, roll: float = 0.0) -> Camera:
    """A camera at `position` that looks at `target`, upright but for `roll` (radians)."""
    forward = np.asarray(target, dtype=float) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    return Camera(
        np.asarray(position, dtype=float),
        np.stack([c * right + s * down, c * down - s * right, forward]),
        field_of_view,
    )


def random_view(rng: np.random.Generator, position: Array, target: Array) -> Camera:
    """A camera as a person holds it: mostly 35 to 85 degrees wide, a roll of a few degrees now and then."""
    roll = np.radians(rng.normal() * (4.0 if rng.uniform() < 0.25 else 1.0))
    kind = rng.uniform()
    # some pictures are from far with a long lens, some from near with a wide one
    low, high = (20, 38) if kind < 0.12 else (80, 105) if kind > 0.9 else (38, 82)
    return look_at(position, target, np.radians(rng.uniform(low, high)), roll)

"""A drawing board in millimetres: shapes with soft edges, laid one over another.

Boards are kept at twice the resolution of the slice, masks of shapes at twice that again, so that walls thinner than a
pixel come out as the partial volume a scanner would measure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

#: Directions at which outlines are tabulated; at 100 mm from the centre they lie 0.6 mm apart.
ANGLES = 1024
_THETA = np.arange(ANGLES) * (2 * math.pi / ANGLES)
_MASK = 2
_RIPPLES = 4


class Canvas:
    """A square board with its own stream of random numbers.

    Points are (k, 2) arrays of (x, y) in mm of the current frame: for a body lying straight, x runs to its left and y
    to its front, from its centre.

    Parameters
    ----------
    size : int
        Pixels of the finished slice along a side.
    pixel : float
        mm of such a pixel.
    rng : numpy.random.Generator
        Where all shapes come from. No drawing of shapes may depend on ``size`` or ``pixel``: the same body then shows
        in any sampling.
    """

    def __init__(self, size: int, pixel: float, rng: np.random.Generator) -> None:
        self.rng = rng
        self.side = 2 * size
        self.step = pixel / 2
        self.image = np.zeros((self.side, self.side), np.float32)
        ruler = ((np.arange(self.side) - (self.side - 1) / 2) * self.step).astype(np.float32)
        self._rows, self._columns = ruler[:, None], ruler[None, :]
        self.place((0.0, 0.0), 0.0)

    def place(self, centre: tuple[float, float], angle: float) -> None:
        """Move the frame: its origin in mm from the middle of the slice (right, down), its turn in radians."""
        self._centre, self._angle = centre, angle
        c, s = math.cos(angle), math.sin(angle)
        right, down = self._columns - np.float32(centre[0]), self._rows - np.float32(centre[1])
        self.x = c * right + s * down
        self.y = c * down - s * right
        self._polar: tuple[np.ndarray, np.ndarray] | None = None

    def polar(self) -> tuple[np.ndarray, np.ndarray]:
        """Distance from the frame's origin in mm, and the index into tables of `ANGLES` directions."""
        if self._polar is None:
            turn = np.arctan2(self.y, self.x)
            bins = np.rint(turn * np.float32(ANGLES / (2 * math.pi))).astype(np.int16) & (ANGLES - 1)
            self._polar = np.sqrt(self.x * self.x + self.y * self.y), bins
        return self._polar

    def between(self, low: float, high: float) -> float:
        """A number between two bounds, all equally likely."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Whether something is there."""
        return bool(self.rng.random() < probability)

    def wave(self, mean: float, spread: float, *, orders: int = 6, roughness: float = 1.0) -> np.ndarray:
        """A smooth periodic table over `ANGLES` directions: ``mean`` times (1 +- about ``spread``)."""
        k = np.arange(1, orders + 1)
        sizes = self.rng.normal(size=orders) * k**-roughness
        phases = self.rng.uniform(0, 2 * math.pi, orders)
        ripple = sizes @ np.cos(np.outer(k, _THETA) + phases[:, None])
        return (mean * (1 + spread * np.clip(ripple, -2, 2))).astype(np.float32)

    def texture(self, amplitude: float, shortest: float = 12.0) -> np.ndarray:
        """A smooth field of the whole board with this standard deviation; waves of ``shortest`` mm and more."""
        rank = 10
        waves = 2 * math.pi / self.rng.uniform(shortest, 6 * shortest, (2, rank, 1))
        phases = self.rng.uniform(0, 2 * math.pi, (2, rank, 1))
        rows = np.cos(waves[0] * self._rows[:, 0] + phases[0])
        columns = np.cos(waves[1] * self._columns[0] + phases[1])
        return ((2 * amplitude / math.sqrt(rank)) * (rows.T @ columns)).astype(np.float32)

    def edge(self, depth: np.ndarray, softness: float = 0.0) -> np.ndarray:
        """How much of each pixel has a depth above zero, for depths in mm; ``softness`` mm widen the edge."""
        return np.clip(depth / (self.step + softness) + 0.5, 0, 1)

    def paint(self, cover: np.ndarray, value: float | np.ndarray) -> None:
        """Lay a value over the board, as opaque as ``cover`` says."""
        self.image += cover * (value - self.image)

    def fill(
        self,
        shapes: np.ndarray | Sequence[np.ndarray],
        value: float,
        *,
        opacity: float = 1.0,
        low: float = -1.0,
        high: float = 100.0,
    ) -> None:
        """Lay one or more polygons over the board, only where the board now lies between ``low`` and ``high``."""
        polygons = [shapes] if isinstance(shapes, np.ndarray) else list(shapes)
        pixels = [self._pixels(points) for points in polygons if len(points) > 2]
        if not pixels:
            return
        everything = np.concatenate(pixels)
        left, top = np.maximum(np.floor(everything.min(0)).astype(int) - 1, 0)
        right, bottom = np.minimum(np.ceil(everything.max(0)).astype(int) + 2, self.side)
        if right <= left or bottom <= top:
            return
        mask = Image.new("L", (_MASK * (right - left), _MASK * (bottom - top)))
        draw = ImageDraw.Draw(mask)
        for points in pixels:
            corners = (points - (left, top) + 0.5) * _MASK
            draw.polygon(corners.ravel().tolist(), fill=255)
        cover = np.asarray(mask.reduce(_MASK), np.float32) * np.float32(opacity / 255)
        board = self.image[top:bottom, left:right]
        if low > -1 or high < 100:
            cover = cover * ((board >= low) & (board <= high))
        board += cover * (np.float32(value) - board)

    def band(self, line: np.ndarray, width: float | np.ndarray, value: float, **keywords: float) -> None:
        """Lay a line of some width in mm over the board; one too thin to draw is drawn fainter."""
        least = self.step
        widths = np.broadcast_to(np.asarray(width, float), len(line))
        thin = min(1.0, float(widths.mean()) / least)
        along = np.gradient(line, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], 1) / (np.hypot(along[:, :1], along[:, 1:]) + 1e-9)
        # The mask takes in every pixel that an edge touches.
        half = 0.5 * (np.maximum(widths, least) - 0.3 * self.step)[:, None] * across
        self.fill(np.concatenate([line + half, (line - half)[::-1]]), value, opacity=thin, **keywords)

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        c, s = math.cos(self._angle), math.sin(self._angle)
        right = c * points[:, 0] - s * points[:, 1] + self._centre[0]
        down = s * points[:, 0] + c * points[:, 1] + self._centre[1]
        return np.stack([right, down], 1) / self.step + (self.side - 1) / 2


def blob(
    rng: np.random.Generator,
    centre: tuple[float, float],
    axes: tuple[float, float],
    *,
    angle: float = 0.0,
    rough: float = 0.08,
    corners: int = 28,
) -> np.ndarray:
    """A closed curve near an ellipse: (corners, 2) points in mm.

    ``axes`` are the half axes in mm before the turn by ``angle`` radians; ``rough`` is the size of the ripples.
    """
    waves = _waves(corners)
    radius = np.ones(corners)
    if rough:
        radius += np.clip(rough * (rng.normal(size=2 * _RIPPLES) @ waves[2:]), -0.6, 0.9)
    x, y = axes[0] * radius * waves[0], axes[1] * radius * waves[1]
    c, s = math.cos(angle), math.sin(angle)
    return np.stack([centre[0] + c * x - s * y, centre[1] + s * x + c * y], 1)


def curve(knots: Sequence[tuple[float, float]], points: int = 24) -> np.ndarray:
    """The polynomial through a few knots: (points, 2) in mm."""
    return _bend(len(knots), points) @ np.asarray(knots, float)


@lru_cache
def _waves(corners: int) -> np.ndarray:
    """Cosine and sine of the directions, then the ripples of `blob`, finer ones smaller."""
    t = np.arange(corners) * (2 * math.pi / corners)
    k = np.arange(2, 2 + _RIPPLES)[:, None]
    return np.concatenate([[np.cos(t), np.sin(t)], math.sqrt(2) / k * np.cos(k * t), math.sqrt(2) / k * np.sin(k * t)])


@lru_cache
def _bend(knots: int, points: int) -> np.ndarray:
    """The matrix that lays a polynomial through evenly spaced knots."""
    given, wanted = np.linspace(0, 1, knots), np.linspace(0, 1, points)
    return np.vander(wanted, knots) @ np.linalg.inv(np.vander(given, knots))

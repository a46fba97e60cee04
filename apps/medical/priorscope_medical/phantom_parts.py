"""Parts that several levels of the body show; values and directions as in `phantom_heads`."""

from __future__ import annotations

import numpy as np

from priorscope_medical.phantom_canvas import Canvas, blob, curve

SIDES = (-1, 1)


def rounded(corners: np.ndarray) -> np.ndarray:
    """A closed polygon with its corners cut twice."""
    for _ in range(2):
        following = np.roll(corners, -1, 0)
        corners = np.stack([0.75 * corners + 0.25 * following, 0.25 * corners + 0.75 * following], 1).reshape(-1, 2)
    return corners


def cells(
    c: Canvas,
    centre: tuple[float, float],
    spread: tuple[float, float],
    count: int,
    radius: float,
    value: float,
    low: float = -1.0,
) -> None:
    """A cluster of small shapes of one value, only where the board now exceeds ``low``."""
    at = c.rng.normal(size=(count, 2)) * spread + centre
    sizes = radius * c.rng.uniform(0.5, 1.5, (count, 2))
    shapes = [blob(c.rng, (x, y), (r, s), rough=0.15, corners=12) for (x, y), (r, s) in zip(at, sizes, strict=True)]
    c.fill(shapes, value, low=low)


def soft_mosaic(c: Canvas, a: float, y0: float, y1: float, count: int) -> None:
    """Muscles and fat side by side and fat planes between, roughly alike on both sides."""
    muscles: list[np.ndarray] = []
    fats: list[np.ndarray] = []
    for _ in range(count):
        x, y = c.between(0.1, 0.9) * a, c.between(y0, y1)
        axes, turn = (c.between(2, 13), c.between(3, 20)), c.between(-0.8, 0.8)
        for side in SIDES:
            shape = blob(
                c.rng, (side * x + c.between(-2, 2), y + c.between(-2, 2)), axes, angle=side * turn, corners=18
            )
            (muscles if c.chance(0.6) else fats).append(shape)
    fat = c.between(0.88, 0.94)
    c.fill(fats, fat, low=0.8, high=1.1)
    c.fill(muscles, c.between(1.04, 1.07), low=0.8, high=1.1)
    for _ in range(c.rng.integers(0, 5)):
        knots = np.array([(c.between(0.05, 0.9) * a, c.between(y0, y1)) for _ in range(3)])
        knots[1] = 0.6 * knots[1] + 0.2 * (knots[0] + knots[2])
        width = c.between(0.8, 3.5)
        for side in SIDES:
            c.band(curve([(side * x, y) for x, y in knots], 12), width, fat, low=0.8, high=1.1)


def nose(c: Canvas, y0: float, y1: float, half: float, wall: float) -> None:
    """The nasal cavity from y0 (back) to y1: air on both sides of a thin septum, soft turbinates in it."""
    bend = c.between(-2.5, 2.5)
    mid = (y0 + y1) / 2
    bone = c.between(1.3, 2.0)
    inner = curve([(0, y0), (bend, mid), (0, y1)], 12)
    back, front = c.between(0.5, 1.0), c.between(0.3, 0.8)
    for side in SIDES:
        edge = curve([(side * half * back, y0), (side * half, mid), (side * half * front, y1)], 12)
        c.fill(np.concatenate([edge, inner[::-1]]), c.between(0, 0.1) if c.chance(0.92) else 1.03)
        c.band(edge, wall, bone)
        for _ in range(c.rng.integers(1, 4)):
            where = (side * half * c.between(0.35, 0.8), c.between(y0, y1))
            size = (c.between(1, 0.35 * half + 1), c.between(4, 0.3 * abs(y1 - y0) + 5))
            c.fill(blob(c.rng, where, size, rough=0.2, angle=c.between(-0.2, 0.2)), 1.03, high=0.5)
            if c.chance(0.5):
                stem = curve([(where[0], where[1] - size[1] * 0.7), (where[0] + 1, where[1] + size[1] * 0.7)])
                c.band(stem, c.between(0.5, 1.2), 1.4, low=0.9, high=1.2)
    c.band(inner, c.between(0.8, 2.6), c.between(1.1, 1.7))


def sinuses(c: Canvas, skin: np.ndarray, x: float, y: float) -> None:
    """The two cavities in the cheeks, thin bone around: rounded triangles, well inside the skin."""
    wide, deep, wall = c.between(8, 17), c.between(9, 22), c.between(0.8, 2.4)
    corner = np.array([x + 1.1 * wide, y + deep])
    toward = round(float(np.arctan2(corner[1], corner[0])) * len(skin) / (2 * np.pi))
    room_left = min(1.0, float(skin[toward] - 8) / float(np.hypot(*corner)))
    x, y, wide, deep = room_left * x, room_left * y, room_left * wide, room_left * deep
    bone, same = c.between(1.5, 2.2), c.rng.normal(size=(5, 2))
    for side in SIDES:
        corners = np.array([(-0.9, 1.0), (0.75, 1.0), (1.1, 0.1), (0.1, -1.1), (-1.0, -0.6)]) * (wide, deep)
        corners = corners * c.between(0.85, 1.1) + 2.5 * same + c.rng.normal(size=(5, 2))
        room = rounded(corners)
        middle = room.mean(0)
        outside = middle + (room - middle) * (1 + 2 * wall / (wide + deep) * c.between(0.9, 1.6))
        c.fill((outside + (x, y)) * (side, 1), bone)
        c.fill((room + (x, y)) * (side, 1), 0.0)
        if c.chance(0.3):
            c.fill(blob(c.rng, (side * x, y - deep * 0.7), (wide, deep * 0.5)), c.between(1.0, 1.04), high=0.3)
        if c.chance(0.15):
            c.band(curve([(side * (x - wide), y), (side * (x + wide), y + c.between(-5, 5))]), 1.0, 1.5, high=0.5)


def vertebra(c: Canvas, y: float, scale: float = 1.0) -> None:
    """A vertebra with its front at y: body or arch of the atlas, processes, canal with the cord."""
    cortical, marrow = c.between(1.6, 2.2), c.between(1.15, 1.5)
    body = (scale * c.between(8, 14), scale * c.between(6, 10))
    canal = (scale * c.between(8, 13), scale * c.between(7, 11))
    middle = y - 2 * body[1] - canal[1]
    c.fill(blob(c.rng, (0, middle), (canal[0] + scale * c.between(3, 6), canal[1] + scale * c.between(3, 6))), cortical)
    out, thick, turn, lift = scale * c.between(20, 38), scale * c.between(4, 9), c.between(-0.4, 0.4), c.between(0, 9)
    vessel = c.chance(0.6)
    for side in SIDES:
        where = (side * out * 0.62, middle + lift + c.between(-1.5, 1.5))
        c.fill(blob(c.rng, where, (out * 0.4, thick), rough=0.15, angle=side * turn), cortical, low=0.5)
        c.fill(blob(c.rng, where, (out * 0.4 - 2.2, thick - 2.0), angle=side * turn), marrow, low=1.4)
        if vessel:
            c.fill(blob(c.rng, (side * out * 0.8, where[1]), (2.6, 2.6), rough=0), 1.03, low=1.1)
    if c.chance(0.6):
        tail, width = scale * c.between(10, 30), scale * c.between(2.5, 5)
        c.fill(blob(c.rng, (0, middle - canal[1] - tail / 2), (width, tail / 2), rough=0.15), cortical, low=0.5)
        c.fill(blob(c.rng, (0, middle - canal[1] - tail / 2), (width - 1.6, tail / 2 - 2)), marrow, low=1.4)
    c.fill(blob(c.rng, (0, y - body[1]), body), cortical)
    c.fill(blob(c.rng, (0, y - body[1]), (body[0] - 1.8, body[1] - 1.8)), marrow)
    c.fill(blob(c.rng, (0, middle), canal, rough=0.05), c.between(0.95, 1.015))
    c.fill(blob(c.rng, (0, middle), (canal[0] * 0.6, canal[1] * 0.6), rough=0.03), 1.035)

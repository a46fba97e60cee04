"""The skull base with the face before it, drawn at random; values and directions as in `phantom_heads`."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from priorscope_medical.phantom_canvas import ANGLES, Canvas, blob, curve
from priorscope_medical.phantom_heads import AIR, BACK, CSF, FRONT, THETA, bump, fill_brain, half_axes, outline, skull
from priorscope_medical.phantom_parts import SIDES, cells, nose, rounded, sinuses, soft_mosaic, vertebra


def base(c: Canvas) -> None:
    """Petrous bones and sphenoid, before them orbits or cheeks and the nose, behind them brain or the upper neck."""
    a, b = half_axes(c)
    tip = c.between(0, 32) if c.chance(0.7) else 0.0
    cheeks = c.between(0, 0.12) * (bump(FRONT - 0.6, 0.25) + bump(FRONT + 0.6, 0.25))
    skin = outline(c, a, b) * (1 - cheeks)
    front = float(skin[ANGLES // 4])
    skin = skin + tip * bump(FRONT, c.between(0.07, 0.14))
    wall = b * c.between(0.0, 0.4)
    low = c.chance(0.35)
    upper = not low and c.chance(0.6)

    half_open = FRONT - math.atan2(wall, a)
    face = 1 / (1 + np.exp((np.abs(THETA - FRONT) - half_open) / 0.05)) if c.chance(0.85) else np.zeros(ANGLES)
    neck = c.between(4, 30) * bump(BACK, c.between(0.5, 1.1)) + c.between(0, 14) if low and c.chance(0.7) else 0.0
    inner = skull(c, skin, face, neck)
    slope, bow = c.between(-0.25, 0.1), c.between(-0.004, 0.002)
    behind = c.edge(wall + slope * np.abs(c.x) + bow * c.x * c.x - c.y)
    if low and c.chance(0.3):
        soft_mosaic(c, a, -b, wall, int(c.rng.integers(5, 10)))
        vertebra(c, wall - c.between(10, 30), c.between(0.8, 1.25))
    else:
        fill_brain(c, inner, behind)
        if low and c.chance(0.6):
            _foramen(c, b)
        elif c.chance(0.3):
            cistern = blob(c.rng, (0, wall - c.between(25, 40)), (c.between(3, 8), c.between(2, 6)))
            c.fill(cistern, CSF, low=0.97, high=1.1)

    soft_mosaic(c, a, wall, front * 0.9, int(c.rng.integers(3, 9)))
    if c.chance(0.6):
        _ears(c, a)
    dense = c.between(1.6, 2.3)
    if c.chance(0.8):
        _wings(c, a, wall, dense)
    if c.chance(0.8):
        _petrous(c, a, wall - c.between(14, 38))
    _sphenoid(c, wall, dense)
    half = c.between(7, 17)
    if upper:
        _orbits(c, wall + 6, front)
        if c.chance(0.75):
            _ethmoid(c, wall + c.between(4, 12), front - c.between(14, 24), min(half, 14))
        else:
            nose(c, wall + 6, front - 12, half * 0.7, c.between(0.7, 1.8))
    else:
        _cheekbones(c, a, wall, front, dense)
        if c.chance(0.85):
            sinuses(c, skin, half + c.between(13, 20), wall + c.between(0.35, 0.6) * (front - wall))
        nose(c, wall + c.between(2, 10), front - c.between(4, 12) + tip * 0.5, half, c.between(0.7, 1.8))
        if c.chance(0.4):
            c.fill(blob(c.rng, (0, wall + 2), (c.between(8, 18), c.between(4, 9)), rough=0.15), AIR)
    if tip > 6:
        foot, ridge, width = c.between(4, 9), front + tip * c.between(0.2, 0.6), c.between(1, 2.5)
        for side in SIDES:
            c.band(curve([(side * foot, front - 10), (side * 2, ridge)], 15), width, c.between(1.3, 2.2), low=0.5)


def _foramen(c: Canvas, b: float) -> None:
    """The rim of the great foramen with the brain stem, thick bone sloping up around it."""
    hole = (c.between(12, 17), c.between(14, 20))
    where = (0.0, -b * c.between(0.25, 0.5))
    rim = c.between(3, 14)
    c.fill(blob(c.rng, where, (hole[0] + rim, hole[1] + rim * c.between(0.6, 1.4)), rough=0.12), c.between(1.4, 2.2))
    if rim > 6:
        c.fill(blob(c.rng, where, (hole[0] + rim - 2.5, hole[1] + rim * 0.6)), c.between(1.15, 1.6))
        c.fill(blob(c.rng, where, (hole[0] + 2, hole[1] + 2)), c.between(1.6, 2.2))
    c.fill(blob(c.rng, where, hole), CSF)
    c.fill(blob(c.rng, where, (hole[0] * c.between(0.4, 0.8), hole[1] * c.between(0.4, 0.8))), 1.035)


def _wings(c: Canvas, a: float, wall: float, dense: float) -> None:
    """The wings of the sphenoid: from the middle to the temples."""
    knots = [(10.0, wall - c.between(0, 8)), (0.45 * a, wall + c.between(-12, 8)), (0.86 * a, wall + c.between(-8, 14))]
    widths = np.linspace(c.between(3, 10), c.between(2, 6), 14)
    marrow = c.between(1.2, 1.6)
    for side in SIDES:
        line = curve([(side * x, y + c.between(-1.5, 1.5)) for x, y in knots], 14)
        c.band(line, widths * c.between(0.9, 1.1), dense)
        if widths[0] > 6:
            c.band(line[:8], widths[:8] - 3.2, marrow)
        for _ in range(c.rng.integers(0, 3)):
            hole = line[int(c.rng.integers(2, 9))] + (0, c.between(-3, 3))
            c.fill(blob(c.rng, (hole[0], hole[1]), (c.between(1, 2.5), c.between(1, 3))), 1.03, low=1.2)


def _cheekbones(c: Canvas, a: float, wall: float, front: float, dense: float) -> None:
    """Zygomatic arches, the tips of the jaw near its joint, the plates behind the upper jaw."""
    deep = front - wall
    arch = [
        (0.88 * a, wall - 8),
        (c.between(0.86, 0.97) * a, wall + 0.3 * deep),
        (0.6 * a, wall + c.between(0.6, 0.8) * deep),
    ]
    thick = np.concatenate([np.linspace(c.between(2, 4), c.between(2, 4), 9), np.linspace(4, c.between(5, 12), 7)])
    gap = int(c.rng.integers(0, 5)) if c.chance(0.4) else 0
    has_arch, has_jaw, has_plates = c.chance(0.75), c.chance(0.55), c.chance(0.5)
    jaw, jaw_size = (c.between(0.58, 0.75) * a, wall + c.between(-6, 14)), (c.between(2, 6), c.between(4, 11))
    marrow = c.between(1.15, 1.5)
    for side in SIDES:
        if has_arch:
            line = curve([(side * x + c.between(-1.5, 1.5), y) for x, y in arch], 16)[gap:]
            c.band(line, thick[gap:], dense)
            if thick[-1] > 5.5:
                c.band(line[-7:-1], thick[-7:-1] - 3.4, marrow)
        if has_jaw:
            where = (side * jaw[0], jaw[1] + c.between(-2, 2))
            turn = c.between(-0.4, 0.4)
            c.fill(blob(c.rng, where, jaw_size, rough=0.15, angle=turn), dense)
            c.fill(blob(c.rng, where, (jaw_size[0] - 1.7, jaw_size[1] - 2.2), angle=turn), marrow, low=1.4)
        if has_plates:
            start = (side * c.between(8, 13), wall + c.between(0, 6))
            for reach in (3, 12):
                c.band(curve([start, (side * (10 + reach), start[1] - c.between(6, 14))]), c.between(0.8, 2.2), dense)


def _petrous(c: Canvas, a: float, y: float) -> None:
    """The pyramids of the temporal bone: dense, air cells towards the ear, the canal from outside."""
    reach, wide, slant = c.between(0.45, 0.8), c.between(4, 13), c.between(0.1, 0.7)
    dense, air, canal, many = c.between(1.8, 2.5), c.between(0.0, 0.35), c.chance(0.6), int(c.rng.integers(4, 18))
    out, tip = 0.9 * a, (0.93 - reach) * a
    rise = slant * (out - tip)
    middle = ((out + tip) / 2, y + rise / 2)
    knots = np.array(
        [
            (out, y - wide),
            (out, y + wide),
            (middle[0], middle[1] + wide * 0.6),
            (tip, y + rise + 1.5),
            (tip, y + rise - 2),
            (middle[0], middle[1] - wide * 0.7),
        ]
    )
    for side in SIDES:
        shape = (knots + c.rng.normal(size=knots.shape) * 2) * (side, 1)
        c.fill(rounded(shape), dense * c.between(0.92, 1.06))
        core = blob(
            c.rng, (side * middle[0], middle[1]), (0.3 * (out - tip), wide * 0.35), angle=side * slant, rough=0.15
        )
        c.fill(core, c.between(1.2, 1.8))
        if c.chance(0.85):
            cells(c, (side * 0.82 * a, y - c.between(0, 10)), (5, 7), many, c.between(0.8, 2.8), air, low=1.3)
        if canal:
            ends = [(1.02 * a, y + 2), (0.82 * a, y + c.between(1, 5)), (0.66 * a, y + c.between(2, 7))]
            c.band(curve([(side * u, v) for u, v in ends], 10), c.between(3, 7), 0.05)
            cells(c, (side * 0.64 * a, y + 4), (2, 3), 3, 2.2, 0.0)
        if c.chance(0.6):
            cells(c, (side * (tip + 0.35 * (out - tip)), y + 0.65 * rise), (3, 3), 4, 1.1, 1.03, low=1.3)


def _sphenoid(c: Canvas, wall: float, dense: float) -> None:
    """The body of the sphenoid or the clivus, hollow or full of marrow."""
    where = (c.between(-2, 2), wall - c.between(0, 14))
    half = (c.between(9, 18), c.between(6, 14))
    c.fill(blob(c.rng, where, half, rough=0.12), dense * c.between(0.7, 1.0))
    if c.chance(0.6):
        for side in SIDES:
            room = (half[0] * c.between(0.25, 0.55), half[1] * c.between(0.5, 0.85))
            c.fill(blob(c.rng, (where[0] + side * half[0] * 0.45, where[1]), room, rough=0.15), AIR)
    else:
        c.fill(blob(c.rng, where, (half[0] * 0.75, half[1] * 0.7)), c.between(1.15, 1.6))


def _orbits(c: Canvas, wall: float, front: float) -> None:
    """Eyes in fat, with nerve, muscles, lens and the walls of the orbit."""
    gap, radius, apex = c.between(28, 36), c.between(10.5, 13), c.between(8, 16)
    eye = front - radius - c.between(4, 14)
    half_way = (wall + eye) / 2
    thin, thick, outer, inner = c.between(1.0, 3.5), c.between(3, 9), c.between(1.5, 2.3), c.between(1.2, 2.0)
    medial, fat, back = c.between(0.4, 1.4), c.between(0.88, 0.93), c.between(-12, -1)
    lens, nerve, muscle, ball = c.chance(0.6), c.chance(0.7), c.between(1.5, 4), c.chance(0.85)
    for side in SIDES:
        x = gap * c.between(0.97, 1.03)

        def line(*knots: tuple[float, float], side: int = side) -> np.ndarray:
            return curve([(side * u, v) for u, v in knots], 12)

        cone = np.array([(apex, wall), (x - 17, eye), (x - 13, eye + 9), (x + 13, eye + 7), (x + 19, eye - 4)])
        c.fill(rounded(cone * (side, 1)), fat)
        lateral = line((apex, wall), (x + 11, half_way - 3), (x + 20, eye + back))
        c.band(lateral, np.linspace(thin, thick, 12), outer)
        c.band(line((apex, wall), (x - 16, half_way), (x - 16, eye + 4)), medial, inner)
        for reach in (-12.0, 11.0):
            c.band(
                line((apex + 2, wall + 3), (x + reach * 0.8, half_way + 2), (x + reach, eye)), muscle, 1.05, high=1.0
            )
        if nerve:
            c.band(line((apex + 1, wall + 2), (x - 2, half_way), (x, eye - radius)), c.between(2.5, 5), 1.04, high=1.0)
        if ball:
            c.fill(blob(c.rng, (side * x, eye), (radius, radius * c.between(0.95, 1.08)), rough=0.01), 1.06)
            c.fill(blob(c.rng, (side * x, eye), (radius - 1.2, radius - 1.2), rough=0.01), c.between(1.008, 1.02))
        if lens and ball:
            c.fill(blob(c.rng, (side * x, eye + radius * 0.65), (4.3, 2), rough=0), c.between(1.06, 1.13))


def _ethmoid(c: Canvas, y0: float, y1: float, half: float) -> None:
    """Air cells of unequal size between the eyes, walls a fraction of a millimetre to 2 mm."""
    c.fill(blob(c.rng, (0, (y0 + y1) / 2), (half + 1.5, (y1 - y0) / 2 + 1), rough=0.05), c.between(1.2, 2.0))
    rooms, wall = [], c.between(0.1, 0.9)
    for side in SIDES:
        cuts = np.concatenate([[y0], np.sort(c.rng.uniform(y0, y1, int(c.rng.integers(2, 6)))), [y1]])
        for low, high in pairwise(cuts):
            parts = int(c.rng.integers(1, 3))
            for k in range(parts):
                wide, deep = (half - 1) / parts, (high - low) / 2 - wall
                if deep > 0.6 and c.chance(0.93):
                    where = (side * (1 + (k + 0.5) * wide), (low + high) / 2 + c.between(-1, 1))
                    rooms.append(blob(c.rng, where, (wide / 2 - wall / 2, deep), rough=0.15, corners=14))
    c.fill(rooms, c.between(0, 0.15))
    if c.chance(0.3):
        cells(c, (0, (y0 + y1) / 2), (half * 0.5, (y1 - y0) * 0.3), 3, 2.5, 1.03)


def _ears(c: Canvas, a: float) -> None:
    for side in SIDES:
        y, out, length = c.between(-14, 6), c.between(4, 18), c.between(12, 26)
        line = curve([(side * a * 0.97, y + 6), (side * (a + out * 0.5), y), (side * (a + out), y - length)], 10)
        c.band(line, c.between(2, 4.5), c.between(0.95, 1.05), high=0.6)

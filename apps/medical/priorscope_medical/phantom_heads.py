"""Heads drawn at random, level by level from the jaw to the vertex.

Shapes, sizes and densities are general anatomy with wide margins; nothing is measured from any scan. Values are
attenuation relative to water. Lengths are in mm, x to the left of the body, y to its front.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from priorscope_medical.phantom_canvas import ANGLES, Canvas, blob, curve

_THETA = np.arange(ANGLES) * (2 * math.pi / ANGLES)
_FRONT, _BACK = math.pi / 2, -math.pi / 2
_SKIN, _FAT, _MUSCLE, _CSF, _AIR = 1.05, 0.9, 1.055, 1.01, 0.0


def bump(at: float, width: float) -> np.ndarray:
    """A bell over the directions, 1 at the angle ``at``, ``width`` radians its standard deviation."""
    distance = (_THETA - at + math.pi) % (2 * math.pi) - math.pi
    return np.exp(-0.5 * (distance / width) ** 2)


def outline(c: Canvas, across: float, along: float, ripple: float = 0.02) -> np.ndarray:
    """Radii in mm, by direction, of a rounded closed curve with these half axes."""
    power = c.between(1.9, 2.7)
    radius = ((np.abs(np.cos(_THETA)) / across) ** power + (np.abs(np.sin(_THETA)) / along) ** power) ** (-1 / power)
    egg = 1 + c.between(-0.02, 0.1) * -np.sin(_THETA) * np.abs(np.cos(_THETA)) * 2
    return radius * egg * c.wave(1, ripple)


def level(c: Canvas, name: str) -> None:
    """Draw one of `LEVELS`."""
    LEVELS[name](c)


def _size(c: Canvas, scale: float = 1.0) -> tuple[float, float]:
    across = scale * c.between(58, 86)
    return across, min(across * c.between(1.02, 1.38), scale * 104)


def _skull(c: Canvas, skin: np.ndarray, face: np.ndarray | float = 0.0, thick: float = 0.0) -> np.ndarray:
    """Scalp and skull inside the skin's radii; bone is missing where ``face`` is 1. The radii of the inner table."""
    distance, bins = c.polar()
    depth = skin[bins] - distance
    scalp = np.maximum(c.wave(c.between(3.5, 8), c.between(0.1, 0.35)), 2.0)
    scalp = (
        scalp + c.between(0, 6) * (bump(0.25, 0.35) + bump(math.pi - 0.25, 0.35)) + c.between(0, 5) * bump(_BACK, 0.4)
    )
    mean = thick or c.between(3.0, 8.5)
    bone = np.clip(c.wave(mean, c.between(0.1, 0.3), roughness=0.8), 1.4, 16)
    bone = bone + c.between(0, 5) * bump(_BACK, 0.25) + c.between(0, 3) * bump(_FRONT, 0.3)
    bone = bone * (1 - face)
    c.paint(c.edge(depth), _SKIN)
    c.paint(c.edge(depth - c.between(1.0, 2.2)), c.between(0.89, 0.96))
    c.paint(c.edge(depth - (scalp * c.between(0.45, 0.95))[bins]), c.between(1.03, 1.07))
    under = depth - scalp[bins]
    local = bone[bins]
    cortical = c.between(1.75, 2.4)
    shell = c.edge(np.minimum(under, local - under))
    c.paint(shell * np.clip(local, 0, 1), cortical)
    table = np.clip(c.wave(c.between(1.2, 2.4), 0.2), 0.9, 4)[bins]
    if c.chance(0.85):
        marrow = np.float32(c.between(1.15, 1.65)) + c.texture(c.between(0.02, 0.12), 5)
        gap = np.minimum(under - table, local - table * c.between(0.8, 1.1) - under)
        c.paint(c.edge(gap, c.between(0, 1.2)), np.clip(marrow, 1.02, cortical))
    inner = skin - scalp - bone
    _sutures(c, skin - scalp, inner)
    return inner


def _sutures(c: Canvas, outer: np.ndarray, inner: np.ndarray) -> None:
    for _ in range(c.rng.integers(0, 5)):
        at = int(c.rng.integers(ANGLES))
        steps = np.linspace(-0.1, 1.1, 7)
        angles = _THETA[at] + np.cumsum(c.rng.normal(size=7)) * 0.012 + c.between(-0.04, 0.04) * steps
        radius = inner[at] + steps * (outer[at] - inner[at])
        line = np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)
        c.band(line, c.between(0.4, 1.3), c.between(1.05, 1.3), low=1.2)
    if c.chance(0.03):
        at = int(c.rng.integers(ANGLES))
        x, y = outer[at] * math.cos(_THETA[at]), outer[at] * math.sin(_THETA[at])
        c.fill(blob(c.rng, (x, y), (c.between(5, 25), c.between(5, 12)), angle=c.between(0, 3)), 1.03, low=1.2)


def _brain(c: Canvas, inner: np.ndarray, where: np.ndarray | None = None) -> None:
    """Brain, its coverings and spaces within the inner table."""
    distance, bins = c.polar()
    depth = inner[bins] - distance
    cover = c.edge(depth) if where is None else np.minimum(c.edge(depth), where)
    c.paint(cover, c.between(1.0, 1.035))
    grey = c.between(1.033, 1.046)
    rim = np.clip(c.wave(c.between(0.3, 3), 0.5), 0, 8)[bins]
    c.paint(np.minimum(cover, c.edge(depth - rim, 1.0)), np.float32(grey) + c.texture(c.between(0.001, 0.005), 14))
    white = c.wave(c.between(6, 14), 0.4, orders=14, roughness=0.3)[bins]
    c.paint(0.8 * np.minimum(cover, c.edge(depth - white, 3.0)), grey - c.between(0.003, 0.012))


def _ventricles(c: Canvas, a: float, b: float) -> None:
    wide = c.between(0.04, 0.16) * a
    for side in (-1, 1):
        x = side * (wide + c.between(1, 5))
        if c.chance(0.85):
            front = blob(
                c.rng, (x * 1.1, b * c.between(0.18, 0.34)), (wide, b * c.between(0.08, 0.22)), angle=-side * 0.3
            )
            c.fill(front, _CSF, low=0.97, high=1.1)
        if c.chance(0.7):
            back = blob(c.rng, (x * 1.7, -b * c.between(0.2, 0.4)), (wide, b * c.between(0.08, 0.2)), angle=side * 0.4)
            c.fill(back, _CSF, low=0.97, high=1.1)
            if c.chance(0.4):
                c.fill(blob(c.rng, (x * 1.7, -b * 0.3), (2.5, 3.5)), c.between(1.1, 1.7))
    if c.chance(0.5):
        c.fill(blob(c.rng, (0, c.between(-8, 10)), (c.between(1, 4), c.between(5, 16))), _CSF, low=0.97, high=1.1)
    if c.chance(0.4):
        c.fill(blob(c.rng, (c.between(-2, 2), -b * 0.1), (c.between(1, 3), c.between(1, 4))), c.between(1.1, 1.8))


def _falx(c: Canvas, inner: np.ndarray) -> None:
    front, back = inner[ANGLES // 4], inner[3 * ANGLES // 4]
    bend = c.between(-3, 3)
    value = c.between(1.04, 1.07)
    for start, stop in ((front, front * c.between(0, 0.6)), (-back * c.between(0.1, 0.5), -back)):
        c.band(
            curve([(0, start), (bend, (start + stop) / 2), (0, stop)], 10),
            c.between(0.8, 2.2),
            value,
            low=0.97,
            high=1.1,
        )
    if c.chance(0.1):
        c.fill(blob(c.rng, (bend, front * 0.6), (c.between(1, 3), c.between(2, 9))), c.between(1.2, 1.9))


def _lesion(c: Canvas, a: float) -> None:
    for _ in range(c.rng.integers(1, 3)):
        where = (c.between(-0.6, 0.6) * a, c.between(-0.7, 0.7) * a)
        size = (c.between(2, 20), c.between(2, 16))
        c.fill(blob(c.rng, where, size, rough=0.2), c.between(0.995, 1.09), low=0.97, high=1.1)


def _frontal_sinus(c: Canvas, skin: np.ndarray, inner: np.ndarray) -> None:
    """Air between the tables of the forehead, in a few chambers with thin walls."""
    deep = c.between(4, 16)
    y = (skin - 7)[ANGLES // 4] - deep / 2
    half = c.between(8, 30)
    c.fill(blob(c.rng, (0, y), (half + 4, deep / 2 + 3), rough=0.05), c.between(1.7, 2.2))
    count = int(c.rng.integers(1, 5))
    edges = np.sort(c.rng.uniform(-half, half, count - 1))
    edges = np.concatenate([[-half], edges, [half]])
    rooms = [
        blob(
            c.rng,
            ((lo + hi) / 2, y - ((lo + hi) / 2 / half) ** 2 * 4),
            (max((hi - lo) / 2 - 0.8, 1), deep / 2),
            rough=0.12,
        )
        for lo, hi in pairwise(edges)
    ]
    c.fill(rooms, _AIR)


def brain(c: Canvas) -> None:
    """The vault with the brain."""
    a, b = _size(c)
    skin = outline(c, a, b)
    inner = _skull(c, skin)
    _brain(c, inner)
    if c.chance(0.7):
        _ventricles(c, a, b)
    if c.chance(0.8):
        _falx(c, inner)
    if c.chance(0.25):
        _lesion(c, a)
    if c.chance(0.25):
        _frontal_sinus(c, skin, inner)


def vertex(c: Canvas) -> None:
    """Near the crown: a small oval of slanting, blurred bone, or scalp alone."""
    a, b = _size(c, c.between(0.25, 0.75))
    skin = outline(c, a, b, 0.04)
    distance, bins = c.polar()
    depth = skin[bins] - distance
    soft = c.between(0.5, 6)
    c.paint(c.edge(depth - soft / 2, soft), c.between(0.93, 1.05))
    scalp = c.between(4, 0.5 * a)
    if c.chance(0.2):
        return
    bone = np.float32(c.between(1.3, 2.2)) + c.texture(c.between(0, 0.15), 6)
    c.paint(c.edge(depth - scalp - soft / 2, soft), bone)
    thick = c.between(5, 0.6 * a)
    core = depth - scalp - thick
    if c.chance(0.6):
        diploe = np.minimum(depth - scalp - 0.3 * thick, scalp + 0.75 * thick - depth)
        c.paint(c.edge(diploe, c.between(1, 4)), c.between(1.2, 1.6))
    c.paint(c.edge(core, soft), np.float32(c.between(1.02, 1.045)) + c.texture(0.003))
    if c.chance(0.5):
        c.band(curve([(0, -b), (0, b)], 8), c.between(1, 5), 1.05, low=1.0, high=1.1)


def _soft_mosaic(c: Canvas, a: float, y0: float, y1: float, count: int) -> None:
    """Muscles and fat side by side, roughly alike on both sides."""
    muscles, fats = [], []
    for _ in range(count):
        x, y = c.between(0.1, 0.9) * a, c.between(y0, y1)
        axes, turn = (c.between(2, 13), c.between(3, 20)), c.between(-0.8, 0.8)
        for side in (-1, 1):
            shape = blob(
                c.rng, (side * x + c.between(-2, 2), y + c.between(-2, 2)), axes, angle=side * turn, corners=18
            )
            (muscles if c.chance(0.6) else fats).append(shape)
    c.fill(fats, c.between(0.89, 0.94), low=0.8, high=1.1)
    c.fill(muscles, c.between(1.04, 1.07), low=0.8, high=1.1)


def _cells(
    c: Canvas,
    centre: tuple[float, float],
    spread: tuple[float, float],
    count: int,
    radius: float,
    value: float,
    low: float = -1.0,
) -> None:
    """A cluster of small hollows."""
    at = c.rng.normal(size=(count, 2)) * spread + centre
    sizes = radius * c.rng.uniform(0.5, 1.5, (count, 2))
    shapes = [blob(c.rng, (x, y), (r, s), rough=0.15, corners=12) for (x, y), (r, s) in zip(at, sizes, strict=True)]
    c.fill(shapes, value, low=low)


def _petrous(c: Canvas, a: float, b: float, y: float) -> None:
    """The two pyramids of the temporal bone: dense, with air cells towards the ear and the canal from outside."""
    reach, wide, slant = c.between(0.45, 0.8), c.between(6, 13), c.between(0.1, 0.6)
    dense, air, drum = c.between(1.8, 2.5), c.between(0.0, 0.35), c.between(0, 1)
    for side in (-1, 1):
        out, tip = 0.9 * a, (0.93 - reach) * a
        rise = slant * (out - tip)
        knots = np.array(
            [
                (out, y - wide),
                (out, y + wide),
                ((out + tip) / 2, y + rise / 2 + wide * 0.6),
                (tip, y + rise + 1.5),
                (tip, y + rise - 2),
                ((out + tip) / 2, y + rise / 2 - wide * 0.7),
            ]
        )
        knots = (knots + c.rng.normal(size=knots.shape) * 1.5) * (side, 1)
        c.fill(_rounded(knots), dense * c.between(0.95, 1.05))
        c.fill(
            blob(c.rng, (side * (out + tip) / 2, y + rise / 2), (0.25 * (out - tip), wide * 0.3), angle=side * slant),
            c.between(1.2, 1.7),
        )
        if c.chance(0.85):
            _cells(
                c,
                (side * 0.82 * a, y - c.between(0, 10)),
                (5, 6),
                int(c.rng.integers(4, 16)),
                c.between(1.0, 2.6),
                air,
                low=1.3,
            )
        if drum > 0.4:
            line = curve(
                [
                    (side * 1.02 * a, y + 2),
                    (side * 0.82 * a, y + c.between(1, 5)),
                    (side * 0.66 * a, y + c.between(2, 7)),
                ],
                10,
            )
            c.band(line, c.between(3, 7), 0.05)
            _cells(c, (side * 0.64 * a, y + 4), (2, 3), 3, 2.5, 0.0)
        if c.chance(0.5):
            _cells(c, (side * (tip + 0.35 * (out - tip)), y + 0.65 * rise), (3, 3), 3, 1.1, 1.03, low=1.3)


def _rounded(corners: np.ndarray) -> np.ndarray:
    """A closed polygon with its corners cut twice."""
    for _ in range(2):
        following = np.roll(corners, -1, 0)
        corners = np.stack([0.75 * corners + 0.25 * following, 0.25 * corners + 0.75 * following], 1).reshape(-1, 2)
    return corners


def _nose(c: Canvas, y0: float, y1: float, half: float, wall: float) -> None:
    """The nasal cavity from y0 (back) to y1: air on both sides of a thin septum, with soft turbinates in it."""
    bend = c.between(-2.5, 2.5)
    mid = (y0 + y1) / 2
    for side in (-1, 1):
        edge = curve([(side * half * 0.7, y0), (side * half, mid), (side * half * c.between(0.3, 0.8), y1)], 12)
        inner = curve([(0, y0), (bend, mid), (0, y1)], 12)
        c.band(edge, wall, c.between(1.3, 2.0))
        c.fill(np.concatenate([edge, inner[::-1]]), c.between(0, 0.1) if c.chance(0.9) else 1.03)
        for _ in range(c.rng.integers(1, 4)):
            where = (side * half * c.between(0.4, 0.8), c.between(y0, y1))
            c.fill(
                blob(
                    c.rng,
                    where,
                    (c.between(1, 0.35 * half + 1), c.between(4, 14)),
                    rough=0.2,
                    angle=c.between(-0.2, 0.2),
                ),
                1.03,
                high=0.5,
            )
            if c.chance(0.5):
                c.band(curve([(where[0], where[1] - 5), (where[0] + 1, where[1] + 5)]), 0.8, 1.4, low=0.9, high=1.2)
    c.band(curve([(0, y0), (bend, mid), (0, y1)], 14), c.between(0.8, 2.6), c.between(1.1, 1.7))


def _sinuses(c: Canvas, x: float, y: float) -> None:
    """Two cavities in the cheeks, thin bone around."""
    axes, turn, wall = (c.between(8, 17), c.between(9, 20)), c.between(-0.5, 0.5), c.between(0.8, 2.2)
    for side in (-1, 1):
        seed = c.rng.integers(1 << 30)
        size = (axes[0] * c.between(0.85, 1.1), axes[1] * c.between(0.85, 1.1))
        room = [
            blob(np.random.default_rng(seed), (side * x, y), (size[0] + w, size[1] + w), angle=side * turn, rough=0.14)
            for w in (wall, 0.0)
        ]
        c.fill(room[0], c.between(1.6, 2.2))
        c.fill(room[1], _AIR)
        if c.chance(0.3):
            c.fill(blob(c.rng, (side * x, y - size[1] * 0.7), (size[0], size[1] * 0.5)), 1.02, high=0.3)


def _orbits(c: Canvas, a: float, yb: float, front: float) -> None:
    """Eyes in fat, with nerve, muscles and the walls of the orbit."""
    gap, radius = c.between(28, 36), c.between(10.5, 13)
    apex = c.between(8, 16)
    y_eye = front - radius - c.between(4, 14)
    wall = c.between(1.0, 3.5)
    cortical = c.between(1.5, 2.3)
    lens = c.chance(0.6)
    for side in (-1, 1):
        x = side * gap * c.between(0.96, 1.04)
        cone = np.array(
            [
                (side * apex, yb),
                (x - side * 17, y_eye),
                (x - side * 13, y_eye + 9),
                (x + side * 13, y_eye + 7),
                (x + side * 19, y_eye - 4),
            ]
        )
        c.fill(_rounded(cone), c.between(0.88, 0.93))
        lateral = curve(
            [(side * apex, yb), (x + side * 12, (yb + y_eye) / 2 - 4), (x + side * 20, y_eye + c.between(-10, 0))], 14
        )
        c.band(lateral, np.linspace(wall, c.between(3, 8), 14), cortical)
        medial = curve([(side * apex, yb), (x - side * 16, (yb + y_eye) / 2), (x - side * 16, y_eye + 4)], 12)
        c.band(medial, c.between(0.4, 1.4), c.between(1.3, 2.0))
        for reach in (-13, 12):
            c.band(
                curve(
                    [
                        (side * (apex + 2), yb + 3),
                        (x + side * reach * 0.8, (yb + y_eye) / 2),
                        (x + side * reach, y_eye),
                    ],
                    10,
                ),
                c.between(1.5, 4),
                1.05,
                high=1.0,
            )
        if c.chance(0.7):
            c.band(
                curve([(side * (apex + 1), yb + 2), (x - side * 2, (yb + y_eye) / 2), (x, y_eye - radius)], 10),
                c.between(2.5, 5),
                1.04,
                high=1.0,
            )
        c.fill(blob(c.rng, (x, y_eye), (radius, radius * c.between(0.95, 1.08)), rough=0.01), 1.06)
        c.fill(blob(c.rng, (x, y_eye), (radius - 1.2, radius - 1.2), rough=0.01), c.between(1.008, 1.02))
        if lens:
            c.fill(blob(c.rng, (x, y_eye + radius * 0.65), (4.3, 2), rough=0), c.between(1.06, 1.13))


def _ethmoid(c: Canvas, y0: float, y1: float, half: float) -> None:
    """Air cells in rows between the eyes, walls a fraction of a millimetre to 2 mm."""
    c.fill(blob(c.rng, (0, (y0 + y1) / 2), (half + 1.5, (y1 - y0) / 2 + 1), rough=0.05), c.between(1.3, 2.0))
    rows = int(c.rng.integers(3, 7))
    ys = np.linspace(y0, y1, rows + 1)
    rooms = []
    for low, high in pairwise(ys):
        for side in (-1, 1):
            parts = int(c.rng.integers(1, 3))
            for k in range(parts):
                wide = (half - 1) / parts
                rooms.append(
                    blob(
                        c.rng,
                        (side * (1 + (k + 0.5) * wide), (low + high) / 2 + c.between(-1, 1)),
                        (wide / 2 - 0.2, (high - low) / 2 - 0.3),
                        rough=0.12,
                        corners=14,
                    )
                )
    c.fill(rooms, c.between(0, 0.15))


def _ears(c: Canvas, a: float) -> None:
    for side in (-1, 1):
        y, out, length = c.between(-14, 6), c.between(4, 18), c.between(12, 26)
        line = curve([(side * a * 0.97, y + 6), (side * (a + out * 0.5), y), (side * (a + out), y - length)], 10)
        c.band(line, c.between(2, 4.5), c.between(0.95, 1.05), high=0.6)


def base(c: Canvas) -> None:
    """The skull base with the face in front: petrous bones, sphenoid, orbits or cheeks, nose."""
    a, b = _size(c)
    nose = c.between(0, 32) if c.chance(0.7) else 0.0
    skin = outline(c, a, b) * (1 - c.between(0, 0.12) * (bump(_FRONT - 0.6, 0.25) + bump(_FRONT + 0.6, 0.25)))
    plain = float(skin[ANGLES // 4])
    skin = skin + nose * bump(_FRONT, c.between(0.07, 0.14))
    yb = b * c.between(0.0, 0.4)
    reach = math.atan2(yb, a)
    face = 1 / (1 + np.exp((np.abs(_THETA - _FRONT) - (_FRONT - reach)) / 0.05)) if c.chance(0.85) else np.zeros(ANGLES)
    inner = _skull(c, skin, face)
    x, y = c.x, c.y
    rear = yb + c.between(-0.25, 0.1) * np.abs(x) + c.between(-0.004, 0.002) * x * x
    _brain(c, inner, c.edge(rear - y))
    _soft_mosaic(c, a, yb, plain * 0.9, int(c.rng.integers(3, 8)))
    if c.chance(0.6):
        _ears(c, a)
    upper = c.chance(0.5)
    dense = c.between(1.6, 2.3)
    for side in (-1, 1):
        if c.chance(0.8):
            wing = curve(
                [
                    (side * 10, yb - c.between(0, 8)),
                    (side * 0.45 * a, yb + c.between(-12, 6)),
                    (side * 0.86 * a, yb + c.between(-8, 12)),
                ],
                14,
            )
            c.band(wing, np.linspace(c.between(3, 9), c.between(2, 6), 14), dense)
        if not upper and c.chance(0.7):
            arch = curve(
                [
                    (side * 0.88 * a, yb - 8),
                    (side * 0.96 * a, yb + 0.35 * (plain - yb)),
                    (side * 0.55 * a, yb + 0.75 * (plain - yb)),
                ],
                16,
            )
            c.band(arch, np.linspace(c.between(3, 5), c.between(5, 10), 16), dense)
        if not upper and c.chance(0.5):
            c.fill(
                blob(
                    c.rng,
                    (side * c.between(0.6, 0.75) * a, yb + c.between(-4, 12)),
                    (c.between(2, 6), c.between(4, 10)),
                    rough=0.15,
                ),
                dense,
            )
    if c.chance(0.8):
        _petrous(c, a, b, yb - c.between(14, 38))
    _sphenoid(c, yb, dense)
    if c.chance(0.3):
        hole = (c.between(12, 17), c.between(14, 20))
        where = (0.0, -b * c.between(0.3, 0.55))
        c.fill(blob(c.rng, where, (hole[0] + 4, hole[1] + 4)), dense)
        c.fill(blob(c.rng, where, hole), _CSF)
        c.fill(blob(c.rng, where, (6, 5)), 1.04)
    if c.chance(0.3):
        c.fill(blob(c.rng, (0, yb - c.between(25, 40)), (c.between(3, 8), c.between(2, 6))), _CSF, low=0.97, high=1.1)
    half = c.between(6, 13)
    if upper:
        _orbits(c, a, yb + 6, plain)
        if c.chance(0.8):
            _ethmoid(c, yb + c.between(4, 12), plain - c.between(14, 24), half)
        else:
            _nose(c, yb + 6, plain - 12, half * 0.7, c.between(0.7, 1.8))
    else:
        if c.chance(0.85):
            _sinuses(c, half + c.between(14, 20), yb + c.between(0.35, 0.55) * (plain - yb))
        _nose(c, yb + c.between(4, 10), plain - c.between(4, 12) + nose * 0.6, half, c.between(0.7, 1.8))
    if nose > 6:
        for side in (-1, 1):
            c.band(
                curve([(side * c.between(4, 8), plain - 10), (side * 2, plain + nose * c.between(0.2, 0.6))], 9),
                c.between(1, 2.5),
                c.between(1.3, 2.2),
            )


def _sphenoid(c: Canvas, yb: float, dense: float) -> None:
    where = (c.between(-2, 2), yb - c.between(0, 12))
    half = (c.between(9, 18), c.between(7, 14))
    c.fill(blob(c.rng, where, half), dense * c.between(0.7, 1.0))
    if c.chance(0.65):
        for side in (-1, 1):
            share = c.between(0.3, 0.6)
            c.fill(
                blob(
                    c.rng,
                    (where[0] + side * half[0] * 0.45, where[1]),
                    (half[0] * share, half[1] * c.between(0.5, 0.85)),
                    rough=0.12,
                ),
                _AIR,
            )
    else:
        c.fill(blob(c.rng, where, (half[0] * 0.7, half[1] * 0.7)), c.between(1.15, 1.5))


def vertebra(c: Canvas, y: float, scale: float = 1.0) -> None:
    """A vertebra with its front at y: body or arch of the atlas, processes, canal with the cord."""
    cortical, marrow = c.between(1.6, 2.2), c.between(1.15, 1.5)
    body = (scale * c.between(8, 14), scale * c.between(6, 10))
    canal = (scale * c.between(8, 13), scale * c.between(7, 11))
    yc = y - 2 * body[1] - canal[1]
    ring = np.random.default_rng(c.rng.integers(1 << 30))
    c.fill(blob(ring, (0, yc), (canal[0] + scale * c.between(3, 6), canal[1] + scale * c.between(3, 6))), cortical)
    for side in (-1, 1):
        out = scale * c.between(20, 38)
        c.fill(
            blob(
                c.rng,
                (side * out * 0.62, yc + c.between(0, 9)),
                (out * 0.4, scale * c.between(4, 9)),
                rough=0.15,
                angle=side * c.between(-0.4, 0.4),
            ),
            cortical,
        )
        c.fill(blob(c.rng, (side * out * 0.62, yc + 5), (out * 0.25, scale * 3)), marrow, low=1.4)
        if c.chance(0.6):
            c.fill(blob(c.rng, (side * out * 0.8, yc + 5), (2.6, 2.6), rough=0), 1.03, low=1.1)
    if c.chance(0.6):
        tail = scale * c.between(10, 30)
        c.fill(blob(c.rng, (0, yc - canal[1] - tail / 2), (scale * c.between(2.5, 5), tail / 2), rough=0.15), cortical)
    c.fill(blob(c.rng, (0, y - body[1]), body), cortical)
    c.fill(blob(c.rng, (0, y - body[1]), (body[0] - 1.8, body[1] - 1.8)), marrow)
    c.fill(blob(c.rng, (0, yc), canal, rough=0.05), c.between(0.95, 1.015))
    c.fill(blob(c.rng, (0, yc), (canal[0] * 0.6, canal[1] * 0.6), rough=0.03), 1.035)


def _jaw_arch(c: Canvas, front: float, teeth: bool, filled: bool) -> None:
    """A dental arch that opens backwards: shell of cortical bone, marrow, teeth."""
    wide, deep = c.between(24, 42), c.between(35, 62)
    power = c.between(1.8, 3.0)
    t = np.linspace(-1, 1, 25)
    line = np.stack([wide * np.sign(t) * np.abs(t) ** 0.75, front - deep * np.abs(t) ** power], 1)
    thick = c.between(7, 14) * (1 - 0.25 * np.abs(t))
    cortical, marrow = c.between(1.7, 2.3), c.between(1.1, 1.5)
    if filled:
        c.fill(line, c.between(1.3, 1.9))
    c.band(line, thick, cortical)
    c.band(line[1:-1], thick[1:-1] - 2 * c.between(1.5, 3), marrow)
    if teeth:
        count = int(c.rng.integers(4, 17))
        shown = [s for s in np.linspace(-0.92, 0.92, count) if c.chance(0.85)]
        enamel = c.between(2.0, 3.4)
        roots = c.chance(0.4)
        shapes = []
        for s in shown:
            where = (float(np.interp(s, t, line[:, 0])), float(np.interp(s, t, line[:, 1])))
            size = c.between(1.5, 2.8) if roots else c.between(2.4, 5.0)
            shapes.append(blob(c.rng, where, (size, size * c.between(0.8, 1.4)), angle=c.between(0, 3), corners=14))
        c.fill(shapes, enamel)
        if shapes and not roots and c.chance(0.5):
            c.fill([0.35 * s + 0.65 * s.mean(0) for s in shapes], c.between(1.4, 2.2))
        if shapes and c.chance(0.1):
            c.fill(shapes[int(c.rng.integers(len(shapes)))], c.between(3.5, 6))


def jaw(c: Canvas) -> None:
    """Below the skull base: jaw with teeth, throat, vertebra, the muscles of neck and chewing."""
    a, b = c.between(50, 82), c.between(68, 102)
    skin = (
        outline(c, a, b, 0.035)
        * (1 + c.between(-0.12, 0.05) * bump(_FRONT - 0.8, 0.3))
        * (1 + c.between(-0.12, 0.05) * bump(_FRONT + 0.8, 0.3))
    )
    distance, bins = c.polar()
    depth = skin[bins] - distance
    c.paint(c.edge(depth), _SKIN)
    c.paint(c.edge(depth - c.between(1.2, 2.5)), c.between(0.89, 0.94))
    fat = np.clip(c.wave(c.between(3, 12), 0.5), 1.5, 25)
    c.paint(c.edge(depth - fat[bins]), np.float32(c.between(1.02, 1.06)) + c.texture(0.01, 10))
    _soft_mosaic(c, 0.85 * a, -0.8 * b, 0.75 * b, int(c.rng.integers(8, 16)))
    front = float(skin[ANGLES // 4]) - c.between(10, 20)
    spine = b * c.between(-0.25, 0.12)
    cortical = c.between(1.7, 2.3)
    if c.chance(0.3):
        _occiput(c, skin, cortical)
    if c.chance(0.6):
        c.fill(
            blob(c.rng, (0, front - c.between(20, 32)), (c.between(14, 24), c.between(14, 26))),
            c.between(1.03, 1.07),
            high=1.2,
        )
    if c.chance(0.85):
        _jaw_arch(c, front, c.chance(0.75), c.chance(0.35))
    if c.chance(0.75):
        x, y, size, turn = (
            c.between(0.55, 0.8) * a,
            spine + c.between(-4, 24),
            (c.between(2.5, 5), c.between(8, 20)),
            c.between(-0.4, 0.4),
        )
        for side in (-1, 1):
            where = (side * x, y + c.between(-3, 3))
            c.fill(blob(c.rng, where, size, angle=side * turn, rough=0.12), cortical)
            c.fill(blob(c.rng, where, (size[0] - 1.6, size[1] - 2.5), angle=side * turn), c.between(1.15, 1.5))
            if c.chance(0.3):
                c.band(curve([(side * x * 0.6, y - 8), (side * x * 0.62, y - 14)]), 3, cortical)
    vertebra(c, spine, c.between(0.8, 1.25))
    if c.chance(0.85):
        throat = (c.between(3, 20), c.between(2, 14))
        c.fill(blob(c.rng, (c.between(-3, 3), spine + throat[1] + c.between(3, 14)), throat, rough=0.2), _AIR)
    if c.chance(0.2):
        _nose(c, spine + 25, front - 12, c.between(6, 13), 1.0)
    if c.chance(0.5):
        _cells(c, (0, spine), (25, 10), 6, 3.5, c.between(1.04, 1.06), low=0.85)


def _occiput(c: Canvas, skin: np.ndarray, cortical: float) -> None:
    """The lower edge of the skull behind: an arc of bone, sometimes with the last of the cerebellum in it."""
    back = -float(skin[3 * ANGLES // 4])
    half, rise, off = c.between(25, 55), c.between(8, 35), c.between(10, 20)
    t = np.linspace(-1, 1, 21)
    line = np.stack([half * t, back + off + rise * t * t], 1)
    thick = c.between(4, 9)
    if c.chance(0.6):
        c.fill(line, c.between(1.03, 1.045))
    c.band(line, thick, cortical)
    c.band(line, max(thick - 3.5, 0.5), c.between(1.2, 1.6))


LEVELS = {"brain": brain, "base": base, "jaw": jaw, "vertex": vertex}

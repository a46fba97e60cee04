"""Skulls with brains, drawn at random: the vault and the crown.

Shapes, sizes and densities are general anatomy with wide margins; nothing is measured from any scan. Values are
attenuation relative to water. Lengths are in mm, x to the left of the body, y to its front.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from priorscope_medical.phantom_canvas import ANGLES, Canvas, blob, curve

THETA = np.arange(ANGLES) * (2 * math.pi / ANGLES)
FRONT, BACK = math.pi / 2, -math.pi / 2
AIR, CSF, SKIN = 0.0, 1.01, 1.05


def bump(at: float, width: float) -> np.ndarray:
    """A bell over the directions, 1 at the angle ``at``, ``width`` radians its standard deviation."""
    distance = (THETA - at + math.pi) % (2 * math.pi) - math.pi
    return np.exp(-0.5 * (distance / width) ** 2)


def outline(c: Canvas, across: float, along: float, ripple: float = 0.02) -> np.ndarray:
    """Radii in mm, by direction, of a rounded closed curve with these half axes."""
    power = c.between(1.9, 2.7)
    radius = ((np.abs(np.cos(THETA)) / across) ** power + (np.abs(np.sin(THETA)) / along) ** power) ** (-1 / power)
    egg = 1 + c.between(-0.02, 0.1) * -np.sin(THETA) * np.abs(np.cos(THETA)) * 2
    return radius * egg * c.wave(1, ripple)


def half_axes(c: Canvas, scale: float = 1.0) -> tuple[float, float]:
    """Half the breadth and half the length of a head, children's to large."""
    across = scale * float(c.rng.triangular(55, 74, 90))
    return across, min(across * c.between(1.02, 1.38), scale * 104)


def skull(c: Canvas, skin: np.ndarray, face: np.ndarray | float = 0.0, padding: np.ndarray | float = 0.0) -> np.ndarray:
    """Scalp and skull inside the skin's radii, by direction; gives back the radii of the inner table.

    ``face`` says where bone is missing (0 to 1), ``padding`` how many mm of muscle and fat cover the scalp's own.
    """
    distance, bins = c.polar()
    depth = skin[bins] - distance
    scalp = np.maximum(c.wave(c.between(3.5, 8), c.between(0.1, 0.35)), 2.0)
    scalp = (
        scalp + c.between(0, 6) * (bump(0.25, 0.35) + bump(math.pi - 0.25, 0.35)) + c.between(0, 5) * bump(BACK, 0.4)
    )
    mean = c.between(3.0, 8.5)
    bone = np.clip(c.wave(mean, c.between(0.1, 0.3), roughness=0.8), 1.4, 16)
    bone = bone + c.between(0, 5) * bump(BACK, 0.25) + c.between(0, 3) * bump(FRONT, 0.3)
    bone, scalp = bone * (1 - face), scalp + padding
    c.paint(c.edge(depth), SKIN)
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
        angles = THETA[at] + np.cumsum(c.rng.normal(size=7)) * 0.012 + c.between(-0.04, 0.04) * steps
        radius = inner[at] + steps * (outer[at] - inner[at])
        line = np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)
        c.band(line, c.between(0.4, 1.3), c.between(1.05, 1.3), low=1.2)
    if c.chance(0.03):
        at = int(c.rng.integers(ANGLES))
        x, y = outer[at] * math.cos(THETA[at]), outer[at] * math.sin(THETA[at])
        c.fill(blob(c.rng, (x, y), (c.between(5, 25), c.between(5, 12)), angle=c.between(0, 3)), 1.03, low=1.2)


def fill_brain(c: Canvas, inner: np.ndarray, where: np.ndarray | None = None) -> None:
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
            c.fill(front, CSF, low=0.97, high=1.1)
        if c.chance(0.7):
            back = blob(c.rng, (x * 1.7, -b * c.between(0.2, 0.4)), (wide, b * c.between(0.08, 0.2)), angle=side * 0.4)
            c.fill(back, CSF, low=0.97, high=1.1)
            if c.chance(0.4):
                c.fill(blob(c.rng, (x * 1.7, -b * 0.3), (2.5, 3.5)), c.between(1.1, 1.7))
    if c.chance(0.5):
        c.fill(blob(c.rng, (0, c.between(-8, 10)), (c.between(1, 4), c.between(5, 16))), CSF, low=0.97, high=1.1)
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
    c.fill(rooms, AIR)


def _floor(c: Canvas, inner: np.ndarray) -> None:
    """Where the slice grazes the roofs of the orbits or the tops of the pyramids: islands of bone in the brain."""
    front, half = inner[ANGLES // 4], float(inner[0])
    roofs, ridges = c.chance(0.7), c.chance(0.4)
    value, size = c.between(1.15, 2.0), (c.between(4, 0.3 * half), c.between(4, 20))
    x, y = c.between(0.25, 0.5) * half, front * c.between(0.6, 0.9)
    ridge, slant = c.between(1, 7), c.between(0.2, 0.6)
    for side in (-1, 1):
        if roofs:
            c.fill(blob(c.rng, (side * x, y), size, angle=c.between(-0.4, 0.4), rough=0.25), value, high=1.2)
            if c.chance(0.4):
                c.fill(blob(c.rng, (side * x, y), (0.5 * size[0], 0.5 * size[1])), c.between(0.9, 1.05), low=1.1)
        if ridges:
            line = curve([(side * 0.9 * half, -0.2 * half), (side * 0.4 * half, (slant - 0.2) * half)])
            c.band(line, np.linspace(ridge, 0.6, len(line)), c.between(1.4, 2.2))
    if c.chance(0.5):
        c.band(curve([(0, front), (0, front - c.between(4, 18))]), c.between(1.5, 4), c.between(1.3, 2.0))


def brain(c: Canvas) -> None:
    """The vault with the brain."""
    a, b = half_axes(c)
    skin = outline(c, a, b)
    if c.chance(0.2):
        skin = skin + c.between(2, 14) * bump(FRONT, c.between(0.1, 0.5))
    inner = skull(c, skin)
    fill_brain(c, inner)
    if c.chance(0.7):
        _ventricles(c, a, b)
    if c.chance(0.8):
        _falx(c, inner)
    if c.chance(0.25):
        _lesion(c, a)
    if c.chance(0.2):
        _floor(c, inner)
    if c.chance(0.25):
        _frontal_sinus(c, skin, inner)


def vertex(c: Canvas) -> None:
    """Near the crown: a small oval of slanting, blurred bone, or scalp alone."""
    a, b = half_axes(c, c.between(0.25, 0.75))
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

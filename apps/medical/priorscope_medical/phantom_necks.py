"""Jaw, throat and neck, drawn at random; values and directions as in `phantom_heads`."""

from __future__ import annotations

import math

import numpy as np

from priorscope_medical.phantom_canvas import ANGLES, Canvas, blob, curve
from priorscope_medical.phantom_heads import AIR, FRONT, SKIN, bump, outline
from priorscope_medical.phantom_parts import SIDES, cells, nose, sinuses, soft_mosaic, vertebra


def jaw(c: Canvas) -> None:
    """Below the skull base: jaw with teeth, throat, vertebra, the muscles of neck and chewing."""
    a = float(c.rng.triangular(50, 66, 84))
    b = c.between(max(a, 66), 102)
    chin = bump(FRONT - 0.8, 0.3) * c.between(-0.14, 0.04) + bump(FRONT + 0.8, 0.3) * c.between(-0.14, 0.04)
    skin = outline(c, a, b, 0.035) * (1 + chin) + c.between(0, 14) * bump(FRONT, c.between(0.1, 0.3))
    distance, bins = c.polar()
    depth = skin[bins] - distance
    c.paint(c.edge(depth), SKIN)
    c.paint(c.edge(depth - c.between(1.2, 2.5)), c.between(0.89, 0.94))
    fat = np.clip(c.wave(c.between(3, 12), 0.5), 1.5, 25)
    c.paint(c.edge(depth - fat[bins]), np.float32(c.between(1.02, 1.06)) + c.texture(0.01, 10))
    soft_mosaic(c, 0.85 * a, -0.8 * b, 0.75 * b, int(c.rng.integers(8, 16)))

    front = float(skin[ANGLES // 4]) - c.between(8, 18)
    spine = b * c.between(-0.25, 0.12)
    cortical = c.between(1.7, 2.3)
    if c.chance(0.3):
        _occiput(c, skin, cortical)
    if c.chance(0.6):
        tongue = blob(c.rng, (0, front - c.between(20, 32)), (c.between(14, 24), c.between(14, 26)))
        c.fill(tongue, c.between(1.03, 1.07), high=1.2)
    if c.chance(0.75):
        _rami(c, a, spine, cortical)
    if c.chance(0.85):
        _arch(c, front, spine)
    vertebra(c, spine, c.between(0.8, 1.25))
    if c.chance(0.85):
        throat = (c.between(3, 20), c.between(2, 14))
        where = (c.between(-3, 3), spine + throat[1] + c.between(3, 14))
        c.fill(blob(c.rng, where, throat, rough=0.2), AIR)
        if throat[1] > 9 and c.chance(0.4):
            c.fill(blob(c.rng, where, (throat[0] * 0.4, throat[1] * 0.5), rough=0.2), 1.03)
    if c.chance(0.25):
        nose(c, spine + 25, front - 12, c.between(6, 15), 1.0)
        if c.chance(0.5):
            sinuses(c, skin, c.between(24, 32), front - c.between(20, 30))
    if c.chance(0.5):
        cells(c, (0, spine), (25, 10), 6, 3.5, c.between(1.04, 1.06), low=0.85)


def _rami(c: Canvas, a: float, spine: float, cortical: float) -> None:
    """The two upright branches of the jaw."""
    x, y, turn = c.between(0.55, 0.8) * a, spine + c.between(-4, 24), c.between(-0.4, 0.4)
    size = (c.between(2.5, 6), c.between(6, 20))
    marrow, spike = c.between(1.15, 1.5), c.chance(0.3)
    for side in SIDES:
        where = (side * x, y + c.between(-3, 3))
        c.fill(blob(c.rng, where, size, angle=side * turn, rough=0.12), cortical)
        c.fill(blob(c.rng, where, (size[0] - 1.6, size[1] - 2.5), angle=side * turn), marrow)
        if spike:
            c.band(curve([(side * x * 0.6, y - 8), (side * x * 0.62, y - 14)]), 3, cortical)


def _arch(c: Canvas, front: float, spine: float) -> None:
    """A dental arch that opens backwards: shell of cortical bone, marrow, teeth, sometimes the palate."""
    wide = c.between(22, 44)
    deep = min(c.between(30, 80), front - spine + 25)
    reach, round_ = c.between(0.8, 1.1), c.between(0.75, 1.3)
    t = np.linspace(-1, 1, 29)
    turn = t * reach * math.pi / 2
    line = np.stack([wide * np.sin(turn), front - deep * (1 - np.cos(turn)) ** round_], 1)
    thick = c.between(7, 14) * (1 - c.between(-0.1, 0.35) * np.abs(t))
    cortical, marrow = c.between(1.7, 2.3), c.between(1.1, 1.6)
    if c.chance(0.35):
        palate = np.concatenate([line, [(0, line[-1, 1] - c.between(-6, 6))]])
        c.fill(palate, c.between(1.1, 1.8))
        for side in SIDES:
            hollow = (c.between(4, 0.4 * wide), c.between(5, 0.35 * deep))
            where = (side * wide * c.between(0.3, 0.5), front - deep * c.between(0.4, 0.6))
            c.fill(blob(c.rng, where, hollow, rough=0.2), float(c.rng.choice([1.03, 1.2, 1.5, 0.2])))
    c.band(line, thick, cortical)
    c.band(line[1:-1], thick[1:-1] - 2 * c.between(1.3, 3), marrow)
    if c.chance(0.75):
        _teeth(c, line, t)


def _teeth(c: Canvas, line: np.ndarray, t: np.ndarray) -> None:
    """Crowns or roots along the arch: narrow in front, broad behind, some missing."""
    roots = c.chance(0.4)
    count = int(c.rng.integers(6, 17))
    span = c.between(0.6, 0.95)
    inset = c.between(-1.5, 1.5)
    scale = c.between(0.55, 0.75) if roots else c.between(0.85, 1.2)
    shapes = []
    for s in np.linspace(-span, span, count):
        if not c.chance(0.88):
            continue
        where = (float(np.interp(s, t, line[:, 0])) * (1 - inset / 40), float(np.interp(s, t, line[:, 1])) + inset)
        size = scale * (2.6 + 2.4 * abs(s)) * c.between(0.85, 1.15)
        shapes.append(blob(c.rng, where, (size, size * c.between(0.8, 1.3)), angle=c.between(0, 3), corners=14))
    c.fill(shapes, c.between(2.0, 3.4))
    if shapes and not roots and c.chance(0.5):
        c.fill([0.35 * s + 0.65 * s.mean(0) for s in shapes], c.between(1.4, 2.2))
    if shapes and c.chance(0.1):
        c.fill(shapes[int(c.rng.integers(len(shapes)))], c.between(3.5, 6))


def _occiput(c: Canvas, skin: np.ndarray, cortical: float) -> None:
    """The lower edge of the skull behind: an arc of bone, sometimes the last of the cerebellum in it."""
    back = -float(skin[3 * ANGLES // 4])
    half, rise, off = c.between(25, 55), c.between(8, 35), c.between(10, 20)
    t = np.linspace(-1, 1, 21)
    line = np.stack([half * t, back + off + rise * t * t], 1)
    thick = c.between(4, 9)
    if c.chance(0.6):
        c.fill(line, c.between(1.03, 1.045))
    c.band(line, thick, cortical)
    c.band(line, max(thick - 3.5, 0.5), c.between(1.2, 1.6))

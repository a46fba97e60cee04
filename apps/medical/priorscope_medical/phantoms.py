"""Slices drawn at random, to train a prior for CT on no patient's data. For research use only.

Four of five slices are cuts through heads from jaw to crown, the others through other bodies, so that the prior does
not become a template of one anatomy. Everything is drawn from general knowledge with wide margins; no scan is copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

from priorscope.errors import InputError
from priorscope_medical.phantom_canvas import ANGLES, Canvas, blob, curve
from priorscope_medical.phantom_faces import base
from priorscope_medical.phantom_heads import brain, outline, vertex
from priorscope_medical.phantom_necks import jaw
from priorscope_medical.phantom_parts import vertebra

_LEVELS: dict[str, Callable[[Canvas], None]] = {"brain": brain, "base": base, "jaw": jaw, "vertex": vertex}
_KINDS = {"brain": 0.26, "base": 0.26, "jaw": 0.16, "vertex": 0.08, "empty": 0.04, "other": 0.20}


def ct_slice(seed: int, index: int, *, size: int = 128, pixel: float = 1.9, kind: str | None = None) -> np.ndarray:
    """One axial slice of a body that never was.

    Parameters
    ----------
    seed, index : int
        Which slice; neither negative. The same pair gives the same body in every size and sampling.
    size : int
        Pixels along a side, at least 16.
    pixel : float
        mm of a pixel. What lies outside the square of ``size * pixel`` mm is cut off.
    kind : {"brain", "base", "jaw", "vertex", "empty", "other"}, optional
        By default one by chance; "empty" is what surrounds a patient, alone.

    Returns
    -------
    ndarray, float32 (size, size)
        Attenuation relative to water: air 0, fat 0.9, water 1, bone 1.3 to 2.5, teeth and metal up to 6. Never
        negative. The front of the body points down or up, now and then elsewhere.

    Raises
    ------
    InputError
        For a size, pixel, seed or index outside these bounds, and a kind that is none.
    """
    _check(seed, index, size, pixel)
    if kind not in (None, *_KINDS):
        raise InputError(f"kind {kind!r}", remedy=f"choose one of {', '.join(_KINDS)}")
    rng = np.random.default_rng([seed, index])
    canvas = Canvas(size, pixel, rng)
    by_chance = str(rng.choice(list(_KINDS), p=list(_KINDS.values())))
    kind = by_chance if kind is None else kind
    turn = canvas.between(-0.3, 0.3) * canvas.between(0, 1) + (math.pi if canvas.chance(0.4) else 0)
    if canvas.chance(0.08):
        turn = canvas.between(0, 2 * math.pi)
    centre = (canvas.between(-14, 14), canvas.between(-18, 18))
    canvas.place(centre, turn)
    if kind == "other":
        _OTHERS[int(rng.integers(len(_OTHERS)))](canvas)
    elif kind != "empty":
        _LEVELS[kind](canvas)
    _surroundings(canvas, centre, turn)
    return _scan(canvas, size)


def ct_slices(count: int, seed: int, first: int = 0, *, size: int = 128, pixel: float = 1.9) -> np.ndarray:
    """Slices ``first`` to ``first + count - 1`` of a seed: float32 (count, size, size), see `ct_slice`."""
    if count < 1:
        raise InputError(f"{count} slices were asked for", remedy="ask for one or more")
    _check(seed, first, size, pixel)
    slices = np.empty((count, size, size), np.float32)
    for k in range(count):
        slices[k] = ct_slice(seed, first + k, size=size, pixel=pixel)
    return slices


def _check(seed: int, index: int, size: int, pixel: float) -> None:
    if seed < 0 or index < 0:
        raise InputError(f"seed {seed}, index {index}: negative", remedy="count from 0")
    if not 16 <= size <= 4096:
        raise InputError(f"a slice of {size} pixels a side cannot be drawn", remedy="choose 16 to 4096")
    if not (math.isfinite(pixel) and pixel > 0):
        raise InputError(f"a pixel of {pixel} mm cannot be", remedy="give its side in mm, such as 1.9")


def _scan(canvas: Canvas, size: int) -> np.ndarray:
    """What the scanner makes of it: partial volume, blur, streaks, noise."""
    rng = canvas.rng
    blur, noise, grain = (
        rng.uniform(0.4, 0.9),
        math.exp(rng.uniform(math.log(0.003), math.log(0.02))),
        rng.uniform(0, 0.7),
    )
    if rng.random() < 0.12:
        canvas.image += _streaks(canvas)
    fine = canvas.image.reshape(size, 2, size, 2).mean((1, 3))
    picture = gaussian_filter(fine, blur, truncate=3, mode="nearest")
    speckle = rng.standard_normal((size, size), np.float32)
    if grain > 0.3:
        speckle = gaussian_filter(speckle, grain, truncate=3)
        speckle /= speckle.std()
    return np.maximum(picture + np.float32(noise) * speckle, 0).astype(np.float32)


def _streaks(canvas: Canvas) -> np.ndarray:
    """Rays from a dense point that fade with distance; only where the body is, or nearly so."""
    canvas.place((canvas.between(-40, 40), canvas.between(-60, 60)), 0.0)
    distance, bins = canvas.polar()
    rays = canvas.wave(1, 1.0, orders=40, roughness=0.1) - 1
    strength = canvas.between(0.01, 0.06) * (canvas.image > 0.3)
    return (strength * rays[bins] * np.exp(-distance / canvas.between(20, 70))).astype(np.float32)


def _surroundings(canvas: Canvas, centre: tuple[float, float], turn: float) -> None:
    """Head rest, table, cushions, clothes and wires, each behind what is already there."""
    canvas.place(centre, turn)
    kind = canvas.rng.random()
    thin = {"high": 0.3}
    if kind < 0.5:
        _head_rest(canvas)
    elif kind < 0.65:
        y = canvas.between(-125, -95)
        t = np.linspace(-1, 1, 15)
        line = np.stack([150 * t, y + canvas.between(0, 30) * t * t], 1)
        if canvas.chance(0.5):
            canvas.band(line - (0, 12), 22, canvas.between(0.03, 0.1), **thin)
        canvas.band(line, canvas.between(1.5, 6), canvas.between(0.1, 0.9), **thin)
    if canvas.chance(0.25):
        for _ in range(canvas.rng.integers(1, 6)):
            at = canvas.between(0, 2 * math.pi)
            near = canvas.between(80, 118)
            angles = at + np.linspace(0, canvas.between(0.2, 1.0), 7)
            radius = near + np.cumsum(canvas.rng.normal(size=7)) * 2.5
            line = np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)
            canvas.band(line, canvas.between(0.8, 5), canvas.between(0.03, 0.5), **thin)
    if canvas.chance(0.12):
        dots = [
            blob(canvas.rng, _around(canvas), (canvas.between(0.6, 2), canvas.between(0.6, 2)), corners=10)
            for _ in range(canvas.rng.integers(1, 5))
        ]
        canvas.fill(dots, canvas.between(0.8, 4), **thin)
    if canvas.chance(0.06):
        where, outer = _around(canvas), canvas.between(2.5, 6)
        canvas.fill(blob(canvas.rng, where, (outer, outer), rough=0), canvas.between(0.9, 1.4), **thin)
        canvas.fill(blob(canvas.rng, where, (outer * 0.6, outer * 0.6), rough=0), 0.0)


def _around(canvas: Canvas) -> tuple[float, float]:
    at, far = canvas.between(0, 2 * math.pi), canvas.between(85, 120)
    return far * math.cos(at), far * math.sin(at)


def _head_rest(canvas: Canvas) -> None:
    """A shell that holds the head from behind, foam or cushions in it."""
    radius, middle = canvas.between(85, 150), canvas.between(-25, 40)
    half = canvas.between(0.6, 1.7)
    angles = -math.pi / 2 + canvas.between(-0.15, 0.15) + np.linspace(-half, half, 40)
    flat = canvas.between(0.8, 1.1)
    arc = np.stack([radius * np.cos(angles), middle + flat * radius * np.sin(angles)], 1)
    thick = canvas.between(1.5, 7)
    if canvas.chance(0.45):
        foam = 1 - (thick / 2 + canvas.between(6, 30) / 2) / radius
        canvas.band(
            (arc - (0, middle)) * foam + (0, middle), canvas.between(6, 30), canvas.between(0.02, 0.12), high=0.3
        )
    shell = canvas.between(0.15, 1.1)
    canvas.band(arc, thick, shell, high=0.3)
    if thick > 3.5 and canvas.chance(0.5):
        canvas.band(arc[1:-1], thick - 2, canvas.between(0.02, 0.2), low=shell - 0.05, high=shell + 0.05)
    for _ in range(canvas.rng.integers(0, 4)):
        where = float(canvas.rng.choice(angles[5:-5]))
        near = radius - canvas.between(6, 22)
        cushion = blob(
            canvas.rng,
            (near * math.cos(where), middle + near * math.sin(where)),
            (canvas.between(4, 22), canvas.between(2, 9)),
            angle=where + math.pi / 2,
            rough=0.2,
        )
        canvas.fill(cushion, canvas.between(0.03, 0.35), high=0.3)


def _shapes(canvas: Canvas) -> None:
    """Ellipses and polygons of any density."""
    a, b = canvas.between(35, 110), canvas.between(35, 110)
    canvas.fill(blob(canvas.rng, (0, 0), (a, b), rough=0.06, corners=80), canvas.between(0.85, 1.1))
    for _ in range(canvas.rng.integers(4, 26)):
        at, far = canvas.between(0, 2 * math.pi), math.sqrt(canvas.between(0, 1))
        where = (far * a * 0.9 * math.cos(at), far * b * 0.9 * math.sin(at))
        scale = math.exp(canvas.between(math.log(1.5), math.log(35)))
        corners = int(canvas.rng.choice([3, 4, 5, 6, 30, 30, 30]))
        shape = blob(
            canvas.rng,
            where,
            (scale, scale * canvas.between(0.3, 1)),
            angle=canvas.between(0, 3.1),
            corners=corners,
            rough=canvas.between(0, 0.15),
        )
        value = canvas.rng.choice([0.0, canvas.between(0.85, 1.1), canvas.between(0.85, 1.1), canvas.between(1.1, 2.6)])
        canvas.fill(shape, float(value), low=0.3)
        if canvas.chance(0.3):
            canvas.fill(0.3 * shape.mean(0) + 0.7 * shape, canvas.between(0, 1.5), low=0.3)


def _body(canvas: Canvas, skin: np.ndarray, fat: float) -> np.ndarray:
    distance, bins = canvas.polar()
    depth = skin[bins] - distance
    canvas.paint(canvas.edge(depth), 1.05)
    canvas.paint(canvas.edge(depth - canvas.between(1, 2.5)), canvas.between(0.88, 0.94))
    layer = np.clip(canvas.wave(fat, 0.5), 1, 60)
    canvas.paint(canvas.edge(depth - layer[bins]), np.float32(canvas.between(1.02, 1.07)) + canvas.texture(0.008, 10))
    return layer


def _neck(canvas: Canvas) -> None:
    a, b = canvas.between(45, 75), canvas.between(45, 75)
    _body(canvas, outline(canvas, a, b, 0.04), canvas.between(4, 14))
    for _ in range(canvas.rng.integers(4, 12)):
        x, y, turn = canvas.between(0.2, 0.8) * a, canvas.between(-0.8, 0.6) * b, canvas.between(0, 3)
        axes = (canvas.between(3, 10), canvas.between(4, 18))
        pair = [blob(canvas.rng, (side * x, y), axes, angle=side * turn, corners=18) for side in (-1, 1)]
        canvas.fill(pair, canvas.rng.choice([0.91, 1.05, 1.06]), low=0.85, high=1.1)
    vertebra(canvas, b * canvas.between(-0.1, 0.15), canvas.between(0.9, 1.3))
    airway = (canvas.between(5, 11), canvas.between(5, 11))
    where = (canvas.between(-4, 4), b * canvas.between(0.35, 0.6))
    if canvas.chance(0.6):
        canvas.fill(blob(canvas.rng, where, (airway[0] + 3, airway[1] + 3)), canvas.between(1.06, 1.6))
    canvas.fill(blob(canvas.rng, where, airway), 0.0)


def _trunk(canvas: Canvas) -> None:
    """A small chest or belly: ribs, spine, lungs or organs."""
    a, b = canvas.between(75, 118), canvas.between(55, 90)
    skin = outline(canvas, a, b, 0.03)
    layer = _body(canvas, skin, canvas.between(4, 16))
    wall = skin - layer - canvas.between(8, 14)
    lungs = canvas.chance(0.6)
    for side in (-1, 1):
        if lungs:
            lung = blob(canvas.rng, (side * 0.48 * a, 0), (0.3 * a, 0.6 * b), angle=side * 0.2, rough=0.1, corners=40)
            canvas.fill(lung, canvas.between(0.1, 0.35))
            vessels = [
                blob(
                    canvas.rng,
                    (side * canvas.between(0.3, 0.65) * a, canvas.between(-0.4, 0.4) * b),
                    (canvas.between(1, 3), canvas.between(1, 4)),
                    corners=12,
                )
                for _ in range(7)
            ]
            canvas.fill(vessels, 1.03, high=0.5)
        else:
            for _ in range(canvas.rng.integers(2, 6)):
                where = (side * canvas.between(0.1, 0.6) * a, canvas.between(-0.4, 0.5) * b)
                canvas.fill(
                    blob(canvas.rng, where, (canvas.between(6, 28), canvas.between(6, 24))),
                    canvas.between(0.9, 1.1),
                    low=0.8,
                )
            if canvas.chance(0.4):
                canvas.fill(
                    blob(canvas.rng, (side * 0.4 * a, 0.4 * b), (canvas.between(4, 14), canvas.between(4, 12))), 0.0
                )
    if lungs:
        canvas.fill(
            blob(canvas.rng, (canvas.between(0, 12), 0.2 * b), (canvas.between(20, 36), canvas.between(16, 32))), 1.04
        )
    count = int(canvas.rng.integers(5, 13))
    for at in np.linspace(0.1, 2 * math.pi, count):
        angles = at + np.linspace(-0.12, 0.12, 7) * canvas.between(0.5, 1.6)
        radius = wall[(angles * ANGLES / (2 * math.pi)).astype(int) % ANGLES]
        rib = np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)
        canvas.band(rib, 6, canvas.between(1.5, 2.0))
        canvas.band(rib[1:-1], 3, canvas.between(1.1, 1.4))
    vertebra(canvas, canvas.between(-0.2, 0) * b, canvas.between(1.0, 1.5))


def _limbs(canvas: Canvas) -> None:
    """One to three limbs with long bones."""
    for k in range(int(canvas.rng.integers(1, 4))):
        r = canvas.between(18, 60)
        x, y = (canvas.between(-70, 70), canvas.between(-60, 60)) if k else (0.0, 0.0)
        limb = blob(canvas.rng, (x, y), (r, r * canvas.between(0.75, 1.1)), rough=0.05, corners=60)
        middle = np.array([x, y])
        canvas.fill(limb, 1.05)
        canvas.fill(middle + 0.96 * (limb - middle), 0.91)
        canvas.fill(middle + canvas.between(0.6, 0.93) * (limb - middle), canvas.between(1.04, 1.07))
        for _ in range(canvas.rng.integers(1, 4)):
            seam = curve(
                [
                    (x + canvas.between(-r, r) * 0.7, y + canvas.between(-r, r) * 0.7),
                    (x, y),
                    (x + canvas.between(-r, r) * 0.7, y + canvas.between(-r, r) * 0.7),
                ],
                12,
            )
            canvas.band(seam, canvas.between(0.6, 2.5), 0.92, low=1.0)
        for _ in range(canvas.rng.integers(1, 3)):
            bone = r * canvas.between(0.15, 0.35)
            where = (x + canvas.between(-0.3, 0.3) * r, y + canvas.between(-0.3, 0.3) * r)
            shaft = blob(canvas.rng, where, (bone, bone * canvas.between(0.7, 1)), rough=0.08)
            canvas.fill(shaft, canvas.between(1.7, 2.5))
            hollow = canvas.between(0.4, 0.85)
            canvas.fill(shaft.mean(0) + hollow * (shaft - shaft.mean(0)), canvas.between(0.93, 1.4))


_OTHERS: tuple[Callable[[Canvas], None], ...] = (_shapes, _shapes, _neck, _trunk, _limbs)

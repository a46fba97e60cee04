"""Thin structures: railings, wire fences, racks, tripods, twigs, stems, blinds: narrower than what is behind them."""

from __future__ import annotations

import numpy as np

from .geometry import Array, Mesh, box, cylinder, joined, leaves, revolve, rods, rotation_x, rotation_z, tube
from .materials import Look
from .things import Maker, Thing, moved

Bar = tuple[tuple[float, float, float], tuple[float, float, float]]


def _bars(pairs: list[Bar], radius: float) -> Mesh:
    """Bars between pairs of points as one mesh."""
    return rods([a for a, _ in pairs], [b for _, b in pairs], radius)


def railing(rng: np.random.Generator, look: Look) -> Thing:
    """Posts, a hand rail, and upright bars or stretched wires between them."""
    length, h = rng.uniform(1.5, 6.0), rng.uniform(0.8, 1.2)
    metal = look.metal() if rng.uniform() < 0.7 else look.plastic()
    thick, bar = rng.uniform(0.015, 0.03), rng.uniform(0.004, 0.012)
    a, half = thick, length / 2
    posts = np.linspace(-half, half, int(rng.integers(2, 6)))
    frame = [((x, 0.0, 0.0), (x, 0.0, h)) for x in posts] + [((-half, 0.0, h), (half, 0.0, h))]
    if rng.uniform() < 0.55:
        frame.append(((-half, 0.0, 0.1), (half, 0.0, 0.1)))
        thin = [((x, 0.0, 0.1), (x, 0.0, h)) for x in np.arange(-half, half, rng.uniform(0.08, 0.16))]
    else:
        thin = [((-half, 0.0, z), (half, 0.0, z)) for z in np.linspace(0.12, h, int(rng.integers(3, 9)))[:-1]]
    return [(_bars(frame, a), metal), (_bars(thin, bar), metal)]


def wire_fence(rng: np.random.Generator, look: Look) -> Thing:
    """Wire netting, square or slanted, between posts."""
    length, h, gap = rng.uniform(2.0, 6.0), rng.uniform(0.8, 2.0), rng.uniform(0.08, 0.25)
    metal = look.metal()
    posts = np.arange(-length / 2, length / 2 + 0.01, length / max(1, round(length / 2)))
    pairs: list[Bar] = []
    if rng.uniform() < 0.6:
        pairs += [((x, 0.0, 0.02), (x, 0.0, h)) for x in np.arange(-length / 2, length / 2, gap)]
        pairs += [((-length / 2, 0.0, z), (length / 2, 0.0, z)) for z in np.arange(0.05, h, gap)]
    else:
        for x in np.arange(-length / 2, length / 2 - h, 1.5 * gap):
            pairs += [((x, 0.0, 0.02), (x + h, 0.0, h)), ((x + h, 0.0, 0.02), (x, 0.0, h))]
    upright = _bars([((x, 0.0, 0.0), (x, 0.0, h + 0.05)) for x in posts], 0.03)
    thing: Thing = [(upright, look.wood() if rng.uniform() < 0.4 else metal)]
    return [*thing, (_bars(pairs, rng.uniform(0.002, 0.006)), metal)] if pairs else thing


def tripod(rng: np.random.Generator, look: Look) -> Thing:
    """A stand on three legs with a lamp, a camera, a board or nothing on it."""
    h, spread = rng.uniform(0.9, 1.7), rng.uniform(0.25, 0.5)
    material = look.wood() if rng.uniform() < 0.4 else look.metal()
    angle = np.arange(3) * 2.09 + rng.uniform(0, 2)
    feet = [(spread * np.cos(t), spread * np.sin(t), 0.0) for t in angle]
    thing: Thing = [(_bars([(foot, (0.0, 0.0, 0.8 * h)) for foot in feet], rng.uniform(0.008, 0.02)), material)]
    thing.append((cylinder(0.015, 0.3 * h, segments=8).moved((0, 0, 0.7 * h)), material))
    top = rng.uniform()
    if top < 0.35:
        thing.append((revolve([(0.18, h - 0.1), (0.1, h + 0.12)], 16), look.lamp()))
    elif top < 0.6:
        board = box(rng.uniform(0.4, 0.7), 0.02, rng.uniform(0.4, 0.9)).moved((0, -0.06, 0.6 * h), rotation_x(-0.15))
        thing.append((board, look.picture()))
    elif top < 0.85:
        thing.append((box(0.14, 0.1, 0.1).moved((0, 0, h)), look.rubber()))
    return thing


def clothes_rack(rng: np.random.Generator, look: Look) -> Thing:
    """A rail on two stands with clothes of many colours on it."""
    w, h = rng.uniform(0.7, 1.5), rng.uniform(1.3, 1.8)
    pairs = [((-w / 2, 0.0, h), (w / 2, 0.0, h))]
    for s in (-1, 1):
        pairs += [((s * w / 2, 0.0, 0.0), (s * w / 2, 0.0, h)), ((s * w / 2, -0.25, 0.02), (s * w / 2, 0.25, 0.02))]
    thing: Thing = [(_bars(pairs, 0.013), look.metal())]
    for x in np.arange(-w / 2 + 0.1, w / 2 - 0.1, 0.1):
        if rng.uniform() < 0.55:
            long = rng.uniform(0.4, 0.9 * h)
            cloth = box(rng.uniform(0.02, 0.05), rng.uniform(0.3, 0.45), long).moved(
                (0, 0, 0), rotation_z(rng.normal() * 0.2)
            )
            thing.append((cloth.moved((x, 0, h - 0.04 - long)), look.fabric()))
    return thing


def wire_shelf(rng: np.random.Generator, look: Look) -> Thing:
    """Shelves, a crate or a cage of wires."""
    x, y, h = rng.uniform(0.3, 1.0), rng.uniform(0.3, 0.5), rng.uniform(0.3, 1.7)
    corners = [(s * x / 2, t * y / 2) for s in (-1, 1) for t in (-1, 1)]
    posts = _bars([((a, b, 0.0), (a, b, h)) for a, b in corners], 0.01)
    wires = []
    for z in np.linspace(0.08, h - 0.02, max(2, round(h / 0.4))):
        wires += [((px, -y / 2, z), (px, y / 2, z)) for px in np.linspace(-x / 2, x / 2, int(x / 0.06) + 2)]
        wires += [((-x / 2, py, z), (x / 2, py, z)) for py in (-y / 2, 0.0, y / 2)]
    if rng.uniform() < 0.4:
        wires += [((px, s * y / 2, 0.05), (px, s * y / 2, h)) for px in np.arange(-x / 2, x / 2, 0.07) for s in (-1, 1)]
    metal = look.metal()
    return [(posts, metal), (_bars(wires, rng.uniform(0.0025, 0.005)), metal)]


def stems(rng: np.random.Generator, look: Look) -> Thing:
    """A tall plant: bent stems with few leaves, from a pot or from the ground."""
    h, count = rng.uniform(0.5, 1.8), int(rng.integers(3, 12))
    foot = rng.normal(size=(count, 3)) * [0.05, 0.05, 0]
    lean = rng.normal(size=(count, 3)) * [0.2 * h, 0.2 * h, 0]
    tall = h * rng.uniform(0.5, 1.0, (count, 1)) * [0, 0, 1]
    t = np.linspace(0, 1, 5)[:, None, None]
    curve = foot + tall * t + lean * t**2
    thick = rng.uniform(0.003, 0.008)
    green = look.leaf()
    thing: Thing = [(rods(curve[:-1].reshape(-1, 3), curve[1:].reshape(-1, 3), thick, 4), green)]
    at = curve[1:].reshape(-1, 3)
    at = np.repeat(at, int(rng.integers(2, 8)), axis=0)[:, None]
    thing.append((leaves(rng, at, np.full(3, 0.04), len(at), rng.uniform(0.05, 0.16)), green))
    if rng.uniform() < 0.6:
        pot = revolve([(0, 0), (0.1, 0), (0.14, 0.22), (0, 0.2)], 16)
        thing = [(pot, look.any_object()), *moved(thing, (0, 0, 0.2))]
    return thing


def branches(rng: np.random.Generator, h: float, *, levels: int = 3) -> tuple[Mesh, Array]:
    """The bare skeleton of a tree of `h` metres; and the ends of its twigs, (K, 3)."""
    starts, ends, thick = [np.array([[0.0, 0.0, -0.2]])], [np.array([[*rng.normal(size=2) * 0.03 * h, 0.4 * h]])], []
    radius, length = h * rng.uniform(0.012, 0.028), 0.4 * h
    thick.append(np.array([[radius * 1.2, radius * 0.75]]))
    heading = np.array([[0.0, 0.0, 1.0]])
    for _ in range(levels):
        children = int(rng.integers(3, 5))
        radius, length = radius * 0.6, length * rng.uniform(0.5, 0.75)
        base = np.repeat(ends[-1], children, axis=0)
        base = base - np.repeat(ends[-1] - starts[-1], children, axis=0) * rng.uniform(0, 0.4, (len(base), 1))
        turn = np.repeat(heading, children, axis=0) + rng.normal(size=(len(base), 3)) * [0.6, 0.6, 0.35] + [0, 0, 0.1]
        heading = turn / np.linalg.norm(turn, axis=-1, keepdims=True)
        starts.append(base)
        ends.append(base + heading * length * rng.uniform(0.6, 1.1, (len(base), 1)))
        thick.append(np.tile([radius, 0.6 * radius], (len(base), 1)))
    sides = [rods(a, b, t, s) for a, b, t, s in zip(starts, ends, thick, (8, 5, 4, 3, 3)[: levels + 1], strict=True)]
    return joined(sides), ends[-1]


def bare_tree(rng: np.random.Generator, look: Look) -> Thing:
    skeleton, _ = branches(rng, rng.uniform(2.0, 8.0))
    return [(skeleton, look.wood())]


def bough(rng: np.random.Generator, look: Look) -> Thing:
    """A shrub of twigs, with or without leaves."""
    h = rng.uniform(0.5, 1.6)
    skeleton, tips = branches(rng, h)
    thing: Thing = [(skeleton.moved((0, 0, -0.3 * h)), look.wood())]
    if rng.uniform() < 0.7:
        at = np.repeat(tips, 3, axis=0)[:, None] - [0, 0, 0.3 * h]
        thing.append((leaves(rng, at, np.full(3, 0.06 * h), len(at), rng.uniform(0.03, 0.1) * h), look.leaf()))
    return thing


def scaffold(rng: np.random.Generator, look: Look) -> Thing:
    """Scaffolding, a climbing frame, goal posts: tubes on a grid, some left out, some crossed."""
    size = np.array([rng.uniform(1.0, 3.0), rng.uniform(0.6, 1.5), rng.uniform(1.5, 4.0)])
    steps = [np.linspace(-s / 2, s / 2, int(rng.integers(2, 4))) for s in size]
    steps[2] = np.linspace(0, size[2], int(rng.integers(2, 5)))
    bars: list[Array] = []
    for axis in range(3):
        one, two = [k for k in range(3) if k != axis]
        for a in steps[one]:
            for b in steps[two]:
                if axis == 2 or rng.uniform() < 0.75:
                    bar = np.zeros((2, 3))
                    bar[:, one], bar[:, two] = a, b
                    bar[:, axis] = steps[axis][0], steps[axis][-1]
                    bars.append(bar)
    bars.append(size * [[-0.5, -0.5, 0.0], [0.5, -0.5, 1.0]])
    starts, ends = np.stack(bars, axis=1)
    return [(rods(starts, ends, rng.uniform(0.015, 0.035)), look.metal())]


def parasol(rng: np.random.Generator, look: Look) -> Thing:
    h, r = rng.uniform(1.9, 2.6), rng.uniform(0.7, 1.4)
    cover = revolve([(r, h - 0.35), (0.5 * r, h - 0.15), (0.0, h)], int(rng.integers(6, 12)), sharp=2.0)
    return [(cylinder(0.02, h, segments=8), look.metal()), (cylinder(0.25, 0.08), look.stone()), (cover, look.fabric())]


def coil(rng: np.random.Generator, look: Look) -> Thing:
    """A coiled cable, a hose or a spring."""
    turns, r = rng.uniform(2, 6), rng.uniform(0.06, 0.25)
    t = np.linspace(0, turns, int(12 * turns))
    pitch, thick = rng.uniform(0.01, 0.08), rng.uniform(0.004, 0.015)
    wobble = r * (1 + 0.1 * np.sin(t * 2.3))
    path = np.stack([wobble * np.cos(2 * np.pi * t), wobble * np.sin(2 * np.pi * t), thick + pitch * t], axis=-1)
    return [(tube(path, thick, 5), look.plastic())]


def blinds(rng: np.random.Generator, look: Look, w: float, h: float) -> Thing:
    """Slats before a window of w by h metres, level or upright, drawn all or part of the way; in the x-z plane."""
    gap = rng.uniform(0.04, 0.09)
    tilt = rng.uniform(0.2, 1.2)
    drawn = rng.uniform(0.4, 1.0)
    if rng.uniform() < 0.7:
        slat = box(w, gap, 0.003).moved((0, 0, 0), rotation_x(tilt))
        slats = [slat.moved((0, 0, z)) for z in np.arange(h * (1 - drawn), h, gap)]
        cords = rods([(s * 0.35 * w, -0.03, 0) for s in (-1, 1)], [(s * 0.35 * w, -0.03, h) for s in (-1, 1)], 0.003, 4)
        slats.append(cords)
    else:
        slat = box(1.3 * gap, 0.003, h).moved((0, 0, 0), rotation_z(tilt))
        slats = [slat.moved((x, 0, 0)) for x in np.arange(-w / 2, w * (drawn - 0.5), 1.2 * gap)]
    return [(joined(slats), look.plastic() if rng.uniform() < 0.7 else look.wood())]


def cable(start: Array, end: Array, sag: float, radius: float) -> Mesh:
    """A cable that hangs through by `sag` metres between two points."""
    t = np.linspace(0, 1, 12)[:, None]
    path = start + (end - start) * t - np.array([0, 0, 4 * sag]) * t * (1 - t)
    return rods(path[:-1], path[1:], radius, 4)


THIN_INDOORS: list[Maker] = [
    railing,
    tripod,
    tripod,
    clothes_rack,
    wire_shelf,
    wire_shelf,
    stems,
    stems,
    coil,
    scaffold,
]
THIN_OUTDOORS: list[Maker] = [railing, wire_fence, scaffold, stems, bough, bare_tree, parasol, tripod]

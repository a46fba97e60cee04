"""Things that stand outdoors: buildings, cars, trees, poles, fences, rocks."""

from __future__ import annotations

import numpy as np

from .furniture import bin_
from .geometry import Mesh, blob, box, boxes, cylinder, extrude, joined, leaves, rotation_x, rotation_z, tube
from .large_objects import bicycle, motorbike, person
from .materials import Look
from .thin import THIN_OUTDOORS, bough, branches, railing
from .things import Maker, Thing, moved


def building(rng: np.random.Generator, look: Look, x: float, y: float, h: float, *, windows: bool = True) -> Thing:
    """A house or block of x by y by h metres with windows, door, plinth and roof; its front towards -y."""
    wall, frame, glass = look.facade(), look.plastic(), look.glass()
    thing: Thing = [(box(x, y, h), wall)]
    if windows and rng.uniform() < 0.7:
        floors, columns = max(1, round(h / rng.uniform(2.7, 3.5))), max(1, round(x / rng.uniform(1.8, 3.5)))
        w, t = x / columns, h / floors
        ww, wh = w * rng.uniform(0.35, 0.7), t * rng.uniform(0.4, 0.65)
        sill, lit = rng.uniform() < 0.6, rng.choice([0.02, 0.02, 0.2])
        panes: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
        for i in range(min(columns, 8)):
            for j in range(min(floors, 6)):
                at = (-x / 2 + (i + 0.5) * w, -y / 2, j * t + 0.3 * t)
                if j == 0 and rng.uniform() < 0.15:
                    thing.append((box(1.0, 0.1, 2.1).moved((at[0], -y / 2, 0)), look.wood()))
                else:
                    panes[bool(rng.uniform() < lit)].append(at)
        for shining, places in panes.items():
            if places:
                # the pane stands out by 3 cm and its frame by 6, so that no two surfaces coincide
                every = np.ones((len(places), 1))
                thing.append((boxes(every * [ww, 0.06, wh], places), look.lit_window() if shining else glass))
                size, down = ((ww + 0.2, 0.3, 0.08), 0.08) if sill else ((0.08, 0.12, wh), 0.0)
                thing.append((boxes(every * size, np.array(places) - [0, 0, down]), frame))
    if rng.uniform() < 0.4:
        thing.append((box(x + 0.1, y + 0.1, rng.uniform(0.3, 1.0)), look.stone()))
    if rng.uniform() < 0.5 and h < 14:
        rise = rng.uniform(0.2, 0.5) * y
        gable = extrude([(-y / 2 - 0.3, 0), (y / 2 + 0.3, 0), (0, rise)], x + 0.6)
        thing.append((gable.moved((0, 0, h), rotation_z(np.pi / 2)), look.stone()))
        if rng.uniform() < 0.5:
            thing.append((box(0.6, 0.6, rise + 0.8).moved((rng.uniform(-0.3, 0.3) * x, 0, h)), wall))
    else:
        thing.append((box(x + 0.4, y + 0.4, rng.uniform(0.2, 0.5)).moved((0, 0, h)), look.stone()))
    if rng.uniform() < 0.3:
        awning = box(rng.uniform(0.3, 0.9) * x, 1.4, 0.06).moved((0, -y / 2 - 0.6, 2.6), rotation_x(0.25))
        thing.append((awning, look.fabric()))
    return thing


def house(rng: np.random.Generator, look: Look) -> Thing:
    return building(rng, look, rng.uniform(5, 12), rng.uniform(5, 9), rng.uniform(2.6, 7))


def car(rng: np.random.Generator, look: Look, *, far: bool = False) -> Thing:
    """A car, van or small lorry along x: a side profile, a narrower glass house, wheels, lamps."""
    paint, glass, rubber, metal = look.car_paint(), look.glass(), look.rubber(), look.metal()
    length, width = rng.uniform(3.5, 4.8), rng.uniform(1.6, 1.85)
    van = rng.uniform() < 0.25
    low, belt, roof = 0.22, rng.uniform(0.8, 1.0), rng.uniform(1.8, 2.5) if van else rng.uniform(1.35, 1.6)
    a = length / 2
    hood = rng.uniform(0.7, 0.9) * belt
    body = [
        (-a, low),
        (a, low),
        (a, 0.6 * belt),
        (0.95 * a, hood),
        (0.35 * a, belt),
        (-0.9 * a, belt),
        (-a, 0.7 * belt),
    ]
    if van:
        cabin = [(-0.97 * a, 0), (0.55 * a, 0), (0.35 * a, roof - belt), (-0.95 * a, roof - belt)]
    else:
        rear = rng.uniform(0.5, 0.95)
        cabin = [(-rear * a, 0), (0.42 * a, 0), (0.1 * a, roof - belt), (-(rear - 0.2) * a, roof - belt)]
    thing: Thing = [(extrude(body, width), paint), (extrude(cabin, width * 0.88).moved((0, 0, belt)), glass)]
    top = np.array(cabin)[2:] * [0.98, 1.0]
    cap = [*map(tuple, top[::-1] + [0, -0.06]), *map(tuple, top + [0, 0.02])]
    thing.append((extrude(cap, width * 0.9).moved((0, 0, belt)), paint))
    if not van:
        thing.append((box(0.08, width * 0.895, roof - belt).moved((-0.15 * a, 0, belt)), paint))
    r = rng.uniform(0.29, 0.36)
    tyre = cylinder(r, 0.2, segments=9 if far else 18).moved((0, 0, 0), rotation_x(np.pi / 2))
    at = [(px, side * (width / 2 - 0.08) + 0.1, r) for px in (-0.6 * a, 0.62 * a) for side in (-1, 1)]
    thing.append((joined([tyre.moved(place) for place in at]), rubber))
    if not far:
        rim = cylinder(0.6 * r, 0.22, segments=12).moved((0, 0.01, 0), rotation_x(np.pi / 2))
        thing.append((joined([rim.moved(place) for place in at]), metal))
    for side in (-1, 1):
        thing.append((box(0.06, 0.3, 0.14).moved((a - 0.02, side * 0.36 * width, 0.42 * belt + 0.1)), look.lamp()))
        thing.append((box(0.06, 0.25, 0.16).moved((-a + 0.02, side * 0.38 * width, 0.5 * belt)), look.plastic()))
    thing.append((box(length * 1.01, width * 0.96, 0.15).moved((0, 0, low - 0.05)), rubber))
    return thing


def tree(rng: np.random.Generator, look: Look) -> Thing:
    """A conifer, or a trunk and branches with a crown of leaves, dense or light."""
    h = rng.uniform(2.5, 9)
    trunk, leaf = look.wood(), look.leaf()
    kind = rng.uniform()
    if kind < 0.15:
        thing: Thing = [(cylinder(0.02 * h, 0.3 * h, segments=8), trunk)]
        levels = int(rng.integers(3, 6))
        for i in range(levels):
            z = h * (0.15 + 0.75 * i / levels)
            skirt = cylinder(0.24 * h * (1 - 0.8 * i / levels), 0.32 * h, top=0.0, segments=10)
            thing.append((skirt.moved((0, 0, z)), leaf))
        return thing
    skeleton, tips = branches(rng, h, levels=2)
    thing = [(skeleton, trunk)]
    size = h * rng.uniform(0.06, 0.13)
    crowns = tips[rng.permutation(len(tips))[: int(rng.integers(4, 10))]]
    lumps = []
    for tip in crowns:
        wide = size * rng.uniform(0.7, 1.5)
        lumps.append(blob(rng, wide, wide, 0.8 * wide, rough=0.3, segments=10).moved(tip - [0, 0, 0.8 * wide]))
    if kind < 0.7:
        thing.append((joined(lumps), leaf))
    each = int(rng.integers(25, 60))
    at = np.repeat(crowns if kind < 0.7 else tips, each, axis=0)[:, None]
    thing.append((leaves(rng, at, np.full(3, 1.5 * size), len(at), rng.uniform(0.15, 0.3) * size), leaf))
    return thing


def bush(rng: np.random.Generator, look: Look) -> Thing:
    x, y, z = rng.uniform(0.3, 1.2, 3)
    leaf = look.leaf()
    crown = leaves(rng, np.array([0, 0, z]), np.array([x, y, z]) * 1.1, 260, 0.06 * (x + y + z) / 3 + 0.02)
    return [(blob(rng, x, y, z, rough=0.2).moved((0, 0, -0.1 * z)), leaf), (crown, leaf)]


def rock(rng: np.random.Generator, look: Look) -> Thing:
    size = float(np.exp(rng.uniform(np.log(0.15), np.log(1.6))))
    x, y, z = size * rng.uniform(0.5, 1.0, 3)
    return [(blob(rng, x, y, z, rough=0.25, segments=22).moved((0, 0, -0.3 * z)), look.stone())]


def grass(rng: np.random.Generator, look: Look) -> Thing:
    """A tuft of blades."""
    count, h = 40, rng.uniform(0.1, 0.5)
    foot = rng.normal(size=(count, 3)) * [0.15, 0.15, 0.0]
    side = rng.normal(size=(count, 3)) * [0.012, 0.012, 0.0]
    tip = foot + rng.normal(size=(count, 3)) * [0.3 * h, 0.3 * h, 0.0] + [0, 0, h] * rng.uniform(0.5, 1, (count, 1))
    vertices = np.stack([foot - side, foot + side, tip], axis=1).reshape(-1, 3)
    index = np.arange(3 * count)
    uv = rng.uniform(0, 0.3, size=(3 * count, 2))
    return [(Mesh(vertices, index.reshape(-1, 3), uv, index), look.leaf())]


def street_lamp(rng: np.random.Generator, look: Look) -> Thing:
    h, r = rng.uniform(3, 8), rng.uniform(0.05, 0.1)
    metal = look.metal()
    arm = rng.uniform(0.3, 1.5)
    thing: Thing = [(cylinder(r, h, top=0.6 * r, segments=10), metal)]
    thing.append((tube([(0, 0, h - 0.1), (0, -arm / 2, h + 0.1), (0, -arm, h)], 0.6 * r), metal))
    thing.append((box(0.25, 0.5, 0.12).moved((0, -arm, h - 0.1)), look.plastic()))
    thing.append((box(0.2, 0.4, 0.04).moved((0, -arm, h - 0.14)), look.lamp()))
    return thing


def sign(rng: np.random.Generator, look: Look) -> Thing:
    h = rng.uniform(1.6, 3.0)
    pole = (cylinder(0.035, h, segments=8), look.metal())
    if rng.uniform() < 0.5:
        plate = cylinder(rng.uniform(0.25, 0.4), 0.03).moved((0, -0.05, h - 0.2), rotation_x(np.pi / 2))
    else:
        plate = box(rng.uniform(0.4, 1.2), 0.03, rng.uniform(0.3, 0.8)).moved((0, -0.05, h - 0.5))
    return [pole, (plate, look.anything())]


def fence(rng: np.random.Generator, look: Look) -> Thing:
    length, h = rng.uniform(3, 8), rng.uniform(0.7, 1.7)
    material = look.wood() if rng.uniform() < 0.6 else look.metal()
    thing: Thing = [(box(length, 0.04, 0.07).moved((0, 0, z * h)), material) for z in (0.25, 0.85)]
    gap = rng.uniform(0.15, 1.5)
    w = min(rng.uniform(0.03, 0.12), 0.7 * gap)
    places = np.arange(-length / 2, length / 2, gap)[:, None] * [1, 0, 0] - [0, 0.05, 0]
    return [*thing, (boxes(np.ones((len(places), 1)) * [w, 0.05, h], places), material)]


def wall(rng: np.random.Generator, look: Look) -> Thing:
    material = look.leaf() if rng.uniform() < 0.4 else look.stone()
    return [(box(rng.uniform(2, 8), rng.uniform(0.2, 0.8), rng.uniform(0.5, 2.0)), material)]


def bench(rng: np.random.Generator, look: Look) -> Thing:
    wood, metal = look.wood(), look.metal()
    x = rng.uniform(1.2, 2.0)
    thing: Thing = [(box(0.06, 0.45, 0.42).moved((s * 0.4 * x, 0, 0)), metal) for s in (-1, 1)]
    thing += [(box(x, 0.12, 0.04).moved((0, py, 0.42)), wood) for py in (-0.16, 0.0, 0.16)]
    thing += [(box(x, 0.03, 0.1).moved((0, 0.22, z)), wood) for z in (0.55, 0.72)]
    return thing


def bollard(rng: np.random.Generator, look: Look) -> Thing:
    r = rng.uniform(0.05, 0.15)
    return [(cylinder(r, rng.uniform(0.5, 1.1), top=0.8 * r, segments=12), look.any_object())]


def parked_bicycle(rng: np.random.Generator, look: Look) -> Thing:
    return moved(bicycle(rng, look) if rng.uniform() < 0.6 else motorbike(rng, look), (0, 0, 0), rotation_x(0.06))


PAVEMENT: list[Maker] = [
    *(street_lamp, street_lamp, tree, tree, sign, sign, bin_, bench, bollard, bollard, person, person, person, bush),
    *(fence, parked_bicycle, railing, railing, *THIN_OUTDOORS),
]
COUNTRY: list[Maker] = [
    *(tree, tree, tree, bush, bush, rock, rock, rock, grass, grass, grass, grass, fence, wall, person, sign, house),
    *(bough, bough, *THIN_OUTDOORS),
]

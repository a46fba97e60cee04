"""Small items: on tables, on shelves, on the floor."""

from __future__ import annotations

import numpy as np

from .geometry import blob, box, cylinder, ellipsoid, extrude, leaves, revolve, rotation_z, torus, tube
from .materials import Look
from .things import Maker, Thing, extent, moved, pick


def carton(rng: np.random.Generator, look: Look) -> Thing:
    return [(box(*rng.uniform(0.08, 0.45, 3)), look.paper())]


def books(rng: np.random.Generator, look: Look) -> Thing:
    thing: Thing = []
    if rng.uniform() < 0.5:
        z = 0.0
        for _ in range(int(rng.integers(2, 7))):
            t = rng.uniform(0.015, 0.06)
            book = box(rng.uniform(0.14, 0.24), rng.uniform(0.18, 0.3), t)
            thing.append((book.moved((0, 0, z), rotation_z(rng.normal() * 0.2)), look.paper()))
            z += t
        return thing
    x = -0.15
    for _ in range(int(rng.integers(4, 10))):
        t = rng.uniform(0.015, 0.06)
        thing.append((box(t, 0.18, rng.uniform(0.18, 0.3)).moved((x + t / 2, 0, 0)), look.paper()))
        x += t + 0.002
    return thing


def vessel(rng: np.random.Generator, look: Look) -> Thing:
    """A bottle, vase, jar, cup or lamp foot: a random turned profile."""
    count = int(rng.integers(3, 7))
    height = rng.uniform(0.08, 0.4)
    radius = rng.uniform(0.25, 0.5) * height * rng.uniform(0.4, 1.0, count)
    profile = [(0.0, 0.0), *zip(radius, np.linspace(0, height, count), strict=True), (0.0, height)]
    return [(revolve(profile, 18, sharp=1.2), look.any_object())]


def can(rng: np.random.Generator, look: Look) -> Thing:
    radius = rng.uniform(0.03, 0.14)
    material = look.metal() if rng.uniform() < 0.5 else look.paper()
    return [(cylinder(radius, radius * rng.uniform(0.8, 4)), material)]


def bowl(rng: np.random.Generator, look: Look) -> Thing:
    r = rng.uniform(0.06, 0.18)
    h = r * rng.uniform(0.4, 0.9)
    profile = [(0, 0), (0.5 * r, 0), (0.85 * r, 0.5 * h), (r, h), (0.95 * r, h), (0.75 * r, 0.5 * h), (0, 0.15 * h)]
    return [(revolve(profile, 22, sharp=1.5), look.plastic())]


def ball(rng: np.random.Generator, look: Look) -> Thing:
    r = rng.uniform(0.03, 0.16)
    return [(ellipsoid(r, r, r, 22), look.any_object())]


def fruit(rng: np.random.Generator, look: Look) -> Thing:
    return [(blob(rng, *rng.uniform(0.03, 0.09, 3), rough=0.1, segments=14), look.plastic())]


def toy_ring(rng: np.random.Generator, look: Look) -> Thing:
    r = rng.uniform(0.05, 0.16)
    t = r * rng.uniform(0.12, 0.4)
    return [(torus(r, t).moved((0, 0, t)), look.any_object())]


def wedge(rng: np.random.Generator, look: Look) -> Thing:
    w, h = rng.uniform(0.1, 0.4, 2)
    outline = [(-w / 2, 0), (w / 2, 0), (rng.uniform(-0.3, 0.5) * w, h)]
    return [(extrude(outline, rng.uniform(0.05, 0.4)), look.any_object())]


def screen(rng: np.random.Generator, look: Look) -> Thing:
    w = rng.uniform(0.4, 0.9)
    h = w * rng.uniform(0.5, 0.7)
    dark = look.plastic()
    face = look.picture(width=(w, w), shift=False, glow=rng.uniform(0.0, 0.7))
    return [
        (box(0.22, 0.16, 0.02), dark),
        (box(0.05, 0.03, 0.18).moved((0, 0.03, 0)), dark),
        (box(w, 0.04, h).moved((0, 0, 0.13)), dark),
        (box(w - 0.04, 0.004, h - 0.04).moved((0, -0.023, 0.15)), face),
    ]


def desk_lamp(rng: np.random.Generator, look: Look) -> Thing:
    h, r = rng.uniform(0.25, 0.45), rng.uniform(0.06, 0.14)
    metal = look.metal()
    shade = revolve([(r, h - 0.05), (r * rng.uniform(0.4, 1.0), h + r)], 18)
    return [(cylinder(r * 0.8, 0.02), metal), (cylinder(0.012, h), metal), (shade, look.fabric())]


def bag(rng: np.random.Generator, look: Look) -> Thing:
    x, y, z = rng.uniform(0.1, 0.28, 3)
    return [(blob(rng, x, y, z, rough=0.2), look.fabric())]


def tool(rng: np.random.Generator, look: Look) -> Thing:
    length, radius = rng.uniform(0.12, 0.4), rng.uniform(0.006, 0.02)
    bar = tube([(-length / 2, 0, radius), (0, 0, radius), (length / 2, 0, radius)], radius)
    head = box(*rng.uniform(0.02, 0.08, 3)).moved((length / 2, 0, 0))
    turn = rotation_z(rng.uniform(0, 2 * np.pi))
    return moved([(bar, look.wood() if rng.uniform() < 0.5 else look.metal()), (head, look.metal())], (0, 0, 0), turn)


def pot_plant(rng: np.random.Generator, look: Look) -> Thing:
    size = rng.uniform(0.15, 0.6)
    pot = revolve([(0, 0), (0.35 * size, 0), (0.5 * size, 0.6 * size), (0, 0.55 * size)], 18)
    centre = np.array([0, 0, 1.2 * size])
    crown = leaves(rng, centre, np.array([0.6, 0.6, 0.7]) * size, 90, 0.22 * size)
    return [
        (pot, look.any_object()),
        (tube([(0, 0, 0.5 * size), (0, 0, 1.2 * size)], 0.03 * size), look.wood()),
        (crown, look.leaf()),
    ]


SMALL: list[Maker] = [
    *(carton, carton, books, books, vessel, vessel, can, can, bowl, ball, fruit, toy_ring, wedge, desk_lamp, bag, tool),
    *(screen, pot_plant),
]


def strew(rng: np.random.Generator, look: Look, x: float, y: float, z: float, count: int) -> Thing:
    """Small items that stand on a surface of x by y metres at height z without overlapping."""
    thing: Thing = []
    taken: list[tuple[float, float, float]] = []
    for _ in range(count):
        item = moved(pick(rng, SMALL)(rng, look), (0, 0, 0), rotation_z(rng.uniform(0, 2 * np.pi)))
        low, high = extent(item)
        radius = float(np.abs([low[:2], high[:2]]).max())
        if 2 * radius > min(x, y) + 0.1:
            continue
        for _ in range(5):
            px = rng.uniform(-1, 1) * max(x / 2 - radius, 0.0)
            py = rng.uniform(-1, 1) * max(y / 2 - radius, 0.0)
            if all((px - qx) ** 2 + (py - qy) ** 2 > (radius + r) ** 2 for qx, qy, r in taken):
                taken.append((px, py, radius))
                thing += moved(item, (px, py, z - float(low[2])))
                break
    return thing

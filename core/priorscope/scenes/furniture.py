"""Furniture and what else stands on the floor of a room or a workshop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .geometry import (
    Array,
    Mesh,
    blob,
    box,
    cylinder,
    ellipsoid,
    extrude,
    revolve,
    rotation_x,
    rotation_z,
    torus,
    tube,
)
from .large_objects import LARGE, bicycle
from .materials import Look, Material
from .small_objects import bag, pot_plant, strew
from .thin import THIN_INDOORS
from .things import Maker, Thing, moved


def legs(rng: np.random.Generator, x: float, y: float, height: float, material: Material) -> Thing:
    """Four legs under the corners of x by y metres, square or round."""
    t = rng.uniform(0.02, 0.07)
    leg = box(t, t, height) if rng.uniform() < 0.5 else cylinder(t / 2, height, segments=10)
    at = [(sx * (x / 2 - t), sy * (y / 2 - t), 0.0) for sx in (-1, 1) for sy in (-1, 1)]
    return [(leg.moved(offset), material) for offset in at]


def table(rng: np.random.Generator, look: Look) -> Thing:
    x, y, h = rng.uniform(0.7, 1.8), rng.uniform(0.5, 1.0), rng.uniform(0.4, 0.95)
    material = look.wood() if rng.uniform() < 0.7 else look.any_object()
    if rng.uniform() < 0.2:
        y = x = rng.uniform(0.5, 1.2)
        top = cylinder(x / 2, 0.03, segments=28)
        thing: Thing = [(cylinder(0.04, h, segments=12), material), (cylinder(0.25 * x, 0.03), material)]
    else:
        top = box(x, y, rng.uniform(0.02, 0.06))
        thing = legs(rng, x, y, h, material if rng.uniform() < 0.5 else look.metal())
    thing.append((top.moved((0, 0, h)), material))
    surface = float(top.vertices[:, 2].max()) + h
    return thing + strew(rng, look, 0.7 * x, 0.7 * y, surface, int(rng.integers(0, 9)))


def chair(rng: np.random.Generator, look: Look) -> Thing:
    x, y, h = rng.uniform(0.38, 0.5), rng.uniform(0.38, 0.5), rng.uniform(0.4, 0.5)
    frame = look.wood() if rng.uniform() < 0.6 else look.metal()
    seat = frame if rng.uniform() < 0.5 else look.fabric()
    back = rng.uniform(0.35, 0.6)
    thing = legs(rng, x, y, h, frame)
    thing.append((box(x, y, 0.04).moved((0, 0, h)), seat))
    thing += [(box(0.035, 0.035, back).moved((s * (x / 2 - 0.02), y / 2 - 0.02, h)), frame) for s in (-1, 1)]
    if rng.uniform() < 0.5:
        thing.append((box(x, 0.025, 0.6 * back).moved((0, y / 2 - 0.02, h + 0.4 * back)), seat))
    else:
        for level in np.linspace(0.25, 0.92, int(rng.integers(2, 5))):
            thing.append((box(x, 0.02, 0.06).moved((0, y / 2 - 0.02, h + level * back)), frame))
    return thing


def stool(rng: np.random.Generator, look: Look) -> Thing:
    r, h = rng.uniform(0.15, 0.22), rng.uniform(0.4, 0.75)
    frame = look.metal() if rng.uniform() < 0.5 else look.wood()
    thing: Thing = [(cylinder(r, 0.05).moved((0, 0, h)), look.any_object())]
    for angle in np.arange(3 if rng.uniform() < 0.4 else 4) * (2.1 if rng.uniform() < 0.1 else np.pi / 2):
        foot = (1.1 * r * np.cos(angle), 1.1 * r * np.sin(angle), 0.0)
        thing.append((tube([foot, (0.6 * foot[0], 0.6 * foot[1], h)], 0.015), frame))
    return thing


def cabinet(rng: np.random.Generator, look: Look) -> Thing:
    x, y, h = rng.uniform(0.4, 1.6), rng.uniform(0.3, 0.6), rng.uniform(0.4, 2.1)
    body = look.wood() if rng.uniform() < 0.5 else look.any_object()
    front, knob = (body if rng.uniform() < 0.6 else look.any_object()), look.metal()
    thing: Thing = [(box(x, y, h), body)]
    columns, rows = max(1, round(x / 0.5)), max(1, round(h / rng.uniform(0.25, 1.2)))
    for i in range(columns):
        for j in range(rows):
            w, t = x / columns, h / rows
            centre = (-x / 2 + (i + 0.5) * w, -y / 2 - 0.008, j * t + 0.015)
            thing.append((box(w - 0.03, 0.018, t - 0.03).moved(centre), front))
            thing.append((box(0.09, 0.025, 0.02).moved((centre[0], -y / 2 - 0.025, (j + 0.7) * t)), knob))
    return thing + (strew(rng, look, 0.9 * x, 0.9 * y, h, int(rng.integers(0, 4))) if h < 1.5 else [])


def shelf(rng: np.random.Generator, look: Look) -> Thing:
    x, y, h = rng.uniform(0.6, 1.6), rng.uniform(0.25, 0.45), rng.uniform(0.8, 2.2)
    frame = look.wood() if rng.uniform() < 0.6 else look.metal()
    boards = max(2, round(h / rng.uniform(0.3, 0.5)))
    open_frame = rng.uniform() < 0.4
    thing: Thing = []
    if open_frame:
        thing += legs(rng, x, y, h, frame)
    else:
        thing += [(box(0.025, y, h).moved((s * (x / 2 - 0.0125), 0, 0)), frame) for s in (-1, 1)]
        thing.append((box(x, 0.01, h).moved((0, y / 2 - 0.005, 0)), frame if rng.uniform() < 0.6 else look.wall()))
    for z in np.linspace(0.05, h - 0.03, boards):
        thing.append((box(x - 0.02, y, 0.025).moved((0, 0, z)), frame))
        thing += strew(rng, look, 0.92 * x, 0.95 * y, z + 0.025, int(rng.integers(0, 6)))
    return thing


def sofa(rng: np.random.Generator, look: Look) -> Thing:
    x, y, seat = rng.uniform(0.8, 2.2), rng.uniform(0.75, 0.95), rng.uniform(0.35, 0.45)
    cloth = look.fabric()
    arm, back = rng.uniform(0.12, 0.22), rng.uniform(0.3, 0.5)
    thing: Thing = [(box(x, y, seat - 0.08).moved((0, 0, 0.08)), cloth)]
    thing += [(box(arm, y, seat + 0.2).moved((s * (x + arm) / 2, 0, 0.02)), cloth) for s in (-1, 1)]
    thing.append((box(x, 0.2, back).moved((0, y / 2 - 0.1, seat)), cloth))
    other = cloth if rng.uniform() < 0.5 else look.fabric()
    count = max(1, round(x / 0.7))
    for i in range(count):
        px = -x / 2 + (i + 0.5) * x / count
        cushion = blob(rng, 0.47 * x / count, 0.33, 0.08, rough=0.03)
        thing.append((cushion.moved((px, -0.05, seat - 0.03)), other))
        if rng.uniform() < 0.5:
            pillow = blob(rng, 0.2, 0.09, 0.18, rough=0.05).moved((px, 0.15, seat + 0.08), rotation_x(-0.25))
            thing.append((pillow, look.fabric()))
    return thing


def bed(rng: np.random.Generator, look: Look) -> Thing:
    x, y, h = rng.uniform(0.9, 1.9), rng.uniform(1.9, 2.1), rng.uniform(0.25, 0.45)
    frame = look.wood()
    thing: Thing = [(box(x, y, h), frame), (box(x, 0.06, h + rng.uniform(0.3, 0.7)).moved((0, y / 2, 0)), frame)]
    thing.append((box(x - 0.04, y - 0.08, 0.18).moved((0, -0.01, h)), look.fabric()))
    thing.append((box(x + 0.03, 0.62 * y, 0.1).moved((0, -0.19 * y, h + 0.11)), look.fabric()))
    for px in (-x / 4, x / 4) if x > 1.3 else (0.0,):
        thing.append((blob(rng, 0.3, 0.2, 0.09, rough=0.06).moved((px, y / 2 - 0.35, h + 0.15)), look.fabric()))
    return thing


def desk(rng: np.random.Generator, look: Look) -> Thing:
    thing = table(rng, look)
    seat = moved(chair(rng, look), (rng.normal() * 0.1, -0.55, 0), rotation_z(np.pi + rng.normal() * 0.4))
    return thing + seat


def floor_lamp(rng: np.random.Generator, look: Look) -> Thing:
    h, r = rng.uniform(1.2, 1.8), rng.uniform(0.12, 0.25)
    metal = look.metal()
    shade = revolve([(r, h - 0.15), (0.7 * r, h + 0.15)], 20)
    lit = look.lamp() if rng.uniform() < 0.5 else look.fabric()
    return [(cylinder(0.15, 0.025), metal), (cylinder(0.014, h, segments=8), metal), (shade, lit)]


def bin_(rng: np.random.Generator, look: Look) -> Thing:
    r, h = rng.uniform(0.13, 0.3), rng.uniform(0.3, 0.9)
    return [(revolve([(0, 0), (0.8 * r, 0), (r, h), (0.93 * r, h), (0.75 * r, 0.05), (0, 0.05)]), look.any_object())]


def ladder(rng: np.random.Generator, look: Look) -> Thing:
    w, h = rng.uniform(0.35, 0.5), rng.uniform(1.2, 2.4)
    material = look.metal() if rng.uniform() < 0.5 else look.wood()
    parts = [box(0.04, 0.07, h).moved((s * w / 2, 0, 0)) for s in (-1, 1)]
    parts += [box(w, 0.03, 0.03).moved((0, 0, z)) for z in np.arange(0.25, h, 0.28)]
    return [(part.moved((0, 0, 0), rotation_x(-0.22)), material) for part in parts]


def pile(rng: np.random.Generator, look: Look) -> Thing:
    """Cartons, crates and cases stacked on each other."""
    thing: Thing = []
    z, x, y = 0.0, rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.7)
    for _ in range(int(rng.integers(1, 5))):
        h = rng.uniform(0.12, 0.5)
        material = look.paper() if rng.uniform() < 0.6 else look.any_object()
        thing.append((box(x, y, h).moved((0, 0, z), rotation_z(rng.normal() * 0.2)), material))
        z, x, y = z + h, x * rng.uniform(0.6, 1.0), y * rng.uniform(0.6, 1.0)
    return thing + strew(rng, look, x, y, z, 2)


def tyres(rng: np.random.Generator, look: Look) -> Thing:
    r = rng.uniform(0.22, 0.36)
    t = r * rng.uniform(0.2, 0.35)
    rubber = look.rubber()
    count = int(rng.integers(1, 5))
    return [
        (torus(r, t).moved((rng.normal() * 0.03, rng.normal() * 0.03, t * (1 + 1.9 * i))), rubber) for i in range(count)
    ]


def pipes(rng: np.random.Generator, look: Look) -> Thing:
    """A bundle of bars, bent tubes and cables."""
    thing: Thing = []
    for _ in range(int(rng.integers(2, 7))):
        points = np.cumsum(rng.normal(size=(4, 3)) * [0.3, 0.3, 0.25], axis=0)
        t = np.linspace(0, 3, 13)
        path = np.stack([np.interp(t, np.arange(4), points[:, k]) for k in range(3)], axis=-1)
        path[1:-1] = (path[:-2] + path[1:-1] + path[2:]) / 3
        radius = float(np.exp(rng.uniform(np.log(0.006), np.log(0.04))))
        path[:, 2] += radius - path[:, 2].min()
        thing.append((tube(path, radius), look.any_object()))
    return thing


def blocks(rng: np.random.Generator, look: Look) -> Thing:
    """An invented thing: a body of a few primitives in contact, for variety beyond what has a name."""
    shapes: list[Callable[[Array], Mesh]] = [
        lambda s: box(*s),
        lambda s: cylinder(s[0] / 2, s[2]),
        lambda s: cylinder(s[0] / 2, s[2], top=s[0] * 0.2),
        lambda s: ellipsoid(*(s / 2)),
        lambda s: torus(s[0] / 2, s[0] / 7).moved((0, 0, s[0] / 7)),
        lambda s: extrude([(-s[0] / 2, 0), (s[0] / 2, 0), (s[0] / 4, s[2]), (-s[0] / 3, s[2])], s[1]),
    ]
    thing: Thing = []
    materials = [look.any_object() for _ in range(3)]
    scale = rng.uniform(0.2, 0.9)
    at = np.zeros(3)
    for _ in range(int(rng.integers(2, 8))):
        size = scale * rng.uniform(0.15, 1.0, 3)
        mesh = shapes[int(rng.integers(len(shapes)))](size)
        turn = rotation_z(rng.uniform(0, np.pi)) @ rotation_x(np.pi / 2 * (rng.uniform() < 0.25))
        mesh = mesh.moved((0, 0, 0), turn)
        mesh = mesh.moved((at[0], at[1], at[2] - mesh.vertices[:, 2].min()))
        thing.append((mesh, materials[int(rng.integers(3))]))
        high = mesh.vertices[:, 2].max()
        at = np.array([*(at[:2] + rng.normal(size=2) * 0.2 * scale), rng.uniform(0, 1) * high])
    return thing


FURNITURE: list[Maker] = [
    *(table, table, chair, chair, chair, stool, desk, pile, pile, bin_, blocks, blocks, sofa, floor_lamp, pot_plant),
    *(tyres, pipes, ladder, bag, *LARGE, *THIN_INDOORS),
]
AGAINST_WALL: list[Maker] = [
    *(cabinet, cabinet, shelf, shelf, shelf, sofa, bed, desk, table, pile, floor_lamp, ladder, bicycle),
]

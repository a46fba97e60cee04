"""Outdoor scene kinds: a street between buildings, and open ground with trees and rocks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from priorscope.scenes.camera import Camera, random_view
from priorscope.scenes.geometry import Array, box, cylinder, joined, quad, sheet
from priorscope.scenes.large_objects import person
from priorscope.scenes.materials import Look
from priorscope.scenes.outdoor_objects import (
    COUNTRY,
    PAVEMENT,
    bollard,
    building,
    bush,
    car,
    grass,
    parked_bicycle,
    sign,
)
from priorscope.scenes.textures import texture_bank
from priorscope.scenes.thin import bough, cable, railing, stems, wire_fence
from priorscope.scenes.things import extent, pick
from priorscope.scenes.world import Light, Plot, Sky, Stage, World

from .lamps import add_glowing

FAR = 250.0
"""Metres from the camera to where the ground ends: no depth is larger than about this."""

_LEAST = 0.006
"""What appears smaller (radians; about a pixel) is left out of a street."""


def _light(rng: np.random.Generator, world: World, eye: Array) -> None:
    """Day, or with one scene in nine night."""
    if rng.uniform() < 1 / 9:
        _night(rng, world, eye)
    else:
        _daylight(rng, world)


def _night(rng: np.random.Generator, world: World, eye: Array) -> None:
    """Moon or the glow of a town, the nearest lamps that stand about, and now and then headlamps behind the camera."""
    dim = float(np.exp(rng.uniform(np.log(0.02), np.log(0.12))))
    tone = np.array([rng.uniform(0.5, 1.2), 0.7, rng.uniform(0.7, 1.4)])
    names = texture_bank().names["smooth_noise"]
    texture = names[int(rng.integers(len(names)))]
    world.sky = Sky(0.4 * dim * tone, dim * tone, 0.8 * dim * tone, texture, rng.uniform())
    world.above, world.below = dim * tone, 0.6 * dim * tone
    world.occlusion_reach = rng.uniform(1.0, 4.0)
    world.haze = float(np.exp(rng.uniform(np.log(0.0005), np.log(0.01))))
    add_glowing(rng, world, eye, 4, reach=rng.uniform(2.5, 5.0), warm=0.6, far=45.0)
    if not world.lights or rng.uniform() < 0.4:
        at = eye + np.array([rng.normal() * 0.4, -0.3, rng.uniform(-0.4, 0.6)])
        world.lights.append(Light(at, rng.uniform(0.4, 1.2) * np.array([1.0, 0.95, 0.85]), 0.1, reach=5.0))
    if rng.uniform() < 0.4:
        toward = np.array([rng.normal(), rng.normal(), rng.uniform(0.7, 2.0)])
        toward /= np.linalg.norm(toward)
        world.lights.append(Light(toward, rng.uniform(0.5, 1.5) * dim * np.array([0.8, 0.9, 1.1]), 0.02, is_sun=True))


def _daylight(rng: np.random.Generator, world: World) -> None:
    """Sun, sky, haze: clear, veiled, overcast or evening."""
    weather = rng.uniform()
    azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(12, 75))
    toward = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    warm = np.clip(1 - height / 0.7, 0, 1) * rng.uniform(0.3, 1.0)
    sun = np.array([1.0, 0.95 - 0.25 * warm, 0.9 - 0.5 * warm])
    blue = np.array([0.25, 0.45, 0.85]) * rng.uniform(0.6, 1.1)
    grey = np.full(3, rng.uniform(0.55, 1.0))
    veil = 0.1 * rng.uniform() if weather < 0.6 else rng.uniform(0.2, 1.0)
    zenith = blue * (1 - veil) + grey * veil
    horizon = 0.35 * zenith + 0.65 * (grey * (1 - 0.4 * warm) + sun * 0.4 * warm)
    names = texture_bank().names["smooth_noise"]
    world.sky = Sky(zenith, horizon, grey * 1.1, names[int(rng.integers(len(names)))], rng.uniform())
    world.above = (0.5 * zenith + 0.5 * grey) * rng.uniform(0.35, 0.75)
    world.below = world.above * rng.uniform(0.35, 0.7)
    world.occlusion_reach = rng.uniform(1.0, 4.0)
    strength = rng.uniform(1.0, 2.6) * (1 - 0.9 * veil)
    if strength > 0.25:
        world.lights.append(Light(toward, strength * sun, rng.uniform(0.004, 0.03) + 0.15 * veil, is_sun=True))
    low, high = (0.0002, 0.003) if rng.uniform() < 0.82 else (0.003, 0.015)
    world.haze = float(np.exp(rng.uniform(np.log(low), np.log(high))))


def street(rng: np.random.Generator) -> Stage:
    """A street along y: road, pavements, buildings on both sides, cars, trees, lamps, people."""
    look = Look(rng)
    world = World()
    road, walk = rng.uniform(4.5, 11.0), rng.uniform(1.2, 4.5)
    kerb = rng.uniform(0.05, 0.16)
    world.add(quad(np.array([-FAR, -30.0, 0.0]), np.array([2 * FAR, 0, 0]), np.array([0, FAR + 30, 0])), look.asphalt())
    if rng.uniform() < 0.6:
        paint = look.material(("plain",), (0.9, 0.9, 0.85), contrast=(0.1, 0.4))
        dash = rng.uniform(2, 5)
        for y in np.arange(-4, 70, 2 * dash):
            world.add(box(0.14, dash, 0.006).moved((0, y, 0)), paint)
    green = rng.uniform() < 0.35
    for side in (-1, 1):
        pavement = look.ground() if green and rng.uniform() < 0.5 else look.paving()
        world.add(box(walk, FAR, kerb).moved((side * (road + walk) / 2, FAR / 2 - 30, 0)), pavement)
        if green:
            world.add(box(40, FAR, 0.5 * kerb).moved((side * (road / 2 + walk + 20), FAR / 2 - 30, 0)), look.ground())
        _house_row(rng, look, world, side, road / 2 + walk, green)
        _pavement_row(rng, look, world, side, road / 2, walk, kerb)
    if rng.uniform() < 0.6:
        w, h = rng.uniform(20, 60), rng.uniform(6, 25)
        y = rng.uniform(45, 120)
        world.put(building(rng, look, w, 10, h, windows=False), 0, y)
    eye_x = rng.uniform(-0.3, 0.3) * road if rng.uniform() < 0.6 else rng.choice([-1, 1]) * (road / 2 + 0.4 * walk)
    place = rng.uniform()
    # mostly at the height of eyes, now and then near the ground or from a window
    tall = rng.uniform(1.0, 2.4) if place < 0.75 else rng.uniform(0.35, 0.9) if place < 0.88 else rng.uniform(2.5, 6.0)
    eye = np.array([eye_x, rng.uniform(-3, 3), tall + (kerb if abs(eye_x) > road / 2 else 0)])
    _traffic(rng, look, world, road, eye)
    if rng.uniform() < 0.35:
        _overhead(rng, look, world, road / 2 + 0.5 * walk)
    # what stands in the way of the lens is taken away
    _clear(world, eye, 1.3)
    if rng.uniform() < 0.35:
        _foreground(rng, look, world, eye, 0.0 if abs(eye_x) < road / 2 else kerb)
    _light(rng, world, eye)

    def propose(rng: np.random.Generator) -> Camera:
        spread = 0.12 if rng.uniform() < 0.6 else 0.6
        angle = rng.normal() * spread
        pitch = np.radians(rng.normal() * 4 - 1 - 3 * max(tall - 2.4, 0))
        ahead = np.array([np.sin(angle), np.cos(angle), np.tan(pitch)])
        return random_view(rng, eye, eye + ahead)

    return Stage(world, propose, nearest=0.8)


def _house_row(rng: np.random.Generator, look: Look, world: World, side: int, front: float, detached: bool) -> None:
    """Buildings along one side of the street, their fronts towards it."""
    setback = rng.uniform(2, 8) if detached else rng.uniform(0.0, 0.3)
    height = rng.uniform(3, 9) if detached else rng.uniform(4, 22)
    y = -25.0
    while y < 110:
        w, depth = rng.uniform(6, 18), rng.uniform(6, 12)
        h = max(2.6, height * rng.uniform(0.6, 1.4))
        if rng.uniform() < 0.93:
            # seen from the road the houses face it: their front (-y) is turned towards the middle
            turn = -side * np.pi / 2
            detail = -8 < y < 45
            world.put(
                building(rng, look, w, depth, h, windows=detail),
                side * (front + setback + depth / 2),
                y + w / 2,
                0.0,
                turn,
            )
        y += w + (rng.uniform(1.5, 9) if detached or rng.uniform() < 0.15 else 0.02)


def _pavement_row(
    rng: np.random.Generator, look: Look, world: World, side: int, kerb_x: float, walk: float, kerb: float
) -> None:
    """Trees, lamps, signs, people along the pavement; denser near the camera."""
    y = rng.uniform(-2, 4)
    while y < 65:
        thing = pick(rng, PAVEMENT)(rng, look)
        low, high = extent(thing)
        x = kerb_x + rng.uniform(0.15, 0.9) * walk
        turn = -side * np.pi / 2 if rng.uniform() < 0.7 else rng.uniform(0, 2 * np.pi)
        world.put(thing, side * x, y, kerb, turn)
        y += max(0.6, 0.6 * float(high[0] - low[0])) + rng.exponential(2.0 + 0.13 * max(y, 0))


def _traffic(rng: np.random.Generator, look: Look, world: World, road: float, eye: Array) -> None:
    """Cars at the kerbs and on the road, people crossing; none over the camera."""
    for side in (-1, 1):
        y = eye[1] + rng.uniform(3, 12)
        while y < 65 and road > 5.5:
            if rng.uniform() < 0.65:
                parked = car(rng, look, far=y > 22)
                world.put(parked, side * (road / 2 - 1.05), y, 0.0, np.pi / 2 + np.pi * (rng.uniform() < 0.5))
            y += rng.uniform(5.2, 9)
    for _ in range(int(rng.integers(0, 4))):
        y = eye[1] + rng.uniform(8, 60)
        x = rng.choice([-0.2, 0.2]) * (road - 4.2)
        if road > 8.5 or rng.uniform() < 0.4:
            world.put(car(rng, look, far=y > 22), x, y, 0.0, np.pi / 2)
    for _ in range(int(rng.integers(0, 3))):
        world.put(person(rng, look), rng.uniform(-0.4, 0.4) * road, eye[1] + rng.uniform(4, 30), 0.0, rng.uniform(0, 6))


def _overhead(rng: np.random.Generator, look: Look, world: World, x: float) -> None:
    """Poles with cables along one side of the street, and cables across it."""
    side, h, gap = rng.choice([-1, 1]), rng.uniform(4.5, 8.0), rng.uniform(15, 30)
    wood, rubber = look.wood(), look.rubber()
    ys = np.arange(rng.uniform(-12, 8), 90, gap)
    lines = rng.uniform(-0.7, 0.7, int(rng.integers(1, 5)))
    for y, after in pairwise(ys):
        world.add(cylinder(0.12, h + 0.4, top=0.09, segments=8).moved((side * x, y, 0)), wood)
        if len(lines) > 1:
            world.add(box(1.6, 0.08, 0.1).moved((side * x, y, h - 0.15)), wood)
        sag, radius = rng.uniform(0.1, 0.8), rng.uniform(0.008, 0.02)
        wires = [cable(np.array([side * x + t, y, h]), np.array([side * x + t, after, h]), sag, radius) for t in lines]
        if rng.uniform() < 0.4:
            far = np.array([-side * x * 1.2, y + rng.normal() * 2, h + rng.normal() * 0.5])
            wires.append(cable(np.array([side * x, y, h]), far, rng.uniform(0.1, 0.5), radius))
        world.add(joined(wires), rubber)


def _foreground(rng: np.random.Generator, look: Look, world: World, eye: Array, ground: float) -> None:
    """One thing close to the camera that hides a part of what is behind it."""
    makers = (person, person, railing, wire_fence, bush, bough, bollard, sign, parked_bicycle, stems)
    thing = makers[int(rng.integers(len(makers)))](rng, look)
    low, high = extent(thing)
    # what reaches far along x is turned across the view, its middle beside the camera's axis
    x = eye[0] + rng.choice([-1, 1]) * (rng.uniform(0.3, 1.4) if high[0] - low[0] < 1.5 else rng.uniform(0.0, 2.0))
    y = eye[1] + rng.uniform(1.1, 3.0) + 0.5 * float(high[1] - low[1])
    world.put(thing, x, y, ground, rng.normal() * 0.25)


def _clear(world: World, eye: Array, radius: float) -> None:
    """Take away every mesh but the largest that comes closer to the camera than `radius` metres sideways, and those
    too small to be seen from there.
    """
    keep = []
    for mesh in world.meshes:
        low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
        gap = np.maximum(np.maximum(low - eye, eye - high), 0)
        near = np.hypot(gap[0], gap[1]) < radius and high[2] > 0.4 and (high - low)[:2].max() < 5
        small = np.linalg.norm(high - low) < _LEAST * np.linalg.norm(gap)
        keep.append(not near and not small)
    world.materials = [material for material, kept in zip(world.materials, keep, strict=True) if kept]
    world.meshes = [mesh for mesh, kept in zip(world.meshes, keep, strict=True) if kept]


def terrain(rng: np.random.Generator) -> Stage:
    """Open, hilly ground with a path, trees, rocks, grass, fences, a hut."""
    look = Look(rng)
    world = World()
    waves = rng.normal(size=(6, 2)) * np.exp(rng.uniform(np.log(0.03), np.log(0.5), size=(6, 1)))
    phase = rng.uniform(0, 2 * np.pi, 6)
    tall = rng.uniform(0.05, 0.6) / (0.3 + np.linalg.norm(waves, axis=-1) * 3)
    rise = rng.uniform(-0.03, 0.1)

    def height(x: Array, y: Array) -> Array:
        points = np.stack([x, y], axis=-1)
        hills = (np.sin(points @ waves.T + phase) * tall).sum(axis=-1)
        return hills + rise * np.maximum(y - 15, 0)

    # a grid that is fine at the camera (25 cm) and coarse far away (some 10 m)
    t = np.linspace(-1, 1, 72)
    axis = 120 * np.sinh(5 * t) / np.sinh(5)
    x, y = np.meshgrid(axis, axis + 20)
    z = height(x, y)
    world.add(sheet(np.stack([x, y, z], axis=-1), np.stack([x, y], axis=-1)), look.ground())
    if rng.uniform() < 0.5:
        u, v = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-5, 60, 70))
        w, bend = rng.uniform(0.5, 1.8), rng.normal(size=2) * 2
        px = u * w + bend[0] * np.sin(v / 15) + bend[1] * (v / 30) ** 2
        path = np.stack([px, v, height(px, v) + 0.04], axis=-1)
        world.add(sheet(path), look.asphalt() if rng.uniform() < 0.5 else look.paving())
    plot = Plot((-40.0, -4.0), (40.0, 80.0))
    plot.reserve(np.array([-1.0, -1.5]), np.array([1.0, 2.0]))
    for _ in range(int(rng.integers(15, 60))):
        # squeezed towards the camera so that near and far are equally rich in things
        far = float(np.exp(rng.uniform(np.log(2.0), np.log(70))))
        at = np.array([rng.normal() * (0.5 * far + 0.6), far - 1.0])
        thing = pick(rng, COUNTRY)(rng, look)
        low, high = extent(thing)
        radius = float(np.abs([low[:2], high[:2]]).max())
        if radius > 2.5 and far < 12:
            continue
        half = np.full(2, min(radius, 1.0) if high[2] > 2.5 else radius)
        if plot.is_free(at - half, at + half):
            plot.reserve(at - half, at + half)
            corner = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) * 0.8 * radius + at
            world.put(
                thing, at[0], at[1], float(height(corner[:, 0], corner[:, 1]).min()) - 0.02, rng.uniform(0, 2 * np.pi)
            )
    for _ in range(int(rng.integers(0, 40))):
        at = np.array([rng.normal() * 2.5, rng.uniform(1.2, 9)])
        world.put(grass(rng, look), at[0], at[1], float(height(at[0], at[1])), rng.uniform(0, 6))
    for _ in range(int(rng.integers(0, 4))):
        _ridge(rng, look, world)
    ground = float(height(np.array(0.0), np.array(0.0)))
    tall = rng.uniform(0.8, 2.6) if rng.uniform() < 0.75 else rng.uniform(0.35, 0.8)
    eye = np.array([0.0, 0.0, ground + tall])
    if rng.uniform() < 0.25:
        # a lake or the sea: the low parts of the ground lie under water
        level = float(np.quantile(z[(y > 2) & (y < 60) & (np.abs(x) < 30)], rng.uniform(0.15, 0.6)))
        level = min(level, ground + 0.3 * tall)
        world.add(quad(np.array([-FAR, -40.0, level]), np.array([2 * FAR, 0, 0]), np.array([0, FAR, 0])), look.water())
    if rng.uniform() < 0.3:
        _foreground(rng, look, world, eye, ground - 0.1)
    _light(rng, world, eye)

    def propose(rng: np.random.Generator) -> Camera:
        angle = rng.normal() * 0.4
        pitch = np.radians(rng.normal() * 6 - 6)
        return random_view(rng, eye, eye + np.array([np.sin(angle), np.cos(angle), np.tan(pitch)]))

    return Stage(world, propose, nearest=0.5)


def _ridge(rng: np.random.Generator, look: Look, world: World) -> None:
    """A line of hills or a wood on the horizon."""
    angle = np.linspace(-0.9, 0.9, 60) + rng.normal() * 0.3
    radius = rng.uniform(90, 180)
    crest = np.abs(np.cumsum(rng.normal(size=60))) * rng.uniform(0.3, 1.5) + rng.uniform(1, 8)
    foot = np.stack([radius * np.sin(angle), radius * np.cos(angle) - 5, np.full(60, -15.0)], axis=-1)
    top = foot + np.stack([0 * crest, 0 * crest, crest + 15], axis=-1)
    middle = 0.5 * (foot + top)
    world.add(sheet(np.stack([foot, middle, top])), look.leaf())

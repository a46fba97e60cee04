"""Light in rooms: lamps under the ceiling, pendants, light and sun through windows, lamps that stand about, a flash."""

from __future__ import annotations

import numpy as np

from priorscope.scenes.geometry import Array, box, cylinder, ellipsoid, rods
from priorscope.scenes.materials import Look
from priorscope.scenes.world import Gate, Light, World

_MOST = 4
"""Lights a room; each costs a ray a pixel."""


def warmth(rng: np.random.Generator, strong: float = 0.35) -> Array:
    """The colour of a lamp, from warm to cool, mean 1."""
    t = rng.uniform(-0.8, 1) * strong
    colour = np.array([1 + 0.8 * t, 1.0, 1 - 1.1 * t])
    return colour / colour.mean()


def light_room(
    rng: np.random.Generator, look: Look, world: World, size: tuple[float, float, float], eye: Array, gates: list[Gate]
) -> None:
    """Ambient light and one to four lamps in a room from (0, 0, 0) to `size`, with windows at `gates`."""
    x, y, h = size
    ambient = float(np.exp(rng.uniform(np.log(0.1), np.log(0.7))))
    world.above = ambient * warmth(rng, 0.2)
    world.below = world.above * rng.uniform(0.4, 0.8)
    world.occlusion_reach = rng.uniform(0.5, 1.5)
    reach = 0.4 * max(x, y)
    day = bool(gates) and rng.uniform() < 0.65
    if day:
        _daylight(rng, world, gates, reach)
    for _ in range(int(rng.integers(*((0, 2) if day else (1, 3))))):
        strength = rng.uniform(0.4, 1.3) * warmth(rng)
        px, py = rng.uniform(0.2, 0.8, 2) * [x, y]
        kind = rng.uniform()
        if kind < 0.3:
            # a panel or a tube under the ceiling, which shines down
            w, d = rng.uniform(0.2, 0.6), rng.uniform(0.2, 1.4)
            world.add(box(w, d, 0.04).moved((px, py, h - 0.05)), look.lamp())
            down = np.array([0.0, 0.0, -1.0])
            world.lights.append(
                Light(np.array([px, py, h - 0.08]), 1.3 * strength, 0.4 * (w + d), reach=reach, facing=down)
            )
        elif kind < 0.6:
            _pendant(rng, look, world, np.array([px, py, h]), strength, reach)
        elif kind < 0.8:
            at = np.array([px, py, h - 0.15])
            world.lights.append(Light(at, strength, rng.uniform(0.03, 0.4), reach=reach))
        else:
            # a flash or a lamp on the camera
            at = eye + rng.normal(size=3) * 0.1 + [0, 0, 0.1]
            world.lights.append(Light(at, 0.5 * strength, 0.03, reach=reach))
    add_glowing(rng, world, eye, min(int(rng.integers(0, 3)), _MOST - len(world.lights)), reach=0.8, warm=0.5)
    if not world.lights:
        world.lights.append(Light(np.array([x / 2, y / 2, h - 0.15]), warmth(rng), 0.3, reach=reach))


def _daylight(rng: np.random.Generator, world: World, gates: list[Gate], reach: float) -> None:
    """The sky's light from one window, and often sun that falls in as bright patches."""
    gate = gates[int(rng.integers(len(gates)))]
    middle = gate.corner + 0.5 * (gate.along + gate.up)
    wide = 0.4 * float(np.linalg.norm(gate.along))
    blue = np.array([0.9, 1.0, 1.15])
    world.lights.append(
        Light(middle + 0.2 * gate.inward, rng.uniform(0.8, 2.0) * blue, wide, reach=0.7 * reach, facing=gate.inward)
    )
    if rng.uniform() < 0.55:
        along = gate.along / np.linalg.norm(gate.along)
        side, height = np.radians(rng.uniform(-50, 50)), np.radians(rng.uniform(12, 50))
        toward = np.cos(height) * (np.sin(side) * along - np.cos(side) * gate.inward) + [0, 0, np.sin(height)]
        sun = rng.uniform(1.0, 3.5) * np.array([1.05, 1.0, rng.uniform(0.7, 0.95)])
        open_to_sun = tuple(other for other in gates if other.inward @ toward < -0.1)
        world.lights.append(Light(toward, sun, rng.uniform(0.005, 0.03), is_sun=True, gates=open_to_sun))


def _pendant(rng: np.random.Generator, look: Look, world: World, top: Array, strength: Array, reach: float) -> None:
    """A lamp on a wire."""
    r, drop = rng.uniform(0.08, 0.22), rng.uniform(0.3, 0.9)
    at = top - [0, 0, drop]
    world.add(rods([tuple(top)], [tuple(at)], 0.006, 4), look.rubber())
    if rng.uniform() < 0.5:
        globe = ellipsoid(r, r, r, 14).moved(at - [0, 0, 2 * r])
        world.add(globe, look.lamp())
        world.lights.append(Light(at - [0, 0, r], strength, 0.7 * r, reach=reach, clear=1.6 * r))
    else:
        shade = cylinder(r, r, top=0.4 * r, segments=16).moved(at - [0, 0, r])
        world.add(shade, look.lamp() if rng.uniform() < 0.3 else look.plastic())
        down = np.array([0.0, 0.0, -1.0])
        world.lights.append(Light(at - [0, 0, r + 0.04], 1.3 * strength, 0.7 * r, reach=reach, facing=down, clear=0.05))


def add_glowing(
    rng: np.random.Generator, world: World, eye: Array, most: int, *, reach: float, warm: float, far: float = 12.0
) -> None:
    """Let at most `most` of the lamps that stand about nearest to `eye` shine: small meshes that glow brightly."""
    lamps = []
    for mesh, material in zip(world.meshes, world.materials, strict=True):
        if material.glow < 1.2:
            continue
        low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
        radius = 0.5 * float(np.linalg.norm(high - low))
        middle = 0.5 * (low + high)
        taken = any(np.linalg.norm(light.toward - middle) < 0.6 for light in world.lights if not light.is_sun)
        if radius < 0.8 and not taken:
            lamps.append((float(np.linalg.norm(middle - eye)), radius, middle))
    for distance, radius, middle in sorted(lamps, key=lambda lamp: lamp[0])[: max(most, 0)]:
        if distance < far:
            colour = rng.uniform(0.5, 1.2) * warmth(rng, warm)
            world.lights.append(Light(middle, colour, 0.4 * radius, reach=reach, clear=1.3 * radius + 0.02))

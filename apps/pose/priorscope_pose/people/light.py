"""Cheap light for many small pictures: ambient, lamps with hard shadows; no mirrors and no soft corners.

`priorscope.scenes.shading.shade` is the better and several times slower one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from priorscope.scenes.sky import beyond, sky_colour
from priorscope.scenes.surfaces import Surfaces, dot, surfaces_at
from priorscope.scenes.world import Caster, Hits, World

Array = NDArray[np.floating]


def light_along(world: World, caster: Caster, hits: Hits, rays: Array, origin: Array, pixel_angle: float) -> Array:
    """Linear light along rays, float32 (N, 3).

    Parameters
    ----------
    hits : Hits
        Where `rays`, (N, 3), from `origin`, (3,), end.
    pixel_angle : float
        Width of a pixel at depth 1 (metres).
    """
    colour = np.empty((len(rays), 3), dtype=np.float32)
    missed = np.ones(len(rays), dtype=bool)
    missed[hits.ray] = False
    if missed.any():
        away = rays[missed].astype(np.float32)
        colour[missed] = beyond(world, away) if world.sky is None else sky_colour(world.sky, away)
    if len(hits.ray):
        colour[hits.ray] = _scattered(world, caster, surfaces_at(caster, hits, rays, origin, pixel_angle))
    return colour


def _scattered(world: World, caster: Caster, seen: Surfaces) -> Array:
    up = 0.5 + 0.5 * seen.normal[:, 2:]
    below, above = world.below.astype(np.float32), world.above.astype(np.float32)
    total = below + (above - below) * up
    for light in world.lights:
        offset: Array = light.toward.astype(np.float32) - (0 if light.is_sun else seen.points)
        if light.is_sun:
            offset = np.broadcast_to(offset, seen.points.shape)
        square = dot(offset, offset)
        far = np.sqrt(square)
        toward = offset / far[:, None]
        strength = np.maximum(dot(seen.normal, toward), 0)
        if not light.is_sun:
            strength = strength * np.minimum((light.reach**2 + 0.1) / (square + 0.1), 4.0)
        asked = np.flatnonzero((strength > 0.01) & (dot(seen.flat, toward) > 0))
        lit = np.zeros(len(strength), dtype=np.float32)
        gap = 1e4 if light.is_sun else far[asked] - light.clear
        lit[asked] = caster.is_lit(seen.points[asked], toward[asked], gap)
        total = total + (strength * lit)[:, None] * light.colour.astype(np.float32)
    return seen.albedo * (total + np.minimum(seen.material["glow"], 1.5)[:, None])

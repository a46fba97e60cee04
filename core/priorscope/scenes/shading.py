"""Light on surfaces: lamps with soft shadows, ambient light with occlusion, highlights, reflections, haze."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .sky import beyond, hazy, sky_colour
from .surfaces import Surfaces, dot, frame, surfaces_at, unit
from .world import Caster, Hits, Light, World

Array = NDArray[np.floating]

_PATTERN = 4
"""Shadow and occlusion rays differ over 4 x 4 pixels and are averaged over as many: 16 samples for one ray each."""

_LEAST = 0.045
"""Reflections below this share of the light are left out: they would not be seen."""


def shade(
    world: World,
    caster: Caster,
    hits: Hits,
    rays: Array,
    origin: Array,
    shape: tuple[int, int],
    pixel_angle: float,
    rng: np.random.Generator,
) -> Array:
    """Linear light along the rays of a whole image.

    Parameters
    ----------
    world : World
    caster : Caster
    hits : Hits
        Where `rays` end.
    rays : ndarray, (H * W, 3)
        Of depth 1.
    origin : ndarray, (3,)
        The camera's position.
    shape : (H, W)
    pixel_angle : float
        Width of a pixel at depth 1 (metres).
    rng : numpy.random.Generator
        For the directions of shadow and occlusion rays.

    Returns
    -------
    ndarray, float32, (H * W, 3)
    """
    colour = np.zeros((shape[0] * shape[1], 3), dtype=np.float32)
    if world.sky is not None:
        missed = np.ones(len(colour), dtype=bool)
        missed[hits.ray] = False
        colour[missed] = sky_colour(world.sky, rays[missed].astype(np.float32))
    if len(hits.ray) == 0:
        return colour
    seen = surfaces_at(caster, hits, rays, origin, pixel_angle)
    cell = _pattern(hits.ray, shape)
    alike = _Alike(hits.ray, seen.flat, hits.part, shape)
    visible: list[Array] = [_occlusion_rays(caster, seen.points, seen.flat, cell, world.occlusion_reach, rng)]
    toward = []
    for light in world.lights:
        lit, centre, strength = _lit(light, caster, seen, cell, rng)
        visible.append(lit)
        toward.append((centre, strength))
    shares = alike.mean(np.stack(visible))
    result = _lighted(
        world, seen, shares[0], [(c, f * share) for (c, f), share in zip(toward, shares[1:], strict=True)]
    )
    result = _with_reflections(world, caster, seen, result, shares[0], cell, alike, pixel_angle, rng)
    colour[hits.ray] = hazy(world, result, seen.distance)
    return colour


def _lighted(world: World, seen: Surfaces, openness: Array, lamps: list[tuple[Array, Array]]) -> Array:
    """Light that surfaces scatter and give off, (N, 3).

    `openness`, (N,), is the share of ambient light; `lamps` are the unit directions to each light, (N, 3), and what
    arrives of it, (N,).
    """
    up = 0.5 + 0.5 * seen.normal[:, 2:]
    below, above = world.below.astype(np.float32), world.above.astype(np.float32)
    total = (below + (above - below) * up) * (0.25 + 0.75 * openness[:, None])
    highlight = np.zeros_like(total)
    gloss, sharpness = seen.material["gloss"], seen.material["sharpness"]
    glossy = np.flatnonzero(gloss > 0.03)
    for light, (directions, share) in zip(world.lights, lamps, strict=True):
        colour = light.colour.astype(np.float32)
        total += np.outer(share * np.maximum(dot(seen.normal, directions), 0), colour)
        half = unit(directions[glossy] - seen.direction[glossy])
        cosine = dot(seen.normal[glossy], half)
        # a power is costly, and nothing away from the highlight
        bright = (cosine > 0.75) & (share[glossy] > 0.01)
        there = glossy[bright]
        highlight[there] += np.outer(share[there] * gloss[there] * cosine[bright] ** sharpness[there], colour)
    return seen.albedo * (total + seen.material["glow"][:, None]) + highlight


def _with_reflections(
    world: World,
    caster: Caster,
    seen: Surfaces,
    own: Array,
    openness: Array,
    cell: NDArray[np.integer],
    alike: _Alike,
    pixel_angle: float,
    rng: np.random.Generator,
) -> Array:
    """Mix what polished and metallic surfaces mirror into their own light, `own`, by one more ray a pixel."""
    metal, polish = seen.material["metal"], seen.material["polish"]
    cosine = np.clip(-dot(seen.direction, seen.normal), 0, 1)
    # Schlick 1994, An Inexpensive BRDF Model for Physically-based Rendering; 0.04 is glass and varnish, faced
    share = metal + (1 - metal) * polish * (0.04 + 0.96 * (1 - cosine) ** 5)
    which = np.flatnonzero(share > _LEAST)
    if len(which) == 0:
        return own
    direction, normal, flat = seen.direction[which], seen.normal[which], seen.flat[which]
    mirrored: Array = direction - 2 * dot(direction, normal)[:, None] * normal
    rough = seen.material["rough"][which]
    disc: Array = _disc(rng).astype(np.float32)[cell[which]] * rough[:, None]
    first, second = frame(mirrored)
    mirrored = unit(mirrored + disc[:, :1] * first + disc[:, 1:] * second)
    # rounded and rippled normals may point a reflection into the face itself
    mirrored = unit(mirrored + np.maximum(0.02 - dot(mirrored, flat), 0)[:, None] * flat)
    start = seen.points[which]
    hits = caster.cast(start.astype(np.float64), mirrored.astype(np.float64))
    missed = np.ones(len(which), dtype=bool)
    missed[hits.ray] = False
    colour = np.zeros_like(mirrored)
    colour[missed] = beyond(world, mirrored[missed])
    if len(hits.ray):
        far = surfaces_at(caster, hits, mirrored, start, pixel_angle, seen.distance[which])
        lamps: list[tuple[Array, Array]] = []
        for number, light in enumerate(world.lights):
            shadows = number < 2 or bool(light.gates)
            lit, centre, strength = _lit(light, caster, far, cell[which][hits.ray], rng, shadows=shadows)
            lamps.append((centre, strength * lit))
        arriving = _lighted(world, far, np.full(len(hits.ray), 0.75, dtype=np.float32), lamps)
        colour[hits.ray] = hazy(world, arriving, far.distance - seen.distance[which][hits.ray])
    blurred = rough > 0.02
    if blurred.any():
        spread = np.zeros((4, len(own)), dtype=np.float32)
        spread[:3, which[blurred]] = colour[blurred].T
        spread[3, which[blurred]] = 1
        mean = alike.mean(spread)[:, which[blurred]]
        colour[blurred] = (mean[:3] / np.maximum(mean[3], 1e-6)).T
    # where it stands in a corner even a mirror shows the dark of the corner, which the one bounce here cannot give
    tint = 1 - metal[which, None] * (1 - np.minimum(1.25 * seen.albedo[which] + 0.1, 1))
    result = own.copy()
    mixed = share[which, None]
    result[which] = own[which] * (1 - mixed) + mixed * colour * tint * (0.5 + 0.5 * openness[which, None])
    return result


def _lit(
    light: Light,
    caster: Caster,
    seen: Surfaces,
    cell: NDArray[np.integer],
    rng: np.random.Generator,
    *,
    shadows: bool = True,
) -> tuple[Array, Array, Array]:
    """Whether a spot of the light reaches each surface (0 or 1, one ray each); the unit direction to its centre; and
    what arrives of its strength where nothing is in the way.
    """
    directions, gap, centre, strength = _light_rays(light, seen.points, cell, rng)
    lit = np.zeros(len(seen.points), dtype=np.float32)
    asked = np.flatnonzero((dot(centre, seen.flat) > 0) & (gap > 0) & (strength > 0.004))
    lit[asked] = caster.is_lit(seen.points[asked], directions[asked], gap[asked]) if shadows else 1
    return lit, centre, strength


def _pattern(ray: NDArray[np.integer], shape: tuple[int, int]) -> NDArray[np.integer]:
    row, column = ray // shape[1], ray % shape[1]
    return (row % _PATTERN) * _PATTERN + column % _PATTERN


def _disc(rng: np.random.Generator) -> Array:
    """Sixteen points spread over the unit disc, (16, 2), in a random order and turn."""
    count = _PATTERN**2
    radius = np.sqrt((np.arange(count) + 0.5) / count)
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5)) + rng.uniform(0, 2 * np.pi)
    return (radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1))[rng.permutation(count)]


def _occlusion_rays(
    caster: Caster, points: Array, normal: Array, cell: NDArray[np.integer], reach: float, rng: np.random.Generator
) -> Array:
    """Whether one cosine-distributed direction per pixel is open over `reach` metres (1) or not (0)."""
    disc = _disc(rng).astype(np.float32)[cell]
    first, second = frame(normal)
    rise = np.sqrt(np.maximum(1 - (disc**2).sum(axis=-1, keepdims=True), 0.01))
    return caster.is_lit(points, disc[:, :1] * first + disc[:, 1:] * second + rise * normal, reach).astype(np.float32)


def _light_rays(
    light: Light, points: Array, cell: NDArray[np.integer], rng: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Unit directions to one spot of the light per pixel and the distance to it (0: out of its reach), for shadows;
    the direction to its centre and what is left of its strength, for shading.
    """
    disc = _disc(rng)
    count = len(points)
    if light.is_sun:
        first, second = frame(light.toward[None])
        towards = unit(light.toward + light.size * (disc[:, :1] * first + disc[:, 1:] * second))
        directions = towards.astype(np.float32)[cell]
        gap = np.full(count, 1e4, dtype=np.float32) if not light.gates else _through_gates(light, points, directions)
        centre = np.broadcast_to(light.toward.astype(np.float32), (count, 3))
        return directions, gap, centre, np.ones(count, dtype=np.float32)
    third = rng.uniform(-1, 1, size=(len(disc), 1))
    spots = light.toward + light.size * np.concatenate([disc, 0.3 * third], axis=-1)
    offset = spots.astype(np.float32)[cell] - points
    distance = np.sqrt(dot(offset, offset))
    middle = light.toward.astype(np.float32) - points
    square = dot(middle, middle)
    centre = middle / np.sqrt(square + 1e-9)[:, None]
    strength: Array = np.minimum((light.reach**2 + 0.1) / (square + 0.1), 6.0)
    if light.facing is not None:
        strength = strength * np.maximum(-(centre @ light.facing.astype(np.float32)), 0)
    gap = np.maximum(distance - light.clear, 1e-3)
    return offset / (distance[:, None] + 1e-9), gap, centre, strength


def _through_gates(light: Light, points: Array, directions: Array) -> Array:
    """For each point the distance to the window that its ray to the sun leaves by, less the frame; 0 for none."""
    gap = np.zeros(len(points), dtype=np.float32)
    for gate in light.gates:
        fall = directions @ gate.inward.astype(np.float32)
        way = (gate.corner.astype(np.float32) - points) @ gate.inward.astype(np.float32) / np.where(fall == 0, 1, fall)
        offset = points + directions * way[:, None] - gate.corner.astype(np.float32)
        s, t = (offset @ (side / (side @ side)).astype(np.float32) for side in (gate.along, gate.up))
        bar = 0.03 / float(np.linalg.norm(gate.along))
        inside = (way > 0) & (s > 0) & (s < 1) & (t > 0) & (t < 1) & (np.abs(s - 0.5) > bar)
        # the shadow ray ends before the frame, whose own shadow is that of the rectangle and its bar
        gap[inside] = np.maximum(way - 0.2 / np.maximum(-fall, 0.1), 1e-3)[inside]
    return gap


class _Alike:
    """Averages over the 4 x 4 pixels around each one that lie on the same part and face alike."""

    def __init__(
        self, ray: NDArray[np.integer], normal: Array, part: NDArray[np.integer], shape: tuple[int, int]
    ) -> None:
        height, width = shape
        self.ray, self.shape = ray, shape
        self.before, after = _PATTERN // 2, _PATTERN - 1 - _PATTERN // 2
        self.padded = (height + self.before + after, width + self.before + after)
        facing = np.zeros((3, *self.padded), dtype=np.float32)
        owner = np.full(self.padded, -1, dtype=np.int32)
        self.row, self.column = ray // width + self.before, ray % width + self.before
        facing[:, self.row, self.column], owner[self.row, self.column] = normal.T, part
        inner = np.s_[self.before : self.before + height, self.before : self.before + width]
        x, y, z = (np.ascontiguousarray(plane[inner]) for plane in facing)
        mine = np.ascontiguousarray(owner[inner])
        self.windows = [np.s_[r : r + height, c : c + width] for r in range(_PATTERN) for c in range(_PATTERN)]
        self.masks = []
        for window in self.windows:
            cosine = facing[0][window] * x
            cosine += facing[1][window] * y
            cosine += facing[2][window] * z
            self.masks.append(((cosine > 0.85) & (owner[window] == mine)).astype(np.float32))
        self.weight = np.maximum(sum(self.masks), 1)

    def mean(self, values: Array) -> Array:
        """Values, (K, N), of the rays that hit something, averaged, (K, N)."""
        count = len(values)
        image = np.zeros((count, *self.padded), dtype=np.float32)
        image[:, self.row, self.column] = values
        total = np.zeros((count, *self.shape), dtype=np.float32)
        for window, mask in zip(self.windows, self.masks, strict=True):
            for channel in range(count):
                total[channel] += image[channel][window] * mask
        return (total / self.weight).reshape(count, -1)[:, self.ray]

"""Light on surfaces: textures, lamps with soft shadows, ambient light with occlusion, highlights, sky, haze."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .textures import texture_bank
from .world import Caster, Hits, Light, Sky, World

Array = NDArray[np.floating]

_PATTERN = 4
"""Shadow and occlusion rays differ over 4 x 4 pixels and are averaged over as many: 16 samples for one ray each."""


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
    # colours need no more than float32, which halves the time of what follows
    direction = _unit(rays[hits.ray].astype(np.float32))
    distance = hits.distance.astype(np.float32)
    points = (origin + rays[hits.ray] * hits.distance[:, None]).astype(np.float32)
    flat = caster.face_normals[hits.face].astype(np.float32)
    flat = np.where(_dot(flat, direction)[:, None] > 0, -flat, flat)
    normal = _unit(caster.interpolate(caster.vertex_normals, hits))
    normal = np.where(_dot(normal, flat)[:, None] < 0, -normal, normal)
    material = {name: values[hits.part] for name, values in caster.materials.items()}
    albedo = _albedo(caster, hits, distance, material, direction, flat, pixel_angle)
    lifted = points + flat * (2e-4 + 2e-5 * distance[:, None])

    cell = _pattern(hits.ray, shape)
    open_share = _occlusion_rays(caster, lifted, flat, cell, world.occlusion_reach, rng)
    visible = [open_share]
    toward = []
    for light in world.lights:
        directions, gap, centre, falloff = _light_rays(light, lifted, cell, rng)
        lit = np.zeros(len(points), dtype=bool)
        facing = _dot(centre, flat) > 0
        lit[facing] = caster.is_lit(lifted[facing], directions[facing], gap[facing])
        visible.append(lit)
        toward.append((centre, falloff))
    shares = _smooth(np.stack(visible, axis=-1), hits.ray, flat, hits.part, shape)

    up = 0.5 + 0.5 * normal[:, 2:]
    below, above = world.below.astype(np.float32), world.above.astype(np.float32)
    light_sum = (below + (above - below) * up) * (0.25 + 0.75 * shares[:, :1])
    highlight = np.zeros_like(light_sum)
    for light, (directions, falloff), share in zip(world.lights, toward, shares.T[1:], strict=True):
        amount = light.colour.astype(np.float32) * (share * falloff)[:, None]
        light_sum = light_sum + amount * np.maximum(_dot(normal, directions), 0)[:, None]
        cosine = np.maximum(_dot(normal, _unit(directions - direction)), 0)
        highlight = highlight + amount * (material["gloss"] * cosine ** material["sharpness"])[:, None]
    shiny = np.flatnonzero(material["metal"] > 0.02)
    result = albedo * (light_sum + material["glow"][:, None]) + highlight
    if len(shiny):
        mirrored = direction[shiny] - 2 * _dot(direction[shiny], normal[shiny])[:, None] * normal[shiny]
        share = material["metal"][shiny, None]
        surroundings = _surroundings(world, mirrored) * (0.3 + 0.7 * shares[shiny, :1])
        result[shiny] = result[shiny] * (1 - share) + share * surroundings * (0.3 + 0.7 * albedo[shiny])
    if world.haze > 0 and world.sky is not None:
        left = np.exp(-world.haze * distance)[:, None]
        result = result * left + world.sky.horizon.astype(np.float32) * (1 - left)
    colour[hits.ray] = result
    return colour


def sky_colour(sky: Sky, directions: Array) -> Array:
    """Linear colours of the sky along directions, (N, 3)."""
    up = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    height = np.clip(up[:, 2:], 0, 1) ** 0.6
    colour = sky.horizon.astype(np.float32) * (1 - height) + sky.zenith.astype(np.float32) * height
    flat = up[:, :2] / np.maximum(up[:, 2:] + 0.12, 0.05) * 0.25
    clouds = texture_bank().sample(np.full(len(up), sky.texture), flat, np.full(len(up), 1 / 128))[:, :1]
    share = np.clip((clouds - 1 + sky.cover) * 3, 0, 1) * np.clip(up[:, 2:] * 4, 0, 1)
    return colour * (1 - share) + sky.clouds.astype(np.float32) * (0.7 + 0.5 * clouds) * share


def _albedo(
    caster: Caster,
    hits: Hits,
    distance: Array,
    material: dict[str, NDArray[np.float32]],
    direction: Array,
    flat: Array,
    pixel_angle: float,
) -> Array:
    uv = caster.interpolate(caster.uv, hits)
    c, s = np.cos(material["angle"]), np.sin(material["angle"])
    turned = np.stack([c * uv[:, 0] - s * uv[:, 1], s * uv[:, 0] + c * uv[:, 1]], axis=-1)
    turned = turned * material["repeat"][:, None] + material["shift"]
    slant = np.maximum(-_dot(direction, flat), 0.02)
    # a pixel covers more of a slanted surface in one direction only: the square root lies between blur and glitter
    footprint = distance * pixel_angle * material["repeat"] / np.sqrt(slant)
    texel = texture_bank().sample(material["texture"].astype(np.int64), turned, footprint)
    return material["dark"] * (1 - texel) + material["light"] * texel


def _dot(a: Array, b: Array) -> Array:
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]


def _unit(a: Array) -> Array:
    return a / (np.sqrt(_dot(a, a)) + 1e-12)[:, None]


def _pattern(ray: NDArray[np.integer], shape: tuple[int, int]) -> NDArray[np.integer]:
    row, column = ray // shape[1], ray % shape[1]
    return (row % _PATTERN) * _PATTERN + column % _PATTERN


def _disc(rng: np.random.Generator) -> Array:
    """Sixteen points spread over the unit disc, (16, 2), in a random order and turn."""
    count = _PATTERN**2
    radius = np.sqrt((np.arange(count) + 0.5) / count)
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5)) + rng.uniform(0, 2 * np.pi)
    return (radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1))[rng.permutation(count)]


def _frame(normal: Array) -> tuple[Array, Array]:
    """Two unit vectors across each normal, (N, 3)."""
    # Duff et al. 2017, Building an Orthonormal Basis, Revisited: no case distinction but the sign of z
    x, y, z = normal.T
    sign = np.where(z >= 0, 1, -1).astype(normal.dtype)
    a = -1 / (sign + z)
    b = x * y * a
    first = np.stack([1 + sign * x * x * a, sign * b, -sign * x], axis=-1)
    return first, np.stack([b, sign + y * y * a, -y], axis=-1)


def _occlusion_rays(
    caster: Caster, points: Array, normal: Array, cell: NDArray[np.integer], reach: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Whether one cosine-distributed direction per pixel is open over `reach` metres."""
    disc = _disc(rng).astype(np.float32)[cell]
    first, second = _frame(normal)
    rise = np.sqrt(np.maximum(1 - (disc**2).sum(axis=-1, keepdims=True), 0.01))
    return caster.is_lit(points, disc[:, :1] * first + disc[:, 1:] * second + rise * normal, reach)


def _light_rays(
    light: Light, points: Array, cell: NDArray[np.integer], rng: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Unit directions to one spot of the light per pixel and the distance to it, for shadows; the direction to its
    centre and what is left of its strength, for shading.
    """
    disc = _disc(rng)
    count = len(points)
    if light.is_sun:
        first, second = _frame(light.toward[None])
        spots = light.toward + light.size * (disc[:, :1] * first + disc[:, 1:] * second)
        spots = _unit(spots).astype(np.float32)
        centre = np.broadcast_to(light.toward.astype(np.float32), (count, 3))
        return spots[cell], np.full(count, 1e4, dtype=np.float32), centre, np.ones(count, dtype=np.float32)
    third = rng.uniform(-1, 1, size=(len(disc), 1))
    spots = light.toward + light.size * np.concatenate([disc, 0.3 * third], axis=-1)
    offset = spots.astype(np.float32)[cell] - points
    distance = np.sqrt(_dot(offset, offset))
    middle = light.toward.astype(np.float32) - points
    square = _dot(middle, middle)
    falloff = np.minimum((light.reach**2 + 0.1) / (square + 0.1), 6.0)
    return offset / (distance[:, None] + 1e-9), distance - 0.02, middle / np.sqrt(square + 1e-9)[:, None], falloff


def _smooth(
    values: NDArray[np.bool_],
    ray: NDArray[np.integer],
    normal: Array,
    part: NDArray[np.integer],
    shape: tuple[int, int],
) -> Array:
    """The mean of the values over the 4 x 4 pixels around each one that lie on the same part and face alike."""
    height, width = shape
    before, after = _PATTERN // 2, _PATTERN - 1 - _PATTERN // 2
    padded = (height + before + after, width + before + after)
    count = values.shape[-1]
    image = np.zeros((count, *padded), dtype=np.float32)
    facing = np.zeros((3, *padded), dtype=np.float32)
    owner = np.full(padded, -1, dtype=np.int32)
    row, column = ray // width + before, ray % width + before
    image[:, row, column], facing[:, row, column], owner[row, column] = values.T, normal.T, part
    inner = np.s_[before : before + height, before : before + width]
    x, y, z = (plane[inner] for plane in facing)
    total = np.zeros((count, height, width), dtype=np.float32)
    weight = np.zeros((height, width), dtype=np.float32)
    for dy in range(_PATTERN):
        for dx in range(_PATTERN):
            window = np.s_[dy : dy + height, dx : dx + width]
            alike = owner[window] == owner[inner]
            alike &= facing[0][window] * x + facing[1][window] * y + facing[2][window] * z > 0.85
            for channel in range(count):
                total[channel] += image[channel][window] * alike
            weight += alike
    return (total / np.maximum(weight, 1)).reshape(count, -1).T[ray]


def _surroundings(world: World, directions: Array) -> Array:
    """What a polished surface mirrors: the sky outdoors, a blurred photograph lit like the room indoors."""
    if world.sky is not None:
        ground = world.below * 0.5
        return np.where(directions[:, 2:] > 0, sky_colour(world.sky, directions), ground)
    names = texture_bank().names["photograph"]
    texture = np.full(len(directions), names[len(world.meshes) % len(names)])
    angle = np.arctan2(directions[:, 1], directions[:, 0]) / np.pi
    texel = texture_bank().sample(texture, np.stack([angle, directions[:, 2]], axis=-1), np.full(len(texture), 1 / 24))
    return 2.0 * texel**2 * (world.above + 0.3)

"""What lies beyond the last surface: sky with clouds, by day and night, and haze."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .textures import texture_bank
from .world import Sky, World

Array = NDArray[np.floating]


def sky_colour(sky: Sky, directions: Array) -> Array:
    """Linear colours of the sky along directions, (N, 3)."""
    up = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    height = np.clip(up[:, 2:], 0, 1) ** 0.6
    colour = sky.horizon.astype(np.float32) * (1 - height) + sky.zenith.astype(np.float32) * height
    flat = up[:, :2] / np.maximum(up[:, 2:] + 0.12, 0.05) * 0.25
    clouds = texture_bank().sample(np.full(len(up), sky.texture), flat, np.full(len(up), 1 / 128))[:, :1]
    share = np.clip((clouds - 1 + sky.cover) * 3, 0, 1) * np.clip(up[:, 2:] * 4, 0, 1)
    return colour * (1 - share) + sky.clouds.astype(np.float32) * (0.7 + 0.5 * clouds) * share


def beyond(world: World, directions: Array) -> Array:
    """Light from where there is no surface, (N, 3): the sky, or what little comes from outside a room."""
    if world.sky is None:
        return np.broadcast_to((0.5 * world.below).astype(np.float32), directions.shape)
    colour = sky_colour(world.sky, directions)
    return np.where(directions[:, 2:] > 0, colour, (0.3 * world.sky.horizon).astype(np.float32))


def hazy(world: World, colour: Array, distance: Array) -> Array:
    """What is left of colours, (N, 3), over distances, (N,), in metres of haze."""
    if world.haze <= 0 or world.sky is None:
        return colour
    left = np.exp(-world.haze * distance)[:, None]
    return colour * left + world.sky.horizon.astype(np.float32) * (1 - left)

"""A thing: meshes with materials about the origin, standing on z = 0, its front towards -y; and how to make one.

A maker is a function ``(rng, look) -> Thing``. To add one, write it and list it in `SMALL`, `FURNITURE`,
`AGAINST_WALL`, `LARGE`, `PAVEMENT` or `COUNTRY`; one listed twice is drawn twice as often.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .geometry import Array, Mesh
from .materials import Look, Material

Thing = list[tuple[Mesh, Material]]
Maker = Callable[[np.random.Generator, Look], Thing]


def pick(rng: np.random.Generator, makers: list[Maker]) -> Maker:
    return makers[int(rng.integers(len(makers)))]


def moved(thing: Thing, offset: tuple[float, float, float], rotation: Array | None = None) -> Thing:
    return [(mesh.moved(offset, rotation), material) for mesh, material in thing]


def extent(thing: Thing) -> tuple[Array, Array]:
    """The corners of the axis-aligned bounding box, metres."""
    low = np.min([mesh.vertices.min(axis=0) for mesh, _ in thing], axis=0)
    high = np.max([mesh.vertices.max(axis=0) for mesh, _ in thing], axis=0)
    return low, high

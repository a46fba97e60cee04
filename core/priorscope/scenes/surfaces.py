"""The surfaces that rays end on: where, which way they face, of what material and colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .textures import texture_bank
from .world import Caster, Hits

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Surfaces:
    """One row a hit; float32.

    Attributes
    ----------
    points : ndarray, (N, 3)
        Metres; lifted a little off the surface, so that rays from there do not hit it.
    direction : ndarray, (N, 3)
        Unit direction in which the ray came.
    distance : ndarray, (N,)
        Metres along all of the light's way to the camera.
    flat, normal : ndarray, (N, 3)
        Unit normals of the face and of the smooth surface, on the side of the ray.
    material : dict of ndarray
    albedo : ndarray, (N, 3)
    """

    points: Array
    direction: Array
    distance: Array
    flat: Array
    normal: Array
    material: dict[str, NDArray[np.float32]]
    albedo: Array


def dot(a: Array, b: Array) -> Array:
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]


def unit(a: Array) -> Array:
    return a / (np.sqrt(dot(a, a)) + 1e-12)[:, None]


def frame(normal: Array) -> tuple[Array, Array]:
    """Two unit vectors across each normal, (N, 3)."""
    # Duff et al. 2017, Building an Orthonormal Basis, Revisited: no case distinction but the sign of z
    x, y, z = normal.T
    sign = np.where(z >= 0, 1, -1).astype(normal.dtype)
    a = -1 / (sign + z)
    b = x * y * a
    first = np.stack([1 + sign * x * x * a, sign * b, -sign * x], axis=-1)
    return first, np.stack([b, sign + y * y * a, -y], axis=-1)


def surfaces_at(
    caster: Caster, hits: Hits, rays: Array, origin: Array, pixel_angle: float, travelled: Array | float = 0.0
) -> Surfaces:
    """The surfaces where rays from `origin`, (3,) or one a ray, end.

    Parameters
    ----------
    rays : ndarray, (R, 3)
        Those that were cast; of depth 1 from the camera, else of unit length.
    pixel_angle : float
        Width of a pixel at depth 1 (metres).
    travelled : ndarray, (R,), or float
        Metres from the camera to `origin`.
    """
    # colours need no more than float32, which halves the time of what follows
    cast = rays[hits.ray].astype(np.float32)
    length = np.sqrt(dot(cast, cast))
    direction = cast / length[:, None]
    reached = hits.distance.astype(np.float32)
    start = origin.astype(np.float32) if origin.ndim == 1 else origin[hits.ray].astype(np.float32)
    points = start + cast * reached[:, None]
    before = np.broadcast_to(np.asarray(travelled, dtype=np.float32), len(rays))[hits.ray]
    distance = (reached * length + before).astype(np.float32)
    flat = np.take(caster.face_normals, hits.face, axis=0).astype(np.float32)
    flat *= np.where(dot(flat, direction) > 0, np.float32(-1), np.float32(1))[:, None]
    normal = unit(caster.interpolate(caster.vertex_normals, hits))
    normal *= np.where(dot(normal, flat) < 0, np.float32(-1), np.float32(1))[:, None]
    material = {name: np.take(values, hits.part, axis=0) for name, values in caster.materials.items()}
    wet = np.flatnonzero(material["ripple"] > 0)
    if len(wet):
        normal[wet] = _rippled(points[wet], normal[wet], material["ripple"][wet], distance[wet])
    albedo = _albedo(caster, hits, distance, material, direction, flat, pixel_angle)
    lifted = points + flat * (2e-4 + 2e-5 * distance[:, None])
    return Surfaces(lifted, direction, distance, flat, normal, material, albedo)


_WAVES = np.array([[2.1, 0.7], [-1.3, 2.9], [4.7, -3.1], [-6.1, -7.9], [11.0, 5.0]], dtype=np.float32)


def _rippled(points: Array, normal: Array, slope: Array, distance: Array) -> Array:
    """Normals of water: a few waves cross each other; those that are too short for a far pixel fade."""
    phase = points[:, :2] @ _WAVES.T
    wave = np.cos(phase) / (1 + distance[:, None] * np.abs(_WAVES).max(axis=-1) * 0.02)
    tilt = slope[:, None] * (wave @ (_WAVES / np.linalg.norm(_WAVES, axis=-1, keepdims=True)))
    bent = normal.copy()
    bent[:, :2] -= tilt
    return unit(bent)


def _albedo(
    caster: Caster,
    hits: Hits,
    distance: Array,
    material: dict[str, NDArray[np.float32]],
    direction: Array,
    flat: Array,
    pixel_angle: float,
) -> Array:
    bank = texture_bank()
    uv = caster.interpolate(caster.uv, hits)
    c, s = np.cos(material["angle"]), np.sin(material["angle"])
    turned = np.stack([c * uv[:, 0] - s * uv[:, 1], s * uv[:, 0] + c * uv[:, 1]], axis=-1)
    turned = turned * material["repeat"][:, None] + material["shift"]
    slant = np.maximum(-dot(direction, flat), 0.02)
    # a pixel covers more of a slanted surface in one direction only: the square root lies between blur and glitter
    footprint = distance * pixel_angle * material["repeat"] / np.sqrt(slant)
    texel = bank.sample(material["texture"].astype(np.int64), turned, footprint)
    albedo = material["dark"] * (1 - texel) + material["light"] * texel
    stained = np.flatnonzero(material["stain"] > 0.1)
    if len(stained):
        # on a scale of its own and turned, so that the repeats of the texture no longer look alike
        x, y = turned[stained].T
        place = np.stack([0.17 * x - 0.09 * y, 0.11 * x + 0.19 * y], axis=-1)
        blot = np.full(len(stained), bank.names["smooth_noise"][0])
        amount = bank.sample(blot, place, 0.2 * footprint[stained])[:, :1] - np.float32(0.5)
        albedo[stained] *= 1 + 1.2 * material["stain"][stained, None] * amount
    return albedo

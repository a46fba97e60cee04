"""A rotating LiDAR in a scene of triangles: rays by Embree, noise along the ray, lost and faint returns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from priorscope_detection.data.rigid import Array

from .settings import STEP, LidarSettings

#: A surface of reflectivity 0.1, faced at the full reach, comes back with a chance of 1 - 1/e.
_POWER = 10.0


class Triangles:
    """Triangles that rays can be cast at.

    Parameters
    ----------
    vertices : ndarray, float32, (V, 3)
    faces : ndarray, int32, (F, 3)
    shine : ndarray, (F,)
        Diffuse reflectivity, 0 ... 1.
    owner : ndarray, int, (F,)
        Which body a face belongs to; -1 where it stands still.
    """

    def __init__(
        self,
        vertices: NDArray[np.float32],
        faces: NDArray[np.int32],
        shine: Array,
        owner: NDArray[np.int64] | None = None,
    ) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self.shine = shine.astype(np.float32)
        self.owner = np.full(len(faces), -1) if owner is None else owner
        self.scene = EmbreeScene(robust=True) if len(faces) else None
        if self.scene is not None:
            TriangleMesh(self.scene, np.ascontiguousarray(vertices), np.ascontiguousarray(faces))

    def cast(
        self, origins: NDArray[np.float32], directions: NDArray[np.float32], reach: float
    ) -> tuple[NDArray[np.float32], NDArray[np.integer], NDArray[np.float32]]:
        """Distance (inf: nothing), face and unit normal of what rays of unit length hit first: (N,), (N,), (N, 3)."""
        if self.scene is None:
            count = len(origins)
            return np.full(count, np.inf, np.float32), np.zeros(count, np.int64), np.zeros((count, 3), np.float32)
        far = np.full(len(origins), reach, np.float32)
        found = self.scene.run(origins, directions, far, output=True)
        distance = np.where(found["primID"] >= 0, found["tfar"], np.float32(np.inf))
        return distance, found["primID"], found["Ng"]


@dataclass(frozen=True)
class Returns:
    """One turn.

    Attributes
    ----------
    points : ndarray, float32, (N, 4)
        x, y, z (metres, sensor frame), intensity 0 ... 1.
    owner : ndarray, int, (N,)
        The body that each hit; -1: something that stands still.
    """

    points: NDArray[np.float32]
    owner: NDArray[np.int64]


def sweep(
    layers: list[Triangles],
    pose: Array,
    settings: LidarSettings,
    rng: np.random.Generator,
    *,
    velocity: Array | None = None,
    turning: float = 0.0,
    own: int | None = None,
) -> Returns:
    """One turn of the sensor, which ends at the moment of the pose.

    Parameters
    ----------
    layers : list of Triangles
        What is there; nothing moves during the turn but the sensor.
    pose : ndarray, (4, 4)
        Sensor to world.
    settings : LidarSettings
    rng : numpy Generator
    velocity : ndarray, (3,), optional
        Of the sensor, world, metres a second.
    turning : float
        Yaw rate, radians a second.
    own : int, optional
        The body that carries the sensor: it hides what lies behind it, and gives no points.
    """
    local = _directions(settings)
    columns = settings.columns
    # the last column is the newest; column k was measured (columns - 1 - k) / columns of a turn before the stamp
    ago = (np.arange(columns) - (columns - 1)) / columns * STEP
    c, s = np.cos(turning * ago)[:, None], np.sin(turning * ago)[:, None]
    swung = np.stack(
        [c * local[..., 0] - s * local[..., 1], s * local[..., 0] + c * local[..., 1], local[..., 2]], axis=-1
    )
    directions = np.ascontiguousarray((swung.reshape(-1, 3) @ pose[:3, :3].T).astype(np.float32))
    shift = np.zeros((columns, 3)) if velocity is None else ago[:, None] * velocity
    origins = np.repeat((pose[:3, 3] + shift).astype(np.float32), settings.beams, axis=0)
    hits = [layer.cast(origins, directions, settings.reach) for layer in layers]
    distances = np.stack([hit[0] for hit in hits])
    nearest = distances.argmin(axis=0)
    rows = np.flatnonzero(np.isfinite(distances.min(axis=0)))
    which = nearest[rows]
    distance = distances[which, rows].astype(np.float64)
    face, normal = np.zeros(len(rows), np.int64), np.zeros((len(rows), 3), np.float32)
    shine, owner = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.int64)
    for number, (layer, hit) in enumerate(zip(layers, hits, strict=True)):
        here = which == number
        if here.any():
            face[here] = hit[1][rows[here]]
            normal[here] = hit[2][rows[here]]
            shine[here], owner[here] = layer.shine[face[here]], layer.owner[face[here]]
    length = np.sqrt(np.einsum("nk,nk->n", normal, normal)) + 1e-20
    facing = np.abs(np.einsum("nk,nk->n", normal, directions[rows])) / length
    power = shine * facing
    chance = 1 - np.exp(-_POWER * power / (distance / settings.reach) ** 2)
    kept = rng.random(len(rows)) < chance * (1 - settings.dropout)
    if own is not None:
        kept &= owner != own
    distance += rng.normal(scale=settings.range_noise, size=len(rows)) if settings.range_noise else 0.0
    intensity = np.clip(power * (1 + 0.1 * rng.standard_normal(len(rows))), 0, 1)
    rows, distance, intensity, owner = rows[kept], distance[kept], intensity[kept], owner[kept]
    column = rows // settings.beams
    if settings.compensated:
        points = (swung.reshape(-1, 3)[rows] * distance[:, None]) + (shift @ pose[:3, :3])[column]
    else:
        points = local.reshape(-1, 3)[rows] * distance[:, None]
    return Returns(np.column_stack([points, intensity]).astype(np.float32), owner)


@lru_cache(maxsize=8)
def _directions(settings: LidarSettings) -> Array:
    """Unit vectors of the rays in the sensor's frame, (columns, beams, 3)."""
    azimuth = np.linspace(-np.pi, np.pi, settings.columns, endpoint=False)[:, None]
    elevation = np.radians(np.linspace(settings.lowest, settings.highest, settings.beams))[None]
    rays = np.stack(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.broadcast_to(np.sin(elevation), (settings.columns, settings.beams)),
        ],
        axis=-1,
    )
    rays.flags.writeable = False
    return rays

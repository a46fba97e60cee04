"""A scene before it is seen: meshes with materials, lights, sky; and the ray caster over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .camera import Camera
from .geometry import Mesh, cross_product, rotation_z
from .materials import Material, as_arrays
from .things import Thing, extent

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gate:
    """A window: the rectangle corner + s * along + t * up (s and t in 0..1), crossed in its middle by a bar.

    `inward` is the unit normal into the room.
    """

    corner: Array
    along: Array
    up: Array
    inward: Array


@dataclass(frozen=True)
class Light:
    """A sun (`toward` is the direction to it) or a lamp (`toward` is its position, metres).

    `size` blurs the shadows: radians for a sun, metres for a lamp. `colour` is the linear light on a surface that
    faces it, for a lamp at a distance of `reach` metres. What is nearer to a lamp than `clear` metres (its shade)
    casts no shadow. A flat lamp shines to the side that `facing` points to. Where there are `gates`, a sun shines in
    through them only.
    """

    toward: Array
    colour: Array
    size: float
    is_sun: bool = False
    reach: float = 2.0
    clear: float = 0.02
    facing: Array | None = None
    gates: tuple[Gate, ...] = ()


@dataclass(frozen=True)
class Sky:
    """Linear colours of the sky and the texture of its clouds."""

    zenith: Array
    horizon: Array
    clouds: Array
    texture: int
    cover: float


@dataclass
class World:
    """Collects the meshes and the light of a scene.

    Attributes
    ----------
    above, below : ndarray, (3,)
        Linear ambient light on surfaces that face up and down.
    occlusion_reach : float
        How far off (metres) a neighbour still dims the ambient light.
    haze : float
        Share of light lost a metre.
    """

    above: Array = field(default_factory=lambda: np.full(3, 0.5))
    below: Array = field(default_factory=lambda: np.full(3, 0.3))
    occlusion_reach: float = 1.0
    haze: float = 0.0
    sky: Sky | None = None
    lights: list[Light] = field(default_factory=list)
    meshes: list[Mesh] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)

    def add(self, mesh: Mesh, material: Material) -> None:
        self.meshes.append(mesh)
        self.materials.append(material)

    def put(self, thing: Thing, x: float, y: float, z: float = 0.0, turn: float = 0.0) -> None:
        """Stand a thing at (x, y, z), turned about the vertical by `turn` radians."""
        rotation = rotation_z(turn)
        for mesh, material in thing:
            self.add(mesh.moved((x, y, z), rotation), material)


@dataclass(frozen=True)
class Stage:
    """What a scene kind returns: a world, and a source of camera proposals to choose from."""

    world: World
    propose: Callable[[np.random.Generator], Camera]
    nearest: float = 0.35


class Plot:
    """Free ground: finds places where things do not overlap each other (axis-aligned footprints, metres)."""

    def __init__(self, low: tuple[float, float], high: tuple[float, float]) -> None:
        self.low, self.high = np.array(low), np.array(high)
        self.taken: list[tuple[Array, Array]] = []

    def reserve(self, low: Array, high: Array) -> None:
        self.taken.append((np.asarray(low, dtype=float), np.asarray(high, dtype=float)))

    def is_free(self, low: Array, high: Array) -> bool:
        if (low < self.low).any() or (high > self.high).any():
            return False
        return all((high <= other[0]).any() or (low >= other[1]).any() for other in self.taken)

    def place(self, rng: np.random.Generator, thing: Thing, turn: float, *, tries: int = 8) -> Array | None:
        """A free place (x, y) for the thing once turned, which is then taken; None where there is none."""
        low, high = extent(thing)
        corners = np.array([[low[0], low[1]], [low[0], high[1]], [high[0], low[1]], [high[0], high[1]]])
        corners = corners @ rotation_z(turn)[:2, :2].T
        low2, high2 = corners.min(axis=0) - 0.02, corners.max(axis=0) + 0.02
        room_low, room_high = self.low - low2, self.high - high2
        if (room_low > room_high).any():
            return None
        for _ in range(tries):
            at = rng.uniform(room_low, room_high)
            if self.is_free(at + low2, at + high2):
                self.reserve(at + low2, at + high2)
                return at
        return None


@dataclass(frozen=True)
class Hits:
    """Where rays end; one row a ray that hit something (`ray` says which).

    Attributes
    ----------
    ray, face, part : ndarray, int, (N,)
    distance : ndarray, float64, (N,)
        In lengths of the ray's direction.
    bary : ndarray, float32, (N, 3)
        Weights of the face's three vertices.
    """

    ray: NDArray[np.integer]
    face: NDArray[np.integer]
    part: NDArray[np.integer]
    distance: Array
    bary: NDArray[np.float32]


class Caster:
    """Casts rays at the meshes of a world (Embree), and knows normals, texture coordinates and materials."""

    def __init__(self, world: World) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        counts = np.array([len(mesh.vertices) for mesh in world.meshes])
        starts = np.append(0, np.cumsum(counts)[:-1])
        # Embree works in float32: with the vertices rounded first, the exact planes below are those it saw
        corners = np.concatenate([mesh.vertices for mesh in world.meshes]).astype(np.float32)
        self.vertices = corners.astype(np.float64)
        self.faces = np.concatenate([mesh.faces + start for mesh, start in zip(world.meshes, starts, strict=True)])
        self.uv = np.concatenate([mesh.uv for mesh in world.meshes]).astype(np.float32)
        self.part = np.repeat(np.arange(len(world.meshes)), [len(mesh.faces) for mesh in world.meshes])
        self.materials = as_arrays(world.materials)
        weld = np.concatenate([mesh.weld + start for mesh, start in zip(world.meshes, starts, strict=True)])
        first, second, third = (np.take(self.vertices, self.faces[:, k], axis=0) for k in range(3))
        cross = cross_product(second - first, third - first)
        self.face_normals = cross / (np.sqrt((cross * cross).sum(axis=-1, keepdims=True)) + 1e-300)
        self.plane = np.einsum("nk,nk->n", first, self.face_normals)
        shared = weld[self.faces].T.ravel()
        smooth = np.stack([np.bincount(shared, np.tile(cross[:, k], 3), len(corners)) for k in range(3)], axis=-1)
        smooth = smooth / (np.sqrt((smooth * smooth).sum(axis=-1, keepdims=True)) + 1e-300)
        self.vertex_normals = np.take(smooth.astype(np.float32), weld, axis=0)
        self.scene = EmbreeScene(robust=True)
        TriangleMesh(self.scene, corners, self.faces.astype(np.int32))

    def cast(self, origin: Array, directions: Array) -> Hits:
        """First hits of rays along directions, (N, 3), of any length, from one point, (3,), or from (N, 3)."""
        start = np.broadcast_to(origin.astype(np.float32), directions.shape)
        found = self.scene.run(np.ascontiguousarray(start), directions.astype(np.float32), output=True)
        ray = np.flatnonzero(found["primID"] >= 0)
        face = found["primID"][ray]
        direction = directions[ray]
        normal = np.take(self.face_normals, face, axis=0)
        u, v, near = found["u"][ray], found["v"][ray], found["tfar"][ray].astype(np.float64)
        slope = np.einsum("nk,nk->n", direction, normal)
        from_zero = normal @ origin if origin.ndim == 1 else np.einsum("nk,nk->n", normal, origin[ray])
        to_plane = self.plane[face] - from_zero
        exact = to_plane / np.where(slope == 0, 1.0, slope)
        # Embree's float32 distance is only the fallback for rays that graze along their face
        distance = np.where((slope != 0) & (np.abs(exact - near) < 1e-2 * near), exact, near)
        return Hits(ray, face, self.part[face], distance, np.stack([1 - u - v, u, v], axis=-1))

    def owners(self, origin: Array, directions: Array) -> NDArray[np.integer]:
        """The part that each ray hits first, (N,); -1 where it hits none."""
        start = np.broadcast_to(origin.astype(np.float32), directions.shape)
        face = self.scene.run(np.ascontiguousarray(start), directions.astype(np.float32))
        return np.where(face >= 0, self.part[face], -1)

    def is_lit(
        self, points: NDArray[np.floating], directions: NDArray[np.floating], reach: NDArray[np.floating] | float
    ) -> NDArray[np.bool_]:
        """Whether nothing lies between points and points + directions * reach (unit directions, metres)."""
        distance = np.broadcast_to(np.asarray(reach, dtype=np.float32), len(points)).copy()
        hit = self.scene.run(points.astype(np.float32), directions.astype(np.float32), distance, query="OCCLUDED")
        return hit < 0

    def interpolate(self, values: NDArray[np.float32], hits: Hits) -> NDArray[np.float32]:
        """Values at the vertices, (V, K), interpolated to the hits, (N, K)."""
        corners = np.take(self.faces, hits.face, axis=0).T
        return sum(np.take(values, corner, axis=0) * hits.bary[:, k, None] for k, corner in enumerate(corners))

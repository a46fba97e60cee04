"""Triangle meshes of procedural scenes: a few primitives in metres, z up, standing on z = 0.

Vertices that are shared between faces are shaded smoothly, vertices of their own give a sharp edge; ``weld`` lets
two vertices with different texture coordinates (a seam) share one shading normal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh with texture coordinates.

    Attributes
    ----------
    vertices : ndarray, float64, (V, 3)
        Metres, z up.
    faces : ndarray, int64, (F, 3)
    uv : ndarray, float64, (V, 2)
        Texture coordinates in metres along the surface, so that a texture has a physical size.
    weld : ndarray, int64, (V,)
        For each vertex the vertex whose shading normal it shares (itself, except at seams).
    """

    vertices: Array
    faces: NDArray[np.int64]
    uv: Array
    weld: NDArray[np.int64]

    def moved(self, offset: Array | tuple[float, float, float], rotation: Array | None = None) -> Mesh:
        """The mesh rotated about its origin by a (3, 3) matrix, then shifted by `offset` (metres)."""
        vertices = self.vertices if rotation is None else self.vertices @ rotation.T
        return Mesh(vertices + np.asarray(offset, dtype=float), self.faces, self.uv, self.weld)


def rotation_z(angle: float) -> Array:
    """Rotation by `angle` (radians) about the vertical axis, (3, 3)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def rotation_x(angle: float) -> Array:
    """Rotation by `angle` (radians) about the x axis, (3, 3)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def rotation_y(angle: float) -> Array:
    """Rotation by `angle` (radians) about the y axis, (3, 3)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


# the corners of the unit box [-1/2, 1/2]^2 x [0, 1], four for each of its six sides, counter-clockwise from outside
_BOX = np.array(
    [
        [[-1, -1, 0], [1, -1, 0], [1, -1, 1], [-1, -1, 1]],
        [[1, 1, 0], [-1, 1, 0], [-1, 1, 1], [1, 1, 1]],
        [[1, -1, 0], [1, 1, 0], [1, 1, 1], [1, -1, 1]],
        [[-1, 1, 0], [-1, -1, 0], [-1, -1, 1], [-1, 1, 1]],
        [[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]],
        [[-1, 1, 0], [1, 1, 0], [1, -1, 0], [-1, -1, 0]],
    ],
    dtype=float,
).reshape(24, 3) * [0.5, 0.5, 1.0]
_BOX_FACES = np.concatenate([[[4 * i, 4 * i + 1, 4 * i + 2], [4 * i, 4 * i + 2, 4 * i + 3]] for i in range(6)])
_BOX_SIDES = np.repeat(np.array([[0, 2], [0, 2], [1, 2], [1, 2], [0, 1], [0, 1]]), 4, axis=0)
_BOX_UV = np.tile(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), (6, 1))
_ONE_EACH = np.arange(24)


def box(x: float, y: float, z: float) -> Mesh:
    """A box of x by y by z metres, centred over the origin and standing on z = 0."""
    size = np.array([x, y, z])
    return Mesh(_BOX * size, _BOX_FACES, _BOX_UV * size[_BOX_SIDES], _ONE_EACH)


def boxes(sizes: Array, places: Array | list[tuple[float, float, float]]) -> Mesh:
    """Many boxes as one mesh: `sizes` and the middles of their undersides, `places`, are (K, 3)."""
    sizes = np.asarray(sizes, dtype=float)
    count = len(sizes)
    vertices = _BOX * sizes[:, None] + np.asarray(places, dtype=float)[:, None]
    faces = _BOX_FACES + 24 * np.arange(count)[:, None, None]
    uv = _BOX_UV * sizes[:, _BOX_SIDES]
    return Mesh(vertices.reshape(-1, 3), faces.reshape(-1, 3), uv.reshape(-1, 2), np.arange(24 * count))


@lru_cache(maxsize=256)
def _lattice(rows: int, columns: int, wrap: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Faces of a grid of points, two a cell, and the weld that closes it around its columns."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.stack([a, b, c, a, c, d], axis=-1).reshape(-1, 3)
    weld = index.copy()
    if wrap:
        weld[:, -1] = weld[:, 0]
    faces.flags.writeable = weld.flags.writeable = False
    return faces, weld.ravel()


@lru_cache(maxsize=64)
def _circle(segments: int) -> Array:
    """Angle, cosine and sine of a closed circle, (3, segments + 1)."""
    angle = np.linspace(0.0, 2 * np.pi, segments + 1)
    circle = np.stack([angle, np.cos(angle), np.sin(angle)])
    circle.flags.writeable = False
    return circle


def _lengths(path: Array) -> Array:
    """Arc length from the start of a path (K, D) to each of its points."""
    step = path[1:] - path[:-1]
    lengths = np.zeros(len(path))
    np.cumsum(np.sqrt(np.einsum("nk,nk->n", step, step)), out=lengths[1:])
    return lengths


def cross_product(a: Array, b: Array) -> Array:
    """np.cross for (N, 3) without its overhead, which counts over thousands of small meshes."""
    result = np.empty_like(a)
    result[:, 0] = a[:, 1] * b[..., 2] - a[:, 2] * b[..., 1]
    result[:, 1] = a[:, 2] * b[..., 0] - a[:, 0] * b[..., 2]
    result[:, 2] = a[:, 0] * b[..., 1] - a[:, 1] * b[..., 0]
    return result


def _unit(a: Array) -> Array:
    return a / (np.sqrt(np.einsum("nk,nk->n", a, a)) + 1e-12)[:, None]


def sheet(points: Array, uv: Array | None = None, *, wrap: bool = False) -> Mesh:
    """A smooth surface over a grid of points.

    Parameters
    ----------
    points : ndarray, (A, B, 3)
    uv : ndarray, (A, B, 2), optional
        Texture coordinates; by default the arc length along the middle row and column.
    wrap : bool
        The last column lies on the first (a tube): their shading normals are shared.
    """
    rows, columns = points.shape[:2]
    if uv is None:
        uv = np.empty((rows, columns, 2))
        uv[..., 0] = _lengths(points[rows // 2])
        uv[..., 1] = _lengths(points[:, columns // 2])[:, None]
    faces, weld = _lattice(rows, columns, wrap)
    return Mesh(points.reshape(-1, 3), faces, uv.reshape(-1, 2), weld)


def quad(corner: Array, along: Array, up: Array) -> Mesh:
    """The parallelogram corner + s * along + t * up, s and t in 0..1; its front is the side of along x up."""
    points = np.stack([np.stack([corner, corner + along]), np.stack([corner + up, corner + along + up])])
    return sheet(points)


def revolve(profile: list[tuple[float, float]] | Array, segments: int = 20, *, sharp: float = 0.7) -> Mesh:
    """A surface of revolution about the z axis.

    Parameters
    ----------
    profile : (K, 2)
        Radius and height, from the bottom up on the outside.
    segments : int
        Number of sides around the axis.
    sharp : float
        Bends of the profile above this angle (radians) are edges; gentler ones are shaded smoothly.
    """
    line = np.asarray(profile, dtype=float)
    step = np.diff(line, axis=0)
    heading = np.arctan2(step[:, 1], step[:, 0])
    bend = np.abs((np.diff(heading) + np.pi) % (2 * np.pi) - np.pi)
    arc = _lengths(line)
    keep = np.ones(len(line), dtype=int)
    keep[1:-1] += bend > sharp
    pieces = np.repeat(np.arange(len(line)), keep)
    line, arc = line[pieces], arc[pieces]
    angle, cosine, sine = _circle(segments)
    points = np.empty((len(line), segments + 1, 3))
    points[..., 0] = line[:, :1] * cosine
    points[..., 1] = line[:, :1] * sine
    points[..., 2] = line[:, 1:]
    uv = np.empty((len(line), segments + 1, 2))
    uv[..., 0] = angle * line[:, 0].max()
    uv[..., 1] = arc[:, None]
    mesh = sheet(points, uv, wrap=True)
    # no area: a strip between the two copies of a doubled profile point, and one triangle of two at a pole
    solid = np.empty((len(line) - 1, segments, 2), dtype=bool)
    solid[...] = (pieces[1:] != pieces[:-1])[:, None, None]
    solid[..., 0] &= (line[:-1, 0] > 0)[:, None]
    solid[..., 1] &= (line[1:, 0] > 0)[:, None]
    return Mesh(mesh.vertices, mesh.faces[solid.ravel()], mesh.uv, mesh.weld)


@lru_cache(maxsize=64)
def _unit_cylinder(segments: int) -> tuple[Mesh, Array]:
    """A cylinder of radius and height 1; and for its vertices which shares of the radius and of the height lie
    before them along the profile, (V, 2).
    """
    mesh = revolve([(0, 0), (1, 0), (1, 1), (0, 1)], segments)
    shares = np.array([[0, 0], [1, 0], [1, 0], [1, 1], [1, 1], [2, 1]], dtype=float)
    return mesh, np.repeat(shares, segments + 1, axis=0)


def cylinder(radius: float, height: float, *, top: float | None = None, segments: int = 20) -> Mesh:
    """A closed cylinder, or a frustum with radius `top` at the upper end."""
    if top is not None:
        return revolve([(0, 0), (radius, 0), (top, height), (0, height)], segments)
    # by far the most frequent shape: one copy a number of sides is stretched
    unit, shares = _unit_cylinder(segments)
    uv = np.stack([unit.uv[:, 0] * radius, shares @ [radius, height]], axis=-1)
    return Mesh(unit.vertices * [radius, radius, height], unit.faces, uv, unit.weld)


@lru_cache(maxsize=64)
def _unit_sphere(segments: int) -> Mesh:
    latitude = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)
    return revolve(np.stack([np.cos(latitude), 1 + np.sin(latitude)], axis=-1), segments, sharp=3.0)


def ellipsoid(x: float, y: float, z: float, segments: int = 20) -> Mesh:
    """An ellipsoid with semi-axes x, y, z metres, resting on z = 0."""
    mesh = _unit_sphere(segments)
    return Mesh(mesh.vertices * [x, y, z], mesh.faces, mesh.uv * [max(x, y), z], mesh.weld)


def torus(radius: float, tube_radius: float, segments: int = 28, sides: int = 10) -> Mesh:
    """A ring about the z axis, its centre at the origin."""
    angle = np.linspace(-np.pi, np.pi, sides + 1)
    profile = np.stack([radius + tube_radius * np.cos(angle), tube_radius * np.sin(angle)], axis=-1)
    return revolve(profile, segments, sharp=3.0)


def tube(path: list[tuple[float, float, float]] | Array, radius: float, sides: int = 8) -> Mesh:
    """A round bar of `radius` metres along a path of (K, 3) points."""
    path = np.asarray(path, dtype=float)
    tangent = np.empty_like(path)
    tangent[1:-1] = path[2:] - path[:-2]
    tangent[0], tangent[-1] = path[1] - path[0], path[-1] - path[-2]
    tangent = _unit(tangent)
    # the axis the path follows least never comes near the tangent on the gentle paths in use here
    reference = np.eye(3)[np.abs(tangent).sum(axis=0).argmin()]
    side = _unit(cross_product(tangent, reference))
    other = cross_product(tangent, side)
    angle, cosine, sine = _circle(sides)
    points = path[:, None] + radius * (cosine[:, None] * side[:, None] + sine[:, None] * other[:, None])
    uv = np.empty((len(path), sides + 1, 2))
    uv[..., 0] = angle * radius
    uv[..., 1] = _lengths(path)[:, None]
    return sheet(points, uv, wrap=True)


def rods(
    starts: list[tuple[float, float, float]] | Array,
    ends: list[tuple[float, float, float]] | Array,
    radius: float | Array,
    sides: int = 5,
) -> Mesh:
    """Many straight round bars as one mesh: spokes, railings, wires, twigs; open at their ends.

    Parameters
    ----------
    starts, ends : (K, 3)
    radius : float, or ndarray, (K,) or (K, 2)
        Metres; for each bar, or for each of its two ends.
    sides : int
        Number of sides around a bar.
    """
    first, last = np.asarray(starts, dtype=float), np.asarray(ends, dtype=float)
    count = len(first)
    axis = _unit(last - first)
    side = _unit(cross_product(axis, np.eye(3)[np.abs(axis).argmin(axis=-1)]))
    other = cross_product(axis, side)
    angle, cosine, sine = _circle(sides)
    around = cosine[:, None] * side[:, None] + sine[:, None] * other[:, None]
    thick = np.asarray(radius, dtype=float)
    thick = np.broadcast_to(thick[:, None] if thick.ndim == 1 else thick, (count, 2))
    points = np.stack([first, last], axis=1)[:, :, None] + thick[..., None, None] * around[:, None]
    uv = np.empty((count, 2, sides + 1, 2))
    uv[..., 0] = angle * thick.mean(axis=-1)[:, None, None]
    uv[..., 1] = np.stack([0 * axis[:, 0], np.linalg.norm(last - first, axis=-1)], axis=-1)[..., None]
    faces, weld = _lattice(2, sides + 1, True)
    offset = (2 * (sides + 1) * np.arange(count))[:, None]
    return Mesh(
        points.reshape(-1, 3),
        (faces.ravel() + offset).reshape(-1, 3),
        uv.reshape(-1, 2),
        (weld + offset).ravel(),
    )


def joined(meshes: list[Mesh]) -> Mesh:
    """Several meshes as one: thousands of small ones cost more to keep apart than to render."""
    starts = np.append(0, np.cumsum([len(mesh.vertices) for mesh in meshes])[:-1])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate([mesh.weld + start for mesh, start in zip(meshes, starts, strict=True)]),
    )


def extrude(outline: list[tuple[float, float]] | Array, thickness: float) -> Mesh:
    """A plate: an outline (K, 2) in the x-z plane, seen from its centroid without hidden corners, thick along y."""
    line = np.asarray(outline, dtype=float)
    count = len(line)
    half = thickness / 2
    closed = np.concatenate([line, line[:1]])
    arc = _lengths(closed)
    corners = np.stack([closed[:-1], closed[1:], closed[1:], closed[:-1]], axis=1).reshape(-1, 2)
    depth = np.tile([-half, -half, half, half], count)
    rim = np.stack([corners[:, 0], depth, corners[:, 1]], axis=-1)
    rim_uv = np.stack([np.stack([arc[:-1], arc[1:], arc[1:], arc[:-1]], axis=1).ravel(), depth + half], axis=-1)
    first = 4 * np.arange(count)[:, None]
    rim_faces = np.concatenate([first + [0, 1, 2], first + [0, 2, 3]])
    fan = np.concatenate([line, line.mean(axis=0, keepdims=True)])
    cap_faces = np.stack([np.arange(count), (np.arange(count) + 1) % count, np.full(count, count)], axis=-1)
    caps = [np.stack([fan[:, 0], np.full(count + 1, y), fan[:, 1]], axis=-1) for y in (-half, half)]
    vertices = np.concatenate([rim, *caps])
    faces = np.concatenate([rim_faces, cap_faces + 4 * count, cap_faces[:, ::-1] + 5 * count + 1])
    return Mesh(vertices, faces, np.concatenate([rim_uv, fan, fan]), np.arange(len(vertices)))


def blob(rng: np.random.Generator, x: float, y: float, z: float, *, rough: float = 0.15, segments: int = 20) -> Mesh:
    """An ellipsoid with a bumpy surface (rocks, crowns of trees, cushions), resting near z = 0."""
    mesh = ellipsoid(1.0, 1.0, 1.0, segments)
    waves = rng.normal(size=(5, 3)) * rng.uniform(1.0, 4.0, size=(5, 1))
    phase = rng.uniform(0, 2 * np.pi, 5)
    unit = mesh.vertices - [0, 0, 1]
    bump = 1 + rough * np.sin(unit @ waves.T + phase).mean(axis=-1, keepdims=True) * 2
    vertices = (unit * bump + [0, 0, 1]) * [x, y, z]
    return Mesh(vertices, mesh.faces, mesh.uv * [max(x, y), z], mesh.weld)


def leaves(rng: np.random.Generator, centre: Array, radii: Array, count: int, size: float) -> Mesh:
    """`count` loose triangles of about `size` metres near the surface of an ellipsoid (foliage, grass).

    `centre` is a point, (3,), or one for each triangle, (count, 1, 3).
    """
    direction = rng.normal(size=(count, 1, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    where = centre + direction * radii * rng.uniform(0.65, 1.08, size=(count, 1, 1))
    corners = where + rng.normal(size=(count, 3, 3)) * size * 0.6
    vertices = corners.reshape(-1, 3)
    index = np.arange(3 * count)
    return Mesh(vertices, index.reshape(-1, 3), rng.uniform(0, 1, size=(3 * count, 2)), index)

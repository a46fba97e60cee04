"""A street drawn from a seed: carriageways, kerbs, buildings, trees, poles, parking places."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from priorscope.scenes.geometry import Mesh, blob, cylinder
from priorscope_detection.data.rigid import Array

from .settings import StreetSettings

LANE = 3.3
KERB = 0.12
PAVEMENT = 3.0
#: widths of the strip for parking, metres
_ALONG, _ANGLED = 2.3, 5.6


@dataclass(frozen=True)
class Road:
    """A carriageway along a straight line or an arc; places on it are (s, d): along the middle, and to its left.

    Attributes
    ----------
    start : (2,)
    heading : float
        At the start, radians.
    length : float
    bend : float
        Curvature, 1 / metres; 0 is straight.
    lanes : int
        In each direction; traffic keeps to the right (d < 0 for the direction of s).
    parking : float
        Width of the strip on each side, metres.
    """

    start: tuple[float, float]
    heading: float
    length: float
    bend: float
    lanes: int
    parking: float

    @property
    def half(self) -> float:
        """From the middle to the kerb, metres."""
        return self.lanes * LANE + self.parking

    def at(self, s: Array | float, d: Array | float) -> tuple[Array, Array]:
        """World x, y, (..., 2), and heading, (...), of places."""
        s, d = np.broadcast_arrays(np.asarray(s, float), np.asarray(d, float))
        yaw = self.heading + self.bend * s
        if self.bend:
            middle = np.stack(
                [
                    (np.sin(yaw) - np.sin(self.heading)) / self.bend,
                    (np.cos(self.heading) - np.cos(yaw)) / self.bend,
                ],
                axis=-1,
            )
        else:
            middle = s[..., None] * np.array([np.cos(self.heading), np.sin(self.heading)])
        left = np.stack([-np.sin(yaw), np.cos(yaw)], axis=-1)
        return np.asarray(self.start) + middle + d[..., None] * left, yaw

    def place(self, points: Array) -> tuple[Array, Array]:
        """The inverse of `at`: s and d of world points (..., 2)."""
        away = points - np.asarray(self.start)
        c, s = np.cos(self.heading), np.sin(self.heading)
        along, left = away[..., 0] * c + away[..., 1] * s, away[..., 1] * c - away[..., 0] * s
        if not self.bend:
            return along, left
        radius = 1 / self.bend
        sign = np.sign(radius)
        turn = np.arctan2(along * sign, (radius - left) * sign)
        return turn * radius, radius - sign * np.hypot(along, radius - left)


@dataclass(frozen=True)
class Layout:
    """A street before anybody is in it.

    Attributes
    ----------
    roads : tuple of Road
    vertices, faces, shine
        What stands still: (V, 3) float32, (F, 3) int32, reflectivity (F,).
    parking : ndarray, (P, 3)
        x, y, yaw of free parking places.
    pole : ndarray, (2,)
        Where a road-side unit stands.
    crossing : tuple of float or None
        Where the second road crosses, as s on each of the two.
    """

    roads: tuple[Road, ...]
    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    shine: Array
    parking: Array
    pole: Array
    crossing: tuple[float, float] | None


def draw_layout(rng: np.random.Generator, settings: StreetSettings) -> Layout:
    """Draw a street around the origin."""
    kind = settings.kind if settings.kind != "any" else str(rng.choice(["crossing", "crossing", "bend", "street"]))
    roads = _roads(rng, kind, settings.extent)
    still = _Still()
    still.ground(1.6 * settings.extent + 60)
    parking: list[Array] = []
    for number, road in enumerate(roads):
        others = [other for other in roads if other is not road]
        for side in (-1, 1):
            parking.append(_parking(rng, road, side, others))
            _pavement(still, road, side, others)
            _furniture(rng, still, road, side, others)
            _buildings(rng, still, road, side, others, first=number == 0)
    pole = _corner(roads)
    still.mesh(cylinder(0.12, 5.2, segments=8).moved((pole[0], pole[1], 0)), 0.3)
    vertices, faces, shine = still.arrays()
    middle = roads[0].length / 2
    crossing = (middle, roads[1].length / 2) if len(roads) > 1 else None
    return Layout(roads, vertices, faces, shine, np.concatenate(parking), pole, crossing)


class _Still:
    """Collects what stands still."""

    def __init__(self) -> None:
        self.vertices: list[Array] = []
        self.faces: list[NDArray[np.int64]] = []
        self.shine: list[Array] = []
        self.count = 0

    def mesh(self, mesh: Mesh, shine: float) -> None:
        self._add(mesh.vertices, mesh.faces, np.full(len(mesh.faces), shine))

    def ground(self, half: float) -> None:
        corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * half
        self._add(corners.astype(float), np.array([[0, 1, 2], [0, 2, 3]]), np.full(2, 0.18))

    def prisms(self, quads: Array, low: Array | float, high: Array | float, shine: Array | float) -> None:
        """Upright blocks over quadrilaterals, (K, 4, 2)."""
        count = len(quads)
        z = np.stack([np.broadcast_to(low, count), np.broadcast_to(high, count)], axis=1)
        points = np.concatenate(
            [np.repeat(quads[:, None], 2, axis=1), np.broadcast_to(z[:, :, None, None], (count, 2, 4, 1))], axis=-1
        )
        sides = [[i, (i + 1) % 4, (i + 1) % 4 + 4] for i in range(4)] + [[i, (i + 1) % 4 + 4, i + 4] for i in range(4)]
        faces = np.array([*sides, [4, 5, 6], [4, 6, 7]])
        self._add(
            points.reshape(-1, 3),
            (faces[None] + 8 * np.arange(count)[:, None, None]).reshape(-1, 3),
            np.repeat(np.broadcast_to(shine, count), len(faces)),
        )

    def _add(self, vertices: Array, faces: NDArray[np.int64], shine: Array) -> None:
        self.vertices.append(vertices)
        self.faces.append(faces + self.count)
        self.shine.append(shine)
        self.count += len(vertices)

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int32], Array]:
        return (
            np.concatenate(self.vertices).astype(np.float32),
            np.concatenate(self.faces).astype(np.int32),
            np.concatenate(self.shine),
        )


def _roads(rng: np.random.Generator, kind: str, extent: float) -> tuple[Road, ...]:
    heading = rng.uniform(-np.pi, np.pi)
    bend = float(rng.choice([-1, 1]) / rng.uniform(70, 220)) if kind == "bend" else 0.0
    angles = [heading]
    if kind == "crossing":
        angles.append(heading + np.radians(rng.uniform(60, 120)))
    roads = []
    for angle in angles:
        lanes = int(rng.integers(1, 3))
        strip = float(rng.choice([0.0, _ALONG, _ANGLED], p=[0.25, 0.5, 0.25]))
        road = Road((0.0, 0.0), float(angle), 2 * extent, bend, lanes, strip)
        middle, yaw = road.at(extent, 0.0)
        # turned and shifted so that the middle lies in the origin with the heading drawn
        turn = angle - float(yaw)
        c, s = np.cos(turn), np.sin(turn)
        start = -(np.array([[c, -s], [s, c]]) @ middle)
        roads.append(replace(road, start=(float(start[0]), float(start[1])), heading=float(angle + turn)))
    return tuple(roads)


def _clear(points: Array, others: list[Road], margin: float) -> NDArray[np.bool_]:
    """Which groups of points, (K, C, 2), lie outside the other carriageways by a margin."""
    free = np.ones(len(points), bool)
    for road in others:
        free &= (np.abs(road.place(points)[1]) > road.half + margin).all(axis=1)
    return free


def _quads(road: Road, s0: Array, s1: Array, d0: Array | float, d1: Array | float) -> Array:
    """Quadrilaterals, (K, 4, 2), between two places along and two across."""
    return np.stack([road.at(s, d)[0] for s, d in ((s0, d0), (s1, d0), (s1, d1), (s0, d1))], axis=1)


def _pavement(still: _Still, road: Road, side: int, others: list[Road]) -> None:
    edges = np.arange(0, road.length + 1, 2.5)
    quads = _quads(road, edges[:-1], edges[1:], side * road.half, side * (road.half + PAVEMENT))
    still.prisms(quads[_clear(quads, others, 0.0)], 0.0, KERB, 0.3)


def _parking(rng: np.random.Generator, road: Road, side: int, others: list[Road]) -> Array:
    """Places x, y, yaw along the kerb, or in a wide strip at an angle to it, noses in or out."""
    if not road.parking:
        return np.zeros((0, 3))
    turn = float(rng.choice(np.radians([60, 75, 90]))) if road.parking == _ANGLED else 0.0
    s = np.arange(4.0, road.length - 4, 2.1 / np.sin(turn) + 0.5 if turn else 6.3)
    s = s + np.clip(rng.normal(scale=0.06 if turn else 0.2, size=len(s)), -0.4, 0.4)
    d = side * (road.half - 0.5 * road.parking + np.clip(rng.normal(scale=0.06, size=len(s)), -0.1, 0.1))
    places, yaw = road.at(s, d)
    free = _clear(places[:, None], others, 8.0)
    forward = np.where(rng.uniform(size=len(s)) < 0.85, side < 0, side > 0)
    # who drives on this side turns off to the right
    lean = turn if side > 0 else -turn
    yaw = yaw + np.where(forward, 0.0, np.pi) + lean + np.clip(rng.normal(scale=0.02, size=len(s)), -0.05, 0.05)
    return np.column_stack([places, yaw])[free]


def _furniture(rng: np.random.Generator, still: _Still, road: Road, side: int, others: list[Road]) -> None:
    """Trees, lamps, signs, bins and hedges along the kerb."""
    s = rng.uniform(0, 8)
    while s < road.length:
        place = road.at(s, side * (road.half + rng.uniform(0.5, 0.9)))[0]
        if _clear(place[None, None], others, 1.0)[0]:
            x, y = place
            what = rng.choice(["tree", "tree", "lamp", "sign", "bin", "bollard", "stop"])
            if what == "tree":
                height = rng.uniform(2.0, 3.2)
                wide = rng.uniform(0.9, 2.0)
                still.mesh(cylinder(rng.uniform(0.08, 0.2), height + 0.5, segments=6).moved((x, y, 0)), 0.25)
                still.mesh(blob(rng, wide, wide, 1.2 * wide, rough=0.25, segments=10).moved((x, y, height)), 0.4)
            elif what == "lamp":
                still.mesh(cylinder(0.09, rng.uniform(5, 8), segments=6).moved((x, y, 0)), 0.35)
            elif what == "sign":
                still.mesh(cylinder(0.04, 2.3, segments=6).moved((x, y, 0)), 0.4)
                still.mesh(cylinder(0.3, 0.6, segments=8).moved((x, y, 2.1)), 0.9)
            elif what == "stop":
                yaw = float(road.at(s, 0.0)[1])
                along = np.array([np.cos(yaw), np.sin(yaw)]) * 1.8
                across = np.array([-np.sin(yaw), np.cos(yaw)]) * 0.06
                quad = np.stack(
                    [place - along - across, place + along - across, place + along + across, place - along + across]
                )
                still.prisms(quad[None], KERB, 2.4, 0.15)
            else:
                r, h = (0.3, 1.0) if what == "bin" else (0.1, 0.9)
                still.mesh(cylinder(r, h, segments=8).moved((x, y, 0)), 0.3)
        s += rng.uniform(5, 16)


def _buildings(
    rng: np.random.Generator, still: _Still, road: Road, side: int, others: list[Road], *, first: bool
) -> None:
    """A row of blocks behind the pavement, with gaps, low walls and hedges between them."""
    s = rng.uniform(0, 6)
    quads, low, high, shine = [], [], [], []
    while s < road.length:
        wide, deep = rng.uniform(7, 24), rng.uniform(7, 15)
        near = road.half + PAVEMENT + rng.choice([0.0, 0.5, 4.0]) * rng.uniform(0.5, 1.5)
        inner = np.array([s, s + wide])
        if road.bend and side * road.bend > 0:
            wide *= 0.8  # the inner side of a bend is shorter
        d0, d1 = side * near, side * (near + deep)
        quads.append(_quads(road, inner[:1], inner[:1] + wide, d0, d1)[0])
        built = rng.uniform() < 0.8
        low.append(0.0)
        high.append(rng.uniform(3.5, 16) if built else rng.uniform(0.6, 1.8))
        shine.append(rng.uniform(0.2, 0.6))
        if built and rng.uniform() < 0.5:  # a bay or a porch
            at = s + rng.uniform(0.1, 0.6) * wide
            quads.append(
                _quads(road, np.array([at]), np.array([at + 0.25 * wide]), d0 - side * 0.5, d0 + side * 0.1)[0]
            )
            low.append(rng.choice([0.0, 2.6]))
            high.append(high[-1] * rng.uniform(0.5, 0.9))
            shine.append(shine[-1])
        s += wide + rng.choice([0.0, 0.3, 5.0, 9.0])
    corners = np.stack(quads)
    spots = _spots(corners)
    keep = _clear(spots, others, PAVEMENT) & _clear(spots, [road], 0.5)
    if not first:
        for other in others:
            keep &= _clear(spots, [other], PAVEMENT + 16)  # where the first road's rows stand
    rows = np.flatnonzero(keep)
    still.prisms(corners[rows], np.array(low)[rows], np.array(high)[rows], np.array(shine)[rows])


def _spots(quads: Array) -> Array:
    """Points spread over quadrilaterals, (K, 18, 2): a long block may cross a road with all its corners beside it."""
    u, v = (grid.ravel()[:, None] for grid in np.meshgrid(np.linspace(0, 1, 6), np.linspace(0, 1, 3)))
    a, b, c, d = (quads[:, None, k] for k in range(4))
    return (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c)


def _corner(roads: tuple[Road, ...]) -> Array:
    """Beside the carriageways, as near to the middle as can be."""
    for reach in np.arange(0.0, 40.0, 0.5):
        for side in (-1, 1):
            for way in (-1, 1):
                point = roads[0].at(roads[0].length / 2 + way * reach, side * (roads[0].half + 0.7))[0]
                if _clear(point[None, None], list(roads), 0.5)[0]:
                    return point
    raise AssertionError("two roads leave a corner free within 40 m")

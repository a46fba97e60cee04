"""Vehicles and people as few triangles that fill their boxes exactly, and how well they send light back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from priorscope.scenes.geometry import Mesh, box, cylinder, ellipsoid, extrude, joined, rotation_x
from priorscope_detection.data.rigid import Array

PAINT, GLASS, RUBBER, CLOTH = range(4)
#: Diffuse reflectivity; of paint it is the body's own.
REFLECTIVITY = {GLASS: 0.03, RUBBER: 0.06, CLOTH: 0.25}
#: length, width, height: smallest and largest, metres
SIZES = {
    "car": ((3.7, 4.9), (1.7, 1.95), (1.4, 1.7)),
    "van": ((4.8, 6.0), (1.9, 2.1), (1.9, 2.6)),
    "truck": ((7.0, 10.0), (2.3, 2.55), (2.8, 3.8)),
    "bus": ((10.0, 12.5), (2.45, 2.55), (2.9, 3.3)),
    "pedestrian": ((0.5, 0.7), (0.5, 0.65), (1.5, 1.95)),
}
VEHICLES = ("car", "van", "truck", "bus")


@dataclass(frozen=True)
class Body:
    """Triangles in a box of 1 x 1 x 1 that stands on z = 0, and what each is made of.

    Attributes
    ----------
    vertices : ndarray, (V, 3)
    faces : ndarray, int, (F, 3)
    matter : ndarray, int, (F,)
    """

    vertices: Array
    faces: NDArray[np.int64]
    matter: NDArray[np.int64]


@dataclass(frozen=True)
class Bodies:
    """K bodies at a moment, row by row.

    Attributes
    ----------
    kinds : tuple of str
    boxes : ndarray, (K, 7)
        x, y, z of the centre, l, w, h, yaw; world.
    paint : ndarray, (K,)
        Reflectivity of the paint.
    """

    kinds: tuple[str, ...]
    boxes: Array
    paint: Array

    def triangles(self) -> tuple[NDArray[np.float32], NDArray[np.int32], Array, NDArray[np.int64]]:
        """Vertices (V, 3), faces (F, 3), reflectivity (F,) and the row of each face's body (F,)."""
        vertices, faces, shine, owner, start = [], [], [], [], 0
        for kind in sorted(set(self.kinds)):
            rows = np.flatnonzero([other == kind for other in self.kinds])
            body, boxes = shape(kind), self.boxes[rows]
            points = body.vertices[None] * boxes[:, None, 3:6]
            c, s = np.cos(boxes[:, 6])[:, None], np.sin(boxes[:, 6])[:, None]
            placed = np.stack(
                [
                    c * points[..., 0] - s * points[..., 1] + boxes[:, None, 0],
                    s * points[..., 0] + c * points[..., 1] + boxes[:, None, 1],
                    points[..., 2] + boxes[:, None, 2] - boxes[:, None, 5] / 2,
                ],
                axis=-1,
            )
            count = len(body.vertices)
            vertices.append(placed.reshape(-1, 3))
            faces.append((body.faces[None] + start + count * np.arange(len(rows))[:, None, None]).reshape(-1, 3))
            table = np.array([0.0, REFLECTIVITY[GLASS], REFLECTIVITY[RUBBER], REFLECTIVITY[CLOTH]])
            shine.append(np.where(body.matter == PAINT, self.paint[rows][:, None], table[body.matter]).ravel())
            owner.append(np.repeat(rows, len(body.faces)))
            start += count * len(rows)
        if not vertices:
            return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros(0), np.zeros(0, np.int64)
        return (
            np.concatenate(vertices).astype(np.float32),
            np.concatenate(faces).astype(np.int32),
            np.concatenate(shine),
            np.concatenate(owner),
        )


def draw_size(rng: np.random.Generator, kind: str) -> Array:
    """Length, width, height of one of a kind, metres; long ones are wide and high too, by half."""
    common = rng.uniform()
    return np.array([low + (high - low) * (common + rng.uniform()) / 2 for low, high in SIZES[kind]])


@lru_cache(maxsize=len(SIZES))
def shape(kind: str) -> Body:
    """The body of a kind, scaled to fill the unit box (x forward)."""
    parts = {"car": _car, "van": _van, "truck": _truck, "bus": _bus, "pedestrian": _pedestrian}[kind]()
    mesh = joined([part for part, _ in parts])
    matter = np.repeat([what for _, what in parts], [len(part.faces) for part, _ in parts])
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    vertices = (mesh.vertices - low) / (high - low) - [0.5, 0.5, 0.0]
    vertices.flags.writeable = False
    return Body(vertices, mesh.faces, matter)


def _wheels(*places: float, across: float, up: float) -> list[tuple[Mesh, int]]:
    disc = cylinder(1.0, 0.09, segments=8).moved((0, 0, 0), rotation_x(np.pi / 2))
    wheel = Mesh(disc.vertices * [across, 1, up], disc.faces, disc.uv, disc.weld)
    return [(wheel.moved((x, y, up)), RUBBER) for x in places for y in (-0.385, 0.475)]


def _car() -> list[tuple[Mesh, int]]:
    sill, belt = 0.14, 0.62
    body = [(-0.5, sill), (0.5, sill), (0.5, 0.42), (0.44, 0.52), (0.18, belt), (-0.42, belt), (-0.5, 0.5)]
    cabin = [(-0.44, 0), (0.2, 0), (0.05, 1 - belt), (-0.3, 1 - belt)]
    return [
        (extrude(body, 1.0), PAINT),
        (extrude(cabin, 0.86).moved((0, 0, belt)), GLASS),
        (box(0.34, 0.84, 0.03).moved((-0.125, 0, 0.985)), PAINT),
        (box(0.03, 0.865, 1 - belt).moved((-0.12, 0, belt)), PAINT),
        *_wheels(-0.31, 0.31, across=0.075, up=0.21),
    ]


def _van() -> list[tuple[Mesh, int]]:
    body = [(-0.5, 0.1), (0.5, 0.1), (0.5, 0.42), (0.4, 0.52), (0.28, 1.0), (-0.5, 1.0)]
    window = [(0.4, 0.53), (0.29, 0.95), (0.22, 0.95), (0.22, 0.53)]
    return [
        (extrude(body, 0.98), PAINT),
        (extrude(window, 1.0).moved((0.004, 0, 0)), GLASS),
        *_wheels(-0.32, 0.33, across=0.062, up=0.15),
    ]


def _truck() -> list[tuple[Mesh, int]]:
    return [
        (box(0.74, 1.0, 0.7).moved((-0.13, 0, 0.3)), PAINT),
        (extrude([(0.27, 0.12), (0.5, 0.12), (0.5, 0.45), (0.47, 0.78), (0.27, 0.82)], 0.94), PAINT),
        (box(0.02, 0.8, 0.24).moved((0.492, 0, 0.48)), GLASS),
        (box(0.9, 0.5, 0.14).moved((-0.04, 0, 0.14)), RUBBER),
        *_wheels(-0.38, -0.26, 0.37, across=0.058, up=0.13),
    ]


def _bus() -> list[tuple[Mesh, int]]:
    return [
        (extrude([(-0.5, 0.1), (0.5, 0.1), (0.5, 0.6), (0.48, 1.0), (-0.5, 1.0)], 0.98), PAINT),
        (box(0.9, 1.0, 0.3).moved((0, 0, 0.5)), GLASS),
        (box(0.02, 0.9, 0.4).moved((0.492, 0, 0.42)), GLASS),
        *_wheels(-0.3, 0.32, across=0.042, up=0.16),
    ]


def _pedestrian() -> list[tuple[Mesh, int]]:
    """Mid-stride, along x."""
    leg, arm = cylinder(0.08, 0.85, segments=6), cylinder(0.05, 0.6, segments=6)
    return [
        *((leg.moved((dx, dy, 0.0)), CLOTH) for dx, dy in ((0.12, 0.1), (-0.12, -0.1))),
        (cylinder(0.17, 0.65, top=0.2, segments=8).moved((0, 0, 0.8)), CLOTH),
        *((arm.moved((dx, dy, 0.85)), CLOTH) for dx, dy in ((-0.14, 0.24), (0.14, -0.24))),
        (ellipsoid(0.1, 0.1, 0.13, 8).moved((0.02, 0, 1.46)), CLOTH),
    ]

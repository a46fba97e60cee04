"""A person: a build, clothes and a motion; at any moment its meshes and its joints in the world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorscope.scenes.geometry import Mesh
from priorscope.scenes.materials import Look, Material
from priorscope_pose.skeletons import COCO

from .body import Build, place, random_build
from .flesh import FACE, Outfit, Piece, clothe
from .motion import Motion, random_motion
from .posture import Posture
from .wardrobe import materials, random_outfit

Array = NDArray[np.float64]

JOINTS = (*COCO.keypoints, "head_bottom", "head_top")
"""All joints that a figure has, COCO's first. PoseTrack's 15 are the nose, the last two and the twelve of the limbs."""


@dataclass(frozen=True)
class Placed:
    """A figure at one moment, in the world.

    Attributes
    ----------
    joints : ndarray, (19, 3)
        In the order of `JOINTS`, metres.
    pieces : list of Piece
    head : ndarray, (N, 3)
        Vertices of the head without hair and hat.
    """

    joints: Array
    pieces: list[Piece]
    head: Array


@dataclass(frozen=True)
class Figure:
    """A person who stands at `spot`, (x, y) in metres, when its motion begins."""

    build: Build
    outfit: Outfit
    motion: Motion
    materials: dict[str, Material]
    spot: Array

    def at(self, t: float) -> Placed:
        """Where the figure is at time `t` (seconds): its lowest point is `lift` above the ground."""
        placed = pose(self.build, self.outfit, self.motion.at(t))
        return shifted(placed, np.array([self.spot[0], self.spot[1], 0.0]))


def random_figure(rng: np.random.Generator, look: Look, spot: Array, action: str | None = None) -> Figure:
    build = random_build(rng)
    outfit = random_outfit(rng)
    return Figure(build, outfit, random_motion(rng, action), materials(rng, look), spot)


def pose(build: Build, outfit: Outfit, posture: Posture) -> Placed:
    """A clothed body in a posture, its lowest point on the ground but for the posture's lift."""
    frames = place(build, posture)
    pieces = clothe(build, frames, outfit)
    points = dict(frames.points)
    at, turn = points["neck"], frames.turns["head"]
    points |= {name: build.head * (turn @ mark) + at for name, mark in FACE.items()}
    points["head_bottom"] = at
    joints = np.stack([points[name] for name in JOINTS])
    head = next(piece.mesh.vertices for piece in pieces if piece.part == "head")
    ground = min(float(piece.mesh.vertices[:, 2].min()) for piece in pieces)
    offset = np.array([*posture.travel, posture.lift - ground])
    return shifted(Placed(joints, pieces, head), offset)


def shifted(placed: Placed, offset: Array) -> Placed:
    pieces = [Piece(_moved(piece.mesh, offset), piece.part, piece.role) for piece in placed.pieces]
    return Placed(placed.joints + offset, pieces, placed.head + offset)


def _moved(mesh: Mesh, offset: Array) -> Mesh:
    return Mesh(mesh.vertices + offset, mesh.faces, mesh.uv, mesh.weld)

"""Examples seen mirrored, turned, larger or smaller: one similarity for all agents and boxes of a frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from priorscope.errors import InputError
from priorscope_detection.data.frame import Agent, Frame
from priorscope_detection.data.rigid import Array, move_boxes, move_points


@dataclass(frozen=True)
class Augmentation:
    """How examples are changed; the defaults are CoAlign's.

    Attributes
    ----------
    flip : bool
        Mirror half of them (y to -y).
    rotation : float
        Largest turn, degrees.
    scaling : float
        Lengths become 1 - scaling to 1 + scaling times as long.
    """

    flip: bool = True
    rotation: float = 45.0
    scaling: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.rotation <= 180:
            raise InputError(f"--rotation {self.rotation}", remedy="Use 0 to 180 degrees.")
        if not 0 <= self.scaling < 1:
            raise InputError(f"--scaling {self.scaling}", remedy="Use 0 or more, below 1.")

    def draw(self, generator: np.random.Generator) -> Array:
        """A similarity (4, 4)."""
        mirrored, turn, length = generator.random(), generator.uniform(-1, 1), generator.uniform(-1, 1)
        angle = np.radians(self.rotation * turn)
        similarity = np.eye(4)
        similarity[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        if self.flip and mirrored < 0.5:
            similarity[:, 1] *= -1
        similarity[:3, :3] *= 1 + self.scaling * length
        return similarity


def transformed(frame: Frame, similarity: Array) -> Frame:
    """A frame whose agents and boxes are all seen through a similarity (4, 4) without shift, with z upright.

    Each LiDAR's points are S p, each pose S T S^-1, so that the ways between agents fit the changed clouds; poses of
    mirrored frames are rigid motions too.
    """
    back = np.linalg.inv(similarity)
    length = float(similarity[2, 2])

    def change(agent: Agent) -> Agent:
        return replace(
            agent,
            points=move_points(similarity, agent.points),
            pose=similarity @ agent.pose @ back,
            clean_pose=similarity @ agent.clean_pose @ back,
        )

    boxes = move_boxes(similarity, frame.truth.boxes)
    boxes[:, 3:6] *= length
    return replace(frame.map_agents(change), truth=replace(frame.truth, boxes=boxes))

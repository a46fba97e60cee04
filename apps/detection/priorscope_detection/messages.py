"""Frames as a detector is given them: levelled sweeps, and the true boxes within its range."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope_detection.data.frame import Frame
from priorscope_detection.data.rigid import Array, inverse, move_points
from priorscope_detection.network.batch import AgentSweep, sweeps_of


def planar_part(moves: Array) -> Array:
    """The turn about z and the shift along x and y (..., 4, 4) of rigid motions (..., 4, 4)."""
    yaw = np.arctan2(moves[..., 1, 0], moves[..., 0, 0])
    planar = np.zeros_like(moves)
    planar[..., 0, 0] = planar[..., 1, 1] = np.cos(yaw)
    planar[..., 1, 0], planar[..., 0, 1] = np.sin(yaw), -np.sin(yaw)
    planar[..., 2, 2] = planar[..., 3, 3] = 1
    planar[..., :2, 3] = moves[..., :2, 3]
    return planar


def messages(frame: Frame, *, clean: bool = False, published: bool = False) -> list[AgentSweep]:
    """The sweeps of a frame's agents, the ego's first.

    Bird's-eye-view maps can be turned and shifted in the plane only. So each agent's points are brought to the ego's
    height and levelled by its pose, and what is left of the pose is planar: the two together are the whole motion.

    Parameters
    ----------
    frame : Frame
    clean : bool
        By the clean poses instead of by those told.
    published : bool
        As CoAlign: points stay in the LiDAR's own frame, and height and tilt between agents are lost.
    """
    sweeps = sweeps_of(frame, clean=clean)
    if published:
        return sweeps
    found = []
    for sweep, agent in zip(sweeps, frame.agents, strict=True):
        move = sweep.to_ego.numpy()
        flat = planar_part(move)
        points = torch.from_numpy(move_points(inverse(flat) @ move, agent.points))
        found.append(replace(sweep, points=points, to_ego=torch.from_numpy(flat)))
    return found


def in_range(boxes: Array, extent: tuple[float, ...]) -> NDArray[np.bool_]:
    """Which boxes (N, 7) have their centre within a range seen from above, (N,)."""
    x0, y0, _, x1, y1, _ = extent
    x, y = boxes[:, 0], boxes[:, 1]
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


#: Classes that a detector of vehicles looks for, as data sets call them; nuScenes' begin with ``vehicle.``.
VEHICLES = ("vehicle", "car", "van", "truck", "bus", "trailer", "construction_vehicle", "concretetruck", "cargo_truck")
_TWO_WHEELED = ("bicycle", "motorcycle", "cyclist")


def vehicles_only(frame: Frame) -> Frame:
    """Without people, two-wheelers and things in the truth: what a detector with one class is measured by."""
    keep = [
        (name in VEHICLES or name.startswith("vehicle.")) and not any(word in name for word in _TWO_WHEELED)
        for name in frame.truth.classes
    ]
    return replace(frame, truth=frame.truth.select(np.array(keep, bool)))

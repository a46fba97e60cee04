"""Poses corrected by what several agents see: agent-object pose graph optimisation (Lu et al. 2023, CoAlign).

Each agent finds boxes by itself and sends them. With noisy poses the boxes of one object, brought into one frame, lie
near each other but not on each other. Boxes that lie together are taken for one object; then the poses of agents and
objects that explain all boxes best are found, with the ego's pose held. It needs no recording in common and no map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_detection.data.frame import Frame
from priorscope_detection.data.rigid import Array, half_open, matrix_pose, move_boxes, pose_matrix


@dataclass(frozen=True)
class AgentBoxes:
    """What one agent found by itself, in its own LiDAR frame.

    Attributes
    ----------
    boxes : ndarray, (N, 7)
    spread : ndarray, (N, 3), optional
        Standard deviations of x, y (metres) and yaw (radians), where the detector tells them. Default: 0.3 m, 0.1.
    """

    boxes: Array
    spread: Array | None = None


@dataclass(frozen=True)
class PoseGraphSettings:
    """How objects are found and poses solved for."""

    reach: float = 2.0
    """Boxes of different agents whose centres are at most this far apart (metres) may be one object."""
    turn: float = 0.5
    """And whose yaws differ by at most this (radians), heads and tails not told apart."""
    least: int = 2
    """An agent with fewer objects in common with others keeps its pose."""
    limit: float = 3.0
    """A correction beyond this (metres) is taken for a false match: the pose stays."""
    limit_turn: float = 0.2
    """The same of the yaw, radians."""
    prior_position: float = 1.0
    """Standard deviation that the poses told are credited with, metres: it holds what no object tells."""
    prior_yaw: float = 0.05
    """The same of the yaw, radians."""
    outlier: float = 2.0
    """Residuals beyond so many standard deviations count less (Huber)."""
    iterations: int = 20
    """Gauss-Newton steps at most."""


@dataclass(frozen=True)
class Correction:
    """Poses after the correction, and what it rests on.

    Attributes
    ----------
    poses : ndarray, (A, 4, 4)
        LiDAR to world; the ego's (the first) is as told.
    objects : int
        Objects that at least two agents share.
    shared : ndarray, int, (A,)
        Of how many of them each agent has a box.
    moved : ndarray, bool, (A,)
        Whose pose was corrected.
    """

    poses: Array
    objects: int
    shared: NDArray[np.int64]
    moved: NDArray[np.bool_]


def correct_frame(
    frame: Frame, detections: Sequence[AgentBoxes], settings: PoseGraphSettings | None = None
) -> tuple[Frame, Correction]:
    """The frame with corrected poses; its `AgentBoxes` are in the order of its agents."""
    poses = np.stack([agent.pose for agent in frame.agents])
    correction = correct_poses(poses, detections, settings)
    agents = tuple(replace(agent, pose=pose) for agent, pose in zip(frame.agents, correction.poses, strict=True))
    return replace(frame, agents=agents), correction


def correct_poses(
    poses: Array, detections: Sequence[AgentBoxes], settings: PoseGraphSettings | None = None
) -> Correction:
    """Correct x, y and yaw of all agents but the first, so that their boxes of one object agree.

    Parameters
    ----------
    poses : ndarray, (A, 4, 4)
        As told; height, roll and pitch stay.
    detections : sequence of AgentBoxes, length A
    settings : PoseGraphSettings, optional

    Returns
    -------
    Correction

    Raises
    ------
    InputError
        Lengths differ, or a box, spread or pose is not finite.

    Notes
    -----
    Unknown are (x, y, yaw) of each agent a and object o in the world. A box of a that shows o gives the residual
    (R_a^T (t_o - t_a) - box centre, yaw_o - yaw_a - box yaw) over its spread; yaws are compared up to half a turn,
    since a detector mixes up head and tail. The poses told enter as priors.
    """
    settings = settings or PoseGraphSettings()
    poses = np.asarray(poses, np.float64)
    if len(poses) != len(detections):
        raise InputError(f"{len(poses)} poses and {len(detections)} agents' boxes", remedy="Give one set an agent.")
    if not np.isfinite(poses).all():
        raise InputError("an agent's pose is not finite", remedy="Leave out agents without a pose.")
    told = matrix_pose(poses)
    states = np.column_stack([told[:, 0], told[:, 1], np.radians(told[:, 4])])
    agent, boxes, spread = _flat(detections, told)
    groups = _objects(states, agent, boxes, settings)
    shared = np.zeros(len(poses), np.int64)
    for members in groups:
        shared[agent[members]] += 1
    moved = np.zeros(len(poses), bool)
    moved[1:] = shared[1:] >= settings.least
    if not moved.any():
        return Correction(poses, len(groups), shared, moved)
    solved = _solve(states, agent, boxes, spread, groups, moved, settings)
    step = solved - states
    step[:, 2] = half_open(step[:, 2])
    moved &= (np.hypot(step[:, 0], step[:, 1]) <= settings.limit) & (np.abs(step[:, 2]) <= settings.limit_turn)
    told[moved, 0], told[moved, 1] = solved[moved, 0], solved[moved, 1]
    told[moved, 4] = np.degrees(solved[moved, 2])
    result = poses.copy()
    result[moved] = pose_matrix(told[moved])
    return Correction(result, len(groups), shared, moved)


def _flat(detections: Sequence[AgentBoxes], told: Array) -> tuple[NDArray[np.int64], Array, Array]:
    """Agent (N,), x, y, yaw (N, 3) in its frame made level, and spreads (N, 3) of all boxes."""
    agent = np.repeat(np.arange(len(detections)), [len(one.boxes) for one in detections])
    level = pose_matrix(told * [0, 0, 0, 1, 0, 1])
    boxes = np.concatenate([move_boxes(tilt, one.boxes) for tilt, one in zip(level, detections, strict=True)])
    boxes = boxes[:, [0, 1, 6]]
    usual = np.array([0.3, 0.3, 0.1])
    spread = np.concatenate(
        [np.broadcast_to(usual if d.spread is None else d.spread, (len(d.boxes), 3)) for d in detections]
    )
    if not np.isfinite(boxes).all() or not np.isfinite(spread).all() or (spread <= 0).any():
        raise InputError("a box for the pose graph is not finite, or its spread is not positive")
    return agent, boxes, spread


def _world(states: Array, boxes: Array) -> Array:
    """x, y, yaw in the world of boxes (N, 3) seen from states (N, 3)."""
    c, s = np.cos(states[:, 2]), np.sin(states[:, 2])
    return np.column_stack(
        [
            states[:, 0] + c * boxes[:, 0] - s * boxes[:, 1],
            states[:, 1] + s * boxes[:, 0] + c * boxes[:, 1],
            states[:, 2] + boxes[:, 2],
        ]
    )


def _objects(
    states: Array, agent: NDArray[np.int64], boxes: Array, settings: PoseGraphSettings
) -> list[NDArray[np.int64]]:
    """Groups of boxes, at most one an agent, that lie together in the world.

    Pairs are joined in the order of their distance (single linkage), unless the joint group would hold two boxes of
    one agent: an agent sees an object once.
    """
    if not len(boxes):
        return []
    placed = _world(states[agent], boxes)
    distance = np.hypot(*(placed[:, None, :2] - placed[None, :, :2]).transpose(2, 0, 1))
    turned = np.abs(half_open(placed[:, None, 2] - placed[None, :, 2], np.pi))
    near = (distance <= settings.reach) & (turned <= settings.turn) & (agent[:, None] < agent[None, :])
    first, second = np.nonzero(near)
    group = np.arange(len(boxes))
    members = {number: [number] for number in range(len(boxes))}
    for pair in np.argsort(distance[first, second], kind="stable"):
        one, other = group[first[pair]], group[second[pair]]
        if one == other or set(agent[members[one]]) & set(agent[members[other]]):
            continue
        members[one] += members.pop(other)
        group[members[one]] = one
    return [np.array(sorted(rows)) for rows in members.values() if len(rows) > 1]


def _solve(
    states: Array,
    agent: NDArray[np.int64],
    boxes: Array,
    spread: Array,
    groups: list[NDArray[np.int64]],
    free: NDArray[np.bool_],
    settings: PoseGraphSettings,
) -> Array:
    """Gauss-Newton with Huber weights over the free agents and all objects; agents' states (A, 3)."""
    rows = np.concatenate(groups)
    thing = np.repeat(np.arange(len(groups)), [len(members) for members in groups])
    viewer, seen, sigma = agent[rows], boxes[rows], spread[rows]
    count = int(free.sum())
    column = np.full(len(states), -1)
    column[free] = np.arange(count)
    x = states.copy()
    placed = _world(x[viewer], seen)
    first = np.array([np.flatnonzero(thing == number)[0] for number in range(len(groups))])
    objects = placed[first]  # mean place, and the first one's yaw: the others may be half a turn off
    for number in range(len(groups)):
        objects[number, :2] = placed[thing == number, :2].mean(axis=0)
    unknowns, rows_of = 3 * (count + len(groups)), np.arange(3 * len(seen)).reshape(-1, 3)
    told = np.array([settings.prior_position, settings.prior_position, settings.prior_yaw])
    for _ in range(settings.iterations):
        residual, by_agent, by_object = _residual(x[viewer], objects[thing], seen)
        jacobian = np.zeros((3 * len(seen), unknowns))
        loose = free[viewer]
        at = 3 * column[viewer[loose]][:, None] + np.arange(3)
        jacobian[rows_of[loose][:, :, None], at[:, None, :]] = by_agent[loose]
        at = 3 * (count + thing)[:, None] + np.arange(3)
        jacobian[rows_of[:, :, None], at[:, None, :]] = by_object
        scaled = residual / sigma
        far = np.sqrt(np.einsum("nk,nk->n", scaled, scaled))
        weight = np.sqrt(np.minimum(1.0, settings.outlier / np.maximum(far, 1e-12)))[:, None] / sigma
        jacobian *= weight.reshape(-1, 1)
        wanted = -(weight * residual).ravel()
        # what the poses told say of the free agents
        kept = np.zeros((3 * count, unknowns))
        kept[:, : 3 * count] = np.diag(np.tile(1 / told, count))
        off = ((states[free] - x[free]) / told).ravel()
        step = np.linalg.lstsq(np.concatenate([jacobian, kept]), np.concatenate([wanted, off]), rcond=None)[0]
        x[free] += step[: 3 * count].reshape(-1, 3)
        objects += step[3 * count :].reshape(-1, 3)
        if np.abs(step).max() < 1e-6:
            break
    return x


def _residual(viewer: Array, thing: Array, box: Array) -> tuple[Array, Array, Array]:
    """What boxes are off, (N, 3), and the derivatives by the viewers' and the objects' states, (N, 3, 3) each."""
    c, s = np.cos(viewer[:, 2]), np.sin(viewer[:, 2])
    back = np.stack([np.stack([c, s], axis=-1), np.stack([-s, c], axis=-1)], axis=1)
    local = np.einsum("nij,nj->ni", back, thing[:, :2] - viewer[:, :2])
    turn = half_open(thing[:, 2] - viewer[:, 2] - box[:, 2], np.pi)
    residual = np.column_stack([local - box[:, :2], turn])
    by_agent, by_object = np.zeros((len(box), 3, 3)), np.zeros((len(box), 3, 3))
    by_agent[:, :2, :2], by_agent[:, 0, 2], by_agent[:, 1, 2], by_agent[:, 2, 2] = -back, local[:, 1], -local[:, 0], -1
    by_object[:, :2, :2], by_object[:, 2, 2] = back, 1
    return residual, by_agent, by_object

"""One moment as several agents see it: points, poses, and the boxes that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_detection.data.rigid import Array, count_in_boxes, inverse, move_boxes, move_points

Kind = Literal["vehicle", "infrastructure"]


@dataclass(frozen=True)
class Agent:
    """What one agent measured.

    Attributes
    ----------
    name : str
        As the data set names it.
    points : ndarray, float32, (N, 4)
        x, y, z (metres, the agent's LiDAR frame), intensity.
    pose : ndarray, float64, (4, 4)
        LiDAR frame to world, as the agent tells it; `noise` disturbs it.
    clean_pose : ndarray, float64, (4, 4)
        The same without error; of the moment of the sweep.
    kind : {"vehicle", "infrastructure"}
    delay : float
        Age of sweep and pose, milliseconds.
    dropped : int
        Points of the file that were not finite.
    """

    name: str
    points: NDArray[np.float32]
    pose: Array
    clean_pose: Array
    kind: Kind = "vehicle"
    delay: float = 0.0
    dropped: int = 0


@dataclass(frozen=True)
class Truth:
    """The boxes of a moment in the ego's LiDAR frame (its clean pose).

    Attributes
    ----------
    ids : tuple of str, length M
        One object has one id whoever saw it.
    boxes : ndarray, float64, (M, 7)
        x, y, z of the centre, l, w, h (metres), yaw (radians).
    classes : tuple of str, length M
        The data set's word, lower case.
    listed_by : tuple of frozenset of str, length M or 0
        The agents in whose lists each is; empty where one list is of all agents.
    """

    ids: tuple[str, ...]
    boxes: Array
    classes: tuple[str, ...]
    listed_by: tuple[frozenset[str], ...] = ()

    @staticmethod
    def of(rows: Mapping[str, tuple[Array, str]], listed_by: Mapping[str, Iterable[str]] | None = None) -> Truth:
        """From box and class by id, and who lists it."""
        boxes = np.array([box for box, _ in rows.values()], dtype=np.float64).reshape(-1, 7)
        lists = () if listed_by is None else tuple(frozenset(listed_by[identity]) for identity in rows)
        return Truth(tuple(rows), boxes, tuple(name for _, name in rows.values()), lists)

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, mask: NDArray[np.bool_]) -> Truth:
        """Those of a mask, (M,)."""
        keep = np.flatnonzero(mask)
        return Truth(
            tuple(self.ids[k] for k in keep),
            self.boxes[keep].reshape(-1, 7),
            tuple(self.classes[k] for k in keep),
            tuple(self.listed_by[k] for k in keep) if self.listed_by else (),
        )


@dataclass(frozen=True)
class Frame:
    """A moment: agents, the first of which is the ego, and the truth.

    Attributes
    ----------
    name : str
        Identifies the frame in its data set, such as ``scenario/000068``; noise derives from it.
    agents : tuple of Agent
    truth : Truth
    """

    name: str
    agents: tuple[Agent, ...]
    truth: Truth

    @property
    def ego(self) -> Agent:
        return self.agents[0]

    def to_ego(self, *, clean: bool = False) -> Array:
        """From each agent's LiDAR frame to the ego's, (A, 4, 4), by the poses told or by the clean ones.

        Raises
        ------
        InputError
            The frame has no agent.
        """
        if not self.agents:
            raise InputError(f"frame {self.name} has no agent", remedy="The first agent is the ego.")
        poses = np.stack([agent.clean_pose if clean else agent.pose for agent in self.agents])
        return inverse(poses[0]) @ poses

    def merged_points(self, *, clean: bool = False) -> NDArray[np.float32]:
        """All points in the ego's frame, (N, 4): what early fusion sees."""
        moves = self.to_ego(clean=clean)
        return np.concatenate([move_points(move, agent.points) for move, agent in zip(moves, self.agents, strict=True)])

    def points_in_boxes(self) -> NDArray[np.int64]:
        """How many points each agent has in each true box, (A, M), by the clean poses.

        A delayed agent's points are counted where they were measured.
        """
        rows = [
            count_in_boxes(move_points(move, agent.points), self.truth.boxes)
            for move, agent in zip(self.to_ego(clean=True), self.agents, strict=True)
        ]
        return np.stack(rows)

    def within(self, reach: float) -> Frame:
        """Without agents further from the ego than `reach` metres (clean poses, in the plane): out of radio range.

        The truth is then without what only these list, as in OpenCOOD's evaluation.
        """
        away = [np.hypot(*(agent.clean_pose[:2, 3] - self.ego.clean_pose[:2, 3])) for agent in self.agents]
        near = tuple(agent for agent, far in zip(self.agents, away, strict=True) if far <= reach)
        lost = {agent.name for agent in self.agents} - {agent.name for agent in near}
        truth = self.truth
        if lost and truth.listed_by:
            truth = truth.select(np.array([not agents <= lost for agents in truth.listed_by], bool))
        return replace(self, agents=near, truth=truth)

    def with_ego(self, name: str) -> Frame:
        """Seen from another agent: it comes first, and the truth is in its frame.

        Raises
        ------
        InputError
            No agent has that name.
        """
        chosen = next((agent for agent in self.agents if agent.name == name), None)
        if chosen is None:
            have = ", ".join(agent.name for agent in self.agents)
            raise InputError(f"frame {self.name} has no agent {name!r}", remedy=f"There are {have}.")
        move = inverse(chosen.clean_pose) @ self.ego.clean_pose
        truth = replace(self.truth, boxes=move_boxes(move, self.truth.boxes))
        return replace(self, agents=(chosen, *(a for a in self.agents if a is not chosen)), truth=truth)

    def map_agents(self, change: Callable[[Agent], Agent]) -> Frame:
        """With each agent changed."""
        return replace(self, agents=tuple(change(agent) for agent in self.agents))


class Frames(Protocol):
    """A data set: frames by number, read when asked for.

    Attributes
    ----------
    title : str
    period : float
        Milliseconds from one frame of a sequence to the next.
    single : bool
        Whether each frame has one agent: noise of poses and delays then change nothing.
    """

    title: str
    period: float
    single: bool

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The frame's name, without reading it."""
        ...

    def sequence(self, index: int) -> str:
        """The recording that a frame belongs to: delays stay within it, and splits should not cut it."""
        ...

    def read(self, index: int, *, delay: float = 0.0) -> Frame:
        """The frame; all agents but the ego with sweep and pose of `delay` milliseconds before."""
        ...


def delay_steps(delay: float, period: float) -> int:
    """Whole frames of a delay in milliseconds.

    Raises
    ------
    InputError
        It is negative or lies between two frames.
    """
    steps = delay / period
    if not np.isfinite(delay) or delay < 0 or abs(steps - round(steps)) > 1e-6:
        raise InputError(
            f"a delay of {delay:g} ms is no whole number of frames",
            remedy=f"The frames are {period:g} ms apart: give 0, {period:g}, {2 * period:g} ...",
        )
    return round(steps)

"""An expert for Push-T: it tries a fan of pushes in the physics, goes around the block to the best one, and does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.graph import MCP_Geometric

from priorscope_robotics.envs.pusht import GOAL, PushT

Points = NDArray[np.float64]
#: Radius of the finger, and the square in which its centre stays, in pixels of 512.
_FINGER, _LOW, _HIGH = 15.0, 22.0, 490.0
#: Side of a cell of the grid on which ways are sought.
_CELL = 8.0


@dataclass(frozen=True)
class PlannerSettings:
    """How the planner moves; lengths in pixels of 512, steps of a tenth of a second."""

    contacts: int = 4
    """Places on each edge of the block that a push is tried from."""
    fan: float = 0.35
    """Radians to either side of the edge's normal that a push is tried along."""
    pushed: int = 14
    """Longest push, in steps."""
    executed: int = 4
    """Steps of a push that are done before it plans anew."""
    pace: float = 14.0
    """A step of a push, at most; near the goal it is shorter."""
    walk: float = 22.0
    """A step on the way to a push."""


@dataclass(frozen=True)
class _Push:
    gain: float
    targets: Points
    #: Where it begins; None: where the finger is.
    beside: Points | None = None


class PushTPlanner:
    """Model-predictive control on a copy of the physics, over a fan of pushes without chance in it.

    Tried are pushes from places on each edge along its normal and a little to either side, and, while the finger
    pushes, to go on in such directions. The one is chosen that brings the block's corners nearest to their places for
    the steps it takes, the way there counted. The same state gives the same choice (while it pushes: with the
    same last target), so that the demonstrations are easily learnt from.

    Parameters
    ----------
    settings : PlannerSettings
    seed : int
        Of the push that is tried where none helps.
    """

    def __init__(self, settings: PlannerSettings | None = None, seed: int = 0) -> None:
        self.settings = settings or PlannerSettings()
        self._random = np.random.default_rng(seed)
        self._copy = PushT(["state"])
        self._copy.set_state([*GOAL[:2], *GOAL])
        self._goal = _corners_at(self._copy.physics, GOAL)
        self._edges = _outline(self._copy.physics)
        self.begin()

    def begin(self) -> None:
        """Forget the last plan: a new episode."""
        self._queue: list[Points] = []
        self._last: Points | None = None

    def act(self, environment: PushT) -> NDArray[np.float32]:
        """Where the finger should go next, in pixels."""
        if not self._queue:
            self._queue = self._plan(environment.physics)
        target = self._queue.pop(0)
        self._last = target
        return target.astype(np.float32)

    def _plan(self, physics: Any) -> list[Points]:
        state = _snapshot(physics)
        agent, error = np.array(physics.agent.position), self._distance(physics)
        block, angle = np.array(physics.block.position), float(physics.block.angle)
        ways = _Ways(block, angle, agent)
        pushes = [self._going_on(state, agent, error)] if self._pushing(block, angle, agent) else []
        pushes += [self._push(state, beside, inward, error, ways) for beside, inward in self._places(block, angle)]
        best = max(pushes, key=lambda push: push.gain)
        if best.gain <= 1e-3:  # nothing helps: any push, then think again
            best = pushes[int(self._random.integers(len(pushes)))]
        steps = list(best.targets[: self.settings.executed])
        if best.beside is None:
            return steps
        way = _paced(ways.to(best.beside), self.settings.walk)
        # the finger follows late: it stands before it pushes
        return [*way, best.beside, best.beside, *steps]

    def _pushing(self, block: Points, angle: float, agent: Points) -> bool:
        return self._last is not None and bool(_clearance(agent[None], block, angle)[0] < _FINGER + 6)

    def _going_on(self, state: dict[str, Any], agent: Points, error: float) -> _Push:
        """On from where the finger is, in a few directions around the last one."""
        assert self._last is not None
        ahead = self._last - agent
        length = float(np.linalg.norm(ahead))
        if length < 1:
            return _Push(0.0, agent[None])
        turns = np.linspace(-2, 2, 5) * self.settings.fan / 2
        found = [self._tried(state, None, self._last, _turned(ahead / length, turn), error, 0.0) for turn in turns]
        return max(found, key=lambda push: push.gain)

    def _push(self, state: dict[str, Any], beside: Points, inward: Points, error: float, ways: _Ways) -> _Push:
        steps = ways.length(beside) / self.settings.walk + 2
        turns = (-self.settings.fan, 0.0, self.settings.fan)
        found = [self._tried(state, beside, beside, _turned(inward, turn), error, steps) for turn in turns]
        return max(found, key=lambda push: push.gain)

    def _tried(
        self, state: dict[str, Any], beside: Points | None, begin: Points, way: Points, error: float, before: float
    ) -> _Push:
        """A push in the copy: as far as it helps most for its steps."""
        pace = float(np.clip(error / 3, 4.0, self.settings.pace))
        targets = np.clip(begin + pace * np.arange(1, self.settings.pushed + 1)[:, None] * way, _LOW, _HIGH)
        physics = self._copy.physics
        _restore(physics, state if beside is None else state | {"agent": (tuple(beside), (0.0, 0.0))})
        best, steps = -np.inf, 1
        for index, target in enumerate(targets):
            _advance(physics, target)
            after = self._distance(physics)
            gain = (error - after) / (before + index + 3)
            if gain > best:
                best, steps = gain, index + 1
            if after > error + 20:
                break
        return _Push(best, targets[:steps], beside)

    def _places(self, block: Points, angle: float) -> list[tuple[Points, Points]]:
        """Where a push may begin, and the way in; those that the finger cannot reach are left out."""
        shares = (np.arange(self.settings.contacts) + 0.5) / self.settings.contacts
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        found = []
        for a, b, outward in self._edges:
            for share in shares:
                beside = block + turn @ (a + share * (b - a) + (_FINGER + 3) * outward)
                free = _clearance(beside[None], block, angle)[0] > _FINGER + 1
                if free and np.all((beside > _LOW) & (beside < _HIGH)):
                    found.append((beside, -(turn @ outward)))
        return found

    def _distance(self, physics: Any) -> float:
        return float(np.linalg.norm(_corners(physics) - self._goal, axis=1).mean())


class _Ways:
    """Ways of the finger around the block, on a grid; near the block they are dear."""

    def __init__(self, block: Points, angle: float, agent: Points) -> None:
        self._side = np.arange(_LOW, _HIGH + 1, _CELL)
        x, y = np.meshgrid(self._side, self._side, indexing="ij")
        points = np.stack([x, y], -1).reshape(-1, 2)
        clear = _clearance(points, block, angle).reshape(x.shape)
        costs = np.where(clear < _FINGER + 3, 40.0, np.where(clear < _FINGER + 14, 2.0, 1.0))
        self._agent = agent
        self._search = MCP_Geometric(costs)
        self._costs, _ = self._search.find_costs([self._cell(agent)])

    def length(self, end: Points) -> float:
        """Pixels to ``end``, more where it is narrow."""
        return float(self._costs[self._cell(end)]) * _CELL

    def to(self, end: Points) -> Points:
        """From the finger to ``end``, (N, 2)."""
        cells = self._search.traceback(self._cell(end))
        return np.array([self._agent, *(self._side[list(cell)] for cell in cells[1:-1]), end])

    def _cell(self, point: Points) -> tuple[int, int]:
        cell = np.clip(np.rint((point - _LOW) / _CELL), 0, len(self._side) - 1).astype(int)
        return int(cell[0]), int(cell[1])


def _paced(way: Points, pace: float) -> list[Points]:
    """Points on a way, ``pace`` apart; the last is its end."""
    along = np.concatenate([[0.0], np.linalg.norm(np.diff(way, axis=0), axis=1).cumsum()])
    count = max(1, round(float(along[-1]) / pace))
    places = np.linspace(0, along[-1], count + 1)[1:]
    return list(np.stack([np.interp(places, along, way[:, 0]), np.interp(places, along, way[:, 1])], -1))


def _turned(vector: Points, angle: float) -> Points:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([cos * vector[0] - sin * vector[1], sin * vector[0] + cos * vector[1]])


#: The two rectangles of the block, in its own frame: lower and upper corner.
_BOXES = np.array([[[-60.0, 0.0], [60.0, 30.0]], [[-15.0, 30.0], [15.0, 120.0]]])


def _clearance(points: Points, block: Points, angle: float) -> Points:
    """Distance (N,) of points (N, 2) to the block's outline; negative within."""
    cos, sin = np.cos(angle), np.sin(angle)
    own = (points - block) @ np.array([[cos, -sin], [sin, cos]])
    middle, half = _BOXES.mean(1), (_BOXES[:, 1] - _BOXES[:, 0]) / 2
    over = np.abs(own[:, None] - middle) - half
    outside = np.linalg.norm(np.maximum(over, 0), axis=-1)
    return (outside + np.minimum(over.max(-1), 0)).min(1)


def _outline(physics: Any) -> list[tuple[Points, Points, Points]]:
    """The edges of the block that can be touched, in its own frame: both ends and the way out."""
    shapes = [np.array(shape.get_vertices(), np.float64) for shape in physics._block_shapes]
    found = []
    for corners in shapes:
        for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
            outward = np.array([b[1] - a[1], a[0] - b[0]]) / np.linalg.norm(b - a)
            if outward @ ((a + b) / 2 - corners.mean(0)) < 0:
                outward = -outward
            found.append((a, b, outward))
    return found


def _corners(physics: Any) -> Points:
    block = physics.block
    points = [block.local_to_world(vertex) for shape in physics._block_shapes for vertex in shape.get_vertices()]
    return np.array([tuple(point) for point in points])


def _corners_at(physics: Any, pose: tuple[float, float, float]) -> Points:
    body = physics.get_goal_pose_body(np.array(pose))
    points = [body.local_to_world(vertex) for shape in physics._block_shapes for vertex in shape.get_vertices()]
    return np.array([tuple(point) for point in points])


def _snapshot(physics: Any) -> dict[str, Any]:
    agent, block = physics.agent, physics.block
    return {
        "agent": (tuple(agent.position), tuple(agent.velocity)),
        "block": (tuple(block.position), block.angle, tuple(block.velocity), block.angular_velocity),
    }


def _restore(physics: Any, state: dict[str, Any]) -> None:
    agent, block = physics.agent, physics.block
    agent.position, agent.velocity = state["agent"]
    # the angle first: turning moves the position where that is not the centre of gravity
    position, block.angle, block.velocity, block.angular_velocity = state["block"]
    block.position = position
    physics.space.reindex_shapes_for_body(agent)
    physics.space.reindex_shapes_for_body(block)


def _advance(physics: Any, action: NDArray[np.float64]) -> None:
    """One control step, without what gym-pusht measures at its end."""
    x, y = float(action[0]), float(action[1])
    agent, dt = physics.agent, physics.dt
    for _ in range(int(1 / (dt * physics.control_hz))):
        (px, py), (vx, vy) = agent.position, agent.velocity
        ax, ay = physics.k_p * (x - px) - physics.k_v * vx, physics.k_p * (y - py) - physics.k_v * vy
        agent.velocity = vx + ax * dt, vy + ay * dt
        physics.space.step(dt)

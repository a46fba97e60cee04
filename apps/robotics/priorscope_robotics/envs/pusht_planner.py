"""An expert for Push-T: it tries pushes in the physics and does the best one for a while, then tries again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope_robotics.envs.pusht import GOAL, PushT


@dataclass(frozen=True)
class PlannerSettings:
    """How hard the planner tries."""

    samples: int = 64
    """Plans that are tried each time."""
    horizon: int = 8
    """Actions of a plan."""
    executed: int = 2
    """Actions that are done before it plans anew."""
    reach: float = 90.0
    """How far from the block's centre pushes begin, pixels."""
    spread: float = 20.0
    """Deviation by which the last best plan is varied, pixels."""


class PushTPlanner:
    """Sampling model-predictive control on a copy of the physics.

    A third of the plans vary the last best one, the others go to a random place by the block and push from there. The
    cost is the mean distance of the block's corners from where they should be, at the end, plus a little for the way.

    Parameters
    ----------
    settings : PlannerSettings
    seed : int
    """

    def __init__(self, settings: PlannerSettings | None = None, seed: int = 0) -> None:
        self.settings = settings or PlannerSettings()
        self._random = np.random.default_rng(seed)
        self._copy = PushT(["state"])
        self._copy.set_state([*GOAL[:2], *GOAL])
        self._goal = _corners_at(self._copy.physics, GOAL)
        self._last: NDArray[np.float64] | None = None
        self._queue: list[NDArray[np.float64]] = []

    def begin(self) -> None:
        """Forget the last plan: a new episode."""
        self._last, self._queue = None, []

    def act(self, environment: PushT) -> NDArray[np.float32]:
        """Where the finger should go next."""
        if not self._queue:
            plan = self._best(environment.physics)
            done = self.settings.executed
            self._queue = list(plan[:done])
            self._last = np.concatenate([plan[done:], np.repeat(plan[-1:], done, 0)])
        return self._queue.pop(0).astype(np.float32)

    def _best(self, physics: Any) -> NDArray[np.float64]:
        state = _snapshot(physics)
        plans = self._proposals(physics)
        costs = [self._cost(state, plan) for plan in plans]
        return plans[int(np.argmin(costs))]

    def _proposals(self, physics: Any) -> list[NDArray[np.float64]]:
        choose, settings = self._random, self.settings
        agent = np.array(physics.agent.position)
        centre = np.array(physics.block.local_to_world(physics.block.center_of_gravity))
        plans = [np.repeat(agent[None], settings.horizon, 0)]
        if self._last is not None:
            plans.append(self._last)
        while len(plans) < settings.samples:
            if self._last is not None and choose.random() < 1 / 3:
                drift = choose.normal(0, settings.spread, (settings.horizon, 2)).cumsum(0) / 2
                plans.append(np.clip(self._last + drift, 10, 500))
                continue
            if choose.random() < 0.5:  # push on from here
                start, way = agent, 0
            else:
                angle, radius = choose.uniform(0, 2 * np.pi), settings.reach * choose.uniform(0.4, 1.2)
                start = centre + radius * np.array([np.cos(angle), np.sin(angle)])
                way = int(choose.integers(1, settings.horizon - 1))
            target = centre + choose.normal(0, 40, 2) - start
            push = start + target / max(float(np.linalg.norm(target)), 1e-6) * choose.uniform(20, 160)
            first = np.linspace(agent, start, way + 1)[1:]
            rest = np.linspace(start, push, settings.horizon - way + 1)[1:]
            plans.append(np.clip(np.concatenate([first, rest]), 10, 500))
        return plans

    def _cost(self, state: dict[str, Any], plan: NDArray[np.float64]) -> float:
        physics = self._copy.physics
        _restore(physics, state)
        total = 0.0
        for place, action in enumerate(plan):
            _advance(physics, action)
            if place % 2:
                total += 0.1 * self._distance(physics)
        return total + self._distance(physics) + 0.02 * _gap(physics)

    def _distance(self, physics: Any) -> float:
        return float(np.linalg.norm(_corners(physics) - self._goal, axis=1).mean())


def _corners(physics: Any) -> NDArray[np.float64]:
    block = physics.block
    points = [block.local_to_world(vertex) for shape in physics._block_shapes for vertex in shape.get_vertices()]
    return np.array([tuple(point) for point in points])


def _corners_at(physics: Any, pose: tuple[float, float, float]) -> NDArray[np.float64]:
    body = physics.get_goal_pose_body(np.array(pose))
    points = [body.local_to_world(vertex) for shape in physics._block_shapes for vertex in shape.get_vertices()]
    return np.array([tuple(point) for point in points])


def _gap(physics: Any) -> float:
    """Pixels between the finger and the block's centre of gravity."""
    block = physics.block
    return float((physics.agent.position - block.local_to_world(block.center_of_gravity)).length)


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

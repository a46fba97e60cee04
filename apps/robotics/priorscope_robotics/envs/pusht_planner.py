"""An expert for Push-T: it tries pushes in the physics and does the best one for a while, then tries again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope_robotics.envs.pusht import GOAL, PushT


@dataclass(frozen=True)
class PlannerSettings:
    """How hard the planner tries."""

    samples: int = 64
    """Plans that are tried each time."""
    horizon: int = 10
    """Actions of a plan."""
    executed: int = 3
    """Actions that are done before it plans anew."""
    varied: float = 0.3
    """Share of the plans that vary the last best one."""


class PushTPlanner:
    """Sampling model-predictive control on a copy of the physics.

    Most plans go to a place beside the block and push from there towards where that part of the block should be; the
    others vary the last best plan. The cost is the mean distance of the block's corners from their places.

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
        self._stuck = 0

    def begin(self) -> None:
        """Forget the last plan: a new episode."""
        self._last, self._queue, self._stuck = None, [], 0

    def act(self, environment: PushT) -> NDArray[np.float32]:
        """Where the finger should go next."""
        if not self._queue:
            physics = environment.physics
            error = self._distance(physics)
            plan, cost = self._best(physics, error)
            stuck = cost > 0.98 * error
            self._stuck = self._stuck + 1 if stuck else 0
            # a long way round is worth going only to its end
            done = len(plan) if self._stuck else self.settings.executed
            self._queue = list(plan[:done])
            rest = np.concatenate([plan[done:], np.repeat(plan[-1:], self.settings.horizon, 0)])
            self._last = None if stuck else rest[: self.settings.horizon]
        return self._queue.pop(0).astype(np.float32)

    def _best(self, physics: Any, error: float) -> tuple[NDArray[np.float64], float]:
        state = _snapshot(physics)
        plans = self._proposals(physics, error)
        costs = np.array([self._cost(state, plan) for plan in plans])
        chosen = int(np.argmin(costs))
        if self._stuck > 2:  # nothing helps: move the block a little, at random
            chosen = int(self._random.choice(np.argsort(costs)[: max(1, len(plans) // 4)]))
        return plans[chosen], float(costs[chosen])

    def _proposals(self, physics: Any, error: float) -> list[NDArray[np.float64]]:
        choose, settings = self._random, self.settings
        agent = np.array(physics.agent.position)
        plans: list[NDArray[np.float64]] = []
        if self._last is not None:
            plans.append(self._last)
            for _ in range(int(settings.varied * settings.samples)):
                steps = choose.normal(0, 2 + min(error, 60) / 6, (settings.horizon, 2))
                plans.append(np.clip(self._last + steps.cumsum(0) / 2, 10, 500))
        horizon = settings.horizon * (2 if self._stuck else 1)
        while len(plans) < settings.samples:
            plans.append(self._push(physics, agent, error, horizon))
        return plans

    def _push(self, physics: Any, agent: NDArray[np.float64], error: float, horizon: int) -> NDArray[np.float64]:
        """Go to a place beside the block, around it where it is in the way, and push."""
        choose = self._random
        point, outward, home = self._surface(physics)
        beside = point + outward * choose.uniform(17, 30)
        direction = home - point + choose.normal(0, 3 + 0.2 * error, 2)
        length = float(np.linalg.norm(direction))
        inward = -outward if choose.random() < 0.5 or length < 1e-6 else direction / length
        end = point + inward * (length * choose.uniform(0.3, 1.3) - 15)  # the finger has a radius of 15
        way = [agent]
        centre = np.array(physics.block.local_to_world(physics.block.center_of_gravity))
        if _passes(agent, beside, centre, 75):
            aside = beside - agent
            across = np.array([-aside[1], aside[0]]) / max(float(np.linalg.norm(aside)), 1e-6)
            way.append(centre + across * choose.choice([-1, 1]) * choose.uniform(90, 130))
        way.append(beside)
        paces = [max(1, round(float(np.linalg.norm(b - a)) / 60)) for a, b in pairwise(way)]
        points = [np.linspace(a, b, count + 1)[1:] for (a, b), count in zip(pairwise(way), paces, strict=True)]
        left = max(horizon - sum(paces), 1)
        pace = min(left, max(1, int(choose.integers(1, 5))))
        points.append(np.linspace(beside, end, pace + 1)[1:])
        plan = np.concatenate(points)[:horizon]
        plan = np.concatenate([plan, np.repeat(plan[-1:], horizon - len(plan), 0)])
        return np.clip(plan, 10, 500)

    def _surface(self, physics: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """A point of the block's outline, the way out there, and where that point should be."""
        corners = _corners(physics).reshape(2, 4, 2)
        goals = self._goal.reshape(2, 4, 2)
        best: tuple[float, Any] = (-np.inf, None)
        for _ in range(3):  # of three, the one whose push goes most nearly its way
            part, edge, share = self._random.integers(2), self._random.integers(4), self._random.random()
            a, b = corners[part, edge], corners[part, (edge + 1) % 4]
            point = a + share * (b - a)
            home = goals[part, edge] + share * (goals[part, (edge + 1) % 4] - goals[part, edge])
            outward = np.array([b[1] - a[1], a[0] - b[0]])
            outward = outward / max(float(np.linalg.norm(outward)), 1e-6)
            if outward @ (point - corners[part].mean(0)) < 0:
                outward = -outward
            value = float(-outward @ (home - point))
            if value > best[0]:
                best = value, (point, outward, home)
        return best[1]

    def _cost(self, state: dict[str, Any], plan: NDArray[np.float64]) -> float:
        physics = self._copy.physics
        _restore(physics, state)
        for action in plan:
            _advance(physics, action)
        return self._distance(physics) + 0.01 * _gap(physics)

    def _distance(self, physics: Any) -> float:
        return float(np.linalg.norm(_corners(physics) - self._goal, axis=1).mean())


def _passes(a: NDArray[np.float64], b: NDArray[np.float64], centre: NDArray[np.float64], radius: float) -> bool:
    """Whether the way from a to b comes nearer to the centre than that."""
    along = b - a
    share = np.clip((centre - a) @ along / max(float(along @ along), 1e-9), 0, 1)
    return float(np.linalg.norm(a + share * along - centre)) < radius


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

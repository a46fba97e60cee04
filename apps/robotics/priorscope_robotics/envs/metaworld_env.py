"""Meta-World's tasks, from states, with their scripted experts."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_robotics.envs.environment import Environment, Outcome, Seen, check_names


class MetaworldEnvironment(Environment):
    """A task with its goal in the observation: ``obs`` (39 numbers). Actions: dx, dy, dz, gripper, each in [-1, 1].

    Parameters
    ----------
    task : str
        ``pick-place`` or ``pick-place-v3``.
    names : sequence of str
        ``obs`` is all there is.
    max_steps : int
        200 is enough for the experts; the task itself allows 500.
    """

    def __init__(self, task: str, names: Sequence[str] = (), *, max_steps: int = 200) -> None:
        os.environ.setdefault("MUJOCO_GL", "disabled")
        from metaworld import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

        self.task = task if task.endswith("-v3") else f"{task}-v3"
        known = [name.removesuffix("-goal-observable") for name in ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE]
        if self.task not in known:
            close = difflib.get_close_matches(self.task, known, 3)
            raise InputError(
                f"Meta-World has no task {task!r}", remedy=f"Did you mean {' or '.join(close or known[:1])}?"
            )
        self.name = f"metaworld:{self.task.removesuffix('-v3')}"
        self.names = check_names(names, ("obs",), self.name)
        self._env: Any = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{self.task}-goal-observable"](seed=0)
        self._env._freeze_rand_vec = False
        self._env.seeded_rand_vec = True
        self.fps, self.max_steps, self.action_dim = 1 / float(self._env.dt), max_steps, 4
        self.low, self.high = np.full(4, -1, np.float32), np.ones(4, np.float32)
        self._steps = 0

    def reset(self, seed: int) -> Seen:
        self._env.seed(seed)
        observation, _ = self._env.reset()
        self._steps = 0
        return {"obs": np.asarray(observation, np.float32)}

    def advance(self, action: NDArray[np.float32]) -> Outcome:
        observation, reward, _, truncated, info = self._env.step(action)
        self._steps += 1
        success = bool(info["success"])
        done = success or bool(truncated) or self._steps >= self.max_steps
        # the score of an episode is the best reward, of which 10 is all there is
        return Outcome({"obs": np.asarray(observation, np.float32)}, float(reward) / 10, success, done)

    def close(self) -> None:
        self._env.close()


class MetaworldExpert:
    """The scripted policy that comes with a task.

    Parameters
    ----------
    task : str
        As of :class:`MetaworldEnvironment`.
    """

    def __init__(self, task: str) -> None:
        from metaworld.policies import ENV_POLICY_MAP

        self.policy = ENV_POLICY_MAP[task if task.endswith("-v3") else f"{task}-v3"]()

    def act(self, environment: MetaworldEnvironment, seen: Seen) -> NDArray[np.float32]:
        """Its action for an observation, within the limits."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that its gains may leave the limits
            action = self.policy.get_action(seen["obs"].astype(np.float64))
        return np.clip(np.asarray(action, np.float32), environment.low, environment.high)

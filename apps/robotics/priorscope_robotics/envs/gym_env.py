"""Any environment of gymnasium with a box of actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_robotics.envs.environment import Environment, Outcome, Seen, check_names


class GymEnvironment(Environment):
    """Its observation is ``obs`` where it is one array, and named as its dictionary names it otherwise.

    Parameters
    ----------
    source : str or gymnasium.Env
        An id (``module:id`` imports the module first), or an environment.
    names : sequence of str
    max_steps : int, optional
        Where the environment sets no limit: 1000.

    Notes
    -----
    Success is what ``info`` calls ``success`` or ``is_success``, and otherwise that the episode was terminated, not cut
    off, by a reward above 0.
    """

    def __init__(self, source: Any, names: Sequence[str] = (), *, max_steps: int | None = None) -> None:
        import gymnasium

        if isinstance(source, str):
            try:
                self._env: Any = gymnasium.make(source, render_mode="rgb_array")
            except (gymnasium.error.Error, ModuleNotFoundError, TypeError) as error:
                reason = " ".join(str(error).split())[:160]
                raise InputError(f"gymnasium cannot make {source!r}: {reason}") from None
        else:
            self._env = source
        self.name = f"gym:{source}" if isinstance(source, str) else f"gym:{type(source).__name__}"
        space = self._env.action_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise InputError(f"{self.name} takes actions of {space}", remedy="A box of numbers is needed.")
        self.low = np.nan_to_num(space.low.astype(np.float32), neginf=-1e30)
        self.high = np.nan_to_num(space.high.astype(np.float32), posinf=1e30)
        self.action_dim = space.shape[0]
        observed = self._env.observation_space
        self._dictionary = isinstance(observed, gymnasium.spaces.Dict)
        self.names = check_names(names, tuple(observed.spaces) if self._dictionary else ("obs",), self.name)
        spec = getattr(self._env, "spec", None)
        self.max_steps = max_steps or getattr(spec, "max_episode_steps", None) or 1000
        self.fps = float(self._env.metadata.get("render_fps") or 30)
        self._steps = 0

    def reset(self, seed: int) -> Seen:
        observation, _ = self._env.reset(seed=seed)
        self._steps = 0
        return self._seen(observation)

    def advance(self, action: NDArray[np.float32]) -> Outcome:
        observation, reward, terminated, truncated, info = self._env.step(action.astype(self._env.action_space.dtype))
        self._steps += 1
        told = info.get("success", info.get("is_success"))
        success = bool(terminated and reward > 0) if told is None else bool(told)
        done = bool(terminated or truncated) or self._steps >= self.max_steps
        return Outcome(self._seen(observation), float(reward), success, done)

    def _seen(self, observation: Any) -> Seen:
        entries: Mapping[str, Any] = observation if self._dictionary else {"obs": observation}
        found: Seen = {}
        for name in self.names:
            value = np.asarray(entries[name])
            if value.ndim == 3 and value.dtype == np.uint8:
                found[name] = np.ascontiguousarray(np.moveaxis(value, -1, 0))
            else:
                found[name] = value.astype(np.float32).reshape(-1)
        return found

    def picture(self) -> NDArray[np.uint8] | None:
        image = self._env.render()
        return None if image is None else np.asarray(image, np.uint8)

    def close(self) -> None:
        self._env.close()

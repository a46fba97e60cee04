"""Push-T: a round finger pushes a T-shaped block onto its goal. After gym-pusht, with Diffusion Policy's seeds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope_robotics.envs.environment import Environment, Outcome, Seen, check_names

#: Coverage above which the block is home, and by which rewards are divided.
SUCCESS = 0.95
#: Seeds of the published evaluation: six of training, fifty of test.
TRAIN_SEEDS, TEST_SEEDS = range(6), range(100_000, 100_050)
GOAL = (256.0, 256.0, float(np.pi / 4))
_SIZE = 512.0
_NAMES = (
    *("state", "agent_pos", "keypoint", "obs", "image"),
    *("observation.state", "observation.environment_state", "observation.image"),
)


def legacy_state(seed: int) -> NDArray[np.float64]:
    """Where Diffusion Policy's runner starts for a seed: agent x, y, block x, y (pixels of 512), angle (radians).

    gym-pusht itself draws other states for the same seed.
    """
    random = np.random.RandomState(seed)
    agent = random.randint(50, 450), random.randint(50, 450)
    block = random.randint(100, 400), random.randint(100, 400)
    return np.array([*agent, *block, random.randn() * 2 * np.pi - np.pi])


class PushT(Environment):
    """Observations by name: ``state`` (agent x, y, block x, y, angle), ``agent_pos``, ``keypoint`` (9 points, flat),
    ``obs`` (keypoints, then the agent: 20 numbers), ``image`` (3, 96, 96), and LeRobot's ``observation.state`` (agent),
    ``observation.environment_state`` (8 corners) and ``observation.image``.

    Actions are where the finger should go, in pixels of 512. The nine keypoints are the eight corners and the centre of
    gravity: NOT the nine points on the block that Diffusion Policy's released low-dimensional policies were trained
    with, which were drawn at random. Those policies do not work here; image policies and LeRobot's do.

    Parameters
    ----------
    names : sequence of str
        Which observations; images cost most. Default: all vectors.
    max_steps : int
        300 as published.
    legacy : bool
        Start from :func:`legacy_state` of the seed.
    """

    def __init__(self, names: Sequence[str] = (), *, max_steps: int = 300, legacy: bool = True) -> None:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        from gym_pusht.envs.pusht import PushTEnv

        self.name = "pusht"
        self.fps, self.max_steps, self.action_dim = 10.0, max_steps, 2
        self.low, self.high = np.zeros(2, np.float32), np.full(2, _SIZE, np.float32)
        vectors = [name for name in _NAMES if "image" not in name]
        check_names(names, _NAMES, "pusht")
        self.names = tuple(names) or tuple(vectors)
        self.legacy = legacy
        self._env: Any = PushTEnv(obs_type="state", render_mode="rgb_array", visualization_width=384)
        self._env.visualization_height = 384
        self._steps = 0

    def reset(self, seed: int) -> Seen:
        options = {"reset_to_state": legacy_state(seed)} if self.legacy else None
        self._env.reset(seed=seed, options=options)
        self._steps = 0
        return self.see()

    def set_state(self, state: Sequence[float] | NDArray[np.float64]) -> Seen:
        """Begin from a state (agent x, y, block x, y, angle); a physics step later it is a little different."""
        self._env.reset(options={"reset_to_state": np.asarray(state, np.float64)})
        self._steps = 0
        return self.see()

    def advance(self, action: NDArray[np.float32]) -> Outcome:
        _, reward, _, _, info = self._env.step(np.asarray(action, np.float64))
        self._steps += 1
        success = bool(info["is_success"])
        measures = {"coverage": float(info["coverage"])}
        return Outcome(self.see(), float(reward), success, success or self._steps >= self.max_steps, measures)

    @property
    def physics(self) -> Any:
        """gym-pusht's environment: ``agent``, ``block``, ``space``."""
        return self._env

    def coverage(self) -> float:
        """Share of the goal's area that the block covers."""
        return float(self._env._get_coverage())

    def state(self) -> NDArray[np.float64]:
        """Agent x, y, block x, y, angle in [0, 2 pi)."""
        block = self._env.block
        return np.array([*self._env.agent.position, *block.position, block.angle % (2 * np.pi)])

    def keypoints(self) -> NDArray[np.float64]:
        """The eight corners of the block and its centre of gravity, (9, 2)."""
        corners = np.asarray(self._env.get_keypoints(self._env._block_shapes), np.float64).reshape(8, 2)
        block = self._env.block
        return np.concatenate([corners, [tuple(block.local_to_world(block.center_of_gravity))]])

    def see(self) -> Seen:
        """The observations now."""
        found: Seen = {}
        agent = np.array(self._env.agent.position, np.float32)
        for name in self.names:
            if name == "state":
                found[name] = self.state().astype(np.float32)
            elif name in ("agent_pos", "observation.state"):
                found[name] = agent
            elif name == "keypoint":
                found[name] = self.keypoints().astype(np.float32).reshape(-1)
            elif name == "obs":
                found[name] = np.concatenate([self.keypoints().astype(np.float32).reshape(-1), agent])
            elif name == "observation.environment_state":
                found[name] = self.keypoints()[:8].astype(np.float32).reshape(-1)
            else:
                found[name] = np.ascontiguousarray(np.moveaxis(self._env._render(), -1, 0))
        return found

    def picture(self) -> NDArray[np.uint8]:
        return np.asarray(self._env.render(), np.uint8)

    def close(self) -> None:
        self._env.close()

"""What an environment is for us: named observations, a score, and a picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError

Seen = dict[str, NDArray[Any]]
_SEEDS = 2**32


@dataclass
class Outcome:
    """What one control step brought."""

    seen: Seen
    reward: float
    success: bool
    done: bool
    measures: dict[str, float] = field(default_factory=dict)
    """Further figures, such as Push-T's coverage."""


class Environment(ABC):
    """One episode after the other.

    Attributes
    ----------
    name : str
    fps : float
        Control steps a second.
    max_steps : int
    action_dim : int
    names : tuple of str
        Observations that it gives: vectors float32 (D,), images uint8 (C, H, W).
    low, high : array (action_dim,)
        Actions are clipped to these.
    """

    name: str
    fps: float
    max_steps: int
    action_dim: int
    names: tuple[str, ...]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @abstractmethod
    def reset(self, seed: int) -> Seen:
        """Begin the episode of a seed; the same seed begins alike."""

    @abstractmethod
    def advance(self, action: NDArray[np.float32]) -> Outcome:
        """Do one action, which is within the limits."""

    def picture(self) -> NDArray[np.uint8] | None:
        """What it looks like now, [H, W, 3]; None where it cannot be drawn."""
        return None

    def close(self) -> None:  # noqa: B027  few need it
        """Give back windows and memory."""

    def step(self, action: NDArray[np.floating[Any]]) -> Outcome:
        """Do one action.

        Raises
        ------
        InputError
            It has another number of dimensions, or is not finite.
        """
        action = np.asarray(action, np.float32).reshape(-1)
        if action.shape != (self.action_dim,):
            raise InputError(f"an action of {len(action)} numbers for {self.name}, which takes {self.action_dim}")
        if not np.all(np.isfinite(action)):
            raise InputError(f"an action for {self.name} is not finite")
        return self.advance(np.clip(action, self.low, self.high))


def make_environment(name: str, names: Sequence[str] = ()) -> Environment:
    """An environment by its name.

    Parameters
    ----------
    name : str
        ``pusht``, ``metaworld:TASK`` (``metaworld:pick-place``), or ``gym:ID`` for what gymnasium knows.
    names : sequence of str
        Observations wanted; what is not wanted is not computed.

    Raises
    ------
    InputError
        No such environment, or it does not give these.
    """
    kind, _, rest = name.partition(":")
    if kind == "pusht" and not rest:
        from priorscope_robotics.envs.pusht import PushT

        return PushT(names)
    if kind == "metaworld" and rest:
        from priorscope_robotics.envs.metaworld_env import MetaworldEnvironment

        return MetaworldEnvironment(rest, names)
    if kind == "gym" and rest:
        from priorscope_robotics.envs.gym_env import GymEnvironment

        return GymEnvironment(rest, names)
    raise InputError(f"no environment is called {name!r}", remedy="Use pusht, metaworld:TASK or gym:ID.")


def check_seeds(first: int, count: int = 1) -> None:
    """InputError where episodes cannot have the seeds ``first``, ``first + 1``, ...: they are numbers of 32 bits."""
    if first < 0 or first + count > _SEEDS:
        raise InputError(f"episodes with the seeds {first} ... {first + count - 1}", remedy=f"Use 0 ... {_SEEDS - 1}.")


def check_names(wanted: Sequence[str], known: Sequence[str], title: str) -> tuple[str, ...]:
    """``wanted``, or all that are known where none is; InputError for one that is not."""
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(f"{title} gives no {', '.join(unknown)}", remedy=f"It gives {', '.join(known)}.")
    return tuple(wanted) or tuple(known)

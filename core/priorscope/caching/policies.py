"""When a pass is computed in full."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import numpy as np

from priorscope.diffusion.denoiser import StepInfo
from priorscope.errors import InputError

#: Published sets of steps with a full pass: name -> (steps of the run, the full ones).
#: ``50ls`` is Faster Diffusion's for 50 steps (Li et al. 2024, official code ``utils_sd.py``).
KEY_SETS: dict[str, tuple[int, tuple[int, ...]]] = {"50ls": (50, (0, 1, 2, 3, 5, 10, 15, 25, 35))}


class Policy(Protocol):
    """Says whether the pass of a step is computed in full; the first of a run always is.

    It may be asked about a step more than once, and ahead of it: the answer depends on the arguments alone.
    """

    #: Whether the decision needs what the first block has changed; then it is taken within the pass.
    by_change: bool

    def should_compute(self, info: StepInfo, change: float | None = None) -> bool:
        """Whether the pass at ``info`` is full.

        Parameters
        ----------
        info : StepInfo
            Of the loop; ``info.index`` counts from 0 at the run's first step, wherever it starts.
        change : float, optional
            For policies that decide by it: see :class:`Threshold`.
        """
        ...


@dataclass(frozen=True)
class Every:
    """Every ``interval``-th step in full.

    Step k is full where k < ``warm_up``, where k - ``offset`` is a multiple of ``interval``, and for the ``last`` steps
    of the run. DeepCache (Ma et al. 2024): ``Every(N)``. TaylorSeer's official DiT code: ``Every(N, offset=1,
    warm_up=2)``. diffusers' TaylorSeer hook: ``Every(N, offset=before + 1, warm_up=before)``, and ``last`` for the
    steps from its ``disable_cache_after_step`` on.

    Parameters
    ----------
    interval : int
        At least 1, which caches nothing.
    offset, warm_up, last : int
        At least 0.
    """

    interval: int
    offset: int = 0
    warm_up: int = 0
    last: int = 0
    by_change = False

    def __post_init__(self) -> None:
        if not is_whole(self.interval) or self.interval < 1:
            raise InputError(f"an interval of {self.interval!r} steps", remedy="Use a whole number of 1 or more.")
        _check_counts(offset=self.offset, warm_up=self.warm_up, last=self.last)

    def should_compute(self, info: StepInfo, change: float | None = None) -> bool:
        index = info.index
        early, late = index < self.warm_up, index >= info.total - self.last
        return early or late or (index - self.offset) % self.interval == 0


class KeySteps:
    """A list of steps in full, such as the result of a search, or a published set by name.

    Parameters
    ----------
    steps : iterable of int, or str
        Positions in the run, from 0; or a name of :data:`KEY_SETS`, which serves a run of its own length only.

    Raises
    ------
    InputError
        An unknown name, no step, or one that is no whole number of 0 or more; later, a run of another length than the
        named set's.
    """

    by_change = False

    def __init__(self, steps: Iterable[int] | str) -> None:
        self.total: int | None = None
        self.name = steps if isinstance(steps, str) else ""
        if isinstance(steps, str):
            if steps not in KEY_SETS:
                raise InputError(f"no set of key steps is called {steps!r}", remedy=_REMEDY)
            self.total, steps = KEY_SETS[steps]
        listed = list(steps)
        if not listed or any(not is_whole(step) or step < 0 for step in listed):
            raise InputError(f"key steps {listed}", remedy="Give whole numbers of 0 or more.")
        self.steps = frozenset(int(step) for step in listed)

    def should_compute(self, info: StepInfo, change: float | None = None) -> bool:
        if self.total is not None and info.total != self.total:
            raise InputError(
                f"the key steps {self.name!r} are for {self.total} steps, but the run has {info.total}",
                remedy=f"Run {self.total} steps, or list the full ones.",
            )
        return info.index in self.steps


@dataclass(frozen=True)
class Threshold:
    """In full where the first block does something else than at the last full pass: r differs by more than ``limit``.

    With r the block's residual (its output minus its input) and r' that of the last full pass, the change of an item is
    mean |r - r'| / mean |r'|; the largest of a batch decides (ParaAttention's first-block cache, as diffusers has it,
    takes one mean over the batch; for a single item they are the same).

    Parameters
    ----------
    limit : float
        At least 0, where everything that changes at all is computed.
    warm_up, last : int
        So many first and last steps are full.

    Notes
    -----
    The decision is read from the device once a step: the only policy that waits for a GPU.
    """

    limit: float
    warm_up: int = 0
    last: int = 0
    by_change = True

    def __post_init__(self) -> None:
        if not isinstance(self.limit, float | int) or not self.limit >= 0:
            raise InputError(f"a threshold of {self.limit!r}", remedy="Use a number of 0 or more.")
        _check_counts(warm_up=self.warm_up, last=self.last)

    def should_compute(self, info: StepInfo, change: float | None = None) -> bool:
        if change is None or info.index < self.warm_up or info.index >= info.total - self.last:
            return True
        return not change <= self.limit  # NaN computes


def as_policy(policy: Policy | int | str | Iterable[int]) -> Policy:
    """A policy from what users write: itself, an interval, the name of a key set, or a list of steps."""
    if _is_policy(policy):
        return policy
    if isinstance(policy, bool | float):
        raise InputError(f"the policy {policy!r}", remedy=_REMEDY)
    if isinstance(policy, int | np.integer):
        return Every(int(policy))
    if isinstance(policy, Iterable):
        return KeySteps(policy)
    raise InputError(f"the policy {policy!r}", remedy=_REMEDY)


_REMEDY = f"Use an interval, Every, Threshold, a list of steps, or one of {', '.join(KEY_SETS)}."


def _is_policy(value: object) -> TypeGuard[Policy]:
    known = callable(getattr(value, "should_compute", None)) and hasattr(value, "by_change")
    return known and not isinstance(value, type)  # Every, where Every(3) is meant


def is_whole(value: object) -> bool:
    """Whether ``value`` is a whole number, numpy's included."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if not is_whole(count) or count < 0:
            raise InputError(f"{name}={count!r}", remedy="Use a whole number of 0 or more.")

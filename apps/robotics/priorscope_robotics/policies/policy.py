"""What every policy is: it is asked for the next actions of a batch of environments, each with its own past."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope_robotics.model import Given, NotFinite, PolicyModel
from priorscope_robotics.policies.discrete import snap_actions
from priorscope_robotics.spec import DiscreteAction


@dataclass
class Output:
    """What a policy answers."""

    actions: torch.Tensor
    """(B, n_action_steps, action_dim) to be executed, in their unit."""
    plan: torch.Tensor
    """(B, T, action_dim) from the time of the first observation on, in their unit."""
    calls: list[int]
    """Network calls of each environment."""
    trajectory: torch.Tensor
    """(B, T, D) as the network left it: normalised, discrete dimensions neither snapped to a value nor scaled back."""
    seconds: dict[str, float] = field(default_factory=dict)
    """``encoder`` (checks, normaliser, image encoders) and ``denoiser`` (all else)."""


class PolicyState:
    """What a policy remembers of each environment; this one remembers nothing.

    Parameters
    ----------
    count : int
        Environments.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise InputError(f"a state for {count} environments")
        self.count = count
        #: Where the next call must not use the past; on the CPU.
        self.fresh = torch.ones(count, dtype=torch.bool)

    def reset(self, mask: torch.Tensor | Sequence[bool] | None = None) -> None:
        """Forget the past of the environments where ``mask``, or of all: their episodes begin anew."""
        if mask is None:
            self.fresh[:] = True
            return
        mask = torch.as_tensor(mask, dtype=torch.bool).cpu()
        if mask.shape != (self.count,):
            raise InputError(f"a mask of shape {tuple(mask.shape)} for {self.count} environments")
        self.fresh |= mask


class Policy(ABC):
    """A way to get plans from a model.

    Parameters
    ----------
    model : PolicyModel
        In evaluation mode.
    n_action_steps : int, optional
        Steps that are executed; the model's own number by default.
    discrete : sequence of DiscreteAction, optional
        The model's own by default.
    """

    def __init__(
        self,
        model: PolicyModel,
        *,
        n_action_steps: int | None = None,
        discrete: Sequence[DiscreteAction] | None = None,
    ) -> None:
        self.model = model
        self.spec = model.spec
        self.n_action_steps = model.spec.n_action_steps if n_action_steps is None else n_action_steps
        self.discrete = tuple(model.spec.discrete if discrete is None else discrete)
        last = self.spec.first_action + self.n_action_steps
        if self.n_action_steps < 1 or last > self.spec.horizon:
            raise InputError(
                f"{self.n_action_steps} actions from step {self.spec.first_action} of a plan of {self.spec.horizon}",
                remedy=f"Use 1 to {self.spec.horizon - self.spec.first_action}.",
            )

    def start(self, count: int) -> PolicyState:
        """The state of ``count`` environments at the start of their episodes."""
        return PolicyState(count)

    @torch.no_grad()
    def act(self, observations: Mapping[str, torch.Tensor], state: PolicyState, noise: Noise | None = None) -> Output:
        """The next actions.

        Parameters
        ----------
        observations : mapping of str to Tensor
            (B, n_obs_steps, ...) by name, in their unit; the last step is now.
        state : PolicyState
            From :meth:`start`; it is changed.
        noise : Noise
            Not needed by policies that draw none.

        Raises
        ------
        InputError
            An observation is missing, has another shape, or is not finite: then the past of that environment is
            forgotten too, and no environment acts.
        """
        clock = _Clock(self.model.device)
        with clock("encoder"):
            try:
                normalized = self.model.normalized(observations)
            except NotFinite as error:
                bad = torch.zeros(state.count, dtype=torch.bool)
                bad[[place for place in error.environments if place < state.count]] = True
                state.reset(bad)
                raise
            batch = len(next(iter(normalized.values())))
            if batch != state.count:
                raise InputError(f"observations of {batch} environments for a state of {state.count}")
            given = self.model.given(self.model.features(normalized))
        with clock("denoiser"):
            trajectory, calls = self.plan(given, normalized, state, noise)
            plan = snap_actions(self.model.actions(trajectory), self.discrete)
        first = self.spec.first_action
        return Output(plan[:, first : first + self.n_action_steps], plan, calls, trajectory, clock.seconds)

    @abstractmethod
    def plan(
        self, given: Given, normalized: Mapping[str, torch.Tensor], state: PolicyState, noise: Noise | None
    ) -> tuple[torch.Tensor, list[int]]:
        """Normalised trajectories (B, T, D) and each environment's network calls; ``state`` is moved on."""

    def blank(self, batch: int) -> torch.Tensor:
        """Zeros (B, T, D) like the trajectories of ``batch`` environments."""
        return torch.zeros(batch, self.spec.horizon, self.spec.trajectory_dim, device=self.model.device)


class _Clock:
    """Seconds of named parts; on a GPU each waits until its work is done."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._wait()
        begin = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] = time.perf_counter() - begin

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

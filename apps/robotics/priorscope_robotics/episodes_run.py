"""Letting a policy act: many episodes side by side, with what they brought and how long each call took."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope_robotics.envs.environment import Environment, Seen
from priorscope_robotics.policies.noise import EnvironmentNoise
from priorscope_robotics.policies.policy import Output, Policy
from priorscope_robotics.policies.streaming import StreamingPolicy
from priorscope_robotics.spec import PolicySpec


@dataclass
class EpisodeResult:
    """What one episode brought."""

    seed: int
    score: float
    """The best reward of the episode (Push-T: coverage / 0.95, at most 1); 0 where there was none."""
    success: bool
    steps: int
    calls: int
    """Network calls."""
    measures: dict[str, float] = field(default_factory=dict)
    """``max_NAME``, ``mean_NAME`` and ``final_NAME`` of the environment's figures."""
    failure: str = ""
    """Why the environment broke down; such an episode is no success, whatever came before."""


@dataclass
class CallTime:
    """Seconds of one call of a policy, for the whole batch."""

    encoder: float
    denoiser: float
    cold: bool
    """Whether an environment needed a full plan."""


class History:
    """The last observations of one environment; before the first, the first is repeated."""

    def __init__(self, length: int, seen: Seen) -> None:
        self._seen: deque[Seen] = deque([seen] * length, maxlen=length)

    def add(self, seen: Seen) -> None:
        """One step later."""
        self._seen.append(seen)

    def stacked(self, name: str) -> NDArray[Any]:
        """(length, ...)."""
        return np.stack([seen[name] for seen in self._seen])


def stack_histories(spec: PolicySpec, histories: Sequence[History]) -> dict[str, torch.Tensor]:
    """Observations (B, n_obs_steps, ...) as a policy takes them."""
    return {
        entry.name: torch.from_numpy(np.stack([history.stacked(entry.name) for history in histories]))
        for entry in spec.observations
    }


def check_environment(spec: PolicySpec, environment: Environment) -> None:
    """InputError where a policy does not fit an environment."""
    if environment.action_dim != spec.action_dim:
        raise InputError(
            f"the policy's actions have {spec.action_dim} numbers, {environment.name} takes {environment.action_dim}"
        )
    missing = [entry.name for entry in spec.observations if entry.name not in environment.names]
    if missing:
        raise InputError(
            f"{environment.name} gives no {', '.join(missing)}", remedy=f"It gives {', '.join(environment.names)}."
        )


@dataclass
class _Slot:
    environment: Environment
    history: History
    seed: int
    rewards: list[float] = field(default_factory=list)
    measures: dict[str, list[float]] = field(default_factory=dict)
    calls: int = 0
    success: bool = False
    done: bool = False
    reported: bool = False
    failure: str = ""


def run_episodes(
    environments: Sequence[Environment],
    policy: Policy,
    seeds: Sequence[int],
    *,
    noise_seed: int = 0,
    times: list[CallTime] | None = None,
    on_step: Callable[[int, Environment], None] | None = None,
    on_output: Callable[[Output, Mapping[str, torch.Tensor]], None] | None = None,
) -> Iterator[EpisodeResult]:
    """Run an episode for each seed and give its result as soon as it ends.

    Each environment goes on with the next seed when its episode ends, and its part of the policy's state is reset; the
    others do not notice. An episode's noise derives from ``noise_seed`` and its seed, so its result does not depend on
    the number of environments (up to rounding). An environment that gives numbers that are not finite ends its episode
    as failed; the policy never sees them.

    Parameters
    ----------
    environments : sequence of Environment
    policy : Policy
    seeds : sequence of int
    noise_seed : int
    times : list, optional
        Gets the time of each call.
    on_step : callable, optional
        ``on_step(seed, environment)`` at the start and after each step, to draw it.
    on_output : callable, optional
        ``on_output(output, observations)`` after each call.
    """
    if not seeds:
        return
    count = min(len(environments), len(seeds))
    check_environment(policy.spec, environments[0])
    waiting = deque(seeds)
    noise = EnvironmentNoise([0] * count)
    state = policy.start(count)

    def begin(place: int) -> _Slot:
        seed = waiting.popleft()
        seen = environments[place].reset(seed)
        failure = _not_finite(seen)
        noise.renew(place, item_seed(noise_seed, seed))
        mask = torch.zeros(count, dtype=torch.bool)
        mask[place] = True
        state.reset(mask)
        if on_step is not None:
            on_step(seed, environments[place])
        # numbers that stand in the batch until another episode begins
        blank = {name: np.zeros_like(value) for name, value in seen.items()} if failure else seen
        history = History(policy.spec.n_obs_steps, blank)
        return _Slot(environments[place], history, seed, done=bool(failure), failure=failure)

    slots = [begin(place) for place in range(count)]
    while True:
        for place in range(count):
            while slots[place].done and not slots[place].reported:
                slots[place].reported = True
                yield _result(slots[place])
                if waiting:
                    slots[place] = begin(place)
        if all(slot.done for slot in slots):
            return
        observations = stack_histories(policy.spec, [slot.history for slot in slots])
        output = policy.act(observations, state, noise)
        if times is not None:
            cold = len({*output.calls}) > 1 or output.calls[0] > min_calls(policy)
            times.append(CallTime(output.seconds["encoder"], output.seconds["denoiser"], cold))
        if on_output is not None:
            on_output(output, observations)
        actions = output.actions.cpu().numpy()
        for place, slot in enumerate(slots):
            if slot.done:
                continue
            slot.calls += output.calls[place]
            for action in actions[place]:
                _one_step(slot, action)
                if on_step is not None:
                    on_step(slot.seed, slot.environment)
                if slot.done:
                    break


def min_calls(policy: Policy) -> int:
    """Network calls of a call that needs no full plan."""
    if isinstance(policy, StreamingPolicy):
        return -(-policy.per_chunk // policy.stride)
    return len(getattr(policy, "levels", [0]))


def _one_step(slot: _Slot, action: NDArray[Any]) -> None:
    outcome = slot.environment.step(action)
    slot.failure = _not_finite({**outcome.seen, "reward": np.asarray(outcome.reward)})
    if slot.failure:
        slot.failure += f" after step {len(slot.rewards) + 1}"
        slot.success, slot.done = False, True
        return
    slot.history.add(outcome.seen)
    slot.rewards.append(outcome.reward)
    for name, value in outcome.measures.items():
        slot.measures.setdefault(name, []).append(value)
    slot.success |= outcome.success
    slot.done = outcome.done


def _not_finite(values: Mapping[str, NDArray[Any]]) -> str:
    """Which of them has numbers that are not finite, in words; empty where none has."""
    names = [name for name, value in values.items() if not np.all(np.isfinite(value))]
    return f"{', '.join(names)} not finite" if names else ""


def _result(slot: _Slot) -> EpisodeResult:
    measures: dict[str, float] = {}
    for name, values in slot.measures.items():
        measures |= {f"max_{name}": max(values), f"mean_{name}": float(np.mean(values)), f"final_{name}": values[-1]}
    score = max(slot.rewards, default=0.0)
    return EpisodeResult(slot.seed, score, slot.success, len(slot.rewards), slot.calls, measures, slot.failure)

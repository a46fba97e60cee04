"""What is remembered of full passes, and what it forecasts for the others."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import torch

from priorscope.caching.policies import Policy, as_policy
from priorscope.diffusion.denoiser import StepInfo
from priorscope.errors import InputError


class FeatureCache(Protocol):
    """The one thing that all caches ask: whether to compute, and what to give where not."""

    def should_compute(self, info: StepInfo, residual: torch.Tensor | None = None) -> bool:
        """Whether the pass at ``info`` is full; ``residual`` is the first block's, for policies that look at it."""
        ...

    def store(self, name: str, value: torch.Tensor, info: StepInfo) -> None:
        """Remember a feature of a full pass."""
        ...

    def forecast(self, name: str, info: StepInfo) -> torch.Tensor:
        """The feature at a step that was not computed."""
        ...

    def reset(self) -> None:
        """Forget everything, before another run."""
        ...


class TaylorMemory:
    """A policy, and a Taylor expansion of every feature in the step index.

    A full pass at step k with feature F gives F_0 = F and F_(i+1) = (F_i - F_i') / (k - k'), where the prime is the
    full pass before, and i goes as far as there. A forecast d steps later is the sum of F_i d^i / i!. Only the last
    distance enters, so that on uneven steps these are not Newton's divided differences; the published method has it so.

    Parameters
    ----------
    policy : Policy, int, str or iterable of int
        When to compute; see :func:`~priorscope.caching.policies.as_policy`.
    order : int
        Of the expansion: 0, plain reuse, keeps one tensor a feature (the network's own, not a copy), ``order`` n keeps
        n + 1.

    Raises
    ------
    InputError
        A feature that is no tensor, that comes twice in a pass, or that the network has overwritten since (which cannot
        be seen in ``torch.inference_mode``).

    Notes
    -----
    Source: TaylorSeer (Liu et al. 2025), official DiT code.
    """

    def __init__(self, policy: Policy | int | str | Iterable[int], order: int = 0) -> None:
        self.policy = as_policy(policy)
        self.order = checked_order(order)
        self.reset()

    def reset(self) -> None:
        self._terms: dict[str, tuple[torch.Tensor, ...]] = {}
        self._steps: dict[str, int] = {}
        self._versions: dict[str, int] = {}
        self._residual: torch.Tensor | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is stored, so that nothing can be forecast."""
        return not self._terms

    def should_compute(self, info: StepInfo, residual: torch.Tensor | None = None) -> bool:
        if residual is None:
            return self.is_empty or self.policy.should_compute(info)
        change = None if self._residual is None or self.is_empty else _change(residual, self._residual)
        full = self.is_empty or self.policy.should_compute(info, change)
        if full:
            self._residual = residual
        return full

    def store(self, name: str, value: torch.Tensor, info: StepInfo) -> None:
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{name} gives a {type(value).__name__}, which cannot be cached", remedy="Cache a tensor.")
        terms = [value]
        if name in self._terms:
            distance = info.index - self._steps[name]
            if distance < 1:
                raise InputError(f"{name} runs more than once a pass, so that its outputs cannot be told apart")
            for before in self._recalled(name)[: self.order]:
                terms.append((terms[-1] - before) / distance)
        self._terms[name], self._steps[name], self._versions[name] = tuple(terms), info.index, _version(value)

    def forecast(self, name: str, info: StepInfo) -> torch.Tensor:
        if name not in self._terms:
            raise InputError(f"nothing is stored of {name}, so that it cannot be forecast", remedy="Compute it first.")
        first, *others = self._recalled(name)
        if not others:
            return first
        distance = info.index - self._steps[name]
        value = torch.add(first, others[0], alpha=distance)
        for power, term in enumerate(others[1:], start=2):
            value.add_(term, alpha=distance**power / math.factorial(power))
        return value

    def _recalled(self, name: str) -> tuple[torch.Tensor, ...]:
        terms = self._terms[name]
        if _version(terms[0]) != self._versions[name]:
            raise InputError(
                f"what {name} gave was overwritten by the network, so that it cannot be recalled",
                remedy="Cache a module whose output is not changed in place.",
            )
        return terms


def checked_order(order: int) -> int:
    """``order``, which is a whole number of 0 or more."""
    if isinstance(order, bool) or not isinstance(order, int) or order < 0:
        raise InputError(f"a Taylor expansion of order {order!r}", remedy="Use a whole number of 0 or more.")
    return order


def _version(value: torch.Tensor) -> int:
    """How often ``value`` was written to."""
    return -1 if value.is_inference() else value._version


def _change(residual: torch.Tensor, before: torch.Tensor) -> float:
    """The largest relative mean absolute difference of an item."""
    difference = (residual - before).abs().flatten(1).mean(1)
    return float((difference / before.abs().flatten(1).mean(1)).max())

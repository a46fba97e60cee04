"""A network, told how to be asked: the pair (x0, eps) at any level of any schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.schedule import Schedule
from priorscope.errors import InputError

Level = float | torch.Tensor
PredictionType = Literal["epsilon", "v", "sample", "score", "flow"]


class Prediction(NamedTuple):
    """What a model believes at one level: the clean sample and the noise, both of the shape of x_t."""

    x0: torch.Tensor
    eps: torch.Tensor


@dataclass(frozen=True)
class StepInfo:
    """Where a run stands: step ``index`` of ``total``, network call ``call`` within the step (from 0).

    ``run`` is an object of the run's own: caches start afresh when it is another one.
    """

    index: int = 0
    total: int = 1
    call: int = 0
    run: object = field(default=None, compare=False, repr=False)


class Model(Protocol):
    """Anything a solver can ask: a :class:`Denoiser`, a guided or a constrained one."""

    schedule: Schedule

    def __call__(
        self,
        x: torch.Tensor,
        t: Level,
        condition: Condition | None = None,
        info: StepInfo | None = None,
    ) -> Prediction: ...


class PassCache(Protocol):
    """What may make a network's pass cheaper (:mod:`priorscope.caching`)."""

    def ask(self, call: Callable[[], torch.Tensor], info: StepInfo | None) -> torch.Tensor: ...


class Denoiser:
    """Wrap a network so that it answers with (x0, eps).

    Parameters
    ----------
    network : callable
        ``network(x, label, **condition) -> Tensor`` of the shape of ``x``.
    schedule : Schedule
        Where the noisy sample stands.
    prediction_type : {"epsilon", "v", "sample", "score", "flow"}
        What the network puts out: eps; v = alpha eps - sigma x0; x0; the score -eps / sigma; or the flow's
        velocity eps - x0.
    time_label : callable or float, optional
        What the network is told, as a function of the level ``t`` or as a constant: Lotus is always told 999,
        GenPercept 1. Default: the level itself (:meth:`Schedule.label`).
    input_scale : callable, optional
        Factor on ``x`` before the network, as a function of ``(alpha, sigma)``; 1 / sqrt(sigma^2 + 1) for
        k-diffusion's VE use of Stable Diffusion. Default: 1.

    Notes
    -----
    For every schedule, x = alpha x0 + sigma eps and v give
    x0 = (alpha x - sigma v) / (alpha^2 + sigma^2), eps = (sigma x + alpha v) / (alpha^2 + sigma^2).
    At alpha = 0 an epsilon or score network says nothing about x0: that is an InputError.
    """

    def __init__(
        self,
        network: Callable[..., torch.Tensor],
        schedule: Schedule,
        prediction_type: PredictionType = "epsilon",
        time_label: Callable[[Any], Any] | float | None = None,
        input_scale: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        if prediction_type not in ("epsilon", "v", "sample", "score", "flow"):
            raise InputError(
                f"prediction_type {prediction_type!r}",
                remedy="Use 'epsilon', 'v', 'sample', 'score' or 'flow'.",
            )
        self.network = network
        self.schedule = schedule
        self.prediction_type = prediction_type
        self.time_label = time_label
        self.input_scale = input_scale
        self.cache: PassCache | None = None

    def __call__(
        self,
        x: torch.Tensor,
        t: Level,
        condition: Condition | None = None,
        info: StepInfo | None = None,
    ) -> Prediction:
        """Ask the network about ``x`` (B, ...) at level ``t``: a number, (B,), or broadcastable to ``x``."""
        alpha, sigma = self.schedule.coefficients(t, x)
        if self.cache is None:
            output = self.raw(x, t, condition)
        else:
            output = self.cache.ask(lambda: self.raw(x, t, condition), info)
        return self.split(output, x, alpha, sigma)

    def raw(self, x: torch.Tensor, t: Level, condition: Condition | None = None) -> torch.Tensor:
        """The network's own output at level ``t``."""
        if self.input_scale is not None:
            x_in = x * self.input_scale(*self.schedule.coefficients(t, x))
        else:
            x_in = x
        kwargs = {} if condition is None else condition.expand(x.shape[0])
        return self.network(x_in, self.label(t, x), **kwargs)

    def label(self, t: Level, x: torch.Tensor) -> torch.Tensor:
        """What the network is told at level ``t`` for a batch like ``x``: (B,), where ``t`` is a number."""
        label = self.time_label(t) if callable(self.time_label) else self.time_label
        if label is None:
            label = self.schedule.label(t)
        if not isinstance(label, torch.Tensor):
            label = torch.full((x.shape[0],), float(label), device=x.device)
        elif label.ndim > 1 and label.numel() == x.shape[0]:
            label = label.flatten()  # one level an item, shaped to broadcast
        return label.to(x.device)

    def split(self, output: torch.Tensor, x: torch.Tensor, alpha: Any, sigma: Any) -> Prediction:
        """Turn a network output at ``x`` into (x0, eps)."""
        kind = self.prediction_type
        if kind in ("epsilon", "score"):
            if _any_zero(alpha):
                raise InputError(
                    f"a network that predicts {kind} cannot be asked at alpha = 0 (pure noise)",
                    remedy="Start from a level with signal, or use a v- or sample-prediction network.",
                )
            eps = output if kind == "epsilon" else -sigma * output
            return Prediction((x - sigma * eps) / alpha, eps)
        if kind == "v":
            power = alpha * alpha + sigma * sigma
            return Prediction((alpha * x - sigma * output) / power, (sigma * x + alpha * output) / power)
        if kind == "flow":
            total = alpha + sigma
            return Prediction((x - sigma * output) / total, (x + alpha * output) / total)
        if _any_zero(sigma):
            raise InputError("a network that predicts the sample was asked about a noise-free level")
        return Prediction(output, (x - alpha * output) / sigma)

    def target(self, x0: torch.Tensor, eps: torch.Tensor, t: Level) -> torch.Tensor:
        """What the network should put out for ``x_t = alpha x0 + sigma eps``: the training target."""
        alpha, sigma = self.schedule.coefficients(t, x0)
        if self.prediction_type == "epsilon":
            return eps
        if self.prediction_type == "v":
            return alpha * eps - sigma * x0
        if self.prediction_type == "sample":
            return x0
        if self.prediction_type == "flow":
            return eps - x0
        return -eps / sigma


def _any_zero(value: Any) -> bool:
    return bool((value == 0).any()) if isinstance(value, torch.Tensor) else value == 0.0

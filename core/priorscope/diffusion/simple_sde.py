"""The plain variance-exploding SDE dx = base^t dw, and Euler's step of its reversal.

Networks of the joint-diffusion family (NCSNv2 for ultrasound, digits and faces) are trained on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from priorscope.diffusion.denoiser import Model
from priorscope.diffusion.noise import Noise, required
from priorscope.diffusion.schedule import Schedule
from priorscope.errors import InputError


@dataclass(frozen=True)
class SimpleVESchedule(Schedule):
    """alpha = 1 and sigma(t)^2 = (base^(2t) - 1) / (2 ln base) for t in [0, 1].

    That is the variance which dx = base^t dw has added by t; with base 25 sigma reaches 9.85. Source: Song et al. 2021
    (score SDE), its tutorial; joint-diffusion's ``simple``.
    """

    base: float = 25.0
    start: float = field(default=1.0, init=False)
    end: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if not 1 < self.base < math.inf:
            raise InputError(f"base {self.base}", remedy="It must be above 1.")

    def _alpha_sigma(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if np.any(t < 0):
            raise InputError(f"time {np.min(t)} lies before the noise-free level 0")
        return np.ones_like(t), np.sqrt(np.expm1(2 * math.log(self.base) * t) / (2 * math.log(self.base)))

    def diffusion(self, t: float) -> float:
        """g(t) = base^t, the coefficient of dw."""
        return self.base**t

    def level(self, sigma: float) -> float:
        """The time t at which the noise has this standard deviation."""
        if not 0 <= sigma < math.inf:
            raise InputError(f"noise of standard deviation {sigma}", remedy="Give a number from 0 up.")
        return math.log1p(2 * math.log(self.base) * sigma**2) / (2 * math.log(self.base))


def euler_maruyama(
    model: Model, x: torch.Tensor, t: float, s: float, state: Any, noise: Noise | None, *, dt: float | None = None
) -> tuple[torch.Tensor, Any]:
    """Solver: x + g(t)^2 score dt + g(t) sqrt(dt) z, Euler-Maruyama's step of the reverse SDE.

    g is taken at ``t`` only; :func:`~priorscope.diffusion.reverse_diffusion` takes what the level loses exactly, which
    matters for few steps.

    Parameters
    ----------
    model : Model
        On a :class:`SimpleVESchedule`.
    dt : float, optional
        Parity: joint-diffusion steps by 1 / N, whatever lies between its levels. Default: t - s.
    """
    schedule = simple_schedule_of(model)
    dt = t - s if dt is None else dt
    if not dt > 0:
        raise InputError(f"a step of {dt:g} in time", remedy="Levels must fall.")
    mean = predictor_mean(schedule, x, t, model(x, t).eps, dt)
    return mean + schedule.diffusion(t) * math.sqrt(dt) * required(noise).like(x), state


def predictor_mean(schedule: SimpleVESchedule, x: torch.Tensor, t: float, eps: torch.Tensor, dt: float) -> torch.Tensor:
    """x + g(t)^2 score dt: where Euler-Maruyama's step goes before noise is added."""
    _, sigma = schedule(t)
    if not sigma > 0:
        raise InputError("a predictor was asked at a level without noise", remedy="End the levels there.")
    return x - schedule.diffusion(t) ** 2 * dt / sigma * eps


def simple_schedule_of(model: Model) -> SimpleVESchedule:
    """The schedule of ``model``; InputError unless it is a :class:`SimpleVESchedule`."""
    if not isinstance(model.schedule, SimpleVESchedule):
        raise InputError(
            f"Euler-Maruyama's step on a {type(model.schedule).__name__}",
            remedy="Use reverse_diffusion or ddim; this one knows the SDE dx = base^t dw.",
        )
    return model.schedule

"""Projection: the part of the image that the measurement fixes is replaced, the rest is the prior's."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from priorscope.diffusion.denoiser import Level, Prediction, StepInfo
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.schedule import Schedule
from priorscope.errors import InputError
from priorscope.inverse.guidance import EpsRule, back_solve, check_measurement, corrected, normal_like
from priorscope.inverse.iterative import Operator

Inverse = Callable[[torch.Tensor], torch.Tensor]


class Projection:
    """Constraint: x0 <- x0 + w A^+ (y - A x0).

    For a mask that is replacing the known pixels; in general the range-null space decomposition of DDNM.

    Parameters
    ----------
    operator : Operator
    y : Tensor of shape (B, \\*range)
        The measurement.
    schedule : Schedule
        The model's.
    noise : float
        Standard deviation of the noise in ``y``. w = r^2 / (r^2 + noise^2), the Gaussian weight where A A^T = 1 and
        x0 is off by r = sigma / alpha: the measurement counts less and less towards the end. 0 gives w = 1.
    pseudo_inverse : callable, optional
        A^+ ``(B, \\*range) -> (B, \\*domain)``; default: conjugate gradients, at most ``iterations`` of them.
    eps : {"kept", "derived"}
        DDIM's deterministic direction as the network has it, or made to fit the new x0.

    Source: Wang et al. 2023 (DDNM), equations 13 and 17.
    """

    needs_grad = False

    def __init__(
        self,
        operator: Operator,
        y: torch.Tensor,
        schedule: Schedule,
        *,
        noise: float = 0.0,
        pseudo_inverse: Inverse | None = None,
        eps: EpsRule = "kept",
        iterations: int = 20,
    ) -> None:
        if eps not in ("kept", "derived"):
            raise InputError(f"eps {eps!r}", remedy="Use 'kept' or 'derived'.")
        self.operator, self.schedule = operator, schedule
        self.y, self.noise = check_measurement(y, noise), noise
        self.pseudo_inverse, self.iterations, self.eps = pseudo_inverse, iterations, eps

    def __call__(self, x: torch.Tensor, t: Level, prediction: Prediction, info: StepInfo) -> Prediction:
        residual = self.y - self.operator.forward(prediction.x0)
        move = _inverse(self.operator, residual, self.pseudo_inverse, self.iterations)
        if self.noise > 0:
            alpha, sigma = self.schedule.coefficients(t, x)
            move = move * (sigma**2 / (sigma**2 + (alpha * self.noise) ** 2))
        x0 = prediction.x0 + move
        if self.eps == "kept":
            return Prediction(x0, prediction.eps)
        return corrected(x, t, self.schedule, x0, prediction.eps)


class KnownMeasurement:
    """Opening ``known``: the measured part of the noisy sample is overwritten by the measurement at that noise level.

    x <- x + A^+ (y_t - A x) with y_t = alpha y + A z sqrt(sigma^2 - alpha^2 noise^2): the noise that ``y`` has already
    is not added again. Once the measurement is noisier than the level, nothing is overwritten any more.

    Parameters
    ----------
    operator, y, schedule, noise, pseudo_inverse, iterations
        As for :class:`Projection`.
    draws : Noise
        Where z, of the shape of x, comes from.

    Source: Song et al. 2022 (inverse problems in medical imaging with score-based models), section 3; for masks Song
    et al. 2021 (score SDE), appendix I.2.
    """

    def __init__(
        self,
        operator: Operator,
        y: torch.Tensor,
        schedule: Schedule,
        draws: Noise,
        *,
        noise: float = 0.0,
        pseudo_inverse: Inverse | None = None,
        iterations: int = 20,
    ) -> None:
        self.operator, self.schedule, self.draws = operator, schedule, draws
        self.y, self.noise = check_measurement(y, noise), noise
        self.pseudo_inverse, self.iterations = pseudo_inverse, iterations

    def __call__(self, x: torch.Tensor, t: float) -> torch.Tensor:
        alpha, sigma = self.schedule(t)
        missing = sigma**2 - (alpha * self.noise) ** 2
        if missing < 0:
            return x
        noisy = math.sqrt(missing) * normal_like(self.draws, x) - x
        residual = alpha * self.y + self.operator.forward(noisy)
        return x + _inverse(self.operator, residual, self.pseudo_inverse, self.iterations)


def _inverse(
    operator: Operator, residual: torch.Tensor, pseudo_inverse: Inverse | None, iterations: int
) -> torch.Tensor:
    if pseudo_inverse is not None:
        return pseudo_inverse(residual)
    return back_solve(operator, residual, iterations=iterations)

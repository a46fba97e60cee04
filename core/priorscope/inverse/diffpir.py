"""DiffPIR: plug-and-play restoration with a diffusion prior; a proximal step on the clean estimate."""

from __future__ import annotations

import torch

from priorscope.diffusion.denoiser import Level, Prediction, StepInfo
from priorscope.diffusion.schedule import Schedule
from priorscope.errors import InputError
from priorscope.inverse.cg import conjugate_gradient
from priorscope.inverse.guidance import check_measurement, corrected
from priorscope.inverse.iterative import Operator


class DiffPIR:
    """Constraint: x0 <- argmin |y - A x|^2 + rho_t |x - x0|^2, by conjugate gradients; eps is derived again.

    rho_t = weight noise^2 alpha^2 / sigma^2: strong faith in the measurement at first, in the prior at the end. Take
    it with the solver :func:`~priorscope.inverse.dds.renoise` (zeta = eta^2).

    Parameters
    ----------
    operator : Operator
    y : Tensor of shape (B, \\*range)
        The measurement.
    schedule : Schedule
        The model's.
    noise : float
        Standard deviation of the noise in ``y``, positive. For clean measurements give a small one, 0.001 say.
    weight : float
        lambda of the paper. 1 is the Bayesian weight where nothing but x_t is known of x0; the paper tunes it.
    iterations, tolerance : int, float
        Of the conjugate gradients.

    Source: Zhu et al. 2023 (DiffPIR), algorithm 1.
    """

    needs_grad = False

    def __init__(
        self,
        operator: Operator,
        y: torch.Tensor,
        schedule: Schedule,
        *,
        noise: float,
        weight: float = 1.0,
        iterations: int = 50,
        tolerance: float = 1e-5,
    ) -> None:
        if noise <= 0 or weight <= 0:
            raise InputError(f"noise {noise}, weight {weight}", remedy="Both must be positive.")
        self.operator, self.schedule = operator, schedule
        self.y, self.noise, self.weight = check_measurement(y, noise), noise, weight
        self.iterations, self.tolerance = iterations, tolerance

    def __call__(self, x: torch.Tensor, t: Level, prediction: Prediction, info: StepInfo) -> Prediction:
        alpha, sigma = self.schedule.coefficients(t, x)
        # times sigma^2 / (weight noise^2), so that it stays finite where sigma = 0
        data, prior = sigma**2 / (self.weight * self.noise**2), alpha**2
        x0 = prediction.x0
        pull = data * self.operator.adjoint(self.y - self.operator.forward(x0))

        def system(v: torch.Tensor) -> torch.Tensor:
            return data * self.operator.adjoint(self.operator.forward(v)) + prior * v

        move, _ = conjugate_gradient(system, pull, iterations=self.iterations, tolerance=self.tolerance, check=False)
        return corrected(x, t, self.schedule, x0 + move, prediction.eps)

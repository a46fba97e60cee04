"""Pseudo-inverse-guided diffusion: a Gaussian likelihood of the clean estimate, taken back through the network."""

from __future__ import annotations

import torch

from priorscope.diffusion.denoiser import Level, Prediction, StepInfo
from priorscope.diffusion.schedule import Schedule
from priorscope.errors import InputError
from priorscope.inverse.guidance import back_solve, check_measurement, clean_variance, inner
from priorscope.inverse.iterative import Operator
from priorscope.inverse.projection import Inverse


class PiGDM:
    """Constraint: guide by grad log p(y | x_t) with p(x0 | x_t) taken as N(x0(x_t), r_t^2).

    The guidance is g = (d x0 / d x_t)^T A^T (r_t^2 A A^T + noise^2)^-1 (y - A x0). By default it moves the score:
    x0 <- x0 + sigma^2 / alpha g and eps <- eps - sigma g. For independent Gaussian data of standard deviation
    ``prior_std`` r_t is exact, and so is the result: samples of the posterior.

    Parameters
    ----------
    operator : Operator
    y : Tensor of shape (B, \\*range)
        The measurement.
    schedule : Schedule
        The model's; a level with alpha = 0 is an InputError.
    noise : float
        Standard deviation of the noise in ``y``.
    prior_std : float
        Standard deviation of the data, in r_t^2 = std^2 sigma^2 / (std^2 alpha^2 + sigma^2); the paper's is 1.
    weight : float
        Factor on the guidance.
    official : bool
        Parity with the paper's and RED-diff's step: x0 <- x0 + weight alpha r_t^2 g, eps kept.
    pseudo_inverse : callable, optional
        A^+ ``(B, \\*range) -> (B, \\*domain)`` for ``noise=0``; default: conjugate gradients on the matrix above.
    iterations, tolerance : int, float
        Of the conjugate gradients.

    Source: Song et al. 2023 (PiGDM), algorithm 1; NVlabs/RED-diff, its PiGDM baseline.
    """

    needs_grad = True

    def __init__(
        self,
        operator: Operator,
        y: torch.Tensor,
        schedule: Schedule,
        *,
        noise: float = 0.0,
        prior_std: float = 1.0,
        weight: float = 1.0,
        official: bool = False,
        pseudo_inverse: Inverse | None = None,
        iterations: int = 20,
        tolerance: float = 1e-6,
    ) -> None:
        if prior_std <= 0:
            raise InputError(f"prior_std {prior_std}", remedy="It must be positive.")
        if pseudo_inverse is not None and noise > 0:
            raise InputError("a pseudo-inverse does not serve a noisy measurement", remedy="Leave it out.")
        self.operator, self.schedule = operator, schedule
        self.y, self.noise = check_measurement(y, noise), noise
        self.prior_std, self.weight, self.official = prior_std, weight, official
        self.pseudo_inverse, self.iterations, self.tolerance = pseudo_inverse, iterations, tolerance

    def __call__(self, x: torch.Tensor, t: Level, prediction: Prediction, info: StepInfo) -> Prediction:
        alpha, sigma = self.schedule(float(t))
        if alpha == 0:
            raise InputError("PiGDM cannot guide at alpha = 0 (pure noise)", remedy="Start from a level with signal.")
        variance = clean_variance(alpha, sigma, self.prior_std)
        if variance == 0:
            return prediction
        with torch.no_grad():
            # times r^2 throughout: finite where r is small and the measurement has no noise
            residual = self.y - self.operator.forward(prediction.x0)
            if self.pseudo_inverse is not None:
                pull = self.pseudo_inverse(residual)
            else:
                pull = back_solve(
                    self.operator,
                    residual,
                    noise=self.noise / variance**0.5,
                    iterations=self.iterations,
                    tolerance=self.tolerance,
                )
        (gradient,) = torch.autograd.grad(inner(pull, prediction.x0), x)
        if self.official:
            return Prediction(prediction.x0 + self.weight * alpha * gradient, prediction.eps)
        guidance = self.weight / variance * gradient
        return Prediction(prediction.x0 + sigma**2 / alpha * guidance, prediction.eps - sigma * guidance)

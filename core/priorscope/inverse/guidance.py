"""What the measurement-guided methods share: how far the clean estimate can be off, and solves against A."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch

from priorscope.diffusion.denoiser import Level, Prediction
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.schedule import Schedule
from priorscope.errors import InputError
from priorscope.inverse.cg import check_values, conjugate_gradient
from priorscope.inverse.iterative import Operator

#: Whether a corrected x0 keeps the network's eps, or eps is derived again so that x = alpha x0 + sigma eps.
EpsRule = Literal["kept", "derived"]


def clean_variance(alpha: Any, sigma: Any, prior_std: float) -> Any:
    """r_t^2, the variance of x0 given x_t for independent Gaussian data of standard deviation ``prior_std``.

    With 1 it is sigma^2 / (alpha^2 + sigma^2), PiGDM's; with infinity sigma^2 / alpha^2, which knows no prior.
    """
    if math.isinf(prior_std):
        return (sigma / alpha) ** 2
    return (prior_std * sigma) ** 2 / ((prior_std * alpha) ** 2 + sigma**2)


def corrected(x: torch.Tensor, t: Level, schedule: Schedule, x0: torch.Tensor, eps: torch.Tensor) -> Prediction:
    """``x0`` with the eps that belongs to it at ``x``; at a noise-free level, where there is none, with ``eps``."""
    alpha, sigma = schedule.coefficients(t, x)
    if isinstance(sigma, torch.Tensor):
        return Prediction(x0, torch.where(sigma > 0, (x - alpha * x0) / sigma.clamp(min=1e-38), eps))
    return Prediction(x0, (x - alpha * x0) / sigma if sigma > 0 else eps)


class GradientStep:
    """A constraint that moves the sample the solver has reached by a gradient it worked out at the prediction."""

    needs_grad = True
    step = 1.0
    #: Until it is used.
    gradient: torch.Tensor | None = None

    def correct(self, x: torch.Tensor, s: float) -> torch.Tensor:
        """Move the sample ``x`` that the solver has reached; the level ``s`` is not used."""
        if self.gradient is None:
            raise InputError(
                f"{type(self).__name__} was asked to correct before a prediction: before it has seen an x0",
                remedy="Pass it as the constraint, too.",
            )
        gradient, self.gradient = self.gradient, None
        return x - self.step * gradient


def back_solve(
    operator: Operator,
    residual: torch.Tensor,
    *,
    noise: float = 0.0,
    iterations: int = 20,
    tolerance: float = 1e-6,
) -> torch.Tensor:
    """``A^T (A A^T + noise^2)^-1 residual`` (B, \\*domain); with ``noise`` 0 the pseudo-inverse of A is applied."""
    return operator.adjoint(
        measurement_solve(operator, residual, noise=noise, iterations=iterations, tolerance=tolerance)
    )


def measurement_solve(
    operator: Operator,
    residual: torch.Tensor,
    *,
    variance: float = 1.0,
    noise: float = 0.0,
    iterations: int = 20,
    tolerance: float = 1e-6,
) -> torch.Tensor:
    """``(variance A A^T + noise^2)^-1 residual`` (B, \\*range), by conjugate gradients."""

    def system(v: torch.Tensor) -> torch.Tensor:
        return variance * operator.forward(operator.adjoint(v)) + noise**2 * v

    solved, _ = conjugate_gradient(system, residual, iterations=iterations, tolerance=tolerance, check=False)
    return solved


def measuring(operator: Operator | Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The forward map of an operator, or the function itself."""
    return operator if callable(operator) and not hasattr(operator, "forward") else operator.forward


def inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Real inner product over everything, differentiable."""
    return (a.conj() * b).real.sum() if a.is_complex() or b.is_complex() else (a * b).sum()


def normal_like(draws: Noise, x: torch.Tensor) -> torch.Tensor:
    """Standard normal numbers like ``x``; where it is complex, for each of its two parts."""
    return torch.view_as_complex(draws.like(torch.view_as_real(x))) if x.is_complex() else draws.like(x)


def check_measurement(y: torch.Tensor, noise: float = 0.0) -> torch.Tensor:
    """Refuse a measurement that no guidance can follow."""
    check_values(y, "measurement")
    if not 0 <= noise < math.inf:
        raise InputError(f"measurement noise of standard deviation {noise}", remedy="Give a number from 0 up.")
    return y

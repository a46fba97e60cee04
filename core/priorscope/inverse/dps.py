"""Diffusion posterior sampling: a gradient step on the measurement's misfit, through the network."""

from __future__ import annotations

from collections.abc import Callable

import torch

from priorscope.diffusion.denoiser import Level, Prediction, StepInfo
from priorscope.errors import InputError
from priorscope.inverse.guidance import GradientStep, check_measurement, measuring
from priorscope.inverse.iterative import Operator


class DPS(GradientStep):
    """Diffusion posterior sampling, for linear operators and differentiable others.

    Each step ends with x_s <- x_s - (zeta / |y - A x0(x_t)|) grad_{x_t} |y - A x0(x_t)|^2. The gradient is taken while
    the model is asked (the constraint) and applied after the solver's step (``correct``), so give both::

        dps = DPS(operator, y, step=1.0)
        sample(model, x, times, constraint=dps, correct=dps.correct, ...)

    Parameters
    ----------
    operator : Operator or callable
        ``forward`` (B, \\*domain) -> (B, \\*range), or any differentiable function of that kind.
    y : Tensor of shape (B, \\*range)
        The measurement.
    step : float
        zeta' of the paper. The norm is each item's own, so items do not see each other; the authors' code takes
        one norm over the batch, and the gradient of the norm, which is half of this.

    Notes
    -----
    A solver that asks the model twice a step (Heun) moves by the gradient of its last call.
    Source: Chung et al. 2023 (DPS), algorithm 1 and section 3.3.
    """

    def __init__(
        self, operator: Operator | Callable[[torch.Tensor], torch.Tensor], y: torch.Tensor, *, step: float = 1.0
    ) -> None:
        if step < 0:
            raise InputError(f"step {step}", remedy="It must not be negative.")
        self.measure = measuring(operator)
        self.y, self.step = check_measurement(y), step

    def __call__(self, x: torch.Tensor, t: Level, prediction: Prediction, info: StepInfo) -> Prediction:
        residual = self.y - self.measure(prediction.x0)
        squares = residual.abs().square().flatten(1).sum(1)
        norms = squares.detach().sqrt()
        # where the misfit is 0 its gradient is, too
        loss = (squares / torch.where(norms > 0, norms, 1.0)).sum()
        (self.gradient,) = torch.autograd.grad(loss, x)
        return prediction

"""Joint posterior sampling as the published code has it, for parity.

It differs from :mod:`~priorscope.inverse.two_priors` in five things: it guides by the mean of the Euler-Maruyama step
instead of the clean estimate; where the chain rule asks for a vector-Jacobian product J^T r it multiplies r by J^T 1,
value by value; the norm of DPS is one over the whole batch; PiGDM's variance of the measurement leaves out the
weights; and a projection adds noise of the level before the step, one draw for all parts.
Source: tristan-deep/joint-diffusion, guidance.py and sampling.py (tristan-deep/dehazing-diffusion contains it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from priorscope.diffusion.denoiser import Level, Prediction, StepInfo
from priorscope.diffusion.noise import Noise, required
from priorscope.diffusion.simple_sde import SimpleVESchedule, predictor_mean
from priorscope.errors import InputError
from priorscope.inverse.guidance import check_measurement
from priorscope.inverse.joint_measurement import WeightedSum

Guidance = Literal["projection", "dps", "pigdm"]


def projection_move(measurement: WeightedSum, y: torch.Tensor, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """A^T (y + noise - A x) at the state ``x``; noise (B, \\*range) has the level's standard deviation."""
    return measurement.adjoint(y + noise - measurement.forward(x))


def dps_move(measurement: WeightedSum, y: torch.Tensor, mean: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """slope A^T r / |r| with r = y - A mean and one norm over the batch; ``slope`` is J^T 1."""
    residual = y - measurement.forward(mean)
    return slope * measurement.adjoint(residual) / torch.linalg.vector_norm(residual)


def pigdm_move(
    measurement: WeightedSum, y: torch.Tensor, mean: torch.Tensor, slope: torch.Tensor, sigma: float, noise: float = 0.0
) -> torch.Tensor:
    """r^2 slope A^T (y - A mean) / (n r^2 + noise^2) with r^2 = sigma^2 / (1 + sigma^2), for n parts."""
    variance = sigma**2 / (1 + sigma**2)
    residual = y - measurement.forward(mean)
    return variance * slope * measurement.adjoint(residual) / (len(measurement.parts) * variance + noise**2)


class OfficialJointGuidance:
    """The published guidance as openings of the loop: give it as the constraint, and its ``correct`` too.

    Take it with ``functools.partial(euler_maruyama, dt=dt)``.

    Parameters
    ----------
    kind : {"projection", "dps", "pigdm"}
    measurement : WeightedSum
    y : Tensor (B, \\*range)
        The measurement.
    schedule : SimpleVESchedule
    dt : float
        The solver's step in time, 1 / N in the published code.
    steps : sequence of float
        lambda and kappa: one a part.
    draws : Noise, optional
        For the projection: noise like ``y``.
    noise : float
        Standard deviation of the noise in ``y``, for PiGDM with a single part.

    Attributes
    ----------
    mean : Tensor
        The mean of the last step: what the published code returns, before that step's noise and guidance.
    """

    def __init__(
        self,
        kind: Guidance,
        measurement: WeightedSum,
        y: torch.Tensor,
        schedule: SimpleVESchedule,
        *,
        dt: float,
        steps: Sequence[float],
        draws: Noise | None = None,
        noise: float = 0.0,
    ) -> None:
        if kind not in get_args(Guidance):
            raise InputError(f"guidance {kind!r}", remedy=f"Use one of {', '.join(get_args(Guidance))}.")
        self.kind, self.measurement, self.schedule = kind, measurement, schedule
        self.y, self.dt, self.steps, self.draws = check_measurement(y, noise), dt, list(steps), draws
        self.noise = noise
        self.needs_grad = kind != "projection"
        self.mean: torch.Tensor | None = None
        self._sigma = 0.0
        self._move: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, t: Level, prediction: Prediction, info: StepInfo) -> Prediction:
        _, self._sigma = self.schedule(float(t))
        mean = predictor_mean(self.schedule, x, float(t), prediction.eps, self.dt)
        self.mean = mean.detach()
        if self.needs_grad:
            (slope,) = torch.autograd.grad(mean.sum(), x)
            if self.kind == "dps":
                self._move = dps_move(self.measurement, self.y, self.mean, slope)
            else:
                self._move = pigdm_move(self.measurement, self.y, self.mean, slope, self._sigma, self.noise)
        return prediction

    def correct(self, x: torch.Tensor, s: float) -> torch.Tensor:
        """Move the state ``x`` that the solver has reached; the level ``s`` is not used."""
        if self.mean is None:
            raise InputError("the guidance was asked to correct before it saw a prediction", remedy="Pass constraint=.")
        if self.kind == "projection":
            move = projection_move(self.measurement, self.y, x, self._sigma * required(self.draws).like(self.y))
        else:
            assert self._move is not None
            move = self._move
        return x + self.measurement.parts.factors(self.steps, x) * move

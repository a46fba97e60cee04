"""Joint posterior sampling: two priors, each of its own part, and one measurement of both.

The state is the parts joined (:class:`~priorscope.diffusion.product.Parts`), the model a
:class:`~priorscope.diffusion.product.ProductDenoiser`, and each method here is an opening of the loop::

    parts = Parts([(1, 128, 64), (1, 128, 64)])
    model = ProductDenoiser([tissue, haze], parts)
    guidance = JointPiGDM(WeightedSum(parts, (1.0, gamma)), y, model.schedule)
    tissue, haze = parts.split(sample(model, start, times, constraint=guidance))

Nothing is special about two: three parts work as well. What the published code does differently is in
:mod:`~priorscope.inverse.two_priors_official`. Source: Stevens et al. 2023 (removing structured noise with diffusion
models), section 4; Stevens et al. 2024 (dehazing ultrasound using diffusion models).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from priorscope.diffusion.denoiser import Level, Prediction, StepInfo
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.schedule import Schedule
from priorscope.errors import InputError
from priorscope.inverse.cg import conjugate_gradient
from priorscope.inverse.dps import DPS
from priorscope.inverse.guidance import check_measurement, clean_variance, inner
from priorscope.inverse.joint_measurement import Measurement, PixelwiseMeasurement


class JointProjection:
    """Opening ``correct``: the noisy state is moved onto the measurement at its own noise level.

    x <- x + w J^T (J J^T)^-1 (y_s - f(x)), where y_s = alpha y + sigma A z has the noise of the level. No network is
    differentiated. It needs no model of the measurement's own noise, and trusts the measurement wholly.

    Parameters
    ----------
    measurement : WeightedSum or PixelwiseMeasurement
        Pixelwise ones only where alpha = 1, and linearised where the state is.
    y : Tensor (B, \\*range)
        The measurement.
    schedule : Schedule
        The model's.
    draws : Noise
        Where z, of the shape of the state, comes from.
    weights : sequence of float
        w of each part, from 0 to 1: with less than 1 the measurement is approached step by step.
    iterations : int
        Of the conjugate gradients on A A^T, for sums with operators.
    """

    def __init__(
        self,
        measurement: Measurement,
        y: torch.Tensor,
        schedule: Schedule,
        draws: Noise,
        *,
        weights: Sequence[float] | None = None,
        iterations: int = 20,
    ) -> None:
        self.measurement, self.schedule, self.draws = measurement, schedule, draws
        self.y, self.weights, self.iterations = check_measurement(y), _weights(measurement, weights), iterations

    def __call__(self, x: torch.Tensor, s: float) -> torch.Tensor:
        """Move the state ``x`` (B, *parts.shape), which has reached level ``s``."""
        alpha, sigma = self.schedule(s)
        z = self.draws.like(x)
        weights = self.measurement.parts.factors(self.weights, x)
        if isinstance(self.measurement, PixelwiseMeasurement):
            if alpha != 1.0:
                raise InputError(
                    f"a pixelwise measurement cannot be compared with a state scaled by {alpha:g}",
                    remedy="Use a variance-exploding schedule, or JointPiGDM, which compares clean estimates.",
                )
            measured, slopes = self.measurement.slopes(x)
            residual = self.y + sigma * self.measurement.along(slopes, z) - measured
            return x + weights * _gauss_newton(self.measurement, slopes, residual, torch.ones_like(weights), 0.0)
        residual = alpha * self.y + self.measurement.forward(sigma * z - x)
        return x + weights * _solve(self.measurement, residual, torch.ones_like(weights), 0.0, self.iterations)


class JointDPS(DPS):
    """Diffusion posterior sampling of several parts, each with a step size of its own.

    x_s <- x_s - (step / |r|) grad_{x_t} |r|^2 with r = y - f(x0(x_t)); the gradient goes through all networks, exactly.
    Give the object as the constraint and its ``correct`` as the opening of that name, as for
    :class:`~priorscope.inverse.dps.DPS`, which says more.

    Parameters
    ----------
    measurement : WeightedSum or PixelwiseMeasurement
    y : Tensor (B, \\*range)
        The measurement.
    steps : sequence of float
        One a part. The authors' lambda and kappa are twice these: their gradient is that of the norm.
    """

    def __init__(self, measurement: Measurement, y: torch.Tensor, *, steps: Sequence[float]) -> None:
        if min(steps) < 0:
            raise InputError(f"steps {list(steps)}", remedy="They must not be negative.")
        super().__init__(measurement.forward, y, step=1.0)
        self.parts, self.steps = measurement.parts, list(steps)

    def correct(self, x: torch.Tensor, s: float) -> torch.Tensor:
        return x + self.parts.factors(self.steps, x) * (super().correct(x, s) - x)


class JointPiGDM:
    """Constraint: guide by grad log p(y | x_t), with each part known to a variance r_i^2 of its own.

    The guidance is g = (d x0 / d x_t)^T J^T (sum_i r_i^2 J_i J_i^T + noise^2)^-1 (y - f(x0)) and moves the score:
    x0 <- x0 + sigma^2 / alpha g, eps <- eps - sigma g. For independent Gaussian parts of standard deviations
    ``prior_stds`` and a linear measurement the result is samples of the posterior.

    Parameters
    ----------
    measurement : WeightedSum or PixelwiseMeasurement
        Pixelwise ones are linearised at the clean estimate.
    y : Tensor (B, \\*range)
        The measurement.
    schedule : Schedule
        The model's; a level with alpha = 0 is an InputError.
    noise : float
        Standard deviation of the noise in ``y``.
    prior_stds : sequence of float
        Standard deviation of the data of each part, in r_i^2 = std^2 sigma^2 / (std^2 alpha^2 + sigma^2). The part that
        can vary more takes more of the misfit.
    weights : sequence of float
        Factors on the guidance of each part.
    through_network : bool
        True: the exact vector-Jacobian product, through all networks. False: d x0 / d x_t is taken as
        alpha r^2 / sigma^2, its value for that Gaussian data; no gradient is needed, and a step costs half.
    iterations, tolerance : int, float
        Of the conjugate gradients, for sums with operators.

    Source: Song et al. 2023 (PiGDM), for several unknowns.
    """

    def __init__(
        self,
        measurement: Measurement,
        y: torch.Tensor,
        schedule: Schedule,
        *,
        noise: float = 0.0,
        prior_stds: Sequence[float] | None = None,
        weights: Sequence[float] | None = None,
        through_network: bool = True,
        iterations: int = 20,
        tolerance: float = 1e-6,
    ) -> None:
        count = len(measurement.parts)
        stds = [1.0] * count if prior_stds is None else [float(std) for std in prior_stds]
        if len(stds) != count or min(stds) <= 0:
            raise InputError(f"prior_stds {stds} for {count} parts", remedy="Give a positive number for each part.")
        self.measurement, self.schedule = measurement, schedule
        self.y, self.noise = check_measurement(y, noise), noise
        self.prior_stds, self.weights = stds, _weights(measurement, weights)
        self.needs_grad = through_network
        self.iterations, self.tolerance = iterations, tolerance

    def __call__(self, x: torch.Tensor, t: Level, prediction: Prediction, info: StepInfo) -> Prediction:
        alpha, sigma = self.schedule(float(t))
        if alpha == 0:
            raise InputError("PiGDM cannot guide at alpha = 0 (pure noise)", remedy="Start from a level with signal.")
        variances = [clean_variance(alpha, sigma, std) for std in self.prior_stds]
        largest = max(variances)
        if largest == 0:
            return prediction
        factors = self.measurement.parts.factors
        # in units of the largest variance: finite where it is small and the measurement has no noise
        shares = factors([variance / largest for variance in variances], x)
        weights = factors(self.weights, x)
        with torch.no_grad():
            pull, move = self._pull(prediction.x0.detach(), shares, self.noise / largest**0.5)
        if not self.needs_grad:
            x0 = prediction.x0 + weights * move
            return Prediction(x0, prediction.eps - alpha / sigma * weights * move)
        (gradient,) = torch.autograd.grad(inner(pull, prediction.x0), x)
        guidance = weights / largest * gradient
        return Prediction(prediction.x0 + sigma**2 / alpha * guidance, prediction.eps - sigma * guidance)

    def _pull(self, x0: torch.Tensor, shares: torch.Tensor, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
        """J^T (...)^-1 (y - f(x0)), and that times each part's share of the variance: what its x0 moves by."""
        if isinstance(self.measurement, PixelwiseMeasurement):
            measured, slopes = self.measurement.slopes(x0)
            pull = _gauss_newton(self.measurement, slopes, self.y - measured, shares, noise)
        else:
            residual = self.y - self.measurement.forward(x0)
            pull = _solve(self.measurement, residual, shares, noise, self.iterations, self.tolerance)
        return pull, shares * pull


def _gauss_newton(
    measurement: PixelwiseMeasurement, slopes: torch.Tensor, residual: torch.Tensor, shares: torch.Tensor, noise: float
) -> torch.Tensor:
    """J^T (sum of shares J J^T + noise^2)^-1 residual, pixel by pixel; where nothing has a slope nothing is pulled."""
    power = measurement.along(slopes, slopes * shares) + noise**2
    return measurement.back(slopes, torch.where(power > 0, residual / power.clamp(min=1e-30), 0.0))


def _solve(
    measurement: Measurement,
    residual: torch.Tensor,
    shares: torch.Tensor,
    noise: float,
    iterations: int,
    tolerance: float = 1e-6,
) -> torch.Tensor:
    """A^T (A shares A^T + noise^2)^-1 residual, by conjugate gradients (one of them, if there are no operators)."""
    assert not isinstance(measurement, PixelwiseMeasurement)

    def system(v: torch.Tensor) -> torch.Tensor:
        return measurement.forward(shares * measurement.adjoint(v)) + noise**2 * v

    solved, _ = conjugate_gradient(system, residual, iterations=iterations, tolerance=tolerance, check=False)
    return measurement.adjoint(solved)


def _weights(measurement: Measurement, weights: Sequence[float] | None) -> list[float]:
    count = len(measurement.parts)
    values = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(values) != count or min(values) < 0:
        raise InputError(f"weights {values} for {count} parts", remedy="Give a number from 0 up for each part.")
    return values

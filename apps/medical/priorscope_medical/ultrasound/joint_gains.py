"""Two priors that answer by gains, and a sum of both parts that was measured, in one model.

A gain is what a prior says of the variance: with x_t = x_0 + sigma n, E[x_0 | x_t] = g x_t means that x_0 is known to
sigma^2 g. So the misfit of y = x + gamma h can be shared out frequency by frequency and place by place, as Gaussian
conditioning does, and no network is differentiated: this is PiGDM with the priors' own variances instead of one number
for each.
"""

from __future__ import annotations

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Level, Prediction, StepInfo
from priorscope.diffusion.product import Parts
from priorscope.errors import InputError
from priorscope_medical.ultrasound.quadrature import as_rows
from priorscope_medical.ultrasound.rf_prior import RfPrior


class JointGains:
    """A :class:`~priorscope.diffusion.Model` of tissue and haze joined, given their measured sum.

    Parameters
    ----------
    priors : (RfPrior, RfPrior)
        On plain values.
    parts : Parts
    y : Tensor (B, C, H, W)
        x + gamma h + noise, as I and Q.
    gamma : float
    noise : float
        Standard deviation of the noise in ``y``.
    """

    def __init__(
        self, priors: tuple[RfPrior, RfPrior], parts: Parts, y: torch.Tensor, *, gamma: float, noise: float
    ) -> None:
        self.networks = [prior.network for prior in priors]
        self.schedule = priors[0].denoiser.schedule
        self.parts, self.y, self.gamma, self.noise = parts, y, gamma, noise
        self.measured = self.networks[0].gains.spectrum.forward(as_rows(y))

    def __call__(
        self, x: torch.Tensor, t: Level, condition: Condition | None = None, info: StepInfo | None = None
    ) -> Prediction:
        """Estimates of both parts of the state ``x`` that add up to the measurement, at level ``t``."""
        _, sigma = self.schedule(float(t))
        if not sigma > 0:
            raise InputError("asked at a level without noise")
        level = torch.full((len(x),), float(sigma), device=x.device).log()
        (gain, tissue), (haze_gain, haze) = (
            network.gain_of(part, level) for network, part in zip(self.networks, self.parts.split(x), strict=True)
        )
        tissue, haze = gain * tissue, haze_gain * haze
        misfit = self.measured - tissue - self.gamma * haze
        variance = gain + self.gamma**2 * haze_gain + (self.noise / sigma) ** 2
        pull = misfit / variance.clamp(min=1e-12)
        tissue = tissue + gain * pull
        haze = haze + self.gamma * haze_gain * pull
        like = self.y
        x0 = self.parts.join([self.networks[0].back(tissue, like), self.networks[1].back(haze, like)])
        return Prediction(x0, (x - x0) / sigma)

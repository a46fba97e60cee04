"""Faster Diffusion's injection of the starting noise, against the blur that reused features bring."""

from __future__ import annotations

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Level, Model, Prediction, StepInfo
from priorscope.errors import InputError


class PriorNoise:
    """Add a little of the starting noise before each late step; pass it as ``sample(..., known=PriorNoise(x))``.

    Parameters
    ----------
    start : Tensor (B, ...)
        The run's first noisy sample.
    scale : float
        Of what is added.
    below : float
        Levels of the schedule under this one are late: 500 of 1000 training steps, as published.

    Notes
    -----
    Source: Li et al. 2024, official code ``utils_sd.py``. There, decoding in parallel adds the noise after the network
    has been asked; :meth:`unseen` reproduces that.
    """

    def __init__(self, start: torch.Tensor, *, scale: float = 0.003, below: float = 500.0) -> None:
        if not scale >= 0:
            raise InputError(f"prior noise of scale {scale}", remedy="Use a number of 0 or more.")
        self.noise = scale * start
        self.below = below

    def __call__(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """``x`` (B, ...) at level ``t`` with its share of noise."""
        return x + self.noise if t < self.below else x

    def unseen(self, model: Model) -> Model:
        """``model``, which predicts eps, asked about samples without the added noise (parity)."""
        return _Unseen(self, model)


class _Unseen:
    def __init__(self, prior: PriorNoise, model: Model) -> None:
        self.prior = prior
        self.model = model
        self.schedule = model.schedule

    def __call__(
        self, x: torch.Tensor, t: Level, condition: Condition | None = None, info: StepInfo | None = None
    ) -> Prediction:
        if not isinstance(t, torch.Tensor) and t >= self.prior.below:
            return self.model(x, t, condition, info)
        alpha, sigma = self.schedule.coefficients(t, x)
        eps = self.model(x - self.prior.noise, t, condition, info).eps
        return Prediction((x - sigma * eps) / alpha, eps)

"""The noise levels that policies are trained with, and DDPM's step on them as the published code rounds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from priorscope.diffusion.denoiser import Model
from priorscope.diffusion.noise import Noise, required
from priorscope.diffusion.schedule import VPSchedule
from priorscope.diffusion.solvers.one_step import Step
from priorscope.errors import InputError
from priorscope_robotics.spec import Diffusion


def training_schedule(noise: Diffusion) -> VPSchedule:
    """The schedule of a checkpoint, with alphas_cumprod in float32 as the network was told."""
    return VPSchedule(torch.cumprod(1 - _betas(noise), 0).double().numpy())


def _betas(noise: Diffusion) -> torch.Tensor:
    if noise.beta_schedule == "linear":
        return torch.linspace(noise.beta_start, noise.beta_end, noise.steps)
    exact = VPSchedule.from_betas(
        noise.beta_schedule,  # type: ignore[arg-type]
        beta_start=noise.beta_start,
        beta_end=noise.beta_end,
        num_steps=noise.steps,
    )
    before = np.concatenate([[1.0], exact.alphas_cumprod[:-1]])
    return torch.from_numpy(1 - exact.alphas_cumprod / before).float()


def published_ddpm(noise: Diffusion) -> Step:
    """DDPM's step t -> t - 1 with the coefficients of diffusers' ``DDPMScheduler``, for parity.

    Its float32 tables of betas and of their products disagree in the fourth digit at the cleanest levels: the last step
    gives 1.0001 x0. The core's solver divides by neither and has no such error; networks cannot tell the two apart.
    """
    betas = _betas(noise)
    products = torch.cumprod(1 - betas, 0)

    def step(
        model: Model, x: torch.Tensor, t: float, s: float, state: Any, draws: Noise | None
    ) -> tuple[torch.Tensor, Any]:
        if s != t - 1 or t != int(t):
            raise InputError(f"the published step goes from t to t - 1, not from {t:g} to {s:g}")
        beta, product = betas[int(t)], products[int(t)]
        before = products[int(t) - 1] if t else torch.ones(())
        left = 1 - product
        mean = float(before.sqrt() * beta / left) * model(x, t).x0 + float((1 - beta).sqrt() * (1 - before) / left) * x
        if not t:
            return mean, state
        variance = beta if noise.variance == "large" else (1 - before) / left * beta
        return mean + float(variance.sqrt()) * required(draws).like(x), state

    return step

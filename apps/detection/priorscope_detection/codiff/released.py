"""CoDiff's released diffusion: continuous time, one condition a step, its defects kept. For parity with golden cases.

What is kept: a run starts from the fused feature itself, not from noise; the condition changes from step to step; x0 is
cut to [-1, 1] and the result to [0, 1], though features have no upper end. Our own diffusion is
:mod:`priorscope_detection.codiff.model`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser, Level, Prediction, StepInfo
from priorscope.diffusion.losses import denoising_loss
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.schedule import FunctionSchedule, Schedule
from priorscope.diffusion.solvers import ddpm_ancestral
from priorscope_detection.codiff.released_unet import ReleasedUnet

_LOWEST, _HIGHEST = -15.0, 15.0


def cosine_log_snr(t: Any) -> Any:
    """Log of alpha^2 / sigma^2 at a time in [0, 1], from 15 down to -15; numbers, arrays or tensors.

    Source: Kingma et al. 2021 (variational diffusion models), for the cosine schedule.
    """
    low, high = np.arctan(np.exp(-0.5 * _HIGHEST)), np.arctan(np.exp(-0.5 * _LOWEST))
    angle = low + t * (high - low)
    tangent = torch.tan(angle) if isinstance(angle, torch.Tensor) else np.tan(angle)
    return -2 * (torch.log(tangent) if isinstance(tangent, torch.Tensor) else np.log(tangent))


def released_schedule() -> FunctionSchedule:
    """Times from 1 (noise) to 0."""
    return FunctionSchedule(
        lambda t: np.sqrt(1 / (1 + np.exp(-cosine_log_snr(t)))), lambda t: np.sqrt(1 / (1 + np.exp(cosine_log_snr(t))))
    )


def released_diffusion(network: ReleasedUnet) -> Denoiser:
    """The network as the core's denoiser of noise; it is told the log-SNR."""
    return Denoiser(network, released_schedule(), "epsilon", time_label=cosine_log_snr)


def released_loss(
    denoiser: Denoiser,
    x0: torch.Tensor,
    eps: torch.Tensor,
    times: torch.Tensor,
    condition: torch.Tensor,
    *,
    crop: tuple[slice, slice] = (slice(None), slice(None)),
) -> torch.Tensor:
    """Squared error of the noise, weighted by min(SNR, 5) / SNR.

    Parameters
    ----------
    x0, eps, condition : Tensor (B, C, H, W)
    times : Tensor (B,)
    crop : pair of slice
        Rows and columns that count; as released rows 2 to 102 and columns 2 to 254, whatever the size.
    """
    mask = torch.zeros(1, 1, *x0.shape[2:], dtype=torch.bool, device=x0.device)
    mask[:, :, crop[0], crop[1]] = True
    return denoising_loss(denoiser, x0, eps, times, Condition({"condition": condition}), mask=mask, weighting="min-snr")


#: Rows and columns that count in the released loss.
RELEASED_CROP = (slice(2, 102), slice(2, 254))


class _StepConditions:
    """A model with another condition at each step."""

    def __init__(self, model: Denoiser, conditions: torch.Tensor) -> None:
        self.model = model
        self.schedule: Schedule = model.schedule
        self.conditions = conditions

    def __call__(
        self, x: torch.Tensor, t: Level, condition: Condition | None = None, info: StepInfo | None = None
    ) -> Prediction:
        info = info or StepInfo()
        others = self.conditions.shape[1] - 1
        each = info.total // (others + 1)
        index = min(info.index // each, others) if each else 0
        return self.model(x, t, Condition({"condition": self.conditions[:, index]}), info)


def clamped(x: torch.Tensor, t: Level, prediction: Prediction, info: StepInfo, *, schedule: Schedule) -> Prediction:
    """x0 cut to [-1, 1], and the noise that it leaves."""
    alpha, sigma = schedule.coefficients(t, x)
    x0 = prediction.x0.clamp(-1, 1)
    return Prediction(x0, (x - alpha * x0) / sigma)


def _released_step(
    model: Any, x: torch.Tensor, t: float, s: float, state: Any, noise: Noise | None
) -> tuple[torch.Tensor, Any]:
    """DDPM's ancestral step; the last one gives the mean."""
    if s > 0:
        return ddpm_ancestral(model, x, t, s, state, noise)
    return ddpm_ancestral(model, x, t, s, state, _Silent())


class _Silent(Noise):
    def draw(
        self, shape: Any, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        return torch.zeros(tuple(shape), device=device, dtype=dtype)


def released_sample(
    denoiser: Denoiser, conditions: torch.Tensor, steps: int = 8, noise: Noise | None = None
) -> torch.Tensor:
    """Run as released: from the first condition, at the noisiest level.

    Parameters
    ----------
    denoiser : Denoiser
        From :func:`released_diffusion`.
    conditions : Tensor (B, L + 1, C, H, W)
        The fused feature's latent, then each agent's, zeros for absent ones. Step i of N is given number
        ``i // (N // (L + 1))``, at most L; with N < L + 1 always the first.
    steps : int
    noise : Noise, optional
        Of every step but the last.

    Returns
    -------
    Tensor (B, C, H, W)
        In [0, 1].
    """
    schedule = denoiser.schedule
    times = np.linspace(1.0, 0.0, steps + 1).tolist()

    def constraint(x: torch.Tensor, t: Level, prediction: Prediction, info: StepInfo) -> Prediction:
        return clamped(x, t, prediction, info, schedule=schedule)

    model = _StepConditions(denoiser, conditions)
    x = sample(model, conditions[:, 0], times, step=_released_step, noise=noise, constraint=constraint)
    return (x.clamp(-1, 1) + 1) / 2

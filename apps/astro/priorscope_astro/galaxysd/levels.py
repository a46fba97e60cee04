"""The noise levels of GalaxySD's published runs: Stable Diffusion 1.5's betas, in the coordinates of k-diffusion.

There x_t = x_0 + sigma eps, and the network sees x_t / sqrt(sigma^2 + 1).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.schedule import EDMSchedule
from priorscope.errors import InputError

#: Stable Diffusion 1.5's ``scaled_linear`` betas.
BETA_START, BETA_END, TRAIN_STEPS = 0.00085, 0.012, 1000
#: As published.
STEPS, GUIDANCE, SOLVER = 40, 6.5, "euler-ancestral"


def sigma_table() -> NDArray[np.float32]:
    """sigma of the 1000 steps the network was trained on, rising: float32 (1000,).

    Rounded as diffusers does, in float32, so that a run starts from the published 14.614647.
    """
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_STEPS, dtype=torch.float32) ** 2
    kept = torch.cumprod(1.0 - betas, dim=0)
    return ((1 - kept) / kept).sqrt().numpy()


def noise_levels(steps: int = STEPS) -> tuple[list[float], list[float]]:
    """Levels of a run and what the network is told at each.

    Parameters
    ----------
    steps : int
        2 or more.

    Returns
    -------
    sigmas : list of float
        ``steps + 1`` levels, the last 0.
    labels : list of float
        ``steps`` time labels, evenly spaced from 999 to 0, not rounded (diffusers' ``linspace`` spacing).

    Raises
    ------
    InputError
        Fewer than 2 steps, or more than 1000.

    Source: GalaxySD ``cfgs/infer/text2img_galaxy_full.yaml``; diffusers ``EulerAncestralDiscreteScheduler``.
    """
    if not 2 <= steps <= TRAIN_STEPS:
        raise InputError(f"{steps} steps", remedy=f"Use 2 to {TRAIN_STEPS}.")
    labels = np.linspace(0, TRAIN_STEPS - 1, steps, dtype=np.float32)[::-1]
    sigmas = np.interp(labels, np.arange(TRAIN_STEPS), sigma_table()).astype(np.float32)
    return [*sigmas.astype(float).tolist(), 0.0], labels.astype(float).tolist()


def denoiser_of(network: Callable[..., torch.Tensor]) -> Denoiser:
    """The denoiser of a network that predicts noise, as the published runs ask it.

    Parameters
    ----------
    network : callable
        ``network(x, label, **condition)``, see :class:`priorscope.backbones.stable_diffusion.UNetNetwork`.
    """
    table = sigma_table().astype(float)
    return Denoiser(
        network,
        EDMSchedule(sigma_min=float(table[0]), sigma_max=float(table[-1])),
        "epsilon",
        # sigma is interpolated linearly between steps, so its inverse is too
        time_label=lambda sigma: float(np.interp(float(sigma), table, np.arange(TRAIN_STEPS))),
        input_scale=lambda alpha, sigma: 1 / (sigma**2 + 1) ** 0.5,
    )

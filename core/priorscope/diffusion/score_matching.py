"""Denoising score matching: what score-based models are trained on."""

from __future__ import annotations

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser


def score_matching_loss(
    denoiser: Denoiser, x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor, condition: Condition | None = None
) -> torch.Tensor:
    """Half the squared error of sigma times the score, summed over an item and averaged over the batch.

    Parameters
    ----------
    denoiser : Denoiser
        Of any prediction type: sigma times the score is -eps.
    x0, eps : Tensor (B, ...)
        Clean samples and standard normal noise.
    t : Tensor (B,)
        Levels with noise. DiffusionMBIR draws them uniformly from 1e-5 to 1.
    condition : Condition, optional

    Returns
    -------
    Tensor ()
        In float32.

    Notes
    -----
    Song et al. 2021, equation 7, with the weight sigma^2: official ``get_sde_loss_fn`` with ``reduce_mean=False``.
    """
    noisy = denoiser.schedule.add_noise(x0, t, eps)
    error = (denoiser(noisy, t, condition).eps - eps).float()
    return 0.5 * error.square().flatten(1).sum(1).mean()

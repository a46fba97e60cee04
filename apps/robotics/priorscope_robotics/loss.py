"""What a diffusion policy is trained on: the error of the network at noised plans."""

from __future__ import annotations

import torch

from priorscope.diffusion.losses import masked_mean
from priorscope_robotics.model import ACTION, Given, PolicyModel


def clean_trajectory(model: PolicyModel, actions: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
    """What is denoised, (B, T, D): normalised actions and, where these are inpainted, features of all T observations.

    Parameters
    ----------
    model : PolicyModel
    actions : Tensor (B, T, action_dim)
        In their unit.
    features : Tensor (B, T, F), optional
        Normalised.
    """
    plan = model.normalizer.normalize(ACTION, actions)
    return plan if features is None else torch.cat([plan, features], -1)


def policy_loss(
    model: PolicyModel,
    given: Given,
    x0: torch.Tensor,
    eps: torch.Tensor,
    t: torch.Tensor,
    *,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean squared error of the network's output.

    Parameters
    ----------
    model : PolicyModel
    given : Given
        Known entries are shown to the network free of noise. They add nothing to the sum, but count in the mean, as
        published.
    x0, eps : Tensor (B, T, D)
        Clean trajectories and noise.
    t : Tensor (B,)
        Steps of the schedule.
    valid : bool Tensor (B, T), optional
        Steps inside the episode; with it the mean is over those alone (LeRobot's ``do_mask_loss_for_padding``).

    Returns
    -------
    Tensor ()
    """
    denoiser = model.denoiser()
    noisy = given.known(denoiser.schedule.add_noise(x0, t, eps))
    output = denoiser.raw(noisy, t, given.condition)
    error = (output.float() - denoiser.target(x0, eps, t).float()).square()
    if given.mask is not None:
        error = torch.where(given.mask, 0.0, error)
    return masked_mean(error, None if valid is None else valid[..., None])

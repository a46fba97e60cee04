"""Guidance of a sample by a picture with haze over it, of which only this is known: it is smooth, and it adds light.

So structure finer than haze is followed, a sample brighter than the picture is pulled down, and slow changes of
brightness are left to the prior but for a small weight.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from priorscope.diffusion.denoiser import Level, Prediction, StepInfo
from priorscope.errors import InputError
from priorscope.inverse.guidance import GradientStep, check_measurement


class SmoothHazeGuidance(GradientStep):
    """Constraint and ``correct``, used as :class:`~priorscope.inverse.dps.DPS`: a step of ``omega`` times the gradient

        of sqrt(|r - S r|^2 + |(-r)_+|^2 + hold^2 |r|^2),  r = y - x0,

    through the network, for each item; S is a Gaussian blur.

    Parameters
    ----------
    y : Tensor (B, 1, H, W)
        The pictures in the prior's numbers.
    omega : float
    sigma : float
        Standard deviation of S in pixels: what is smoother than this may be haze.
    hold : float
        Weight of the whole misfit, from 0 (slow brightness is the prior's alone) to 1.
    """

    def __init__(self, y: torch.Tensor, *, omega: float, sigma: float = 6.0, hold: float = 0.1) -> None:
        if min(omega, hold) < 0 or sigma <= 0:
            raise InputError(f"omega {omega}, hold {hold}, sigma {sigma}", remedy="None is negative, sigma is above 0.")
        self.y, self.omega, self.sigma, self.hold = check_measurement(y), omega, sigma, hold

    def __call__(self, x: torch.Tensor, t: Level, prediction: Prediction, info: StepInfo) -> Prediction:
        misfit = self.y - prediction.x0
        fine = misfit - blurred(misfit, self.sigma)
        squares = fine.square() + functional.relu(-misfit).square() + (self.hold * misfit).square()
        sums = squares.flatten(1).sum(1)
        norms = sums.detach().sqrt()
        # where the misfit is 0 its gradient is, too
        loss = self.omega * (sums / (2 * torch.where(norms > 0, norms, 1.0))).sum()
        (self.gradient,) = torch.autograd.grad(loss, x)
        return prediction


def blurred(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    """(B, 1, H, W) convolved with a Gaussian; the border is repeated outside."""
    reach = max(1, round(3 * sigma))
    places = torch.arange(-reach, reach + 1, dtype=pictures.dtype, device=pictures.device)
    bell = torch.exp(-((places / sigma) ** 2) / 2)
    bell = bell / bell.sum()
    padded = functional.pad(pictures, (reach,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(padded, bell[None, None, :, None]), bell[None, None, None, :])

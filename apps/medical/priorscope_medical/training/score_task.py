"""Training of NCSN++: denoising score matching on variance-exploding noise, as DiffusionMBIR's priors were."""

from __future__ import annotations

import torch

from priorscope.diffusion.score_matching import score_matching_loss
from priorscope_medical.training.task import PriorTask

_SMALLEST_LEVEL = 1e-5


class ScorePriorTask(PriorTask):
    """Half the squared error of sigma times the score, summed over a slice's pixels, at uniform levels."""

    levels = (0.2, 0.4, 0.6, 0.8, 0.95)

    def level_of(self, share: torch.Tensor) -> torch.Tensor:
        return _SMALLEST_LEVEL + (1 - _SMALLEST_LEVEL) * share

    def loss(self, x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return score_matching_loss(self.prior.denoiser, x0, eps, t)

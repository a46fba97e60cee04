"""Training of NCSN++: denoising score matching on variance-exploding noise, as DiffusionMBIR's priors were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from priorscope.diffusion.score_matching import score_matching_loss
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.task import Task
from priorscope_medical.score_prior import ScorePrior

#: Levels of the held-out loss, so that its figures can be compared.
_LEVELS = (0.2, 0.4, 0.6, 0.8, 0.95)
_SMALLEST_LEVEL = 1e-5


class ScorePriorTask(Task):
    """A :class:`priorscope.training.Task` on batches of :class:`~.feed.SliceFeed`.

    The loss of a slice is half the squared error of sigma times the score, summed over its pixels.

    Parameters
    ----------
    prior : ScorePrior
    held_out : Tensor (N, 1, H, W), optional
        Slices in the prior's unit that no training step sees.
    """

    def __init__(self, prior: ScorePrior, held_out: torch.Tensor | None = None) -> None:
        super().__init__(prior.network)
        self.prior = prior
        self.held_out = held_out

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        x0 = self.prior.to_network(batch["image"])
        # drawn on the CPU, so that a run is the same wherever it trains
        t = _SMALLEST_LEVEL + (1 - _SMALLEST_LEVEL) * torch.rand(len(x0))
        eps = torch.randn(x0.shape).to(x0)
        return {"loss": score_matching_loss(self.prior.denoiser, x0, eps, t.to(x0.device))}

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        """Loss on held-out slices at fixed levels and noise."""
        if self.held_out is None:
            return {}
        generator = torch.Generator().manual_seed(0)
        found = {}
        for level in _LEVELS:
            eps = torch.randn(self.held_out.shape, generator=generator)
            total = 0.0
            for part, noise in zip(self.held_out.split(8), eps.split(8), strict=True):
                x0 = self.prior.to_network(part.to(self.prior.device))
                t = torch.full((len(part),), level, device=x0.device)
                total += float(score_matching_loss(self.prior.denoiser, x0, noise.to(x0), t)) * len(part)
            found[f"held_out_loss_{level:g}"] = total / len(self.held_out)
        found["held_out_loss"] = sum(found.values()) / len(_LEVELS)
        return found

    def save(self, folder: Path) -> None:
        """Write the prior."""
        self.prior.save_pretrained(folder)

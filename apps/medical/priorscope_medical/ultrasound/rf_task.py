"""The training task of RF priors: the error of the network's output, at levels that matter for separation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from priorscope.diffusion.condition import Condition
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.task import Task
from priorscope_medical.training.task import random_draws
from priorscope_medical.ultrasound.quadrature import as_rows
from priorscope_medical.ultrasound.rf_prior import SCHEDULE, RfPrior

#: Of the held-out error: noise in units of the RMS of hazy RF.
LEVELS = (0.02, 0.1, 0.5, 2.0)
#: Levels are drawn between these, evenly in their logarithm: weak echoes to loud ones.
_RANGE = (0.01, 10.0)


class RfPriorTask(Task):
    """A :class:`priorscope.training.Task` on batches of :class:`~.patches.PatchFeed`.

    Parameters
    ----------
    prior : RfPrior
    held_out : dict, optional
        A batch that no training step sees.
    """

    def __init__(self, prior: RfPrior, held_out: dict[str, Any] | None = None) -> None:
        super().__init__(prior.network)
        self.prior, self.held_out = prior, held_out

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Surprise at the clean coefficients, of mean g c and variance sigma^2 g, and the squared error.

        Both are least where g is Wiener's gain; the surprise is as strict with weak frequencies as with strong ones,
        which matters where two priors' variances are compared.
        """
        x0 = self.prior.values.to_network(batch["image"])
        share, eps = random_draws(batch["seed"], x0)
        low, high = (math.log(level) for level in _RANGE)
        level = low + (high - low) * share.float()
        sigma = torch.exp(level)[:, None, None, None]
        gain, noisy = self.prior.network.gain_of(x0 + sigma * eps, level, batch["top"])
        clean = self.prior.network.gains.spectrum.forward(as_rows(x0.float()))
        error = torch.view_as_real(gain * noisy - clean).square().sum(-1) / 2
        surprise = (error / (gain * sigma**2) + gain.log()).mean()
        std = self.prior.values.std
        squared = (error * (1 / sigma**2 + 1 / std**2)).mean()
        return {"loss": surprise + squared, "surprise": surprise, "squared": squared}

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        """Relative error of x0 on held-out patches, in dB, at fixed levels and noise."""
        if self.held_out is None:
            return {}
        generator = torch.Generator().manual_seed(0)
        found = {}
        for level in LEVELS:
            loss = power = 0.0
            for part, top in zip(self.held_out["image"].split(16), self.held_out["top"].split(16), strict=True):
                x0 = self.prior.values.to_network(part.to(self.prior.device))
                eps = torch.randn(x0.shape, generator=generator).to(x0)
                answer = self.prior.denoiser(x0 + level * eps, SCHEDULE.level(level), Condition({"top": top.to(x0)}))
                loss += float((answer.x0 - x0).square().sum())
                power += float(x0.square().sum())
            found[f"held_out_error_db_{level:g}"] = 10 * math.log10(loss / power)
        found["held_out_error_db"] = sum(found.values()) / len(LEVELS)
        return found

    def save(self, folder: Path) -> None:
        """Write the prior."""
        self.prior.save_pretrained(folder)

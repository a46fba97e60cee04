"""Marigold: denoise the annotation's latent at a random step, beside the image's latent."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.losses import denoising_loss
from priorscope.diffusion.multi_resolution import annealed_noise
from priorscope_depth.training.task import DepthTask, item_noise, latent_mask


class MarigoldTask(DepthTask):
    """Squared error of v on latents, with noise of several resolutions.

    Parameters
    ----------
    strength : float
        Of the coarser noise at the last step; it falls in proportion to the step ("annealed"). 0: plain noise.

    Source: specs of Marigold's training (Ke et al. 2024): posterior mean, v-prediction, uniform steps, annealed
    multi-resolution noise of strength 0.9, mask over latents.
    """

    strength: float = 0.9

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        latent = self.predictor.latent
        seeds = batch["seed"]
        noise = item_noise(seeds)
        with torch.no_grad():
            given = latent.encode(batch["image"], noise)
            target = latent.encode(batch["target"], noise)
        last = latent.denoiser.schedule.start
        draws = [np.random.default_rng([int(seed), 7]) for seed in seeds.tolist()]
        times = torch.tensor([float(draw.integers(int(last) + 1)) for draw in draws], device=target.device)
        eps = annealed_noise(target, [t / (last + 1) for t in times.tolist()], draws, strength=self.strength)
        condition = latent.condition.merged(Condition({"image": given}))
        mask = latent_mask(batch["counts"], latent.latents.factor)
        return {"loss": denoising_loss(latent.denoiser, target, eps, times, condition, mask=mask)}

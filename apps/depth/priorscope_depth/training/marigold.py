"""Marigold: denoise the annotation's latent at a random step, beside the image's latent."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.losses import denoising_loss
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
        eps = torch.cat(
            [
                multi_resolution_noise(target[row : row + 1], self.strength * float(times[row]) / (last + 1), draw)
                for row, draw in enumerate(draws)
            ]
        )
        condition = latent.condition.merged(Condition({"image": given}))
        mask = latent_mask(batch["counts"], latent.latents.factor)
        return {"loss": denoising_loss(latent.denoiser, target, eps, times, condition, mask=mask)}


def multi_resolution_noise(like: torch.Tensor, strength: float, draw: np.random.Generator) -> torch.Tensor:
    """White noise plus ever coarser, weaker noise, brought to variance 1.

    Parameters
    ----------
    like : Tensor (1, C, H, W)
        Shape, device and dtype.
    strength : float
        Weight of each coarser level relative to the one before.
    draw : numpy Generator

    Notes
    -----
    Each level is 2 to 4 times smaller than the one before, until a side is one pixel; levels are enlarged
    bilinearly. The sum is divided by its own standard deviation.
    """
    height, width = like.shape[-2:]
    total = torch.from_numpy(draw.standard_normal(like.shape, dtype=np.float32))
    if strength > 0:
        scale, level = 1.0, 1
        while min(height, width) / scale > 1:
            scale *= draw.uniform(2, 4)
            size = max(int(height / scale), 1), max(int(width / scale), 1)
            coarse = torch.from_numpy(draw.standard_normal((*like.shape[:2], *size), dtype=np.float32))
            total += strength**level * functional.interpolate(
                coarse, (height, width), mode="bilinear", align_corners=False
            )
            level += 1
        total /= total.std()
    return total.to(like)

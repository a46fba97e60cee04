"""Lotus: paint the annotation and, with the task switched, the image itself, in one step."""

from __future__ import annotations

from typing import Any

import torch

from priorscope.backbones.stable_diffusion import sincos_embedding
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.losses import masked_mean
from priorscope.diffusion.noise import Noise
from priorscope.predictors.latent import LatentPredictor
from priorscope_depth.training.task import DepthTask, item_noise, latent_mask


class LotusTask(DepthTask):
    """Squared error of latents: of the annotation where it is known, plus that of the image (detail preserver).

    ``detail``, the weight of the reconstruction, is 1 in the paper; at 0 it is not computed, which halves the work.
    """

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return lotus_losses(
            self.predictor.latent,
            batch["image"],
            batch["target"],
            batch["counts"],
            item_noise(batch["seed"], copies=2 if self.detail else 1),
            detail=self.detail,
        )


def lotus_losses(
    latent: LatentPredictor,
    image: torch.Tensor,
    annotation: torch.Tensor,
    counts: torch.Tensor,
    noise: Noise,
    *,
    detail: float = 1.0,
) -> dict[str, torch.Tensor]:
    """The losses of Lotus' training step.

    Parameters
    ----------
    latent : LatentPredictor
        Of the families lotus-g or lotus-d. Its posterior says whether images are encoded with noise.
    image, annotation : Tensor (B, 3, H, W) in [-1, 1]
    counts : bool Tensor (B, 1, H, W)
        Where the annotation is known; a latent pixel counts if all of its pixels do.
    noise : Noise
        2 B rows (B without the detail preserver): for the posterior of the input, for that of the target, and
        for lotus-g's noise, drawn in this order.
    detail : float

    Returns
    -------
    dict of Tensor ()
        ``loss``, ``annotation`` and, unless ``detail`` is 0, ``reconstruction``.

    Source: train_lotus_g.py and train_lotus_d.py. Lotus-G's target is noised at step 999, where the published
    schedule leaves 7 % of its amplitude: in training a little signal shines through.
    """
    rows = image.shape[0]
    inputs = torch.cat([image, image]) if detail else image
    wanted = torch.cat([annotation, image]) if detail else annotation
    with torch.no_grad():
        given = latent.encode(inputs, noise)
        target = latent.encode(wanted, noise)
    denoiser = latent.denoiser
    level = latent.times[0]
    if latent.stochastic:
        noisy = denoiser.schedule.add_noise(target, level, noise.like(target))
    else:
        noisy = torch.zeros_like(target)
    tasks = latent.condition["task"].expand(rows, -1)
    if detail:
        rebuild = sincos_embedding([0, 1]).to(tasks)
        tasks = torch.cat([tasks, rebuild.expand(rows, -1)])
    condition = latent.condition.merged(Condition({"image": given, "task": tasks}))
    error = (denoiser.raw(noisy, level, condition).float() - target.float()).square()
    known = latent_mask(counts, latent.latents.factor)
    losses = {"annotation": masked_mean(error[:rows], known)}
    losses["loss"] = losses["annotation"]
    if detail:
        losses["reconstruction"] = error[rows:].mean()
        losses["loss"] = losses["annotation"] + detail * losses["reconstruction"]
    return losses

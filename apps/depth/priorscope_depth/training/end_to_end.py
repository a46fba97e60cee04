"""E2E-FT: one step, decoded, and compared with the truth on pixels."""

from __future__ import annotations

from typing import Any

import torch

from priorscope_depth.losses import angular_loss, ssi_loss, unit
from priorscope_depth.training.task import DepthTask, channel_mean, item_noise


class EndToEndTask(DepthTask):
    """Scale- and shift-invariant L1 of depth, or the angle between normals, through the frozen decoder.

    Source: Garcia et al. 2024 (E2E-FT). The target of depth is metric; a disparity model is compared with the
    true disparity, which is our extension.
    """

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        latent = self.predictor.latent
        with torch.no_grad():
            given = latent.encode(batch["image"], item_noise(batch["seed"]))
        painted = latent.latents.decode(latent.predict_latents(given)).float()
        if self.predictor.task == "normals":
            return {"loss": angular_loss(unit(painted).clamp(-1, 1), batch["target"], batch["counts"])}
        valid, depth = batch["valid"], batch["depth"]
        if self.predictor.space == "disparity":
            depth = torch.where(valid, 1 / depth.clamp(min=1e-3), 0)
        return {"loss": ssi_loss(channel_mean(painted).clamp(-1, 1), depth, valid)}

"""Our own recipe for small models: what the evaluation measures, made smooth, on pixels."""

from __future__ import annotations

from typing import Any

import torch

from priorscope_depth.losses import relative_depth_loss, relative_l1
from priorscope_depth.training.task import DepthTask, channel_mean, item_noise


class PixelTask(DepthTask):
    """Relative error of depth after the best affine fit, plus a weaker error of the disparity itself.

    The second part gives the affine-invariant answer a scale, a shift and a sky; it needs no fit. For
    disparity models in one step.
    """

    published = False
    anchor: float = 0.2

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        latent = self.predictor.latent
        with torch.no_grad():
            given = latent.encode(batch["image"], item_noise(batch["seed"]))
        painted = channel_mean(latent.latents.decode(latent.predict_latents(given)).float())
        valid = batch["valid"]
        relative = relative_depth_loss(painted, batch["depth"], valid)
        anchor = relative_l1(painted, batch["target"][:, :1], valid, batch["counts"])
        return {"loss": relative + self.anchor * anchor, "relative": relative, "anchor": anchor}

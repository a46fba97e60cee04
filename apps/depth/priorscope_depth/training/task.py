"""What the recipes share: a predictor that is trained, looked at and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from priorscope.diffusion.noise import Noise, item_seed
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.task import Task
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.training.look import HeldOut
from priorscope_depth.training.save import save_model


class DepthTask(Task):
    """Derive from it and give ``forward``; batches come from :class:`~priorscope_depth.training.feed.PairFeed`.

    Parameters
    ----------
    predictor : DepthPredictor
        Unfolded: its U-Net is what gets trained (with LoRA, only its updates).
    held_out : HeldOut, optional
        Images to look at while training.

    Attributes
    ----------
    published : bool
        Whether the recipe is a paper's, so that training sets are prepared as the paper does.
    detail : float
        Weight of the detail preserver, for recipes that have one.
    save_half : bool
        Save the weights in float16.
    scheduler : dict or None
        Scheduler configuration to save beside the model.
    """

    published = True
    detail: float = 1.0
    save_half: bool = True
    scheduler: dict[str, Any] | None = None

    def __init__(self, predictor: DepthPredictor, held_out: HeldOut | None = None) -> None:
        super().__init__(predictor.latent.denoiser.network.unet)  # type: ignore[attr-defined]
        self.model.requires_grad_(True)
        self.predictor = predictor
        self.held_out = held_out

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        return {} if self.held_out is None else self.held_out.look(self.predictor, run, step)

    def save(self, folder: Path) -> None:
        save_model(self.predictor, folder, half=self.save_half, scheduler=self.scheduler)


def item_noise(seeds: torch.Tensor, *, copies: int = 1) -> Noise:
    """Noise for a batch whose examples have these seeds (B,), ``copies`` times over (B, then B others)."""
    numbers = [int(seed) for seed in seeds.tolist()]
    return Noise.per_item([item_seed(number, copy) for copy in range(copies) for number in numbers])


def latent_mask(counts: torch.Tensor, factor: int) -> torch.Tensor:
    """Latent pixels all of whose image pixels count: (B, 1, H, W) bool to (B, 1, H / factor, W / factor)."""
    return functional.max_pool2d((~counts).float(), factor) == 0


def channel_mean(image: torch.Tensor) -> torch.Tensor:
    """One channel from the three equal ones that a depth map is painted in: (B, 3, H, W) to (B, 1, H, W)."""
    return image.mean(1, keepdim=True)

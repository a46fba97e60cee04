"""What a model of galaxies is trained on, and what is looked at on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.data.images import write_png
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.losses import denoising_loss
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.task import Task
from priorscope_astro.diffusion.model import GalaxyModel

#: Galaxies of a look.
SHOWN = 8


class GalaxyTask(Task):
    """The squared error of v at uniform levels, on batches of :class:`~priorscope_astro.diffusion.feed.GalaxyFeed`.

    Parameters
    ----------
    model : GalaxyModel
    held_out : dict, optional
        A batch of the same kind that no step sees: its loss is measured, and galaxies are drawn for its conditions.
    save_half : bool
        Save weights as float16.
    """

    def __init__(self, model: GalaxyModel, held_out: dict[str, Any] | None = None, *, save_half: bool = True) -> None:
        super().__init__(model.unet)
        model.unet.requires_grad_(True)
        self.galaxies, self._held_out, self._save_half = model, held_out, save_half

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        space = self.galaxies.space
        x0, eps = space.encode(batch["image"]), space.encode(batch["eps"])
        condition = Condition({"answers": batch["answers"]})
        return {"loss": denoising_loss(self.galaxies.denoiser, x0, eps, batch["t"], condition)}

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        """``held_out_loss``, of fixed levels and noise; figures/step-N.png: held-out galaxies above drawn ones."""
        if self._held_out is None:
            return {}
        device = self.galaxies.device
        batch = {name: v.to(device) if isinstance(v, torch.Tensor) else v for name, v in self._held_out.items()}
        count = min(SHOWN, len(batch["key"]))
        drawn = self.galaxies.generate(batch["answers"][:count].cpu().numpy(), range(count))
        scaling = self.galaxies.scaling
        real = scaling.images(batch["image"][:count].cpu().numpy())
        rows = [np.concatenate([preview(self.galaxies, image) for image in images], 1) for images in (real, drawn)]
        write_png(run.figures / f"step-{step:07d}.png", np.concatenate(rows), overwrite=True)
        return {"held_out_loss": float(self.forward(batch)["loss"])}

    def save(self, folder: Path) -> None:
        """Write a folder that :func:`priorscope_astro.diffusion.load_galaxy_model` loads."""
        self.galaxies.save(folder, half=self._save_half)


def preview(model: GalaxyModel, image: NDArray[Any]) -> NDArray[np.uint8]:
    """An image of a model as a picture uint8 (side, side, 3), to look at; of flux the stretched values, red first."""
    if model.spec.mode == "display":
        return image
    stretch = model.scaling.stretch
    assert stretch is not None  # a model of flux has one
    y = stretch.apply(image)  # unchecked: what a model draws early may be no galaxy, and is looked at all the same
    bands = [min(place, len(y) - 1) for place in (2, 1, 0)]
    grey = np.stack([y[band] for band in bands], -1)
    return np.ascontiguousarray((grey.clip(0, 1) * 255).round().astype(np.uint8)[::-1])

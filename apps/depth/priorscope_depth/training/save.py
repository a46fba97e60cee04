"""Write a trained model as the folder that ``--model`` takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from priorscope.backbones.latents import PatchSpace
from priorscope.backbones.loading import save_component
from priorscope.data.files import write_text
from priorscope.data.weights_file import save_file
from priorscope.errors import InputError
from priorscope_depth.predictor import DepthPredictor


def save_model(
    predictor: DepthPredictor, folder: Path, *, half: bool = True, scheduler: dict[str, Any] | None = None
) -> Path:
    """Write ``unet/``, ``vae/``, the prompt's state, ``priorscope.json`` and, for Marigold and E2E-FT, ``scheduler/``.

    Parameters
    ----------
    predictor : DepthPredictor
    folder : Path
        Must not exist.
    half : bool
        Store the U-Net in float16: half the size, and enough to predict with.
    scheduler : dict, optional
        diffusers scheduler configuration, for families that follow one.
    """
    unet = predictor.latent.denoiser.network.unet  # type: ignore[attr-defined]
    if getattr(unet, "is_folded", False):
        raise InputError("a folded model cannot be saved", remedy="Load it with fold=False.")
    save_component(unet, folder / "unet", dtype=torch.float16 if half else torch.float32)
    space = predictor.latent.latents
    if isinstance(space, PatchSpace):
        write_text(folder / "vae/config.json", f'{{"_class_name": "PatchSpace", "patch": {space.factor}}}\n')
    else:
        save_component(space.vae, folder / "vae")  # type: ignore[attr-defined]
    if scheduler is not None:
        write_text(folder / "scheduler/scheduler_config.json", json.dumps(scheduler, indent=2) + "\n")
    save_file({"state": predictor.latent.condition["text"].cpu().contiguous()}, folder / "empty_prompt.safetensors")
    geometry = predictor.geometry
    predictor.recipe.save(folder, resolution=geometry.resolution, multiple=geometry.multiple)
    return folder

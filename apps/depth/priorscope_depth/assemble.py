"""Assemble a family's predictor from its parts, and read what its folder says about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from priorscope.backbones.latents import LatentSpace, PatchSpace, Posterior
from priorscope.backbones.loading import read_config
from priorscope.backbones.stable_diffusion import UNetNetwork, sincos_embedding
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.schedule import VPSchedule
from priorscope.diffusion.spacing import spaced_times
from priorscope.errors import InputError
from priorscope.predictors.geometry import Geometry
from priorscope.predictors.latent import LatentPredictor
from priorscope_depth.families import Family, Recipe


def build_predictor(
    unet: Any,
    latents: LatentSpace,
    prompt: torch.Tensor,
    recipe: Recipe,
    *,
    scheduler: dict[str, Any] | None = None,
    steps: int | None = None,
    posterior: Posterior = "mode",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LatentPredictor:
    """Assemble a family's predictor from its parts.

    Parameters
    ----------
    unet : UNet2DConditionModel
    prompt : Tensor (1, tokens, width)
        State of the empty prompt.
    recipe : Recipe
    scheduler : dict, optional
        diffusers scheduler configuration, for families that follow one.
    steps : int, optional
        Only generative families with a schedule (Marigold) take another number than 1.
    """
    family = recipe.family
    condition = {"text": prompt}
    if family.task_switcher:
        condition["task"] = sincos_embedding([1, 0])
    times: Sequence[float]
    if family.schedule == "zero":
        schedule = VPSchedule(np.zeros(1000))
    elif family.schedule == "sd2":
        schedule = VPSchedule.from_betas()
    else:
        config = scheduler or {}
        schedule = VPSchedule.from_scheduler_config(config)
    if family.schedule == "config" and family.generative:
        config = scheduler or {}
        times = spaced_times(
            schedule,
            family.steps if steps is None else steps,
            config.get("timestep_spacing", "leading"),
            offset=config.get("steps_offset", 0),
        )
    else:
        if steps not in (None, 1):
            raise InputError(f"{steps} steps of {family.name}, which is a one-step model", remedy="Use --steps 1.")
        times = [schedule.start, schedule.end] if family.generative else [schedule.start]
    denoiser = Denoiser(UNetNetwork(unet, family.inputs), schedule, family.prediction_type, time_label=family.label)
    shared = Condition(condition, shared=condition).to(device, dtype)
    return LatentPredictor(denoiser, latents, shared, times, posterior=posterior)


def official_geometry(family: Family, resolution: int = 768) -> Geometry:
    """How the authors' own code brings pictures to size and predictions back (parity): without padding.

    Marigold's sizes are Lotus', its way back is bilinear (prs-eth/Marigold; diffusers' pipeline pads).

    Raises
    ------
    InputError
        A family whose code was not read.
    """
    if family.official_geometry == "lotus":
        return Geometry.lotus(resolution)
    if family.official_geometry == "marigold":
        return Geometry(resolution, multiple=1, float_factor=True)
    raise InputError(
        f"--official-geometry of {family.name}, whose authors' code was not read for it", remedy="Leave it out."
    )


def refuse_patches(model: str, latents: LatentSpace) -> None:
    """For --official-geometry: a model on patches of pixels is ours, and has to see whole ones (InputError)."""
    if isinstance(latents, PatchSpace):
        raise InputError(
            f"--official-geometry for {model}, which sees pictures as it was trained", remedy="Leave it out."
        )


def on_patches(folder: Path) -> bool:
    """Whether the latents of a model folder are patches of pixels, whose encoding is certain."""
    return read_config(folder / "vae").get("_class_name") == "PatchSpace"


def check_posterior(posterior: Posterior | None, model: str, latents: LatentSpace) -> None:
    """Refuse a sampled encoding where there is nothing to sample (InputError)."""
    if posterior == "sample" and isinstance(latents, PatchSpace):
        raise InputError(
            f"--posterior sample changes nothing of {model}: its latents are patches of pixels, which have no spread",
            remedy="Leave out --posterior.",
        )


PARTS: list[str] = [
    "model_index.json",
    "priorscope.json",
    "empty_prompt.safetensors",
    "unet",
    "vae",
    "scheduler",
    "text_encoder",
    "tokenizer",
]


def own_settings(folder: Path) -> dict[str, Any]:
    """Settings that a folder states: ours in priorscope.json, Marigold's defaults in model_index.json."""
    settings: dict[str, Any] = {}
    for name in ("model_index.json", "priorscope.json"):
        if (folder / name).exists():
            config = read_config(folder, name)
            for key, ours in (
                ("default_denoising_steps", "steps"),
                ("default_processing_resolution", "resolution"),
            ):
                if config.get(key) is not None:
                    settings[ours] = config[key]
            settings.update({key: config[key] for key in ("resolution", "multiple", "steps") if key in config})
    return settings


def scheduler_config(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    if recipe.family.schedule != "config":
        return None
    config = read_config(folder / "scheduler", "scheduler_config.json")
    stated = config.get("prediction_type", "epsilon")
    if stated != f"{recipe.family.prediction_type}_prediction":
        raise InputError(
            f"states prediction_type {stated!r}, but a {recipe.family.name} model predicts v",
            path=folder / "scheduler",
            remedy="These are the weights of another family: check --model and --family.",
        )
    return config

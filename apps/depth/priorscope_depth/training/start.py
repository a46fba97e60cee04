"""What a training starts from: a model of a family, plain Stable Diffusion, or a small network with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from priorscope.backbones.latents import LatentSpace, PatchSpace, Posterior, load_latent_space
from priorscope.backbones.loading import locate, model_folder, read_config
from priorscope.backbones.prompt import prompt_state
from priorscope.backbones.stable_diffusion import (
    SD2_V_SCHEDULER,
    TASK_SWITCHER,
    expand_conv_in,
    load_unet,
    with_task_switcher,
)
from priorscope.backbones.table import find_published
from priorscope.errors import InputError
from priorscope.predictors.geometry import Geometry
from priorscope_depth.assemble import PARTS, build_predictor, check_posterior, scheduler_config
from priorscope_depth.families import FAMILIES, MODELS, Recipe
from priorscope_depth.predictor import DepthPredictor

#: The small network: 1.5 million parameters, for pictures of about 256 pixels.
TINY_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (16, 32, 56, 72),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "attention_head_dim": (1, 1, 2, 2),
    "cross_attention_dim": 16,
    "use_linear_projection": True,
}
_PATCH = 4


@dataclass(frozen=True)
class Start:
    """A predictor to train, and the scheduler configuration that must be saved with it."""

    predictor: DepthPredictor
    scheduler: dict[str, Any] | None = None


def start_from(
    model: str,
    *,
    family: str | None = None,
    task: str | None = None,
    space: str | None = None,
    posterior: Posterior | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Start:
    """The predictor that a training starts from.

    Parameters
    ----------
    model : str
        ``"new"``: a small network with random weights. Else a name in the model table, a hub id or a folder: of
        one of the families, which is trained further, or of Stable Diffusion 2, which becomes one.
    family, task, space : str, optional
        For ``"new"`` and for Stable Diffusion (default lotus-d, depth, disparity; Marigold and E2E-FT: depth in
        space depth), and for folders whose name does not tell.
    posterior : {"mode", "sample"}, optional
        How images are encoded. Default: as the family's authors train.
    seed : int
        For new weights.

    Raises
    ------
    InputError
        As loading does, and a sampled posterior of patches of pixels.

    Returns
    -------
    Start
        In float32, on ``device``, U-Net in channels_last, which on a CPU is faster and rounds a little more.
    """
    if model == "new":
        start = _new(_recipe(family, task, space), seed)
    else:
        folder = None if find_published(model, MODELS) else _base_folder(model)
        if folder is not None:
            start = _from_base(folder, _recipe(family, task, space), seed)
        else:
            predictor = DepthPredictor.from_pretrained(
                model, family=family, task=task, space=space, device=str(device), precision="float32", fold=False
            )
            config = None
            if predictor.recipe.family.schedule == "config":
                config = scheduler_config(model_folder(model, PARTS, MODELS), predictor.recipe)
            start = Start(predictor, config)
    predictor = start.predictor
    check_posterior(posterior, model, predictor.latent.latents)
    predictor.latent.posterior = posterior or predictor.recipe.family.official_posterior
    predictor.latent.denoiser.network.unet.to(device, memory_format=torch.channels_last)  # type: ignore[attr-defined]
    predictor.latent.latents.to(device)
    predictor.latent.condition = predictor.latent.condition.to(torch.device(device))
    predictor.device = torch.device(device)
    return start


def _recipe(family: str | None, task: str | None, space: str | None) -> Recipe:
    chosen = family or "lotus-d"
    if chosen not in FAMILIES or chosen == "genpercept":
        raise InputError(f"--family {chosen}", remedy=f"Train one of {', '.join(set(FAMILIES) - {'genpercept'})}.")
    task = task or "depth"
    default = "disparity" if chosen.startswith("lotus") and task == "depth" else "depth"
    return Recipe(FAMILIES[chosen], task, space or default)  # type: ignore[arg-type]


def _new(recipe: Recipe, seed: int) -> Start:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    family = recipe.family
    latents = PatchSpace(_PATCH)
    config = TINY_UNET | {
        "in_channels": latents.channels * len(family.inputs),
        "out_channels": latents.channels,
        **(TASK_SWITCHER if family.task_switcher else {}),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**config)
    prompt = torch.zeros(1, 2, TINY_UNET["cross_attention_dim"])
    return _assemble(unet, latents, prompt, recipe, Geometry(256, multiple=_PATCH), name="tiny-depth")


def _base_folder(model: str) -> Path | None:
    """The folder of a text-to-image model; None where the model is something else."""
    here = Path(model)
    if not here.exists() and "stable-diffusion" not in model:
        return None
    if here.is_dir() and not (here / "model_index.json").is_file():
        return None
    folder = locate(model, PARTS)
    if (folder / "priorscope.json").exists() or not (folder / "model_index.json").is_file():
        return None
    is_base = read_config(folder, "model_index.json").get("_class_name") == "StableDiffusionPipeline"
    # E2E-FT publishes under the same class: its scheduler predicts v in trailing steps
    scheduler = folder / "scheduler/scheduler_config.json"
    fine_tuned = scheduler.is_file() and (
        read_config(folder / "scheduler", "scheduler_config.json").get("timestep_spacing") == "trailing"
    )
    return folder if is_base and not fine_tuned else None


def _from_base(folder: Path, recipe: Recipe, seed: int) -> Start:
    """The surgery of the papers: input layer widened, task switcher added, the rest as it was."""
    family = recipe.family
    latents = load_latent_space(folder / "vae")
    prompt = prompt_state(folder, padding=family.prompt)
    unet = load_unet(folder / "unet", expect={"in_channels": latents.channels, "cross_attention_dim": prompt.shape[-1]})
    if family.task_switcher:
        unet = with_task_switcher(unet, seed)
    if len(family.inputs) == 2:
        expand_conv_in(unet)
    return _assemble(unet, latents, prompt, recipe, Geometry(), name=folder.name)


def _assemble(
    unet: Any, latents: LatentSpace, prompt: torch.Tensor, recipe: Recipe, geometry: Geometry, *, name: str
) -> Start:
    scheduler = None
    if recipe.family.schedule == "config":
        scheduler = SD2_V_SCHEDULER | {"rescale_betas_zero_snr": recipe.family.generative}
    latent = build_predictor(unet, latents, prompt, recipe, scheduler=scheduler)
    predictor = DepthPredictor(latent, recipe, geometry=geometry, name=name)
    return Start(predictor, scheduler)

"""A frozen network other than the published one to read preimages from, and the folder of a model trained on it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from priorscope.backbones.latents import LatentSpace, PatchSpace, load_latent_space
from priorscope.backbones.loading import model_folder, read_config, save_component
from priorscope.backbones.prompt import prompt_state
from priorscope.backbones.stable_diffusion import load_unet, sincos_embedding
from priorscope.backbones.state_dict import filled, read_safetensors
from priorscope.backbones.table import PublishedModel, find_published
from priorscope.data.files import write_text
from priorscope.data.weights_file import save_file
from priorscope.errors import InputError
from priorscope.predictors.geometry import Geometry
from priorscope_depth.assemble import PARTS
from priorscope_depth.families import MODELS, recognise
from priorscope_depth.primedepth.architecture import Architecture
from priorscope_depth.primedepth.labeller import Labeller
from priorscope_depth.primedepth.model import PrimeDepthModel
from priorscope_depth.primedepth.source import SIZES

#: The trained part of a model in a folder of ours.
WEIGHTS = "labeller.safetensors"
#: How it is asked: the level's label, the task, the pictures' size.
ASKED = "asked.json"
_LAST_STEP = 999.0
_UNET_SIZES = (
    "in_channels",
    "block_out_channels",
    "layers_per_block",
    "attention_head_dim",
    "cross_attention_dim",
    "down_block_types",
    "up_block_types",
)


@dataclass(frozen=True)
class Backbone:
    """A frozen U-Net with all that it is asked with.

    Parameters
    ----------
    unet : UNet2DConditionModel
    latents : LatentSpace
    text : Tensor (1, tokens, width)
        State of the empty prompt.
    label : float or None
        What it is told about the noise, where that is not the level.
    task : Tensor (1, n) or None
    """

    unet: Any
    latents: LatentSpace
    text: torch.Tensor
    label: float | None = None
    task: torch.Tensor | None = None

    def architecture(self, *, ratio: float = 0.5, refined: int = 0, widths: Sequence[int] = ()) -> Architecture:
        """Sizes of a trained part that fits; by default the published head, narrowed as the U-Net is."""
        config = {name: self.unet.config[name] for name in _UNET_SIZES}
        levels = len(config["block_out_channels"])
        if isinstance(config["attention_head_dim"], int):
            config["attention_head_dim"] = (config["attention_head_dim"],) * levels
        if not widths:
            halvings = int(math.log2(self.latents.factor))
            first = max(8, config["block_out_channels"][0] * 2 // 5 // 8 * 8)
            widths = tuple(first * min(2**level, 4) for level in range(halvings + 1))
        return Architecture(
            unet=config,
            vae={},
            text=None,
            tokens=self.text.shape[1],
            ratio=ratio,
            refined=refined or widths[-1],
            head={"block_out_channels": tuple(widths), "layers_per_block": 1, "norm_num_groups": 8},
        )

    def model(self, labeller: Labeller, **options: Any) -> PrimeDepthModel:
        """The whole model; options as of :class:`PrimeDepthModel`."""
        return PrimeDepthModel(
            self.unet, self.latents, labeller, self.text, label=self.label, task=self.task, **options
        )


def load_backbone(source: str | Path, rows: Sequence[PublishedModel] = MODELS) -> Backbone:
    """A backbone by name, hub id or folder: Stable Diffusion in diffusers' layout, or a one-step depth model.

    Raises
    ------
    InputError
        A model that takes more than an image latent; what strict loading refuses.
    """
    folder = model_folder(source, PARTS, rows)
    latents = load_latent_space(folder / "vae")
    label, task, padding = None, None, "max_length"
    depth_model = find_published(str(source), rows) or any(row.source.endswith(f"/{folder.name}") for row in rows)
    if depth_model or (folder / "priorscope.json").exists():
        family = recognise(folder, name=str(source)).family
        if family.inputs != ("image",):
            raise InputError(
                f"a {family.name} model takes {' and '.join(family.inputs)}",
                path=folder,
                remedy="Take one whose U-Net takes one latent: Stable Diffusion itself, Lotus-D, E2E-FT's of plain SD.",
            )
        # such a model knows one step only, the last where its family names none
        label, padding = family.label or _LAST_STEP, family.prompt
        task = sincos_embedding([1, 0]) if family.task_switcher else None
    text = prompt_state(folder, padding=padding)  # type: ignore[arg-type]
    expected = {
        "in_channels": latents.channels,
        "cross_attention_dim": text.shape[-1],
        "class_embed_type": None if task is None else "projection",
    }
    unet = load_unet(folder / "unet", expect=expected)
    return Backbone(unet, latents, text, label, task)


def save_trained(model: PrimeDepthModel, architecture: Architecture, geometry: Geometry, folder: Path) -> None:
    """Write a model of ours as the folder that ``--model`` takes: sizes, U-Net, latent space, caption, trained part."""
    save_component(model.unet, folder / "unet", dtype=torch.float16)
    if isinstance(model.latents, PatchSpace):
        write_text(folder / "vae/config.json", f'{{"_class_name": "PatchSpace", "patch": {model.latents.factor}}}\n')
    else:
        save_component(model.latents.vae, folder / "vae")  # type: ignore[attr-defined]
    _save({"state": model.text}, folder / "empty_prompt.safetensors", half=False)
    _save(model.labeller.state_dict(), folder / WEIGHTS)
    asked = {
        "label": model.denoiser.time_label,
        "task": None if model.task is None else model.task.tolist(),
        "resolution": geometry.resolution,
        "multiple": geometry.multiple,
    }
    write_text(folder / ASKED, json.dumps(asked, indent=2) + "\n")
    architecture.save(folder / SIZES)


def load_trained(
    folder: Path, *, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[PrimeDepthModel, Geometry]:
    """A model that :func:`save_trained` wrote, and its own geometry; options as of :class:`PrimeDepthModel`.

    The U-Net is in ``dtype``, the rest in float32.
    """
    architecture = Architecture.load(folder / SIZES)
    asked = read_config(folder, ASKED)
    text = read_safetensors(folder / "empty_prompt.safetensors")["state"]
    task = None if asked.get("task") is None else torch.tensor(asked["task"])
    unet, latents = load_unet(folder / "unet", dtype=dtype), load_latent_space(folder / "vae")
    backbone = Backbone(unet, latents, text, asked.get("label"), task)
    with torch.device("meta"):
        labeller = Labeller(architecture)
    path = folder / WEIGHTS
    geometry = Geometry(asked.get("resolution", 0), upscale=True, multiple=asked.get("multiple", 1))
    return backbone.model(filled(labeller, read_safetensors(path), path), **options), geometry


def _save(state: dict[str, torch.Tensor], path: Path, *, half: bool = True) -> None:
    dtype = torch.float16 if half else torch.float32
    weights = {key: value.detach().to("cpu", dtype).contiguous() for key, value in state.items()}
    save_file(weights, path, metadata={"format": "pt"})

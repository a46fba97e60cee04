"""Find and load GalaxySD: a diffusers folder, or HCP-Diffusion's two files on top of Stable Diffusion 1.5."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from priorscope.backbones.latents import LatentSpace, load_latent_space
from priorscope.backbones.loading import load_component, locate, model_folder, read_config
from priorscope.backbones.stable_diffusion import load_unet
from priorscope.backbones.state_dict import cast, filled
from priorscope.backbones.table import find_published
from priorscope.errors import InputError
from priorscope_astro.data.learnt import Learnt
from priorscope_astro.galaxysd.names import Kind, from_hcp
from priorscope_astro.galaxysd.text import load_tokenizer
from priorscope_astro.model_files import all_files, part_files
from priorscope_astro.published import MODELS

#: What HCP-Diffusion's files go on top of, unless told otherwise.
STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
_NETWORKS = ("unet", "text_encoder", "vae")
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "model_index.json")


@dataclass(frozen=True)
class GalaxySDParts:
    """The networks of a GalaxySD model, in evaluation mode, without gradients.

    Attributes
    ----------
    unet : UNet2DConditionModel
    text_encoder : CLIPTextModel
    tokenizer : tokenizer of transformers
    latents : LatentSpace
    files : mapping
        Name -> file of all that acts on what it draws: weights and configurations of the three networks, tokenizer.
    learnt : Learnt or None
        The galaxies that a training of ours has taught it; None of published weights.
    """

    unet: Any
    text_encoder: Any
    tokenizer: Any
    latents: LatentSpace
    files: Mapping[str, Path]
    learnt: Learnt | None = None


def load_galaxysd(
    source: str | Path,
    *,
    base: str | Path | None = None,
    kind: Kind = "base",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
) -> GalaxySDParts:
    """Load a model by its name in the model table, hub id or folder.

    Parameters
    ----------
    source : str or Path
        A diffusers folder (``unet/``, ``vae/``, ``text_encoder/``, ``tokenizer/``), or a folder that holds, at any
        depth, HCP-Diffusion's ``unet-STEP.safetensors`` and ``text_encoder-STEP.safetensors``; of several steps the
        last is taken.
    base : str or Path, optional
        Folder or hub id of Stable Diffusion 1.5, which HCP files go on top of. Both of its trained networks are
        replaced whole. Default: ``stable-diffusion-v1-5/stable-diffusion-v1-5``.
    kind : {"base", "base_ema"}
        Which weights of an HCP file.
    dtype : torch.dtype
    revision : str, optional
        Of ``source``, on the hub.

    Raises
    ------
    InputError
        A missing part or key, one that is not known, weights of another network.
    """
    folder = model_folder(source, [*_PARTS, "*.safetensors"], MODELS, revision=revision)
    if (folder / "unet" / "config.json").is_file():
        if base is not None:
            raise InputError(
                "is a whole model, and another one to put it on is named",
                path=folder,
                remedy="Leave --base out: it goes with HCP-Diffusion's files.",
            )
        return _diffusers(folder, dtype)
    return _hcp(*_hcp_files(folder), locate(base or STABLE_DIFFUSION, _PARTS), kind, dtype)


def refuse_other_folder(source: str | Path) -> None:
    """Raise where a path holds no GalaxySD, or is none; the hub is not asked.

    Raises
    ------
    InputError
    """
    if find_published(str(source), MODELS) is not None:
        return
    path = Path(source).expanduser()
    if not path.exists() and str(source).count("/") == 1:
        return  # a hub id
    folder = model_folder(source, [], MODELS)
    if not (folder / "unet" / "config.json").is_file():
        _hcp_files(folder)


def _hcp_files(folder: Path) -> tuple[Path, Path]:
    unet, text_encoder = hcp_file(folder, "unet"), hcp_file(folder, "text_encoder")
    if unet is None or text_encoder is None:
        lacking = "unet" if unet is None else "text_encoder"
        raise InputError(
            f"holds neither unet/config.json nor {lacking}-STEP.safetensors",
            path=folder,
            remedy="Give a diffusers folder, HCP-Diffusion's folder with both files, or a run of `train`.",
        )
    return unet, text_encoder


def hcp_file(folder: Path, name: str) -> Path | None:
    """The file ``NAME-STEP.safetensors`` of the last step below a folder, None where there is none."""
    found = []
    for path in folder.rglob(f"{name}*.safetensors"):
        match = re.fullmatch(rf"{name}(?:-(\d+))?", path.stem)
        if match:
            found.append((int(match[1] or 0), path))
    return max(found)[1] if found else None


def _diffusers(folder: Path, dtype: torch.dtype) -> GalaxySDParts:
    from transformers import CLIPTextModel

    # the small parts first: what is wrong with them is said before gigabytes are read
    tokenizer = load_tokenizer(folder / "tokenizer")
    latents = load_latent_space(folder / "vae", dtype=dtype)
    text_encoder = load_component(CLIPTextModel, folder / "text_encoder", dtype=dtype)
    unet = load_unet(folder / "unet", dtype=dtype, expect=_expected(text_encoder))
    files = {name: path for part in _NETWORKS for name, path in part_files(folder, part).items()}
    files |= all_files(folder, "tokenizer")
    return GalaxySDParts(unet, text_encoder, tokenizer, latents, files, Learnt.read(folder))


def _hcp(unet_file: Path, text_file: Path, base: Path, kind: Kind, dtype: torch.dtype) -> GalaxySDParts:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = load_tokenizer(base / "tokenizer")
    latents = load_latent_space(base / "vae", dtype=dtype)
    with torch.device("meta"):
        text_encoder = CLIPTextModel(CLIPTextConfig(**read_config(base / "text_encoder")))
    _fill(text_encoder, text_file, kind, dtype)
    count = text_encoder.config.max_position_embeddings
    for module in text_encoder.modules():  # a buffer that no file holds
        if getattr(module, "position_ids", None) is not None:
            module.position_ids = torch.arange(count)[None]
    config = read_config(base / "unet")
    for key, value in _expected(text_encoder).items():
        if config.get(key) != value:
            raise InputError(f"has {key} = {config.get(key)!r}, GalaxySD needs {value!r}", path=base / "unet")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    _fill(unet, unet_file, kind, dtype)
    files = {unet_file.name: unet_file, text_file.name: text_file}
    files |= {f"base/{part}/config.json": base / part / "config.json" for part in ("unet", "text_encoder")}
    files |= part_files(base, "vae", "base/") | all_files(base, "tokenizer", "base/")
    return GalaxySDParts(unet, text_encoder, tokenizer, latents, files)


def _expected(text_encoder: Any) -> dict[str, Any]:
    """What the configuration of the U-Net must say: that of a text-to-image model of 4 channels for this encoder."""
    return {"in_channels": 4, "out_channels": 4, "cross_attention_dim": int(text_encoder.config.hidden_size)}


def _fill(network: Any, path: Path, kind: Kind, dtype: torch.dtype) -> None:
    """Give a network without weights those of an HCP file: all of them, and no others."""
    try:
        weights = from_hcp(load_file(path), kind)
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot be read: {error}", path=path, remedy="Download it again.") from error
    except InputError as error:
        raise InputError(error.fact, path=path, remedy=error.remedy) from None
    remedy = "Is it GalaxySD's file, downloaded completely, and is --base Stable Diffusion 1.5?"
    filled(network, cast(weights, dtype), path, remedy=remedy)

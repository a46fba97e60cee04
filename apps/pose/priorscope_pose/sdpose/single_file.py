"""SDPose in one safetensors file: U-Net, autoencoder and head, no text encoder (as ComfyUI takes it).

Not verified: the published file (Comfy-Org/SDPose) could not be opened here. Known are its parts and size, and that
ComfyUI, which writes such files, names networks as CompVis' latent diffusion did. So the parts are found by what
their keys say: the U-Net behind ``model.diffusion_model.`` or ``unet.``, the autoencoder behind ``first_stage_model.``
or ``vae.``, each in the names of latent diffusion or of diffusers, and the head behind ``heatmap_head.``, wherever
that stands. Whatever is left over, or lacking, is an error that names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from priorscope.backbones.latents import AutoencoderSpace
from priorscope.backbones.stable_diffusion import SD2_UNET, SD_VAE, TASK_SWITCHER
from priorscope.backbones.state_dict import cast, filled
from priorscope.errors import InputError
from priorscope_pose.sdpose.head import HeatmapHead

Weights = dict[str, torch.Tensor]

_HEAD = "heatmap_head."
#: Prefixes of each part, and the one that diffusers' converter of latent diffusion's names wants to see.
_PREFIXES = {
    "unet": ("model.diffusion_model.", "unet."),
    "vae": ("first_stage_model.", "vae."),
}
#: Names of attention layers before diffusers 0.18 -> today's.
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
_REMEDY = "Is it a whole SDPose checkpoint: U-Net, autoencoder and head?"


def read_single_file(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    unet_config: dict[str, Any] | None = None,
    vae_config: dict[str, Any] | None = None,
) -> tuple[Any, AutoencoderSpace, HeatmapHead]:
    """The networks of a file: U-Net in ``dtype``, autoencoder and head in float32; without gradients.

    Parameters
    ----------
    path : Path
        A safetensors file of any precision.
    unet_config, vae_config : dict, optional
        Sizes, which no such file states. Default: those of Stable Diffusion 2, as published.

    Raises
    ------
    InputError
        What is not such a file; keys that lack or are left over.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"is no safetensors file that can be read ({error})", path=path) from None
    try:
        parts = split_parts(state)
        unet_config = TASK_SWITCHER | (SD2_UNET if unet_config is None else unet_config)
        vae_config = SD_VAE if vae_config is None else vae_config
        head = HeatmapHead.from_state(parts["head"])
        with torch.device("meta"):
            unet, vae = UNet2DConditionModel(**unet_config), AutoencoderKL(**vae_config)
        filled(unet, cast(_unet_names(parts["unet"], unet_config), dtype), path, remedy=_REMEDY)
        filled(vae, cast(_vae_names(parts["vae"], vae_config)), path, remedy=_REMEDY)
    except InputError as error:
        raise InputError(error.fact, path=path, remedy=error.remedy or _REMEDY) from None
    return unet, AutoencoderSpace(vae), head.eval().requires_grad_(False)


def read_head(path: Path) -> HeatmapHead:
    """The head of a file, in float32, without reading the networks; errors as :func:`read_single_file`'s."""
    try:
        with safe_open(path, framework="pt") as file:
            weights = {key.rpartition(_HEAD)[2]: file.get_tensor(key) for key in list(file.keys()) if _HEAD in key}
    except (OSError, SafetensorError) as error:
        raise InputError(f"is no safetensors file that can be read ({error})", path=path) from None
    try:
        return HeatmapHead.from_state(weights)
    except InputError as error:
        raise InputError(error.fact, path=path, remedy=error.remedy or _REMEDY) from None


def split_parts(state: Weights) -> dict[str, Weights]:
    """Weights of ``unet``, ``vae`` and ``head`` without their prefixes; an InputError for keys of none of them."""
    parts: dict[str, Weights] = {"unet": {}, "vae": {}, "head": {}}
    left = []
    for key, value in state.items():
        before, found, after = key.rpartition(_HEAD)
        if found and (not before or before in _PREFIXES["unet"]):
            parts["head"][after] = value
            continue
        part, prefix = next(
            ((part, prefix) for part, prefixes in _PREFIXES.items() for prefix in prefixes if key.startswith(prefix)),
            ("", ""),
        )
        if part:
            parts[part][key.removeprefix(prefix)] = value
        else:
            left.append(key)
    lacking = [part for part, weights in parts.items() if not weights]
    if lacking:
        raise InputError(f"has no weights of the {' and the '.join(lacking)}", remedy=_REMEDY)
    if left:
        raise InputError(f"has {len(left)} keys of no known part ({', '.join(sorted(left)[:3])})", remedy=_REMEDY)
    return parts


def _unet_names(weights: Weights, config: dict[str, Any]) -> Weights:
    if not any(key.startswith("input_blocks.") for key in weights):
        return weights
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    prefix = _PREFIXES["unet"][0]
    try:
        converted = convert_ldm_unet_checkpoint({prefix + key: value for key, value in weights.items()}, config)
    except KeyError as error:
        raise InputError(f"the U-Net lacks {error.args[0]}") from None
    return _all_used(weights, converted, "U-Net")


def _vae_names(weights: Weights, config: dict[str, Any]) -> Weights:
    if any(key.startswith("encoder.down.") for key in weights):
        from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

        prefix = _PREFIXES["vae"][0]
        converted = convert_ldm_vae_checkpoint({prefix + key: value for key, value in weights.items()}, config)
        return _all_used(weights, converted, "autoencoder")
    renamed = {}
    for key, value in weights.items():
        for old, new in _OLD_ATTENTION.items():
            key = key.replace(old, new)
        renamed[key] = value.squeeze() if ".attentions." in key and value.ndim == 4 else value
    return renamed


def _all_used(weights: Weights, converted: Weights, name: str) -> Weights:
    """``converted``, if nothing of ``weights`` was passed over: diffusers' converters drop what they do not know."""
    used = {value.data_ptr() for value in converted.values()}
    unexpected = sorted(key for key, value in weights.items() if value.data_ptr() not in used)
    if unexpected:
        raise InputError(f"the {name} has {len(unexpected)} unexpected keys ({', '.join(unexpected[:3])})")
    return converted

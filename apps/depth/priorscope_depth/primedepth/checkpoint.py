"""Reading PrimeDepth's checkpoint, to the last key: a Lightning ``.ckpt`` in latent diffusion's names.

The U-Net, the autoencoder, the text tower and the trained part lie in one state dict. Two kinds of keys are not read:
the noise schedule's buffers, which follow from two numbers, and the head for semantic segmentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from priorscope.backbones.latents import AutoencoderSpace
from priorscope.backbones.ldm_names import clip_text_name, split_attention, take, unet_names, vae_name
from priorscope.backbones.state_dict import cast, filled
from priorscope.data.torch_pickle import load_tensors_and, only_described
from priorscope.errors import InputError
from priorscope_depth.primedepth.architecture import Architecture
from priorscope_depth.primedepth.labeller import Labeller, labeller_name, set_epsilon

State = dict[str, torch.Tensor]

#: What the parts are called in the file.
PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text": "cond_stage_model.model.",
    "labeller": "labeller.",
}
#: Buffers of the noise schedule; ours is computed.
BUFFERS = frozenset(
    {
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "logvar",
    }
)
#: The head for semantic segmentation, which depth needs nothing of.
SEGMENTATION = "label_predictor."
#: Parts of the text tower that only compare texts with pictures.
_UNUSED_TEXT = ("text_projection", "logit_scale")
#: What Lightning keeps beside the weights: described, not loaded.
_STUBBED = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "typing", "argparse.Namespace")
_CONVERT = "Convert its state_dict to safetensors where you trust it, and give that file."
_REMEDY = "Is it PrimeDepth's whole checkpoint, completely downloaded?"


@dataclass(frozen=True)
class Networks:
    """What :func:`read_networks` found in a file.

    Parameters
    ----------
    unet : UNet2DConditionModel
    latents : AutoencoderSpace
        Its decoder is the depth head, so that one streams as the other does.
    labeller : Labeller
    notes : tuple of str
        What a user may want to know about the file.
    """

    unet: Any
    latents: AutoencoderSpace
    labeller: Labeller
    notes: tuple[str, ...] = ()


def read_state(path: Path) -> State:
    """The state dict of a file, mapped, not read.

    Raises
    ------
    InputError
        No such file, one that is damaged, or one that names a class or function which is neither a tensor's nor among
        what Lightning keeps beside the weights (settings, states of callbacks), which is described and not loaded.
    """
    if not path.is_file():
        raise InputError("no such checkpoint file", path=path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = load_tensors_and(path, only_described(_STUBBED, path, _CONVERT), mapped=True)
    except InputError:
        raise
    except Exception as error:  # a damaged archive may raise anything
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"cannot be read as a checkpoint ({reason})", path=path, remedy=_REMEDY) from None
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError("holds no state_dict of tensors", path=path, remedy=_REMEDY)
    return dict(state)


def split_parts(state: State) -> dict[str, State]:
    """The weights of each part (:data:`PREFIXES`, and ``segmentation``) without its prefix.

    Raises
    ------
    InputError
        A part that is missing; keys of no part.
    """
    parts: dict[str, State] = {name: {} for name in (*PREFIXES, "segmentation")}
    left = []
    for key, value in state.items():
        name = next((name for name, prefix in PREFIXES.items() if key.startswith(prefix)), None)
        if name is not None:
            inner = key.removeprefix(PREFIXES[name])
            if name == "labeller" and inner.startswith(SEGMENTATION):
                name = "segmentation"
            parts[name][inner] = value
        elif key not in BUFFERS:
            left.append(key)
    lacking = [PREFIXES[name] + "*" for name in ("unet", "vae", "labeller") if not parts[name]]
    if lacking:
        raise InputError(f"has no keys {' and '.join(lacking)}", remedy=_REMEDY)
    if left:
        raise InputError(f"has {len(left)} keys of no known part ({', '.join(sorted(left)[:3])})", remedy=_REMEDY)
    return parts


def read_networks(
    path: Path,
    architecture: Architecture | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    tiled: bool = False,
) -> Networks:
    """The networks of a file, on the CPU, without gradients: the U-Net in ``dtype``, the others in float32.

    Parameters
    ----------
    path : Path
        ``.ckpt`` as published, or a safetensors file of its state dict.
    architecture : Architecture, optional
        Sizes, which the file does not state. Default: the published ones.
    tiled : bool
        Encode in tiles, see :class:`~priorscope.backbones.latents.AutoencoderSpace`.

    Raises
    ------
    InputError
        What :func:`read_state` refuses; keys that are missing, unexpected or of another shape.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    sizes = architecture or Architecture()
    state = read_state(path)
    try:
        parts = split_parts(state)
        with torch.device("meta"):
            unet = UNet2DConditionModel(**sizes.unet)
            vae = AutoencoderKL(**vae_config(sizes))
            labeller = Labeller(sizes)
        names = unet_names(unet.state_dict(), sizes.unet["layers_per_block"])
        levels = len(sizes.vae["block_out_channels"])
        filled(unet, cast(take(unet.state_dict(), parts["unet"], names.__getitem__), dtype), path)
        filled(vae, cast(take(vae.state_dict(), parts["vae"], lambda key: vae_name(key, levels))), path)
        head_levels = len(sizes.head["block_out_channels"])
        own = take(labeller.state_dict(), parts["labeller"], lambda key: labeller_name(key, head_levels))
        filled(labeller, cast(own), path)
    except InputError as error:
        raise InputError(error.fact, path=path, remedy=error.remedy or _REMEDY) from None
    set_epsilon(vae.encoder)
    notes = ("the file's head for segmentation is not loaded",) if parts["segmentation"] else ()
    return Networks(unet, latent_space(vae, labeller, tiled=tiled), labeller, notes)


def latent_space(vae: Any, labeller: Labeller, *, tiled: bool = False) -> AutoencoderSpace:
    """The autoencoder's latent space, with the depth head where its own decoder was, which nothing needs here."""
    vae.decoder, vae.post_quant_conv = labeller.depth_predictor, None
    return AutoencoderSpace(vae, tiled=tiled)


def read_text_encoder(path: Path, architecture: Architecture | None = None) -> Any:
    """The text tower of a file as a ``CLIPTextModel``, float32, without gradients; errors as :func:`read_networks`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = architecture or Architecture()
    state = read_state(path)
    try:
        weights = {key: value for key, value in split_parts(state)["text"].items() if key not in _UNUSED_TEXT}
        if sizes.text is None or not weights:
            raise InputError(f"has no keys {PREFIXES['text']}*")
        with torch.device("meta"):
            model = CLIPTextModel(CLIPTextConfig(**sizes.text))
        filled(model, cast(take(model.state_dict(), split_attention(weights), clip_text_name)), path)
    except InputError as error:
        raise InputError(error.fact, path=path, remedy=error.remedy or _REMEDY) from None
    # a buffer that is in no state dict: it was made on the meta device
    embeddings = next(module for module in model.modules() if hasattr(module, "position_ids"))
    embeddings.position_ids = torch.arange(sizes.text["max_position_embeddings"])[None]
    return model


def vae_config(architecture: Architecture) -> dict[str, Any]:
    """The autoencoder's sizes with the kinds of blocks that go with them."""
    levels = len(architecture.vae["block_out_channels"])
    return {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        **architecture.vae,
    }

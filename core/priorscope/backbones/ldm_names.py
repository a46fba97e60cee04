"""What CompVis' latent diffusion calls the weights of the networks that diffusers and transformers build.

Checkpoints from before diffusers' layout name U-Net, autoencoder and text tower by place: ``input_blocks.4.1`` is the
transformer of the first residual block of the second level. Each function gives the published name of a key of ours, so
that a file can be read, and written, to the last key (:func:`take`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch

from priorscope.errors import InputError

_UNET = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding.linear_1": "label_emb.0.0",
    "class_embedding.linear_2": "label_emb.0.2",
}
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def residual_name(key: str) -> str:
    """A key of a ``ResnetBlock2D`` as latent diffusion's ``ResBlock`` calls it."""
    stem, _, leaf = key.rpartition(".")
    return f"{_RESIDUAL.get(stem, stem)}.{leaf}"


def _unet_name(key: str, layers: int) -> str:
    """The published name, with ``{after}`` for the place of an upsampler in its block."""
    stem, _, leaf = key.rpartition(".")
    if stem in _UNET:
        return f"{_UNET[stem]}.{leaf}"
    match = re.fullmatch(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(\w+)\.(\d+)\.(.*)", key)
    if match is None:
        return key
    side, level, kind, place, rest = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    residual = kind == "resnets"
    if residual:
        rest = residual_name(rest)
    if side is None:
        return f"middle_block.{2 * place if residual else 1}.{rest}"
    first = level * (layers + 1)
    if side == "down":
        if kind == "downsamplers":
            return f"input_blocks.{1 + first + layers}.0.op.{leaf}"
        return f"input_blocks.{1 + first + place}.{0 if residual else 1}.{rest}"
    if kind == "upsamplers":
        return f"output_blocks.{first + layers}.{{after}}.conv.{leaf}"
    return f"output_blocks.{first + place}.{0 if residual else 1}.{rest}"


def unet_names(keys: Iterable[str], layers: int = 2) -> dict[str, str]:
    """The published name of every key of a ``UNet2DConditionModel`` with ``layers`` blocks a level."""
    names = {key: _unet_name(key, layers) for key in keys}
    # an upsampler comes after the transformer, where its block has one
    attending = {name.split(".")[1] for name in names.values() if re.match(r"output_blocks\.\d+\.1\.(?!conv)", name)}
    return {key: name.format(after=2 if name.split(".")[1] in attending else 1) for key, name in names.items()}


def vae_name(key: str, levels: int = 4) -> str:
    """A key of an ``AutoencoderKL``, or of its encoder or decoder alone, as latent diffusion calls it.

    Its attention layers are 1 x 1 convolutions there (:func:`take` takes the two sides off).
    """
    match = re.fullmatch(r"(.*mid)_block\.attentions\.0\.(.*)\.(\w+)", key)
    if match is not None:
        return f"{match[1]}.attn_1.{_VAE_ATTENTION[match[2]]}.{match[3]}"
    key = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d+)\.resnets", lambda found: f"up.{levels - 1 - int(found[1])}.block", key)
    key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"up.{levels - 1 - int(found[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d+)", lambda found: f"mid.block_{int(found[1]) + 1}", key)
    return key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")


def clip_text_name(key: str) -> str:
    """A key of a ``CLIPTextModel`` as open_clip's text tower calls it.

    That tower keeps queries, keys and values in one matrix: :func:`split_attention` takes them apart first.
    """
    key = key.removeprefix("text_model.")
    match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)\.(\w+)", key)
    if match is None:
        return _CLIP.get(key, key)
    return f"transformer.resblocks.{match[1]}.{_CLIP_LAYER.get(match[2], match[2])}.{match[3]}"


def split_attention(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip's weights with each ``attn.in_proj_*`` as the three that :func:`clip_text_name` names; views."""
    parts: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        stem, found, leaf = key.partition(".attn.in_proj_")
        if not found or value.shape[0] % 3:
            parts[key] = value
            continue
        for name, part in zip("qkv", value.chunk(3), strict=True):
            parts[f"{stem}.self_attn.{name}_proj.{leaf}"] = part
    return parts


def take(
    keys: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], name: Callable[[str], str]
) -> dict[str, torch.Tensor]:
    """The weights of a module out of a published state, no more and no less.

    Parameters
    ----------
    keys : mapping of str to Tensor
        The module's ``state_dict()``, on any device; for its keys and shapes.
    state : mapping of str to Tensor
        Under their published names.
    name : callable
        The published name of a key.

    Returns
    -------
    dict
        Under the module's names. A convolution of 1 x 1 becomes a matrix where the module has one.

    Raises
    ------
    InputError
        Names the published keys that are missing, or that nothing asks for.
    """
    wanted = {key: name(key) for key in keys}
    missing = sorted(set(wanted.values()) - set(state))
    unexpected = sorted(set(state) - set(wanted.values()))
    facts = [
        f"{len(found)} {kind} keys ({', '.join(found[:3])}{f' and {len(found) - 3} more' if len(found) > 3 else ''})"
        for kind, found in (("missing", missing), ("unexpected", unexpected))
        if found
    ]
    if facts:
        raise InputError("; ".join(facts))
    return {key: _as_matrix(state[name], keys[key].ndim) for key, name in wanted.items()}


def _as_matrix(value: torch.Tensor, dimensions: int) -> torch.Tensor:
    return value[:, :, 0, 0] if dimensions == 2 and value.ndim == 4 and value.shape[2:] == (1, 1) else value

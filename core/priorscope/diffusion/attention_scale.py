"""Self-attention that stays as sharp over more tokens than it was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from priorscope.errors import InputError


def attention_scale(width: int, tokens: int, trained_tokens: int) -> float:
    """What to multiply queries' products with keys by: sqrt(log_T N / d).

    Parameters
    ----------
    width : int
        d, channels of a head.
    tokens, trained_tokens : int
        N, tokens now, and T, tokens while the network was trained, at least 2. N = T gives the usual 1 / sqrt(d).

    Notes
    -----
    The entropy of attention weights grows with log N; the scale holds it near its value at T. More tokens sharpen
    the weights, fewer soften them. Source: Jin et al. 2023 (arXiv 2306.08645).
    """
    if width < 1:
        raise InputError(f"attention heads of {width} channels")
    return _sharpening(tokens, trained_tokens) / math.sqrt(width)


def _sharpening(tokens: int, trained_tokens: int) -> float:
    if trained_tokens < 2 or tokens < 1:
        raise InputError(
            f"attention over {tokens} tokens after training on {trained_tokens}",
            remedy="The scale is known for networks trained on 2 tokens or more.",
        )
    return math.sqrt(math.log(tokens) / math.log(trained_tokens))


@contextmanager
def scaled_attention(unet: nn.Module, trained_size: tuple[int, int] | None = None) -> Iterator[None]:
    """Within the block, self-attention of a diffusers U-Net scales with the size of what it is given.

    Parameters
    ----------
    unet : Module
        ``UNet2DConditionModel`` or ``UNet2DModel``. Its weights stay as they are; attention to text too.
    trained_size : (int, int), optional
        Height and width that the U-Net was trained on, in its own pixels (64, 64 for Stable Diffusion 1.5's
        latents). Default: ``sample_size`` of its configuration.

    Raises
    ------
    InputError
        Without self-attention, without a trained size, or with projections fused into one.

    Notes
    -----
    Each layer has its own T, the number of tokens on its level of the U-Net at the trained size. Queries are
    multiplied by sqrt(log_T N) as they leave their projection (their norm, where there is one), so every attention
    processor works. At the trained size nothing changes.
    """
    height, width = trained_size or _configured_size(unet)
    hooks = []
    try:
        for path, layer in _self_attention(unet):
            side = 2 ** _level(unet, path)
            trained = -(-height // side) * -(-width // side)
            last = layer.to_q if getattr(layer, "norm_q", None) is None else layer.norm_q
            hooks.append(last.register_forward_hook(_sharpen(trained)))
        if not hooks:
            raise InputError(f"{type(unet).__name__} has no self-attention to scale")
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _sharpen(trained: int) -> Any:
    def hook(module: nn.Module, inputs: Any, query: torch.Tensor) -> torch.Tensor:
        return query * _sharpening(query.shape[-2], trained)  # (B, N, C), or (B, heads, N, d) after a norm

    return hook


def _self_attention(unet: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, layer in unet.named_modules():
        if not path.startswith(("down_blocks.", "mid_block.", "up_blocks.")):
            continue
        if hasattr(layer, "to_q") and hasattr(layer, "to_k") and not getattr(layer, "is_cross_attention", False):
            if getattr(layer, "fused_projections", False):
                raise InputError(f"{path} has its projections fused", remedy="Call unfuse_qkv_projections() first.")
            yield path, layer


def _configured_size(unet: Any) -> tuple[int, int]:
    size = getattr(getattr(unet, "config", None), "sample_size", None)
    if not size:
        raise InputError("the U-Net does not say which size it was trained on", remedy="Give trained_size.")
    return (size, size) if isinstance(size, int) else tuple(size)


def _level(unet: Any, path: str) -> int:
    """How often the grid has been halved where the layer ``path`` works."""
    part, _, rest = path.partition(".")
    down = [bool(getattr(block, "downsamplers", None)) for block in unet.down_blocks]
    if part == "down_blocks":
        return sum(down[: int(rest.partition(".")[0])])
    if part == "up_blocks":
        before = unet.up_blocks[: int(rest.partition(".")[0])]
        return sum(down) - sum(bool(getattr(block, "upsamplers", None)) for block in before)
    return sum(down)

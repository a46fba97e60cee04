"""Networks made cheaper for inference, exactly: what never changes is computed once.

A one-step predictor is told the same noise level, prompt and task at every call. So each residual block's share of
the time and task embedding is a constant (it joins the bias of a convolution), and so are the keys and values of its
attention to the prompt. Enlarging by nearest neighbour before a 3 x 3 convolution repeats most products; the four
phases of the result are 2 x 2 convolutions of the small map.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from priorscope.backbones.pages import give_back
from priorscope.errors import InputError

#: Above so many tokens the keys and values are kept; below, queries and outputs are folded as well.
_FEW_TOKENS = 8


@torch.no_grad()
def fold_constants(unet: Any, label: float, text: torch.Tensor, task: torch.Tensor | None = None) -> Any:
    """Fold a level, a prompt and a task into a U-Net, in place. For inference only.

    Parameters
    ----------
    unet : UNet2DConditionModel
        Afterwards it answers as if it were asked with these constants, whatever it is asked with. Weights that
        are no longer needed are gone: it cannot be saved or trained.
    label : float
        What the network is told about the noise level.
    text : Tensor (1, tokens, cross_attention_dim)
    task : Tensor (1, projection_class_embeddings_input_dim), optional
        Task switcher.

    Returns
    -------
    The same U-Net. Its output differs by rounding only (1e-5 of the maximum; tests/core/test_folding.py).

    Raises
    ------
    InputError
        For a U-Net whose blocks use their embeddings in another way.
    """
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    if getattr(unet, "is_folded", False):
        raise InputError("the U-Net is folded already")
    if type(unet) is not UNet2DConditionModel:
        raise InputError(f"a {type(unet).__name__} may be told more than level, prompt and task: it cannot be folded")
    blocks = [module for module in unet.modules() if isinstance(module, ResnetBlock2D)]
    layers = [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
    if any(block.time_embedding_norm != "default" for block in blocks):
        raise InputError("residual blocks that scale by their time embedding cannot be folded")
    if any(layer.attn2 is None or layer.only_cross_attention for layer in layers):
        raise InputError("transformer blocks of this kind cannot be folded")
    if not math.isfinite(label):
        raise InputError(f"level {label}")
    if text.ndim != 3 or text.shape[0] != 1 or text.shape[2] != unet.config.cross_attention_dim:
        raise InputError(
            f"a prompt of shape {tuple(text.shape)}: (1, tokens, {unet.config.cross_attention_dim}) can be folded"
        )
    if (task is None) != (unet.class_embedding is None):
        raise InputError("a U-Net with a class embedding needs a task, and no other takes one")
    weight = unet.conv_in.weight
    before = list(unet.parameters())
    text = text.to(weight)
    level = torch.full((1,), float(label), device=weight.device)
    embedding = unet.time_embedding(unet.get_time_embed(weight.new_zeros(1), level), None)
    if task is not None:
        embedding = embedding + unet.class_embedding(task.to(weight))
    for block in blocks:
        if block.time_emb_proj is not None:
            given = embedding if block.skip_time_act else block.nonlinearity(embedding)
            block.conv1.bias.add_(block.time_emb_proj(given)[0])
            block.time_emb_proj = None
        block.time_embedding_norm = "folded"  # the block's forward pass then ignores the embedding
    for layer in layers:
        layer.attn2 = _fold_attention(layer.attn2, text)
    unet.time_embedding = _NoEmbedding()
    unet.class_embedding = None
    unet.register_to_config(class_embed_type=None)
    lean(unet)
    kept = {parameter.data_ptr() for parameter in unet.parameters()}
    give_back(parameter for parameter in before if parameter.data_ptr() not in kept)
    unet.is_folded = True
    unet.save_pretrained = _refuse_to_save
    return unet


@torch.no_grad()
def lean(network: nn.Module, *, phases: bool = False) -> None:
    """Give a network's residual and enlarging blocks forward passes that need less time and memory, in place.

    ``phases`` says whether enlarging blocks become :class:`PhaseConv`: worth it in a decoder, whose large maps are
    most of the work and always double; a U-Net's are small, their kernels are not (250 MB more), and sizes may be odd.

    The result differs by rounding only. For inference: activations are overwritten, so no gradient can flow.
    """
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.upsampling import Upsample2D

    for module in list(network.modules()):
        if isinstance(module, ResnetBlock2D) and is_plain_residual(module):
            module.forward = _LeanResidual(module)
        if phases and isinstance(module, Upsample2D) and is_doubling(module):
            module.conv = PhaseConv(module.conv)
            module.forward = module.conv.enlarge


class PhaseConv(nn.Module):
    """Nearest-neighbour enlargement by 2 and a 3 x 3 convolution as four 2 x 2 convolutions: 4/9 of the products.

    Row 2i of the large map sees its rows 2i - 1, 2i, 2i + 1, which are rows i - 1, i, i of the small one; row 2i + 1
    sees i, i, i + 1. So the kernel's three rows become two, (k0, k1 + k2) and (k0 + k1, k2); the same for columns.

    Parameters
    ----------
    conv : Conv2d
        3 x 3, stride 1, padding 1.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        # sums in float64: they replace sums of products that the convolution would round only at the end
        kernel = conv.weight.detach().double()
        rows = [_merge(kernel, phase, 2) for phase in (0, 1)]
        phases = [_merge(part, phase, 3) for part in rows for phase in (0, 1)]
        self.phases = nn.ParameterList(
            nn.Parameter(phase.to(conv.weight.dtype), requires_grad=False) for phase in phases
        )
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach(), requires_grad=False)

    def enlarge(self, hidden_states: torch.Tensor, output_size: Any = None, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The block's forward pass: (B, C, H, W) to (B, K, 2 H, 2 W)."""
        rows, height, width = hidden_states.shape[0], *hidden_states.shape[-2:]
        if output_size is not None and tuple(output_size) != (2 * height, 2 * width):
            raise InputError(f"a map of {height} x {width} cannot become {tuple(output_size)} by doubling")
        result = hidden_states.new_empty((rows, self.phases[0].shape[0], 2 * height, 2 * width))
        if hidden_states.is_contiguous(memory_format=torch.channels_last):
            result = result.contiguous(memory_format=torch.channels_last)
        padded = functional.pad(hidden_states, (1, 1, 1, 1))
        for number, kernel in enumerate(self.phases):
            row, column = divmod(number, 2)
            window = padded[:, :, row : row + height + 1, column : column + width + 1]
            result[:, :, row::2, column::2] = functional.conv2d(window, kernel, self.bias)
        return result


class _LeanResidual:
    """A residual block without dropout and without its embedding (folded, or there is none)."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def __call__(self, input_tensor: torch.Tensor, temb: torch.Tensor | None = None, *args: Any) -> torch.Tensor:
        block = self.block
        hidden = block.conv1(functional.silu(block.norm1(input_tensor), inplace=True))
        hidden = block.conv2(functional.silu(block.norm2(hidden), inplace=True))
        if block.conv_shortcut is not None:
            input_tensor = block.conv_shortcut(input_tensor)
        return hidden.add_(input_tensor)


class _FoldedAttention(nn.Module):
    """Attention to a few fixed tokens: a linear map to their logits, a softmax, a linear map back."""

    def __init__(self, attention: Any, text: torch.Tensor) -> None:
        super().__init__()
        heads, width = attention.heads, attention.to_q.weight.shape[0] // attention.heads
        query = attention.to_q.weight.double().unflatten(0, (heads, width))
        key = attention.to_k(text)[0].double().unflatten(1, (heads, width))
        value = attention.to_v(text)[0].double().unflatten(1, (heads, width))
        back = attention.to_out[0].weight.double().unflatten(1, (heads, width))
        logits = torch.einsum("thd,hdc->htc", key, query) * attention.scale
        answers = torch.einsum("ohd,thd->oht", back, value)
        dtype = attention.to_q.weight.dtype
        self.tokens = text.shape[1]
        self.logits = nn.Parameter(logits.flatten(0, 1).to(dtype), requires_grad=False)
        self.answers = nn.Parameter(answers.flatten(1).to(dtype), requires_grad=False)
        self.bias = nn.Parameter(attention.to_out[0].bias.detach().clone(), requires_grad=False)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        logits = functional.linear(hidden_states, self.logits).unflatten(-1, (-1, self.tokens))
        return functional.linear(logits.softmax(-1).flatten(-2), self.answers, self.bias)


class _FixedKeys(nn.Module):
    """Attention to many fixed tokens: keys and values are kept."""

    def __init__(self, attention: Any, text: torch.Tensor) -> None:
        super().__init__()
        self.heads, self.scale = attention.heads, attention.scale
        self.to_q, self.to_out = attention.to_q, attention.to_out[0]
        for name in ("key", "value"):
            projected = (attention.to_k if name == "key" else attention.to_v)(text)
            self.register_buffer(name, projected.unflatten(-1, (self.heads, -1)).transpose(1, 2), persistent=False)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        query = self.to_q(hidden_states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        rows = hidden_states.shape[0]
        key, value = (self.get_buffer(name).expand(rows, -1, -1, -1) for name in ("key", "value"))
        answer = functional.scaled_dot_product_attention(query, key, value, scale=self.scale)
        return self.to_out(answer.transpose(1, 2).flatten(2))


class _NoEmbedding(nn.Module):
    def forward(self, sample: torch.Tensor, condition: Any = None) -> torch.Tensor:
        return sample.new_zeros(1)


def _fold_attention(attention: Any, text: torch.Tensor) -> nn.Module:
    if attention.to_q.bias is not None or attention.norm_q is not None or attention.rescale_output_factor != 1:
        raise InputError("cross-attention of this kind cannot be folded")
    return (_FoldedAttention if text.shape[1] <= _FEW_TOKENS else _FixedKeys)(attention, text)


def is_plain_residual(block: Any) -> bool:
    """Whether a block is norm, SiLU, convolution, twice, plus its input, and sees no embedding."""
    return (
        block.time_emb_proj is None
        and block.time_embedding_norm != "scale_shift"
        and block.upsample is None
        and block.downsample is None
        and block.output_scale_factor == 1
        and isinstance(block.nonlinearity, nn.SiLU)
        and isinstance(block.norm1, nn.GroupNorm)
        and isinstance(block.norm2, nn.GroupNorm)
    )


def is_doubling(block: Any) -> bool:
    """Whether a block enlarges by nearest neighbour and then convolves 3 x 3."""
    conv = getattr(block, "conv", None)
    return (
        isinstance(conv, nn.Conv2d)
        and block.use_conv
        and not block.use_conv_transpose
        and block.interpolate
        and block.norm is None
        and conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.padding == (1, 1)
        and conv.groups == 1
    )


def _merge(kernel: torch.Tensor, phase: int, axis: int) -> torch.Tensor:
    """Three rows (or columns) of a kernel to the two that a phase sees."""
    first, second, third = kernel.unbind(axis)
    pair = (first, second + third) if phase == 0 else (first + second, third)
    return torch.stack(pair, axis)


def _refuse_to_save(*args: Any, **kwargs: Any) -> None:
    raise InputError("a folded U-Net cannot be saved", remedy="Load it with fold=False.")

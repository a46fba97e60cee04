"""Smaller U-Nets made of a U-Net's own modules: what a partial pass runs.

A partial pass needs no forward pass of ours. It is that of a *sibling*: a shallow copy of the network that shares its
modules, where some blocks are left out and others are replaced by a module that recalls what it is told.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from priorscope.errors import InputError

KNOWN = "diffusers' UNet2DConditionModel and UNet2DModel"

#: Blocks whose layers are a list of residual blocks, of attentions beside them, and of resampling blocks after them.
_BLOCKS = {
    "DownBlock2D",
    "CrossAttnDownBlock2D",
    "SimpleCrossAttnDownBlock2D",
    "AttnDownBlock2D",
    "ResnetDownsampleBlock2D",
    "UpBlock2D",
    "CrossAttnUpBlock2D",
    "SimpleCrossAttnUpBlock2D",
    "AttnUpBlock2D",
    "ResnetUpsampleBlock2D",
}

#: Arguments that change features between the cut and where they are used.
_FOREIGN = ("down_block_additional_residuals", "mid_block_additional_residual", "down_intrablock_additional_residuals")


class Recall(nn.Module):
    """A module that gives ``value``, whatever it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.value: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.value


def is_unet(network: nn.Module) -> bool:
    """Whether ``network`` runs the forward pass of one of diffusers' two U-Nets."""
    from diffusers.models.unets.unet_2d import UNet2DModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return type(network).forward in (UNet2DModel.forward, UNet2DConditionModel.forward)


def sibling(module: Any, **parts: Any) -> Any:
    """A shallow copy of ``module``: the same parameters and modules, but for ``parts``."""
    other = copy.copy(module)
    vars(other).pop("forward", None)
    other._modules = dict(module._modules)
    for name, part in parts.items():
        setattr(other, name, nn.ModuleList(part) if isinstance(part, list) else part)
    return other


def run_sibling(network: Any, other: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The pass of ``other``, a sibling of ``network``; hooks on the network itself have run already."""
    return type(network).forward(other, *args, **kwargs)


def check_unet(unet: Any) -> None:
    """Refuse U-Nets that cannot be cut: blocks of other kinds, FreeU, no middle block."""
    for block in (*unet.down_blocks, *unet.up_blocks):
        name = type(block).__name__
        if name not in _BLOCKS:
            raise InputError(f"a U-Net with a {name} cannot be cut", remedy=f"Known are {', '.join(sorted(_BLOCKS))}.")
        if getattr(block, "b1", None) is not None:
            raise InputError("FreeU overwrites the features that a cache keeps", remedy="Call unet.disable_freeu().")
    if unet.mid_block is None:
        raise InputError("a U-Net without a middle block cannot be cut")
    for down, up in zip(unet.down_blocks, reversed(unet.up_blocks), strict=True):
        if len(up.resnets) != len(down.resnets) + 1:
            raise InputError(f"a U-Net with {len(down.resnets)} and {len(up.resnets)} residual blocks a level")


def check_arguments(kwargs: dict[str, Any]) -> None:
    """Refuse what a ControlNet or an adapter adds to features that a partial pass does not compute."""
    given = [name for name in _FOREIGN if kwargs.get(name) is not None]
    if given:
        raise InputError(f"a U-Net with a feature cache was given {given[0]}", remedy="Run it without the cache.")


def check_sides(network: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Refuse samples whose sides a UNet2DModel or a DiT cannot divide; UNet2DConditionModel takes any.

    On a coarser grid (:class:`~priorscope.diffusion.ResolutionAware`) a UNet2DModel takes any sides too.
    """
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
    from diffusers.models.unets.unet_2d import UNet2DModel

    if type(network).forward is UNet2DModel.forward:
        steps = strides(network)
        multiple = 2 ** len(steps) if all(step in ((2, 2), None) for step in steps) else 1
    elif type(network).forward is DiTTransformer2DModel.forward:
        multiple = network.config.patch_size
    else:
        return
    sides = (args[0] if args else next(iter(kwargs.values()))).shape[-2:]
    if any(side % multiple for side in sides):
        raise InputError(
            f"samples of {sides[0]} x {sides[1]} in a {type(network).__name__} that divides their sides by {multiple}",
            remedy=f"Pad them to multiples of {multiple}.",
        )


def strides(unet: Any) -> list[Any]:
    """How far each level goes down; :class:`~priorscope.diffusion.ResolutionAware` changes it from step to step."""
    parts = [part for block in unet.down_blocks for part in block.downsamplers or ()]
    return [getattr(getattr(part, "conv", None), "stride", None) for part in parts]


def find_branch(unet: Any, branch: int) -> tuple[int, int]:
    """Level and layer of a branch: each level has its residual blocks and one more for the downsampler.

    DeepCache's own numbers, where levels have two residual blocks: ``divmod(branch, 3)``.
    """
    counts = [len(block.resnets) + 1 for block in unet.down_blocks]
    if branch >= sum(counts):
        raise InputError(f"branch {branch} of a U-Net with {sum(counts)}", remedy=f"Use 0 to {sum(counts) - 1}.")
    level = 0
    while branch >= counts[level]:
        branch -= counts[level]
        level += 1
    return level, branch


def first_layers(block: Any, count: int) -> Any:
    """A downward block's first ``count`` layers, without its downsampler."""
    return sibling(block, **_layers(block, slice(0, count)), downsamplers=None)


def last_layers(block: Any, count: int) -> Any:
    """An upward block's last ``count`` layers, and its upsampler."""
    total = len(block.resnets)
    return sibling(block, **_layers(block, slice(total - count, total)))


def layer_end(block: Any, layer: int) -> nn.Module:
    """The module that gives the output of a block's layer: its attention, where it has one."""
    attentions = getattr(block, "attentions", None)
    return block.resnets[layer] if attentions is None else attentions[layer]


def skips_of(output: tuple[torch.Tensor, Sequence[torch.Tensor]]) -> Sequence[torch.Tensor]:
    """What a downward block hands to the other side."""
    return output[1]


def _layers(block: Any, kept: slice) -> dict[str, list[nn.Module]]:
    names = [name for name in ("resnets", "attentions") if getattr(block, name, None) is not None]
    return {name: list(getattr(block, name))[kept] for name in names}

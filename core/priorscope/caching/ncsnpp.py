"""NCSN++ cut at a branch, as DeepCache cuts a U-Net."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from priorscope.caching.session import Arguments, CachedRun, Cut
from priorscope.caching.unet import Recall, run_sibling, sibling
from priorscope.errors import InputError


def is_ncsnpp(network: nn.Module) -> bool:
    """Whether ``network`` runs :class:`~priorscope.backbones.NCSNpp`'s forward pass."""
    from priorscope.backbones.ncsnpp import NCSNpp

    return type(network).forward is NCSNpp.forward


class NCSNppCut(Cut):
    """NCSN++ that ends at a level: deeper ones are left out, and what they give is recalled.

    The network runs a flat list of modules, level by level: blocks with their attentions and what halves the map on the
    way down, three modules in the middle, blocks, an attention and what doubles the map on the way up.
    """

    def __init__(self, network: Any, branch: int) -> None:
        from diffusers.configuration_utils import FrozenDict

        self.network = network
        config, modules = network.config, list(network.all_modules)
        blocks, levels = config.blocks, len(config.multipliers)
        if branch >= levels * (blocks + 1):
            remedy = f"Use 0 to {levels * (blocks + 1) - 1}."
            raise InputError(f"branch {branch} of an NCSN++ with {levels * (blocks + 1)}", remedy=remedy)
        level, layer = divmod(branch, blocks + 1)
        halves = 2 if config.progressive_input == "residual" else 1
        down = 4  # the embedding's three modules and the first convolution
        for above in range(level):
            down += blocks * (2 if network.attends[above] else 1) + halves
        # from the end: a normalisation, a convolution, and each shallower level's blocks, attention and doubling
        up = len(modules) - 2
        for above in range(level + 1):
            up -= blocks + 1 + (1 if network.attends[above] else 0) + (1 if above > 0 else 0)
        skipped = blocks - layer  # on both sides
        self.deep = Recall()
        self.last = modules[up + skipped - 1]
        per_layer = 2 if network.attends[level] else 1
        shallow = [
            *modules[: down + layer * per_layer],
            *[_Hollow()] * (skipped * per_layer + 2 + skipped),  # down, the middle but one, up
            self.deep,  # what the last deep module on the way up gave, or the middle's last one
            *modules[up + skipped :],
        ]
        self.shallow = sibling(network, all_modules=shallow)
        multipliers = config.multipliers[: level + 1]
        self.shallow._internal_dict = FrozenDict({**config, "multipliers": multipliers})

    def watch(self, run: CachedRun, stack: ExitStack) -> None:
        def leaves(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            run.store("deep", output)

        stack.callback(self.last.register_forward_hook(leaves).remove)

    def partial(self, run: CachedRun, info: Any, arguments: Arguments) -> Any:
        self.deep.value = run.forecast("deep", info)
        try:
            return run_sibling(self.network, self.shallow, *arguments)
        finally:
            self.deep.value = None


class _Hollow(nn.Module):
    """In place of a deep module, for whose output nobody looks: no channels, so that joining skips costs nothing."""

    def forward(self, h: torch.Tensor, temb: torch.Tensor | None = None) -> torch.Tensor:
        return h[:, :0]

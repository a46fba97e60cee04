"""A denoiser whose decoder is told what its own encoder has seen: self-conditioning after DDAE++."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from priorscope.errors import InputError


class SelfConditioned(nn.Module):
    """A network that pools a map of its encoder half and adds it, projected, to the time embedding from there on.

    Wrap a network before training it; the parameters of the projection are trained with the network's. They start at
    0, where the network is what it was.

    Parameters
    ----------
    network : nn.Module
    channels : int
        Of the map that is pooled.
    embedding : int
        Width of the network's time embedding.
    source : str
        Path of the module whose output, (B, C, h, w), is pooled.
    targets : sequence of str
        Paths of the modules that are called with the time embedding (the one argument of shape (B, embedding)).

    Notes
    -----
    The equations are ours: the paper (DDAE++) could not be read, and its public repository holds no code. What is
    known is that a feature of the encoder half is pooled and added to the time embedding of the remaining blocks. The
    paper's contrastive self-distillation is not part of this. Defaults fit diffusers' U-Nets.
    """

    def __init__(
        self,
        network: nn.Module,
        channels: int,
        embedding: int,
        *,
        source: str = "mid_block",
        targets: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if targets is None:
            targets = [name for name, _ in network.named_modules() if name.rpartition(".")[0] == "up_blocks"]
        modules = dict(network.named_modules())
        lacking = [path for path in (source, *targets) if path not in modules]
        if lacking or not targets:
            raise InputError(f"{type(network).__name__} has no module {lacking[0] if lacking else 'up_blocks'!r}")
        self.network = network
        self.embedding = embedding
        self.source = source
        self.targets = tuple(targets)
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, embedding)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's answer; also leaves nothing behind in it."""
        return self.with_feature(*args, **kwargs)[0]

    def with_feature(self, *args: Any, **kwargs: Any) -> tuple[Any, torch.Tensor]:
        """The network's answer, and the pooled feature (B, channels) that its decoder was told."""
        modules = dict(self.network.named_modules())
        seen: list[torch.Tensor] = []

        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            seen.append((output[0] if isinstance(output, tuple) else output).mean((2, 3)))

        def tell(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if not seen:
                raise InputError(f"a module that is told runs before {self.source!r}", remedy="Name later targets.")
            told = self.project(self.norm(seen[-1].to(self.norm.weight)))
            found = False

            def add(value: Any) -> Any:
                nonlocal found
                if not isinstance(value, torch.Tensor) or value.ndim != 2 or value.shape[1] != self.embedding:
                    return value
                found = True
                return value + told.to(value)

            changed = tuple(map(add, inputs)), {name: add(value) for name, value in named.items()}
            if not found:
                raise InputError(f"{type(module).__name__} is called without a time embedding of {self.embedding}")
            return changed

        with ExitStack() as stack:
            handles = [modules[self.source].register_forward_hook(look)]
            stack.callback(lambda: [handle.remove() for handle in handles])
            for path in self.targets:
                handles.append(modules[path].register_forward_pre_hook(tell, with_kwargs=True))
            answer = self.network(*args, **kwargs)
        return answer, seen[-1]

"""First-block cache: a transformer's first blocks run at every step and say whether the others must."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from priorscope.caching.policies import Policy, Threshold
from priorscope.caching.session import Arguments, CachedRun, Cut, Method, first_tensor
from priorscope.caching.unet import Recall, run_sibling, sibling
from priorscope.errors import InputError


class FirstBlockCache(Method):
    """Reuse what a transformer's later blocks add to the stream.

    Parameters
    ----------
    policy : Policy, int, str or iterable of int, optional
        When the later blocks are computed. Default: :class:`Threshold` of 0.05, diffusers' default.
    blocks : int
        How many blocks are first ones, at least 1.
    order : int
        Of a Taylor expansion of that residual; 0 repeats it.

    Notes
    -----
    Knows diffusers' DiTTransformer2DModel. Source: ParaAttention's first-block cache and diffusers'
    ``FirstBlockCache`` hook, which asks whole pipelines of one item; with those the decisions are the same.

    Examples
    --------
    ``with FirstBlockCache(Threshold(0.1)).on(denoiser): sample(denoiser, x, times)``
    """

    known = "diffusers' DiTTransformer2DModel"

    def __init__(
        self, policy: Policy | int | str | Iterable[int] | None = None, *, blocks: int = 1, order: int = 0
    ) -> None:
        super().__init__(Threshold(0.05) if policy is None else policy, order)
        if isinstance(blocks, bool) or not isinstance(blocks, int) or blocks < 1:
            raise InputError(f"{blocks!r} first blocks", remedy="Use a whole number of 1 or more.")
        self.blocks = blocks

    def knows(self, network: nn.Module) -> bool:
        return is_dit(network)

    def cut(self, network: Any) -> Cut:
        total = len(network.transformer_blocks)
        if self.blocks >= total:
            raise InputError(f"{self.blocks} first blocks of {total}", remedy=f"Use at most {total - 1}.")
        return _Blocks(network, self.blocks, self.policy.by_change)


def is_dit(network: nn.Module) -> bool:
    """Whether ``network`` runs the forward pass of diffusers' DiT."""
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    return type(network).forward is DiTTransformer2DModel.forward


class _Blocks(Cut):
    """A DiT whose later blocks are one that adds what they added."""

    def __init__(self, network: Any, count: int, deciding: bool) -> None:
        self.network = network
        self.deciding = deciding
        self.first = list(network.transformer_blocks)[:count]
        self.last = network.transformer_blocks[-1]
        self.rest = _Rest(network.transformer_blocks[0])
        blocks = [self.rest] if deciding else [*self.first, self.rest]
        parts: dict[str, Any] = {"pos_embed": Recall()} if deciding else {}
        self.shallow = sibling(network, transformer_blocks=blocks, **parts)
        self.middle: torch.Tensor | None = None  # what the first blocks gave in this pass

    def watch(self, run: CachedRun, stack: ExitStack) -> None:
        given: list[torch.Tensor] = []

        def enters(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if run.is_storing:
                given[:] = [args[0] if args else kwargs["hidden_states"]]

        def decides(module: nn.Module, args: Any, output: Any) -> None:
            if run.is_storing:
                self.middle = first_tensor(output)
                if self.deciding:
                    run.decide(self.middle - given.pop())

        def leaves(module: nn.Module, args: Any, output: Any) -> None:
            if run.is_storing and self.middle is not None:
                run.store("rest", first_tensor(output) - self.middle)
                self.middle = None

        hooks = [self.first[-1].register_forward_hook(decides), self.last.register_forward_hook(leaves)]
        if self.deciding:
            hooks.append(self.first[0].register_forward_pre_hook(enters, with_kwargs=True))
        for hook in hooks:
            stack.callback(hook.remove)
        stack.callback(given.clear)
        stack.callback(setattr, self, "middle", None)

    def partial(self, run: CachedRun, info: Any, arguments: Arguments) -> Any:
        # without a decision the first blocks run within this pass, whatever a pass that failed has left
        self.rest.added, self.rest.middle = run.forecast("rest", info), self.middle if self.deciding else None
        try:
            return run_sibling(self.network, self.shallow, *arguments)
        finally:
            self.rest.added = self.rest.middle = self.middle = None


class _Rest(nn.Module):
    """Adds ``added`` to ``middle``, or to what it is called with."""

    def __init__(self, first: Any) -> None:
        super().__init__()
        self.norm1 = first.norm1  # the network asks its first block for the embedding of its output layer
        self.added: torch.Tensor | None = None
        self.middle: torch.Tensor | None = None

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        assert self.added is not None
        return (hidden_states if self.middle is None else self.middle) + self.added

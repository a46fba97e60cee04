"""DeepCache: shallow layers run at every step, the deep rest at some."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from priorscope.caching.ncsnpp import NCSNppCut, is_ncsnpp
from priorscope.caching.policies import Policy
from priorscope.caching.session import Arguments, CachedRun, Cut, Method, first_tensor
from priorscope.caching.unet import (
    KNOWN,
    Recall,
    check_arguments,
    check_unet,
    find_branch,
    first_layers,
    is_unet,
    last_layers,
    layer_end,
    run_sibling,
    sibling,
    skips_of,
    strides,
)
from priorscope.errors import InputError


class DeepCache(Method):
    """Reuse the deep part of a U-Net: one feature, where the deep part hands over to the shallow one.

    Parameters
    ----------
    policy : Policy, int, str or iterable of int
        When the deep part is computed; an interval N computes it at steps 0, N, 2 N, ... :class:`Threshold` looks at
        what the first layer does, and needs ``branch`` of 1 or more.
    branch : int
        How much is shallow. Branches count the layers on the way down, from the top: each level has its residual
        blocks and one more for its downsampler. At branch b the b layers before it run, and their mirror images on the
        way up; 0 runs the last layer on the way up alone. The published code knows levels of two residual blocks.
    order : int
        Of a Taylor expansion of the deep feature; 0, as published, repeats it.

    Notes
    -----
    Knows diffusers' UNet2DConditionModel and UNet2DModel, folded or not, and NCSN++. It keeps one feature map a pass.
    Source: Ma, Fang and Wang 2024; PyPI package DeepCache 0.1.1, which finds its step by the value of the timestep and
    is wrong for solvers that repeat one.

    Examples
    --------
    ``with DeepCache(3).on(denoiser) as run: sample(denoiser, x, times)``, then ``run.full`` and ``run.partial``.
    """

    known = f"{KNOWN}, and NCSNpp"

    def __init__(self, policy: Policy | int | str | Iterable[int] = 3, *, branch: int = 0, order: int = 0) -> None:
        super().__init__(policy, order)
        if isinstance(branch, bool) or not isinstance(branch, int) or branch < 0:
            raise InputError(f"branch {branch!r}", remedy="Use a whole number of 0 or more.")
        if self.policy.by_change and branch == 0:
            raise InputError("at branch 0 no layer runs that a threshold could look at", remedy="Use branch=1 or more.")
        self.branch = branch

    def knows(self, network: nn.Module) -> bool:
        return is_unet(network) or is_ncsnpp(network)

    def cut(self, network: nn.Module) -> Cut:
        if is_ncsnpp(network):
            if self.policy.by_change:
                raise InputError("a threshold cannot decide within NCSN++", remedy="Use an interval or key steps.")
            return NCSNppCut(network, self.branch)
        check_unet(network)
        return _Deciding(network, self.branch) if self.policy.by_change else _Branch(network, self.branch)


class _Branch(Cut):
    """A U-Net without its deep part, whose feature a middle block recalls."""

    def __init__(self, unet: Any, branch: int) -> None:
        self.unet = unet
        self.level, self.layer = level, layer = find_branch(unet, branch)
        self.deep = Recall()
        self.above = list(unet.down_blocks)[:level]
        self.block = unet.down_blocks[level]
        self.up = unet.up_blocks[len(unet.up_blocks) - 1 - level]
        kept_up = list(unet.up_blocks)[len(unet.up_blocks) - level :]
        self.upward = [last_layers(self.up, layer + 1), *kept_up]
        downward = [*self.above, first_layers(self.block, layer)] if layer else self.above
        self.shallow = sibling(unet, down_blocks=downward, mid_block=self.deep, up_blocks=self.upward)

    def watch(self, run: CachedRun, stack: ExitStack) -> None:
        before = len(self.up.resnets) - 2 - self.layer  # the last layer of the upward block that is deep

        def enters(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            run.store("deep", args[0] if args else kwargs["hidden_states"])

        def leaves(module: nn.Module, args: Any, output: Any) -> None:
            run.store("deep", first_tensor(output))

        if before < 0:
            handle = self.up.register_forward_pre_hook(enters, with_kwargs=True)
        else:
            handle = layer_end(self.up, before).register_forward_hook(leaves)
        stack.callback(handle.remove)

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        check_arguments(kwargs)

    def geometry(self) -> Any:
        return strides(self.unet)

    def partial(self, run: CachedRun, info: Any, arguments: Arguments) -> Any:
        self.deep.value = run.forecast("deep", info)
        try:
            return run_sibling(self.unet, self.shallow, *arguments)
        finally:
            self.deep.value = None


class _Deciding(_Branch):
    """The same where a pass decides at its cut: what ran before is kept, and recalled if the rest is."""

    def __init__(self, unet: Any, branch: int) -> None:
        super().__init__(unet, branch)
        self.start, self.encoded = Recall(), Recall()
        self.decoder = sibling(
            unet, conv_in=self.start, down_blocks=[self.encoded], mid_block=self.deep, up_blocks=self.upward
        )
        self.skips: list[torch.Tensor] = []

    def watch(self, run: CachedRun, stack: ExitStack) -> None:
        super().watch(run, stack)
        last = layer_end(self.block, self.layer - 1) if self.layer else self.above[-1]
        residual: list[torch.Tensor] = []

        def started(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            if run.is_storing:
                self.skips[:] = [output]

        def skipped(module: nn.Module, args: Any, output: Any) -> None:
            if run.is_storing:
                self.skips.extend(skips_of(output))

        def layered(module: nn.Module, args: Any, output: Any) -> None:
            if run.is_storing:
                self.skips.append(first_tensor(output))

        def changed(module: nn.Module, args: Any, output: Any) -> None:
            if run.is_storing:
                residual[:] = [first_tensor(output) - self.skips[0]]

        def decide(module: nn.Module, args: Any, output: Any) -> None:
            if run.is_storing:
                run.decide(residual.pop())
                self.skips.clear()

        hooks = [(self.unet.conv_in, started), (layer_end(self.unet.down_blocks[0], 0), changed)]
        hooks += [(block, skipped) for block in self.above]
        hooks += [(layer_end(self.block, layer), layered) for layer in range(self.layer)]
        for module, hook in [*hooks, (last, decide)]:
            stack.callback(module.register_forward_hook(hook).remove)
        stack.callback(self.skips.clear)

    def partial(self, run: CachedRun, info: Any, arguments: Arguments) -> Any:
        self.deep.value = run.forecast("deep", info)
        self.start.value, self.encoded.value = self.skips[0], (self.skips[-1], tuple(self.skips[1:]))
        try:
            return run_sibling(self.unet, self.decoder, *arguments)
        finally:
            self.deep.value = self.start.value = self.encoded.value = None
            self.skips.clear()

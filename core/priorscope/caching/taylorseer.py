"""TaylorSeer: the outputs of modules are forecast instead of computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from priorscope.caching.first_block import is_dit
from priorscope.caching.ncsnpp import is_ncsnpp
from priorscope.caching.policies import Every, Policy, is_whole
from priorscope.caching.session import Arguments, CachedRun, Cut, Method, known_within, replace_forward
from priorscope.caching.unet import is_unet, strides
from priorscope.errors import InputError
from priorscope.features.tap import Tap

#: What the published method forecasts: a DiT block's attention and feed-forward network, before their gates.
_DIT_MODULES = ("transformer_blocks.*.attn1", "transformer_blocks.*.ff")


class TaylorSeer(Method):
    """Forecast the outputs of modules from those of the last full passes.

    Everything around these modules runs at every step: a DiT's modulation and gates see the step's own level.

    Parameters
    ----------
    policy : Policy, int, str or iterable of int
        When the modules are computed. An interval N is the official DiT schedule, 0, 1, 1 + N, 1 + 2 N, ...; for
        diffusers' hook, and for others, see :class:`Every`.
    order : int
        Of the expansion; every order keeps one more output of each module.
    modules : sequence of str, optional
        Paths of modules that return one tensor; ``*`` stands for any one part. They start at the U-Net, DiT or NCSN++
        that the denoiser's network is or wraps, else at that network, of whatever kind. Default, for a DiT: attentions
        and feed-forward networks of all blocks.

    Notes
    -----
    Source: Liu et al. 2025, official DiT code, whose script has interval 4 and order 4.

    Examples
    --------
    ``with TaylorSeer(4, order=2).on(denoiser): sample(denoiser, x, times)``
    """

    known = "diffusers' DiTTransformer2DModel, and any network whose modules= are given"

    def __init__(
        self,
        policy: Policy | int | str | Iterable[int] = 4,
        *,
        order: int = 4,
        modules: Sequence[str] | None = None,
    ) -> None:
        whole = is_whole(policy)
        super().__init__(Every(policy, offset=1, warm_up=2) if whole else policy, order)  # type: ignore[arg-type]
        if self.policy.by_change:
            raise InputError("a threshold looks at a first block, not at modules", remedy="Use FirstBlockCache.")
        if isinstance(modules, str) or (modules is not None and not modules):
            raise InputError(f"modules={modules!r}", remedy="List at least one path.")
        self.modules = modules

    def find(self, network: Any) -> nn.Module:
        if self.modules is None:
            return super().find(network)
        found = known_within(network, lambda module: is_unet(module) or is_dit(module) or is_ncsnpp(module))
        if len(found) != 1 and isinstance(network, nn.Module):
            return network
        if len(found) != 1:
            raise InputError(
                f"it is not clear whose modules are meant in the denoiser's {type(network).__name__}",
                remedy="Name the network with on(denoiser, network=...).",
            )
        return found[0]

    def knows(self, network: nn.Module) -> bool:
        return self.modules is not None or is_dit(network)

    def cut(self, network: nn.Module) -> Cut:
        found = []
        for path in self.modules or _DIT_MODULES:
            names = [place for _, place in Tap(path).matches(network)]
            if not names:
                raise InputError(f"no module of the {type(network).__name__} is called {path!r}")
            found += names
        return _Modules(network, list(dict.fromkeys(found)))


class _Modules(Cut):
    """A network whose modules forecast what they would give."""

    def __init__(self, network: nn.Module, paths: list[str]) -> None:
        self.network = network
        self.paths = paths
        self.info: Any = None  # of the partial pass under way
        self.forward: Callable[..., Any] = network.forward

    def watch(self, run: CachedRun, stack: ExitStack) -> None:
        for path in self.paths:
            module = self.network.get_submodule(path)
            replace_forward(stack, module, self._forecasting(run, path, module.forward))

    def _forecasting(self, run: CachedRun, path: str, compute: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
            if self.info is not None:
                return run.forecast(path, self.info)
            output = compute(*args, **kwargs)
            run.store(path, output)
            return output

        return forward

    def geometry(self) -> Any:
        return strides(self.network) if is_unet(self.network) else None

    def partial(self, run: CachedRun, info: Any, arguments: Arguments) -> Any:
        self.info = info
        try:
            return self.forward(*arguments[0], **arguments[1])
        finally:
            self.info = None

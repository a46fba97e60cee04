"""A cache at work: what the denoiser's network does between entering and leaving a ``with`` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import nn

from priorscope.caching.memory import TaylorMemory, checked_order
from priorscope.caching.policies import Policy, as_policy
from priorscope.caching.unet import check_sides
from priorscope.diffusion.denoiser import Denoiser, Model, StepInfo
from priorscope.errors import InputError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Reuse(BaseException):
    """A pass is left because its rest can be recalled. No Exception, so that no handler of a network's swallows it."""


class Cut:
    """A place at which a network is cut: what a full pass stores, and how a partial pass does without the rest."""

    def watch(self, run: CachedRun, stack: ExitStack) -> None:
        """Hook the network so that full passes call ``run.store``; undone by ``stack``."""
        raise NotImplementedError

    def partial(self, run: CachedRun, info: StepInfo, arguments: Arguments) -> Any:
        """The network's answer with features from ``run.forecast``."""
        raise NotImplementedError

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse arguments of the network that a partial pass would ignore."""

    def geometry(self) -> Any:
        """What else decides the sizes of features; where it changes, nothing stored fits."""
        return None

    def after_full(self, run: CachedRun, info: StepInfo, arguments: Arguments, output: Any) -> None:
        """Whatever else a full pass is good for."""


class Method(ABC):
    """A way to make passes cheaper; ``with method.on(denoiser) as run`` applies it.

    Parameters
    ----------
    policy : Policy, int, str or iterable of int
        When a pass is full: an interval, a list of steps, the name of a key set, or a policy.
    order : int
        Of the Taylor expansion that features are forecast with; 0 reuses the last.
    """

    def __init__(self, policy: Policy | int | str | Iterable[int], order: int) -> None:
        self.policy = as_policy(policy)
        self.order = checked_order(order)

    def on(self, model: Model, network: nn.Module | None = None) -> CachedRun:
        """A context manager within which ``model`` uses the cache.

        Parameters
        ----------
        model : Model
            A :class:`Denoiser`, or what wraps one (guidance, constraints, batches).
        network : nn.Module, optional
            The network to be cut. Default: the denoiser's, or the known one that its network wraps.

        Returns
        -------
        CachedRun
            Counts full and partial passes.

        Raises
        ------
        InputError
            A network of a kind that is not known, or has fewer layers than asked for; on entering the block, one that
            has a cache already; within it, a pass that would need gradients.
        """
        return CachedRun(self, model, network)

    def find(self, network: Any) -> nn.Module:
        """The network to be cut, within what a denoiser asks."""
        found = known_within(network, self.knows)
        if len(found) != 1:
            name = type(network).__name__
            raise InputError(
                f"{type(self).__name__} finds {len(found) or 'no'} network{'s' * (len(found) > 1)} that it knows in "
                f"the denoiser's {name}",
                remedy=f"It knows {self.known}; name yours with on(denoiser, network=...).",
            )
        return found[0]

    #: Words for the networks that :meth:`knows` accepts.
    known: str

    @abstractmethod
    def knows(self, network: nn.Module) -> bool:
        """Whether ``network`` is of a kind that can be cut."""

    @abstractmethod
    def cut(self, network: nn.Module) -> Cut:
        """The cut in ``network``; InputError where it cannot be made."""


class CachedRun:
    """A method at work on a denoiser. Made by :meth:`Method.on`.

    A run of the loop starts afresh: its first pass is full. Several calls of one step (a solver's, both halves of a
    guidance that is not batched, the parts of a large batch) have a memory each, because they see other levels,
    conditions and items; they must come in the same order at every step. A call without :class:`StepInfo`, or of a
    run of one step, is as it would be without a cache, and not counted.

    Not for two threads at once. A loop of your own that gives no ``StepInfo.run`` should call :meth:`reset` between
    runs; a step index that falls also starts a new one.

    Attributes
    ----------
    full, partial : int
        Passes so far that were computed whole, and that were not.
    """

    def __init__(self, method: Method, model: Model, network: nn.Module | None) -> None:
        self.method = method
        self.denoiser = _denoiser_of(model)
        self.network = method.find(self.denoiser.network) if network is None else self._named(network)
        self.cut = method.cut(self.network)
        self.full = self.partial = 0
        self._info: StepInfo | None = None
        self._storing: TaylorMemory | None = None
        self._exit: ExitStack | None = None
        self.reset()

    def _named(self, network: nn.Module) -> nn.Module:
        """``network``, if it is known and the one that the denoiser asks."""
        name = type(network).__name__
        if not self.method.knows(network):
            raise InputError(f"{type(self.method).__name__} does not know {name}: {self.method.known}")
        inside = (module for part in _parts(self.denoiser.network) for module in part.modules())
        alike = [module for module in inside if type(module) is type(network)]
        if alike and not any(module is network for module in alike):
            raise InputError(
                f"the {name} that is to be cut is not the one that the denoiser asks",
                remedy="Name that, or leave network= out.",
            )
        return network

    def __enter__(self) -> CachedRun:
        if self.denoiser.cache is not None:
            raise InputError("the denoiser has a cache already", remedy="Leave its `with` block first.")
        if "forward" in vars(self.network):
            raise InputError(
                f"the forward pass of the {type(self.network).__name__} is replaced already, by a cache or a hook",
                remedy="Use one at a time.",
            )
        with ExitStack() as stack:
            stack.callback(self.reset)
            self.cut.watch(self, stack)
            self._forward: Callable[..., Any] = self.network.forward
            replace_forward(stack, self.network, self._pass)
            self.denoiser.cache = self
            stack.callback(setattr, self.denoiser, "cache", None)
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._exit is not None:
            self._exit.close()
            self._exit = None

    def reset(self) -> None:
        """Forget all features; the next pass is full."""
        self._memories: dict[tuple[int, int], TaylorMemory] = {}
        self._shapes: dict[tuple[int, int], Any] = {}
        self._run: object = None
        self._last = (-1, -1)
        self._turn = 0
        self._key = (0, 0)

    def ask(self, call: Callable[[], torch.Tensor], info: StepInfo | None) -> torch.Tensor:
        """Run ``call``, which asks the network, at the step ``info``; the denoiser calls this."""
        if info is None or info.total < 2:
            return call()
        place = (info.index, info.call)
        if info.run is not self._run or place < self._last:
            self.reset()
            self._run = info.run
        if place != self._last:
            self._turn = 0
        self._last, self._info = place, info
        try:
            return call()
        finally:
            self._info = None

    def store(self, name: str, value: torch.Tensor) -> None:
        """A feature of the full pass that is under way; in other passes nothing happens."""
        if self._storing is not None and self._info is not None:
            self._storing.store(name, value, self._info)

    def forecast(self, name: str, info: StepInfo) -> torch.Tensor:
        """A feature at a step that is not computed."""
        return self._memories[self._key].forecast(name, info)

    @property
    def stream(self) -> tuple[int, int]:
        """Which of a step's passes is under way: the solver's call, and how often it was seen before."""
        return self._key

    @property
    def is_storing(self) -> bool:
        """Whether a full pass is under way."""
        return self._storing is not None

    def decide(self, residual: torch.Tensor) -> None:
        """Leave the pass under way by :class:`Reuse` if the first block's residual says that its rest is known."""
        memory, info = self._storing, self._info
        if memory is not None and info is not None and not memory.should_compute(info, residual):
            raise Reuse

    def _pass(self, *args: Any, **kwargs: Any) -> Any:
        """The network's forward pass while the cache is on."""
        info = self._info
        if info is None:
            return self._forward(*args, **kwargs)
        self._refuse_gradients(args, kwargs)
        check_sides(self.network, args, kwargs)
        self.cut.check(args, kwargs)
        memory = self._memory(info, args, kwargs)
        if not self.method.policy.by_change and not memory.should_compute(info):
            return self._partial(info, (args, kwargs))
        self._storing = memory
        try:
            output = self._forward(*args, **kwargs)
        except Reuse:
            self._storing = None
            return self._partial(info, (args, kwargs))
        except BaseException:
            memory.reset()
            raise
        finally:
            self._storing = None
        self.full += 1
        self.cut.after_full(self, info, (args, kwargs), output)
        return output

    def _partial(self, info: StepInfo, arguments: Arguments) -> Any:
        output = self.cut.partial(self, info, arguments)
        self.partial += 1
        return output

    def _memory(self, info: StepInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaylorMemory:
        """The memory of this pass; fresh for inputs of another shape, dtype or device than it has seen."""
        self._key = (info.call, self._turn)
        self._turn += 1
        given = [value for value in tensors([args, kwargs]) if value.ndim > 1]
        shape = (self.cut.geometry(), *((value.shape, value.dtype, value.device) for value in given))
        if self._shapes.get(self._key) != shape:
            self._memories[self._key] = TaylorMemory(self.method.policy, self.method.order)
            self._shapes[self._key] = shape
        return self._memories[self._key]

    def _refuse_gradients(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled() and (
            any(value.requires_grad for value in tensors([args, kwargs]))
            or any(parameter.requires_grad for parameter in self.network.parameters())
        ):
            raise InputError(
                "gradients cannot flow through a network with a feature cache (a constraint may ask for them)",
                remedy="Run posterior sampling without the cache, or wrap the call in torch.no_grad().",
            )


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)


def replace_forward(stack: ExitStack, module: nn.Module, forward: Callable[..., Any]) -> None:
    """Give ``module`` another forward pass until ``stack`` closes."""
    if "forward" in vars(module):
        stack.callback(setattr, module, "forward", vars(module)["forward"])
    else:
        stack.callback(delattr, module, "forward")
    module.forward = forward


def first_tensor(output: Any) -> torch.Tensor:
    """A module's output, which transformers wrap in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def _denoiser_of(model: Any) -> Denoiser:
    inner = model
    while not isinstance(inner, Denoiser):
        inner = getattr(inner, "model", None)
        if inner is None:
            raise InputError(f"a {type(model).__name__} wraps no Denoiser", remedy="Give the denoiser itself.")
    return inner


def known_within(network: Any, knows: Callable[[nn.Module], bool]) -> list[nn.Module]:
    """The modules of a network that are known, each once; within those nothing is looked for, which saves time."""
    found, seen, left = [], set(), _parts(network)
    while left:
        module = left.pop()
        if module in seen:
            continue
        seen.add(module)
        if knows(module):
            found.append(module)
        else:
            left += module.children()
    return found


def _parts(network: Any) -> list[nn.Module]:
    """A network, or the modules that are attributes of what is none."""
    if isinstance(network, nn.Module):
        return [network]
    return [value for value in getattr(network, "__dict__", {}).values() if isinstance(value, nn.Module)]

"""A forward pass that gives the maps at its taps and ends at the last of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from priorscope.errors import InputError
from priorscope.features.attention import attention_map
from priorscope.features.published import find_taps
from priorscope.features.tap import Place, Tap, TapSet, locate_taps

Answer = TypeVar("Answer")
Features = dict[str, torch.Tensor]


class _Enough(BaseException):
    """Everything asked for has been seen. No Exception, so that no handler of a network's own swallows it."""


class Tapped:
    """A network with taps: ``tapped(unet, taps)(sample, label, **kwargs)`` gives its maps.

    The network's own forward pass runs, watched by hooks, and is left as soon as the last map has been seen; the maps
    equal those of the whole pass bit by bit. The hooks exist during a call only: two threads must not share a network.

    Parameters
    ----------
    network : nn.Module
    taps : TapSet, sequence of Tap or str, or str
        Or the name of a published set (:data:`priorscope.features.PUBLISHED`).
    """

    def __init__(self, network: nn.Module, taps: str | Tap | TapSet | Sequence[Tap | str]) -> None:
        self.network = network
        self.taps = find_taps(taps)
        self.places = locate_taps(network, self.taps)

    @property
    def names(self) -> list[str]:
        """Names of the maps, in order."""
        return [place.name for place in self.places]

    def __call__(self, *args: Any, **kwargs: Any) -> Features:
        """The maps (B, C, h, w) by name, for the arguments of the network; nothing after the last tap runs."""
        return self.watch(lambda: self.network(*args, **kwargs))[1]

    def watch(self, call: Callable[[], Answer], *, stop: bool = True) -> tuple[Answer | None, Features]:
        """Watch the network while ``call`` asks it.

        Parameters
        ----------
        call : callable
            Runs the network, directly or through a denoiser.
        stop : bool
            Leave ``call`` at the last map; its answer is then None.

        Returns
        -------
        answer, maps
        """
        watching = _Watching(self.network, self.places, stop)
        answer = None
        with watching, suppress(_Enough):
            answer = call()
        lacking = [name for name in self.names if name not in watching.maps]
        if lacking:
            raise InputError(f"the network ran without passing the tap {lacking[0]!r}")
        return answer, {name: watching.maps[name] for name in self.names}


def tapped(network: nn.Module, taps: str | Tap | TapSet | Sequence[Tap | str]) -> Tapped:
    """``tapped(unet, taps)(sample, label, **kwargs) -> {name: Tensor (B, C, h, w)}``; see :class:`Tapped`."""
    return Tapped(network, taps)


class _Watching(ExitStack):
    """The hooks of one call and what they saw."""

    def __init__(self, network: nn.Module, places: list[Place], stop: bool) -> None:
        super().__init__()
        self.network = network
        self.stop = stop
        self.left = len(places)
        self.maps: Features = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.queries: dict[str, torch.Tensor] = {}
        # a folded network works in place: its residual branch would be the sum by the time it is read
        self.copies = getattr(network, "is_folded", False)
        for path in {ancestor for place in places for ancestor in _ancestors(place.path)}:
            module = network.get_submodule(path)
            self._keep(module.register_forward_pre_hook(partial(self._size, path), with_kwargs=True))
        for place in places:
            module = network.get_submodule(place.path)
            if place.side == "attention":
                self._keep(module.register_forward_pre_hook(partial(self._size, place.path), with_kwargs=True))
                self._keep(module.get_submodule("to_q").register_forward_hook(partial(self._query, place)))
                self._keep(module.get_submodule("to_k").register_forward_hook(partial(self._key, place, module)))
            elif place.side == "input":
                self._keep(module.register_forward_pre_hook(partial(self._input, place), with_kwargs=True))
            else:
                self._keep(module.register_forward_hook(partial(self._output, place)))

    def _keep(self, handle: Any) -> None:
        self.callback(handle.remove)

    def _size(self, path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        value = _first(args, kwargs)
        if value is not None and value.ndim == 4:
            self.sizes[path] = (value.shape[-2], value.shape[-1])

    def _input(self, place: Place, module: nn.Module, args: Any, kwargs: Any) -> None:
        value = _first(args, kwargs)
        if value is None:
            raise InputError(f"what enters {place.path} is no tensor")
        self._see(place, value)

    def _output(self, place: Place, module: nn.Module, args: Any, output: Any) -> None:
        value = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
        self._see(place, value)

    def _query(self, place: Place, module: nn.Module, args: Any, output: torch.Tensor) -> None:
        self.queries[place.path] = output

    def _key(self, place: Place, attention: Any, module: nn.Module, args: Any, output: torch.Tensor) -> None:
        if getattr(attention, "norm_q", None) is not None or getattr(attention, "norm_k", None) is not None:
            raise InputError(f"{place.path} normalises its queries; such attention cannot be tapped")
        query = self.queries.pop(place.path)
        size = self._grid(place.path, query.shape[1])
        across = attention.is_cross_attention or output.shape[1] != query.shape[1]
        heads, scale = attention.heads, attention.scale
        self._record(place, attention_map(query, output, heads, scale, size, key_size=None if across else size))

    def _see(self, place: Place, value: torch.Tensor) -> None:
        if value.ndim == 3:
            height, width = self._grid(place.path, value.shape[1])
            value = value.transpose(1, 2).unflatten(2, (height, width))
        if value.ndim != 4:
            raise InputError(f"{place.path} has shape {tuple(value.shape)} there, which is no map")
        self._record(place, value.clone() if self.copies else value)

    def _grid(self, path: str, tokens: int) -> tuple[int, int]:
        """Height and width of a row of tokens: that of the nearest enclosing module that was given a map."""
        for ancestor in (path, *_ancestors(path)):
            height, width = self.sizes.get(ancestor, (0, 0))
            if height * width == tokens:
                return height, width
        raise InputError(f"no module around {path} was given a map of {tokens} pixels", remedy="Tap the block itself.")

    def _record(self, place: Place, value: torch.Tensor) -> None:
        if place.name in self.maps:
            return
        self.maps[place.name] = value.float()
        self.left -= 1
        if self.stop and self.left == 0:
            raise _Enough


def _ancestors(path: str) -> list[str]:
    """The modules around ``path``, from the innermost to the network itself."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) - 1, -1, -1)]


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """The first tensor among a call's arguments."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)


def by_scale(maps: Features) -> list[torch.Tensor]:
    """Join maps of equal size along channels, in their order; the largest width first.

    Returns
    -------
    list of Tensor (B, sum of C, h, w)
        As SatDiFuser's fusers take them.
    """
    groups: dict[tuple[int, int], list[torch.Tensor]] = {}
    for value in maps.values():
        groups.setdefault((value.shape[-2], value.shape[-1]), []).append(value)
    return [torch.cat(groups[size], 1) for size in sorted(groups, key=lambda size: (size[1], size[0]), reverse=True)]

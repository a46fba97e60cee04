"""Taps: names for places inside a network, written down without the network at hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from priorscope.errors import InputError

Point = Literal["output", "input", "branch", "sum", "before_resampling", "attention"]


@dataclass(frozen=True)
class Tap:
    """A place in a network, or several of a kind.

    Parameters
    ----------
    path : str
        Dotted module path; ``*`` stands for any one part: ``"up_blocks.*.resnets.*"``.
    point : str
        Where at that module:

        - ``"output"``, ``"input"``: what leaves and what enters it (its first tensor); a block's output includes its
          up- or downsampler;
        - ``"before_resampling"``: a block's output without its up- or downsampler, where it has one;
        - ``"branch"``: a residual branch before it is added (``conv2`` of a residual block, ``proj_out`` of a
          transformer, an attention's or feed-forward's own output);
        - ``"sum"``: the stream after that addition;
        - ``"attention"``: the attention's weights as a map for each head, pooled over the keys to 8 x 8 for
          self-attention and one channel a token for cross-attention (:mod:`priorscope.features.attention`).
    name : str
        Key of the map; ``{0}``, ``{1}`` are what the first and the second star stood for, ``{n}`` counts from 1.
        Default: the path, with the point where it is not the output.
    """

    path: str
    point: Point = "output"
    name: str = ""

    def __post_init__(self) -> None:
        if not self.path or any(not part for part in self.path.split(".")):
            raise InputError(f"tap path {self.path!r}", remedy="Write a dotted module path such as 'up_blocks.1'.")
        if self.point not in get_args(Point):
            raise InputError(f"tap point {self.point!r}", remedy=f"Use one of {', '.join(get_args(Point))}.")

    def matches(self, network: nn.Module) -> Iterator[tuple[str, str]]:
        """``(name, path)`` of every module of ``network`` that the path stands for, in the network's own order."""
        pattern = re.compile(r"([^.]+)".join(re.escape(part) for part in self.path.split("*")))
        count = 0
        for path, _ in network.named_modules():
            match = pattern.fullmatch(path)
            if match is None:
                continue
            count += 1
            default = path if self.point == "output" else f"{path}:{self.point}"
            try:
                name = self.name.format(*match.groups(), n=count) if self.name else default
            except (IndexError, KeyError, ValueError):
                raise InputError(f"tap name {self.name!r} asks for more than the stars of {self.path!r}") from None
            yield name, path


@dataclass(frozen=True)
class TapSet:
    """Taps that a publication uses together, and the settings that go with them.

    Parameters
    ----------
    name : str
    taps : tuple of Tap
        The order of the maps.
    levels : tuple of float
        Noise levels at which the published method looks, as steps of the training schedule; empty where it inverts.
    size : int
        Side in pixels to which images are resized; 0: none stated.
    ensemble : int
        Noisy copies whose features are averaged.
    posterior : {"mode", "sample"}
        How the published code encodes the image.
    source : str
        Where this is written.
    """

    name: str
    taps: tuple[Tap, ...]
    levels: tuple[float, ...] = ()
    size: int = 0
    ensemble: int = 1
    posterior: Literal["mode", "sample"] = "mode"
    source: str = ""

    def __post_init__(self) -> None:
        if not self.taps:
            raise InputError(f"the tap set {self.name!r} is empty", remedy="Name at least one tap.")

    def __iter__(self) -> Iterator[Tap]:
        return iter(self.taps)

    def __len__(self) -> int:
        return len(self.taps)


@dataclass(frozen=True)
class Place:
    """A tap found in a network: whose input or output is looked at, and whether it is read as attention."""

    name: str
    path: str
    side: Literal["input", "output", "attention"]


def locate_taps(network: nn.Module, taps: TapSet) -> list[Place]:
    """Find every tap in ``network``.

    Raises
    ------
    InputError
        If a tap matches no module, two maps would share a name, or a module has no such point.
    """
    places: list[Place] = []
    for tap in taps:
        found = [Place(name, *_resolve(network, path, tap.point)) for name, path in tap.matches(network)]
        if not found:
            top = ", ".join(name for name, _ in network.named_children())
            raise InputError(
                f"no module of the network is called {tap.path!r}",
                remedy=f"{type(network).__name__} has {top}; paths are those of named_modules().",
            )
        places += found
    names = [place.name for place in places]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"several taps are called {twice[0]!r}", remedy="Put {0} into the name, or leave it out.")
    return places


def _resolve(network: nn.Module, path: str, point: Point) -> tuple[str, Literal["input", "output", "attention"]]:
    """The module to watch, and its side, for a point at ``path``."""
    module = network.get_submodule(path)
    parent, _, leaf = path.rpartition(".")
    residual, transformer = hasattr(module, "conv2"), hasattr(module, "proj_out")
    layer = leaf in ("attn1", "attn2", "ff")
    if point in ("output", "input"):
        return path, "input" if point == "input" else "output"
    if point == "attention":
        if not (hasattr(module, "to_q") and hasattr(module, "to_k")):
            raise InputError(f"{path} is no attention layer", remedy="Paths of such taps end in attn1 or attn2.")
        return path, "attention"
    if point == "before_resampling":
        for kind in ("upsamplers", "downsamplers"):
            if getattr(module, kind, None):
                return f"{path}.{kind}.0", "input"
        return path, "output"
    if point == "branch" and (residual or transformer or layer):
        return (f"{path}.conv2" if residual else f"{path}.proj_out" if transformer else path), "output"
    if point == "sum":
        following = {"attn1": "norm2", "attn2": "norm3"}.get(leaf)
        if residual or transformer:
            return path, "output"
        if following is not None and getattr(network.get_submodule(parent), following, None) is not None:
            return f"{parent}.{following}", "input"
        if leaf == "ff":
            return parent, "output"
    raise InputError(f"{path} ({type(module).__name__}) has no residual {point}", remedy="Tap its output instead.")

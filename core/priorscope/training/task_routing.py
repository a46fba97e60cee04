"""Denoising task routing: each noise level reads and writes its own range of channels in residual blocks.

Neighbouring levels share most channels, distant ones few. There is nothing to learn in it; but a network that was
trained with a routing needs it ever after, and one that was trained without has no use for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import nn

from priorscope.errors import InputError
from priorscope.training.aids import RoutingConfig


def routing_starts(channels: int, config: RoutingConfig) -> torch.Tensor:
    """First channel of each level, (tasks,) int64: round((d / (D - 1))^alpha (C - width)) for level d of D."""
    place = torch.arange(config.tasks, dtype=torch.float64) / (config.tasks - 1)
    return (place**config.alpha * (channels - routing_width(channels, config))).round().long()


def routing_width(channels: int, config: RoutingConfig) -> int:
    """Channels a level uses, floor(C beta)."""
    return int(channels * config.beta)


def routing_masks(channels: int, config: RoutingConfig) -> torch.Tensor:
    """Masks (tasks, channels), float32: 1 from a level's first channel on, for ``routing_width`` channels.

    Raises
    ------
    InputError
        If a level would use no channel.

    Source: Park et al. 2024 (Denoising Task Routing).
    """
    config.check()
    width = routing_width(channels, config)
    if width < 1:
        raise InputError(f"a share of {config.beta} of {channels} channels is none", remedy="Use a larger beta.")
    starts = routing_starts(channels, config)[:, None]
    channel = torch.arange(channels)
    return ((channel >= starts) & (channel < starts + width)).float()


class Routing:
    """What :func:`add_routing` has put around the blocks of a network; :meth:`remove` takes it away."""

    def __init__(self, config: RoutingConfig, level: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.config = config
        self._level = level
        self._now: torch.Tensor | None = None
        self._masks: dict[tuple[int, torch.device], torch.Tensor] = {}
        self._hooks: list[Any] = []
        self._forget: Callable[[], Any] | None = None

    def remove(self) -> None:
        """Make the network plain again; its configuration says again what it said before."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        if self._forget is not None:
            self._forget()
            self._forget = None

    def _enter(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the levels that a forward pass is told."""
        told = kwargs["timestep"] if "timestep" in kwargs else args[1] if len(args) > 1 else None
        if told is None:
            raise InputError("a network with task routing was not told a noise level")
        level = self._level(torch.as_tensor(told))
        if level.device.type == "cpu" and not bool(((level >= 0) & (level < self.config.tasks)).all()):
            raise InputError(  # on a GPU the look-up itself refuses, and nothing has to be read back
                f"noise levels {level.min()} ... {level.max()} in a network with routes for {self.config.tasks}",
                remedy="Tell it steps of the training schedule, or give `level` to add_routing.",
            )
        # an index below 0 would count from the end
        self._now = torch.where(level < 0, self.config.tasks, level).reshape(-1)

    def _leave(self, network: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._now = None

    def _levels_of(self, x: torch.Tensor) -> torch.Tensor:
        """The levels of the pass under way; or of that which gave ``x``, where gradient checkpointing repeats it."""
        if self._now is not None:
            x._routed = self, self._now  # type: ignore[attr-defined]
            return self._now
        routed: tuple[Routing, torch.Tensor] | None = getattr(x, "_routed", None)
        if routed is None or routed[0] is not self:
            raise InputError(
                "a block with task routing ran outside its network",
                remedy="Gradient checkpointing must be the kind that is not reentrant.",
            )
        return routed[1]

    def _mask(self, x: torch.Tensor, tokens: bool) -> torch.Tensor:
        """The masks of the present levels, shaped to multiply ``x``: (B, N, C) of ``tokens``, else (B, C, ...)."""
        levels = self._levels_of(x)
        channels = x.shape[-1] if tokens else x.shape[1]
        key = (channels, x.device)
        if key not in self._masks:
            self._masks[key] = routing_masks(channels, self.config).to(x.device)
        mask = self._masks[key][levels.to(x.device)].to(x.dtype)  # 1 or B rows
        return mask[:, None] if tokens else mask.reshape(*mask.shape, *[1] * (x.ndim - 2))


class _Routed:
    """The two hooks of one block: f(x) becomes f(m x) + (1 - m) x."""

    def __init__(self, routing: Routing, block: nn.Module) -> None:
        self.routing = routing
        self.sequences = any(isinstance(module, nn.Conv1d) for module in block.modules())
        self.held: tuple[torch.Tensor, torch.Tensor] | None = None

    def before(self, block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not args or not isinstance(args[0], torch.Tensor):
            raise InputError(f"a {type(block).__name__} is not given its features first", remedy="Choose other blocks.")
        x = args[0]
        mask = self.routing._mask(x, x.ndim == 3 and not self.sequences)
        self.held = x, mask
        return mask * x, *args[1:]

    def after(self, block: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        assert self.held is not None
        x, mask = self.held
        self.held = None
        if not isinstance(output, torch.Tensor) or output.shape != x.shape:
            raise InputError(
                f"a {type(block).__name__} does not keep the shape of its features",
                remedy="Route blocks whose input and output are alike.",
            )
        return output + (1 - mask) * x


def add_routing(
    network: nn.Module,
    config: RoutingConfig | None = None,
    *,
    blocks: Iterable[nn.Module] | None = None,
    level: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Routing:
    """Give each noise level its own channels in ``network``, in place: f(x) becomes f(m x) + (1 - m) x.

    Parameters
    ----------
    network : Module
        Called as ``network(x, timestep, ...)``: a diffusers transformer (DiT) or U-Net. Names and number of its
        weights stay as they are.
    config : RoutingConfig, optional
        Default: what the network's own configuration holds as ``task_routing``, where this function notes it. So a
        model folder keeps it; after ``from_pretrained``, call ``add_routing(network)`` again.
    blocks : iterable of Module, optional
        Residual blocks, each with its own addition inside, whose input and output are alike: (B, N, C), or (B, C, ...)
        where there are more axes or the block convolves sequences (``Conv1d``). Default:
        ``network.transformer_blocks``, as for DiT; the final layer is not routed.
    level : callable, optional
        From what the network is told to its place 0 ... tasks - 1 on the training schedule. Default: the told step,
        rounded. A run with few steps must still tell the steps of the training schedule, as
        :class:`~priorscope.diffusion.Denoiser` does; networks that are told a time from 0 to 1 need
        ``lambda t: (t * 999).round().long()``.

    Raises
    ------
    InputError
        Without a configuration or blocks, for blocks that have a routing already; while the network runs, for levels
        out of range.

    Notes
    -----
    Not for fine-tuning: weights that were trained without routing answer nonsense. Source: Park et al. 2024 (Denoising
    Task Routing), with their beta = 0.8 and alpha = 4.
    """
    noted = getattr(network, "config", None)
    held = noted.get("task_routing") if isinstance(noted, dict) else None
    if config is None:
        if held is None:
            raise InputError(f"{type(network).__name__} was not trained with task routing", remedy="Give a config.")
        config = RoutingConfig(**held)
    config.check()
    found = list(getattr(network, "transformer_blocks", ()) if blocks is None else blocks)
    if not found:
        raise InputError(f"{type(network).__name__} has no transformer_blocks to route", remedy="Give the blocks.")
    if any(isinstance(getattr(hook, "__self__", None), _Routed) for b in found for hook in b._forward_hooks.values()):
        raise InputError(
            f"blocks of the {type(network).__name__} have a task routing already", remedy="Remove it first."
        )
    routing = Routing(config, level or (lambda told: told.round().long() if told.is_floating_point() else told))
    routing._hooks.append(network.register_forward_pre_hook(routing._enter, with_kwargs=True))
    routing._hooks.append(network.register_forward_hook(routing._leave, always_call=True))
    for block in found:
        routed = _Routed(routing, block)
        routing._hooks.append(block.register_forward_pre_hook(routed.before))
        routing._hooks.append(block.register_forward_hook(routed.after))
    note: Any = getattr(network, "register_to_config", None)
    if note is not None:
        note(task_routing=asdict(config))
        routing._forget = partial(note, task_routing=held)
    return routing

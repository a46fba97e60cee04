"""How long the steps of a run took, and how often the network was asked."""

from __future__ import annotations

import statistics
import time
from types import TracebackType
from typing import Any

import torch
from torch import nn

from priorscope.diffusion.denoiser import StepInfo
from priorscope.errors import InputError


class StepTiming:
    """A callback of :func:`~priorscope.diffusion.sample` that notes the time and the model calls of each step.

    ``with StepTiming(unet) as timing: sample(model, x, times, callback=timing)``, then
    ``run.log({"image": 3} | timing.summary())``.

    Parameters
    ----------
    network : Module, optional
        Its forward passes are counted too: guidance in two passes is one model call and two passes. A pass that a cache
        makes cheaper is a pass as well; :class:`~priorscope.caching.CachedRun` counts those apart.
    device : str or torch.device
        Where the run works. On a GPU times are those of events in its stream: nothing waits until they are read.

    Attributes
    ----------
    calls : list of int
        Model calls of each step, as the solver made them.
    passes, items : int
        Forward passes of ``network``, and the items (rows of its first argument) in them.

    Notes
    -----
    The first step begins with the block, so what is done between its start and ``sample`` counts as well. Several runs
    in one block follow each other; use a block each to tell them apart.
    """

    def __init__(self, network: nn.Module | None = None, *, device: str | torch.device = "cpu") -> None:
        self._network = network
        self._device = torch.device(device)
        self._hook: Any = None
        self._runs = False
        self._marks: list[Any] = []
        self.calls: list[int] = []
        self.passes = 0
        self.items = 0

    def __enter__(self) -> StepTiming:
        if self._runs:
            raise InputError("the clock runs already", remedy="Use a StepTiming of its own for an inner block.")
        self._runs = True
        self._marks, self.calls, self.passes, self.items = [], [], 0, 0
        if self._network is not None:
            self._hook = self._network.register_forward_hook(self._count, with_kwargs=True)
        self._mark()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runs = False
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def __call__(self, info: StepInfo, x: torch.Tensor, s: float) -> None:
        if not self._runs:
            raise InputError("the clock does not run", remedy="Write `with StepTiming() as timing:` around the run.")
        if x.device.type != self._device.type:
            raise InputError(f"the run works on {x.device.type}, the clock on {self._device}", remedy="Give device=.")
        self._mark()
        self.calls.append(info.call)

    def _mark(self) -> None:
        if self._device.type != "cuda":
            self._marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        self._marks.append(event)

    def _count(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        first = args[0] if args else next(iter(kwargs.values()))
        self.passes += 1
        self.items += len(first)

    @property
    def seconds(self) -> list[float]:
        """Time of each step; on a GPU waits for the last one."""
        if self._marks and self._device.type == "cuda":
            self._marks[-1].synchronize()
            return [a.elapsed_time(b) / 1000 for a, b in zip(self._marks, self._marks[1:], strict=False)]
        return [b - a for a, b in zip(self._marks, self._marks[1:], strict=False)]

    def summary(self) -> dict[str, float]:
        """Plain numbers for a run folder's ``log`` or ``write_metrics``.

        Returns
        -------
        dict
            ``steps``, ``model_calls``, ``seconds`` and ``seconds_per_step`` (median: the first step often warms up);
            with a network, ``network_passes`` and ``network_items``.
        """
        seconds = self.seconds
        if not seconds:
            raise InputError("no step was timed", remedy="Pass the timing as callback= to sample().")
        found: dict[str, float] = {"steps": len(seconds), "model_calls": sum(self.calls), "seconds": sum(seconds)}
        found["seconds_per_step"] = statistics.median(seconds)
        if self._network is not None:
            found |= {"network_passes": self.passes, "network_items": self.items}
        return found

"""What the calls of a predictor cost: a row of metrics.jsonl each, and a sentence for the report."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from priorscope.diffusion.denoiser import StepInfo
from priorscope.diffusion.timing import StepTiming
from priorscope.evaluation.run_folder import RunFolder


class CostLog:
    """Notes what calls cost: ``with cost.call(images=8): predictor(...)`` writes one row of metrics.jsonl.

    A row has ``images``, ``seconds`` (the whole call), ``network_passes``, ``network_items`` (rows of the network's
    input in them) and, where a call asks the network twice or more, ``seconds_per_step``: the median from the beginning
    of one pass to that of the next. In a run of several processes the first one's calls are noted.

    Parameters
    ----------
    run : RunFolder
    network : Module
        Whose passes are counted, those too that taps leave before their end.
    device : str or torch.device
        Where it works; on a GPU the call is waited for.
    """

    def __init__(self, run: RunFolder, network: nn.Module, device: torch.device | str = "cpu") -> None:
        self.run = run
        self.network = network
        self.device = torch.device(device)

    @contextmanager
    def call(self, images: int) -> Iterator[None]:
        """Note what is done in the block; nothing where it fails."""
        items: list[int] = []
        begin = time.perf_counter()
        with StepTiming(device=self.device) as timing:

            def begins(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                x = args[0] if args else next(iter(kwargs.values()))
                items.append(len(x))
                timing(StepInfo(call=1), x, 0.0)

            hook = self.network.register_forward_pre_hook(begins, with_kwargs=True)
            try:
                yield
            finally:
                hook.remove()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        row: dict[str, Any] = {"images": images, "seconds": time.perf_counter() - begin}
        row |= {"network_passes": len(items), "network_items": sum(items)}
        gaps = timing.seconds[1:]  # the first is what comes before the first pass
        self.run.log(row | ({"seconds_per_step": statistics.median(gaps)} if gaps else {}))

    def sentence(self) -> str:
        """All calls of the run in words; empty where there was none."""
        rows = [row for row in self.run.history() if "network_passes" in row]
        images = sum(row["images"] for row in rows)
        if not images:
            return ""
        seconds, items = (sum(row[name] for row in rows) / images for name in ("seconds", "network_items"))
        steps = [row["seconds_per_step"] for row in rows if "seconds_per_step" in row]
        step = f"; {statistics.median(steps):.3g} s from one pass to the next" if steps else ""
        passes = sum(row["network_passes"] for row in rows)
        alike = len({row["network_items"] / row["images"] for row in rows}) == 1
        times = ("once" if items == 1 else f"{items:.3g} times") if alike else f"{items:.3g} times on average"
        return (
            f"{images} images took {seconds:.3g} s each: {passes} passes of the network, in which each image "
            f"was computed {times}{step} (metrics.jsonl)."
        )

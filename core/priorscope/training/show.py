"""What a training shows while it runs: a bar on a terminal, lines in a file, curves in TensorBoard."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.settings import LoopConfig


class Display:
    """Progress with throughput and remaining time; only the first process shows anything.

    Parameters
    ----------
    config : LoopConfig
    start : int
        Steps done before this call.
    main : bool
        Whether this is the first process.
    run : RunFolder
        TensorBoard's files go to its ``tensorboard`` folder.
    """

    def __init__(self, config: LoopConfig, start: int, main: bool, run: RunFolder) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.config = config
        self.main = main
        self.step = self._since = start
        self._begin = time.monotonic()
        self._out = 0.0
        self._writer = _tensorboard(run, start) if config.tensorboard and main else None
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            disable=not (main and sys.stdout.isatty()),
        )
        self._task = self._bar.add_task("training", total=config.steps, completed=start, rate="")

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def stepped(self, step: int) -> None:
        """One more step is done."""
        self.step = step
        self._bar.update(self._task, completed=step)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in the block does not count as training."""
        begin = time.monotonic()
        yield
        self._out += time.monotonic() - begin

    def throughput(self) -> dict[str, float]:
        """``examples_per_second`` since the last call."""
        now = time.monotonic()
        seconds = max(now - self._begin - self._out, 1e-9)
        rate = (self.step - self._since) * self.config.batch_size / seconds
        self._begin, self._out, self._since = now, 0.0, self.step
        self._bar.update(self._task, rate=f"{rate:.3g} examples/s")
        return {"examples_per_second": rate}

    def row(self, row: Mapping[str, Any]) -> None:
        """Print a row of the log, and draw it."""
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, row["step"])
        if not self.main:
            return
        shown = "  ".join(f"{name} {value if name == 'step' else f'{value:.3g}'}" for name, value in row.items())
        rate = max(row.get("examples_per_second", math.inf), 1e-9)
        left = (self.config.steps - row["step"]) * self.config.batch_size / rate
        ending = f"  {left / 60:.0f} min left" if left else ""
        # the bar's console prints above the bar; elsewhere lines go straight to the file
        if self._bar.disable:
            print(shown + ending, flush=True)
        else:
            self._bar.console.print(shown, highlight=False, soft_wrap=True)


def _tensorboard(run: RunFolder, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "--tensorboard needs tensorboard, which is not installed", remedy="pip install 'priorscope[log]'."
        ) from None
    return SummaryWriter(str(run.path / "tensorboard"), purge_step=start + 1)

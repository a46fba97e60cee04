"""How many processes share this run, and what they tell each other."""

from __future__ import annotations

import atexit
import os
import sys
from typing import TypeVar

T = TypeVar("T")


def process_index_and_count() -> tuple[int, int]:
    """Rank of this process and number of processes of the run; (0, 1) without a launcher.

    Reads torch.distributed where it is initialised, else RANK and WORLD_SIZE, which ``torchrun`` and
    ``accelerate launch`` set. Imports nothing.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def gather_objects(value: T) -> list[T]:
    """The ``value`` of every process, in rank order, on every process. All must call it.

    Values are pickled between processes of one run, which trust each other.
    """
    _, count = process_index_and_count()
    if count == 1:
        return [value]
    import torch
    import torch.distributed as distributed

    if not distributed.is_initialized():
        from accelerate import PartialState

        # joins the process group that the launcher described; told of the CPU, it does so where there is no GPU, too
        PartialState(cpu=not torch.cuda.is_available())
        atexit.register(_leave)  # gloo may abort a process that ends while its group still stands
    gathered: list[T | None] = [None] * count
    distributed.all_gather_object(gathered, value)
    return gathered  # type: ignore[return-value]


def _leave() -> None:
    import torch.distributed as distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()

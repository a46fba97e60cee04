"""Batches for the loop, prepared by worker processes or by this one."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from priorscope.errors import InputError


class Feed(Protocol):
    """What a training reads. Picklable, since worker processes get a copy."""

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        """Rows ``rows`` of the whole batch of optimiser step ``step`` (from 0).

        A fixed function of its arguments and of the run's seed. Tensors have the rows along their first axis;
        ``key``, a list of names, is shown where something goes wrong.
        """
        ...


class Parts(Dataset[Any]):
    """The parts of batches that one process works on, by their number: ``step * accumulate + part``."""

    def __init__(self, feed: Feed, batch_size: int, *, accumulate: int = 1, rank: int = 0, processes: int = 1) -> None:
        if batch_size % (accumulate * processes):
            raise InputError(
                f"a batch of {batch_size} cannot be cut into {accumulate} parts for {processes} processes",
                remedy="Choose --batch-size as a multiple of --accumulate times the number of processes.",
            )
        self.feed = feed
        self.accumulate = accumulate
        self.rank = rank
        self.processes = processes
        self.rows = batch_size // (accumulate * processes)

    def __getitem__(self, number: int) -> dict[str, Any] | InputError:
        step, part = divmod(number, self.accumulate)
        first = (part * self.processes + self.rank) * self.rows
        try:
            return self.feed.batch(step, range(first, first + self.rows))
        except InputError as error:  # raised in a worker it would come back as a traceback in a string
            return error


def read_parts(
    parts: Parts, first: int, end: int, workers: int, *, pin: bool = False
) -> Generator[dict[str, Any], None, None]:
    """The parts ``first`` to ``end`` in order.

    Raises
    ------
    InputError
        What the feed raised, or that a worker process was killed.
    """
    if workers == 0:
        found: Any = (parts[number] for number in range(first, end))
    else:
        loader: DataLoader[Any] = DataLoader(
            parts,
            batch_size=None,
            sampler=range(first, end),
            num_workers=workers,
            pin_memory=pin,
            prefetch_factor=2,
            worker_init_fn=_one_thread,
            # a forked child would inherit the locks of the parent's threads
            multiprocessing_context="spawn",
        )
        found = iter(loader)
    with worker_deaths():
        try:
            for batch in found:
                if isinstance(batch, InputError):
                    raise batch
                yield batch
        except (EOFError, ConnectionError) as error:  # its pipe broke before torch noticed
            if not workers:
                raise
            raise RuntimeError("a DataLoader worker was killed") from error
        finally:
            if workers:  # at once: while torch watches a dead worker, every child that ends raises the error again
                found._shutdown_workers()


@contextmanager
def worker_deaths() -> Iterator[None]:
    """Name the death of a worker process; torch reports it from a signal handler, whatever runs just then."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).partition(". ")[0]
        raise InputError(
            f"a process that prepares batches ended: {reason}",
            remedy="If memory ran out, use fewer --workers; --resume goes on from the last checkpoint.",
        ) from error


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)

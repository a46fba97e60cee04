"""Run an evaluation over many items: in batches, over processes, resumable, one bad item at a time."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from priorscope.errors import InputError
from priorscope.evaluation.config import plain
from priorscope.evaluation.processes import gather_objects, process_index_and_count
from priorscope.evaluation.run_folder import RunFolder, append_jsonl, read_jsonl, write_jsonl

T = TypeVar("T")
log = logging.getLogger(__name__)


class Failure(NamedTuple):
    """An item that could not be evaluated."""

    key: str
    error: str
    """One line."""


@dataclass(frozen=True)
class SuiteResult:
    """What :func:`run_items` found, the same on every process."""

    rows: list[dict[str, Any]]
    """One row an item that succeeded, in the order of the items; ``row["key"]`` names the item."""
    failures: list[Failure]
    """In the order of the items."""


def run_items(
    items: Sequence[T],
    evaluate: Callable[[list[T]], Sequence[dict[str, Any]]],
    *,
    key: Callable[[T], str],
    batch_size: int = 1,
    run: RunFolder | None = None,
    progress: str | bool | None = None,
) -> SuiteResult:
    """Evaluate items in batches and collect a row for each.

    Batches are cut from the whole list, so that their make-up depends neither on the number of processes nor
    on what was done before; under ``accelerate launch`` or ``torchrun`` each process takes every n-th batch
    and all get the whole result. When a batch raises, its items are tried one by one and only the bad ones
    fail. With a run folder each row is written to items.jsonl as it comes, and a later call goes on from
    there; failed items are tried again.

    Parameters
    ----------
    items : sequence
        The same on every process. Light descriptions, such as paths: loading belongs in `evaluate`, where a
        failure costs one item.
    evaluate : callable
        Takes a list of at most ``batch_size`` items, returns a row for each: a dict that JSON can hold (numpy
        and torch numbers are converted).
    key : callable
        A unique name of an item.
    batch_size : int
        Items a call.
    run : RunFolder, optional
        Where rows are kept.
    progress : str, bool or None
        Title of the progress bar. None and True show a bar on a terminal, False never.

    Returns
    -------
    SuiteResult

    Raises
    ------
    InputError
        If two items have one key, ``batch_size`` is below 1, or items.jsonl cannot be read.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, at least 1 is needed")
    keys = [str(key(item)) for item in items]
    if len(set(keys)) < len(keys):
        twice = next(name for name in keys if keys.count(name) > 1)
        raise InputError(f"two items have the same key {twice!r}")
    rank, count = process_index_and_count()
    done = _finished_rows(run, set(keys))
    batches = [range(start, min(start + batch_size, len(items))) for start in range(0, len(items), batch_size)]
    rows: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}
    with _progress_bar(progress if rank == 0 else False, len(items)) as advance:
        advance(len(done))
        for batch in batches[rank::count]:
            left = [index for index in batch if keys[index] not in done]
            for name, outcome in _evaluate_batch(items, keys, left, evaluate):
                if isinstance(outcome, str):
                    failures[name] = outcome
                else:
                    rows[name] = outcome
                    if run is not None:
                        append_jsonl(_shard_path(run, rank), outcome)
            advance(len(left) * count)  # the other processes are about as far
    for other_rows, other_failures in gather_objects((rows, failures)):
        done |= other_rows
        failures |= other_failures
    result = SuiteResult(
        [done[name] for name in keys if name in done],
        [Failure(name, failures[name]) for name in keys if name in failures],
    )
    if run is not None:
        _merge_shards(run, result, rank)
    return result


def conclude(failures: Sequence[Failure], total: int, out: Path) -> int:
    """End a command over inputs: print how many are done and, on stderr, what failed.

    Parameters
    ----------
    failures : sequence of Failure
        Their keys are the paths of the inputs.
    total : int
        Number of inputs.
    out : Path
        Where the results are.

    Returns
    -------
    int
        The exit status: 1 where some failed.

    Raises
    ------
    InputError
        The failure of the only input.
    """
    if failures and total == 1:
        raise InputError(failures[0].error)
    print(f"{total - len(failures)} of {total} inputs done, results in {out}")
    for failure in failures:
        named = failure.error.startswith(failure.key)
        print(f"failed: {failure.error if named else f'{failure.key}: {failure.error}'}", file=sys.stderr)
    return 1 if failures else 0


def _evaluate_batch(
    items: Sequence[T],
    keys: list[str],
    batch: list[int],
    evaluate: Callable[[list[T]], Sequence[dict[str, Any]]],
) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yield (key, row or one-line error) for each item of the batch."""
    if not batch:
        return
    try:
        found = evaluate([items[index] for index in batch])
    except Exception as error:  # whatever an item did: the others still count
        log.debug("batch of %d items failed", len(batch), exc_info=True)
        if len(batch) > 1:
            for index in batch:
                yield from _evaluate_batch(items, keys, [index], evaluate)
        else:
            yield keys[batch[0]], _one_line(error)
        return
    if len(found) != len(batch):
        raise ValueError(f"evaluate returned {len(found)} rows for {len(batch)} items")
    for index, row in zip(batch, found, strict=True):
        if row.get("key", keys[index]) != keys[index]:
            raise ValueError(f"the row of item {keys[index]!r} calls itself {row['key']!r}")
        yield keys[index], {"key": keys[index], **plain(row)}


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, InputError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _shard_path(run: RunFolder, rank: int) -> Path:
    return run.items_path if rank == 0 else run.items_path.with_name(f"items.rank{rank}.jsonl")


def _finished_rows(run: RunFolder | None, keys: set[str]) -> dict[str, dict[str, Any]]:
    """Rows of an earlier call, from every machine's folder; rows of other items are not ours."""
    own: dict[str, dict[str, Any]] = {}
    if run is not None and run.path.is_dir():
        for path in [run.items_path, *sorted(run.path.glob("items.rank*.jsonl"))]:
            own |= {row["key"]: row for row in read_jsonl(path) if row.get("key") in keys}
    merged: dict[str, dict[str, Any]] = {}
    for part in gather_objects(own):
        merged |= part
    return merged


def _merge_shards(run: RunFolder, result: SuiteResult, rank: int) -> None:
    if rank == 0:
        keys = {row["key"] for row in result.rows}
        others = [row for row in read_jsonl(run.items_path) if row.get("key") not in keys]
        write_jsonl(run.items_path, others + result.rows)
    gather_objects(None)  # the whole is on disk before the parts go
    if rank > 0:
        _shard_path(run, rank).unlink(missing_ok=True)


@contextmanager
def _progress_bar(title: str | bool | None, total: int) -> Iterator[Callable[[int], None]]:
    if title is False or not total or (not isinstance(title, str) and not sys.stderr.isatty()):
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task(title if isinstance(title, str) else "evaluate", total=total, rate="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:.3g} items/s" if speed else "")

        yield advance

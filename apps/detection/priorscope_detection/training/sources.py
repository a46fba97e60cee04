"""Data sets by what a command was told: a path, or streets that are simulated for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from priorscope.errors import InputError
from priorscope.evaluation.processes import gather_objects, process_index_and_count
from priorscope_detection.data.frame import Frames
from priorscope_detection.data.open import Layout, open_frames
from priorscope_detection.simulator.settings import STEP, StreetSettings

#: Seeds from here on are never trained on.
HELD_OUT_SEED = 1_000_000_000
#: Milliseconds from one moment of a simulated street to the next.
PERIOD = 1000 * STEP
_PREFIX = "simulated:"
#: Names of splits that are not learnt from: validate, test_culver_city; not places that begin alike (valencia).
_MEASURED_BY = re.compile(r"(val|valid|validate|validation|test|testing)(?![a-z])", re.IGNORECASE)


def simulated_count(data: str) -> int | None:
    """COUNT of ``simulated:COUNT``; None for a path.

    Raises
    ------
    InputError
        COUNT is not a whole number of 1 or more.
    """
    if not data.startswith(_PREFIX):
        return None
    count = data[len(_PREFIX) :]
    if not count.isascii() or not count.isdigit() or int(count) < 1:
        raise InputError(f"{data!r} names no number of scenarios", remedy="Say, for example, simulated:20.")
    return int(count)


def check_source(data: str, layout: Layout, streets: StreetSettings) -> int | None:
    """COUNT of ``simulated:COUNT``; None for a path.

    Raises
    ------
    InputError
        As :func:`simulated_count`; an option that such data have no use for.
    """
    count = simulated_count(data)
    if count is None and streets != StreetSettings():
        raise InputError(
            f"--streets.* are of simulated streets, the data are {data}",
            remedy=f"Leave them out, or say {_PREFIX}COUNT instead of a folder.",
        )
    if count is not None and layout != "auto":
        raise InputError(f"--layout {layout}, but the streets are simulated", remedy="Leave it out.")
    return count


def check_split(frames: Frames, data: str) -> None:
    """Refuse to learn from a data set with all its splits (InputError): nothing would be left to measure by."""
    splits: tuple[str, ...] = getattr(frames, "splits", ())
    if len(splits) > 1 and any(_MEASURED_BY.match(name) for name in splits):
        raise InputError(
            f"holds several splits: {', '.join(splits)}; who learns from all has nothing left to measure by",
            path=data,
            remedy=f"Name one, such as {Path(data) / ('train' if 'train' in splits else splits[0])}.",
        )


def simulate(folder: Path, count: int, first_seed: int, settings: StreetSettings, *, workers: int = 1) -> Frames:
    """Drive ``count`` scenarios into ``folder``, or go on doing so, and open them.

    Of several processes of one run, which all have to call it, the first drives.
    """
    from priorscope_detection.simulator.write import write_opv2v

    split = "train" if first_seed < HELD_OUT_SEED else "test"
    if process_index_and_count()[0] == 0:
        write_opv2v(folder, range(first_seed, first_seed + count), settings, split=split, workers=workers)
    gather_objects(None)  # the others wait
    return open_frames(folder / split, layout="opv2v")


def split_sequences(frames: Frames, held_out: int) -> tuple[list[int], list[int]]:
    """Frames to learn from, and frames to look at: the last sequences, a tenth of all frames at most.

    Parameters
    ----------
    frames : Frames
    held_out : int
        So many frames, spread over these sequences.
    """
    sequences: dict[str, list[int]] = {}
    for index in range(len(frames)):
        sequences.setdefault(frames.sequence(index), []).append(index)
    learnt = list(sequences.values())
    held: list[int] = []
    while len(learnt) > 1 and len(held) < held_out and len(held) + len(learnt[-1]) <= max(len(frames) // 10, 1):
        held = learnt.pop() + held
    return [index for sequence in learnt for index in sequence], spread(held, held_out)


def spread(indices: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of them, evenly spread."""
    if len(indices) <= most:
        return list(indices)
    return [indices[place * len(indices) // most] for place in range(most)]

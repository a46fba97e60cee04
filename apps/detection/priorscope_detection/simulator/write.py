"""Scenarios on disk in OPV2V's layout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from priorscope.data.files import refuse_overwrite, write_text
from priorscope.errors import InputError
from priorscope_detection.data.pcd import write_pcd
from priorscope_detection.data.rigid import Array

from .scenario import Scenario, Seen
from .settings import StreetSettings

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def write_opv2v(
    folder: str | os.PathLike[str],
    seeds: Sequence[int],
    settings: StreetSettings | None = None,
    *,
    split: str = "train",
    workers: int = 1,
    progress: bool = True,
) -> Path:
    """Simulate scenarios into ``folder/SPLIT/street_SEED/AGENT/MOMENT.{pcd,yaml}``.

    Besides OPV2V's keys each vehicle has ``obj_type`` and ``hits`` (how many rays of this agent came back from it).
    A scenario's ``data_protocol.yaml`` is written last; one that has it is kept, so a run that was cut short goes on.

    Parameters
    ----------
    folder : path-like
    seeds : sequence of int
        One scenario each.
    settings : StreetSettings, optional
    split : str
    workers : int
        Processes. The files are the same whatever their number.
    progress : bool
        Show a bar with throughput and remaining time.

    Returns
    -------
    Path
        The split's folder.

    Raises
    ------
    InputError
        A scenario is there with other settings, or a setting cannot be.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if workers < 1:
        raise InputError(f"workers is {workers}", remedy="Give 1 or more.")
    one = partial(_write_scenario, Path(folder) / split, settings or StreetSettings())
    columns = (TextColumn("streets"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("streets", total=len(seeds))
        for _ in _results(one, [int(seed) for seed in seeds], workers):
            bar.advance(task)
    return Path(folder) / split


def _results(one: Callable[[int], None], seeds: list[int], workers: int) -> Iterator[None]:
    if workers == 1:
        yield from map(one, seeds)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # spawn: a forked child would share the parent's threads' locks (torch, BLAS)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(one, seeds)


def _write_scenario(folder: Path, settings: StreetSettings, seed: int) -> None:
    place = folder / f"street_{seed:06d}"
    protocol = yaml.dump({"simulator": "priorscope", "seed": seed, "settings": asdict(settings)}, Dumper=_DUMPER)
    done = place / "data_protocol.yaml"
    if done.is_file() and done.read_text() == protocol:
        return
    refuse_overwrite(done, remedy="It was made with other settings: name another folder.")
    scenario = Scenario(seed, settings)
    for moment in range(settings.frames):
        boxes = scenario.bodies(moment).boxes
        for seen in scenario.seen(moment):
            stem = place / seen.name / f"{moment:06d}"
            write_pcd(stem.with_suffix(".pcd"), seen.returns.points, overwrite=True)
            content = yaml.dump(_content(scenario, seen, moment, boxes), Dumper=_DUMPER, default_flow_style=None)
            write_text(stem.with_suffix(".yaml"), content, overwrite=True)
    write_text(done, protocol)


def _content(scenario: Scenario, seen: Seen, moment: int, boxes: Array) -> dict[str, Any]:
    vehicles = {}
    for row in seen.listed:
        x, y, z, length, w, h, yaw = (float(value) for value in boxes[row])
        driven = row < len(scenario.traffic.kinds)
        vehicles[int(scenario.ids[row])] = {
            "angle": [0.0, float(np.degrees(yaw)), 0.0],
            "center": [0.0, 0.0, z],
            "extent": [length / 2, w / 2, h / 2],
            "location": [x, y, 0.0],
            "speed": 3.6 * float(scenario.traffic.speeds[moment, row]) if driven else 0.0,
            "obj_type": scenario.kinds[row],
            "hits": int(seen.hits[row]),
        }
    pose = [float(value) for value in seen.pose]
    return {
        "ego_speed": 3.6 * seen.speed,
        "lidar_pose": pose,
        "true_ego_pos": list(pose),
        "predicted_ego_pos": list(pose),
        "vehicles": vehicles,
    }

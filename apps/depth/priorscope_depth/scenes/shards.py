"""Many scenes on disk, in shards that are memory-mapped: writing resumes after a kill, reading touches what it needs.

A folder holds ``shard-00000``, ``shard-00001``, ... Each is a folder of plain npy files over its N scenes:

========== ======== =============== ====================================================================
rgb        uint8    (N, H, W, 3)
depth      float16  (N, H, W)       metres, 0 where there is none; relative error below 2^-11 (0.05 %)
normals    int8     (N, H, W, 3)    times 127, 0 where there is none; within 0.4 degrees once made unit
intrinsics float64  (N, 3, 3)
========== ======== =============== ====================================================================

and ``shard.json`` with the seeds, kinds, size and generator version. A shard is written beside its place and renamed,
so one that is there is whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError

from .generate import GENERATOR_VERSION, Scene, check_request, render_scene

ARRAYS = ("rgb", "depth", "normals", "intrinsics")


def write_scenes(
    folder: str | os.PathLike[str],
    seeds: Sequence[int],
    *,
    height: int = 192,
    width: int = 256,
    kind: str | None = None,
    supersample: int = 2,
    shard_size: int = 200,
    workers: int = 1,
    progress: bool = True,
) -> None:
    """Render scenes into a folder of shards; shards that are already there are kept.

    Memory is bounded by one scene a worker. The files are the same whatever the number of workers.

    Parameters
    ----------
    folder : path
        Made if need be. About 0.4 MB a scene at the default size.
    seeds : sequence of int
        One scene each, in this order.
    height, width, kind, supersample
        As in `render_scene`.
    shard_size : int
        Scenes a shard.
    workers : int
        Processes.
    progress : bool
        Show a bar with throughput and remaining time.

    Raises
    ------
    InputError
        For a bad request, or if the folder holds scenes of another one.
    """
    folder = Path(folder)
    seeds = [int(seed) for seed in seeds]
    if not seeds:
        raise InputError("there are no seeds to write scenes for", remedy="Give at least one.")
    if len(set(seeds)) < len(seeds):
        raise InputError("a seed occurs twice among the seeds", remedy="Give each once.")
    if shard_size < 1 or workers < 1:
        raise InputError(f"shard_size is {shard_size}, workers is {workers}", remedy="Give 1 or more.")
    for seed in seeds:
        check_request(seed, height, width, kind, supersample)
    if folder.exists() and not folder.is_dir():
        raise InputError("this is no folder", path=folder, remedy="Name another place.")
    folder.mkdir(parents=True, exist_ok=True)
    setting = {"height": height, "width": width, "kind": kind, "supersample": supersample, "version": GENERATOR_VERSION}
    jobs: list[tuple[Path, list[int], dict[str, Any]]] = []
    for number in range(-(-len(seeds) // shard_size)):
        part = seeds[number * shard_size : (number + 1) * shard_size]
        path = folder / f"shard-{number:05d}"
        if path.exists():
            found = _read_description(path)
            if {**setting, "seeds": part} != {name: found.get(name) for name in (*setting, "seeds")}:
                raise InputError(
                    "this shard holds scenes of another request", path=path, remedy="Write to an empty folder."
                )
        else:
            jobs.append((path, part, setting))
    beyond = folder / f"shard-{-(-len(seeds) // shard_size):05d}"
    if beyond.exists():
        raise InputError("the folder holds more scenes than asked for", path=beyond, remedy="Write to an empty folder.")
    _run(jobs, len(seeds) - sum(len(part) for _, part, _ in jobs), len(seeds), workers, progress)


def _run(jobs: list[tuple[Path, list[int], dict]], done: int, total: int, workers: int, progress: bool) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("scenes"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("scenes", total=total, completed=done, rate="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:.1f} scenes/s" if speed else "")

        if workers == 1:
            for job in jobs:
                for count in _write_shard(*job):
                    advance(count)
            return
        import multiprocessing

        # spawn: a forked child would share the parent's threads' locks (torch, BLAS)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            pending = {pool.submit(_write_whole_shard, *job) for job in jobs}
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    advance(future.result())


def _write_whole_shard(path: Path, seeds: list[int], setting: dict[str, Any]) -> int:
    return sum(_write_shard(path, seeds, setting))


def _write_shard(path: Path, seeds: list[int], setting: dict[str, Any]) -> Iterator[int]:
    """Write a shard aside, then rename it; yields 1 a scene."""
    height, width = setting["height"], setting["width"]
    aside = path.with_name(path.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    count = len(seeds)
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
        "rgb": (np.uint8, (count, height, width, 3)),
        "depth": (np.float16, (count, height, width)),
        "normals": (np.int8, (count, height, width, 3)),
        "intrinsics": (np.float64, (count, 3, 3)),
    }
    files = {
        name: np.lib.format.open_memmap(aside / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
        for name, (dtype, shape) in shapes.items()
    }
    kinds = []
    for index, seed in enumerate(seeds):
        scene = render_scene(seed, height=height, width=width, kind=setting["kind"], supersample=setting["supersample"])
        files["rgb"][index] = scene.rgb
        files["depth"][index] = scene.depth
        files["normals"][index] = np.rint(scene.normals * 127)
        files["intrinsics"][index] = scene.intrinsics
        kinds.append(scene.kind)
        yield 1
    for file in files.values():
        file.flush()
    (aside / "shard.json").write_text(json.dumps({**setting, "seeds": seeds, "kinds": kinds}))
    aside.rename(path)


def _read_description(path: Path) -> dict[str, Any]:
    try:
        return json.loads((path / "shard.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(
            f"this shard has no readable shard.json ({error.__class__.__name__})",
            path=path,
            remedy="Delete the shard and write the scenes again.",
        ) from error


class StoredScenes:
    """Scenes that `write_scenes` wrote, memory-mapped.

    ``len(scenes)`` counts them, ``scenes[i]`` is a `Scene` (a copy, with depth as float32 and unit normals), and
    `read` gives one array of many scenes at once for training. Open files are not carried over to other processes:
    a pickled copy opens them again.

    Parameters
    ----------
    folder : path
        A folder of shards; those still being written are left out.

    Attributes
    ----------
    seeds : list of int
    kinds : list of str
    height, width : int

    Raises
    ------
    InputError
        If there is no shard, or one is damaged or of another size than the first.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        paths = sorted(path for path in self.folder.glob("shard-*") if path.suffix != ".partial")
        if not paths:
            raise InputError("there are no scenes here", path=self.folder, remedy="Use priorscope depth scenes.")
        self.seeds: list[int] = []
        self.kinds: list[str] = []
        self._shards: list[dict[str, NDArray]] = []
        self._starts: list[int] = []
        for path in paths:
            about = _read_description(path)
            if not self._shards:
                self.height, self.width = int(about["height"]), int(about["width"])
            arrays = {name: _open_array(path / f"{name}.npy") for name in ARRAYS}
            size = (len(about["seeds"]), self.height, self.width)
            if arrays["rgb"].shape[:3] != size or any(len(array) != size[0] for array in arrays.values()):
                raise InputError(
                    f"the shard holds {arrays['rgb'].shape[:3]} instead of {size} scenes, rows, columns",
                    path=path,
                    remedy="Delete the shard and write the scenes again.",
                )
            self._starts.append(len(self.seeds))
            self._shards.append(arrays)
            self.seeds += about["seeds"]
            self.kinds += about["kinds"]

    def __reduce__(self) -> tuple[type[StoredScenes], tuple[Path]]:
        return StoredScenes, (self.folder,)

    def __len__(self) -> int:
        return len(self.seeds)

    def _locate(self, index: int) -> tuple[dict[str, NDArray], int]:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._shards[shard], index - self._starts[shard]

    def __getitem__(self, index: int) -> Scene:
        arrays, row = self._locate(index + len(self) if index < 0 else index)
        depth = arrays["depth"][row].astype(np.float32)
        normals = arrays["normals"][row].astype(np.float32)
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
        return Scene(
            rgb=np.array(arrays["rgb"][row]),
            depth=depth,
            normals=normals,
            valid=depth > 0,
            intrinsics=np.array(arrays["intrinsics"][row]),
            kind=self.kinds[index],
            seed=self.seeds[index],
        )

    def read(self, name: str, indices: Sequence[int]) -> NDArray:
        """One stored array ("rgb", "depth", "normals" or "intrinsics") of several scenes, as stored, (B, ...)."""
        if name not in ARRAYS:
            raise InputError(f"scenes have no array {name!r}", remedy=f"Choose one of {', '.join(ARRAYS)}.")
        rows = []
        for index in indices:
            arrays, row = self._locate(int(index))
            rows.append(arrays[name][row])
        return np.stack(rows)


def _open_array(path: Path) -> NDArray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"cannot be read as an array ({error})", path=path, remedy="Delete the shard and write the scenes again."
        ) from error

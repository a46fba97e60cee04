"""Grouping of points into pillars, frames a second by fusion and steps, memory by the number of agents.

    OMP_NUM_THREADS=1 python benchmarks/detection_pillars.py [--points 120000] [--size small] [--agents 3]

One process, one thread, in the processor's time, on which other programs have less influence than on the clock's; given
are medians and quartiles. The sweep is drawn: 64 beams over flat ground with walls, 120 000 points as a 64-beam LiDAR
has. The reference for the grouping does what its definition says, point by point with a dictionary; both must agree.
Weights are random: neither time nor memory depends on them. Memory is what the process had at most beyond what it had
after loading the network, each number of agents in a process of its own; on CUDA (--device) what torch allocated.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from priorscope.evaluation.tables import print_table
from priorscope_detection.network.batch import AgentBatch, AgentSweep, make_batch
from priorscope_detection.network.detector import CollaborativeDetector
from priorscope_detection.network.spec import FUSIONS, SIZES, DetectorSpec
from priorscope_detection.pillars import PillarGrid, Pillars, group_points

STEPS = (1, 2, 4, 8)


def sweep(count: int, seed: int = 0) -> torch.Tensor:
    """Points of 64 beams on the ground 1.9 m below and on walls 6 to 60 m away."""
    rng = np.random.default_rng(seed)
    beam = np.radians(np.linspace(-24.8, 2.0, 64))[rng.integers(0, 64, count)]
    azimuth = rng.uniform(-np.pi, np.pi, count)
    wall = 33 + 27 * np.sin(5 * azimuth + seed)
    ground = np.where(beam < 0, 1.9 / np.maximum(np.tan(-beam), 1e-3), np.inf)
    distance = np.minimum(wall, ground) + rng.normal(0, 0.02, count)
    xyz = np.stack([distance * np.cos(azimuth), distance * np.sin(azimuth), distance * np.tan(beam)], 1)
    return torch.from_numpy(np.concatenate([xyz, rng.random((count, 1))], 1).astype(np.float32))


def by_dictionary(points: torch.Tensor, grid: PillarGrid, max_points: int, max_pillars: int) -> dict[Any, list[int]]:
    """Rows of each cell's points, cells in the order of their first points."""
    low, cell = np.asarray(grid.extent[:3], np.float32), np.asarray(grid.cell, np.float32)
    places = np.floor((points[:, :3].numpy() - low) / cell)
    found: dict[Any, list[int]] = {}
    for row, place in enumerate(places.tolist()):
        if not all(0 <= p < n for p, n in zip(place, grid.size, strict=True)):
            continue
        key = tuple(place)
        members = found.get(key)
        if members is None:
            if len(found) == max_pillars:
                continue
            members = found[key] = []
        if len(members) < max_points:
            members.append(row)
    return found


def milliseconds(work: Callable[[], Any], repeats: int, clock: Callable[[], float] = time.process_time) -> list[float]:
    work()
    taken = []
    for _ in range(repeats):
        begin = clock()
        work()
        taken.append(1e3 * (clock() - begin))
    return taken


def quartiles(values: list[float]) -> str:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"


def pillars(count: int, repeats: int) -> None:
    rows = []
    for name in ("small", "opv2v", "dair"):
        spec = SIZES[name]
        grid = PillarGrid(spec.extent, spec.cell)
        points = sweep(count)

        def ours(grid: PillarGrid = grid, spec: DetectorSpec = spec, points: torch.Tensor = points) -> Pillars:
            return group_points(points, grid, max_points=spec.max_points, max_pillars=spec.max_pillars)

        begin = time.process_time()
        reference = by_dictionary(points, grid, spec.max_points, spec.max_pillars)
        slow = 1e3 * (time.process_time() - begin)
        found = ours()
        expected = points[[row for members in reference.values() for row in members]]
        assert torch.equal(found.points, expected), "the two differ"
        taken = milliseconds(ours, repeats)
        rows.append(
            {
                "range": name,
                "pillars": len(found),
                "points kept": len(found.points),
                "ms": quartiles(taken),
                "dictionary, ms": slow,
                "times faster": slow / float(np.median(taken)),
            }
        )
    print(f"{count} points into pillars:")
    print_table(rows, ".3g")


def batch_of(spec: DetectorSpec, agents: int, count: int) -> AgentBatch:
    sweeps = []
    for number in range(agents):
        pose = torch.eye(4, dtype=torch.float64)
        pose[0, 3] = 6.0 * number
        sweeps.append(AgentSweep(sweep(count, number), pose))
    return make_batch([sweeps], spec)


def synchronised(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def speed(size: str, agents: int, count: int, repeats: int, device: str) -> None:
    rows = []
    for fusion in FUSIONS:
        spec = replace(SIZES[size], fusion=fusion)
        torch.manual_seed(0)
        network = CollaborativeDetector(spec).eval().to(device)
        batch = batch_of(spec, agents, count).to(device)
        for steps in STEPS if fusion == "codiff" else (None,):

            def work(steps: int | None = steps, network: Any = network, batch: AgentBatch = batch) -> None:
                with torch.inference_mode():
                    network(batch, steps=steps, start="noise")
                synchronised(device)

            taken = milliseconds(work, repeats, time.process_time if device == "cpu" else time.perf_counter)
            weights = sum(weight.numel() for weight in network.parameters())
            rows.append(
                {
                    "fusion": fusion,
                    "steps": steps or "",
                    "weights": weights,
                    "ms a frame": quartiles(taken),
                    "frames/s": 1e3 / float(np.median(taken)),
                }
            )
    print(f"{size}, {agents} agents of {count} points (grouping not counted), {device}:")
    print_table(rows, ".3g")


def memory_of(size: str, fusion: str, agents: int, count: int, device: str) -> float:
    """MiB of one frame."""
    spec = replace(SIZES[size], fusion=fusion)  # type: ignore[arg-type]
    network = CollaborativeDetector(spec).eval().to(device)
    batch = batch_of(spec, agents, count).to(device)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.inference_mode():
        network(batch)
    if device.startswith("cuda"):
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def memory(size: str, count: int, device: str) -> None:
    rows = []
    for agents in (1, 2, 4, 8):
        row: dict[str, Any] = {"agents": agents}
        for fusion in ("attention", "v2x", "codiff"):
            if device == "cpu":
                reading, writing = os.pipe()
                child = os.fork()
                if child == 0:
                    status = 1
                    try:
                        os.write(writing, str(memory_of(size, fusion, agents, count, device)).encode())
                        status = 0
                    finally:
                        os._exit(status)
                os.close(writing)
                with os.fdopen(reading) as pipe:
                    text = pipe.read()
                if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
                    sys.exit(f"{fusion} with {agents} agents failed")
                row[fusion] = float(text)
            else:
                row[fusion] = memory_of(size, fusion, agents, count, device)
        rows.append(row)
    print(f"{size}, {count} points an agent, MiB of a frame, {device}:")
    print_table(rows, ".3g")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=120_000)
    parser.add_argument("--size", default="small", choices=list(SIZES))
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread")
    memory(given.size, given.points, given.device)  # first: a child has at most what its parent had
    pillars(given.points, given.repeats)
    speed(given.size, given.agents, given.points, max(given.repeats // 3, 3), given.device)


if __name__ == "__main__":
    main()

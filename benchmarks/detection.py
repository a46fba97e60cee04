"""Rotated IoU of all 1000 x 1000 pairs of cars, ours against shapely. ``python benchmarks/detection.py [--small]``

Scenes: cars 3.5 to 5 m long and 1.6 to 2.1 m wide with any heading, in a square of 200 m (sparse), of 16 m (dense) and
of 4 m (piled: nearly all pairs overlap). Both sides give the matrix of IoUs in bird's-eye view. shapely gets its
polygons ready made, which is not counted; "all pairs" is shapely.intersection of every pair at once, which looks at the
envelopes first; "tree" asks a shapely.STRtree which pairs touch and intersects only those. Ours starts from the boxes
and checks them. In turns, in one process; the ratio is the median over neighbouring runs. On one CPU thread the time is
that of the processor (other work on the machine does not count), else that of the wall.

"memory" is by how much the first call of ours raised the process's largest resident memory; the matrix has 8 MB of it.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import shapely
import torch
from numpy.typing import NDArray

from priorscope.evaluation.tables import print_table
from priorscope_detection.geometry.boxes import bev_corners
from priorscope_detection.geometry.overlap import bev_iou

SCENES = {"sparse": 200.0, "dense": 16.0, "piled": 4.0}


def cars(count: int, extent: float, seed: int) -> torch.Tensor:
    """Boxes (count, 7), float64."""
    draw = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 7, generator=draw, dtype=torch.float64)
    low = torch.tensor([-extent / 2, -extent / 2, -1.2, 3.5, 1.6, 1.4, 0.0], dtype=torch.float64)
    span = torch.tensor([extent, extent, 0.4, 1.5, 0.5, 0.4, 2 * np.pi], dtype=torch.float64)
    return low + span * boxes


def all_pairs(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Of polygons."""
    common = shapely.area(shapely.intersection(a[:, None], b[None]))
    return common / (shapely.area(a)[:, None] + shapely.area(b)[None] - common)


def by_tree(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    i, j = shapely.STRtree(b).query(a, predicate="intersects")
    common = np.zeros((len(a), len(b)))
    common[i, j] = shapely.area(shapely.intersection(a[i], b[j]))
    return common / (shapely.area(a)[:, None] + shapely.area(b)[None] - common)


def largest_memory() -> float:
    """Of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare(name: str, count: int, repeats: int, device: str) -> dict[str, str]:
    boxes = [cars(count, SCENES[name], seed) for seed in (0, 1)]
    here = [each.to(device) for each in boxes]
    polygons = [shapely.polygons(bev_corners(each).numpy()) for each in boxes]

    def ours() -> NDArray[np.float64]:
        return bev_iou(*here).cpu().numpy()

    before = largest_memory()
    ours()
    memory = largest_memory() - before
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    seconds: list[list[float]] = []
    calls: list[Callable[[], NDArray[np.float64]]] = [
        ours,
        lambda: all_pairs(*polygons),
        lambda: by_tree(*polygons),
    ]
    for _ in range(repeats):
        times, results = [], []
        for call in calls:
            begin = clock()
            results.append(call())
            times.append(clock() - begin)
        seconds.append(times)
    iou, true, tree = results
    gap = max(np.abs(iou - true).max(), np.abs(iou - tree).max())
    assert gap <= 1e-5, f"{name}: differs by {gap}"

    def ratio(other: int) -> str:
        ratios = [times[other] / times[0] for times in seconds]
        return f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"

    medians = [1e3 * statistics.median(times) for times in zip(*seconds, strict=True)]
    return {
        "scene": f"{name}, {SCENES[name]:g} m",
        "pairs that overlap": f"{int((true > 0).sum())} of {true.size}",
        "ours": f"{medians[0]:.1f} ms",
        "all pairs": f"{medians[1]:.0f} ms",
        "times less": ratio(1),
        "tree": f"{medians[2]:.1f} ms",
        "times less than that": ratio(2),
        "IoU differs by": f"{gap:.1e}",
        "memory": f"{memory:.0f} MB",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="50 boxes, few repeats: does it run?")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    count, repeats = (50, 2) if options.small else (options.count, options.repeats)
    print(
        f"shapely {shapely.__version__} (GEOS {shapely.geos_version_string}), torch {torch.__version__} on "
        f"{options.device}, {options.threads} thread(s); medians of {repeats}, piled once"
    )
    # piled is slow for shapely, and not to be compared by a few per cent
    print_table([compare(name, count, 1 if name == "piled" else repeats, options.device) for name in SCENES])


if __name__ == "__main__":
    main()

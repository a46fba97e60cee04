"""How many training scenes a second, and an hour, one CPU core makes, per kind: sizing information, no claim.

    python benchmarks/bench_scenes.py [--count 40] [--height 192] [--width 256] [--supersample 2]

Processor time is counted, so that other work on the machine does not change the figures much.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import platform
import time

from priorscope_depth.scenes import KINDS, render_scene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40, help="scenes of each kind")
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--supersample", type=int, default=2)
    options = parser.parse_args()
    size = {"height": options.height, "width": options.width, "supersample": options.supersample}
    start = time.process_time()
    render_scene(0, **size)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {options.height} x {options.width}, {options.count} a kind")
    print(f"textures and first scene: {time.process_time() - start:.1f} s once a process")
    print(f"{'kind':10} {'scenes/s a core':>16} {'ms a scene':>11}")
    mean = 0.0
    for kind, (_, share) in KINDS.items():
        start = time.process_time()
        for seed in range(options.count):
            render_scene(seed, kind=kind, **size)
        each = (time.process_time() - start) / options.count
        mean += share * each
        print(f"{kind:10} {1 / each:16.1f} {1000 * each:11.0f}")
    mean /= sum(share for _, share in KINDS.values())
    print(f"{'mixed':10} {1 / mean:16.1f} {1000 * mean:11.0f}")
    print(f"in the shares in which seeds choose kinds: {3600 / mean:.0f} scenes an hour a core")


if __name__ == "__main__":
    main()

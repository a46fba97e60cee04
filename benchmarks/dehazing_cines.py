"""The cines of dehazing.py, simulated element by element (pymust's SIMUS) and kept as npz; 40 s of a core each.

OMP_NUM_THREADS=1 python benchmarks/dehazing_cines.py --out /tmp/dehazing
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from priorscope_medical.ultrasound.multipath_haze import Haze
from priorscope_medical.ultrasound.rf_simulator import SimulatedCine
from priorscope_medical.ultrasound.simus_cines import SIMUS_SCAN, simus_cine

#: Seeds of the cines that options are tuned on, and of those that are judged. Fixed before any was simulated.
TUNED_ON = tuple(range(1000, 1004))
HELD_OUT = tuple(range(2000, 2020))
#: Of those that dehazing_prior.py learns from; nothing else is done with them.
LEARNT_FROM = tuple(range(3000, 3016))
PARTS = ("tissue", "haze", "noise", "regions")


def cine(seed: int, folder: Path) -> SimulatedCine:
    """The cine of a seed, simulated unless it is in the folder."""
    path = folder / f"simus-{seed}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = simus_cine(seed)
        aside = path.with_suffix(".part.npz")
        np.savez(
            aside,
            **{name: getattr(made, name) for name in PARTS},
            haze_settings=np.array([getattr(made.made_of, name) for name in Haze.__dataclass_fields__]),
        )
        aside.rename(path)
    with np.load(path) as kept:
        haze = Haze(*(float(value) for value in kept["haze_settings"]))
        haze = replace(haze, paths=round(haze.paths))
        arrays = {name: kept[name] for name in PARTS}
    return SimulatedCine(**arrays, scan=SIMUS_SCAN, frame_rate=50.0, ventricle=None, made_of=haze)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("/tmp/dehazing"))
    parser.add_argument("--learnt-from", action="store_true", help="those that dehazing_prior.py needs instead")
    options = parser.parse_args()
    for seed in LEARNT_FROM if options.learnt_from else (*TUNED_ON, *HELD_OUT):
        cine(seed, options.out)
        print(seed, flush=True)


if __name__ == "__main__":
    main()

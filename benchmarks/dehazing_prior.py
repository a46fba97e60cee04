"""The second half of the training of tiny-rf-tissue and tiny-rf-haze: every other patch is of a SIMUS cine.

The first half is `priorscope medical train-ultrasound` on convolved cines alone. This one goes on from that prior with
half of the patches out of SIMUS cines that dehazing.py neither tunes on nor judges.

    OMP_NUM_THREADS=1 python benchmarks/dehazing_prior.py tissue --start runs/tissue/model --data runs/cines \
        --out runs/tissue-2 --simus /tmp/dehazing
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dehazing_cines import LEARNT_FROM, cine

from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.loop import fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER, LoopConfig
from priorscope_medical.ultrasound.patches import HELD_OUT_FROM, PatchFeed, read_cines
from priorscope_medical.ultrasound.quadrature import Quadrature, as_channels, carrier_of
from priorscope_medical.ultrasound.rf_prior import Part, RfPrior
from priorscope_medical.ultrasound.rf_task import RfPriorTask


@dataclass(frozen=True)
class Config:
    """What is noted in the run folder."""

    part: str
    start: str
    cines: int
    loop: LoopConfig


@dataclass(frozen=True)
class Mixed:
    """Even rows of a batch from one feed, odd rows from another."""

    first: PatchFeed
    second: PatchFeed

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        one, other = self.first.batch(step, rows), self.second.batch(step, rows)
        odd = torch.tensor([row % 2 == 1 for row in rows])
        return {name: torch.where(odd.view(-1, *(1,) * (one[name].ndim - 1)), other[name], one[name]) for name in one}


def simus_rows(part: Part, folder: Path) -> np.ndarray:
    """I and Q of the cines to learn from (cines, 2 frames, rows, beams), in units of the hazy cine's RMS."""
    found = []
    for seed in LEARNT_FROM:
        one = cine(seed, folder)
        hazy = torch.from_numpy(one.hazy())
        way = Quadrature(hazy.shape[1], carrier_of(hazy))
        scale = way.forward(hazy).abs().square().mean().sqrt()
        rf = torch.from_numpy(one.clean if part == "tissue" else one.haze)
        found.append(as_channels(way.forward(rf) / scale).numpy())
    rows = min(one.shape[1] for one in found)
    return np.stack([one[:, :rows] for one in found])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("tissue", "haze"))
    parser.add_argument("--start", type=Path, required=True, help="prior of the first half")
    parser.add_argument("--data", type=Path, required=True, help="cines that train-ultrasound has written")
    parser.add_argument("--simus", type=Path, default=Path("/tmp/dehazing"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cines", type=int, default=240)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--max-seconds", type=float, default=600)
    options = parser.parse_args()
    loop = LoopConfig(
        steps=options.steps,
        batch_size=16,
        lr=1e-3,
        warmup=20,
        ema=0.99,
        log_every=50,
        validate_every=250,
        checkpoint_every=50,
        precision="bfloat16",
        device="cpu",
        seed=1,
        max_seconds=options.max_seconds,
        resume=True,
    )
    prior = RfPrior.from_pretrained(options.start, device="cpu")
    prior.network.requires_grad_(True)
    values, part = prior.values, options.part
    assert values.part == part
    known = {"frames": values.frames, "seed": 0}
    convolved = read_cines(options.data, part, options.cines, **known)
    shape = (values.rows, values.beams)
    feed = Mixed(
        PatchFeed(convolved, *shape, loop.batch_size, loop.seed),
        PatchFeed(simus_rows(part, options.simus), *shape, loop.batch_size, loop.seed + 1),
    )
    held_out = PatchFeed(read_cines(options.data, part, 12, first=HELD_OUT_FROM, **known), *shape, 48, 0)
    config = Config(part, str(options.start), options.cines, loop)
    may_differ = ("out", *(f"loop.{name}" for name in MAY_DIFFER))
    run = RunFolder.create(options.out, config, resume=(options.out / "config.yaml").exists(), may_differ=may_differ)
    task = RfPriorTask(prior, held_out.batch(0, range(48)))
    result = fit(task, feed, loop, run, make_accelerator(loop))
    print(json.dumps({"part": part, "step": result.step, "finished": result.finished, "model": str(result.model)}))


if __name__ == "__main__":
    main()

"""Sample quality against time for a network that has learned something, and what training aids are worth.

    OMP_NUM_THREADS=1 python benchmarks/evidence_acceleration.py [--only front|search|aids] [--max-seconds 1080]
    python benchmarks/evidence_acceleration.py --table        # the rows as markdown, and the figures

Small galaxies of four kinds, drawn by formulas (evidence_acceleration_galaxies.py): 20 000 to learn from, 4 000 held
out. A class-conditional U-Net of 1 million weights learns to make them.

front: DDIM, DPM-Solver++(2M) and GHVB with 5, 10, 20 and 50 steps, each without a cache and with DeepCache, encoder
propagation and TaylorSeer, every third step in full; 500 galaxies from the same noise each time. DDIM with 100 steps
is the reference.

search: levels of 5 and 10 steps by search_timesteps, on other noise, against that reference.

aids: the same U-Net, trained shorter, with one aid at a time against plain training: equal steps, data, noise and
settings, three seeds; sampled by DPM-Solver++(2M) with 20 steps.

Quality is the squared MMD to the held-out galaxies, unbiased, with KID's kernel (x y / d + 1)^3, in two spaces: the
features of a small network that was trained to tell the kind and the shape of the galaxies to learn from (``encoder``),
and 64 whitened principal components of their pixels (``pixels``). The alignment's teacher is another such network. The
floor is that of 500 real galaxies, of those to learn from. Nothing was tuned on these figures: an aid has its
published numbers where those do not depend on the length of a training.

Every result is a row of evidence_acceleration.jsonl; the same command goes on with what is missing. --small tries the
script within a minute and leaves its rows in --out.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from evidence_acceleration_galaxies import KINDS, Galaxies, draw_galaxies
from evidence_acceleration_judge import Judge
from evidence_acceleration_prior import Aid, Encoder, aids, told, train, train_encoder, trained
from evidence_rows import EvidenceRows

from priorscope.caching import DeepCache, EncoderPropagation, Every, TaylorSeer
from priorscope.diffusion import (
    DistanceToReference,
    ddim,
    dpmpp_2m,
    ghvb,
    load_times,
    sample,
    save_times,
    search_timesteps,
    spaced_times,
)
from priorscope.evaluation.run_folder import read_jsonl
from priorscope.training import LoopConfig

ROWS = Path(__file__).with_suffix(".jsonl")
SOLVERS: dict[str, Any] = {"DDIM": ddim, "DPM++ 2M": dpmpp_2m, "GHVB 1.8": partial(ghvb, order=1.8)}
STEPS, REFERENCE, INTERVAL = (5, 10, 20, 50), 100, 3
DEEP = ("down_blocks.1.resnets.*", "down_blocks.2.resnets.*", "mid_block.resnets.*", "up_blocks.0.resnets.*")
CACHES: dict[str, Callable[[], Any] | None] = {
    "none": None,
    "DeepCache": lambda: DeepCache(INTERVAL),
    "encoder propagation": lambda: EncoderPropagation(Every(INTERVAL)),
    "TaylorSeer": lambda: TaylorSeer(INTERVAL, order=1, modules=DEEP),
}
SEARCHED = (5, 10)
WIDTHS = (32, 48, 64)
SEEDS = (0, 1, 2)
BATCH = 100
SIZES = {"learnt": 20_000, "held out": 4_000, "samples": 500, "encoder": 1_500, "searched": 64}
SMALL = {"learnt": 400, "held out": 200, "samples": 8, "encoder": 20, "searched": 4}
LOOP: dict[str, Any] = {
    "batch_size": 64,
    "lr": 1.5e-3,
    "warmup": 100,
    "checkpoint_every": 100,
    "validate_every": 10**6,
    "precision": "bfloat16",
    "device": "cpu",
    "resume": True,
}
FRONT_STEPS, AID_STEPS, LOG_EVERY = 3_000, 400, 10
#: Of galaxies to learn from and held out, encoders, and the noise of samples and of the search.
SEED, HELD_OUT_SEED, JUDGE_SEED, TEACHER_SEED, NOISE_SEED, SEARCH_SEED = range(6)


class Evidence(EvidenceRows):
    """All results, in order, until the time is used up."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options.out / "rows.jsonl" if options.small else ROWS, options.max_seconds)
        self.out: Path = options.out
        self.sizes = SMALL if options.small else SIZES
        self.cut = 100 if options.small else 1
        self.out.mkdir(parents=True, exist_ok=True)

    def galaxies(self, name: str, seed: int) -> Galaxies:
        path = self.out / f"{name}-{self.sizes[name]}.npz"
        if not path.exists():
            np.savez(path, **draw_galaxies(self.sizes[name], seed)._asdict())
        with np.load(path) as kept:
            return Galaxies(**kept)

    @cached_property
    def learnt(self) -> Galaxies:
        return self.galaxies("learnt", SEED)

    def encoder(self, name: str, seed: int) -> Encoder:
        path = self.out / f"{name}-{self.sizes['encoder']}.pt"
        if not path.exists():
            torch.save(train_encoder(self.learnt, seed, self.sizes["encoder"]).state_dict(), path)
        encoder = Encoder(seed)
        encoder.load_state_dict(torch.load(path, weights_only=True))
        return encoder.eval().requires_grad_(False)

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.encoder("judge", JUDGE_SEED), self.learnt, self.galaxies("held out", HELD_OUT_SEED))

    def kinds(self, count: int) -> torch.Tensor:
        return torch.arange(count) % len(KINDS)

    def noise(self, seed: int, count: int) -> torch.Tensor:
        return torch.randn(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed))

    def sampled(self, denoiser: Any, times: list[float], solver: Any, cache: Any = None) -> tuple[np.ndarray, Any]:
        """Galaxies, and seconds of the processor for one and passes of the network."""
        count = self.sizes["samples"]
        parts, begin = [], time.process_time()
        noise, kinds = self.noise(NOISE_SEED, count).split(BATCH), self.kinds(count).split(BATCH)
        with nullcontext() if cache is None else cache.on(denoiser) as counts:
            for x, kind in zip(noise, kinds, strict=True):
                parts.append(sample(denoiser, x, times, step=solver, condition=told(kind)))
        seconds = time.process_time() - begin
        full = len(times) - 1 if counts is None else counts.full // len(noise)
        return torch.cat(parts).numpy()[:, 0], {"ms_per_image": 1e3 * seconds / count, "full_passes": full}

    def scored(self, images: np.ndarray) -> dict[str, float]:
        return self.judge(images, self.kinds(len(images)).numpy())

    def floor(self) -> None:
        """Real galaxies in place of made ones, ten times."""
        draw = np.random.default_rng(0)
        for index in range(10):
            if self.lacks(kind="floor", draw=index):
                chosen = draw.permutation(len(self.learnt.images) // len(KINDS))[: self.sizes["samples"] // len(KINDS)]
                places = (chosen[:, None] * len(KINDS) + np.arange(len(KINDS))).ravel()  # kinds are in turn
                self.write({"kind": "floor", "draw": index, **self.scored(self.learnt.images[places])})

    def train(self, name: str, widths: tuple[int, ...], aid: Aid, steps: int, seed: int) -> None:
        """Finish the training ``name`` and write its row."""
        if not self.lacks(kind="training", name=name):
            return
        steps = max(steps // self.cut, 4)
        config = LoopConfig(steps=steps, seed=seed, max_seconds=self.seconds_left(), log_every=LOG_EVERY, **LOOP)
        teacher = self.encoder("teacher", TEACHER_SEED) if aid.alignment.features else None
        result = train(self.out / name, widths, aid, self.learnt, config, teacher)
        if not result.finished:
            raise SystemExit("the same command goes on")
        rates = [row["examples_per_second"] for row in result.history]
        row = {"steps": steps, "batch_size": config.batch_size, "loss": result.history[-1]["loss"]}
        row |= {"images_per_second": float(np.median(rates)), "levels_joined": result.joined}
        self.write({"kind": "training", "name": name} | row)

    def front(self) -> None:
        self.floor()
        self.train("front", WIDTHS, Aid(), FRONT_STEPS, SEED)
        denoiser = trained(self.out / "front", WIDTHS, Aid())
        for name, steps, cache in cells():
            key = {"kind": "sample", "solver": name, "steps": steps, "cache": cache, "levels": "even"}
            if self.lacks(**key):
                self.seconds_left()
                made = CACHES[cache]
                times = spaced_times(denoiser.schedule, steps)
                images, spent = self.sampled(denoiser, times, SOLVERS[name], None if made is None else made())
                self.write(key | spent | self.scored(images) | self.apart(images, f"{name} {steps} {cache}"))

    def apart(self, images: np.ndarray, name: str) -> dict[str, float]:
        """Distance to the reference's galaxies, relative to their norm; a few galaxies are kept for the figure."""
        path = self.out / "reference.npy"
        if name == f"DDIM {REFERENCE} none":
            np.save(path, images)
        np.save(self.out / f"samples {name}.npy", images[:16])
        reference = np.load(path)
        return {"distance": float(np.linalg.norm(images - reference) / np.linalg.norm(reference))}

    def search(self) -> None:
        if self.lacks(kind="sample", steps=REFERENCE):
            raise SystemExit("the search needs the network and the reference of --only front")
        denoiser, count = trained(self.out / "front", WIDTHS, Aid()), self.sizes["searched"]
        for name, steps in [("DDIM", 5), ("DDIM", 10), ("DPM++ 2M", 5), ("DPM++ 2M", 10)]:
            key = {"kind": "sample", "solver": name, "steps": steps, "cache": "none", "levels": "searched"}
            if not self.lacks(**key):
                continue
            self.seconds_left()
            path = self.out / f"levels-{steps}-{SOLVERS[name].__name__}.json"
            begin = time.process_time()
            if not path.exists():
                metric = DistanceToReference(
                    denoiser,
                    self.noise(SEARCH_SEED, count),
                    spaced_times(denoiser.schedule, REFERENCE),
                    condition=told(self.kinds(count)),
                    step=SOLVERS[name],
                    reference_step=ddim,
                )
                few = {"population": 24, "generations": 6, "parents": 6, "crossovers": 6, "mutations": 6}
                found = search_timesteps(metric, denoiser.schedule, steps, memory=path.with_suffix(".jsonl"), **few)
                save_times(path, found)
            searched = time.process_time() - begin
            times = load_times(path)
            images, spent = self.sampled(denoiser, times, SOLVERS[name])
            spent |= {"times": times, "search_seconds": searched}
            self.write(key | spent | self.scored(images) | self.apart(images, f"{name} {steps} searched"))

    def aids(self) -> None:
        for seed in SEEDS:
            for name, aid in aids(max(AID_STEPS // self.cut, 4)).items():
                key = {"kind": "aid", "aid": name, "seed": seed}
                if not self.lacks(**key):
                    continue
                run = f"{name.replace(' ', '-')}-{seed}"
                self.train(run, WIDTHS, aid, AID_STEPS, seed)
                self.seconds_left()
                denoiser = trained(self.out / run, WIDTHS, aid)
                images, spent = self.sampled(denoiser, spaced_times(denoiser.schedule, 20), dpmpp_2m)
                np.save(self.out / f"samples {run}.npy", images[:16])
                self.write(key | spent | self.scored(images))


def cells() -> Iterator[tuple[str, int, str]]:
    """Solver, steps and cache of each run; the reference first."""
    yield "DDIM", REFERENCE, "none"
    for steps in STEPS:
        for name in SOLVERS:
            for cache in CACHES:
                yield name, steps, cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["front", "search", "aids"])
    parser.add_argument("--out", type=Path, default=Path("/tmp/evidence_acceleration"))
    parser.add_argument("--max-seconds", type=float, default=1080, help="no new piece of work begins after")
    parser.add_argument("--small", action="store_true", help="try the script; rows go to --out")
    parser.add_argument("--table", action="store_true", help="print the rows and draw the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.table:
        from evidence_acceleration_table import FIGURES, show

        rows = read_jsonl(options.out / "rows.jsonl" if options.small else ROWS)
        show(rows, options.out, options.out if options.small else FIGURES)
        return
    evidence = Evidence(options)
    for part in ("front", "search", "aids"):
        if options.only in (None, part):
            getattr(evidence, part)()


if __name__ == "__main__":
    main()

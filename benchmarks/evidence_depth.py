"""Does a generative prior help a small depth model, and is one step of x0 better than many of noise prediction?

    OMP_NUM_THREADS=1 python benchmarks/evidence_depth.py [--scenes runs/scenes] [--max-seconds 1200] [--table]

The papers' claims at a small scale, on procedural scenes of 48 x 64 pixels:

1. A small autoencoder, then a U-Net that generates its latents, are trained on unlabelled images: the prior.
2. With 1 %, 10 % and 100 % of 4000 labelled scenes the prior becomes a depth model in Lotus' way ("lotus-d": x0 in one
   step, with the detail preserver) and in Marigold's ("marigold": v of noised annotations, ten DDIM steps;
   "epsilon": the noise itself instead of v); "scratch" is lotus-d from random weights.

All get the same scenes, mirroring, optimiser, steps and rows of network input a step; each its own learning rate
(and, where one step is told one level for good, that level), chosen from a grid with 10 % of the labels and the first
seed on validation scenes. A seed fixes which scenes are
labelled (1 % is part of 10 %), new weights, order and noise. Figures are of 200 held-out scenes, fitted in disparity
with scale and shift.

Every finished run is a row of evidence_depth.jsonl; the same command goes on with what is missing, and it ends after
--max-seconds. --table prints the rows as markdown and draws figures/evidence_depth.png; so does the end of all runs.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from evidence_depth_prior import (
    FARTHEST,
    HELD_OUT,
    LABELLED,
    NEAREST,
    SCHEDULER,
    SIZE,
    UNET,
    Cached,
    OutOfTimeError,
    SaveWeights,
    TableFeed,
    Workshop,
    mirror,
    new_module,
    read_rows,
    score,
)
from safetensors.torch import save_file

from priorscope.backbones.latents import AutoencoderSpace, LatentSpace, PixelSpace
from priorscope.backbones.stable_diffusion import expand_conv_in
from priorscope.diffusion.condition import Condition
from priorscope.predictors.geometry import Geometry
from priorscope.training.settings import LoopConfig
from priorscope_depth.assemble import build_predictor
from priorscope_depth.base import ImagePredictor
from priorscope_depth.baselines import BASELINES, oracle_baseline
from priorscope_depth.families import FAMILIES, Recipe
from priorscope_depth.metrics import depth_metrics
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.training.lotus import LotusTask
from priorscope_depth.training.marigold import MarigoldTask

HERE = Path(__file__).parent
ROWS = HERE / "evidence_depth.jsonl"
FIGURE = HERE / "figures" / "evidence_depth.png"

SHARES = {"1 %": 40, "10 %": 400, "100 %": 4000}
SEEDS = (0, 1, 2)
METHODS = ("lotus-d", "scratch", "marigold", "epsilon")
ONE_STEP = METHODS[:2]
LABELS = {
    "lotus-d": "Lotus-D from the prior, 1 step",
    "scratch": "Lotus-D from random weights, 1 step",
    "marigold": "v-prediction from the prior, 10 steps",
    "epsilon": "noise prediction from the prior, 10 steps",
}
RATES = (1e-3, 3e-3, 1e-2)
#: Rows by name of the method and share of the labels.
Methods = Mapping[str, Mapping[str, list[dict[str, Any]]]]
#: What a one-step network is told: Lotus' 999, or 1 as GenPercept, where a prior has seen images almost without noise.
LEVELS = (999.0, 1.0)
STEPS, NETWORK_ROWS = 600, 16
DDIM_STEPS = 10


class Lotus(SaveWeights, LotusTask):
    """Lotus' losses on cached latents."""


class Marigold(SaveWeights, MarigoldTask):
    """Marigold's loss on cached latents."""


@dataclass(frozen=True)
class Setting:
    """What a method's grid varies."""

    lr: float
    level: float | None


@dataclass(frozen=True)
class Context:
    """What all fine-tunings share."""

    vae: AutoencoderKL
    cached: Cached
    prior: UNet2DConditionModel


class Evidence(Workshop):
    """All runs of one call, in order, until its time is used up."""

    def run(self, method: str, share: str, seed: int, setting: Setting, context: Context) -> dict[str, Any]:
        """One fine-tuning, or its row if it is there."""
        key = {"kind": "run", "method": method, "share": share, "seed": seed, **asdict(setting)}
        found = self.find(**key)
        if found is not None:
            return found
        predictor, seconds = self.tuned(method, share, seed, setting, context)
        lotus = method in ONE_STEP
        row = key | {"steps": STEPS, "cpu_seconds": round(seconds, 1), "calls": 1 if lotus else DDIM_STEPS}
        row |= {f"validation_{k}": v for k, v in predict_and_score(predictor, self.validation).items()}
        row |= predict_and_score(predictor, self.held_out)
        self.write(row)
        return row

    def tuned(
        self, method: str, share: str, seed: int, setting: Setting, context: Context
    ) -> tuple[DepthPredictor, float]:
        """A fine-tuned predictor, and the processor seconds that it took."""
        self.left()
        unet = new_module(lambda: UNet2DConditionModel(**UNET), seed)
        if method != "scratch":
            unet.load_state_dict(context.prior.state_dict())
        training, predictor = assemble(method, unet, AutoencoderSpace(context.vae), setting.level)
        lotus = method in ONE_STEP
        task = Lotus(training) if lotus else Marigold(training)
        # equal work: the detail preserver gives Lotus a second row of network input for each scene
        size = NETWORK_ROWS // 2 if lotus else NETWORK_ROWS
        chosen = np.random.default_rng([seed, 5]).permutation(LABELLED)[: SHARES[share]].tolist()

        def make(items: torch.Tensor, generator: np.random.Generator) -> dict[str, torch.Tensor]:
            side = mirror(items, generator)
            image = context.cached.images[side, items]
            counts = torch.ones(len(items), 1, *image.shape[-2:], dtype=torch.bool)
            return {"image": image, "target": context.cached.painted[side, items], "counts": counts}

        config = LoopConfig(steps=STEPS, batch_size=size, lr=setting.lr, warmup=20, ema=0, log_every=STEPS, seed=seed)
        config = LoopConfig(**(vars(config) | {"checkpoint_every": STEPS, "validate_every": STEPS}))
        return predictor, self.train("run", task, TableFeed(chosen, size, seed, make), config)

    def all(self) -> None:
        self.load()
        for kind in BASELINES:
            if not self.find(kind="baseline", method=kind):
                self.write({"kind": "baseline", "method": kind, **score_baseline(kind, self.held_out)})
        vae = self.autoencoder()
        cached = self.latents(vae)
        context = Context(vae, cached, self.prior(cached))
        chosen = {}
        for method in self.options.methods:
            grid = [self.run(method, "10 %", SEEDS[0], setting, context) for setting in settings(method)]
            best = min(grid, key=lambda row: row["validation_abs_rel"])
            chosen[method] = Setting(best["lr"], best["level"])
            # a grid that has grown may choose another: the last row counts
            if chosen_settings(self.rows).get(method) != chosen[method]:
                self.write({"kind": "setting", "method": method, **asdict(chosen[method])})
        for seed in SEEDS:
            for share in SHARES:
                for method in self.options.methods:
                    self.run(method, share, seed, chosen[method], context)
        if set(self.options.methods) == set(METHODS) and not self.find(kind="speed"):
            self.write({"kind": "speed", **speed(context)})


def settings(method: str) -> list[Setting]:
    """The grid of a method."""
    levels = LEVELS if method in ONE_STEP else (None,)
    return [Setting(rate, level) for level in levels for rate in RATES]


def assemble(
    method: str, unet: Any, space: LatentSpace, level: float | None = None
) -> tuple[DepthPredictor, DepthPredictor]:
    """The same network on cached latents, to train, and on images, to predict with."""
    lotus = method in ONE_STEP
    recipe = Recipe(FAMILIES["lotus-d" if lotus else "marigold"], "depth", "disparity")
    if not lotus:
        expand_conv_in(unet)
        unet.to(memory_format=torch.channels_last)
    # noise prediction says nothing about x0 where there is no signal: it keeps Stable Diffusion's last level
    scheduler = SCHEDULER | {"rescale_betas_zero_snr": method == "marigold"}
    made = []
    for where in (PixelSpace(), space):
        steps = None if lotus else DDIM_STEPS
        latent = build_predictor(unet, where, torch.zeros(1, 2, 16), recipe, scheduler=scheduler, steps=steps)
        if level is not None:
            latent.denoiser.time_label = level
        if method == "epsilon":
            latent.denoiser.prediction_type = "epsilon"
        if not lotus:
            # the prior's network has a place for the task; it was told nothing
            told = {"text": torch.zeros(1, 2, 16), "task": torch.zeros(1, 4)}
            latent.condition = Condition(told, shared=told)
        made.append(DepthPredictor(latent, recipe, geometry=Geometry(max(SIZE), multiple=16), name=method))
    return made[0], made[1]


def predict_and_score(predictor: ImagePredictor, scenes: Sequence[Any]) -> dict[str, float]:
    results = predictor([s.rgb for s in scenes], items=[str(s.seed) for s in scenes], batch_size=20)
    return score([result.values for result in results], scenes)


def score_baseline(kind: Any, scenes: Sequence[Any]) -> dict[str, float]:
    rows = []
    for scene in scenes:
        valid = scene.valid & (scene.depth < FARTHEST)
        depth = oracle_baseline(kind, scene.depth, valid, "disparity", NEAREST, FARTHEST)
        rows.append(depth_metrics(depth, scene.depth, valid))
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in ("abs_rel", "delta1")}


def speed(context: Context) -> dict[str, float]:
    """Processor time of one image by one step and by ten, in turn, in this process: medians of 30."""
    image = np.zeros((*SIZE, 3), np.uint8)
    times: dict[str, list[float]] = {}
    predictors = {m: assemble(m, copy.deepcopy(context.prior), AutoencoderSpace(context.vae))[1] for m in METHODS[::2]}
    for turn in range(33):
        for method, predictor in predictors.items():
            begin = time.process_time()
            predictor(image)
            if turn >= 3:  # the first calls allocate
                times.setdefault(method, []).append(time.process_time() - begin)
    one, ten = (float(np.median(times[method])) for method in predictors)
    return {"one_step_ms": round(1e3 * one, 1), "ten_steps_ms": round(1e3 * ten, 1), "ratio": round(ten / one, 2)}


def chosen_settings(rows: Sequence[dict[str, Any]]) -> dict[str, Setting]:
    return {row["method"]: Setting(row["lr"], row["level"]) for row in rows if row["kind"] == "setting"}


def results(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Rows of the chosen settings, by method and share."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for method, setting in chosen_settings(rows).items():
        for row in rows:
            if row["kind"] == "run" and row["method"] == method and Setting(row["lr"], row["level"]) == setting:
                found.setdefault(method, {}).setdefault(row["share"], []).append(row)
    return {method: found[method] for method in METHODS if method in found}


def print_methods(methods: Methods) -> None:
    """A row each method and share, over seeds."""
    print("\n| method | labels | seeds | AbsRel: mean (least to most) | delta1 | training (s) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, shares in methods.items():
        for share in SHARES:
            runs = shares.get(share, [])
            if runs:
                error = [run["abs_rel"] for run in runs]
                spread = f"{np.mean(error):.4f} ({min(error):.4f} to {max(error):.4f})"
                delta, seconds = (np.mean([run[figure] for run in runs]) for figure in ("delta1", "cpu_seconds"))
                print(f"| {name} | {SHARES[share]} ({share}) | {len(runs)} | {spread} | {delta:.4f} | {seconds:.0f} |")


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    print_methods({LABELS[method]: shares for method, shares in results(rows).items()})
    for row in rows:
        if row["kind"] in ("baseline", "autoencoder"):
            name = f"best {row['method']}" if row["kind"] == "baseline" else "true annotation through the autoencoder"
            print(f"| {name} | | | {row['abs_rel']:.4f} | {row['delta1']:.4f} | |")
    print(f"\n| grid (10 % of the labels, seed {SEEDS[0]}) | told level | learning rate | validation AbsRel |")
    print("| --- | --- | --- | --- |")
    for row in rows:
        if row["kind"] == "run" and row["share"] == "10 %" and row["seed"] == SEEDS[0]:
            level = "each step's" if row["level"] is None else f"{row['level']:g}"
            print(f"| {LABELS[row['method']]} | {level} | {row['lr']:g} | {row['validation_abs_rel']:.4f} |")
    for row in rows:
        if row["kind"] in ("autoencoder", "prior", "speed"):
            print(f"\n{row['kind']}: " + ", ".join(f"{name} {value}" for name, value in row.items() if name != "kind"))


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The methods, and the best constant and plane."""
    levels = {f"best {row['method']}": row["abs_rel"] for row in rows if row["kind"] == "baseline"}
    draw_methods({LABELS[method]: shares for method, shares in results(rows).items()}, path, levels)


def draw_methods(methods: Methods, path: Path, levels: Mapping[str, float] | None = None) -> None:
    """AbsRel over the number of labelled scenes; bars from the least to the greatest of the seeds; level lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for (name, shares), marker in zip(methods.items(), "osD^", strict=False):
        present = [share for share in SHARES if shares.get(share)]
        errors = [[run["abs_rel"] for run in shares[share]] for share in present]
        means = np.array([np.mean(error) for error in errors])
        bars = [means - [min(error) for error in errors], [max(error) for error in errors] - means]
        axes.errorbar([SHARES[share] for share in present], means, bars, marker=marker, capsize=3, label=name)
    for (name, level), style in zip((levels or {}).items(), ("--", ":"), strict=False):
        axes.axhline(level, color="0.4", linestyle=style, label=name)
    axes.set_xscale("log")
    axes.set_xticks(list(SHARES.values()), [f"{count}\n({share})" for share, count in SHARES.items()])
    axes.minorticks_off()
    axes.set_xlabel("labelled scenes")
    axes.set_ylabel(f"AbsRel on {HELD_OUT} held-out scenes (lower is better)")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


@torch.no_grad()
def export(vae: AutoencoderKL, unet: UNet2DConditionModel, folder: Path) -> None:
    """The prior as a folder in diffusers' layout, for FeatureExtractor (benchmarks/correspondence.py)."""
    unet = copy.deepcopy(unet)
    # it was always told the same task: what that adds to the embedding of time is a constant
    unet.time_embedding.linear_2.bias.add_(unet.class_embedding(torch.zeros(1, 4))[0])
    unet.class_embedding = None
    unet.register_to_config(class_embed_type=None, projection_class_embeddings_input_dim=None)
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    (folder / "scheduler").mkdir(exist_ok=True)
    schedule = {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction", **SCHEDULER}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(schedule))
    save_file({"state": torch.zeros(1, 2, UNET["cross_attention_dim"])}, folder / "empty_prompt.safetensors")


def evidence_depth_parser(text: str | None) -> argparse.ArgumentParser:
    """The options that the scripts on these scenes share; ``text`` is a script's docstring."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, default=Path("runs/scenes"), help="holds train/ and held_out/")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence_depth"), help="autoencoder, prior, latents")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--max-seconds", type=float, default=1200)
    parser.add_argument("--table", action="store_true", help="only print the table and draw the figure")
    return parser


def main() -> None:
    parser = evidence_depth_parser(__doc__)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--export", type=Path, help="write the autoencoder and the prior to this folder, and end")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.table:
        evidence = Evidence(options)
        try:
            if options.export:
                evidence.load()
                vae = evidence.autoencoder()
                export(vae, evidence.prior(evidence.latents(vae)), options.export)
                return
            evidence.all()
        except OutOfTimeError:
            print("Out of time; the same command goes on.")
    rows = read_rows(options.rows)
    print_table(rows)
    draw(rows, FIGURE)


if __name__ == "__main__":
    main()

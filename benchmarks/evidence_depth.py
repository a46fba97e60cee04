"""Does a generative prior help a small depth model, and is one step of x0 better than many of noise prediction?

    OMP_NUM_THREADS=1 python benchmarks/evidence_depth.py [--scenes runs/scenes] [--max-seconds 1200] [--table]

The papers' claims at a small scale, on procedural scenes of 48 x 64 pixels:

1. A small autoencoder, then a U-Net that generates its latents, are trained on unlabelled images: the prior.
2. With 1 %, 10 % and 100 % of 4000 labelled scenes the prior becomes a depth model in Lotus' way ("lotus-d": x0 in one
   step, with the detail preserver) and in Marigold's ("marigold": v of noised annotations, ten DDIM steps;
   "epsilon": the noise itself instead of v); "scratch" is lotus-d from random weights.

All get the same scenes, mirroring, optimiser, steps and rows of network input a step; each its own learning rate,
chosen from a grid with 10 % of the labels and the first seed on validation scenes. A seed fixes which scenes are
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
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from priorscope.backbones.latents import AutoencoderSpace, LatentSpace, PixelSpace
from priorscope.backbones.stable_diffusion import UNetNetwork, expand_conv_in
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.losses import denoising_loss
from priorscope.diffusion.noise import item_seed
from priorscope.diffusion.schedule import VPSchedule
from priorscope.evaluation.run_folder import RunFolder
from priorscope.predictors.geometry import Geometry, resize
from priorscope.training.loop import fit, make_accelerator
from priorscope.training.order import Order
from priorscope.training.settings import MAY_DIFFER, LoopConfig
from priorscope.training.task import Task
from priorscope_depth.alignment import fit_affine
from priorscope_depth.assemble import build_predictor
from priorscope_depth.baselines import BASELINES, oracle_baseline
from priorscope_depth.families import FAMILIES, Recipe
from priorscope_depth.metrics import depth_metrics
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.scenes import HELD_OUT_SEED, StoredScenes, write_scenes
from priorscope_depth.targets import normalise_depth
from priorscope_depth.training.lotus import LotusTask
from priorscope_depth.training.marigold import MarigoldTask

HERE = Path(__file__).parent
ROWS = HERE / "evidence_depth.jsonl"
FIGURE = HERE / "figures" / "evidence_depth.png"

SIZE = (48, 64)
UNLABELLED, LABELLED, VALIDATION, HELD_OUT = 11_000, 4000, 100, 200
SHARES = {"1 %": 40, "10 %": 400, "100 %": 4000}
SEEDS = (0, 1, 2)
METHODS = ("lotus-d", "scratch", "marigold", "epsilon")
LABELS = {
    "lotus-d": "Lotus-D from the prior, 1 step",
    "scratch": "Lotus-D from random weights, 1 step",
    "marigold": "v-prediction from the prior, 10 steps",
    "epsilon": "noise prediction from the prior, 10 steps",
}
RATES = (3e-4, 1e-3, 3e-3)
STEPS, NETWORK_ROWS = 200, 16
DDIM_STEPS = 10
NEAREST, FARTHEST = 1e-3, 300.0

VAE: dict[str, Any] = {
    "block_out_channels": (16, 32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
}
UNET: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (32, 56, 80),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "attention_head_dim": (1, 2, 2),
    "cross_attention_dim": 16,
    "use_linear_projection": True,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 4,
}
#: Stable Diffusion's schedule with v; terminal SNR 0 and trailing steps for Marigold, as its version 1.1.
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "trailing",
    "set_alpha_to_one": False,
}
VAE_RUN = LoopConfig(steps=500, batch_size=8, lr=2e-3, warmup=50, ema=0, checkpoint_every=100, log_every=100)
PRIOR_RUN = LoopConfig(steps=1500, batch_size=32, lr=1.5e-3, warmup=100, checkpoint_every=200, log_every=200)


class OutOfTimeError(Exception):
    """The time of this call is used up."""


@dataclass
class Scenes:
    """What is kept in memory: images uint8 (N, 3, h, w), painted annotations float16 (N, 1, h, w) in [-1, 1]."""

    images: torch.Tensor
    painted: torch.Tensor


@dataclass
class Cached:
    """Latents (2, N, C, h, w) of images as they are and mirrored, and of the annotations of the first of them."""

    images: torch.Tensor
    painted: torch.Tensor


@dataclass(frozen=True)
class TableFeed:
    """Batches from one function of (rows, generator), over some of the items."""

    items: Sequence[int]
    size: int
    seed: int
    make: Callable[[torch.Tensor, np.random.Generator], dict[str, torch.Tensor]]

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        places = Order(len(self.items), self.seed).batch(step, self.size)
        chosen = torch.tensor([self.items[places[row].item] for row in rows])
        batch: dict[str, Any] = self.make(chosen, np.random.default_rng([self.seed, step, rows.start]))
        batch["seed"] = torch.tensor([item_seed(self.seed, step * self.size + row) for row in rows])
        return batch


class SaveWeights(Task):
    """Tasks here keep weights only: the rest is in this file."""

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        save_file({name: value.contiguous() for name, value in self.model.state_dict().items()}, folder / "weights")


class AutoencoderTask(SaveWeights):
    """L1 of the image plus a little of the divergence from a standard normal posterior."""

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        distribution = self.model.encode(batch["image"]).latent_dist  # type: ignore[operator]
        latents = distribution.mean + distribution.std * torch.randn_like(distribution.mean)
        error = (self.model.decode(latents).sample - batch["image"]).abs().mean()  # type: ignore[operator]
        divergence = distribution.kl().mean() / distribution.mean[0].numel()
        return {"loss": error + 1e-3 * divergence, "l1": error, "divergence": divergence}


class PriorTask(SaveWeights):
    """v-prediction of image latents at uniform steps; text and task are zero, as nothing is told."""

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        x0 = batch["image"]
        denoiser = Denoiser(UNetNetwork(self.model), VPSchedule.from_scheduler_config(SCHEDULER), "v")
        condition = Condition({"text": torch.zeros(len(x0), 2, 16), "task": torch.zeros(len(x0), 4)})
        t = torch.randint(1000, (len(x0),)).float()
        return {"loss": denoising_loss(denoiser, x0, torch.randn_like(x0), t, condition)}


class Lotus(SaveWeights, LotusTask):
    """Lotus' losses on cached latents."""


class Marigold(SaveWeights, MarigoldTask):
    """Marigold's loss on cached latents."""


class Evidence:
    """All runs of one call, in order, until ``deadline``."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.deadline = time.monotonic() + options.max_seconds
        self.out: Path = options.out
        self.rows = read_rows(options.rows)

    def find(self, **wanted: Any) -> dict[str, Any] | None:
        return next((row for row in self.rows if all(row.get(k) == v for k, v in wanted.items())), None)

    def write(self, row: dict[str, Any]) -> None:
        with self.options.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        print(json.dumps(row), flush=True)

    def left(self) -> float:
        seconds = self.deadline - time.monotonic()
        if seconds < 5:
            raise OutOfTimeError
        return seconds

    def scenes(self, name: str, first: int, count: int) -> StoredScenes:
        """Scenes from seed ``first`` on; what is missing is rendered."""
        folder = self.options.scenes / name
        while True:
            try:
                stored = StoredScenes(folder)
            except Exception:  # none yet: the folder may not be there
                done = 0
            else:
                done = len(stored)
                if done >= count:
                    return stored
            self.left()
            until = min(count, done + 200)
            write_scenes(folder, range(first, first + until), progress=False)
            print(f"{folder}: {until} of {count} scenes", flush=True)

    def load(self) -> None:
        """Images and painted annotations at the working size."""
        stored = self.scenes("train", 0, UNLABELLED)
        path = self.out / "scenes.safetensors"
        if not path.exists():
            images, painted = [], []
            for first in range(0, UNLABELLED, 200):
                part = range(first, first + 200)
                rgb = torch.from_numpy(stored.read("rgb", part)).permute(0, 3, 1, 2).float()
                images.append(resize(rgb, SIZE).round().clamp(0, 255).to(torch.uint8))
                depth = torch.from_numpy(stored.read("depth", part).astype(np.float32))[:, None]
                painted.append(paint(depth).half())
            self.out.mkdir(parents=True, exist_ok=True)
            save_file({"images": torch.cat(images).contiguous(), "painted": torch.cat(painted).contiguous()}, path)
        self.data = Scenes(**load_file(path))
        self.validation = [stored[index] for index in range(LABELLED, LABELLED + VALIDATION)]
        held_out = self.scenes("held_out", HELD_OUT_SEED, HELD_OUT)
        self.held_out = [held_out[index] for index in range(HELD_OUT)]
        self.unlabelled = [i for i in range(UNLABELLED) if not LABELLED <= i < LABELLED + VALIDATION]

    def train(self, name: str, task: Task, feed: TableFeed, config: LoopConfig, *, resume: bool = False) -> float:
        """Train; processor seconds of all calls that it took."""
        folder = self.out / name
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        limit = self.left() if resume else 0.0
        config = LoopConfig(**(vars(config) | {"resume": resume, "max_seconds": limit, "device": "cpu"}))
        run = RunFolder.create(folder, config, resume=resume, may_differ=MAY_DIFFER)
        accelerator = make_accelerator(config)
        begin = time.process_time()
        result = fit(task, feed, config, run, accelerator)
        accelerator.free_memory()
        spent = folder / "cpu_seconds"
        seconds = time.process_time() - begin + (float(spent.read_text()) if spent.exists() else 0.0)
        spent.write_text(f"{seconds}\n")
        if not result.finished:
            raise OutOfTimeError
        task.eval()
        return seconds

    def autoencoder(self) -> AutoencoderKL:
        weights = self.out / "vae/model/weights"
        vae = new_module(lambda: AutoencoderKL(**VAE), 0)
        seconds = 0.0
        if not (self.find(kind="autoencoder") and weights.exists()):
            feed = TableFeed(self.unlabelled, VAE_RUN.batch_size, 0, self._pictures)
            seconds = self.train("vae", AutoencoderTask(vae), feed, VAE_RUN, resume=True)
        vae.load_state_dict(load_file(weights))
        vae.eval().requires_grad_(False)
        deviation = float(vae.encode(self._as_input(range(500))).latent_dist.mean.std())
        vae.register_to_config(scaling_factor=1 / deviation)
        if not self.find(kind="autoencoder"):
            self.write({"kind": "autoencoder", **self._fidelity(vae), "cpu_seconds": round(seconds)})
        return vae

    def _as_input(self, items: Sequence[int]) -> torch.Tensor:
        return (self.data.images[torch.as_tensor(items)].float() / 127.5 - 1).contiguous(
            memory_format=torch.channels_last
        )

    def _pictures(self, items: torch.Tensor, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        image = self._as_input(items.tolist())
        if generator.random() < 0.5:
            image = image.flip(-1)
        # annotations are grey pictures; the autoencoder sees none of them, but it should know grey
        grey = torch.from_numpy(generator.random(len(items)) < 0.3)[:, None, None, None]
        return {"image": torch.where(grey, image.mean(1, keepdim=True), image)}

    def _fidelity(self, vae: AutoencoderKL) -> dict[str, float]:
        """What a perfect latent would give on the held-out scenes: the ceiling of every method here."""
        space = AutoencoderSpace(vae)
        rgb = torch.from_numpy(np.stack([scene.rgb for scene in self.held_out])).permute(0, 3, 1, 2).float()
        images = resize(rgb, SIZE) / 127.5 - 1
        truth = torch.from_numpy(np.stack([scene.depth for scene in self.held_out]))[:, None]
        painted = paint(truth).expand(-1, 3, -1, -1)
        rebuilt = space.decode(space.encode(painted)).mean(1, keepdim=True).clamp(-1, 1)
        values = resize(rebuilt, self.held_out[0].depth.shape)[:, 0].numpy()
        return {
            "parameters": sum(weight.numel() for weight in vae.parameters()),
            "image_psnr": psnr(space.decode(space.encode(images)), images),
            "annotation_psnr": psnr(rebuilt, painted[:, :1]),
            **score(values, self.held_out),
        }

    def latents(self, vae: AutoencoderKL) -> Cached:
        path = self.out / "latents.safetensors"
        if not path.exists():
            space = AutoencoderSpace(vae)
            images: list[torch.Tensor] = []
            painted: list[torch.Tensor] = []
            for first in range(0, UNLABELLED, 100):
                image = self._as_input(range(first, first + 100))
                images.append(torch.stack([space.encode(image), space.encode(image.flip(-1))]))
                if first < LABELLED:
                    target = self.data.painted[first : first + 100].float().expand(-1, 3, -1, -1)
                    painted.append(torch.stack([space.encode(target), space.encode(target.flip(-1))]))
            both = {"images": torch.cat(images, 1), "painted": torch.cat(painted, 1)}
            save_file({name: value.contiguous() for name, value in both.items()}, path)
        return Cached(**load_file(path))

    def prior(self, cached: Cached) -> UNet2DConditionModel:
        weights = self.out / "prior/model/weights"
        unet = new_module(lambda: UNet2DConditionModel(**UNET), 0)
        if not (self.find(kind="prior") and weights.exists()):

            def make(items: torch.Tensor, generator: np.random.Generator) -> dict[str, torch.Tensor]:
                return {"image": cached.images[mirror(items, generator), items]}

            feed = TableFeed(self.unlabelled, PRIOR_RUN.batch_size, 0, make)
            seconds = self.train("prior", PriorTask(unet), feed, PRIOR_RUN, resume=True)
            loss = json.loads((self.out / "prior/metrics.json").read_text())["loss"]
            size = sum(weight.numel() for weight in unet.parameters())
            if not self.find(kind="prior"):
                row = {"kind": "prior", "parameters": size, "steps": PRIOR_RUN.steps, "loss": loss}
                self.write(row | {"cpu_seconds": round(seconds)})
        unet.load_state_dict(load_file(weights))
        return unet

    def run(self, method: str, share: str, seed: int, rate: float, context: Context) -> dict[str, Any]:
        """One fine-tuning, or its row if it is there."""
        key = {"kind": "run", "method": method, "share": share, "seed": seed, "lr": rate}
        found = self.find(**key)
        if found is not None:
            return found
        self.left()
        unet = new_module(lambda: UNet2DConditionModel(**UNET), seed)
        if method != "scratch":
            unet.load_state_dict(context.prior.state_dict())
        training, predictor = assemble(method, unet, AutoencoderSpace(context.vae))
        lotus = method in ("lotus-d", "scratch")
        task = Lotus(training) if lotus else Marigold(training)
        # equal work: the detail preserver gives Lotus a second row of network input for each scene
        size = NETWORK_ROWS // 2 if lotus else NETWORK_ROWS
        chosen = np.random.default_rng([seed, 5]).permutation(LABELLED)[: SHARES[share]].tolist()

        def make(items: torch.Tensor, generator: np.random.Generator) -> dict[str, torch.Tensor]:
            side = mirror(items, generator)
            image = context.cached.images[side, items]
            counts = torch.ones(len(items), 1, *image.shape[-2:], dtype=torch.bool)
            return {"image": image, "target": context.cached.painted[side, items], "counts": counts}

        config = LoopConfig(steps=STEPS, batch_size=size, lr=rate, warmup=20, ema=0, log_every=STEPS, seed=seed)
        config = LoopConfig(**(vars(config) | {"checkpoint_every": STEPS, "validate_every": STEPS}))
        seconds = self.train("run", task, TableFeed(chosen, size, seed, make), config)
        row = key | {"steps": STEPS, "cpu_seconds": round(seconds, 1), "calls": 1 if lotus else DDIM_STEPS}
        row |= {f"validation_{k}": v for k, v in predict_and_score(predictor, self.validation).items()}
        row |= predict_and_score(predictor, self.held_out)
        self.write(row)
        return row

    def all(self) -> None:
        self.load()
        for kind in BASELINES:
            if not self.find(kind="baseline", method=kind):
                self.write({"kind": "baseline", "method": kind, **score_baseline(kind, self.held_out)})
        vae = self.autoencoder()
        cached = self.latents(vae)
        context = Context(vae, cached, self.prior(cached))
        for method in self.options.methods:
            grid = [self.run(method, "10 %", SEEDS[0], rate, context) for rate in RATES]
            best = min(grid, key=lambda row: row["validation_abs_rel"])["lr"]
            if not self.find(kind="rate", method=method):
                self.write({"kind": "rate", "method": method, "lr": best})
        if not self.find(kind="speed"):
            self.write({"kind": "speed", **speed(context)})
        for seed in SEEDS:
            for share in SHARES:
                for method in self.options.methods:
                    chosen = self.find(kind="rate", method=method)
                    assert chosen is not None
                    self.run(method, share, seed, chosen["lr"], context)


@dataclass(frozen=True)
class Context:
    """What all fine-tunings share."""

    vae: AutoencoderKL
    cached: Cached
    prior: UNet2DConditionModel


def new_module(make: Callable[[], Any], seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().to(memory_format=torch.channels_last)


def mirror(items: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(generator.integers(2, size=len(items)))


def paint(depth: torch.Tensor) -> torch.Tensor:
    """Depth (B, 1, H, W), 0 for sky, as an annotation (B, 1, h, w) in [-1, 1]: normalised disparity, sky far."""
    return normalise_depth(resize(depth, SIZE, "nearest-exact")[:, 0], "trunc_disparity")


def assemble(method: str, unet: Any, space: LatentSpace) -> tuple[DepthPredictor, DepthPredictor]:
    """The same network on cached latents, to train, and on images, to predict with."""
    lotus = method in ("lotus-d", "scratch")
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
        if method == "epsilon":
            latent.denoiser.prediction_type = "epsilon"
        if not lotus:
            # the prior's network has a place for the task; it was told nothing
            told = {"text": torch.zeros(1, 2, 16), "task": torch.zeros(1, 4)}
            latent.condition = Condition(told, shared=told)
        made.append(DepthPredictor(latent, recipe, geometry=Geometry(max(SIZE), multiple=16), name=method))
    return made[0], made[1]


def predict_and_score(predictor: DepthPredictor, scenes: Sequence[Any]) -> dict[str, float]:
    results = predictor([s.rgb for s in scenes], items=[str(s.seed) for s in scenes], batch_size=20)
    return score([result.values for result in results], scenes)


def score(values: Any, scenes: Sequence[Any]) -> dict[str, float]:
    """Mean AbsRel and delta1 of disparities (H, W), fitted to each scene."""
    rows = []
    for value, scene in zip(values, scenes, strict=True):
        valid = scene.valid & (scene.depth < FARTHEST)
        fitted = fit_affine(value, scene.depth, valid, "disparity").depth(value, NEAREST, FARTHEST)
        rows.append(depth_metrics(fitted, scene.depth, valid))
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in ("abs_rel", "delta1")}


def score_baseline(kind: Any, scenes: Sequence[Any]) -> dict[str, float]:
    rows = []
    for scene in scenes:
        valid = scene.valid & (scene.depth < FARTHEST)
        depth = oracle_baseline(kind, scene.depth, valid, "disparity", NEAREST, FARTHEST)
        rows.append(depth_metrics(depth, scene.depth, valid))
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in ("abs_rel", "delta1")}


def psnr(image: torch.Tensor, truth: torch.Tensor) -> float:
    return round(float(10 * torch.log10(4 / (image.clamp(-1, 1) - truth).square().mean())), 2)


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


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def results(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Rows of the chosen learning rates, by method and share."""
    rates = {row["method"]: row["lr"] for row in rows if row["kind"] == "rate"}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for method in METHODS:
        for row in rows:
            if row["kind"] == "run" and row["method"] == method and row["lr"] == rates.get(method):
                found.setdefault(method, {}).setdefault(row["share"], []).append(row)
    return found


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    print("\n| method | labels | seeds | AbsRel: mean (least to most) | delta1 | training (s) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for method, shares in results(rows).items():
        for share in SHARES:
            runs = shares.get(share, [])
            if runs:
                error = [run["abs_rel"] for run in runs]
                spread = f"{np.mean(error):.4f} ({min(error):.4f} to {max(error):.4f})"
                delta, seconds = (np.mean([run[name] for run in runs]) for name in ("delta1", "cpu_seconds"))
                labels = f"{SHARES[share]} ({share})"
                print(f"| {LABELS[method]} | {labels} | {len(runs)} | {spread} | {delta:.4f} | {seconds:.0f} |")
    for row in rows:
        if row["kind"] in ("baseline", "autoencoder"):
            name = f"best {row['method']}" if row["kind"] == "baseline" else "true annotation through the autoencoder"
            print(f"| {name} | | | {row['abs_rel']:.4f} | {row['delta1']:.4f} | |")
    print(f"\n| method, 10 % of the labels, seed {SEEDS[0]} | learning rate | validation AbsRel |\n| --- | --- | --- |")
    for row in rows:
        if row["kind"] == "run" and row["share"] == "10 %" and row["seed"] == SEEDS[0]:
            print(f"| {LABELS[row['method']]} | {row['lr']:g} | {row['validation_abs_rel']:.4f} |")
    for row in rows:
        if row["kind"] in ("autoencoder", "prior", "speed"):
            print(f"\n{row['kind']}: " + ", ".join(f"{name} {value}" for name, value in row.items() if name != "kind"))


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """AbsRel over the number of labelled scenes; bars from the least to the greatest of the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for (method, shares), marker in zip(results(rows).items(), "osD^", strict=False):
        counts = [SHARES[share] for share in SHARES if share in shares]
        errors = [[run["abs_rel"] for run in shares[share]] for share in SHARES if share in shares]
        means = np.array([np.mean(error) for error in errors])
        bars = [means - [min(error) for error in errors], [max(error) for error in errors] - means]
        axes.errorbar(counts, means, bars, marker=marker, capsize=3, label=LABELS[method])
    for row, style in zip((row for row in rows if row["kind"] == "baseline"), ("--", ":"), strict=False):
        axes.axhline(row["abs_rel"], color="0.4", linestyle=style, label=f"best {row['method']}")
    axes.set_xscale("log")
    axes.set_xticks(list(SHARES.values()), [f"{count}\n({share})" for share, count in SHARES.items()])
    axes.minorticks_off()
    axes.set_xlabel("labelled scenes")
    axes.set_ylabel(f"AbsRel on {HELD_OUT} held-out scenes (lower is better)")
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, default=Path("runs/scenes"), help="holds train/ and held_out/")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence_depth"), help="autoencoder, prior, latents")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--max-seconds", type=float, default=1200)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--table", action="store_true", help="only print the table and draw the figure")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.table:
        try:
            Evidence(options).all()
        except OutOfTimeError:
            print("Out of time; the same command goes on.")
    rows = read_rows(options.rows)
    print_table(rows)
    draw(rows, FIGURE)


if __name__ == "__main__":
    main()

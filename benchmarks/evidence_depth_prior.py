"""The first half of evidence_depth.py: scenes, the autoencoder and the prior, trained on unlabelled images."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from priorscope.backbones.latents import AutoencoderSpace
from priorscope.backbones.stable_diffusion import UNetNetwork
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.losses import denoising_loss
from priorscope.diffusion.noise import item_seed
from priorscope.diffusion.schedule import VPSchedule
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.predictors.geometry import resize
from priorscope.training.loop import fit, make_accelerator
from priorscope.training.order import Order
from priorscope.training.settings import MAY_DIFFER, LoopConfig
from priorscope.training.task import Task
from priorscope_depth.alignment import fit_affine
from priorscope_depth.metrics import depth_metrics
from priorscope_depth.scenes import HELD_OUT_SEED, StoredScenes, write_scenes
from priorscope_depth.targets import normalise_depth

SIZE = (48, 64)
UNLABELLED, LABELLED, VALIDATION, HELD_OUT = 11_000, 4000, 100, 200
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
VAE_RUN = LoopConfig(steps=2500, batch_size=8, lr=2e-3, warmup=50, ema=0, checkpoint_every=100, log_every=100)
PRIOR_RUN = LoopConfig(steps=6000, batch_size=32, lr=1.5e-3, warmup=100, checkpoint_every=200, log_every=200)


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


class Workshop:
    """What one call of the benchmark has: the scenes, the rows so far, the time that is left, and how to train.

    Parameters
    ----------
    options : Namespace
        ``scenes`` and ``out`` (folders), ``rows`` (the file of results), ``max_seconds``.
    """

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
            except InputError:  # none yet
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
        if not self.find(kind="data"):
            about = json.loads((stored.folder / "shard-00000/shard.json").read_text())
            size = {"rendered": [stored.height, stored.width], "used": list(SIZE)}
            self.write({"kind": "data", "generator_version": about["version"], **size})
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
        """Train it, or load it; its fidelity becomes a row."""
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
        """Encode every image and annotation once: training then needs the U-Net only."""
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
        """Train it, or load it."""
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


def new_module(make: Callable[[], Any], seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().to(memory_format=torch.channels_last)


def mirror(items: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(generator.integers(2, size=len(items)))


def paint(depth: torch.Tensor) -> torch.Tensor:
    """Depth (B, 1, H, W), 0 for sky, as an annotation (B, 1, h, w) in [-1, 1]: normalised disparity, sky far."""
    return normalise_depth(resize(depth, SIZE, "nearest-exact")[:, 0], "trunc_disparity")


def score(values: Any, scenes: Sequence[Any]) -> dict[str, float]:
    """Mean AbsRel and delta1 of disparities (H, W), fitted to each scene."""
    rows = []
    for value, scene in zip(values, scenes, strict=True):
        valid = scene.valid & (scene.depth < FARTHEST)
        fitted = fit_affine(value, scene.depth, valid, "disparity").depth(value, NEAREST, FARTHEST)
        rows.append(depth_metrics(fitted, scene.depth, valid))
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in ("abs_rel", "delta1")}


def psnr(image: torch.Tensor, truth: torch.Tensor) -> float:
    return round(float(10 * torch.log10(4 / (image.clamp(-1, 1) - truth).square().mean())), 2)


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

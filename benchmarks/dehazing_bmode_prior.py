"""Train the bundled prior of B-mode pictures on simulated hearts without haze; resumable.

    OMP_NUM_THREADS=1 python benchmarks/dehazing_bmode_prior.py --out /tmp/tiny-echo --max-seconds 1200

Pictures are simulated once (out/pictures.npy, some ten a second) and kept. The model is out/run/model.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from priorscope.diffusion.losses import denoising_loss
from priorscope.diffusion.noise import Noise, item_seed
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.loop import fit, make_accelerator
from priorscope.training.order import Order
from priorscope.training.settings import MAY_DIFFER, LoopConfig
from priorscope.training.task import Task
from priorscope_medical.ultrasound.bmode_prior import EchoPrior, EchoValues
from priorscope_medical.ultrasound.bmode_simulator import simulate_bmode

#: Training pictures have the seeds from here on, held-out ones those before.
FIRST_SEED, HELD_OUT = 100_000, 32
WIDTHS, DEPTH = (24, 48, 72, 96), 2


def pictures(path: Path, count: int, size: int) -> np.ndarray:
    """``count`` pictures uint8 [N, size, size] of as many hearts, from ``path``; those that are missing are drawn."""
    partial = path.with_suffix(".part.npy")
    if path.is_file():
        return np.load(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = list(np.load(partial)) if partial.is_file() else []
    begin = time.monotonic()
    for index in range(len(found), count):
        seed = FIRST_SEED + index - HELD_OUT
        cine = simulate_bmode(seed, frames=1, size=size, hazy=False)
        found.append(np.rint(255 * cine.clean[0]).astype(np.uint8))
        if index % 250 == 249:
            np.save(partial, np.stack(found))
            print(f"{index + 1} of {count} pictures, {time.monotonic() - begin:.0f} s", flush=True)
    np.save(path, np.stack(found))
    partial.unlink(missing_ok=True)
    return np.stack(found)


class PictureFeed:
    """Batches of pictures from 0 to 1: mirrored, moved a little, with other gain and offset."""

    def __init__(self, images: np.ndarray, size: int, seed: int) -> None:
        self.images, self.size, self.seed = images, size, seed

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        places = Order(len(self.images), self.seed).batch(step, self.size)
        found = []
        for row in rows:
            draw = np.random.default_rng([self.seed, step, row])
            image = self.images[places[row].item].astype(np.float32) / 255
            image = image[:, ::-1] if draw.random() < 0.5 else image
            image = np.roll(image, draw.integers(-4, 5, 2), (0, 1))
            # what is black stays black
            image = np.clip(draw.uniform(0.8, 1.15) * image + draw.uniform(-0.08, 0.05) * (image > 0), 0, 1)
            found.append(image.astype(np.float32))
        seeds = [places[row].noise_seed(self.seed) for row in rows]
        return {"image": torch.from_numpy(np.stack(found)[:, None]), "seed": torch.tensor(seeds)}


class PictureTask(Task):
    """The error of the noise, at uniform levels."""

    def __init__(self, prior: EchoPrior, held_out: torch.Tensor) -> None:
        super().__init__(prior.network)
        self.prior, self.held_out = prior, held_out

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        x0 = self.prior.to_network(batch["image"])
        draws = [torch.Generator().manual_seed(item_seed(int(seed), "level")) for seed in batch["seed"]]
        t = torch.cat([torch.rand(1, generator=draw) for draw in draws])
        eps = Noise.per_item(batch["seed"].tolist()).like(x0)
        return {"loss": self.loss(x0, eps, t)}

    def loss(self, x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return denoising_loss(self.prior.denoiser, x0, eps, t)

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        x0 = self.prior.to_network(self.held_out)
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
        found = {}
        for level in (0.1, 0.3, 0.5, 0.7, 0.9):
            losses = [
                float(self.loss(a, b, torch.full((len(a),), level)))
                for a, b in zip(x0.split(8), eps.split(8), strict=True)
            ]
            found[f"held_out_{level:g}"] = float(np.mean(losses))
        return found | {"held_out": float(np.mean(list(found.values())))}

    def save(self, folder: Path) -> None:
        self.prior.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-seconds", type=float, default=1200.0)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--only-pictures", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    images = pictures(asked.out / "pictures.npy", asked.count + HELD_OUT, asked.size)
    if asked.only_pictures:
        return
    loop = LoopConfig(
        steps=asked.steps,
        batch_size=asked.batch_size,
        lr=asked.lr,
        warmup=100,
        ema=0.995,
        max_seconds=asked.max_seconds,
        precision=asked.precision,
        device="cpu",
        log_every=25,
        validate_every=300,
        checkpoint_every=200,
        resume=True,
    )
    held_out = torch.from_numpy(images[:HELD_OUT, None].astype(np.float32) / 255)
    prior = EchoPrior.new(EchoValues(size=asked.size, patch=2), WIDTHS, depth=DEPTH, seed=0, device="cpu")
    run = RunFolder.create(asked.out / "run", loop, resume=True, may_differ=MAY_DIFFER)
    accelerator = make_accelerator(loop)
    feed = PictureFeed(images[HELD_OUT:], asked.batch_size, loop.seed)
    fit(PictureTask(prior, held_out), feed, loop, run, accelerator)


if __name__ == "__main__":
    main()

"""The first half of evidence_remote_sensing.py: the prior, trained on synthetic terrain and on unlabelled pixels.

``terrain`` has seen synthetic patches only; ``both`` goes on from it with patches of the three clear dates of the real
scene among them, all pixels, no labels; ``longer`` goes on from ``terrain`` with synthetic patches alone.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from priorscope.diffusion.losses import denoising_loss
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.loop import fit, make_accelerator
from priorscope.training.order import Order
from priorscope.training.settings import MAY_DIFFER, LoopConfig
from priorscope.training.task import Task
from priorscope_remote_sensing.data.eopatch import EOPatch, read_eopatch
from priorscope_remote_sensing.data.terrain import terrain_patches
from priorscope_remote_sensing.prior import ReflectanceSpace, TerrainPrior

SCENE = Path(__file__).parents[2] / "shared/data/remote_sensing/eopatch"
SIDE, PATCHES, TERRAIN_SEED = 32, 6000, 0
RUNS = {
    "terrain": LoopConfig(steps=2500, batch_size=16, lr=2e-3, warmup=100, checkpoint_every=100, log_every=100),
    "both": LoopConfig(steps=1600, batch_size=16, lr=1e-3, warmup=50, checkpoint_every=100, log_every=100, seed=1),
    "longer": LoopConfig(steps=5000, batch_size=16, lr=1.5e-3, warmup=100, checkpoint_every=200, log_every=500, seed=2),
    "scene": LoopConfig(steps=5000, batch_size=16, lr=1.5e-3, warmup=100, checkpoint_every=200, log_every=500, seed=3),
}
BEGINS_FROM = {"both": "terrain", "longer": "terrain", "scene": "longer"}
SEES_THE_SCENE = ("both", "scene")
REAL_SHARE = 0.5


@dataclass(frozen=True)
class PatchFeed:
    """Reflectance patches, turned and mirrored: of the terrain, and where there is one of the real scene."""

    terrain: np.ndarray
    scene: np.ndarray | None
    """[dates, 13, H, W]"""
    size: int
    seed: int

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        places = Order(len(self.terrain), self.seed).batch(step, self.size)
        images = []
        for row in rows:
            rng = np.random.default_rng([self.seed, step, row])
            if self.scene is not None and rng.random() < REAL_SHARE:
                date = rng.integers(len(self.scene))
                top, left = (rng.integers(side - SIDE + 1) for side in self.scene.shape[-2:])
                image = self.scene[date, :, top : top + SIDE, left : left + SIDE]
            else:
                image = self.terrain[places[row].item]
            image = np.rot90(image, rng.integers(4), (1, 2))
            images.append(image[:, :, ::-1] if rng.random() < 0.5 else image)
        return {"image": torch.from_numpy(np.stack(images).astype(np.float32))}


class PriorTask(Task):
    """The squared error of v at uniform steps."""

    def __init__(self, prior: TerrainPrior) -> None:
        super().__init__(prior.unet)
        self.prior = prior

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        x0 = self.prior.latents.encode(batch["image"])
        t = torch.randint(1000, (len(x0),)).float()
        return {"loss": denoising_loss(self.prior.denoiser, x0, torch.randn_like(x0), t, self.prior.condition())}

    def save(self, folder: Path) -> None:
        self.prior.save_pretrained(folder)


def terrain(out: Path) -> np.ndarray:
    """The synthetic patches, float16 [N, 13, SIDE, SIDE]."""
    path = out / "terrain.npy"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        np.save(path, terrain_patches(PATCHES, TERRAIN_SEED, size=SIDE).astype(np.float16))
    return np.load(path)


def space_of(patches: np.ndarray, patch: int = 2, offset: float = 0.01) -> ReflectanceSpace:
    """Statistics of the terrain; no real pixel sets them."""
    logs = np.log(patches.astype(np.float32) + offset)
    mean, std = logs.mean((0, 2, 3)), logs.std((0, 2, 3))
    return ReflectanceSpace([round(float(v), 4) for v in mean], [round(float(v), 4) for v in std], patch=patch)


def clear_scenes(patch: EOPatch) -> np.ndarray:
    """The three dates without clouds, [3, 13, H, W], earliest first."""
    return patch.scenes[patch.clear]


def train(name: str, out: Path, max_seconds: float) -> bool:
    """Train one of :data:`RUNS`, or go on with it; whether it is finished."""
    patches = terrain(out)
    prior = TerrainPrior.new(space_of(patches), seed=0)
    scene = None
    if name in BEGINS_FROM:
        weights = out / BEGINS_FROM[name] / "model/unet/diffusion_pytorch_model.safetensors"
        prior.unet.load_state_dict(load_file(weights))
    if name in SEES_THE_SCENE:
        scene = clear_scenes(read_eopatch(SCENE))
    config = LoopConfig(**(vars(RUNS[name]) | {"resume": True, "max_seconds": max_seconds, "device": "cpu"}))
    run = RunFolder.create(out / name, config, resume=True, may_differ=MAY_DIFFER)
    prior.unet.to(memory_format=torch.channels_last)
    feed = PatchFeed(patches, scene, config.batch_size, config.seed)
    begin = time.process_time()
    result = fit(PriorTask(prior), feed, config, run, make_accelerator(config))
    print(json.dumps({"run": name, "step": result.step, "cpu_seconds": round(time.process_time() - begin)}))
    return result.finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("/tmp/evidence_rs"))
    parser.add_argument("--max-seconds", type=float, default=1200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    deadline = time.monotonic() + options.max_seconds
    for name in RUNS:
        if (options.out / name / "finished").exists():
            continue
        if not train(name, options.out, max(deadline - time.monotonic(), 1.0)):
            return
        (options.out / name / "finished").touch()


if __name__ == "__main__":
    main()

"""Train a one-step depth model on procedural scenes: a plain loop, made to be read and copied.

The network is asked as Lotus-D asks its own: the image's latent in, the latent of the normalised disparity out, in
one call, told step 999 and the task. ``--model`` fine-tunes an existing Lotus-D folder; without it a small U-Net on
4 x 4 pixel patches starts from random weights.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from priorscope.backbones.latents import PatchSpace
from priorscope.data.files import write_text
from priorscope.device import resolve_device
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.predictors.geometry import Geometry
from priorscope_depth.assemble import build_predictor
from priorscope_depth.augmentation import batch_shape, random_view
from priorscope_depth.configs import TrainConfig
from priorscope_depth.families import FAMILIES, Recipe
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.scenes import HELD_OUT_SEED, StoredScenes, render_scene, write_scenes
from priorscope_depth.targets import truncated_disparity

#: The small network: 1.4 million parameters, for pictures of about 256 pixels.
TINY_UNET: dict[str, Any] = {
    "in_channels": 48,
    "out_channels": 48,
    "sample_size": 64,
    "block_out_channels": (24, 40, 56, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "attention_head_dim": (1, 1, 2, 2),
    "cross_attention_dim": 16,
    "use_linear_projection": True,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 4,
}
_PATCH = 4


def new_predictor(seed: int) -> DepthPredictor:
    """The small network with random weights, as a Lotus-D predictor of disparity."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**TINY_UNET)
    recipe = Recipe(FAMILIES["lotus-d"], "depth", "disparity")
    latent = build_predictor(unet, PatchSpace(_PATCH), torch.zeros(1, 2, TINY_UNET["cross_attention_dim"]), recipe)
    return DepthPredictor(latent, recipe, geometry=Geometry(256, multiple=_PATCH), name="tiny-depth")


def train(config: TrainConfig) -> Path:
    """Train, or go on training, as ``config`` says.

    Returns
    -------
    Path
        The model folder, ``out/model``, which ``--model`` takes. It holds the averaged weights.
    """
    _check(config)
    device = resolve_device(config.device)
    predictor = (
        DepthPredictor.from_pretrained(config.model, device=config.device, precision="float32")
        if config.model
        else new_predictor(config.seed)
    )
    if predictor.recipe.family.name != "lotus-d" or predictor.task != "depth" or predictor.space != "disparity":
        raise InputError(
            f"{predictor.name} is a {predictor.recipe.family.name} model of {predictor.task}, {predictor.space}",
            remedy="This first version of train takes Lotus-D models of disparity.",
        )
    # made only now, so that a mistake above leaves nothing behind
    run = RunFolder.create(
        config.out, config, resume=config.resume, may_differ=("resume", "max_seconds", "device", "workers", "out")
    )
    scenes = _scenes(config)
    predictor.geometry = replace(predictor.geometry, resolution=config.size)
    latent = predictor.latent
    unet = latent.denoiser.network.unet  # type: ignore[attr-defined]
    unet.requires_grad_(True).train().to(device, memory_format=torch.channels_last)
    latent.latents.to(device)
    latent.condition = latent.condition.to(device)
    predictor.device = device
    average = AveragedModel(unet, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, config))
    state = {"unet": unet, "average": average, "optimizer": optimizer, "schedule": schedule}

    start = _restore(run, state) if config.resume else 0
    run.drop_history_after(start)
    begin = time.monotonic()
    held_out = [render_scene(HELD_OUT_SEED + 10_000 + i) for i in range(config.validation)]
    losses: list[torch.Tensor] = []
    step = start
    for step, (image, depth) in enumerate(_batches(scenes, config, start, latent.latents.factor), start=start + 1):
        # the decoded image has three equal channels; their latents are the target
        target = truncated_disparity(depth).expand(-1, 3, -1, -1).to(device)
        with torch.no_grad():
            given = latent.encode(image.to(device) * 2 - 1)
        predicted = latent.predict_latents(given)
        if config.loss == "mse":
            with torch.no_grad():
                wanted = latent.encode(target)
            loss = functional.mse_loss(predicted, wanted)
        else:
            loss = relative_l1(latent.latents.decode(predicted).mean(1), target[:, 0], depth.to(device) > 0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(unet)
        losses.append(loss.detach())  # read at log_every: a GPU is not waited for at every step
        out_of_time = bool(config.max_seconds) and time.monotonic() - begin > config.max_seconds
        last = step == config.steps or out_of_time
        if step % config.log_every == 0 or last:
            mean = float(torch.stack(losses).mean())
            if not math.isfinite(mean):
                raise InputError(f"the loss became {mean} before step {step}", remedy="Try a smaller --lr.")
            row: dict[str, Any] = {
                "step": step,
                "loss": mean,
                "lr": schedule.get_last_lr()[0],
                "images_per_second": (step - start) * config.batch_size / (time.monotonic() - begin),
            }
            losses = []
            if config.validation and (step % config.validate_every == 0 or last):
                row["held_out_abs_rel"] = _validate(predictor, unet, average, held_out)
            run.log(row)
            left = (config.steps - step) * config.batch_size / row["images_per_second"]
            shown = "  ".join(f"{key} {_short(value)}" for key, value in row.items())
            print(f"{shown}  {left / 60:.0f} min left", flush=True)
        if step % config.checkpoint_every == 0 or last:
            _checkpoint(run, state, step)
        if last:
            break
    finished = step >= config.steps
    folder = save_model(predictor, average.module.state_dict(), run.path / "model")
    run.write_metrics({"step": step, "finished": finished, "seconds": time.monotonic() - begin})
    if not finished:
        print(f"Stopped at step {step} of {config.steps}; --resume goes on.")
    return folder


def relative_l1(predicted: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of the normalised disparity, weighted about as AbsRel weighs it.

    A relative error of depth is one of disparity: the farther a pixel, the more the same error of disparity
    counts. Pixels without depth (sky) count as much as an average one.

    Parameters
    ----------
    predicted, target : Tensor (B, H, W) in [-1, 1]
    known : bool Tensor (B, H, W)
        Where there is depth.
    """
    weight = torch.where(known, 1.0 / ((target + 1) / 2 + 0.15), torch.ones_like(target))
    return ((predicted - target).abs() * weight).sum() / weight.sum()


def learning_rate(step: int, config: TrainConfig) -> float:
    """Share of the learning rate at ``step``: a linear warm-up, then half a cosine down to 1 %."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    share = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def save_model(predictor: DepthPredictor, weights: dict[str, torch.Tensor], folder: Path, *, half: bool = True) -> Path:
    """Write a model folder in the published layout: ``unet/``, ``vae/``, the prompt's state, ``priorscope.json``."""
    unet = predictor.latent.denoiser.network.unet  # type: ignore[attr-defined]
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "vae").mkdir(parents=True)
    kept = {key: value.detach().clone() for key, value in unet.state_dict().items()}
    unet.load_state_dict(weights)
    dtype = unet.dtype
    # nn.Module.to: diffusers' own warns about casts
    nn.Module.to(unet, torch.float16 if half else dtype).save_pretrained(aside / "unet")
    nn.Module.to(unet, dtype).load_state_dict(kept)
    space = predictor.latent.latents
    if isinstance(space, PatchSpace):
        write_text(aside / "vae/config.json", f'{{"_class_name": "PatchSpace", "patch": {space.factor}}}\n')
    else:
        space.vae.save_pretrained(aside / "vae")  # type: ignore[attr-defined]
    save_file({"state": predictor.latent.condition["text"].cpu().contiguous()}, aside / "empty_prompt.safetensors")
    geometry = predictor.geometry
    predictor.recipe.save(aside, resolution=geometry.resolution, multiple=geometry.multiple)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return folder


def _check(config: TrainConfig) -> None:
    """Refuse numbers that make no sense before anything is made or loaded."""
    for name in ("steps", "batch_size", "log_every", "validate_every", "checkpoint_every", "workers"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy="Use 1 or more.")
    for name in ("count", "validation", "warmup", "max_seconds", "weight_decay"):
        if getattr(config, name) < 0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy="Use 0 or more.")
    if config.size < 32:
        raise InputError(f"--size {config.size}", remedy="Use 32 pixels or more.")
    if not config.lr > 0 or not 0 <= config.ema < 1:
        raise InputError(f"--lr {config.lr} --ema {config.ema}", remedy="Use lr > 0 and 0 <= ema < 1.")


def _scenes(config: TrainConfig) -> StoredScenes:
    folder = Path(config.scenes)
    if config.count:
        write_scenes(folder, range(config.count), workers=config.workers)
    scenes = StoredScenes(folder)
    if any(seed >= HELD_OUT_SEED for seed in scenes.seeds):
        raise InputError("holds held-out scenes", path=folder, remedy="Train on scenes with smaller seeds.")
    return scenes


def _batches(
    scenes: StoredScenes, config: TrainConfig, start: int, multiple: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches from step ``start`` on: order from (seed, epoch), views from (seed, epoch, item)."""
    size = len(scenes)
    if size < config.batch_size:
        raise InputError(f"{size} scenes do not fill a batch of {config.batch_size}", path=scenes.folder)
    per_epoch = size // config.batch_size
    order: np.ndarray = np.zeros(0, dtype=int)
    for step in range(start, config.steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or step == start:
            order = np.random.default_rng([config.seed, epoch]).permutation(size)
        share = config.size / max(scenes.height, scenes.width)
        largest = round(scenes.height * share), round(scenes.width * share)
        shape = batch_shape(*largest, np.random.default_rng([config.seed, 1, step]), 4 * multiple)
        views = []
        for item in order[place * config.batch_size : (place + 1) * config.batch_size]:
            rgb, depth = scenes.read("rgb", [item])[0], scenes.read("depth", [item])[0]
            views.append(random_view(rgb, depth, shape, np.random.default_rng([config.seed, epoch, int(item)])))
        yield torch.stack([image for image, _ in views]), torch.stack([depth for _, depth in views])


@torch.no_grad()
def _validate(predictor: DepthPredictor, unet: Any, average: AveragedModel, scenes: list[Any]) -> float:
    """Mean AbsRel of the averaged weights on held-out scenes, aligned in disparity."""
    from priorscope_depth.alignment import fit_affine
    from priorscope_depth.metrics import depth_metrics

    network = predictor.latent.denoiser.network
    network.unet = average.module.eval()  # type: ignore[attr-defined]
    errors = []
    for begin in range(0, len(scenes), 8):
        chosen = scenes[begin : begin + 8]
        for scene, result in zip(chosen, predictor([scene.rgb for scene in chosen], batch_size=8), strict=True):
            fit = fit_affine(result.values, scene.depth, scene.valid, "disparity")
            depth = fit.depth(result.values, 1e-3, 200.0)
            errors.append(depth_metrics(depth, scene.depth, scene.valid)["abs_rel"])
    network.unet = unet  # type: ignore[attr-defined]
    return float(np.mean(errors))


def _checkpoint(run: RunFolder, state: dict[str, Any], step: int) -> None:
    """Write aside, then rename: a killed run leaves the last whole checkpoint."""
    path = run.checkpoints / "last.pt"
    aside = path.with_suffix(f".{os.getpid()}.part")
    torch.save({name: part.state_dict() for name, part in state.items()} | {"step": step}, aside)
    os.replace(aside, path)


def _restore(run: RunFolder, state: dict[str, Any]) -> int:
    path = run.checkpoints / "last.pt"
    if not path.exists():
        return 0
    stored = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in state.items():
        part.load_state_dict(stored[name])
    return int(stored["step"])


def _short(value: Any) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}"


if __name__ == "__main__":
    import sys

    import tyro

    from priorscope.cli import guarded

    sys.exit(guarded(lambda: print(train(tyro.cli(TrainConfig)))))

"""``priorscope depth train``: put a model, a recipe and training sets together, and run the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.loop import FitResult, fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER
from priorscope_depth.augmentation import View
from priorscope_depth.configs import TrainConfig, check_depth_scale, refuse_idle
from priorscope_depth.pairs.folder import FolderPairs
from priorscope_depth.pairs.hypersim import HypersimPairs, hypersim_view
from priorscope_depth.pairs.mixture import Mixture
from priorscope_depth.pairs.pair import PairSource, TrainingPair
from priorscope_depth.pairs.scenes import ScenePairs, StreamedScenes, scene_pair
from priorscope_depth.pairs.split import hold_out
from priorscope_depth.pairs.vkitti import VkittiPairs, vkitti_view
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.primedepth.source import is_primedepth
from priorscope_depth.scenes import HELD_OUT_SEED, render_scene
from priorscope_depth.targets import NormType
from priorscope_depth.training.feed import PairFeed
from priorscope_depth.training.look import HeldOut
from priorscope_depth.training.lotus import LotusTask
from priorscope_depth.training.recipes import choose_recipe
from priorscope_depth.training.report import write_report
from priorscope_depth.training.start import start_from
from priorscope_depth.transformers_models import is_transformers_model

Transform = Callable[[TrainingPair, np.random.Generator], View]


def train(config: TrainConfig) -> FitResult:
    """Train, or go on training, as ``config`` says; the model folder is ``out/model``.

    Raises
    ------
    InputError
        For options that do not fit together, training sets that cannot be read, a loss that is not finite, and
        a folder that cannot be written.
    """
    _check(config)
    accelerator = make_accelerator(config.loop)
    start = start_from(
        config.model,
        family=config.family,
        task=config.task,
        space=config.space,
        posterior=config.posterior,
        device=accelerator.device,
        seed=config.loop.seed,
    )
    predictor = start.predictor
    task_class = choose_recipe(config.recipe, predictor)
    if task_class is not LotusTask:
        refuse_idle(config, ("detail",), "of a recipe that has no detail preserver")
    if config.size:
        predictor.geometry = replace(predictor.geometry, resolution=config.size)
    if not config.size and predictor.geometry.resolution == 0:
        raise InputError("the model has no resolution of its own", remedy="Give --size, in pixels.")
    norm = _norm(config, predictor)
    sets = _training_sets(config, task_class.published, predictor)
    # made only now, so that a mistake above leaves nothing behind
    run = RunFolder.create(
        config.out,
        config,
        resume=config.loop.resume,
        may_differ=("out", *(f"loop.{name}" for name in MAY_DIFFER)),
    )
    accelerator.wait_for_everyone()
    task = task_class(predictor, HeldOut(sets.held_out) if sets.held_out else None)
    task.detail = config.detail
    task.save_half, task.scheduler = not config.save_float32, start.scheduler
    feed = PairFeed(
        sets.mixture,
        sets.transforms,
        batch_size=config.loop.batch_size,
        size=predictor.geometry.resolution,
        multiple=_multiple(predictor),
        seed=config.loop.seed,
        task=predictor.task,
        norm=norm,
        flip_x=predictor.recipe.family.normals_x == "left",
    )
    result = fit(task, feed, config.loop, run, accelerator)
    if accelerator.is_main_process:
        write_report(run, config, result)
    return result


@dataclass
class _Sets:
    mixture: Mixture
    transforms: list[Transform | None]
    held_out: list[TrainingPair]


def _training_sets(config: TrainConfig, published_recipe: bool, predictor: DepthPredictor) -> _Sets:
    published = config.views == "published" or (config.views == "auto" and published_recipe)
    sources: list[PairSource] = []
    transforms: list[Transform | None] = []
    held_out: list[TrainingPair] = []
    count, seed = config.held_out, config.loop.seed
    for folder in config.pairs:
        source: PairSource = FolderPairs(
            folder, depth_scale=config.depth_scale, disparity=config.pairs_disparity, normals_x=config.pairs_normals_x
        )
        if not held_out and count:
            source, held_out = hold_out(source, count, seed)
        sources.append(source)
        transforms.append(None)
    hypersim, vkitti = config.hypersim, config.vkitti
    if hypersim is not None:
        sources.append(HypersimPairs(hypersim))
        transforms.append(hypersim_view if published else None)
        if not held_out and count:
            sources[-1], held_out = _set_apart(sources[-1], lambda: HypersimPairs(hypersim, "val"), count, seed)
    if vkitti is not None:
        normals = predictor.task == "normals"
        sources.append(VkittiPairs(vkitti, normals=normals))
        transforms.append(vkitti_view if published else None)
        if not held_out and count:
            sources[-1], held_out = _set_apart(
                sources[-1], lambda: VkittiPairs(vkitti, ("Scene01",), normals=normals), count, seed
            )
    if not sources and count:
        # other scenes than those that evaluate measures on
        first = HELD_OUT_SEED + 10_000
        held_out = [scene_pair(render_scene(first + i, supersample=2)) for i in range(count)]
    if config.scenes is not None:
        sources.append(ScenePairs(config.scenes))
        transforms.append(None)
    if config.stream:
        sources.append(StreamedScenes(config.stream))
        transforms.append(None)
    mixture = Mixture(sources, config.shares)
    if predictor.task == "normals":
        for source in sources:
            if source.read(0).normals is None:
                raise InputError(f"{source.name} has no normals", remedy="Train on sets that have some.")
    return _Sets(mixture, transforms, held_out)


def _set_apart(
    source: PairSource, other: Callable[[], PairSource], count: int, seed: int
) -> tuple[PairSource, list[TrainingPair]]:
    """Pairs of another part of the data set, where it is there: frames of one drive are too much alike."""
    try:
        apart = other()
    except InputError:
        return hold_out(source, count, seed)
    chosen = np.random.default_rng([seed, 11]).permutation(len(apart))[:count]
    return source, [apart.read(int(index)) for index in sorted(chosen)]


def _multiple(predictor: DepthPredictor) -> int:
    """Sides of views: whole latent pixels at the U-Net's lowest level."""
    unet = predictor.latent.denoiser.network.unet  # type: ignore[attr-defined]
    return predictor.latent.latents.factor * 2 ** min(len(unet.config.block_out_channels) - 1, 2)


def _norm(config: TrainConfig, predictor: DepthPredictor) -> NormType:
    own: NormType = "trunc_disparity" if predictor.space == "disparity" else "truncnorm"
    norm = own if config.norm == "auto" else config.norm
    if predictor.task == "depth" and ("disparity" in norm) != (predictor.space == "disparity"):
        raise InputError(
            f"--norm {norm} for a model of {predictor.space}", remedy=f"Use --norm {own}, or another --space."
        )
    return norm


def _check(config: TrainConfig) -> None:
    if config.model == "new":
        config.loop.check_new(checkpointing=True)
    config.loop.check()
    if config.size and config.size < 32:
        raise InputError(f"--size {config.size}", remedy="Use 32 pixels or more, or 0.")
    for name in ("held_out", "stream", "detail"):
        if getattr(config, name) < 0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy="Use 0 or more.")
    if is_primedepth(config.model):
        raise InputError(f"{config.model} is a PrimeDepth model", remedy="Train one with train-primedepth.")
    if is_transformers_model(config.model):
        raise InputError(
            f"{config.model} is no diffusion model of this app's: it can be asked (predict, evaluate), not trained",
            remedy="Start from tiny-depth, a Lotus, Marigold or E2E-FT model, Stable Diffusion 2, or `new`.",
        )
    check_depth_scale(config.depth_scale)
    if config.views == "published" and config.hypersim is None and config.vkitti is None:
        raise InputError("--views published without --hypersim or --vkitti, whose they are", remedy="Leave it out.")
    if not config.pairs:
        refuse_idle(config, ("depth_scale", "pairs_disparity", "pairs_normals_x"), "without --pairs, which it is about")


def main(arguments: list[str] | None = None) -> Path:
    """``python -m priorscope_depth.train``, for ``accelerate launch``."""
    import tyro

    return train(tyro.cli(TrainConfig, args=arguments)).model


if __name__ == "__main__":
    import sys

    from priorscope.cli import run_training

    sys.exit(run_training(main, app="depth"))

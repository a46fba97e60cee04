"""``priorscope depth train-primedepth``: a decoder and a head on a frozen network."""

from __future__ import annotations

from pathlib import Path

import torch

from priorscope.errors import InputError
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.predictors.geometry import Geometry
from priorscope.training.curves import add_curves
from priorscope.training.loop import FitResult, fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER
from priorscope_depth.configs import check_depth_scale, refuse_idle
from priorscope_depth.pairs.folder import FolderPairs
from priorscope_depth.pairs.pair import PairSource, TrainingPair
from priorscope_depth.pairs.scenes import StreamedScenes, scene_pair
from priorscope_depth.pairs.split import hold_out
from priorscope_depth.primedepth.backbone import load_backbone
from priorscope_depth.primedepth.configs import TrainPrimeDepthConfig
from priorscope_depth.primedepth.labeller import Labeller
from priorscope_depth.primedepth.predictor import PrimeDepthPredictor
from priorscope_depth.primedepth.source import is_primedepth
from priorscope_depth.primedepth.training import PreimageCache, PrimeDepthTask, ViewFeed
from priorscope_depth.scenes import HELD_OUT_SEED, render_scene
from priorscope_depth.scenes.generate import check_request
from priorscope_depth.training.look import HeldOut
from priorscope_depth.transformers_models import is_transformers_model

_FIRST_HELD_OUT = HELD_OUT_SEED + 20_000


def train_primedepth(config: TrainPrimeDepthConfig) -> FitResult:
    """Train, or go on training, as ``config`` says; the model folder is ``out/model``.

    Raises
    ------
    InputError
        For options that make no sense, a backbone or pictures that cannot be read, a loss that is not finite, and a
        folder that cannot be written.
    """
    _check(config)
    seed = config.loop.seed
    accelerator = make_accelerator(config.loop)
    backbone = load_backbone(config.backbone)
    multiple = backbone.latents.factor * 2 ** (len(backbone.unet.config.block_out_channels) - 1)
    if config.height % multiple or config.width % multiple:
        raise InputError(
            f"--height {config.height} --width {config.width} for {config.backbone}",
            remedy=f"Use multiples of {multiple}.",
        )
    architecture = backbone.architecture(ratio=config.ratio)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        labeller = Labeller(architecture)
    model = backbone.model(labeller)
    where = accelerator.device
    for network in (model.unet, model.labeller, model.latents):
        network.to(where)
    model.text = model.text.to(where)
    predictor = PrimeDepthPredictor(
        model,
        geometry=Geometry(max(config.height, config.width), upscale=True, multiple=multiple),
        name=f"primedepth on {config.backbone}",
        device=where,
    )
    source, held_out = _pictures(config)
    _check_labelled(config, len(source))
    labelled = config.labelled or len(source)
    feed = ViewFeed(
        source,
        labelled=labelled,
        pretrain=config.pretrain,
        views=config.views,
        shape=(config.height, config.width),
        batch_size=config.loop.batch_size,
        seed=seed,
    )
    may_differ = ("out", "cache_mb", *(f"loop.{name}" for name in MAY_DIFFER))
    run = RunFolder.create(config.out, config, resume=config.loop.resume, may_differ=may_differ)
    accelerator.wait_for_everyone()
    cache = PreimageCache(model, seed=seed, limit=config.cache_mb * 1_000_000)
    look = HeldOut(held_out) if held_out else None
    task = PrimeDepthTask(predictor, architecture, cache, pretrain=config.pretrain, held_out=look)
    result = fit(task, feed, config.loop, run, accelerator)
    if accelerator.is_main_process:
        report = Report("PrimeDepth training", f"on {config.backbone}, {result.step} of {config.loop.steps} steps")
        report.paragraph(
            f"{len(source)} pictures, the depth of {labelled} of them; {config.pretrain} steps rebuild the pictures "
            "first. Losses, steps and sizes are ours: the paper's training code is not published."
        )
        add_curves(report, run.history())
        report.paragraph(f"{result.model} is for `priorscope depth predict IMAGE --model`, and for `evaluate`.")
        report.environment(run)
        report.write(run.report_path, overwrite=True)
    return result


def _pictures(config: TrainPrimeDepthConfig) -> tuple[PairSource, list[TrainingPair]]:
    if config.pairs is not None:
        return hold_out(FolderPairs(config.pairs, depth_scale=config.depth_scale), config.held_out, config.loop.seed)
    height, width = config.height, config.width
    seeds = range(_FIRST_HELD_OUT, _FIRST_HELD_OUT + config.held_out)
    held_out = [scene_pair(render_scene(seed, height=height, width=width, supersample=2)) for seed in seeds]
    return StreamedScenes(config.scenes, height=height, width=width), held_out


def _check_labelled(config: TrainPrimeDepthConfig, pictures: int) -> None:
    if config.labelled > pictures:
        raise InputError(f"--labelled {config.labelled} of {pictures} pictures", remedy="Use fewer, or 0 for all.")


def _check(config: TrainPrimeDepthConfig) -> None:
    config.loop.check_new()
    for name in ("scenes", "views"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name} {getattr(config, name)}", remedy="Use 1 or more.")
    for name in ("labelled", "pretrain", "cache_mb", "held_out"):
        if getattr(config, name) < 0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy="Use 0 or more.")
    if config.pretrain >= config.loop.steps:
        raise InputError(f"--pretrain {config.pretrain} of --steps {config.loop.steps}", remedy="Leave some for depth.")
    for name in ("height", "width"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name} {getattr(config, name)}", remedy="Use pixels, 32 or more.")
    check_depth_scale(config.depth_scale)
    if config.pairs is None:
        check_request(0, config.height, config.width, None, 1)
        refuse_idle(config, ("depth_scale",), "without --pairs: drawn scenes are in metres")
        _check_labelled(config, config.scenes)
    else:
        refuse_idle(config, ("scenes",), "with --pairs: no scenes are drawn")
    if is_primedepth(config.backbone):
        raise InputError(
            f"{config.backbone} is a PrimeDepth model, which has a decoder already",
            remedy="Give --backbone what one can be trained on: Stable Diffusion 2, tiny-depth, Lotus-D.",
        )
    if is_transformers_model(config.backbone):
        raise InputError(
            f"{config.backbone} is no diffusion model", remedy="Use Stable Diffusion 2, tiny-depth or Lotus-D."
        )
    if not 0 < config.ratio <= 2:
        raise InputError(f"--ratio {config.ratio}", remedy="Use about 0.5.")


def main(arguments: list[str] | None = None) -> Path:
    """``python -m priorscope_depth.primedepth.train``, for ``accelerate launch``."""
    import tyro

    return train_primedepth(tyro.cli(TrainPrimeDepthConfig, args=arguments)).model


if __name__ == "__main__":
    import sys

    from priorscope.cli import run_training

    sys.exit(run_training(main, app="depth"))

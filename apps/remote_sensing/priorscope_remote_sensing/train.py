"""``priorscope remote-sensing train``: put data, backbone and decoder together, and run the loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from priorscope.errors import InputError
from priorscope.evaluation.processes import process_index_and_count
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.loop import FitResult, fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER
from priorscope_remote_sensing.configs import TrainConfig
from priorscope_remote_sensing.data.bands import RECIPES, BandRecipe, same_band
from priorscope_remote_sensing.decoder import DecoderConfig
from priorscope_remote_sensing.features import Backbone, KeptFeatures
from priorscope_remote_sensing.models import build_decoder
from priorscope_remote_sensing.predictor import load_backbone
from priorscope_remote_sensing.prior import TerrainPrior
from priorscope_remote_sensing.satdifuser import SatDiFuserModel
from priorscope_remote_sensing.settings import SatDiFuserSettings
from priorscope_remote_sensing.training.examples import LabelledSet, open_training
from priorscope_remote_sensing.training.feed import ExampleFeed
from priorscope_remote_sensing.training.report import write_report
from priorscope_remote_sensing.training.task import DecoderTask, best_look


def train(config: TrainConfig) -> FitResult:
    """Train, or go on training, as ``config`` says; the model folder is ``out/model``.

    Raises
    ------
    InputError
        For options that do not fit together, data that cannot be read or do not fit the backbone, a loss that is
        not finite, and a folder that cannot be written.
    """
    _check(config)
    accelerator = make_accelerator(config.loop)
    backbone = load_backbone(
        config.backbone,
        resolution=config.resolution,
        use_metadata=config.use_metadata,
        device=str(accelerator.device),
        precision=config.loop.precision,
    )
    fallback = RECIPES["sentinel2"] if isinstance(backbone, TerrainPrior) else None
    data, held_out = open_training(config.source, fallback)
    _check_bands(backbone, data.recipe)
    side = int(max(data.read(0).image.shape[-2:]))
    loop = config.loop
    if config.epochs:
        steps = max(1, config.epochs * len(data) // loop.batch_size)
        loop = replace(loop, steps=steps, warmup=steps // 8)
    model, features = _model(config, backbone, _settings(config, backbone, data, side))
    # made only now, so that a mistake above leaves nothing behind
    run = RunFolder.create(
        config.out,
        config,
        resume=loop.resume,
        may_differ=("out", "keep", "cache", *(f"loop.{name}" for name in MAY_DIFFER)),
    )
    accelerator.wait_for_everyone()
    looked_at = held_out.some(config.held_out, loop.seed) if config.held_out and len(held_out) else None
    task = DecoderTask(
        model,
        features,
        run.checkpoints / "best.safetensors",
        side=side,
        held_out=looked_at,
        balance=config.balance,
        patience=config.patience,
    )
    feed = ExampleFeed(data, loop.batch_size, loop.seed, config.augment)
    if accelerator.is_main_process:
        print(
            f"{data.title}: {len(data)} images to learn from, {len(held_out)} held out, {len(data.names)} classes; "
            f"{sum(value.numel() for value in model.decoder.parameters()) / 1e6:.1f} M weights are trained."
        )
    result = fit(task, feed, loop, run, accelerator)
    if accelerator.is_main_process:
        best = best_look(task.best)
        if best is not None:
            run.write_metrics({**run.metrics(), "best_step": best["step"], "best_score": best["score"]})
        write_report(run, config, result, data, best)
    return result


def _settings(config: TrainConfig, backbone: Backbone, data: LabelledSet, side: int) -> SatDiFuserSettings:
    common = {
        "task": data.task,
        "classes": data.names,
        "bands": data.recipe,
        "mode": config.mode,
        "use_metadata": config.use_metadata,
        "no_data": data.no_data,
    }
    bundled = config.backbone if not Path(config.backbone).expanduser().exists() else None
    named = bundled or str((backbone.folder or Path(config.backbone)).resolve())
    if isinstance(backbone, TerrainPrior):  # takes reflectance as it is, at its own resolution
        own = {"image_size": config.image_size or side, "mean": 0.0, "std": 1.0, "prompt": ""}
    else:
        own = {"image_size": config.image_size or int(backbone.unet.config.sample_size) * backbone.latents.factor}
        if (backbone.folder / "empty_prompt.safetensors").exists():
            own["prompt"] = ""
    return SatDiFuserSettings(backbone=named, **common, **own)  # type: ignore[arg-type]


def _model(
    config: TrainConfig, backbone: Backbone, settings: SatDiFuserSettings
) -> tuple[SatDiFuserModel, KeptFeatures]:
    decoder_settings = {
        "save_steps": config.save_steps,
        "projection_dim": config.projection,
        "norm_groups": int(np.gcd(config.projection // 4, 32)),
        "channels": config.head_channels,
        "experts": config.experts,
        "top_k": config.top_k,
        "warmup_steps": config.dense_steps,
    }
    kept = {
        "keep": config.keep,
        "folder": config.cache or config.out / "cache",
        "seed": config.loop.seed,
        "batch_size": max(1, min(8, config.loop.batch_size)),
    }

    def build(taps: tuple[tuple[int, ...], ...]) -> SatDiFuserModel:
        found = DecoderConfig(config.fuser, settings.head, len(settings.classes), taps=taps, **decoder_settings)  # type: ignore[arg-type]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.loop.seed)
            return SatDiFuserModel(build_decoder(found), settings)

    # which taps a backbone has is seen by looking, which takes a model: a first one says how to look
    probe = build(((config.projection,),))
    factor = backbone.latents.factor
    size = max(round(settings.image_size / factor), 1) * factor
    model = build(KeptFeatures(probe, backbone).tap_widths(size, size))
    model.prompt = probe.prompt
    return model.to(backbone.device), KeptFeatures(model, backbone, **kept)  # type: ignore[arg-type]


def _check_bands(backbone: Backbone, recipe: BandRecipe) -> None:
    if isinstance(backbone, TerrainPrior):
        wanted = backbone.latents.bands
        fits = len(wanted) == len(recipe.bands) and all(map(same_band, wanted, recipe.bands))
        if not fits:
            raise InputError(
                f"the backbone takes {', '.join(wanted)}; the recipe gives {', '.join(recipe.bands)}",
                remedy="Use --recipe sentinel2, or a backbone for other bands.",
            )
    elif len(recipe.bands) != 3:
        raise InputError(
            f"the backbone takes red, green and blue; the recipe gives {', '.join(recipe.bands)}",
            remedy="Use --recipe sentinel2-rgb or rgb, or --bands with three names.",
        )


def _check(config: TrainConfig) -> None:
    config.loop.check_new()
    for name in ("epochs", "patience", "held_out", "image_size", "dense_steps", "balance"):
        if not getattr(config, name) >= 0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy="Use 0 or more.")
    if config.projection < 4 or config.projection % 4:
        raise InputError(f"--projection {config.projection}", remedy="Use a multiple of 4, such as 384.")
    if config.patience and not config.held_out:
        raise InputError("--patience without held-out images", remedy="Use --held-out 256, say.")
    if config.patience and process_index_and_count()[1] > 1:
        raise InputError("--patience with several processes", remedy="Leave it out; the best model is kept anyway.")


def main(arguments: list[str] | None = None) -> Path:
    """``python -m priorscope_remote_sensing.train``, for ``accelerate launch``."""
    import tyro

    return train(tyro.cli(TrainConfig, args=arguments)).model


if __name__ == "__main__":
    import sys

    from priorscope.cli import run_training

    sys.exit(run_training(main, app="remote-sensing"))

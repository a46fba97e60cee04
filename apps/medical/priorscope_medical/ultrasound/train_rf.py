"""``priorscope medical train-ultrasound``: a prior of RF, of tissue or of haze. For research use only."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.loop import FitResult, fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER
from priorscope_medical.ultrasound.patches import HELD_OUT_FROM, PatchFeed, read_cines, write_cines
from priorscope_medical.ultrasound.rf_prior import RfPrior, RfValues
from priorscope_medical.ultrasound.rf_task import RfPriorTask
from priorscope_medical.ultrasound_configs import TrainUltrasoundConfig
from priorscope_medical.volumes import RESEARCH_ONLY

_HELD_OUT_PATCHES = 48


def train_rf(config: TrainUltrasoundConfig) -> FitResult:
    """Train, or go on training, as ``config`` says; the model folder is ``out/model``.

    Raises
    ------
    InputError
        For options that make no sense, a loss that is not finite, and a folder that cannot be written.
    """
    config.loop.check_new()
    for name in ("cines", "frames", "held_out"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy="Use 1 or more.")
    if not 0 <= config.mu < float("inf"):
        raise InputError(f"--mu {config.mu}", remedy="Use 0, or 255 as published.")
    accelerator = make_accelerator(config.loop)
    may_differ = ("out", "data", *(f"loop.{name}" for name in MAY_DIFFER))
    run = RunFolder.create(config.out, config, resume=config.loop.resume, may_differ=may_differ)
    data = config.data or run.path / "data"
    seed, frames = config.loop.seed, config.frames
    if accelerator.is_main_process:
        write_cines(data, config.cines, frames=frames, seed=seed)
        write_cines(data, config.held_out, frames=frames, seed=seed, first=HELD_OUT_FROM)
    accelerator.wait_for_everyone()
    cines = read_cines(data, config.part, config.cines, frames=frames, seed=seed)
    std = float(np.sqrt(np.mean(np.square(cines[:: max(1, len(cines) // 50)], dtype=np.float32))))
    values = RfValues(config.part, frames=frames, std=std, mu=config.mu)
    feed = PatchFeed(cines, values.rows, values.beams, config.loop.batch_size, seed)
    others = read_cines(data, config.part, config.held_out, frames=frames, seed=seed, first=HELD_OUT_FROM)
    looked_at = PatchFeed(others, values.rows, values.beams, _HELD_OUT_PATCHES, seed)
    held_out = looked_at.batch(0, range(_HELD_OUT_PATCHES))
    prior = RfPrior.new(values, seed=seed, device=accelerator.device)
    if accelerator.is_main_process:
        weights = sum(weight.numel() for weight in prior.network.parameters())
        print(
            f"{config.part}: {len(cines)} simulated cines of {frames} frames, {len(others)} held out; "
            f"{weights / 1e6:.2f} M weights; {RESEARCH_ONLY}."
        )
    return fit(RfPriorTask(prior, held_out), feed, config.loop, run, accelerator)


def main(arguments: list[str] | None = None) -> Path:
    """``python -m priorscope_medical.ultrasound.train_rf``, for ``accelerate launch``."""
    import tyro

    return train_rf(tyro.cli(TrainUltrasoundConfig, args=arguments)).model


if __name__ == "__main__":
    import sys

    from priorscope.cli import run_training

    sys.exit(run_training(main, app="medical"))

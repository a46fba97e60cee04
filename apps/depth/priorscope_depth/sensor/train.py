"""``priorscope depth train-sensor``: a simulator of what a depth sensor reports."""

from __future__ import annotations

from pathlib import Path

from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.curves import add_curves
from priorscope.training.loop import FitResult, fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER
from priorscope_depth.configs import check_depth_scale, refuse_idle
from priorscope_depth.scenes import HELD_OUT_SEED
from priorscope_depth.sensor.codec import LogDepth
from priorscope_depth.sensor.configs import TrainSensorConfig
from priorscope_depth.sensor.data import SensorFeed, SensorPair, drawn_scans, folder_scans
from priorscope_depth.sensor.simulator import SensorSimulator
from priorscope_depth.sensor.spread import Spread, fitted_spread
from priorscope_depth.sensor.structured_light import StructuredLight
from priorscope_depth.sensor.task import SensorTask
from priorscope_depth.training.crops import check_crop

_FIRST_HELD_OUT = HELD_OUT_SEED + 30_000


def train_sensor(config: TrainSensorConfig) -> FitResult:
    """Train, or go on training, as ``config`` says; the model folder is ``out/model``.

    Raises
    ------
    InputError
        For options that make no sense, maps that cannot be read, a loss that is not finite, and a folder that cannot
        be written.
    """
    config.loop.check_new(checkpointing=True)
    check_depth_scale(config.depth_scale)
    if config.pairs is None:
        refuse_idle(config, ("depth_scale",), "without --pairs: drawn scenes are in metres")
    else:
        refuse_idle(config, ("scenes", "height", "width", "data"), "with --pairs: no scenes are drawn")
    if config.scenes < 1 or config.held_out < 0:
        raise InputError(f"--scenes {config.scenes} --held-out {config.held_out}", remedy="Use 1 or more, and 0.")
    check_crop(config.crop, config.height, config.width, drawn=config.pairs is None)
    accelerator = make_accelerator(config.loop)
    # of what is not drawn a mistake is found before anything is made
    sets = None if config.pairs is None else _sets(config)
    may_differ = ("out", "data", *(f"loop.{name}" for name in MAY_DIFFER))
    run = RunFolder.create(config.out, config, resume=config.loop.resume, may_differ=may_differ)
    accelerator.wait_for_everyone()
    feed, spread, held_out = _sets(config) if sets is None else sets
    simulator = SensorSimulator.new(config.method, spread, seed=item_seed(config.loop.seed, 0))
    simulator.device = accelerator.device
    result = fit(SensorTask(simulator, held_out), feed, config.loop, run, accelerator)
    if accelerator.is_main_process:
        report = Report("Sensor training", f"{config.method}, {result.step} of {config.loop.steps} steps")
        report.paragraph(
            "Held-out figures compare simulated scans with the sensor's: Wasserstein distance of their errors in "
            "millimetres (sampled models with 10 steps), and how far apart their shares of holes are."
        )
        add_curves(report, run.history())
        report.paragraph(f"{result.model} is for `priorscope depth sensor DEPTH --model`.")
        report.environment(run)
        report.write(run.report_path, overwrite=True)
    return result


def _sets(config: TrainSensorConfig) -> tuple[SensorFeed, Spread, list[SensorPair]]:
    """What is trained on, how far its residuals spread, and what is looked at only."""
    train, held_out = _pairs(config)
    spread = fitted_spread(train, LogDepth())
    feed = SensorFeed(train, crop=config.crop, batch_size=config.loop.batch_size, seed=config.loop.seed)
    return feed, spread, held_out


def _pairs(config: TrainSensorConfig) -> tuple[list[SensorPair], list[SensorPair]]:
    if config.pairs is not None:
        pairs = folder_scans(config.pairs, scale=config.depth_scale)
        count = min(config.held_out, len(pairs) // 10)
        return pairs[count:], pairs[:count]
    folder = config.data or config.out.with_name(config.out.name + "-data")
    size = {"height": config.height, "width": config.width}
    print(f"drawing what is missing of {config.scenes} scenes in {folder}", flush=True)
    sensor = StructuredLight()
    train = drawn_scans(folder, range(config.scenes), sensor, **size)
    seeds = range(_FIRST_HELD_OUT, _FIRST_HELD_OUT + config.held_out)
    return train, drawn_scans(folder, seeds, sensor, **size)


def main(arguments: list[str] | None = None) -> Path:
    """``python -m priorscope_depth.sensor.train``, for ``accelerate launch``."""
    import tyro

    return train_sensor(tyro.cli(TrainSensorConfig, args=arguments)).model


if __name__ == "__main__":
    import sys

    from priorscope.cli import run_training

    sys.exit(run_training(main, app="depth"))

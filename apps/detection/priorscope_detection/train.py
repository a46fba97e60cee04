"""``priorscope detection train``: a detector, then CoDiff on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.loop import FitResult, fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER
from priorscope_detection.configs import TrainConfig
from priorscope_detection.data.frame import Frames, delay_steps
from priorscope_detection.data.open import open_frames
from priorscope_detection.network.spec import RUN_STAGES
from priorscope_detection.noise import Disturbance
from priorscope_detection.training.augmentation import Augmentation
from priorscope_detection.training.feed import Conditions, FrameFeed
from priorscope_detection.training.report import write_report
from priorscope_detection.training.sources import (
    HELD_OUT_SEED,
    PERIOD,
    check_source,
    check_split,
    simulate,
    split_sequences,
    spread,
)
from priorscope_detection.training.start import start_detector
from priorscope_detection.training.task import DetectionTask, HeldOut

_Part = tuple[Frames, list[int]]
#: Held-out scenarios of simulated data.
_SCENARIOS = 4


def train(config: TrainConfig) -> FitResult:
    """Train, or go on training, as ``config`` says; the model folder is ``out/model``.

    Raises
    ------
    InputError
        For options that do not fit together, data that cannot be read, a loss that is not finite, and a folder that
        cannot be written.
    """
    conditions = _check(config)
    count = check_source(config.data, config.layout, config.streets)
    accelerator = make_accelerator(config.loop)
    detector = start_detector(config)
    frames = None if count else open_frames(config.data, layout=config.layout, labelled=True)
    delay_steps(config.max_delay, PERIOD if frames is None else frames.period)
    if frames is not None:
        check_split(frames, config.data)
    # made only now, so that a mistake above leaves nothing behind
    run = RunFolder.create(
        config.out, config, resume=config.loop.resume, may_differ=("out", *(f"loop.{name}" for name in MAY_DIFFER))
    )
    if frames is None:
        learnt, held = _streets(config, run, count or 0)
    else:
        indices, looked_at = split_sequences(frames, config.held_out)
        learnt, held = (frames, indices), (frames, looked_at)
    accelerator.wait_for_everyone()
    detector.trained_on = config.data if count else learnt[0].title
    feed = FrameFeed(
        learnt[0],
        tuple(learnt[1]),
        detector.spec,
        detector.anchors,
        conditions,
        config.loop.batch_size,
        config.loop.seed,
        with_clean=config.stage in ("diffusion", *RUN_STAGES),
    )
    weight = float(config.stage in RUN_STAGES) if config.box_weight is None else config.box_weight
    looked = replace(feed, frames=held[0], indices=tuple(held[1]), conditions=replace(conditions, augmentation=None))
    strongest = replace(conditions.disturbance, drop=0.0)
    task = DetectionTask(
        detector, config.stage, box_weight=weight, held_out=HeldOut(held[0], held[1], strongest, looked)
    )
    if accelerator.is_main_process:
        weights = sum(value.numel() for value in task.parameters() if value.requires_grad)
        print(
            f"{feed.frames.title}: {len(feed.indices)} frames to learn from, {len(held[1])} held out; stage "
            f"{config.stage}, fusion {detector.spec.fusion}, {weights / 1e6:.2f} M weights to train."
        )
    result = fit(task, feed, config.loop, run, accelerator)
    if accelerator.is_main_process:
        write_report(run, config, result, detector, len(feed.indices), len(held[1]))
    return result


def _streets(config: TrainConfig, run: RunFolder, count: int) -> tuple[_Part, _Part]:
    """Simulated frames to learn from and to look at, each with their indices."""
    workers = max(config.loop.workers, 1)
    learnt = simulate(run.path / "streets", count, 0, config.streets, workers=workers)
    if not config.held_out:
        return (learnt, list(range(len(learnt)))), (learnt, [])
    scenarios = min(_SCENARIOS, config.held_out)
    held = simulate(run.path / "streets", scenarios, HELD_OUT_SEED, config.streets, workers=workers)
    return (learnt, list(range(len(learnt)))), (held, spread(range(len(held)), config.held_out))


def _check(config: TrainConfig) -> Conditions:
    config.loop.check()
    if config.held_out < 0:
        raise InputError(f"--held-out {config.held_out}", remedy="Use 0 or more.")
    if not config.reach > 0:
        raise InputError(f"--reach {config.reach}", remedy="Use a distance above 0.")
    if config.box_weight is not None and not 0 <= config.box_weight < float("inf"):
        raise InputError(f"--box-weight {config.box_weight}", remedy="Use 0 or more.")
    if config.box_weight is not None and config.stage in ("detector", "codec"):
        raise InputError(f"--box-weight in stage {config.stage}", remedy="It belongs to the diffusion: leave it out.")
    if config.box_weight == 0 and config.stage == "joint":
        raise InputError(
            "--box-weight 0 in stage joint: nothing but the boxes tells the features what to be",
            remedy="Use a weight above 0, for example 1.",
        )
    if config.loop.lora or config.loop.gradient_checkpointing:
        raise InputError("--lora and --gradient-checkpointing are for large networks", remedy="Leave them out.")
    disturbance = Disturbance(
        config.pose_noise,
        config.yaw_noise,
        "laplace" if config.laplace else "gaussian",
        ego=config.noisy_ego,
        delay=config.max_delay,
        drop=config.drop_agents,
    )
    return Conditions(
        disturbance,
        config.vary_noise,
        Augmentation(config.flip, config.rotation, config.scaling),
        config.reach,
        config.published_frames,
    )


def main(arguments: list[str] | None = None) -> Path:
    """``python -m priorscope_detection.train``, for ``accelerate launch``."""
    import tyro

    return train(tyro.cli(TrainConfig, args=arguments)).model


if __name__ == "__main__":
    import sys

    from priorscope.cli import run_training

    sys.exit(run_training(main, app="detection"))

"""``priorscope depth train-edges``: the autoencoder, then the diffusion in its latents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from priorscope.data.images import read_image
from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.curves import add_curves
from priorscope.training.loop import FitResult, fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER, LoopConfig
from priorscope.training.task import Task
from priorscope_depth.configs import refuse_idle
from priorscope_depth.edges.configs import TrainEdgesConfig
from priorscope_depth.edges.data import EdgeFeed, EdgePair, drawn_pairs, folder_pairs
from priorscope_depth.edges.predictor import EdgePredictor
from priorscope_depth.edges.task import EdgeAutoencoderTask, EdgeTask
from priorscope_depth.scenes import HELD_OUT_SEED
from priorscope_depth.training.crops import check_crop

#: Held-out scenes of this app's other commands begin at ``HELD_OUT_SEED``; these are others.
_FIRST_HELD_OUT = HELD_OUT_SEED + 20_000


def train_edges(config: TrainEdgesConfig) -> FitResult:
    """Train, or go on training, as ``config`` says; the model folder is ``out/diffusion/model``.

    Raises
    ------
    InputError
        For options that make no sense, images that cannot be read, a loss that is not finite, and a folder that
        cannot be written.
    """
    _check(config)
    make_accelerator(config.loop)
    # of what is not drawn a mistake is found before anything is made
    sets = None if config.pairs is None else _sets(config)
    first = replace(config.loop, steps=config.autoencoder_steps)
    run = _run(config, "autoencoder", first)
    feed, held_out = _sets(config) if sets is None else sets
    predictor = EdgePredictor.new(channels=config.channels, seed=item_seed(config.loop.seed, 0))
    # what is looked at also says how far latents spread; without it, what is trained on does
    shown = held_out or feed.pairs[:16]
    result = _stage(run, EdgeAutoencoderTask(predictor, shown), feed, first)
    if not result.finished:
        return result
    # its U-Net is still as it was made; of several processes each has its own device
    where = str(make_accelerator(config.loop).device)
    predictor = EdgePredictor.from_pretrained(result.model, device=where, precision="float32")
    return _stage(_run(config, "diffusion", config.loop), EdgeTask(predictor, held_out), feed, config.loop)


def _run(config: TrainEdgesConfig, name: str, loop: LoopConfig) -> RunFolder:
    """The run folder ``out/NAME``; the second begins where the first has ended: one command resumes both."""
    may_differ = ("out", "data", *(f"loop.{key}" for key in MAY_DIFFER))
    return RunFolder.create(config.out / name, replace(config, loop=loop), resume=loop.resume, may_differ=may_differ)


def _stage(run: RunFolder, task: Task, feed: EdgeFeed, loop: LoopConfig) -> FitResult:
    """One of the two trainings; one that is finished is not done again."""
    accelerator = make_accelerator(loop)
    accelerator.wait_for_everyone()
    result = fit(task, feed, loop, run, accelerator)
    if accelerator.is_main_process:
        _report(run, loop, result)
    accelerator.free_memory()
    return result


def _sets(config: TrainEdgesConfig) -> tuple[EdgeFeed, list[EdgePair]]:
    """What is trained on, and what is looked at only."""
    train, held_out = _pairs(config)
    return EdgeFeed(train, crop=config.crop, batch_size=config.loop.batch_size, seed=config.loop.seed), held_out


def _pairs(config: TrainEdgesConfig) -> tuple[list[EdgePair], list[EdgePair]]:
    if config.pairs is not None:
        pairs = folder_pairs(config.pairs)
        count = min(config.held_out, len(pairs) // 10)
        return pairs[count:], pairs[:count]
    folder = config.data or config.out / "data"
    size = {"height": config.height, "width": config.width}
    print(f"drawing what is missing of {config.scenes} scenes in {folder}", flush=True)
    train = drawn_pairs(folder, range(config.scenes), **size)
    return train, drawn_pairs(folder, range(_FIRST_HELD_OUT, _FIRST_HELD_OUT + config.held_out), **size)


def _check(config: TrainEdgesConfig) -> None:
    config.loop.check_new(checkpointing=True)
    check_crop(config.crop, config.height, config.width, drawn=config.pairs is None)
    if config.pairs is not None:
        refuse_idle(config, ("scenes", "height", "width", "data"), "with --pairs: no scenes are drawn")
    for name in ("scenes", "autoencoder_steps", "channels"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy="Use 1 or more.")
    if config.held_out < 0:
        raise InputError(f"--held-out {config.held_out}", remedy="Use 0 or more.")


def _report(run: RunFolder, loop: LoopConfig, result: FitResult) -> None:
    report = Report("Edge training", f"{run.path.name}, {result.step} of {loop.steps} steps")
    add_curves(report, run.history())
    for path in sorted(run.figures.glob("step-*.png"))[-1:]:
        report.heading("Held-out images")
        report.figure(read_image(path), "Image, exact edges, generated edges.")
    report.heading("The model")
    report.paragraph(
        f"{result.model} is for `priorscope depth edges IMAGE --model`."
        if run.path.name == "diffusion"
        else "The autoencoder of edge maps; its held-out ODS is the most that any prediction can reach through it."
    )
    report.environment(run)
    report.write(run.report_path, overwrite=True)


def main(arguments: list[str] | None = None) -> Path:
    """``python -m priorscope_depth.edges.train``, for ``accelerate launch``."""
    import tyro

    return train_edges(tyro.cli(TrainEdgesConfig, args=arguments)).model


if __name__ == "__main__":
    import sys

    from priorscope.cli import run_training

    sys.exit(run_training(main, app="depth"))

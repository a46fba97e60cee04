"""``priorscope medical train``: a prior on slices, of volumes or of procedural bodies. For research use only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from priorscope.backbones.ncsnpp import NCSNpp
from priorscope.diffusion.schedule import VPSchedule
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder, read_yaml
from priorscope.training.aids import RoutingConfig
from priorscope.training.curriculum import cluster_edges
from priorscope.training.loop import FitResult, fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER
from priorscope.training.task import Task
from priorscope_medical.configs import AidsConfig, TrainConfig
from priorscope_medical.prior import SLICE_SCHEDULER, SlicePrior, SliceValues, Unit
from priorscope_medical.score_prior import ScorePrior
from priorscope_medical.training.data import Slices, open_source, read_slices, write_slices
from priorscope_medical.training.feed import SliceFeed
from priorscope_medical.training.report import write_report
from priorscope_medical.training.score_task import ScorePriorTask
from priorscope_medical.training.task import SlicePriorTask
from priorscope_medical.volumes import RESEARCH_ONLY

#: Offset and scale that bring slices with some body in them near mean 0 and standard deviation 1.
_CENTRED: dict[Unit, tuple[float, float]] = {"attenuation": (0.5, 0.625), "intensity": (0.25, 0.3)}
#: NCSN++ takes values in 0 ... 1 for ordinary tissue and bone.
_UNIT_RANGE: dict[Unit, tuple[float, float]] = {"attenuation": (0.0, 2.5), "intensity": (0.0, 1.0)}
_MULTIPLIERS = (1, 2, 2, 2)
#: Slices whose distances say how much noise hides them all.
_COMPARED = 200


def train(config: TrainConfig) -> FitResult:
    """Train, or go on training, as ``config`` says; the model folder is ``out/model``.

    Raises
    ------
    InputError
        For options that do not fit together, volumes that cannot be read, a loss that is not finite, and a folder
        that cannot be written.
    """
    _check(config)
    accelerator = make_accelerator(config.loop)
    source = open_source(config)
    # made only now, so that a mistake above leaves nothing behind
    run = RunFolder.create(config.out, config, resume=config.loop.resume, may_differ=_may_differ(config))
    if accelerator.is_main_process:
        write_slices(source, config, run.path / "data")
    accelerator.wait_for_everyone()
    slices = read_slices(source, config, run.path / "data")
    feed = SliceFeed(slices.read(), config.loop.batch_size, config.loop.seed, config.augment)
    task = _task(config, slices, accelerator.device)
    if accelerator.is_main_process:
        weights = sum(weight.numel() for weight in task.parameters() if weight.requires_grad)
        print(
            f"{slices.title}: {len(feed.slices)} of {config.size} x {config.size} pixels of {slices.pixel:.3g} mm to "
            f"learn from, {len(slices.held_out)} held out; {weights / 1e6:.1f} M weights; {RESEARCH_ONLY}."
        )
    result = fit(task, feed, config.loop, run, accelerator)
    if accelerator.is_main_process:
        write_report(run, config, result, slices)
    return result


def _task(config: TrainConfig, slices: Slices, device: torch.device) -> Task:
    held_out = torch.from_numpy(slices.held_out)[:, None] if len(slices.held_out) else None
    shared = {"size": config.size, "pixel": slices.pixel}
    if config.network == "unet":
        values = SliceValues(slices.unit, *_CENTRED[slices.unit], patch=config.patch, **shared)  # type: ignore[arg-type]
        routing = RoutingConfig() if config.aids.task_routing else None
        prior = SlicePrior.new(values, seed=config.loop.seed, device=device, routing=routing)
        return SlicePriorTask(prior, held_out, config.aids)
    values = SliceValues(slices.unit, *_UNIT_RANGE[slices.unit], **shared)  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.loop.seed)
        network = NCSNpp(
            image_size=config.size,
            channels=config.channels,
            multipliers=_MULTIPLIERS,
            blocks=config.blocks,
            sigma_max=_largest_distance(slices.read(), values),
        )
    return ScorePriorTask(ScorePrior.of(network, values, device=device), held_out)


def _largest_distance(slices: np.ndarray, values: SliceValues) -> float:
    """Distance of the two slices that are farthest apart, in the network's numbers: noise that hides which it was.

    Source: Song and Ermon 2020, technique 1.
    """
    chosen = np.linspace(0, len(slices) - 1, min(_COMPARED, len(slices))).round().astype(int)
    flat = torch.from_numpy(np.asarray(slices[np.unique(chosen)], np.float32)).flatten(1) / values.scale
    return max(1.0, float(torch.cdist(flat, flat).max()))


def _may_differ(config: TrainConfig) -> tuple[str, ...]:
    """Settings that a resumed run need not repeat: among them aids that are off, where a run is older than they are."""
    names = ("out", *(f"loop.{name}" for name in MAY_DIFFER))
    noted = config.out / "config.yaml"
    older = config.aids == AidsConfig() and noted.is_file() and "aids" not in read_yaml(noted)
    return (*names, "aids") if older else names


def _check(config: TrainConfig) -> None:
    config.loop.check_new(checkpointing=config.network == "ncsnpp")
    config.aids.curriculum.check()
    cluster_edges(VPSchedule.from_scheduler_config(SLICE_SCHEDULER), config.aids.curriculum)
    if config.network == "ncsnpp" and config.aids != AidsConfig():
        raise InputError(
            "--weighting, --task-routing and --curriculum with NCSN++", remedy="Leave them out, or use --network unet."
        )
    if config.size < 16:
        raise InputError(f"--size {config.size}", remedy="Use 16 or more.")
    if config.phantoms < 0:
        raise InputError(f"--phantoms {config.phantoms}", remedy="Use 8000, say.")
    for name in ("patch", "channels", "blocks"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name} {getattr(config, name)}", remedy="Use 1 or more.")
    if config.pixel is not None and not config.pixel > 0:
        raise InputError(f"--pixel {config.pixel}", remedy="Use mm above 0.")
    multiple = 2 ** (len(_MULTIPLIERS) - 1)
    if config.network == "ncsnpp" and config.size % multiple:
        raise InputError(f"--size {config.size} for NCSN++", remedy=f"Use a multiple of {multiple}.")
    if not config.planes or len(set(config.planes)) < len(config.planes):
        raise InputError(f"--planes {' '.join(config.planes)}", remedy="Name each plane once.")


def main(arguments: list[str] | None = None) -> Path:
    """``python -m priorscope_medical.train``, for ``accelerate launch``."""
    import tyro

    return train(tyro.cli(TrainConfig, args=arguments)).model


if __name__ == "__main__":
    import sys

    from priorscope.cli import run_training

    sys.exit(run_training(main, app="medical"))

"""``priorscope pose train``: put people, a network and a loss together, and run the loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.feed import Feed
from priorscope.training.loop import FitResult, fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER
from priorscope.training.task import Task
from priorscope_pose.configs import TrainConfig
from priorscope_pose.data.annotations import Annotations
from priorscope_pose.training.colours import ColourAugmentation
from priorscope_pose.training.damage import Damage
from priorscope_pose.training.feed import NO_AUGMENTATION, Augmentation, PoseFeed, PriorFeed
from priorscope_pose.training.look import HeldOutPeople
from priorscope_pose.training.people import AnnotatedPeople, PersonSource, Subset, WholePictures
from priorscope_pose.training.prior import PriorTask
from priorscope_pose.training.region import RegionAugmentation
from priorscope_pose.training.report import write_report
from priorscope_pose.training.sources import (
    LOOKED_AT_SEED,
    draw_clips,
    draw_stills,
    drawn_count,
    hold_out,
    read_annotations,
)
from priorscope_pose.training.start import NEW, start_conv, start_sdpose
from priorscope_pose.training.task import PoseTask

if TYPE_CHECKING:
    from priorscope_pose.diffpose.model import DiffPoseModel
    from priorscope_pose.diffpose.spec import DiffPoseSpec

Sets = tuple[Annotations, Annotations | None]
#: Options that act with some methods only, and would be ignored with the others.
_ONLY_OF = {
    "single_frame": ("diffpose",),
    "distance": ("diffpose",),
    "own_runs": ("diffpose",),
    "backbone": ("diffpose",),
    "label": ("sdpose",),
    "reconstruction": ("sdpose",),
    "save_float32": ("sdpose",),
    "sigma": ("sdpose", "conv"),
    "hole": ("sdpose", "conv"),
}
#: Options of the augmentation, which act only where there is one.
_AUGMENTATION = ("rotation", "scale", "half_body", "hole")


def train(config: TrainConfig) -> FitResult:
    """Train, or go on training, as ``config`` says; the model folder is ``out/model``.

    Raises
    ------
    InputError
        For options that do not fit together, data that cannot be read, a loss that is not finite, and a folder that
        cannot be written.
    """
    _check(config)
    accelerator = make_accelerator(config.loop)
    drawn = drawn_count(config.data)
    # of what is not drawn a mistake is found before anything is made
    sets = None if drawn or _is_pictures(config) else _read(config)
    run = RunFolder.create(
        config.out, config, resume=config.loop.resume, may_differ=("out", *(f"loop.{name}" for name in MAY_DIFFER))
    )
    if drawn:
        if accelerator.is_main_process:
            _draw(config, run, drawn)
        accelerator.wait_for_everyone()
        sets = _draw(config, run, drawn)
    if config.method == "prior":
        task, feed = _prior(config, sets)
    else:
        assert sets is not None
        task, feed = (_video if config.method == "diffpose" else _still)(config, sets, accelerator.device)
    result = fit(task, feed, config.loop, run, accelerator)
    if accelerator.is_main_process:
        write_report(run, config, result)
    return result


def augmentation_of(config: TrainConfig) -> Augmentation:
    """What the options change of the published augmentation of single pictures."""
    if not config.augment:
        return NO_AUGMENTATION
    region = RegionAugmentation(half_body=config.half_body)
    if config.rotation is not None:
        region = replace(region, rotation=config.rotation)
    if config.scale is not None:
        region = replace(region, scale=(1 - config.scale, 1 + config.scale))
    return Augmentation(region, ColourAugmentation(), Damage(hole=config.hole)).check()


def _still(config: TrainConfig, sets: Sets, device: Any) -> tuple[Task, Feed]:
    learnt, held_out = sets
    kind, loop = learnt.skeleton.name, config.loop
    made: dict[str, Any] = {
        "size": config.size,
        "input_size": config.input_size,
        "sigma": config.sigma,
        "seed": loop.seed,
    }
    network: Any
    if config.method == "conv":
        network = start_conv(config.start, kind, **made)
    else:
        network = start_sdpose(config.start, kind, label=config.label, **made)
        network.latents.to(device)
    look = HeldOutPeople(AnnotatedPeople(held_out), network.settings) if held_out is not None else None
    task = PoseTask(
        network,
        look,
        reconstruction=config.reconstruction if config.method == "sdpose" and config.freeze != "unet" else 0.0,
        freeze=config.freeze,
        save_half=not config.save_float32,
    )
    feed = PoseFeed(AnnotatedPeople(learnt), network.settings, loop.batch_size, loop.seed, augmentation_of(config))
    return task, feed


def _prior(config: TrainConfig, sets: Sets | None) -> tuple[Task, Feed]:
    import torch

    from priorscope.backbones.latents import PatchSpace
    from priorscope_pose.sdpose.small import new_unet

    size, loop = config.input_size or (96, 128), config.loop
    latents = PatchSpace(4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(loop.seed)
        unet = new_unet(config.size, channels=latents.channels)
    unit = latents.factor * 2**unet.num_upsamplers
    if any(side % unit for side in size):
        raise InputError(f"--input-size {size[0]} {size[1]}", remedy=f"Use multiples of {unit}.")
    shape = (latents.channels, size[1] // latents.factor, size[0] // latents.factor)
    people, looked_at = _unlabelled(config, sets)

    def feed_of(source: PersonSource, batch: int, how: Augmentation) -> PriorFeed:
        return PriorFeed(source, size, shape, batch, loop.seed, how)

    held_out = None
    if looked_at is not None and len(looked_at):
        rows = min(32, len(looked_at))
        held_out = feed_of(looked_at, rows, NO_AUGMENTATION).batch(0, range(rows))
    return PriorTask(unet, latents, held_out), feed_of(people, loop.batch_size, augmentation_of(config))


def _unlabelled(config: TrainConfig, sets: Sets | None) -> tuple[PersonSource, PersonSource | None]:
    if sets is not None:
        learnt, held_out = sets
        looked_at = None if held_out is None else AnnotatedPeople(held_out, labelled=False)
        return AnnotatedPeople(learnt, labelled=False), looked_at
    import numpy as np

    pictures = WholePictures([Path(config.data)])
    order = np.random.default_rng([config.loop.seed, 11]).permutation(len(pictures)).tolist()
    count = min(config.held_out, len(pictures) // 10)
    return Subset(pictures, sorted(order[count:])), Subset(pictures, sorted(order[:count])) if count else None


def _video(config: TrainConfig, sets: Sets, device: Any) -> tuple[Task, Feed]:
    from priorscope_pose.diffpose.augmentation import NONE
    from priorscope_pose.diffpose.augmentation import Augmentation as ClipAugmentation
    from priorscope_pose.diffpose.clips import VideoClips, videos_of
    from priorscope_pose.diffpose.feed import DiffPoseFeed
    from priorscope_pose.diffpose.task import DiffPoseTask

    learnt, looked_at = sets
    model, loop = _diffpose(config, learnt), config.loop
    spec = model.spec
    how = ClipAugmentation(half_body=config.half_body) if config.augment else NONE
    if config.augment and config.rotation is not None:
        how = replace(how, rotation=config.rotation)
    if config.augment and config.scale is not None:
        how = replace(how, scale=config.scale)
    held_out = None if looked_at is None else VideoClips(videos_of(looked_at), spec.distance)
    feed = DiffPoseFeed(
        VideoClips(videos_of(learnt), spec.distance),
        spec,
        loop.batch_size,
        loop.seed,
        augmentation=how.check(),
        own_runs=config.own_runs,
    )
    return DiffPoseTask(model, held_out), feed


def _diffpose(config: TrainConfig, learnt: Annotations) -> DiffPoseModel:
    from priorscope_pose.diffpose.model import DiffPoseModel, load_diffpose

    if config.start != NEW:
        model = load_diffpose(config.start, device="cpu")
        if config.input_size not in (None, model.spec.input_size):
            width, height = model.spec.input_size
            raise InputError(
                f"--input-size {config.input_size[0]} {config.input_size[1]}, but the model there has {width} {height}",
                path=config.start,
                remedy="Leave one out.",
            )
        if config.size != TrainConfig.size and _preset(config).width != model.spec.width:
            raise InputError(f"--size {config.size}, but the model there has another", path=config.start)
        distance = 0 if config.single_frame else config.distance
        if distance is not None and distance != model.spec.distance:
            model = DiffPoseModel.inflated(model, distance)
        model.requires_grad_(True).train()
        if model.spec.skeleton != learnt.skeleton.name:
            raise InputError(
                f"was trained on {model.spec.skeleton}, the data is {learnt.skeleton.name}", path=config.start
            )
    else:
        spec = replace(_new_spec(config), skeleton=learnt.skeleton.name)
        model = DiffPoseModel.new(spec, seed=config.loop.seed, backbone=config.backbone)
    if config.freeze == "encoder":
        model.learner.encoder.requires_grad_(False)
    return model


def _preset(config: TrainConfig) -> DiffPoseSpec:
    from priorscope_pose.diffpose.spec import PRESETS

    if config.size not in PRESETS:
        raise InputError(f"--size {config.size} of a diffpose", remedy=f"There are {', '.join(PRESETS)}.")
    return PRESETS[config.size]


def _new_spec(config: TrainConfig) -> DiffPoseSpec:
    """Of a new DiffPose model, but for the skeleton."""
    spec = _preset(config)
    if config.distance is not None:
        spec = replace(spec, distance=config.distance)
    if config.single_frame:
        spec = spec.single_frame()
    if config.input_size is not None:
        spec = replace(spec, input_size=config.input_size)
    if config.backbone is not None and spec.backbone == "conv":
        raise InputError(f"--backbone with --size {config.size}", remedy="Use --size base or large, or leave it out.")
    return spec.check()


def _is_pictures(config: TrainConfig) -> bool:
    """Whether DATA is a folder of pictures, or one, for a prior; annotations of several videos are a folder too."""
    path = Path(config.data)
    if config.method != "prior" or config.layout is not None:
        return False
    return path.is_dir() or (path.is_file() and path.suffix.lower() != ".json")


def _read(config: TrainConfig) -> Sets:
    layout = config.layout or ("posetrack" if config.method == "diffpose" else "coco")
    annotations = read_annotations(config.data, layout, config.images)
    annotations.check_images()
    return hold_out(annotations, config.held_out, config.loop.seed)


def _draw(config: TrainConfig, run: RunFolder, count: int) -> Sets:
    """Drawn people in the run folder; what is there already is kept."""
    draw = draw_clips if config.method == "diffpose" else draw_stills
    looked_at = min(config.held_out, max(1, count // 10)) if config.held_out else 0
    learnt = draw(run.path / "people", count, workers=config.loop.workers)
    if not looked_at:
        return learnt, None
    return learnt, draw(run.path / "held_out", looked_at, LOOKED_AT_SEED, workers=config.loop.workers)


def _check(config: TrainConfig) -> None:
    if config.start == NEW:
        config.loop.check_new(checkpointing=config.method == "prior")
    else:
        config.loop.check()
    if config.held_out < 0:
        raise InputError(f"--held-out {config.held_out}", remedy="Use 0 or more.")
    if not 0 <= config.reconstruction < float("inf"):
        raise InputError(f"--reconstruction {config.reconstruction}", remedy="Use 0 or more.")
    if config.single_frame and config.distance:
        raise InputError(f"--single-frame with --distance {config.distance}", remedy="Leave one out.")
    if config.distance is not None and config.distance < 0:
        raise InputError(f"--distance {config.distance}", remedy="Use 0 or more.")
    if not 0 <= config.own_runs <= 1:
        raise InputError(f"--own-runs {config.own_runs}", remedy="Use 0 to 1.")
    if config.scale is not None and not 0 <= config.scale < 1:
        raise InputError(f"--scale {config.scale}", remedy="Use 0 or more, below 1.")
    allowed = {"sdpose": ("none", "encoder", "unet"), "diffpose": ("none", "encoder")}.get(config.method, ("none",))
    if config.freeze not in allowed:
        raise InputError(
            f"--freeze {config.freeze} with --method {config.method}", remedy=f"Use {' or '.join(allowed)}."
        )
    if config.method == "prior" and config.start != NEW:
        raise InputError("a prior that starts from another", remedy="Use --resume to go on with one.")
    for name, methods in _ONLY_OF.items():
        if config.method not in methods and _was_given(config, name):
            raise InputError(
                f"{_option(config, name)} with --method {config.method}",
                remedy=f"Leave it out; it belongs to {' and '.join(methods)}.",
            )
    if config.freeze == "unet" and config.reconstruction and _was_given(config, "reconstruction"):
        raise InputError(
            f"--reconstruction {config.reconstruction} with --freeze unet",
            remedy="Leave one out: it teaches the U-Net, not the head.",
        )
    for name in _AUGMENTATION:
        if not config.augment and _was_given(config, name):
            raise InputError(f"{_option(config, name)} with --no-augment", remedy="Leave one out.")
    if config.method == "diffpose":
        if config.start == NEW:
            _new_spec(config)
        elif config.backbone is not None:
            raise InputError("--backbone with --start", remedy="Leave one out: a trained model has its own.")
    augmentation_of(config)


def _was_given(config: TrainConfig, name: str) -> bool:
    return bool(getattr(config, name) != getattr(TrainConfig, name))


def _option(config: TrainConfig, name: str) -> str:
    """What was given, as on the command line."""
    return f"--{'no-' if getattr(config, name) is False else ''}{name.replace('_', '-')}"


def main(arguments: list[str] | None = None) -> Path:
    """``python -m priorscope_pose.train``, for ``accelerate launch``."""
    import tyro

    return train(tyro.cli(TrainConfig, args=arguments)).model


if __name__ == "__main__":
    import sys

    from priorscope.cli import run_training

    sys.exit(run_training(main, app="pose"))

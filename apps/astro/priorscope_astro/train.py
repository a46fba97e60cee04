"""``priorscope astro train``: put galaxies, a network and a loss together, and run the loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.loop import FitResult, fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER
from priorscope_astro.configs import TrainConfig
from priorscope_astro.data.anything import holds_flux, read_galaxies, stamps_file
from priorscope_astro.data.galaxies import GalaxySet
from priorscope_astro.data.learnt import learnt_from
from priorscope_astro.data.splits import Splits
from priorscope_astro.data.stamps import Stamps, read_stamps

#: Of a new model, unless asked for otherwise.
SIZE, PATCH = "mini", 2
_LOOKED_AT = 256
#: Galaxies that stretch, offset and scale are measured on.
_MEASURED = 512


@dataclass(frozen=True)
class Sets:
    """What is learnt, what is looked at, and the stamps both come from where they are flux."""

    learnt: GalaxySet
    looked_at: GalaxySet | None
    stamps: Stamps | None


def train(config: TrainConfig) -> FitResult:
    """Train, or go on training, as ``config`` says; the model folder is ``out/model``.

    Raises
    ------
    InputError
        For options that do not fit together, data that cannot be read, a loss that is not finite, and a folder that
        cannot be written.
    """
    _check(config)
    if config.method == "diffusion" and config.start == "new":
        config = replace(config, size=config.size or SIZE, patch=config.patch or PATCH)
    accelerator = make_accelerator(config.loop)
    sets = read_sets(config)
    if config.method == "galaxysd":
        from priorscope_astro.galaxysd.training import prepare as prepare_galaxysd

        task, feed = prepare_galaxysd(config, sets.learnt, sets.looked_at, accelerator.device)
    else:
        task, feed = _diffusion(config, sets)
    run = RunFolder.create(
        config.out, config, resume=config.loop.resume, may_differ=("out", *(f"loop.{name}" for name in MAY_DIFFER))
    )
    result = fit(task, feed, config.loop, run, accelerator)
    if accelerator.is_main_process:
        from priorscope_astro.training_report import write_report

        write_report(run, config, result)
    return result


def read_sets(config: TrainConfig) -> Sets:
    """The galaxies of a training, divided.

    Raises
    ------
    InputError
        Data that cannot be read, splits that do not know a galaxy, or nothing left to learn.
    """
    stamps = None
    if config.mode == "flux" and config.method == "diffusion":
        stamps = read_stamps(_stamps_file(config.data))
        galaxies = stamps.galaxies()
    else:
        galaxies = read_galaxies(config.data, mode="display")
        if galaxies.mode != "display":
            raise InputError("holds flux, not pictures", path=config.data, remedy="Use --mode flux.")
    for note in galaxies.notes:
        print(note)
    return Sets(*divided(galaxies, config.splits, config.loop.seed, config.data), stamps)


def divided(galaxies: GalaxySet, table: Path | None, seed: int, source: Path) -> tuple[GalaxySet, GalaxySet | None]:
    """Galaxies to learn, and others to look at (None where there are none): by a table of splits, else at random.

    Parameters
    ----------
    galaxies : GalaxySet
    table : Path, optional
        Training galaxies are learnt, those of validation looked at. Without one, a tenth, 256 at most, is.
    seed : int
    source : Path
        Where the galaxies came from, for messages.

    Raises
    ------
    InputError
        Splits that cannot be read or do not know a galaxy, or nothing left to learn.
    """
    if table is not None:
        splits = Splits.read(table)
        learnt, looked_at = galaxies.of_split(splits, "train"), galaxies.of_split(splits, "validation")
    else:
        count = min(_LOOKED_AT, len(galaxies) // 10)
        order = np.random.default_rng([seed, 11]).permutation(len(galaxies))
        learnt, looked_at = galaxies.select(np.sort(order[count:])), galaxies.select(np.sort(order[:count]))
    if not len(learnt):
        raise InputError("no galaxy is left to learn", path=table or source)
    return learnt, looked_at if len(looked_at) else None


def _stamps_file(path: Path) -> Path:
    if path.is_file() and not holds_flux(path):
        raise InputError("holds no flux", path=path, remedy="Pictures are learnt with --mode display.")
    file = stamps_file(path) if path.is_dir() else path
    if file is None:
        raise InputError(
            "has no stamps.npz or stamps.h5",
            path=path,
            remedy="Flux is learnt from stamps; pictures with --mode display.",
        )
    return file


def _diffusion(config: TrainConfig, sets: Sets) -> tuple[Any, Any]:
    from priorscope_astro.diffusion.feed import GalaxyFeed, TrainingImages
    from priorscope_astro.diffusion.model import load_galaxy_model, new_model
    from priorscope_astro.diffusion.spec import model_folder
    from priorscope_astro.diffusion.task import GalaxyTask

    loop = config.loop
    if config.start == "new":
        spec = measured_spec(config, sets.learnt, sets.stamps)
        model = new_model(spec, config.size or SIZE, psf=mean_psf(sets.stamps), seed=loop.seed)
    else:
        model = load_galaxy_model(model_folder(config.start), device="cpu", precision="float32")
        spec = model.spec
        if spec.mode != config.mode or spec.side != config.side:
            raise InputError(
                f"is a model of {spec.mode}, {spec.side} pixels",
                path=config.start,
                remedy=f"Use --mode {spec.mode} --side {spec.side}.",
            )
        _refuse_other_network(config, model)
        if sets.stamps is not None and (spec.bands, spec.unit) != (sets.stamps.bands, sets.stamps.unit):
            raise InputError(
                f"is a model of {', '.join(spec.bands)} in {spec.unit}, the stamps are {', '.join(sets.stamps.bands)} "
                f"in {sets.stamps.unit}",
                path=config.start,
            )
        if config.trained_on:
            model.spec = replace(model.spec, trained_on=config.trained_on)
    model.learnt = learnt_from(sets.learnt.ids, model.learnt, new=config.start == "new")
    model.unet.train()
    dropout = {"question": config.question_dropout, "everything": config.condition_dropout}
    images = TrainingImages(sets.learnt, spec, sets.learnt.vectors())
    feed = GalaxyFeed(images, loop.batch_size, loop.seed, turn=config.turn, **dropout)
    held_out = None
    if sets.looked_at is not None:
        seen = TrainingImages(sets.looked_at, spec, sets.looked_at.vectors())
        count = min(_LOOKED_AT, len(seen))
        held_out = GalaxyFeed(seen, count, 0, question=0.0, everything=0.0, turn=False).batch(0, range(count))
    return GalaxyTask(model, held_out, save_half=not config.save_float32), feed


def _refuse_other_network(config: TrainConfig, model: Any) -> None:
    """Raise where --size or --patch, which describe a new network, say something else than the model of --start is."""
    from priorscope_astro.diffusion.network import SIZES

    widths, blocks = tuple(model.unet.config.block_out_channels), model.unet.config.layers_per_block
    size = next((name for name, known in SIZES.items() if known == (widths, blocks)), f"widths {widths}")
    for option, asked, there in (("patch", config.patch, model.spec.patch), ("size", config.size, size)):
        if asked is not None and asked != there:
            raise InputError(
                f"is a model of {option} {there}, and --{option} {asked} is asked for",
                path=config.start,
                remedy=f"Leave --{option} out, or start a new model.",
            )


def measured_spec(config: TrainConfig, galaxies: GalaxySet, stamps: Stamps | None) -> Any:
    """The spec of a new model: stretch, offset and scale of each band from some of the training galaxies.

    beta of the stretch is the standard deviation of the sky; its upper end the 99th percentile, over galaxies, of
    their brightest pixel.
    """
    from priorscope_astro.diffusion.scaling import TARGET_STD, cut_stamp, display_values
    from priorscope_astro.diffusion.spec import ModelSpec

    places = np.unique(np.linspace(0, len(galaxies) - 1, min(_MEASURED, len(galaxies))).round().astype(int))
    images = ((np.asarray(galaxies.image(place)), f"object {galaxies.ids[place]}") for place in places.tolist())
    known: dict[str, Any]
    if stamps is None:
        known = {"mode": "display", "bands": ("R", "G", "B")}
        values = np.stack([display_values(image, config.side, what=what) for image, what in images])
    else:
        from priorscope_astro.imaging.stretch import AsinhStretch

        some = [cut_stamp(image, len(stamps.bands), config.side, what=what) for image, what in images]
        sigma = mean_sky(stamps, np.stack(some))
        peak = np.quantile(np.stack([flux.max((1, 2)) for flux in some]), 0.99, axis=0)
        stretch = AsinhStretch(tuple(sigma.tolist()), tuple(np.maximum(peak, 10 * sigma).tolist()))
        values = np.stack([np.asarray(stretch.apply(flux), np.float32) for flux in some])
        known = {
            "mode": "flux",
            "bands": stamps.bands,
            "stretch": stretch.to_dict(),
            "unit": stamps.unit,
            "sky_sigma": stretch.beta,
            "pixel_scale": stamps.pixel_scale,
        }
    values = values.astype(np.float64)
    offset, std = values.mean((0, 2, 3)), values.std((0, 2, 3))
    if not (std > 0).all():
        raise InputError("the training images are constant", remedy="Are these images of galaxies?")
    return ModelSpec(
        side=config.side,
        offset=tuple(offset.tolist()),
        scale=tuple((std / TARGET_STD).tolist()),
        patch=config.patch or PATCH,
        trained_on=config.trained_on,
        **known,
    ).check()


def mean_sky(stamps: Stamps, some: NDArray[np.float32]) -> NDArray[np.float64]:
    """Standard deviation of the sky in each band: the stamps' own, else the median of what is measured in some."""
    sigma = stamps.common_sky
    if sigma is None:
        from priorscope_astro.imaging.noise import sky_sigma

        sigma = np.median(sky_sigma(some), axis=0)
    if not (sigma > 0).all():
        raise InputError(
            f"the sky of the stamps has standard deviations {sigma.tolist()}", remedy="Give stamps with their noise."
        )
    return sigma


def mean_psf(stamps: Stamps | None) -> NDArray[np.float32] | None:
    """The point spread function of each band (bands, h, w), averaged over stamps, sum 1; None where not known."""
    psf = None if stamps is None else stamps.common_psf
    return None if psf is None else (psf / psf.sum((1, 2), keepdims=True)).astype(np.float32)


def _check(config: TrainConfig) -> None:
    if config.start == "new":
        config.loop.check_new(checkpointing=True)
    else:
        config.loop.check()
    for name in ("question_dropout", "condition_dropout"):
        if not 0 <= getattr(config, name) <= 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy="Use a share from 0 to 1.")
    if config.side < 8:
        raise InputError(f"--side {config.side}", remedy="Use 8 or more.")
    if config.patch is not None and config.patch < 1:
        raise InputError(f"--patch {config.patch}", remedy="Use 1 or more.")
    if config.method == "galaxysd" and config.start == "new":
        raise InputError(
            "--method galaxysd starts from a published model",
            remedy="Give --start: Stable Diffusion 1.5, or GalaxySD.",
        )
    if config.method == "galaxysd" and (config.patch, config.size) != (None, None):
        raise InputError("--patch and --size go with --method diffusion")
    for name in ("question_dropout", "trained_on"):
        if config.method == "galaxysd" and getattr(config, name) != getattr(TrainConfig, name):
            raise InputError(f"--{name.replace('_', '-')} goes with --method diffusion")
    if config.base is not None and config.method != "galaxysd":
        raise InputError("--base goes with --method galaxysd")


def main(arguments: list[str] | None = None) -> Path:
    """``python -m priorscope_astro.train``, for ``accelerate launch``."""
    import tyro

    return train(tyro.cli(TrainConfig, args=arguments)).model


if __name__ == "__main__":
    import sys

    from priorscope.cli import run_training

    sys.exit(run_training(main, app="astro"))

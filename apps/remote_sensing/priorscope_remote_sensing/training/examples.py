"""Labelled images of any of the data sets, in one form, split for training and for judging."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_remote_sensing.configs import DataConfig
from priorscope_remote_sensing.data.bands import RECIPES, BandRecipe
from priorscope_remote_sensing.data.eurosat import CLASSES, EuroSat
from priorscope_remote_sensing.data.geobench import TASKS, GeoBench, task_facts
from priorscope_remote_sensing.data.labels import Labels, RasterLabels, VectorLabels
from priorscope_remote_sensing.data.patches import PatchSet, block_split
from priorscope_remote_sensing.data.rasters import find_rasters, open_raster
from priorscope_remote_sensing.metadata import Metadata
from priorscope_remote_sensing.scene_metadata import scene_metadata
from priorscope_remote_sensing.settings import SatDiFuserSettings, Task

_RASTER_LABELS = (".tif", ".tiff", ".jp2", ".vrt", ".img")
_BLOCK_PATCHES = 4


class Example(NamedTuple):
    """An image with its label."""

    key: str
    image: NDArray[np.float32]
    """[C, H, W] as the band recipe scales it."""
    label: Any
    """int, float32 [K] of 0 and 1, or uint8 [H, W] with 255 where there is none."""
    metadata: Metadata | None = None


@dataclass(frozen=True)
class LabelledSet:
    """Some images of a data set; :meth:`read` gives one."""

    title: str
    task: Task
    names: tuple[str, ...]
    """Of the classes."""
    recipe: BandRecipe
    items: Any
    """The data set itself."""
    indices: tuple[int, ...]
    """Which of its images."""
    no_data: int | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, place: int) -> str:
        """A unique name of an image."""
        index = self.indices[place]
        if isinstance(self.items, PatchSet):
            patch = self.items.patches[index]
            folder = os.path.commonpath([scene.parent for scene in self.items.scenes])
            return f"{patch.scene.relative_to(folder).as_posix()}:{patch.top},{patch.left}"
        if isinstance(self.items, EuroSat):
            return self.items.files[index].stem
        return str(self.items.samples[index])

    def read(self, place: int) -> Example:
        """The image at a place, from 0."""
        index = self.indices[place]
        sample = self.items[index]
        if isinstance(self.items, PatchSet):
            patch = self.items.patches[index]
            return Example(self.key(place), sample.image, sample.labels, _stated(patch.scene, self.items.crs))
        return Example(self.key(place), sample.image, sample.label)

    def some(self, count: int, seed: int = 0) -> LabelledSet:
        """At most ``count`` of the images, drawn once for a seed, in their order."""
        if count >= len(self):
            return self
        chosen = np.sort(np.random.default_rng([seed, 5]).permutation(len(self))[:count])
        return self._part([self.indices[place] for place in chosen])

    def _part(self, indices: Sequence[int]) -> LabelledSet:
        return LabelledSet(
            self.title, self.task, self.names, self.recipe, self.items, tuple(int(i) for i in indices), self.no_data
        )


@lru_cache(maxsize=4096)
def _stated(scene: Path, crs: str | None) -> Metadata | None:
    """What a raster says of itself, seen in a projection; each is asked once."""
    with open_raster(scene, crs=crs) as dataset:
        return scene_metadata(dataset)


def band_recipe(config: DataConfig) -> BandRecipe | None:
    """The recipe that was asked for; None where none was.

    Raises
    ------
    InputError
        An unknown name, or a recipe and bands at once.
    """
    if config.bands:
        if config.recipe is not None:
            raise InputError("both --recipe and --bands were given", remedy="Give one of them.")
        if not config.divisor > 0:
            raise InputError(f"--divisor {config.divisor}", remedy="Use a number above 0.")
        return BandRecipe(config.bands, config.divisor)
    if config.recipe is None:
        return None
    if config.recipe not in RECIPES:
        raise InputError(f"there is no band recipe {config.recipe!r}", remedy=f"One of {', '.join(RECIPES)}.")
    return RECIPES[config.recipe]


def open_training(config: DataConfig, fallback: BandRecipe | None = None) -> tuple[LabelledSet, LabelledSet]:
    """The images to learn from, and those to look at meanwhile.

    Parameters
    ----------
    config : DataConfig
    fallback : BandRecipe, optional
        What the backbone takes, where the user says nothing; without, a published set's own.
    """
    kind = kind_of(config)
    recipe = band_recipe(config) or fallback
    if kind == "rasters":
        whole = _rasters(config, recipe, None)
        split = _blocks(config, whole.items)
        return whole._part(split.train.tolist()), whole._part(split.test.tolist())
    return _published(config, kind, recipe, "train"), _published(config, kind, recipe, "valid")


def open_split(config: DataConfig, split: str, model: SatDiFuserSettings, *, patch: int = 0) -> LabelledSet:
    """A split to measure on, with the bands of a trained model.

    Parameters
    ----------
    config : DataConfig
    split : {"auto", "train", "valid", "test", "all"}
    model : SatDiFuserSettings
    patch : int
        Side of the images it was trained on, in pixels; 0 where it is not known.

    Raises
    ------
    InputError
        The data set has another task, other classes, or no such split; bands are asked for that are not the
        model's; or blocks of rasters that cannot be those of the training.
    """
    kind, recipe = kind_of(config), model.bands
    if band_recipe(config) not in (None, recipe):
        raise InputError(
            f"the model takes {', '.join(recipe.bands)} as it was trained",
            remedy="Leave out --recipe and --bands.",
        )
    if kind == "rasters":
        if model.task != "segmentation":
            raise _other_task(config.data, "segmentation", model)
        data = _rasters(config, recipe, model.classes)
        if split in ("train", "test"):
            if not config.block and patch not in (0, config.patch):
                raise InputError(
                    f"--patch {config.patch} sets other blocks apart than a training on patches of {patch}",
                    remedy=f"Use --patch {patch}, or the --block that was trained with.",
                )
            data = data._part(getattr(_blocks(config, data.items), split).tolist())
        elif split == "valid":
            raise InputError("rasters have no split valid", remedy="Use --split test: the blocks that were held out.")
    elif split == "all":
        raise InputError("--split all is for rasters", remedy="Use train, valid or test.")
    else:
        data = _published(config, kind, recipe, "test" if split == "auto" else split)
    if data.task != model.task:
        raise _other_task(data.title, data.task, model)
    if data.names != model.classes:
        own, others = (", ".join(names[:8]) for names in (model.classes, data.names))
        raise InputError(
            f"the classes of {data.title} are {others}; those of the model {own}",
            remedy="Measure a model on data with its own classes, in their order (--classes).",
        )
    return data


def _other_task(title: str, task: Task, model: SatDiFuserSettings) -> InputError:
    return InputError(f"{title} is a set for {task}, the model one for {model.task}", remedy="Give data of its task.")


def kind_of(config: DataConfig) -> str:
    """ "geobench", "eurosat" or "rasters": what ``--data`` names."""
    if config.split_seed < 0:
        raise InputError(f"--split-seed {config.split_seed}", remedy="Use 0 or more.")
    path = Path(config.data).expanduser()
    if path.is_dir():
        if (path / "task_specs.pkl").is_file():
            return "geobench"
        nested = ("*/" * depth + CLASSES[0] for depth in range(7))
        if config.labels is None and any(next(path.glob(pattern), None) is not None for pattern in nested):
            return "eurosat"
        return "rasters"
    if path.is_file():
        return "rasters"
    if task_facts(config.data) is not None or (config.root is not None and config.data.startswith("m-")):
        return "geobench"
    raise InputError(
        f"--data {config.data} is neither a file or folder nor a task of GEO-Bench",
        remedy=f"Tasks: {', '.join(TASKS)}.",
    )


def _published(config: DataConfig, kind: str, recipe: BandRecipe | None, split: str) -> LabelledSet:
    if kind == "geobench":
        path = Path(config.data).expanduser()
        name, root = (path.name, path) if path.is_dir() else (config.data, config.root)
        data = GeoBench(name, split, root=root, recipe=recipe, partition=config.partition)
        every = tuple(range(len(data)))
        return LabelledSet(name, data.kind, data.names, data.recipe, data, every, data.no_data)
    sat = EuroSat(
        Path(config.data).expanduser(),
        {"valid": "val"}.get(split, split),
        recipe=recipe,
        bands=None if recipe is None else "rgb" if recipe == RECIPES["rgb"] else "all",
        seed=config.split_seed,
    )
    return LabelledSet("EuroSAT", "classification", sat.names, sat.recipe, sat, tuple(range(len(sat))))


def _rasters(config: DataConfig, recipe: BandRecipe | None, names: tuple[str, ...] | None) -> LabelledSet:
    path = Path(config.data).expanduser()
    if config.labels is None:
        raise InputError(
            "rasters without labels", path=path, remedy="Give --labels: class rasters, or a vector file with --column."
        )
    if recipe is None:
        raise InputError(
            "what the bands of the rasters are is not known",
            path=path,
            remedy=f"Say it: --recipe ({', '.join(RECIPES)}) or --bands B04 B03 B02 --divisor 10000.",
        )
    labels = _labels(config, names)
    data = PatchSet(
        path,
        labels,
        recipe,
        size=config.patch,
        band_names=config.band_names or None,
        crs=config.crs,
        least_labelled=max(config.least_labelled, 1e-9),
    )
    return LabelledSet(path.name, "segmentation", labels.names, recipe, data, tuple(range(len(data))))


def _labels(config: DataConfig, names: tuple[str, ...] | None) -> Labels:
    source = config.labels
    assert source is not None
    if source.is_dir() or source.suffix.lower() in _RASTER_LABELS:
        if config.column is not None:
            raise InputError("--column is for vector files", path=source)
        return RasterLabels(source, _values(config, source))
    if not source.exists():
        raise InputError("no such file or folder of labels", path=source)
    if config.column is None:
        raise InputError("which column holds the class is not known", path=source, remedy="Give --column NAME.")
    return VectorLabels(source, config.column, classes=config.classes or names, layer=config.layer)


def _values(config: DataConfig, source: Path) -> dict[int, str]:
    """Stored value -> name, from the options or from what the raster says of itself."""
    if not config.classes:
        first = find_rasters(source)[0] if source.is_dir() else source
        with open_raster(first) as dataset:
            tags = {key: text for key, text in dataset.tags(1).items() if key.startswith("CLASS_")}
        found = {int(key[6:]): text for key, text in tags.items() if key[6:].isdigit()}
        if not found:
            raise InputError("does not name its classes", path=first, remedy="Name them: --classes 1=water 2=forest.")
        return dict(sorted(found.items()))
    values: dict[int, str] = {}
    for text in config.classes:
        number, equals, name = text.partition("=")
        if not equals or not name or not number.strip().lstrip("-").isdigit() or int(number) in values:
            raise InputError(f"--classes {text!r}", remedy="Write VALUE=NAME, each value once: 1=water 2=forest.")
        values[int(number)] = name.strip()
    return values


def _blocks(config: DataConfig, data: PatchSet) -> Any:
    bounds = data.bounds
    side = float((bounds[:, 2] - bounds[:, 0]).max())
    origin = float(bounds[:, 0].min()), float(bounds[:, 3].max())
    across = round(float((bounds.max(axis=0)[2:] - bounds.min(axis=0)[:2]).max()) / side)
    block = config.block or max(1, min(_BLOCK_PATCHES, across // _BLOCK_PATCHES)) * side
    return block_split(bounds, block, seed=config.split_seed, test_share=config.test_share, origin=origin)

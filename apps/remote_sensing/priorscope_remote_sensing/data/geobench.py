"""The data sets of GEO-Bench v1.0, read from their published layout."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import RECIPES, BandRecipe
from priorscope_remote_sensing.data.geobench_files import (
    Kind,
    read_partition,
    read_sample,
    read_task_specification,
)
from priorscope_remote_sensing.data.legend import UNLABELLED


@dataclass(frozen=True)
class TaskFacts:
    """What is known of a task beforehand; a task that is not listed is read all the same."""

    kind: Kind
    size: int
    """Side of its images in pixels."""
    classes: int
    recipe: str | None
    """Name in ``RECIPES`` of the colour bands and their scale; None where no published one is known."""
    no_data: int | None = None
    """Class that means "no data", where the specification gives the classes no names that say so."""


TASKS: dict[str, TaskFacts] = {
    "m-bigearthnet": TaskFacts("multi-label", 120, 43, "sentinel2-rgb"),
    "m-brick-kiln": TaskFacts("classification", 64, 2, "sentinel2-rgb"),
    "m-eurosat": TaskFacts("classification", 64, 10, "sentinel2-rgb"),
    "m-forestnet": TaskFacts("classification", 332, 12, None),
    "m-pv4ger": TaskFacts("classification", 320, 2, "rgb"),
    "m-so2sat": TaskFacts("classification", 32, 17, None),
    "m-cashew-plant": TaskFacts("segmentation", 256, 7, "sentinel2-rgb", 0),
    "m-chesapeake": TaskFacts("segmentation", 256, 7, "rgb"),
    "m-NeonTree": TaskFacts("segmentation", 400, 2, "rgb"),
    "m-nz-cattle": TaskFacts("segmentation", 500, 2, "rgb"),
    "m-pv4ger-seg": TaskFacts("segmentation", 320, 2, "rgb"),
    "m-SA-crop-type": TaskFacts("segmentation", 256, 10, "sentinel2-rgb", 0),
}
"""The tasks of GEO-Bench v1.0: eleven data sets, pv4ger for classification and for segmentation."""

_OTHER_NAMES = {"m-cashew-plant": "m-cashew-plantation", "m-chesapeake": "m-chesapeake-landcover"}
_OTHER_NAMES |= {other: name for name, other in _OTHER_NAMES.items()}


def task_facts(name: str) -> TaskFacts | None:
    """The row of :data:`TASKS`, also for the longer names some copies have (m-chesapeake-landcover)."""
    return TASKS.get(name) or TASKS.get(_OTHER_NAMES.get(name, ""))


class GeoBenchSample(NamedTuple):
    """An image with its label.

    ``label`` is an int (classification), a float32 array [K] of 0 and 1 (multi-label) or a uint8 array [H, W]
    of classes, 255 where there is none (segmentation). ``image`` is float32 [C, H, W] as the recipe scales it.
    """

    name: str
    image: NDArray[np.float32]
    label: Any


def find_task(name: str, root: str | PathLike[str] | None = None) -> Path:
    """The folder of a task.

    Parameters
    ----------
    name : str
        "m-eurosat", ...
    root : path-like, optional
        The folder that holds classification_v1.0 and segmentation_v1.0, one of these, or the task's own. By default
        what the environment variable GEO_BENCH_DIR says.

    Raises
    ------
    InputError
        It is not there.
    """
    given = root if root is not None else os.environ.get("GEO_BENCH_DIR")
    if not given:
        raise InputError("where GEO-Bench lies is not known", remedy="Give its folder, or set GEO_BENCH_DIR.")
    top = Path(given)
    for called in (name, _OTHER_NAMES.get(name)):
        if called is None:
            continue
        for place in (top / "classification_v1.0" / called, top / "segmentation_v1.0" / called, top / called):
            if place.is_dir():
                return place
        if top.name == called and top.is_dir():
            return top
    raise InputError(
        f"holds no task {name}",
        path=top,
        remedy=f"Expected: classification_v1.0/{name} or segmentation_v1.0/{name}. geobench-download fetches it.",
    )


class GeoBench(Sequence[GeoBenchSample]):
    """A split of a GEO-Bench task.

    Parameters
    ----------
    task : str
        "m-eurosat", ...
    split : {"train", "valid", "test"}
    root : path-like, optional
        See :func:`find_task`.
    recipe : BandRecipe or str, optional
        Bands and scale, or a name in ``RECIPES``; by default the task's colour bands as SatDiFuser scales them
        (but m-chesapeake /255: for parity say "chesapeake-official").
    partition : str
        "default", or limited labels such as "0.01x_train", "0.10x_train": the file ``PARTITION_partition.json``.
    date : int
        Which date is taken where a band has several, in order of time.

    Raises
    ------
    InputError
        The task, the partition or a listed sample is not there; a pickle holds a forbidden class.

    Notes
    -----
    Samples are read when asked for. Bands of a coarser grid are brought to the finest one bilinearly. Pixels of maps
    whose value is no class count as unlabelled; those with another value than 255 are reported by a warning.
    """

    def __init__(
        self,
        task: str,
        split: str,
        *,
        root: str | PathLike[str] | None = None,
        recipe: BandRecipe | str | None = None,
        partition: str = "default",
        date: int = 0,
    ) -> None:
        self.task = task
        self.folder = find_task(task, root)
        self.specification = read_task_specification(self.folder)
        self.recipe = _recipe(task, recipe)
        self.date = date
        self.samples = read_partition(self.folder, partition, split)

    @property
    def kind(self) -> Kind:
        return self.specification.kind

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.specification.class_names

    @property
    def no_data(self) -> int | None:
        """The class that means "no data", which an honest score leaves out; None where there is none."""
        for index, name in enumerate(self.names):
            if name.lower().replace("-", " ").replace("_", " ") in ("no data", "nodata"):
                return index
        facts = task_facts(self.task)
        return None if facts is None else facts.no_data

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> GeoBenchSample:  # type: ignore[override]
        name = self.samples[index]
        path = self.folder / f"{name}.hdf5"
        bands, label = read_sample(path, date=self.date)
        chosen = self.recipe.indices(list(bands), len(bands), path=path)
        arrays = list(bands.values())
        image = self.recipe.scale(_stacked([arrays[place] for place in chosen]))
        return GeoBenchSample(name, image, self._label(label, image.shape[1:], path))

    def __iter__(self) -> Iterator[GeoBenchSample]:
        return (self[index] for index in range(len(self)))

    def _label(self, label: Any, shape: tuple[int, ...], path: Path) -> Any:
        classes = len(self.names)
        array = np.asarray(label)
        if self.kind == "segmentation":
            array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
            if array.shape != shape or not np.array_equal(array, np.rint(array)):
                raise InputError(f"has labels {list(array.shape)} for an image {list(shape)}", path=path)
            known = (array >= 0) & (array < classes)
            strange = array[~known & (array != UNLABELLED)]
            if strange.size:
                values = ", ".join(str(int(value)) for value in np.unique(strange)[:5])
                warnings.warn(
                    f"{path}: {strange.size} of {array.size} pixels have values that are no class ({values}; classes "
                    f"are 0 to {classes - 1}) and count as unlabelled",
                    RuntimeWarning,
                    stacklevel=3,
                )
            return np.where(known, array, UNLABELLED).astype(np.uint8)
        if self.kind == "multi-label":
            if array.shape != (classes,) or not np.isin(array, (0, 1)).all():
                raise InputError(f"its label is not {classes} zeros and ones", path=path)
            return array.astype(np.float32)
        if array.ndim or array.dtype.kind not in "iu" or not 0 <= int(array) < classes:
            raise InputError(f"its label {label!r} is not a class in 0..{classes - 1}", path=path)
        return int(array)


def _recipe(task: str, recipe: BandRecipe | str | None) -> BandRecipe:
    if isinstance(recipe, BandRecipe):
        return recipe
    facts = task_facts(task)
    name = recipe if recipe is not None else None if facts is None else facts.recipe
    if name is None:
        raise InputError(
            f"for {task} no published choice of bands and scale is known",
            remedy="Give one: recipe=BandRecipe(bands=(...), divisor=...).",
        )
    if name not in RECIPES:
        raise InputError(f"there is no band recipe {name!r}", remedy=f"One of {', '.join(RECIPES)}.")
    return RECIPES[name]


def _stacked(arrays: list[NDArray[Any]]) -> NDArray[np.float32]:
    """Bands [H, W] on the finest grid among them, [C, H, W]."""
    from skimage.transform import resize

    shape = max((array.shape for array in arrays), key=lambda shape: shape[0] * shape[1])
    return np.stack(
        [
            array.astype(np.float32)
            if array.shape == shape
            else resize(array.astype(np.float32), shape, order=1, mode="edge", anti_aliasing=False)
            for array in arrays
        ]
    )

"""Labelled patches of a folder of rasters, and splits of them by geographic blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import BandRecipe
from priorscope_remote_sensing.data.labels import Labels
from priorscope_remote_sensing.data.legend import UNLABELLED
from priorscope_remote_sensing.data.rasters import (
    band_names as names_in_file,
)
from priorscope_remote_sensing.data.rasters import (
    common_crs,
    data_bands,
    fill_missing,
    find_rasters,
    open_raster,
    read_bands,
    source_path,
    window_corners,
)


class Patch(NamedTuple):
    """A square of a raster, without its pixels."""

    scene: Path
    top: int
    left: int
    size: int
    bounds: tuple[float, float, float, float]
    """(west, south, east, north) in map units."""


class LabelledPatch(NamedTuple):
    """The pixels of a patch."""

    image: NDArray[np.float32]
    """[C, size, size], scaled by the recipe; missing pixels hold the mean of the others."""
    labels: NDArray[np.uint8]
    """[size, size] class indices, 255 where there is no label or no data."""
    valid: NDArray[np.bool_]
    """[size, size]; False where the image has no data or the raster has ended."""


class PatchSet(Sequence[LabelledPatch]):
    """Patches on a regular grid over some rasters, with their labels.

    Parameters
    ----------
    images : path-like or sequence of path-like
        A folder of rasters (searched below it), one raster, or several.
    labels : Labels, optional
        :class:`~priorscope_remote_sensing.data.labels.RasterLabels` or ``VectorLabels``; without, all pixels are
        unlabelled.
    recipe : BandRecipe
    size : int
        Side of a patch in pixels.
    stride : int, optional
        Step of the grid; `size` by default. The last patches at the right and lower border are shorter of data
        where the raster ends, and marked so.
    band_names : sequence of str, optional
        Names of the rasters' bands where the files tell none.
    crs : str, optional
        Reproject rasters of other projections to this one.
    least_valid : float
        Patches with a smaller share of pixels with data are left out; a patch without any always is.
    least_labelled : float
        The same for pixels that have data and a label; 0 keeps unlabelled patches.

    Raises
    ------
    InputError
        No raster, different projections without `crs`, bands that do not fit the recipe, or no patch left.

    Notes
    -----
    Rasters are read once at the start to see which patches hold data; pixels are read again when a patch is asked
    for, so memory stays that of one patch.
    """

    def __init__(
        self,
        images: str | PathLike[str] | Sequence[str | PathLike[str]],
        labels: Labels | None,
        recipe: BandRecipe,
        *,
        size: int,
        stride: int | None = None,
        band_names: Sequence[str] | None = None,
        crs: str | None = None,
        least_valid: float = 0.0,
        least_labelled: float = 0.0,
    ) -> None:
        stride = size if stride is None else stride
        if size < 1 or stride < 1:
            raise InputError(f"patches of {size} pixels every {stride} pixels are not possible")
        self.labels, self.recipe, self.band_names = labels, recipe, band_names
        self.scenes = _paths(images)
        self.crs = common_crs(self.scenes, crs=crs)
        self._reproject = crs
        self.patches: list[Patch] = []
        for scene in self.scenes:
            with open_raster(scene, crs=crs) as dataset:
                self._indices(dataset, scene)
                for top in range(0, dataset.height, stride):
                    for left in range(0, dataset.width, stride):
                        _, classes, valid = self._read(dataset, top, left, size, pixels=False)
                        labelled = (classes != UNLABELLED).mean()
                        if valid.any() and valid.mean() >= least_valid and labelled >= least_labelled:
                            self.patches.append(Patch(scene, top, left, size, _bounds(dataset, top, left, size)))
        if not self.patches:
            raise InputError(
                "no patch holds enough data and labels",
                path=self.scenes[0].parent,
                remedy="Check that the labels cover the rasters, and least_valid and least_labelled.",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return () if self.labels is None else self.labels.names

    @property
    def bounds(self) -> NDArray[np.float64]:
        """[N, 4] west, south, east, north of the patches in map units."""
        return np.array([patch.bounds for patch in self.patches])

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> LabelledPatch:  # type: ignore[override]
        patch = self.patches[index]
        with open_raster(patch.scene, crs=self._reproject) as dataset:
            return self._read(dataset, patch.top, patch.left, patch.size)

    def __iter__(self) -> Iterator[LabelledPatch]:
        return (self[index] for index in range(len(self)))

    def _indices(self, dataset: Any, scene: Path) -> list[int]:
        names = self.band_names if self.band_names is not None else names_in_file(dataset)
        return self.recipe.indices(names, data_bands(dataset), path=scene)

    def _read(self, dataset: Any, top: int, left: int, size: int, *, pixels: bool = True) -> LabelledPatch:
        height, width = min(size, dataset.height - top), min(size, dataset.width - left)
        indices = self._indices(dataset, source_path(dataset))
        values, there = read_bands(dataset, indices, (top, left, height, width))
        valid = np.zeros((size, size), bool)
        valid[:height, :width] = there
        classes = np.full((size, size), UNLABELLED, np.uint8)
        if self.labels is not None:
            found = self.labels.read(dataset, (top, left, height, width))
            classes[:height, :width] = np.where(there, found, UNLABELLED)
        image = np.zeros((len(indices), size, size), np.float32)
        if pixels:
            image[:, :height, :width] = self.recipe.scale(values)
            image = fill_missing(image, valid)
        return LabelledPatch(image, classes, valid)


def _paths(images: str | PathLike[str] | Sequence[str | PathLike[str]]) -> list[Path]:
    if isinstance(images, str | PathLike):
        return find_rasters(images) if Path(images).is_dir() else [Path(images)]
    if not images:
        raise InputError("no raster was given")
    return [Path(image) for image in images]


def _bounds(dataset: Any, top: int, left: int, size: int) -> tuple[float, float, float, float]:
    window = (top, left, min(size, dataset.height - top), min(size, dataset.width - left))
    corners = window_corners(dataset, window)
    (west, south), (east, north) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return west, south, east, north


class Split(NamedTuple):
    """Indices of items on either side of a split."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def block_split(
    bounds: NDArray[Any],
    block: float,
    *,
    seed: int,
    index: int = 0,
    test_share: float = 0.5,
    gap: float = 0.0,
    origin: tuple[float, float] | None = None,
    labels: NDArray[Any] | None = None,
    attempts: int = 1000,
) -> Split:
    """Split items into training and test by geographic blocks, so that neighbours fall on the same side.

    Parameters
    ----------
    bounds : ndarray, [N, 4]
        West, south, east, north of the items in map units (or left, top, right, bottom in pixels).
    block : float
        Side of a block in the same units.
    seed, index : int
        The split depends on these and on the blocks alone: split 3 is the same whether 5 or 10 are drawn, and for
        every method that is compared.
    test_share : float
        Share of the blocks that goes to the test, in (0, 1).
    gap : float
        Training items nearer to a test block than this are left out. Items that reach into a test block always
        are: they would show the test's pixels.
    origin : (x, y), optional
        A corner of a block; the least x and y of all items by default. Where blocks line up with the patches
        (the north-west corner of the scene, and a block of a whole number of patches) no item is lost.
    labels : ndarray, [N], optional
        Class of each item. Blocks are drawn again until every class is on both sides.
    attempts : int
        How often, at most.

    Returns
    -------
    Split
        Sorted indices. An item belongs to the block of its centre.

    Raises
    ------
    InputError
        Fewer than two blocks, or no draw has every class on both sides.
    """
    bounds = np.asarray(bounds, np.float64)
    if bounds.ndim != 2 or bounds.shape[1] != 4 or not len(bounds) or not np.isfinite(bounds).all():
        raise InputError(f"bounds are finite numbers [N, 4], not {list(bounds.shape)}")
    if not block > 0 or not 0 < test_share < 1 or gap < 0:
        raise InputError(f"block {block}, test_share {test_share} and gap {gap} are not possible")
    if labels is not None and np.shape(labels) != (len(bounds),):
        raise InputError(f"labels have shape {list(np.shape(labels))}, {len(bounds)} items were given")
    corner = bounds[:, :2].min(axis=0) if origin is None else np.asarray(origin, np.float64)
    centre = np.floor(((bounds[:, :2] + bounds[:, 2:]) / 2 - corner) / block).astype(np.int64)
    blocks, member = np.unique(centre, axis=0, return_inverse=True)
    member = member.ravel()
    if len(blocks) < 2:
        raise InputError(f"all items lie in one block of {block:g}", remedy="Choose a smaller block.")
    tested = min(max(round(test_share * len(blocks)), 1), len(blocks) - 1)
    rng = np.random.default_rng([seed, index])
    classes = None if labels is None else np.unique(labels)
    for _ in range(attempts):
        chosen = np.zeros(len(blocks), bool)
        chosen[rng.permutation(len(blocks))[:tested]] = True
        test = chosen[member]
        train = ~test & ~_reaching(bounds, corner + blocks[chosen] * block, block, gap)
        if train.any() and (
            classes is None
            or (labels is not None and all(np.array_equal(np.unique(labels[side]), classes) for side in (train, test)))
        ):
            return Split(np.flatnonzero(train), np.flatnonzero(test))
    raise InputError(
        f"none of {attempts} draws of {tested} of {len(blocks)} blocks left every class on both sides",
        remedy="Choose smaller blocks, a smaller gap, or leave rare classes out.",
    )


def _reaching(bounds: NDArray[Any], corners: NDArray[Any], block: float, gap: float) -> NDArray[np.bool_]:
    """Items that overlap one of the blocks with these lower corners, or come nearer to it than `gap`."""
    reaching = np.zeros(len(bounds), bool)
    slack = 1e-9 * block  # an item that ends where a block begins does not overlap it
    for x, y in corners:
        reaching |= (
            (bounds[:, 0] < x + block + gap - slack)
            & (bounds[:, 2] > x - gap + slack)
            & (bounds[:, 1] < y + block + gap - slack)
            & (bounds[:, 3] > y - gap + slack)
        )
    return reaching

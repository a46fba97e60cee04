"""EuroSAT: 27 000 Sentinel-2 patches of ten classes, as RGB pictures or with all 13 bands."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from priorscope.data.images import read_image
from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import EUROSAT_ORDER, RECIPES, BandRecipe
from priorscope_remote_sensing.data.rasters import band_names, data_bands, open_raster, read_bands

CLASSES = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
)
SPLITS = ("train", "val", "test")
SHARES = (0.6, 0.2, 0.2)
"""Of the split that is drawn where the lists are not there; the lists have these shares too."""

_BELOW = (
    *(".", "2750", "EuroSAT/2750", "EuroSAT", "tif", "EuroSATallBands"),
    "ds/images/remote_sensing/otherDatasets/sentinel_2/tif",
    "EuroSATallBands/ds/images/remote_sensing/otherDatasets/sentinel_2/tif",
)


class EuroSatSample(NamedTuple):
    """``image`` is float32 [C, 64, 64] as the recipe scales it, ``label`` an index into :data:`CLASSES`."""

    name: str
    image: NDArray[np.float32]
    label: int


class EuroSat(Sequence[EuroSatSample]):
    """A split of EuroSAT, from the folder its archive was extracted to.

    Parameters
    ----------
    root : path-like
        Holds ``2750/CLASS/CLASS_N.jpg`` (RGB archive) or ``ds/images/remote_sensing/otherDatasets/sentinel_2/tif/
        CLASS/CLASS_N.tif`` (13 bands), or is such a folder of classes. If both are below it, say which is meant.
    split : {"train", "val", "test"}
    bands : {"rgb", "all"}, optional
        The pictures or the 13-band files; by default whichever is there.
    recipe : BandRecipe, optional
        Bands and scale; by default red, green, blue: /255 of the pictures, /4095 of the 13-band files.
    seed : int
        Of the split that is drawn where ``eurosat-SPLIT.txt`` is not in `root` or beside the class folders.

    Raises
    ------
    InputError
        No class folders, an empty class, a listed file that is not there, or a file that cannot be read.

    Notes
    -----
    The lists name ``CLASS_N.jpg``, also for the 13-band files. A drawn split depends on the seed and on each file's
    CLASS_N alone, so it is the same for both archives, and for a part of them.
    """

    def __init__(
        self,
        root: str | PathLike[str],
        split: str,
        *,
        bands: str | None = None,
        recipe: BandRecipe | None = None,
        seed: int = 0,
    ) -> None:
        if split not in SPLITS:
            raise InputError(f"EuroSAT has no split {split!r}", remedy=f"One of {', '.join(SPLITS)}.")
        self.folder, suffix = _find(Path(root), bands)
        self.recipe = recipe or RECIPES["rgb" if suffix == ".jpg" else "sentinel2-rgb"]
        files = {path.stem: path for name in CLASSES for path in sorted((self.folder / name).glob(f"*{suffix}"))}
        empty = [name for name in CLASSES if not any(path.parent.name == name for path in files.values())]
        if empty:
            raise InputError(f"holds no {suffix} of {', '.join(empty)}", path=self.folder, remedy="Extract it again.")
        listed = _listed(Path(root), self.folder, split)
        self.official = listed is not None
        names = listed if listed is not None else _drawn(files, split, seed)
        missing = [name for name in names if name not in files]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(names)} listed files are not there, the first is {missing[0]}{suffix}",
                path=self.folder,
                remedy="Extract the archive again, or remove the lists eurosat-*.txt to have a split drawn.",
            )
        if not names:
            raise InputError(f"the split {split} is empty: there are only {len(files)} files", path=self.folder)
        self.files = [files[name] for name in names]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return CLASSES

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> EuroSatSample:  # type: ignore[override]
        path = self.files[index]
        if path.suffix == ".jpg":
            chosen = self.recipe.indices(("Red", "Green", "Blue"), 3, path=path)
            image = self.recipe.scale(np.moveaxis(read_image(path), -1, 0)[chosen])
        else:
            with open_raster(path) as dataset:
                count = data_bands(dataset)
                names = band_names(dataset) or (EUROSAT_ORDER if count == len(EUROSAT_ORDER) else None)
                chosen = self.recipe.indices(names, count, path=path)
                image = self.recipe.scale(read_bands(dataset, chosen)[0])
        return EuroSatSample(path.stem, image, CLASSES.index(path.parent.name))

    def __iter__(self) -> Iterator[EuroSatSample]:
        return (self[index] for index in range(len(self)))


def _find(root: Path, bands: str | None) -> tuple[Path, str]:
    suffixes = {"rgb": ".jpg", "all": ".tif"}
    if bands is not None and bands not in suffixes:
        raise InputError(f"bands is {bands!r}", remedy="'rgb' for the pictures or 'all' for the 13-band files.")
    if not root.is_dir():
        raise InputError("no such folder", path=root, remedy="Extract EuroSAT.zip or EuroSATallBands.zip.")
    found: dict[str, Path] = {}
    for place in (root / below for below in _BELOW):
        if (place / CLASSES[0]).is_dir():
            for suffix in suffixes.values():
                if next((place / CLASSES[0]).glob(f"*{suffix}"), None) is not None:
                    found.setdefault(suffix, place)
    wanted = list(found) if bands is None else [suffix for suffix in found if suffix == suffixes[bands]]
    if not wanted:
        raise InputError(
            f"holds no folder {CLASSES[0]} with {' or '.join(suffixes.values()) if bands is None else suffixes[bands]}",
            path=root,
            remedy="Give the folder that the archive was extracted to, with 2750/ or ds/ in it.",
        )
    if len(wanted) > 1:
        raise InputError("holds the pictures and the 13-band files", path=root, remedy="Say bands='rgb' or 'all'.")
    return found[wanted[0]], wanted[0]


def _listed(root: Path, folder: Path, split: str) -> list[str] | None:
    """Names (CLASS_N) of the official list, where it is there."""
    for place in (root, folder, folder.parent):
        path = place / f"eurosat-{split}.txt"
        if path.is_file():
            try:
                names = [Path(line.strip()).stem for line in path.read_text(encoding="utf-8").splitlines()]
            except UnicodeDecodeError as error:
                raise InputError("is not a list of file names", path=path) from error
            return [name for name in names if name]
    return None


def _drawn(files: dict[str, Path], split: str, seed: int) -> list[str]:
    """Each file falls on a place in [0, 1) by a hash of its name; the shares cut that line in three."""
    ends = np.cumsum(SHARES)
    low, high = (0.0, *ends)[SPLITS.index(split)], ends[SPLITS.index(split)]
    high = 1.0 if split == SPLITS[-1] else high
    return [name for name in files if low <= _place(name, seed) < high]


def _place(name: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48

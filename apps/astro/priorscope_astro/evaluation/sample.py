"""Galaxies that are compared: generated ones of a run folder, real ones of any layout, at one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_astro.conditions.tree import ANSWERS
from priorscope_astro.data.anything import holds_flux, read_flux, read_galaxies, refuse_columns
from priorscope_astro.data.catalogue import read_catalogue
from priorscope_astro.data.fits_stamps import refuse_other
from priorscope_astro.data.galaxies import GalaxySet, Mode
from priorscope_astro.data.stamps import Stamps
from priorscope_astro.diffusion.scaling import cut_stamp, display_values
from priorscope_astro.evaluation_config import EvaluateConfig
from priorscope_astro.labels import class_settings, label, refuse_unused

_CATALOGUES = ("catalogue.ecsv", "catalogue.vot", "catalogue.fits")
#: Pictures are compared at most at this side where none is asked for.
LARGEST_SIDE = 128


@dataclass(frozen=True)
class Survey:
    """What the stamps of flux have in common. For pictures, everything is empty."""

    bands: tuple[str, ...] = ()
    unit: str = ""
    sky_sigma: NDArray[np.float64] | None = None
    """(bands,)"""
    psf: NDArray[np.float64] | None = None
    """(bands, h, w), mean over stamps."""
    pixel_scale: float | None = None
    """Arcsec a pixel, where known."""

    def refuse_other(self, other: Survey, what: str, *, path: Path) -> None:
        """Raise where the flux of another survey cannot be compared with this one's.

        Raises
        ------
        InputError
            Other bands, or another unit.
        """
        if (self.bands, self.unit) != (other.bands, other.unit):
            raise InputError(
                f"is flux in {self.unit}, bands {', '.join(self.bands)}; {what} in {other.unit}, bands "
                f"{', '.join(other.bands)}",
                path=path,
                remedy="Compare flux of one unit in the same bands.",
            )


@dataclass(frozen=True)
class Sample:
    """Galaxies in memory.

    Attributes
    ----------
    ids : tuple of str
    labels : tuple of str
        Class names; '' where a galaxy has none.
    images : array
        ``display``: uint8 (N, side, side, 3), row 0 at the top; ``flux``: float32 (N, bands, side, side), rows upwards.
    mode : {"display", "flux"}
    conditions : float32 array (N, 74), optional
        What was asked for.
    survey : Survey
        Of flux: at least bands and unit.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    images: NDArray[Any]
    mode: Mode
    conditions: NDArray[np.float32] | None = None
    survey: Survey = Survey()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def side(self) -> int:
        """Pixels."""
        return int(self.images.shape[2])

    def select(self, rows: Sequence[int] | NDArray[Any]) -> Sample:
        """Some of them, by number."""
        places = np.asarray(rows, np.int64)
        return replace(
            self,
            ids=tuple(self.ids[row] for row in places),
            labels=tuple(self.labels[row] for row in places),
            images=self.images[places],
            conditions=None if self.conditions is None else self.conditions[places],
        )


@dataclass(frozen=True)
class Real:
    """Real galaxies, read when asked for.

    Attributes
    ----------
    galaxies : GalaxySet
        With labels.
    survey : Survey
    side : int
        Pixels that images are cut (flux) or resized (pictures) to.
    """

    galaxies: GalaxySet
    survey: Survey
    side: int

    def image(self, row: int) -> NDArray[Any]:
        """One image, as :class:`Sample` has them."""
        image = np.asarray(self.galaxies.image(row))
        what = f"object {self.galaxies.ids[row]}"
        if self.galaxies.mode == "flux":
            return cut_stamp(image, len(self.survey.bands), self.side, what=what)
        return resized(image, self.side, what=what)

    def images(self, rows: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Images one by one."""
        return (self.image(int(row)) for row in rows)

    def sample(self, rows: Sequence[int] | NDArray[Any]) -> Sample:
        """Some of them in memory."""
        places = [int(row) for row in rows]
        some = self.galaxies.select(np.array(places, np.int64))
        labels = ("",) * len(some) if some.labels is None else some.labels
        empty = (3, self.side, self.side) if some.mode == "flux" else (self.side, self.side, 3)
        images = np.stack(list(self.images(places))) if places else np.empty((0, *empty), np.uint8)
        return Sample(some.ids, labels, images, some.mode, survey=self.survey)


def resized(image: NDArray[np.uint8], side: int, *, what: str = "an image") -> NDArray[np.uint8]:
    """A picture's central square at another size, uint8 (side, side, 3)."""
    values = display_values(image, side, what=what)
    return np.moveaxis((values * 255).round().astype(np.uint8), 0, -1)


def read_generated(config: EvaluateConfig) -> tuple[Sample, Any]:
    """Generated galaxies and, of a run of `generate`, its catalogue (else None).

    Raises
    ------
    InputError
        No catalogue, images that are missing or of several kinds and sizes, nothing accepted.
    """
    path = config.generated
    file = next((path / name for name in _CATALOGUES if (path / name).is_file()), None) if path.is_dir() else path
    if file is None or (path.is_file() and path.suffix in (".npz", ".h5", ".hdf5")):
        if config.accepted_only:
            raise InputError("has no catalogue that says what is accepted", path=path)
        mode: Mode = "flux" if holds_flux(path) else "display"
        galaxies, survey = _labelled(path, mode, config)
        side = np.asarray(galaxies.image(0)).shape[1]
        real = Real(galaxies, survey, side if mode == "flux" else config.side or min(side, LARGEST_SIDE))
        return real.sample(chosen_rows(galaxies.labels or (), config.per_class, config.seed)), None
    table = read_catalogue(file)
    missing = [name for name in ("object_id", "class_name", "image") if name not in table.colnames]
    if missing:
        raise InputError(f"has no column {missing[0]!r}", path=file, remedy="Is it a catalogue of `generate`?")
    if config.accepted_only:
        if "accepted" not in table.colnames:
            raise InputError("does not say what is accepted", path=file, remedy="Draw without --accept.no-check.")
        table = table[np.asarray(table["accepted"], bool)]
        if not len(table):
            raise InputError("no galaxy is accepted", path=file)
    labels = tuple(str(name) for name in table["class_name"])
    table = table[np.sort(chosen_rows(labels, config.per_class, config.seed))]
    return _from_catalogue(table, file, config), table


def _from_catalogue(table: Any, file: Path, config: EvaluateConfig) -> Sample:
    files = [file.parent / str(name) for name in table["image"]]
    images, mode = read_images(files, config.side)
    survey = Survey()
    if mode == "flux":
        from priorscope_astro.imaging.fits import read_stamp_fits

        first = read_stamp_fits(files[0])
        survey = Survey(first.bands, first.unit, pixel_scale=first.pixel_scale)
    return Sample(
        tuple(str(name) for name in table["object_id"]),
        tuple(str(name) for name in table["class_name"]),
        images,
        mode,
        conditions_of(table),
        survey,
    )


def read_images(files: Sequence[Path], side: int = 0) -> tuple[NDArray[Any], Mode]:
    """Images of `generate`, as :class:`Sample` has them, and their mode.

    Parameters
    ----------
    files : sequence of Path
        .fits, or pictures.
    side : int
        Pictures are resized to it; 0: to the first one's side, at most 128.

    Raises
    ------
    InputError
        One is missing or broken, or they are of several kinds or sizes.
    """
    for file in files:
        if not file.is_file():
            raise InputError("the image is missing", path=file)
    kinds = {file.suffix for file in files}
    if len(kinds) != 1:
        raise InputError(f"{len(files)} images of the kinds {sorted(kinds)}", remedy="Give some, all of one kind.")
    if kinds == {".fits"}:
        from priorscope_astro.imaging.fits import read_stamp_fits

        stamps: list[NDArray[np.float32]] = []
        first: tuple[tuple[str, ...], str] | None = None
        for file in files:
            stamp = read_stamp_fits(file)
            first = first or (stamp.bands, stamp.unit)
            refuse_other((stamp.bands, stamp.unit), first, path=file)
            stamps.append(np.asarray(stamp.flux, np.float32))
        if len({stamp.shape for stamp in stamps}) > 1:
            raise InputError(f"stamps of {len({stamp.shape for stamp in stamps})} sizes", path=files[0].parent)
        return np.stack(stamps), "flux"
    from priorscope.data.images import read_image

    pictures = []
    for file in files:
        picture = read_image(file)
        side = side or min(*picture.shape[:2], LARGEST_SIDE)
        pictures.append(resized(picture, side, what=str(file)))
    return np.stack(pictures), "display"


def conditions_of(table: Any) -> NDArray[np.float32] | None:
    """Conditions (N, 74) of a catalogue's ``ANSWER_fraction`` columns; None without them."""
    names = [f"{answer}_fraction" for answer in ANSWERS]
    if any(name not in table.colnames for name in names):
        return None
    shares = np.stack([np.asarray(np.ma.filled(table[name], np.nan), np.float32) for name in names], 1)
    known = np.isfinite(shares)
    return np.concatenate([np.where(known, shares, 0), known], 1).astype(np.float32)


def read_real(config: EvaluateConfig, generated: Sample) -> Real:
    """Real galaxies with classes, at the side of the generated ones.

    Raises
    ------
    InputError
        Another mode, nothing that says classes, other bands, another unit, or an option that changes nothing.
    """
    galaxies, survey = _labelled(config.real, generated.mode, config)
    if galaxies.mode != generated.mode:
        raise InputError(
            f"holds {galaxies.mode}, the generated galaxies are {generated.mode}",
            path=config.real,
            remedy="Compare pictures with pictures and flux with flux.",
        )
    if galaxies.images is None:
        raise InputError("has no images", path=config.real)
    if generated.mode == "flux" and config.side:
        raise InputError(f"--side {config.side} with flux", remedy="Leave it out: flux is never resized.")
    survey.refuse_other(generated.survey, "the generated galaxies are", path=config.real)
    refuse_unused(galaxies, class_settings(config.real, config), ("cuts", "agreement"))
    return Real(galaxies, survey, generated.side)


def chosen_rows(labels: Sequence[str], per_class: int, seed: int) -> NDArray[np.int64]:
    """At most ``per_class`` rows of each class (0: all), at random, in the order of their numbers."""
    random = np.random.default_rng([seed, 17])
    places = np.array(labels)
    rows = [np.flatnonzero(places == name) for name in dict.fromkeys(labels)]
    if per_class:
        rows = [random.permutation(some)[:per_class] for some in rows]
    return np.sort(np.concatenate(rows)) if rows else np.empty(0, np.int64)


def _labelled(path: Path, mode: Mode, config: EvaluateConfig) -> tuple[GalaxySet, Survey]:
    survey = Survey()
    if mode == "flux":
        refuse_columns(path, "stamps", config.class_column, config.id_column)
        stamps = read_flux(path)
        galaxies, survey = stamps.galaxies(), survey_of(stamps)
    else:
        galaxies = read_galaxies(path, mode="display", label_column=config.class_column, ids=config.id_column)
    for note in galaxies.notes:
        print(note)
    return label(galaxies, class_settings(path, config)), survey


def survey_of(stamps: Stamps) -> Survey:
    """What stamps have in common: the median noise and the mean PSF."""
    return Survey(stamps.bands, stamps.unit, stamps.common_sky, stamps.common_psf, stamps.pixel_scale)

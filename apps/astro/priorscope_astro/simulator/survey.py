"""A simulated survey on disk: flux, pictures, votes in the layout of Galaxy Zoo 2, and the truth.

``FOLDER/stamps.npz``
    ``flux`` (N, 3, H, W) float32, row 0 at the bottom as in FITS; ``bands``; ``unit``; ``pixel_scale`` (arcsec);
    ``psf`` (3, 25, 25); ``sky_sigma`` (3,), in the unit of the flux; ``ids`` (N,) int64; ``labels`` (N,) int64, places
    in ``classes``; ``counts`` (N, 37), votes in the tree's order; ``conditions`` (N, 74), the exact answers as
    ``Condition.to_vector`` gives them.
``FOLDER/gz2_hart16.csv``, ``FOLDER/gz2_filename_mapping.csv``, ``FOLDER/images/ASSET.jpg``
    As published, but for what cannot be known here: weights are counts, debiased fractions are fractions, a flag says
    that 20 or more volunteers were asked and 80 % gave this answer, ``gz2_class`` is the true class, ``sample`` is
    ``simulated``, and positions on the sky are invented.
``FOLDER/truth.csv``
    Object id, class, true answer of each question, and the parameters of :class:`~.galaxy.Galaxy`.
``FOLDER/survey.json``
    How it was made.

The table of votes is written last, so a folder that has one is finished.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import atomic_path, refuse_overwrite, write_text, writing
from priorscope.errors import InputError
from priorscope_astro.conditions.tree import ANSWERS_OF, QUESTIONS, SLICES
from priorscope_astro.imaging.lupton import lupton_rgb
from priorscope_astro.simulator.config import BANDS, CLASSES, SimulateConfig, shares_of
from priorscope_astro.simulator.galaxy import Galaxy, random_galaxy, scene
from priorscope_astro.simulator.observation import Camera
from priorscope_astro.simulator.votes import exact_answers, exact_condition, volunteer_votes

#: Changes whenever the same seed gives other galaxies.
GENERATOR_VERSION = 1
UNIT = "nmgy"
#: Lupton's mapping of the pictures: nanomaggies a pixel, softening, and the gain of i, r, g before it.
STRETCH, SOFTENING, GAINS = 0.5, 8.0, (1.0, 1.15, 1.5)
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Simulated:
    """One galaxy as a survey sees it."""

    id: int
    galaxy: Galaxy
    flux: NDArray[np.float32]
    """(3, H, W) in g, r, i, nanomaggies a pixel, sky subtracted; row 0 at the bottom."""
    counts: NDArray[np.int64]
    """Votes (37,)."""
    ra: float
    """Degrees; invented."""
    dec: float

    @property
    def label(self) -> int:
        """Place of its class in CLASSES."""
        return CLASSES.index(self.galaxy.kind)


def simulate(config: SimulateConfig, number: int) -> Simulated:
    """Galaxy ``number`` of the seed of a survey; the same whatever else is drawn."""
    random = np.random.default_rng([config.seed, number])
    shares = np.array(list(shares_of(config.prevalence).values()))
    edges = np.cumsum(shares) / shares.sum()
    # side "right": a class of share 0 is never hit, not even by 0.0
    kind = CLASSES[int(np.searchsorted(edges, random.random(), side="right"))]
    galaxy = random_galaxy(kind, random, config.size)
    counts = volunteer_votes(galaxy, max(1, int(random.poisson(config.volunteers))), random)
    ra, dec = random.uniform(0, 360), float(np.degrees(np.arcsin(random.uniform(-1, 1))))
    camera = Camera(config.size, config.pixel_scale, config.seeing, config.noise)
    flux = camera.with_noise(camera.seen(scene(galaxy, config.size)), random)
    return Simulated(object_id(config.seed, number), galaxy, flux, counts, ra, dec)


def object_id(seed: int, number: int) -> int:
    """The id of a galaxy: 18 digits as SDSS's, and none of SDSS's."""
    return 100_000_000_000_000_000 + seed * 100_000_000 + number


def picture(flux: NDArray[np.float32]) -> NDArray[np.uint8]:
    """8-bit RGB (..., H, W, 3) of flux (..., 3, H, W) in g, r, i: i, r, g by Lupton's mapping, row 0 at the top."""
    gains = np.array(GAINS, np.float32)[:, None, None]
    rgb = lupton_rgb(flux[..., ::-1, :, :] * gains, stretch=STRETCH, softening=SOFTENING)
    return np.ascontiguousarray(rgb[..., ::-1, :, :])


def run(config: SimulateConfig) -> Path:
    """Write the survey that ``config`` describes; returns its folder.

    All flux is held in memory: 12 bytes a pixel, 49 kB for a galaxy of 64 pixels a side.

    Raises
    ------
    InputError
        For an option that makes no sense, a folder that holds a survey already or cannot be written, or a missing
        package.
    """
    config.check()
    _need_galsim()
    folder = Path(config.out)
    votes = refuse_overwrite(folder / "gz2_hart16.csv", remedy="Name another --out.")
    pictures = folder / "images"
    with writing(folder):
        (pictures if config.jpeg else folder).mkdir(parents=True, exist_ok=True)
    flux = np.empty((config.count, len(BANDS), config.size, config.size), np.float32)
    found: list[Simulated] = []
    for place, one in enumerate(_drawn(config)):
        flux[place] = one.flux
        found.append(_without_flux(one))
        if config.jpeg:
            _save_jpeg(pictures / f"{_asset(config, place)}.jpg", picture(one.flux))
    ids = np.array([one.id for one in found])
    _write_stamps(folder / "stamps.npz", config, flux, found)
    _write_rows(folder / "truth.csv", [_truth_row(one) for one in found])
    mapping = [
        {"objid": one.id, "sample": "simulated", "asset_id": _asset(config, place)} for place, one in enumerate(found)
    ]
    _write_rows(folder / "gz2_filename_mapping.csv", mapping)
    about = {
        "generator_version": GENERATOR_VERSION,
        "settings": asdict(config) | {"out": str(config.out)},
        "shares": shares_of(config.prevalence),
        "drawn": {name: sum(one.galaxy.kind == name for one in found) for name in CLASSES},
        "first_id": int(ids[0]),
        "last_id": int(ids[-1]),
    }
    write_text(folder / "survey.json", json.dumps(about, indent=2) + "\n", overwrite=True)
    _write_rows(votes, [_votes_row(one) for one in found])
    print(f"{config.count} galaxies, {sum(one.galaxy.kind == 'dust_lane' for one in found)} with a dust lane: {folder}")
    return folder


@dataclass(frozen=True)
class Survey:
    """What :func:`read_survey` gives; the arrays are those of ``stamps.npz``."""

    flux: NDArray[np.float32]
    psf: NDArray[np.float32]
    sky_sigma: NDArray[np.float32]
    pixel_scale: float
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    conditions: NDArray[np.float32]
    path: Path

    def __len__(self) -> int:
        return len(self.ids)

    def of_class(self, name: str) -> NDArray[np.int64]:
        """Places of the galaxies of a class."""
        return np.flatnonzero(self.labels == self.classes.index(name))

    def pictures(self, places: Sequence[int] | NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """8-bit RGB (N, H, W, 3), made from the flux: without the losses of the JPEG files."""
        chosen = np.arange(len(self)) if places is None else np.asarray(places)
        blocks = np.array_split(chosen, max(1, len(chosen) // 256))  # pictures are made in float64
        return np.concatenate([picture(self.flux[block]) for block in blocks])


def read_survey(folder: str | PathLike[str]) -> Survey:
    """Read the flux, labels and votes of a survey that :func:`run` wrote.

    Raises
    ------
    InputError
        Where there is no such file, or it holds something else.
    """
    path = Path(folder) / "stamps.npz"
    if not path.is_file():
        raise InputError("no such file", path=path, remedy="Make a survey with: priorscope astro simulate --out FOLDER")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        classes = tuple(str(name) for name in arrays.pop("classes"))
        scale = float(arrays.pop("pixel_scale"))
        unit, bands = str(arrays.pop("unit")), tuple(str(band) for band in arrays.pop("bands"))
        survey = Survey(**arrays, classes=classes, pixel_scale=scale, path=path)
    except (KeyError, TypeError, ValueError, OSError, EOFError, BadZipFile) as error:
        raise InputError(f"is no survey's file of stamps ({' '.join(str(error).split())[:120]})", path=path) from None
    if unit != UNIT or bands != BANDS or survey.flux.ndim != 4 or len({len(survey.flux), len(survey.labels)}) != 1:
        raise InputError(
            f"holds flux {survey.flux.shape} in {unit!r} and bands {bands}, wanted {UNIT!r} in {BANDS}", path=path
        )
    return survey


def _need_galsim() -> None:
    try:
        import galsim  # noqa: F401
    except ImportError:
        raise InputError("galsim is not installed", remedy="pip install 'priorscope[astro]'") from None


def _asset(config: SimulateConfig, place: int) -> int:
    return config.first + place + 1


def _drawn(config: SimulateConfig) -> Iterator[Simulated]:
    """The galaxies in the order of their numbers, with a bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("galaxies"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("galaxies", total=config.count, rate="")
        for one in _results(config):
            yield one
            speed = bar.tasks[0].speed
            bar.update(task, advance=1, rate=f"{speed:.0f} /s" if speed else "")


def _results(config: SimulateConfig) -> Iterator[Simulated]:
    numbers = range(config.first, config.first + config.count)
    one = partial(simulate, config)
    if config.workers == 1:
        yield from map(one, numbers)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # spawn: a forked child would share the parent's threads' locks (BLAS)
    with ProcessPoolExecutor(config.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = iter(numbers)
        while block := list(islice(waiting, 1000)):  # what is ready waits in memory: not the whole survey
            yield from pool.map(one, block, chunksize=25)


def _without_flux(one: Simulated) -> Simulated:
    return Simulated(one.id, one.galaxy, np.empty((0, 0, 0), np.float32), one.counts, one.ra, one.dec)


def _save_jpeg(path: Path, rgb: NDArray[np.uint8]) -> None:
    from PIL import Image

    with writing(path):
        Image.fromarray(rgb).save(path, quality=_JPEG_QUALITY, subsampling=0)


def _write_stamps(path: Path, config: SimulateConfig, flux: NDArray[np.float32], found: Sequence[Simulated]) -> None:
    camera = Camera(config.size, config.pixel_scale, config.seeing, config.noise)
    arrays = {
        "flux": flux,
        "bands": np.array(BANDS),
        "unit": np.array(UNIT),
        "pixel_scale": np.array(config.pixel_scale),
        "psf": camera.psf(),
        "sky_sigma": camera.sky_sigma,
        "ids": np.array([one.id for one in found]),
        "labels": np.array([one.label for one in found]),
        "classes": np.array(CLASSES),
        "counts": np.stack([one.counts for one in found]),
        "conditions": np.stack([exact_condition(one.galaxy).to_vector() for one in found]),
    }
    # an unfinished survey's file may lie there: the table of votes is what says that it is finished
    with atomic_path(path, overwrite=True) as temporary, writing(path):
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


def _truth_row(one: Simulated) -> dict[str, Any]:
    answers = exact_answers(one.galaxy)
    row: dict[str, Any] = {"objid": one.id, "class": one.galaxy.kind}
    row |= {question: answers.get(question, "").removeprefix(f"{question}_") for question in QUESTIONS}
    numbers = one.galaxy.parameters()
    del numbers["kind"]
    return row | {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in numbers.items()}


def _votes_row(one: Simulated) -> dict[str, Any]:
    total = int(one.counts[SLICES[QUESTIONS[0]]].sum())
    hours, degrees = one.ra / 15, abs(one.dec)
    row: dict[str, Any] = {
        "dr7objid": one.id,
        "ra": f"{one.ra:.6f}",
        "dec": f"{one.dec:.6f}",
        "rastring": _sexagesimal(hours, 2),
        "decstring": ("-" if one.dec < 0 else "+") + _sexagesimal(degrees, 1),
        "sample": "simulated",
        "gz2_class": one.galaxy.kind,
        "total_classifications": total,
        "total_votes": int(one.counts.sum()),
    }
    for question in QUESTIONS:
        counts = one.counts[SLICES[question]].tolist()
        asked = sum(counts)
        for answer, count in zip(ANSWERS_OF[question], counts, strict=True):
            share = count / asked if asked else 0.0
            row |= {f"{answer}_count": count, f"{answer}_weight": count}
            row |= {f"{answer}_{kind}": f"{share:.6f}" for kind in ("fraction", "weighted_fraction", "debiased")}
            row[f"{answer}_flag"] = int(asked >= 20 and share >= 0.8)
    return row


def _sexagesimal(value: float, decimals: int) -> str:
    units = round(value * 3600 * 10**decimals)
    minutes, seconds = divmod(units, 60 * 10**decimals)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds / 10**decimals:0{3 + decimals}.{decimals}f}"


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A CSV file; a column that only some rows have is empty in the others."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path, overwrite=True) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)

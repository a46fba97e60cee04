"""Slices to learn from: of volumes, in chosen planes, or of procedural bodies."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import atomic_path, writing
from priorscope.errors import InputError
from priorscope_medical.configs import TrainConfig
from priorscope_medical.grid import side_in_mm, square
from priorscope_medical.prior import Unit
from priorscope_medical.volumes import Volume, across, as_attenuation, intensity_scale, read_volume

#: mm of a pixel of procedural slices: 96 of them hold a head with what lies around it.
PHANTOM_PIXEL = 2.55
#: Sizes of procedural slices vary by so much, since pixels of other scanners do.
_PHANTOM_SPREAD = (0.88, 1.13)
_MOST_HELD_OUT = 64


@dataclass(frozen=True)
class Slices:
    """What a prior is trained on.

    Parameters
    ----------
    path : Path
        .npy of float16 [N, size, size], in `unit`.
    held_out : ndarray of float32 [M, size, size]
        Slices that no training step sees.
    unit : {"attenuation", "intensity"}
    pixel : float
        mm.
    title : str
    """

    path: Path
    held_out: NDArray[np.float32]
    unit: Unit
    pixel: float
    title: str

    def read(self) -> NDArray[np.float16]:
        """The slices, mapped."""
        return np.load(self.path, mmap_mode="r")


@dataclass(frozen=True)
class Source:
    """Where slices come from, before anything is written."""

    volumes: tuple[Volume, ...]
    names: tuple[str, ...]
    held_out: frozenset[str]
    unit: Unit
    pixel: float


def open_source(config: TrainConfig) -> Source:
    """Read the volumes, or settle for phantoms.

    Raises
    ------
    InputError
        Neither volumes nor phantoms or both, volumes of different kinds, a held-out name that none has.
    """
    if bool(config.volumes) == bool(config.phantoms):
        raise InputError("train on volumes or on phantoms", remedy="Give --volumes PATH ... or --phantoms 8000.")
    if config.phantoms:
        if config.kind == "intensity":
            raise InputError("--phantoms are of attenuation", remedy="Give --volumes for a prior of intensity.")
        return Source((), (), frozenset(), "attenuation", config.pixel or PHANTOM_PIXEL)
    read = [read_volume(path, unit=config.unit) for path in config.volumes]
    kinds = {"intensity" if volume.unit == "intensity" else "attenuation" for volume in read}
    unit = config.kind or ("attenuation" if kinds == {"attenuation"} else "intensity")
    if config.kind is None and len(kinds) > 1:
        raise InputError("the volumes are of attenuation and of intensity", remedy="Choose with --kind.")
    volumes = tuple(_in_unit(volume, unit) for volume in read)
    names = tuple(str(path) for path in config.volumes)
    held_out = set()
    for wanted in config.held_out:
        found = [
            name for name in names if name == wanted or Path(name).name.startswith(wanted) or name.endswith(wanted)
        ]
        if not found:
            raise InputError(f"no volume is called {wanted!r}", remedy=f"Held-out names are among {', '.join(names)}.")
        held_out |= set(found)
    if len(held_out) == len(names):
        raise InputError("all volumes are held out: nothing is left to learn from")
    pixel = config.pixel or max(side_in_mm(across(volume, plane)) for volume in volumes for plane in config.planes)
    return Source(volumes, names, frozenset(held_out), unit, pixel if config.pixel else pixel / config.size)


def write_slices(source: Source, config: TrainConfig, folder: Path) -> None:
    """Write ``slices.npy`` and ``held_out.npy``; files that are there already are kept."""
    paths = folder / "slices.npy", folder / "held_out.npy"
    if all(path.is_file() for path in paths):
        return
    learnt, looked_at = _phantoms(config, source.pixel) if not source.volumes else _of_volumes(source, config)
    for path, values in zip(paths, (learnt, looked_at), strict=True):
        with atomic_path(path, overwrite=True) as temporary, writing(path):
            np.save(temporary, values)


def read_slices(source: Source, config: TrainConfig, folder: Path) -> Slices:
    """What :func:`write_slices` wrote."""
    title = f"{config.phantoms} procedural slices" if not source.volumes else f"slices of {len(source.volumes)} volumes"
    held_out = np.load(folder / "held_out.npy").astype(np.float32)
    return Slices(folder / "slices.npy", held_out, source.unit, source.pixel, title)


def _stem(name: str) -> str:
    return Path(name).name.removesuffix(".gz").removesuffix(".nii")


def _in_unit(volume: Volume, unit: Unit) -> Volume:
    if unit == "attenuation":
        return as_attenuation(volume)
    return volume.with_data(volume.data / np.float32(intensity_scale(volume.data)), "intensity")


def _of_volumes(source: Source, config: TrainConfig) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    learnt: list[NDArray[np.float16]] = []
    looked_at: list[NDArray[np.float16]] = []
    for name, volume in zip(source.names, source.volumes, strict=True):
        for plane in config.planes:
            images = square(across(volume, plane), config.size, source.pixel).data.astype(np.float16)
            if source.held_out:
                (looked_at if name in source.held_out else learnt).append(images)
                continue
            # neighbours are alike: what is held out lies together
            tenth = len(images) // 10
            first = (len(images) - tenth) // 2
            looked_at.append(images[first : first + tenth])
            learnt.append(np.concatenate([images[:first], images[first + tenth :]]))
    return np.concatenate(learnt), _some(np.concatenate(looked_at))


def _phantoms(config: TrainConfig, pixel: float) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    held_out = min(_MOST_HELD_OUT, max(4, config.phantoms // 10))
    # of another seed: bodies that training does not draw
    looked_at = [_phantom(config, config.loop.seed + 1, index, pixel) for index in range(held_out)]
    learnt = np.empty((config.phantoms, config.size, config.size), np.float16)
    for index in _shown(range(config.phantoms)):
        learnt[index] = _phantom(config, config.loop.seed, index, pixel)
    return learnt, np.stack(looked_at).astype(np.float16)


def _phantom(config: TrainConfig, seed: int, index: int, pixel: float) -> NDArray[np.float32]:
    from priorscope_medical.phantoms import ct_slice

    size = pixel * float(np.random.default_rng([seed, index, 1]).uniform(*_PHANTOM_SPREAD))
    return ct_slice(seed, index, size=config.size, pixel=size)


def _some(images: NDArray[np.float16]) -> NDArray[np.float16]:
    if len(images) <= _MOST_HELD_OUT:
        return images
    return images[np.linspace(0, len(images) - 1, _MOST_HELD_OUT).round().astype(int)]


def _shown(items: Sequence[int]) -> Iterable[int]:
    if not sys.stderr.isatty():
        return items
    return _with_bar(items)


def _with_bar(items: Sequence[int]) -> Iterator[int]:
    from rich.console import Console
    from rich.progress import track

    yield from track(items, "drawing slices", console=Console(stderr=True))

"""Cines of beamformed RF in HDF5, with what they are made of; and RF in other containers. For research use only.

data/hazy, data/tissue, data/haze, data/noise   float32 [frames, samples, beams];
                                                hazy = tissue + strength haze + noise
data/regions                                    uint8, the same shape; names in its attribute ``names``
scan/depths, scan/angles                        of the samples in m, of the beams in radians
scan/carrier, scan/sampling, scan/sound_speed, scan/frame_rate   numbers in Hz and m/s
attributes: ``about``, ``strength``, ``seed``, ``method``
"""

from __future__ import annotations

import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.arrays import read_array
from priorscope.data.files import atomic_path, writing
from priorscope.errors import InputError
from priorscope_medical.ultrasound.hdf5 import open_hdf5
from priorscope_medical.ultrasound.heart_scatterers import REGIONS
from priorscope_medical.ultrasound.rf_simulator import SimulatedCine
from priorscope_medical.volumes import RESEARCH_ONLY

_PARTS = ("tissue", "haze", "noise")


@dataclass(frozen=True)
class RfFile:
    """RF of a file, and what else it knows.

    Parameters
    ----------
    rf : ndarray of float32 [frames, samples, beams]
    clean : ndarray, optional
        Without haze: tissue + noise.
    regions : ndarray of uint8, optional
        Indices into :data:`~.heart_scatterers.REGIONS`.
    """

    rf: NDArray[np.float32]
    clean: NDArray[np.float32] | None = None
    regions: NDArray[np.uint8] | None = None


def write_simulated(path: Path, cine: SimulatedCine, *, strength: float, seed: int, method: str) -> None:
    """Write a simulated cine; refuses to overwrite."""
    import h5py

    with atomic_path(path) as temporary, writing(path), h5py.File(temporary, "w") as file:
        for name in _PARTS:
            file.create_dataset(f"data/{name}", data=getattr(cine, name), compression="gzip", compression_opts=1)
        file.create_dataset("data/hazy", data=cine.hazy(strength), compression="gzip", compression_opts=1)
        regions = file.create_dataset("data/regions", data=cine.regions, compression="gzip")
        regions.attrs["names"] = list(REGIONS)
        scan = cine.scan
        numbers = {"carrier": scan.carrier, "sampling": scan.sampling, "sound_speed": scan.speed}
        numbers |= {"frame_rate": cine.frame_rate}
        for name, value in {"depths": scan.depths, "angles": scan.angles, **numbers}.items():
            file[f"scan/{name}"] = value
        file.attrs.update({"about": RESEARCH_ONLY, "strength": strength, "seed": seed, "method": method})


def read_rf(path: Path, *, dehazed: bool = False) -> RfFile:
    """RF of .npy, .npz (its ``rf``, or its only array) or of HDF5 that :func:`write_simulated` wrote.

    ``dehazed``: of the rf.npz that `dehaze` wrote, which holds the input as ``rf``, its ``tissue``.

    Raises
    ------
    InputError
        Missing, truncated, or not [frames, samples, beams] of real finite numbers.
    """
    if not path.is_file():
        raise InputError("no such file", path=path, remedy="Check the path.")
    suffix = path.suffix.lower()
    if suffix in (".h5", ".hdf5"):
        with open_hdf5(path) as file:
            if "data/hazy" not in file:
                raise InputError("holds no data/hazy", path=path, remedy="Give a file of `simulate-ultrasound`.")
            rf = checked_rf(file["data/hazy"][()], path)
            clean = regions = None
            if all(f"data/{name}" in file for name in ("tissue", "noise")):
                clean = checked_rf(file["data/tissue"][()] + file["data/noise"][()], path)
            if "data/regions" in file:
                regions = checked_regions(file["data/regions"][()], rf.shape, path)
        return RfFile(rf, clean, regions)
    if suffix not in (".npy", ".npz"):
        raise InputError("is neither .npy, .npz nor .h5", path=path, remedy="Convert it.")
    return RfFile(checked_rf(_array(path, *(("tissue", "rf") if dehazed else ("rf",))), path))


def read_regions(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A map of regions for RF of ``shape``: of each frame, or one for all."""
    if not path.is_file():
        raise InputError("no such file", path=path, remedy="Check the path.")
    return checked_regions(_array(path, "regions"), shape, path)


def checked_rf(values: Any, path: Path) -> NDArray[np.float32]:
    """float32 [frames, samples, beams], or an InputError."""
    found = np.asarray(values)
    if found.ndim != 3 or 0 in found.shape or np.iscomplexobj(found) or found.dtype.kind not in "iuf":
        raise InputError(
            f"holds {found.dtype} of shape {list(found.shape)}",
            path=path,
            remedy="Real RF [frames, samples, beams] was expected.",
        )
    if not np.isfinite(found).all():
        raise InputError("holds values that are not finite", path=path, remedy="Repair or leave out those frames.")
    return found.astype(np.float32)


def checked_regions(values: Any, shape: tuple[int, ...], path: Path) -> NDArray[np.uint8]:
    """uint8 of ``shape``, or an InputError."""
    found = np.asarray(values)
    if found.shape not in (shape, shape[1:]) or found.dtype.kind not in "iub":
        raise InputError(
            f"holds {found.dtype} of shape {list(found.shape)}",
            path=path,
            remedy=f"Whole numbers of shape {list(shape)} or {list(shape[1:])} were expected.",
        )
    if found.min() < 0 or found.max() >= len(REGIONS):
        raise InputError(f"has regions from {found.min()} to {found.max()}", path=path, remedy=f"Known: {REGIONS}.")
    return np.broadcast_to(found, shape).astype(np.uint8)


def _array(path: Path, *wanted: str) -> Any:
    """The only array of a file, or the first of those ``wanted``."""
    names: list[str] = []
    with suppress(zipfile.BadZipFile):  # what is wrong with it, read_array says
        if path.suffix.lower() == ".npz" and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
    chosen = next((name for name in wanted if name in names), None)
    if len(names) > 1 and chosen is None:
        raise InputError(f"holds {', '.join(names)}", path=path, remedy=f"Name one array {wanted[-1]}.")
    return read_array(path, key=chosen)

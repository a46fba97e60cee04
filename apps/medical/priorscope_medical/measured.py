"""Measured X-ray projections: from a laboratory's file to line integrals. For research use only."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.data.arrays import MAX_GIGABYTES
from priorscope.data.files import atomic_path
from priorscope.errors import InputError
from priorscope.inverse.parallel_beam import ParallelBeam
from priorscope.inverse.rays import degrees_to_radians
from priorscope_medical.containers import named, open_arrays
from priorscope_medical.placement import read_placement
from priorscope_medical.volumes import RESEARCH_ONLY

Order = Literal["auto", "sinograms", "projections"]
Values = Literal["auto", "counts", "transmission", "integrals"]


@dataclass(frozen=True)
class Sinogram:
    """Line integrals of attenuation along parallel rays.

    Parameters
    ----------
    data : ndarray of float32 [slices, 1, detectors, views]
        Without unit: minus the logarithm of the transmission.
    angles : ndarray (views,)
        Degrees.
    pitch : float
        Distance of detectors in mm.
    axis_offset : float
        Where the rotation axis falls on the detector, in mm from its middle towards higher detectors.
    slice_spacing : float
        Distance of slices in mm.
    weights : ndarray like `data`, or None
        Transmission, to which the inverse variance is proportional; 0 for rays that were filled or clamped.
    clamped, dead : int
        Rays with too little transmission, and detector elements without a response that were filled from neighbours.
    water_per_mm : float, optional
        Attenuation of water per mm, where the file states it.
    source : Path
    notes : tuple of str
        What had to be assumed while reading.
    place : dict, optional
        Where the slices lie (:mod:`priorscope_medical.placement`), where the file says so.
    """

    data: NDArray[np.float32]
    angles: NDArray[np.float64]
    pitch: float
    axis_offset: float
    slice_spacing: float
    weights: NDArray[np.float32] | None
    clamped: int
    dead: int
    water_per_mm: float | None
    source: Path
    notes: tuple[str, ...] = ()
    place: dict[str, NDArray[Any]] | None = None

    def operator(
        self, size: int | tuple[int, int] | None = None, *, pixel: float | None = None, detectors: int | None = None
    ) -> ParallelBeam:
        """The projector of these rays; by default onto a square as wide as the detector.

        Raises
        ------
        InputError
            ``detectors`` is the number that a geometry has, and the data has another.
        """
        count = self.data.shape[2]
        if detectors is not None and detectors != count:
            raise InputError(f"the sinogram has {count} detectors, the geometry {detectors}", path=self.source)
        pixel = self.pitch if pixel is None else pixel
        if size is None:
            size = max(1, round(count * self.pitch / pixel))
        return ParallelBeam(
            size, self.angles, detectors=count, pixel=pixel, pitch=self.pitch, axis_offset=self.axis_offset
        )

    def relative(self, water_per_mm: float | None = None) -> torch.Tensor:
        """Line integrals of attenuation relative to water, in mm, as the methods want them."""
        water = self.water_per_mm if water_per_mm is None else water_per_mm
        if water is None or not 0 < water < math.inf:
            raise InputError(
                "attenuation relative to water needs that of water",
                path=self.source,
                remedy="Give it per mm at the beam's effective energy (--water-per-mm): about 0.02 at 65 keV.",
            )
        return torch.from_numpy(self.data / np.float32(water))


def read_sinogram(
    path: str | PathLike[str],
    *,
    dataset: str | None = None,
    angles: str | object | None = None,
    white: str | None = None,
    dark: str | None = None,
    order: Order = "auto",
    values: Values = "auto",
    pitch: float | None = None,
    axis_offset: float | None = None,
    slice_spacing: float | None = None,
    rows: tuple[int, int] | None = None,
    floor: float = 1e-4,
    max_gigabytes: float = MAX_GIGABYTES,
) -> Sinogram:
    """Read projections; counts are corrected by the open beam and the dark current, and the logarithm is taken.

    Parameters
    ----------
    path : path-like
        HDF5, ``.npz`` or ``.npy``. Data Exchange is known: exchange/data [views, rows, detectors], exchange/data_white,
        exchange/data_dark, exchange/theta. So is ``sinogram`` [slices, views, detectors] with ``angles`` or ``theta``,
        ``white`` and ``dark``.
    dataset, white, dark : str, optional
        Names of other datasets. The open beam and the dark current may be several exposures; their mean counts.
    angles : str or array of float, optional
        Name of the dataset, or the angles in degrees themselves.
    order : {"auto", "sinograms", "projections"}
        [slices, views, detectors] or [views, rows, detectors]; two dimensions are [views, detectors].
    values : {"auto", "counts", "transmission", "integrals"}
        ``auto``: counts where there is an open beam, else line integrals.
    pitch, axis_offset, slice_spacing : float, optional
        In mm; otherwise the file's attributes pitch_mm, axis_offset_mm, slice_spacing_mm, else 1, 0 and the pitch, with
        a note.
    rows : (int, int), optional
        Only these slices: first, and one after the last. The others are not read.
    floor : float
        Transmissions below are set to it and counted.
    max_gigabytes : float
        More is refused before its memory is taken.

    Raises
    ------
    InputError
        No such file or dataset (those that exist are listed), shapes that do not fit each other, values that are not
        finite, counts without an open beam.

    Warns
    -----
    UserWarning
        Angles that may be radians; clamped rays; line integrals that look like transmissions.
    """
    path = Path(path)
    for name, choice, known in (("order", order, get_args(Order)), ("values", values, get_args(Values))):
        if choice not in known:
            raise InputError(f"{name} {choice!r}", remedy=f"Use one of {', '.join(known)}.")
    if not 0 < floor < 1:
        raise InputError(f"a smallest transmission of {floor}", remedy="Give one between 0 and 1.")
    notes: list[str] = []
    with open_arrays(path, "sinogram", max_gigabytes) as (arrays, attributes):
        name = named(arrays, dataset, ("exchange/data", "sinogram"), path, "projections")
        projections = order == "projections" or (order == "auto" and name == "exchange/data")
        stored = arrays[name]
        degrees = _angles(arrays, angles, attributes, path, notes)
        if stored.dtype.kind not in "iuf":
            raise InputError(f"{name} holds {stored.dtype} values, real numbers were expected", path=path)
        if stored.ndim not in (2, 3):
            raise InputError(f"{name} has shape {list(stored.shape)}, 3 dimensions were expected", path=path)
        views_axis = 0 if projections or stored.ndim == 2 else 1
        if stored.shape[views_axis] != len(degrees):
            raise InputError(
                f"{name} has shape {list(stored.shape)}, so {stored.shape[views_axis]} views; there are {len(degrees)} "
                "angles",
                path=path,
                remedy="Check the order: sinograms have views on the second axis, projections on the first.",
            )
        slices = 1 if stored.ndim == 2 else stored.shape[1 - views_axis]
        first, last = (0, slices) if rows is None else rows
        if not 0 <= first < last <= slices:
            raise InputError(f"slices {first} to {last} of {slices}", path=path)
        part = slice(first, last)
        gigabytes = 8e-9 * stored.size / slices * (last - first)
        if gigabytes > max_gigabytes:
            raise InputError(
                f"would take {gigabytes:.1f} GB of memory; at most {max_gigabytes:g} are accepted",
                path=path,
                remedy="Read some rows at a time.",
            )
        if stored.ndim == 2:
            data = np.asarray(stored[:], np.float32)[None]
        elif projections:
            data = np.asarray(stored[:, part], np.float32).transpose(1, 0, 2)
        else:
            data = np.asarray(stored[part], np.float32)
        beam = _exposure(arrays, white, ("exchange/data_white", "white"), data, part, slices, path)
        current = _exposure(arrays, dark, ("exchange/data_dark", "dark"), data, part, slices, path)
        kind: Values = ("counts" if beam is not None else "integrals") if values == "auto" else values
        if (kind == "counts" and beam is None) or (kind == "integrals" and stored.dtype.kind in "iu"):
            raise InputError(
                f"{name} holds counts ({stored.dtype}), and there is no open beam",
                path=path,
                remedy="Name its dataset, or say that the values are transmissions or line integrals.",
            )
        bad = int((~np.isfinite(data)).sum())
        if bad:
            raise InputError(f"{name} has {bad} values that are not finite", path=path, remedy="Repair them first.")
        about = attributes.get("", {})
    lengths = [
        _length(given, about, attribute, default, path, notes)
        for given, attribute, default in ((pitch, "pitch_mm", 1.0), (axis_offset, "axis_offset_mm", 0.0))
    ]
    between = _length(slice_spacing, about, "slice_spacing_mm", lengths[0], path, notes)
    if not (lengths[0] > 0 and between > 0):
        raise InputError(f"a detector pitch of {lengths[0]} mm, slices {between} mm apart", path=path)
    dead = clamped = 0
    weights: NDArray[np.float32] | None = None
    if kind != "integrals":
        unseen = np.zeros((len(data), data.shape[2]), bool)
        if kind == "counts" and beam is not None:
            offset = np.float32(0) if current is None else current[:, None]
            unseen = (beam - (0 if current is None else current)) <= 0
            with np.errstate(divide="ignore", invalid="ignore"):
                data = (data - offset) / (beam[:, None] - offset)
            dead = _fill(data, unseen, path)
        low = data < floor
        clamped = int(low.sum())
        if clamped:
            warnings.warn(
                f"{path}: {clamped} of {data.size} rays have a transmission below {floor:g} and are set to it",
                stacklevel=2,
            )
        data = data.clip(min=floor)
        weights = np.where(low | unseen[:, None], np.float32(0), data)
        data = -np.log(data)
    else:
        _suspect_transmission(data, path)
    if dead:
        notes.append(f"{dead} detector elements give no response: filled from their neighbours")
    water = about.get("water_per_mm")

    def layout(array: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.ascontiguousarray(array.transpose(0, 2, 1)[:, None], np.float32)

    return Sinogram(
        layout(data),
        degrees,
        lengths[0],
        lengths[1],
        between,
        None if weights is None else layout(weights),
        clamped,
        dead,
        None if water is None else _number(water, "water_per_mm", path),
        path,
        tuple(notes),
        read_placement(about, path),
    )


def write_sinogram(
    path: str | PathLike[str],
    data: NDArray[np.float32],
    angles: object,
    *,
    pitch: float,
    axis_offset: float = 0.0,
    slice_spacing: float = 1.0,
    water_per_mm: float | None = None,
    place: Mapping[str, NDArray[Any]] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write line integrals [slices, 1, detectors, views], without unit, as HDF5 that :func:`read_sinogram` reads.

    ``place`` says where the slices lie (:func:`priorscope_medical.placement.placement`).
    """
    import h5py

    degrees = np.rad2deg(degrees_to_radians(angles))
    if data.ndim != 4 or data.shape[1] != 1 or data.shape[3] != len(degrees):
        raise InputError(f"a sinogram of shape {list(data.shape)} for {len(degrees)} angles")
    with atomic_path(path, overwrite=overwrite) as temporary, h5py.File(temporary, "w") as file:
        file["sinogram"] = np.asarray(data[:, 0].transpose(0, 2, 1), np.float32)
        file["angles"] = degrees
        file["angles"].attrs["units"] = "degree"
        file.attrs.update(pitch_mm=pitch, axis_offset_mm=axis_offset, slice_spacing_mm=slice_spacing)
        file.attrs.update(place or {}, description=RESEARCH_ONLY)
        if water_per_mm is not None:
            file.attrs["water_per_mm"] = water_per_mm
    return Path(path)


def _angles(
    arrays: Mapping[str, Any],
    angles: str | object | None,
    attributes: dict[str, dict[str, Any]],
    path: Path,
    notes: list[str],
) -> NDArray[np.float64]:
    """View angles in degrees, finite and at least one."""
    if angles is None or isinstance(angles, str):
        name = named(arrays, angles, ("exchange/theta", "angles", "theta"), path, "view angles")
        values = np.asarray(arrays[name][:])
        unit = attributes.get(name, {}).get("units", "")
        unit = unit.decode() if isinstance(unit, bytes) else str(unit)
        if unit.lower().startswith("rad"):
            notes.append(f"{name} is in radians, as it says, and was converted")
            values = np.rad2deg(values)
    else:
        values = np.asarray(angles)
    return np.rad2deg(degrees_to_radians(values))


def _exposure(
    arrays: Mapping[str, Any],
    name: str | None,
    usual: tuple[str, ...],
    data: NDArray[np.float32],
    part: slice,
    slices: int,
    path: Path,
) -> NDArray[np.float32] | None:
    """Mean exposure of each detector element [slices, detectors], of the slices that are read; None where absent."""
    if name is None and not any(key in arrays for key in usual):
        return None
    key = named(arrays, name, usual, path, "exposure without the object")
    stored, detectors = arrays[key], data.shape[2]
    if (
        stored.shape[-1:] != (detectors,)
        or stored.ndim > 3
        or (stored.ndim > 1 and stored.shape[-2] not in (1, slices))
    ):
        raise InputError(
            f"{key} has shape {list(stored.shape)}; (exposures, {slices}, {detectors}) were expected", path=path
        )
    values = np.asarray(
        stored[..., part, :] if stored.ndim > 1 and stored.shape[-2] == slices else stored[:], np.float64
    )
    if values.ndim == 3:
        values = values.mean(0)
    if not np.isfinite(values).all():
        raise InputError(f"{key} has values that are not finite", path=path)
    return np.broadcast_to(values, (len(data), detectors)).astype(np.float32)


def _fill(data: NDArray[np.float32], unseen: NDArray[np.bool_], path: Path) -> int:
    """Interpolate dead elements (slices, detectors) along the detector, in place; return how many there are."""
    places = np.arange(data.shape[2])
    for number in np.flatnonzero(unseen.any(1)):
        dead = unseen[number]
        if dead.all():
            raise InputError(
                f"the open beam of slice {number} is nowhere above the dark current",
                path=path,
                remedy="Check which exposure is which.",
            )
        for view in data[number]:
            view[dead] = np.interp(places[dead], places[~dead], view[~dead])
    return int(unseen.sum())


def _length(
    given: float | None, attributes: dict[str, Any], name: str, default: float, path: Path, notes: list[str]
) -> float:
    if given is None and name in attributes:
        given = _number(attributes[name], name, path)
    if given is None:
        notes.append(f"no {name} is given: {default:g}")
        return default
    return _number(given, name, path)


def _number(value: Any, name: str, path: Path) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name} is {value}, a finite number was expected", path=path)
    return number


def _suspect_transmission(data: NDArray[np.float32], path: Path) -> None:
    """Past an object a line integral is near 0, a transmission near 1 and larger than through it."""
    border = max(1, data.shape[2] // 50)
    outside = float(np.median(np.concatenate([data[..., :border], data[..., -border:]], axis=-1)))
    if 0.5 < outside <= 1.2 and float(np.median(data)) < outside and float(np.quantile(data, 0.999)) < 1.5:
        warnings.warn(
            f"{path}: the values are largest, near 1, at the border of the detector: are they transmissions?",
            stacklevel=3,
        )

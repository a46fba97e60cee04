"""Stamps in linear flux: our own layout, one .npz or .h5 file, and its checks.

Keys: ``flux`` (N, B, H, W) float32; ``ids`` (N,) whole numbers or text; ``bands`` (B,) text; ``unit`` text that astropy
reads (``nmgy``, ``Jy``, ``electron``); and where known ``sky_sigma`` (B,) or (N, B) in that unit; ``psf`` (B, h, w) or
(N, B, h, w) with sum 1; ``pixel_scale`` in arcsec; ``counts`` (N, 37), votes in the tree's order; ``labels`` (N,),
places in ``classes``, text. Rows go up as in FITS: [y, x], y = 0 below. A simulated survey's ``stamps.npz`` is such a
file.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.arrays import read_array, write_npz
from priorscope.data.files import atomic_path
from priorscope.errors import InputError
from priorscope_astro.conditions.tree import ANSWERS
from priorscope_astro.conditions.votes import VoteTable
from priorscope_astro.data.galaxies import GalaxySet, HdfRows, Pictures, hdf5_file
from priorscope_astro.data.ids import object_ids

#: Largest side of a stamp, pixels: what is larger is a mosaic.
MAX_SIDE = 1024
_NUMBERS = ("sky_sigma", "psf", "pixel_scale", "counts", "labels")
_UNITS = {"nanomaggy": "nmgy", "nanomaggies": "nmgy", "nMgy": "nmgy"}


@dataclass(frozen=True)
class Stamps:
    """Flux of N galaxies in B bands, and what is known of the survey.

    Attributes
    ----------
    ids : tuple of str
    flux : Pictures
        N arrays (B, H, W), float32, linear.
    bands : tuple of str
    unit : str
        As astropy writes it.
    sky_sigma : ndarray, (B,) or (N, B), or None
        Standard deviation of the sky a pixel, in `unit`.
    psf : ndarray, (B, h, w) or (N, B, h, w), or None
        Point spread function.
    pixel_scale : float or None
        Arcsec a pixel; None where it is not known, and then no world coordinates can be given.
    votes : VoteTable or None
        Volunteers' votes, with raw fractions.
    labels : tuple of str or None
        Class names.
    """

    ids: tuple[str, ...]
    flux: Pictures
    bands: tuple[str, ...]
    unit: str
    sky_sigma: NDArray[np.float32] | None = None
    psf: NDArray[np.float32] | None = None
    pixel_scale: float | None = None
    votes: VoteTable | None = None
    labels: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def stamp(self, index: int) -> NDArray[np.float32]:
        """Flux of one galaxy (B, H, W), checked; see :func:`check_stamp`."""
        flux = np.asarray(self.flux[index], np.float32)
        check_stamp(flux, what=f"object {self.ids[index]}")
        return flux

    @property
    def common_sky(self) -> NDArray[np.float64] | None:
        """``sky_sigma`` of each band (B,), the median over galaxies; None where it is not known."""
        sigma = None if self.sky_sigma is None else np.asarray(self.sky_sigma, np.float64)
        return sigma if sigma is None or sigma.ndim == 1 else np.median(sigma, axis=0)

    @property
    def common_psf(self) -> NDArray[np.float64] | None:
        """``psf`` of each band (B, h, w), the mean over galaxies; None where it is not known."""
        psf = None if self.psf is None else np.asarray(self.psf, np.float64)
        return psf if psf is None or psf.ndim == 3 else psf.mean(0)

    def galaxies(self) -> GalaxySet:
        """The same as :class:`GalaxySet` of mode flux."""
        return GalaxySet(self.ids, self.flux, "flux", votes=self.votes, labels=self.labels)


def flux_unit(text: str, *, path: str | PathLike[str] | None = None) -> str:
    """A unit of linear flux or counts, as astropy writes it; ``nanomaggies`` is ``nmgy``.

    Raises
    ------
    InputError
        No unit, one that astropy does not know, or one that is no flux (magnitudes, metres).
    """
    import astropy.units as u
    from astropy.units import photometric

    if not text.strip():
        raise InputError("the unit of the flux is missing", path=path, remedy="For SDSS nmgy; else Jy, adu, electron.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", u.UnitsWarning)
        try:
            unit = u.Unit(_UNITS.get(text.strip(), text.strip()))
        except (ValueError, TypeError):
            raise InputError(
                f"the unit {text!r} is not known to astropy", path=path, remedy="For SDSS nmgy; else Jy, adu, electron."
            ) from None
    if isinstance(unit, u.function.FunctionUnitBase) or unit == u.mag:
        raise InputError(f"the unit {text!r} is a magnitude", path=path, remedy="Linear flux is needed.")
    one = u.dimensionless_unscaled
    if unit.is_equivalent(one) and unit != one:
        raise InputError(f"the unit {text!r} is a number", path=path, remedy="For SDSS nmgy; else Jy, adu, electron.")
    for right in (photometric.maggy, u.Jy, u.Jy / u.sr, u.ct, u.adu, u.electron, u.photon, one, u.DN):
        if unit.is_equivalent(right) or (unit * u.s).is_equivalent(right):
            return unit.to_string()
    raise InputError(f"the unit {text!r} is no flux", path=path, remedy="For SDSS nmgy; else Jy, adu, electron / s.")


def check_stamp(
    flux: NDArray[Any], *, what: str = "the stamp", max_side: int = MAX_SIDE, generated: bool = False
) -> None:
    """Refuse what is no stamp of a galaxy in linear flux.

    A negative flux is what is measured of a faint source in noise, and what sky subtraction leaves: it is refused only
    where the central half lies further below 0 than noise explains (ten standard deviations of its sum) and than the
    sky of a survey is wrong by (half the noise of a pixel, everywhere). That is sky taken off twice, or magnitudes.

    Parameters
    ----------
    flux : ndarray, (B, H, W) or (H, W)
    what : str
        Named in messages.
    max_side : int
        Pixels.
    generated : bool
        The flux is what a model drew. Then a negative one is kept: it is a result, and no mistake of the user's.

    Raises
    ------
    InputError
        Another number of dimensions, NaN or infinite pixels, a side above `max_side` (a mosaic), or a central flux that
        is negative far beyond the noise.
    """
    if flux.ndim not in (2, 3) or 0 in flux.shape:
        raise InputError(f"{what} has shape {list(flux.shape)}", remedy="A stamp is [bands, y, x] or [y, x].")
    height, width = flux.shape[-2:]
    if max(height, width) > max_side:
        raise InputError(
            f"{what} has {width} x {height} pixels: a mosaic, not a stamp of one galaxy",
            remedy=f"Cut stamps of at most {max_side} pixels around the objects.",
        )
    bad = ~np.isfinite(flux)
    if bad.any():
        raise InputError(f"{what} has {int(bad.sum())} pixels that are NaN or infinite", remedy="Mask or leave it out.")
    for band, plane in enumerate(() if generated else flux.reshape(-1, height, width)):
        border = np.concatenate([plane[0], plane[-1], plane[1:-1, 0], plane[1:-1, -1]]).astype(np.float64)
        noise = 1.4826 * float(np.median(np.abs(border - np.median(border))))
        centre = plane[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None].astype(np.float64)
        if centre.sum() < -noise * max(10 * centre.size**0.5, 0.5 * centre.size) - 1e-12:
            raise InputError(
                f"{what} has a negative flux in band {band} ({centre.sum():.4g} in its central half)",
                remedy="Is too much sky subtracted, or are these magnitudes?",
            )


def write_stamps(
    path: str | PathLike[str],
    *,
    ids: Sequence[str],
    flux: Any,
    bands: Sequence[str],
    unit: str,
    sky_sigma: Any = None,
    psf: Any = None,
    pixel_scale: float | None = None,
    counts: Any = None,
    labels: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write stamps as .npz (in memory, compressed) or .h5 (read one by one); see the module for the keys.

    Raises
    ------
    InputError
        Shapes or unit do not fit, a duplicate id, the file exists, or another suffix.
    """
    path = Path(path)
    flux = np.asarray(flux, np.float32)
    content: dict[str, Any] = {
        "flux": flux,
        "ids": np.array(object_ids(np.asarray(ids))),
        "bands": np.array([str(band) for band in bands]),
        "unit": flux_unit(unit),
    }
    for name, value in (("sky_sigma", sky_sigma), ("psf", psf)):
        if value is not None:
            content[name] = np.asarray(value, np.float32)
    if pixel_scale is not None:
        content["pixel_scale"] = np.float64(pixel_scale)
    if counts is not None:
        content["counts"] = np.asarray(counts, np.int64)
    if labels is not None:
        classes, places = np.unique(np.asarray(labels, str), return_inverse=True)
        content |= {"classes": classes, "labels": places.astype(np.int64)}
    _check_shapes(path, flux.shape, content)
    if path.suffix == ".npz":
        return write_npz(path, content, overwrite=overwrite)
    if path.suffix not in (".h5", ".hdf5"):
        raise InputError("stamps are written as .npz or .h5", path=path)
    import h5py

    with atomic_path(path, overwrite=overwrite) as temporary, h5py.File(temporary, "w") as file:
        for name, value in content.items():
            text = np.asarray(value).dtype.kind == "U"
            file[name] = np.asarray(value).astype(h5py.string_dtype()) if text and np.ndim(value) else value
    return path


def read_stamps(path: str | PathLike[str]) -> Stamps:
    """Read a file of :func:`write_stamps`. Of an .h5 only what is asked for is loaded.

    Raises
    ------
    InputError
        No such file, a key is missing, shapes or unit do not fit, or a duplicate id.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", path=path, remedy="Check the path.")
    content: dict[str, Any] = {}
    flux: Pictures
    if path.suffix == ".npz":
        import zipfile

        try:
            with zipfile.ZipFile(path) as archive:
                keys = {name.removesuffix(".npy") for name in archive.namelist()}
        except zipfile.BadZipFile as error:
            raise InputError(f"is no .npz file that can be read ({error})", path=path) from None
        _check_keys(path, keys)
        for key in _NUMBERS:
            if key in keys:
                content[key] = read_array(path, key=key)
        with np.load(path, allow_pickle=False) as arrays:
            content |= {key: arrays[key] for key in ("ids", "bands", "unit", "classes") if key in keys}
        array = read_array(path, key="flux", ndim=4).astype(np.float32, copy=False)
        flux, shape = array, array.shape
    elif path.suffix in (".h5", ".hdf5"):
        with hdf5_file(path) as file:
            _check_keys(path, set(file))
            content = {key: file[key][()] for key in file if key in (*_NUMBERS, "unit", "ids")}
            content |= {key: file[key].asstr()[()] for key in ("bands", "classes") if key in file}
            shape = file["flux"].shape
        if len(shape) != 4:
            raise InputError(f"flux has shape {list(shape)}", path=path, remedy="It is [N, bands, y, x].")
        flux = HdfRows(path, "flux", shape[0])
    else:
        raise InputError("stamps are read from .npz or .h5", path=path)
    _check_shapes(path, shape, content)
    unit = content["unit"]
    unit = unit.decode() if isinstance(unit, bytes) else str(unit)
    scale = content.get("pixel_scale")
    return Stamps(
        object_ids(content["ids"], path=path),
        flux,
        tuple(str(band) for band in content["bands"]),
        flux_unit(unit, path=path),
        content.get("sky_sigma"),
        content.get("psf"),
        None if scale is None else float(scale),
        None if "counts" not in content else VoteTable.from_counts(content["counts"], path=path),
        _labels(content, path),
    )


def _labels(content: dict[str, Any], path: Path) -> tuple[str, ...] | None:
    if "labels" not in content or "classes" not in content:
        return None
    places, classes = np.asarray(content["labels"]), [str(name) for name in content["classes"]]
    if places.dtype.kind not in "iu" or (places < 0).any() or (places >= len(classes)).any():
        raise InputError(f"labels are not places in the {len(classes)} classes", path=path)
    return tuple(classes[place] for place in places)


def _check_keys(path: Path, keys: set[str]) -> None:
    missing = [key for key in ("flux", "ids", "bands", "unit") if key not in keys]
    if missing:
        raise InputError(
            f"has no {', '.join(missing)}; it holds {', '.join(sorted(keys))[:100]}",
            path=path,
            remedy="Stamps have flux [N, bands, y, x], ids, bands and unit; write_stamps makes such a file.",
        )


def _check_shapes(path: Path, shape: tuple[int, ...], content: dict[str, Any]) -> None:
    if len(shape) != 4 or 0 in shape:
        raise InputError(f"flux has shape {list(shape)}", path=path, remedy="It is [N, bands, y, x].")
    count, bands, height, width = shape
    if max(height, width) > MAX_SIDE:
        raise InputError(
            f"flux has {width} x {height} pixels an object: a mosaic, not stamps",
            path=path,
            remedy=f"Cut stamps of at most {MAX_SIDE} pixels around the objects.",
        )
    allowed: dict[str, list[tuple[int, ...]]] = {
        "ids": [(count,)],
        "labels": [(count,)],
        "counts": [(count, len(ANSWERS))],
        "bands": [(bands,)],
        "sky_sigma": [(bands,), (count, bands)],
        "pixel_scale": [()],
    }
    for name, shapes in allowed.items():
        if name in content and np.shape(content[name]) not in shapes:
            raise InputError(f"{name} has shape {list(np.shape(content[name]))}, flux {list(shape)}", path=path)
    psf = content.get("psf")
    if psf is not None and (np.ndim(psf) not in (3, 4) or np.shape(psf)[:-2] not in ((bands,), (count, bands))):
        raise InputError(f"psf has shape {list(np.shape(psf))}, flux {list(shape)}", path=path)
    if psf is not None and not (np.isfinite(psf).all() and (np.sum(psf, (-2, -1)) > 0).all()):
        raise InputError("psf has values that are not finite, or nothing in it", path=path, remedy="Its sum is 1.")
    sigma = np.asarray(content.get("sky_sigma", 0.0))
    if not (np.isfinite(sigma).all() and (sigma >= 0).all()):
        raise InputError(
            "sky_sigma is not 0 or above", path=path, remedy="It is a standard deviation; or leave it out."
        )
    scale = content.get("pixel_scale")
    if scale is not None and not (np.isfinite(scale) and float(scale) > 0):
        raise InputError(f"pixel_scale is {scale}", path=path, remedy="It is positive, in arcsec; or leave it out.")

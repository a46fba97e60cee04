"""Stamps as FITS files, one an object: an image HDU a band, or a cube; units and PSF as the headers say.

The name of a file, without suffix, is the object's id. Bands are named by EXTNAME, or by the keyword FILTER or BAND of
a single image, or of a cube by BAND1, BAND2, ... or BANDS ("g,r,i"). HDUs called PSF, MASK, WEIGHT, VARIANCE, ... are
not bands.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_astro.data.ids import object_ids
from priorscope_astro.data.stamps import MAX_SIDE, Stamps, flux_unit

_NO_BANDS = ("PSF", "MASK", "WEIGHT", "VAR", "VARIANCE", "IVAR", "INVVAR", "ERR", "ERROR", "SIGMA")
_NO_BANDS += ("SEG", "SEGMENTATION", "DQ", "SKY")
_SUFFIXES = (".fits", ".fit", ".fits.gz")


@dataclass(frozen=True)
class FitsPictures:
    """Flux of FITS files, read one by one: float32 (B, H, W)."""

    files: tuple[Path, ...]
    bands: tuple[str, ...]
    unit: str

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        stamp = _read(self.files[index], self.unit)
        if stamp.bands != self.bands:
            raise InputError(f"has the bands {', '.join(stamp.bands)}", path=self.files[index])
        return stamp.flux


@dataclass(frozen=True)
class _File:
    flux: NDArray[np.float32]
    bands: tuple[str, ...]
    unit: str
    psf: NDArray[np.float32] | None
    pixel_scale: float | None


def read_fits_stamps(path: str | PathLike[str], *, unit: str = "") -> Stamps:
    """Read a folder of FITS stamps, or one file.

    Parameters
    ----------
    path : path-like
        With sub-folders. Every file is opened once, for its header and PSF; flux is read when it is asked for.
    unit : str
        Of files without BUNIT.

    Returns
    -------
    Stamps
        ``psf`` (N, B, h, w) where every file has one of equal shape; ``pixel_scale`` where all have the same WCS scale.

    Raises
    ------
    InputError
        No FITS file, none that can be read, a mosaic, no unit, or files whose bands or units differ.
    """
    path = Path(path)
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.name.lower().endswith(_SUFFIXES))
    else:
        raise InputError("no such file or folder", path=path, remedy="Check the path.")
    if not files:
        raise InputError("holds no FITS file", path=path, remedy=f"Looked for {' '.join(_SUFFIXES)}.")
    names = [file.name.removesuffix(".gz").rsplit(".", 1)[0] for file in files]
    ids = object_ids(np.array(names), path=path, column="file name")
    first: _File | None = None
    psfs: list[NDArray[np.float32] | None] = []
    scales: list[float | None] = []
    for file in files:
        stamp = _read(file, unit)
        first = stamp if first is None else first
        for what in ("bands", "unit"):
            if getattr(stamp, what) != getattr(first, what):
                raise InputError(
                    f"has the {what} {getattr(stamp, what)}, the first file {getattr(first, what)}",
                    path=file,
                    remedy="Stamps of one set agree in bands and units.",
                )
        psfs.append(stamp.psf)
        scales.append(stamp.pixel_scale)
    assert first is not None
    kernels = [psf for psf in psfs if psf is not None]
    same = len(kernels) == len(files) and len({psf.shape for psf in kernels}) == 1
    known = [scale for scale in scales if scale is not None]
    scale = known[0] if len(known) == len(files) and np.allclose(known, known[0], rtol=1e-4) else None
    return Stamps(
        ids,
        FitsPictures(tuple(files), first.bands, first.unit),
        first.bands,
        first.unit,
        psf=np.stack(kernels) if same else None,
        pixel_scale=scale,
    )


def _read(path: Path, unit: str = "") -> _File:
    from astropy.io import fits

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, memmap=False) as hdus:
                return _parsed(hdus, path, unit)
    except InputError:
        raise
    except Exception as error:  # astropy raises OSError, TypeError, ValueError and more on broken files
        raise InputError(
            f"cannot be read as FITS ({' '.join(str(error).split())[:120]})", path=path, remedy="Is it whole?"
        ) from error


def _parsed(hdus: Any, path: Path, unit: str) -> _File:
    planes: list[NDArray[np.float32]] = []
    bands: list[str] = []
    units: list[str] = []
    psfs: list[NDArray[np.float32]] = []
    scale = None
    for hdu in hdus:
        if not hdu.is_image or hdu.header.get("NAXIS", 0) < 2:
            continue
        if max(hdu.shape[-2:]) > MAX_SIDE:
            raise InputError(
                f"has {hdu.shape[-1]} x {hdu.shape[-2]} pixels: a mosaic, not a stamp of one galaxy",
                path=path,
                remedy=f"Cut stamps of at most {MAX_SIDE} pixels around the objects.",
            )
        name = str(hdu.header.get("EXTNAME", "")).strip()
        if any(name.upper() == word or name.upper().startswith(f"{word}_") for word in _NO_BANDS):
            if name.upper().startswith("PSF"):
                psfs.append(np.asarray(hdu.data, np.float32))
            continue
        if hdu.data.ndim not in (2, 3):
            raise InputError(f"HDU {name or 'PRIMARY'} has {hdu.data.ndim} dimensions", path=path)
        data = np.asarray(hdu.data, np.float32)
        planes += list(data.reshape(-1, *data.shape[-2:]))
        bands += _bands(hdu.header, name, 1 if data.ndim == 2 else len(data))
        units.append(str(hdu.header.get("BUNIT", "")).strip() or unit)
        scale = scale or _pixel_scale(hdu.header)
    if not planes:
        raise InputError("holds no image", path=path, remedy="A stamp has an image HDU a band, or a cube.")
    if len({plane.shape for plane in planes}) > 1:
        raise InputError("its bands have different sizes", path=path)
    if len(set(units)) > 1:
        raise InputError(f"its bands have the units {', '.join(sorted(set(units)))}", path=path)
    if len(set(bands)) != len(bands):
        raise InputError(f"has the bands {', '.join(bands)}", path=path, remedy="Name each once (EXTNAME).")
    psf = None
    if psfs:
        stacked = np.concatenate([kernel.reshape(-1, *kernel.shape[-2:]) for kernel in psfs])
        psf = np.repeat(stacked, len(planes), 0) if len(stacked) == 1 else stacked
        if len(psf) != len(planes):
            raise InputError(f"has {len(psf)} PSFs and {len(planes)} bands", path=path)
    return _File(np.stack(planes), tuple(bands), flux_unit(units[0], path=path), psf, scale)


def _bands(header: Any, name: str, count: int) -> list[str]:
    if count == 1:
        return [str(header.get("BAND") or header.get("FILTER") or name or "image").strip().lower()]
    listed = [part.strip().lower() for part in str(header.get("BANDS", "")).split(",") if part.strip()]
    if len(listed) != count:
        listed = [str(header.get(f"BAND{place + 1}", f"band{place + 1}")).strip().lower() for place in range(count)]
    return listed


def _pixel_scale(header: Any) -> float | None:
    """Arcsec a pixel of a celestial WCS; None without one."""
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_scales

    wcs = WCS(header).celestial
    if wcs.naxis != 2 or not wcs.has_celestial:
        return None
    return float(np.mean(proj_plane_pixel_scales(wcs))) * 3600

"""Stamps as FITS files, one an object, as :func:`priorscope_astro.imaging.fits.read_stamp_fits` reads each."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_astro.data.ids import object_ids
from priorscope_astro.data.stamps import Stamps, flux_unit
from priorscope_astro.imaging.fits import StampFile, read_stamp_fits

_SUFFIXES = (".fits", ".fit", ".fits.gz")


@dataclass(frozen=True)
class FitsPictures:
    """Flux of FITS files, read one by one: float32 (B, H, W)."""

    files: tuple[Path, ...]
    bands: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        stamp = read_stamp_fits(self.files[index], calibrated=False)
        if stamp.bands != self.bands:
            raise InputError(f"has the bands {', '.join(stamp.bands)}", path=self.files[index])
        return np.asarray(stamp.flux, np.float32)


def read_fits_stamps(path: str | PathLike[str], *, unit: str = "") -> Stamps:
    """Read a folder of FITS stamps, or one file; a file's name, without suffix, is the object's id.

    Parameters
    ----------
    path : path-like
        With sub-folders. Every file is opened once at the start; flux is read again when it is asked for.
    unit : str
        Of files without BUNIT.

    Returns
    -------
    Stamps
        ``psf`` (N, B, h, w) and ``sky_sigma`` (N, B) where every file has them; ``pixel_scale`` where all say the same.

    Raises
    ------
    InputError
        No FITS file, none that can be read, a mosaic, NaN pixels, no unit, PSFs that do not fit, or files whose bands
        or units differ.
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
    bands: tuple[str, ...] = ()
    common = ""
    psfs: list[NDArray[np.float32]] = []
    sigmas: list[tuple[float, ...]] = []
    scales: list[float] = []
    for file in files:
        stamp = read_stamp_fits(file, calibrated=False)
        measured = flux_unit(stamp.unit or unit, path=file)
        if file == files[0]:
            bands, common = stamp.bands, measured
        refuse_other((stamp.bands, measured), (bands, common), path=file)
        psfs += [] if stamp.psf is None else [_per_band(stamp.psf, len(bands), file)]
        sigmas += [] if stamp.sky_sigma is None else [stamp.sky_sigma]
        scale = _scale(stamp)
        scales += [] if scale is None else [scale]
    count = len(files)
    return Stamps(
        ids,
        FitsPictures(tuple(files), bands),
        bands,
        common,
        np.array(sigmas, np.float32) if len(sigmas) == count else None,
        np.stack(psfs) if len(psfs) == count and len({psf.shape for psf in psfs}) == 1 else None,
        scales[0] if len(scales) == count and np.allclose(scales, scales[0], rtol=1e-4) else None,
    )


def refuse_other(
    found: tuple[tuple[str, ...], str], first: tuple[tuple[str, ...], str], *, path: str | PathLike[str]
) -> None:
    """Raise where a stamp's bands and unit are not those of the first of its set."""
    if found != first:
        raise InputError(
            f"has {', '.join(found[0])} in {found[1]}, the first file {', '.join(first[0])} in {first[1]}",
            path=path,
            remedy="Stamps of one set agree in bands and units.",
        )


def _per_band(psf: NDArray[np.floating], bands: int, path: Path) -> NDArray[np.float32]:
    kernels = np.asarray(psf, np.float32).reshape(-1, *psf.shape[-2:])
    if len(kernels) not in (1, bands):
        raise InputError(f"has {len(kernels)} point spread functions for {bands} bands", path=path, remedy="Give each.")
    return np.repeat(kernels, bands, 0) if len(kernels) == 1 else kernels


def _scale(stamp: StampFile) -> float | None:
    """Arcsec a pixel, as the file says it or as its world coordinates do; None without either."""
    if stamp.pixel_scale is not None or stamp.wcs is None:
        return stamp.pixel_scale
    from astropy.wcs.utils import proj_plane_pixel_scales

    return float(np.mean(proj_plane_pixel_scales(stamp.wcs))) * 3600

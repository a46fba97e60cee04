"""Stamps as FITS: flux with its unit, a band an HDU or all in a cube, the PSF, and where an image comes from.

A file that :func:`write_stamp_fits` makes says ``SYNTH`` in its first header: T for a generated galaxy, F for a real
one. Every HDU has CHECKSUM and DATASUM.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.data.files import atomic_path
from priorscope.errors import InputError
from priorscope_astro.data.stamps import check_stamp, flux_unit


@dataclass(frozen=True)
class Provenance:
    """Where a generated image comes from.

    Parameters
    ----------
    model, model_sha : str
        Name, and hash of its files (:func:`priorscope_astro.model_files.digest_of`).
    seed : int
    sampler : str
    steps : int
        Of the sampler.
    guidance : float
        Classifier-free guidance scale, 1 for none.
    prompt : str
        Or the condition in words. Any length; characters that FITS does not know are escaped.
    reference : str
        Id of the galaxy an image-to-image draw began from; empty for none.
    history : tuple of str
        What was done, in order.
    """

    model: str
    model_sha: str
    seed: int
    sampler: str
    steps: int
    guidance: float
    prompt: str
    reference: str = ""
    history: tuple[str, ...] = ()


#: HDUs that belong to an image and are none: the PSF, and what surveys add (flags, variances, weights).
_BESIDE = ("PSF", "MASK", "VARIANCE", "VAR", "IVAR", "INVVAR", "WEIGHT", "DQ")
_KEYWORDS = {
    "model": ("MODEL", "model that made this image"),
    "model_sha": ("MODELSHA", "hash of its files"),
    "seed": ("SEED", "of the noise"),
    "sampler": ("SAMPLER", "solver"),
    "steps": ("NSTEPS", "of the solver"),
    "guidance": ("CFG", "classifier-free guidance scale"),
    "prompt": ("PROMPT", ""),
    "reference": ("REFID", ""),
}


#: Characters of HISTORY in a card; what a card begins with that continues the one before: no escaped text does.
_CARD, _GOES_ON = 72, "\\&"


@dataclass(frozen=True)
class StampFile:
    """What a FITS stamp holds.

    Attributes
    ----------
    flux : array (bands, H, W)
        Rows go up.
    bands : tuple of str
    unit : str
        As astropy writes it; empty where the file has none.
    psf : array (bands, h, w) or None
    wcs : astropy.wcs.WCS or None
    pixel_scale : float or None
        Arcsec a pixel.
    sky_sigma : tuple of float or None
        A band, in ``unit``.
    provenance : Provenance or None
        None for a real galaxy.
    """

    flux: NDArray[Any]
    bands: tuple[str, ...]
    unit: str
    psf: NDArray[Any] | None = None
    wcs: Any = None
    pixel_scale: float | None = None
    sky_sigma: tuple[float, ...] | None = None
    provenance: Provenance | None = None


def write_stamp_fits(
    path: str | PathLike[str],
    flux: ArrayLike,
    *,
    bands: Sequence[str],
    unit: str,
    provenance: Provenance | None = None,
    psf: ArrayLike | None = None,
    wcs: Any = None,
    pixel_scale: float | None = None,
    sky_sigma: Sequence[float] | None = None,
    cube: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a stamp in calibrated flux.

    Parameters
    ----------
    path : path-like
    flux : array (bands, H, W)
        Linear, rows upwards; float32 and float64 stay what they are.
    bands : sequence of str
        Their names, all different.
    unit : str
        Of the flux; goes to BUNIT.
    provenance : Provenance, optional
        For a generated image; without it the file says SYNTH = F.
    psf : array (bands, h, w), optional
        An HDU named PSF.
    wcs : astropy.wcs.WCS, optional
        Two-dimensional, where position and scale are known (:func:`.wcs.stamp_wcs`).
    pixel_scale : float, optional
        Arcsec a pixel, where known; PIXSCALE.
    sky_sigma : sequence of float, optional
        Standard deviation of the sky a band, in ``unit``; SKYSIGMA.
    cube : bool
        All bands in the first HDU with BAND1, BAND2, ..., rather than an HDU a band, named after it.
    overwrite : bool

    Returns
    -------
    Path

    Raises
    ------
    InputError
        A unit that is missing or no flux, NaN pixels, a mosaic, bands that do not fit, a file that exists; without
        ``provenance``, of real galaxies, also negative flux (:func:`priorscope_astro.data.stamps.check_stamp`).
    """
    from astropy.io import fits

    stack = np.asarray(flux)
    if stack.ndim != 3 or len(stack) != len(bands) or len({band.upper() for band in bands}) != len(bands):
        raise InputError(f"flux of shape {stack.shape} for the bands {list(bands)}", path=path, remedy="Name each.")
    if any(not band.strip() or not band.isascii() or band.upper() in (*_BESIDE, "PRIMARY") for band in bands):
        raise InputError(f"bands named {list(bands)}", path=path, remedy="Use names such as g, r, i.")
    if stack.dtype not in (np.float32, np.float64):
        stack = stack.astype(np.float32)
    check_stamp(stack, what=str(path), generated=provenance is not None)
    unit = flux_unit(unit, path=path)
    for name, values in (("sky_sigma", sky_sigma), ("psf", psf)):
        if values is not None and len(np.asarray(values)) != len(bands):
            raise InputError(f"{len(np.asarray(values))} of {name} for {len(bands)} bands", path=path)

    first = fits.PrimaryHDU(stack if cube else None)
    first.header["NBANDS"] = (len(bands), "bands of flux in this file")
    first.header["SYNTH"] = (provenance is not None, "generated by a model, not observed")
    if provenance is not None:
        for name, (keyword, comment) in _KEYWORDS.items():
            value = getattr(provenance, name)
            value = _escaped(value) if isinstance(value, str) else value
            # a comment has no room beside a long text, in which a quote takes two places
            room = len(str(value).replace("'", "''")) + len(comment) <= 60
            first.header[keyword] = (value, comment) if room else value
        for line in provenance.history:
            for card in _cards(_escaped(line)):
                first.header.add_history(card)
    planes = [first] if cube else [fits.ImageHDU(plane, name=band) for plane, band in zip(stack, bands, strict=True)]
    for number, plane in enumerate(planes):
        header = plane.header
        header["BUNIT"] = unit
        if pixel_scale is not None:
            header["PIXSCALE"] = (float(pixel_scale), "arcsec a pixel")
        if wcs is not None:
            header.update(_coordinates(wcs, path))
        for place in range(len(bands)) if cube else [number]:
            suffix = str(place + 1) if cube else ""
            header[f"BAND{suffix}"] = bands[place]
            if sky_sigma is not None:
                header[f"SKYSIG{suffix}"] = (float(sky_sigma[place]), f"of the sky a pixel, {unit}"[:40])
    units = [first] if cube else [first, *planes]
    if psf is not None:
        units.append(fits.ImageHDU(np.asarray(psf, dtype=np.float64), name="PSF"))
    with atomic_path(path, overwrite=overwrite) as temporary:
        fits.HDUList(units).writeto(temporary, checksum=True, overwrite=True)
    return Path(path)


def read_stamp_fits(path: str | PathLike[str], *, calibrated: bool = True) -> StampFile:
    """Read a stamp: a file of :func:`write_stamp_fits`, or any FITS file whose image HDUs are bands of one size.

    HDUs named MASK, VARIANCE, IVAR, WEIGHT or DQ, as surveys write them, are no bands and are passed over.

    Parameters
    ----------
    path : path-like
    calibrated : bool
        The unit is needed: refuse a file without BUNIT, or whose BUNIT is no linear flux.

    Raises
    ------
    InputError
        No FITS file, a truncated one, a checksum that does not fit, no image, bands of different size or unit, NaN
        pixels, a mosaic; with ``calibrated`` a BUNIT that is missing or wrong.
    """
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyUserWarning

    path = Path(path)
    if not path.is_file():
        raise InputError("there is no such file", path=path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", AstropyUserWarning)
        try:
            with fits.open(path, checksum=True, memmap=False) as units:
                found = _stamp(units, path, calibrated=calibrated)
        except InputError:
            raise
        except (OSError, ValueError, TypeError, KeyError, EOFError, fits.VerifyError) as error:
            raise InputError(f"is no FITS file that can be read: {error}", path=path) from error
    for warning in told:
        words = str(warning.message)
        if "hecksum" in words or "atasum" in words or "truncated" in words.lower():
            raise InputError(f"is damaged: {words}", path=path, remedy="Write or fetch it again.")
    return found


def _stamp(units: Any, path: Path, *, calibrated: bool) -> StampFile:
    images = [unit for unit in units if unit.is_image and unit.data is not None and unit.name not in _BESIDE]
    if not images:
        raise InputError("has no image", path=path)
    first = images[0].header
    if images[0].data.ndim == 3:
        if len(images) > 1:
            raise InputError("has a cube and further images", path=path, remedy="Give one of them.")
        flux = images[0].data
        headers = [first] * len(flux)
        bands = tuple(str(first.get(f"BAND{number + 1}", number + 1)) for number in range(len(flux)))
        sigma = [first.get(f"SKYSIG{number + 1}") for number in range(len(flux))]
    else:
        shapes = {unit.data.shape for unit in images}
        if len(shapes) > 1 or images[0].data.ndim != 2:
            raise InputError(f"has images of the shapes {sorted(shapes)}", path=path, remedy="Bands have one size.")
        flux = np.stack([unit.data for unit in images])
        headers = [unit.header for unit in images]
        bands = tuple(str(unit.header.get("BAND") or unit.header.get("FILTER") or unit.name.lower()) for unit in images)
        sigma = [unit.header.get("SKYSIG") for unit in images]
    expected = units[0].header.get("NBANDS", len(flux))
    if len(flux) != expected:
        raise InputError(f"is damaged: {len(flux)} of {expected} bands", path=path, remedy="Write or fetch it again.")
    flux = flux.astype(flux.dtype.newbyteorder("=") if flux.dtype.kind == "f" else np.float32)
    check_stamp(flux, what=str(path), generated=units[0].header.get("SYNTH") is True)
    texts = {str(header.get("BUNIT", "")).strip() for header in headers}
    if len(texts) > 1:
        raise InputError(f"has bands in the units {sorted(texts)}", path=path, remedy="Write all bands in one unit.")
    text = texts.pop()
    if calibrated and not text:
        raise InputError(
            "has no BUNIT: its flux is not calibrated", path=path, remedy="Add BUNIT, or read it as uncalibrated."
        )
    unit = flux_unit(text, path=path) if calibrated else text
    scale = first.get("PIXSCALE")
    if scale is not None and not 0 < float(scale) < np.inf:
        raise InputError(f"its PIXSCALE is {scale}", path=path, remedy="It is above 0, in arcsec; or leave it out.")
    return StampFile(
        flux,
        bands,
        unit,
        _psf(units["PSF"], path) if "PSF" in units else None,
        _celestial(first),
        None if scale is None else float(scale),
        tuple(float(one) for one in sigma) if all(one is not None for one in sigma) else None,
        _provenance(units[0].header),
    )


def _psf(unit: Any, path: Path) -> NDArray[np.float64]:
    if not unit.is_image or np.ndim(unit.data) not in (2, 3) or not np.isfinite(unit.data).all():
        raise InputError(
            "its HDU PSF is no image of finite values", path=path, remedy="It is [y, x] or [bands, y, x]; or drop it."
        )
    return np.asarray(unit.data, np.float64)


def _coordinates(wcs: Any, path: str | PathLike[str]) -> Any:
    if wcs.naxis != 2 or not wcs.has_celestial:
        raise InputError("its world coordinates are not two on the sky", path=path, remedy="Give wcs.celestial.")
    header = wcs.to_header(relax=True)
    for name in ("DATE-OBS", "MJD-OBS", "DATEREF", "MJDREF"):  # astropy's defaults, of no observation
        header.remove(name, ignore_missing=True)
    return header


def _celestial(header: Any) -> Any:
    from astropy.wcs import WCS, FITSFixedWarning

    if not str(header.get("CTYPE1", "")).strip():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(header)
    return wcs.celestial if wcs.has_celestial else None


def _provenance(header: Any) -> Provenance | None:
    if header.get("SYNTH") is not True:  # text, such as 'F', is no word of ours
        return None
    kinds = {field.name: field.type for field in fields(Provenance)}
    values: dict[str, Any] = {}
    for name, (keyword, _) in _KEYWORDS.items():
        value = header.get(keyword, "")
        values[name] = _unescaped(str(value)) if kinds[name] == "str" else value
    history: list[str] = []
    for card in map(str, header.get("HISTORY", ())):
        if card.startswith(_GOES_ON) and history:
            history[-1] += card.removeprefix(_GOES_ON)
        else:
            history.append(card)
    return Provenance(**values, history=tuple(map(_unescaped, history)))


def _cards(text: str) -> list[str]:
    """A line of history in pieces that a card has room for; none ends in a blank, which FITS does not keep."""
    cards = []
    while len(text) > _CARD:
        piece = text[:_CARD].rstrip()
        piece = piece if len(piece) > len(_GOES_ON) else text[:_CARD]  # nothing but blanks
        cards.append(piece)
        text = _GOES_ON + text[len(piece) :]
    return [*cards, text]


def _escaped(text: str) -> str:
    """Printable ASCII, as FITS wants it; ordinary text stays what it is."""
    return text.encode("unicode_escape").decode("ascii")


def _unescaped(text: str) -> str:
    return text.encode("ascii", "replace").decode("unicode_escape")

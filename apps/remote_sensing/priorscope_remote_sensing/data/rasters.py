"""GeoTIFFs and other rasters: opened with clear errors, read in windows with their missing pixels, written."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import atomic_path, refuse_overwrite
from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import SENTINEL2, same_band

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img")
RESAMPLINGS = ("nearest", "bilinear", "cubic")


def _rasterio() -> Any:
    try:
        import rasterio
        import rasterio.errors
        import rasterio.vrt
        import rasterio.warp
    except ImportError as error:
        raise InputError("reading rasters needs rasterio", remedy="pip install 'priorscope[remote-sensing]'") from error
    return rasterio


@contextmanager
def open_raster(
    path: str | PathLike[str],
    *,
    crs: str | None = None,
    like: DatasetReader | None = None,
    resampling: str = "bilinear",
) -> Iterator[DatasetReader]:
    """Open a raster for reading, if asked for as it looks in another projection or on another raster's grid.

    Parameters
    ----------
    path : path-like
    crs : str, optional
        A coordinate reference system ("EPSG:32633"); a raster in another one is reprojected as it is read.
    like : rasterio dataset, optional
        The grid (CRS, transform, size) to read on.
    resampling : {"bilinear", "nearest", "cubic"}
        Of the reprojection; labels need "nearest".

    Yields
    ------
    rasterio dataset

    Raises
    ------
    InputError
        Missing, not a raster, complex-valued, without a CRS although one is asked for, or with a last band that its
        name calls data and its mark transparency.
    """
    rasterio = _rasterio()
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", path=path, remedy="Check the path.")
    with ExitStack() as stack:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                dataset = stack.enter_context(rasterio.open(path))
        except rasterio.errors.RasterioIOError as error:
            raise InputError(f"is not a raster that can be read ({_one_line(error)})", path=path) from error
        if not dataset.count:
            raise InputError("holds no bands", path=path, remedy="Extract one of its sub-datasets: gdal_translate.")
        if any("complex" in kind for kind in dataset.dtypes):
            raise InputError(f"holds {dataset.dtypes[0]} values, real numbers are expected", path=path)
        _refuse_doubtful_alpha(dataset, path)
        yield _warped(dataset, path, crs, like, resampling, stack)


def _warped(dataset: Any, path: Path, crs: str | None, like: Any, resampling: str, stack: ExitStack) -> DatasetReader:
    rasterio = _rasterio()
    if resampling not in RESAMPLINGS:
        raise InputError(f"resampling is {resampling!r}", remedy=f"One of {', '.join(RESAMPLINGS)}.")
    wanted = like.crs if like is not None else None if crs is None else parse_crs(crs)
    same_grid = like is None or _same_grid(dataset, like)
    if same_grid and (wanted is None or wanted == dataset.crs or (dataset.crs is None and like is not None)):
        return dataset
    if dataset.crs is None or wanted is None:
        raise InputError(
            "one of the rasters says no coordinate reference system, so it cannot be laid over the other",
            path=path,
            remedy="Write it into the file: rio edit-info --crs EPSG:CODE.",
        )
    grid = {} if like is None else {"transform": like.transform, "width": like.width, "height": like.height}
    # what lies beyond the raster must read as missing, also where the raster itself declares no such value
    alpha = {"add_alpha": True} if dataset.nodata is None and data_bands(dataset) == dataset.count else {}
    options = {"crs": wanted, "resampling": rasterio.warp.Resampling[resampling], **grid, **alpha}
    return stack.enter_context(rasterio.vrt.WarpedVRT(dataset, **options))


def _refuse_doubtful_alpha(dataset: DatasetReader, path: Path) -> None:
    """Near infrared written as the fourth band of an 8-bit file gets the mark by default, and would act as a mask."""
    name = (dataset.descriptions[-1] or "").strip()
    known = (*SENTINEL2, "nir", "red edge", "swir")
    if data_bands(dataset) < dataset.count and not name.isdigit() and any(same_band(name, other) for other in known):
        kinds = ",".join(["undefined" if kind.name == "alpha" else kind.name for kind in dataset.colorinterp])
        raise InputError(
            f"marks its last band, {name}, as transparency",
            path=path,
            remedy=f"Mend the mark: rio edit-info --colorinterp {kinds} FILE.",
        )


def _same_grid(first: DatasetReader, second: DatasetReader) -> bool:
    """Whether the pixels of both lie on each other, to a hundredth of a pixel."""
    if first.shape != second.shape:
        return False
    here, there = (window_corners(dataset, (0, 0, *dataset.shape)) for dataset in (first, second))
    a = second.transform
    return bool(np.abs(here - there).max() < 0.01 * min(np.hypot(a.a, a.d), np.hypot(a.b, a.e)))


def source_path(dataset: DatasetReader) -> Path:
    """The file that an open raster reads from, also where it is seen in another projection."""
    return Path(getattr(dataset, "src_dataset", dataset).name)


def window_corners(dataset: DatasetReader, window: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """Map coordinates [4, 2] of the corners of (top, left, height, width), clockwise from the first pixel's."""
    top, left, height, width = window
    column = np.array([left, left + width, left + width, left])
    row = np.array([top, top, top + height, top + height])
    a = dataset.transform
    return np.column_stack([a.c + a.a * column + a.b * row, a.f + a.d * column + a.e * row])


def parse_crs(text: str) -> Any:
    """A coordinate reference system from "EPSG:32633", WKT or PROJ text."""
    rasterio = _rasterio()
    try:
        return rasterio.crs.CRS.from_user_input(text)
    except (rasterio.errors.CRSError, ValueError) as error:
        raise InputError(f"{text!r} is not a coordinate reference system", remedy="Write EPSG:32633.") from error


def band_names(dataset: DatasetReader) -> list[str] | None:
    """Names of the bands: their descriptions, else colours where the file marks all of its bands so, else None."""
    count = data_bands(dataset)
    named = [text or "" for text in dataset.descriptions[:count]]
    if all(named):
        return named
    colours = [colour.name for colour in dataset.colorinterp[:count]]
    return colours if set(colours) >= {"red", "green", "blue"} and len(set(colours)) == len(colours) else None


def data_bands(dataset: DatasetReader) -> int:
    """How many bands hold data: a last band marked as alpha is none."""
    return dataset.count - int(dataset.count > 1 and dataset.colorinterp[-1].name == "alpha")


def read_bands(
    dataset: DatasetReader, indices: Sequence[int] | None = None, window: tuple[int, int, int, int] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read a part of a raster and which of its pixels are there.

    Parameters
    ----------
    dataset : rasterio dataset
    indices : sequence of int, optional
        0-based bands; all by default, without an alpha band.
    window : (top, left, height, width), optional
        Pixels; must lie inside.

    Returns
    -------
    values : ndarray of float32, [C, h, w]
        As stored; 0 where the pixel is missing.
    valid : ndarray of bool, [h, w]
        False where any of the bands is nodata, masked, transparent or not finite.

    Raises
    ------
    InputError
        The window leaves the raster, or the file is cut short.
    """
    rasterio = _rasterio()
    bands = [index + 1 for index in (range(data_bands(dataset)) if indices is None else indices)]
    top, left, height, width = window or (0, 0, dataset.height, dataset.width)
    if min(top, left) < 0 or height < 1 or width < 1 or top + height > dataset.height or left + width > dataset.width:
        raise InputError(
            f"window {window} leaves the raster of {dataset.height} x {dataset.width}", path=source_path(dataset)
        )
    place = rasterio.windows.Window(left, top, width, height)
    try:
        values = dataset.read(bands, window=place).astype(np.float32)
        there = (dataset.read_masks(bands, window=place) > 0).all(axis=0)
        if data_bands(dataset) < dataset.count:  # the masks of a reprojected raster do not know its alpha band
            there &= dataset.read(dataset.count, window=place) > 0
    except rasterio.errors.RasterioIOError as error:
        raise InputError(
            f"cannot be read in window {(top, left, height, width)} ({_one_line(error)})",
            path=source_path(dataset),
            remedy="Copy or download it again.",
        ) from error
    valid = there & np.isfinite(values).all(axis=0)
    values[:, ~valid] = 0
    return values, valid


def fill_missing(values: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Missing pixels of [C, h, w] replaced by the mean of the others in each band (0 where none is there)."""
    if valid.all():
        return values
    mean = values[:, valid].mean(axis=1) if valid.any() else np.zeros(len(values), np.float32)
    return np.where(valid, values, mean[:, None, None]).astype(np.float32)


def find_rasters(folder: str | PathLike[str]) -> list[Path]:
    """The rasters in a folder and below it, sorted; hidden files are left out.

    Raises
    ------
    InputError
        No such folder, or no raster in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no such folder", path=folder, remedy="Give a folder of GeoTIFFs.")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in RASTER_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise InputError(f"holds no raster ({', '.join(RASTER_SUFFIXES)})", path=folder)
    return found


def common_crs(paths: Sequence[str | PathLike[str]], *, crs: str | None = None) -> str | None:
    """The one CRS of some rasters, as text; the given one where they may be reprojected.

    Raises
    ------
    InputError
        The rasters have different ones and none was given.
    """
    if crs is not None:
        return parse_crs(crs).to_string()
    found: dict[str | None, Path] = {}
    for path in paths:
        with open_raster(path) as dataset:
            found.setdefault(None if dataset.crs is None else dataset.crs.to_string(), Path(path))
    if len(found) > 1:
        listed = ", ".join(f"{name or 'none'} ({path.name})" for name, path in found.items())
        raise InputError(
            f"the rasters have different coordinate reference systems: {listed}",
            path=next(iter(found.values())).parent,
            remedy="Reproject them, or have it done while reading: crs='EPSG:...' (--crs EPSG:...).",
        )
    return next(iter(found), None)


def write_geotiff(
    path: str | PathLike[str],
    values: NDArray[Any],
    *,
    crs: Any = None,
    transform: Any = None,
    nodata: float | None = None,
    band_names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an array as a GeoTIFF, atomically, and return the path.

    Parameters
    ----------
    path : path-like
    values : ndarray, [C, H, W] or [H, W]
        Real numbers of a dtype GDAL knows.
    crs : str or rasterio CRS, optional
    transform : affine.Affine, optional
        Pixel (column, row) -> map coordinates.
    nodata : float, optional
        Value of missing pixels.
    band_names : sequence of str, optional
        Written as the bands' descriptions.
    overwrite : bool
    """
    values = np.asarray(values)
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or not values.size or values.dtype.kind not in "iuf":
        raise InputError(f"[C, H, W] real numbers can be written, not {values.dtype} {list(values.shape)}", path=path)
    if band_names is not None and len(band_names) != len(values):
        raise InputError(f"{len(band_names)} names for {len(values)} bands", path=path)
    profile = {"count": values.shape[0], "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    with geotiff_writer(path, profile, crs=crs, transform=transform, nodata=nodata, overwrite=overwrite) as dataset:
        dataset.write(values)
        for number, name in enumerate(band_names or (), 1):
            dataset.set_band_description(number, name)
    return Path(path)


@contextmanager
def geotiff_writer(
    path: str | PathLike[str],
    profile: dict[str, Any],
    *,
    crs: Any = None,
    transform: Any = None,
    nodata: float | None = None,
    overwrite: bool = False,
) -> Iterator[Any]:
    """A GeoTIFF open for writing, compressed; it appears under its name when the block ends well.

    Parameters
    ----------
    path : path-like
        Ends in .tif or .tiff.
    profile : dict
        ``count``, ``height``, ``width``, ``dtype``.
    """
    rasterio = _rasterio()
    path = Path(path)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError("the name of a GeoTIFF ends in .tif", path=path)
    if not overwrite:
        refuse_overwrite(path)
    layout = {"driver": "GTiff", "compress": "deflate", "BIGTIFF": "IF_SAFER", "NUM_THREADS": 1}
    if min(profile["height"], profile["width"]) >= 256:
        layout |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    place = {"crs": crs, "transform": transform, "nodata": nodata}
    with atomic_path(path, overwrite=overwrite) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.open(temporary, "w", **layout, **profile, **place) as dataset:
                yield dataset
        except rasterio.errors.RasterioIOError as error:
            raise InputError(f"cannot be written ({_one_line(error)})", path=path) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:150]

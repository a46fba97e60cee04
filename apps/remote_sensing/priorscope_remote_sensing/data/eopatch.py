"""Sentinel-2 cubes in the folder layout of eo-learn's example patch: reflectance, labels, clouds, elevation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.arrays import read_array
from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import SENTINEL2, band_indices, ndvi
from priorscope_remote_sensing.data.legend import UNLABELLED
from priorscope_remote_sensing.data.rasters import parse_crs, write_geotiff

if TYPE_CHECKING:
    from affine import Affine

SCENE_TIMES = (2, 1, 4, 3, 0)
"""Where each of the five reference scenes stands in the patch's time series. Proven by the vegetation index:
computed from a scene it equals the stored one of that time, to the last bit."""


@dataclass(frozen=True)
class EOPatch:
    """Five dates of one place, with what is known about its pixels.

    Attributes
    ----------
    scenes : ndarray of float32, [5, 13, H, W]
        Top-of-atmosphere reflectance, bands in the order of :data:`SENTINEL2`.
    dates : tuple of datetime
        Of the scenes, UTC.
    cloudy : ndarray of bool, [5, H, W]
        The patch's cloud mask.
    labels : ndarray of uint8, [H, W]
        Indices into `names`; 255 where there is no label.
    names : tuple of str
        Classes that occur, in the order of their codes.
    codes : tuple of int
        The patch's own number of each class.
    ndvi : ndarray of float32, [5, H, W]
        Vegetation index as stored in the patch, at the dates of the scenes.
    elevation : ndarray of float32, [H, W]
        Metres.
    crs : rasterio CRS
    transform : affine.Affine
        Pixel (column, row) -> map coordinates.
    """

    scenes: NDArray[np.float32]
    dates: tuple[datetime, ...]
    cloudy: NDArray[np.bool_]
    labels: NDArray[np.uint8]
    names: tuple[str, ...]
    codes: tuple[int, ...]
    ndvi: NDArray[np.float32]
    elevation: NDArray[np.float32]
    crs: Any
    transform: Affine

    @property
    def clear(self) -> list[int]:
        """Indices of the scenes without a cloudy pixel, earliest date first."""
        free = [index for index in range(len(self.scenes)) if not self.cloudy[index].any()]
        return sorted(free, key=lambda index: self.dates[index])

    def bands(self, scene: int, names: tuple[str, ...]) -> NDArray[np.float32]:
        """Some bands of a scene by name, [C, H, W]."""
        return self.scenes[scene][band_indices(names, SENTINEL2, len(SENTINEL2))]

    def write_scene(self, path: str | PathLike[str], scene: int, *, overwrite: bool = False) -> Path:
        """Write a scene as a GeoTIFF of reflectance with named bands."""
        place = {"crs": self.crs, "transform": self.transform}
        return write_geotiff(path, self.scenes[scene], band_names=SENTINEL2, overwrite=overwrite, **place)

    def write_labels(self, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the labels as a GeoTIFF of class indices, nodata 255."""
        place = {"crs": self.crs, "transform": self.transform, "nodata": UNLABELLED}
        return write_geotiff(path, self.labels, overwrite=overwrite, **place)


def read_eopatch(folder: str | PathLike[str]) -> EOPatch:
    """Read the patch: ``REFERENCE_SCENES.npy`` and the arrays, dates, place and polygons beside it.

    Parameters
    ----------
    folder : path-like
        Holds REFERENCE_SCENES.npy, bbox.geojson, timestamps.json, data/NDVI.npy, data_timeless/DEM.npy,
        mask/CLM.npy, mask_timeless/LULC.npy and vector_timeless/LULC.gpkg (class names).

    Returns
    -------
    EOPatch

    Raises
    ------
    InputError
        A file is missing, has another shape than the scenes, or the vegetation index of a scene is not the stored
        one: then bands or dates are in another order.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no such folder", path=folder, remedy="Give the folder that holds REFERENCE_SCENES.npy.")
    scenes = read_array(folder / "REFERENCE_SCENES.npy", ndim=4, allow_nonfinite=False).astype(np.float32)
    count, height, width, bands = scenes.shape
    if (count, bands) != (len(SCENE_TIMES), len(SENTINEL2)):
        raise InputError(
            f"holds {count} scenes of {bands} bands; {len(SCENE_TIMES)} of {len(SENTINEL2)} are expected",
            path=folder / "REFERENCE_SCENES.npy",
        )
    times = list(SCENE_TIMES)
    stored = _plane(folder / "data/NDVI.npy", (height, width), times)
    cloudy = _plane(folder / "mask/CLM.npy", (height, width), times) != 0
    codes = _plane(folder / "mask_timeless/LULC.npy", (height, width))
    elevation = _plane(folder / "data_timeless/DEM.npy", (height, width))
    scenes = np.ascontiguousarray(np.moveaxis(scenes, -1, 1))
    red, nir = SENTINEL2.index("B04"), SENTINEL2.index("B08")
    difference = np.abs(ndvi(scenes[:, red], scenes[:, nir]) - stored).max()
    if not difference < 1e-5:
        raise InputError(
            f"the vegetation index of its scenes differs from NDVI.npy by up to {difference:.3g}",
            path=folder / "REFERENCE_SCENES.npy",
            remedy="Bands must be in Sentinel-2's order and scenes those of the example patch.",
        )
    labels, names, found = _classes(codes, folder / "vector_timeless/LULC.gpkg")
    crs, transform = _place(folder / "bbox.geojson", height, width)
    dates = _dates(folder / "timestamps.json", times)
    return EOPatch(
        *(scenes, dates, cloudy, labels, names, found),
        *(stored.astype(np.float32), elevation.astype(np.float32), crs, transform),
    )


def _plane(path: Path, shape: tuple[int, int], times: list[int] | None = None) -> NDArray[Any]:
    """An array [H, W, 1], or the wanted times of [T, H, W, 1], without its last axis."""
    array = read_array(path, ndim=3 if times is None else 4)
    spatial = array.shape[-3:-1]
    if spatial != shape or array.shape[-1] != 1 or (times is not None and len(array) <= max(times)):
        raise InputError(f"has shape {list(array.shape)}; the scenes are {list(shape)}", path=path)
    return array[..., 0] if times is None else array[times, ..., 0]


def _classes(codes: NDArray[Any], path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...], tuple[int, ...]]:
    import pyogrio

    if not path.is_file():
        raise InputError("no such file", path=path, remedy="It holds the names of the classes.")
    meta, _, _, columns = pyogrio.raw.read(path, columns=["LULC_ID", "LULC_NAME"], read_geometry=False)
    found = dict(zip(meta["fields"].tolist(), columns, strict=True))  # in the order of the file
    if len(found) != 2:
        raise InputError("has no columns LULC_ID and LULC_NAME", path=path)
    numbers, texts = found["LULC_ID"], found["LULC_NAME"]
    known = dict(zip((int(number) for number in numbers), map(str, texts), strict=True))
    present = [code for code in sorted(int(code) for code in np.unique(codes)) if code != 0]
    unknown = [code for code in present if code not in known]
    if unknown:
        raise InputError(f"has no name for class {unknown[0]}", path=path)
    labels = np.full(codes.shape, UNLABELLED, np.uint8)
    for index, code in enumerate(present):
        labels[codes == code] = index
    return labels, tuple(known[code] for code in present), tuple(present)


def _place(path: Path, height: int, width: int) -> tuple[Any, Affine]:
    from rasterio.transform import from_bounds

    box = _json(path)
    try:
        corners = np.asarray(box["coordinates"][0], np.float64)
        name = str(box["crs"]["properties"]["name"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError("is not a GeoJSON polygon with a crs", path=path) from error
    (west, south), (east, north) = corners.min(axis=0), corners.max(axis=0)
    return parse_crs(name), from_bounds(west, south, east, north, width, height)


def _dates(path: Path, times: list[int]) -> tuple[datetime, ...]:
    texts = _json(path)
    try:
        return tuple(datetime.fromisoformat(texts[time]) for time in times)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError("is not a list of ISO dates as long as the time series", path=path) from error


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"is not a JSON file that can be read ({error})", path=path) from error

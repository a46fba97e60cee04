"""What a raster says about itself that DiffusionSat can be told: position, resolution, date, cloud cover."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from priorscope.errors import InputError
from priorscope_remote_sensing.data.rasters import window_corners
from priorscope_remote_sensing.metadata import Metadata

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

#: Equatorial radius in metres and squared eccentricity of WGS 84's ellipsoid.
_RADIUS, _ECCENTRICITY = 6_378_137.0, 0.006_694_379_99


def scene_metadata(
    dataset: DatasetReader, *, date: str | None = None, cloud_cover: float | None = None
) -> Metadata | None:
    """Metadata of a raster's centre.

    Parameters
    ----------
    dataset : rasterio dataset
    date, cloud_cover : optional
        As :func:`given_metadata` takes them; default: ``ACQUISITIONDATETIME`` and ``CLOUDCOVER`` (per cent) of GDAL's
        IMAGERY domain, where the file has them and they can be read.

    Returns
    -------
    Metadata or None
        The ground sampling distance is that on the ground, not in the units of a projection that stretches. None
        where nothing is known.
    """
    source = getattr(dataset, "src_dataset", dataset)  # a raster seen in another projection shows no such tags
    tags = {name.upper(): text for name, text in source.tags(ns="IMAGERY").items()}
    known = _place(dataset)
    known |= _or_nothing(lambda: _date(tags["ACQUISITIONDATETIME"]))
    known |= _or_nothing(lambda: {"cloud_cover": float(tags["CLOUDCOVER"]) / 100})
    known |= _given(date, cloud_cover)
    return Metadata(**known) if known else None  # type: ignore[arg-type]


def given_metadata(date: str | None = None, cloud_cover: float | None = None) -> Metadata:
    """What a user says of images.

    Parameters
    ----------
    date : str, optional
        ``2018-08-30``, 1980 or later.
    cloud_cover : float, optional
        0 ... 1.

    Raises
    ------
    InputError
        One of them cannot be.
    """
    return Metadata(**_given(date, cloud_cover))  # type: ignore[arg-type]


def _given(date: str | None, cloud_cover: float | None) -> dict[str, float]:
    known: dict[str, float] = {} if date is None else _date(date)
    return known if cloud_cover is None else known | {"cloud_cover": cloud_cover}


def _or_nothing(read: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What a tag says; nothing where it is missing, or says what cannot be."""
    try:
        known = read()
        Metadata(**known)  # type: ignore[arg-type]
    except (KeyError, ValueError):
        return {}
    return known


def _place(dataset: DatasetReader) -> dict[str, float]:
    from rasterio.warp import transform

    if dataset.crs is None or not (dataset.crs.is_geographic or dataset.crs.is_projected):
        return {}  # a local system says nothing of the Earth
    x, y = window_corners(dataset, (0, 0, dataset.height, dataset.width)).mean(axis=0).tolist()
    a = dataset.transform
    points = [x, x + a.a, x + a.b], [y, y + a.d, y + a.e]  # the centre, a pixel to the right, a pixel below
    longitudes, latitudes = (np.asarray(values) for values in transform(dataset.crs, "EPSG:4326", *points))
    if not (np.isfinite(longitudes).all() and np.isfinite(latitudes).all()):
        return {}
    sine = math.sin(math.radians(latitudes[0]))
    across = _RADIUS / math.sqrt(1 - _ECCENTRICITY * sine**2)  # radius of curvature, from west to east
    along = across * (1 - _ECCENTRICITY) / (1 - _ECCENTRICITY * sine**2)
    east = np.radians((longitudes[1:] - longitudes[0] + 180) % 360 - 180) * across * math.sqrt(1 - sine**2)
    north = np.radians(latitudes[1:] - latitudes[0]) * along
    gsd = math.sqrt(np.hypot(east, north).prod())
    return _or_nothing(lambda: {"longitude": float(longitudes[0]), "latitude": float(latitudes[0]), "gsd": gsd})


def _date(text: str) -> dict[str, float]:
    try:
        day = datetime.datetime.fromisoformat(text.strip()).date()
    except ValueError:
        raise InputError(f"{text!r} is no date", remedy="Write 2018-08-30.") from None
    return {"year": day.year, "month": day.month, "day": day.day}

"""What a raster says about itself that DiffusionSat can be told: position, resolution, date, cloud cover."""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING

from priorscope.errors import InputError
from priorscope_remote_sensing.data.rasters import window_corners
from priorscope_remote_sensing.metadata import Metadata

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

#: Metres a degree of latitude.
_DEGREE = 111_195.0


def scene_metadata(
    dataset: DatasetReader, *, date: str | None = None, cloud_cover: float | None = None
) -> Metadata | None:
    """Metadata of a raster's centre.

    Parameters
    ----------
    dataset : rasterio dataset
    date : str, optional
        ``2018-08-30``; default: ``ACQUISITIONDATETIME`` of GDAL's IMAGERY domain, where the file has it.
    cloud_cover : float, optional
        0 ... 1; default: ``CLOUDCOVER`` (per cent) of the same domain.

    Returns
    -------
    Metadata or None
        None where nothing is known.
    """
    tags = {name.upper(): text for name, text in dataset.tags(ns="IMAGERY").items()}
    known: dict[str, float | int] = {}
    if date is not None:
        known |= _date(date)
    elif "ACQUISITIONDATETIME" in tags:
        known |= _date(tags["ACQUISITIONDATETIME"], strict=False)
    if cloud_cover is not None:
        known["cloud_cover"] = cloud_cover
    elif "CLOUDCOVER" in tags:
        known |= _cover(tags["CLOUDCOVER"])
    if dataset.crs is not None:
        known |= _place(dataset)
    return Metadata(**known) if known else None  # type: ignore[arg-type]


def _place(dataset: DatasetReader) -> dict[str, float]:
    from rasterio.warp import transform

    x, y = window_corners(dataset, (0, 0, dataset.height, dataset.width)).mean(axis=0).tolist()
    longitude, latitude = (values[0] for values in transform(dataset.crs, "EPSG:4326", [x], [y]))
    a = dataset.transform
    sides = math.hypot(a.a, a.d), math.hypot(a.b, a.e)
    if dataset.crs.is_geographic:
        metres = sides[0] * _DEGREE * math.cos(math.radians(latitude)), sides[1] * _DEGREE
    else:
        factor = float(dataset.crs.linear_units_factor[1])
        metres = sides[0] * factor, sides[1] * factor
    found = {"longitude": longitude, "latitude": latitude, "gsd": math.sqrt(metres[0] * metres[1])}
    return found if all(math.isfinite(value) for value in found.values()) and found["gsd"] > 0 else {}


def _date(text: str, *, strict: bool = True) -> dict[str, int]:
    try:
        day = datetime.datetime.fromisoformat(text.strip()).date()
    except ValueError:
        if strict:
            raise InputError(f"{text!r} is no date", remedy="Write 2018-08-30.") from None
        return {}
    return {"year": day.year, "month": day.month, "day": day.day}


def _cover(text: str) -> dict[str, float]:
    try:
        share = float(text) / 100
    except ValueError:
        return {}
    return {"cloud_cover": share} if 0 <= share <= 1 else {}

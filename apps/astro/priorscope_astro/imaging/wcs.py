"""World coordinates of a stamp: only where its pixel scale is known. A generated galaxy has a shape, not arcseconds."""

from __future__ import annotations

import math
from typing import Any

from priorscope.errors import InputError


def stamp_wcs(size: tuple[int, int], pixel_scale: float, ra: float, dec: float) -> Any:
    """Tangent-plane coordinates of a stamp centred on an object, north up, east left.

    Parameters
    ----------
    size : tuple of int
        Rows and columns.
    pixel_scale : float
        Arcsec a pixel.
    ra, dec : float
        ICRS, degrees, of the stamp's centre: pixel ((N - 1) / 2) counted from 0, CRPIX (N + 1) / 2.

    Returns
    -------
    astropy.wcs.WCS

    Raises
    ------
    InputError
        A scale that is not above 0, or a position that is none.
    """
    if not (math.isfinite(pixel_scale) and pixel_scale > 0):
        raise InputError(f"a pixel scale of {pixel_scale} arcsec", remedy="Give a number above 0, or no coordinates.")
    if not (0 <= ra < 360 and -90 <= dec <= 90):
        raise InputError(f"a position of ra {ra}, dec {dec}", remedy="Give degrees: 0 <= ra < 360, -90 <= dec <= 90.")
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(size[1] + 1) / 2, (size[0] + 1) / 2]
    degrees = pixel_scale / 3600
    wcs.wcs.cd = [[-degrees, 0.0], [0.0, degrees]]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs

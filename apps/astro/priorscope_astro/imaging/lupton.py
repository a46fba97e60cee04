"""Pictures of three bands that keep colours where they are bright (Lupton et al. 2004): for looking, not for measuring.

Flux cannot be recovered from them: 256 levels, and bright pixels share theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError

#: The part of the range that the linear beginning of the curve takes.
_LINEAR = 0.1


def lupton_rgb(
    flux: ArrayLike, *, stretch: float = 5.0, softening: float = 8.0, minimum: float | Sequence[float] = 0.0
) -> NDArray[np.uint8]:
    """8-bit colours of three bands, as ``astropy.visualization.make_lupton_rgb`` makes them; any number at once.

    Parameters
    ----------
    flux : array (..., 3, H, W)
        Bands in the order red, green, blue (SDSS: i, r, g), linear.
    stretch : float
        The range, in units of flux, over which the curve is about linear.
    softening : float
        Q: how early the curve bends.
    minimum : float or three
        Flux that is black.

    Returns
    -------
    uint8 array (..., H, W, 3)
        Rows as given: flux has row 0 below, a JPEG at the top, see :func:`rows_down`.

    Raises
    ------
    InputError
        Another number of bands, values that are not finite, a stretch or softening that is not above 0.
    """
    bands = np.array(flux, dtype=np.float64)
    if bands.ndim < 3 or bands.shape[-3] != 3:
        raise InputError(f"an RGB picture of shape {bands.shape}", remedy="Give three bands (..., 3, H, W), red first.")
    if not np.isfinite(bands).all():
        raise InputError("an RGB picture of values that are not finite", remedy="Mask them with 0.")
    if not (stretch > 0 and softening > 0):
        raise InputError(f"stretch {stretch} and softening {softening}", remedy="Give numbers above 0.")
    bands -= np.broadcast_to(np.asarray(minimum, dtype=np.float64), 3)[:, None, None]
    intensity = bands.mean(-3, keepdims=True)
    curve = np.arcsinh(intensity * softening / stretch) * _LINEAR / np.arcsinh(_LINEAR * softening)
    bright = intensity > 0
    bands *= np.where(bright, curve / np.where(bright, intensity, 1), 0)
    np.maximum(bands, 0, out=bands)
    largest = bands.max(-3, keepdims=True)
    bands /= np.maximum(largest, 1)
    return (np.moveaxis(bands, -3, -1) * 255).astype(np.uint8)


def rows_down(picture: NDArray) -> NDArray:
    """A picture (H, W, ...) with row 0 at the top, as in JPEG, of one with row 0 below, as in FITS; and back."""
    return np.ascontiguousarray(picture[::-1])

"""The parts that scenes of galaxies are made of, as surface brightness on a grid.

Lengths are in pixels of the finished stamp, angles in radians, counted from the x axis towards y. Coordinates may be
any arrays that broadcast, such as a row of x and a column of y. Profiles are not normalised: a scene gives each part
its flux.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import k1

Array = NDArray[Any]

#: Softens the cusp of a profile: what one cell of a grid of half a pixel would average over.
_CORE = 0.25


def turned(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    """Coordinates along and across an axis at ``angle``."""
    c, s = float(np.cos(angle)), float(np.sin(angle))  # numpy's own would widen float32
    return c * x + s * y, c * y - s * x


def face_on(x: Array, y: Array, axis_ratio: float, angle: float) -> tuple[Array, Array]:
    """Radius and azimuth in the plane of an inclined thin disc that is seen with ``axis_ratio``."""
    along, across = turned(x, y, angle)
    across = across / axis_ratio
    return np.hypot(along, across), np.arctan2(across, along)


def sersic(x: Array, y: Array, radius: float, index: float, axis_ratio: float, angle: float, boxy: float = 0) -> Array:
    """Sersic's profile with elliptical isophotes; 1 at the half-light radius.

    Parameters
    ----------
    x, y : ndarray
    radius : float
        Half-light radius along the major axis.
    index : float
        1 is an exponential disc, 4 de Vaucouleurs' law.
    axis_ratio, angle : float
    boxy : float
        Isophotes are generalised ellipses of exponent ``2 + boxy``; above 0 they are boxy.

    References
    ----------
    L. Ciotti, G. Bertin, A&A 352 (1999), eq. 18, for b(n).
    """
    along, across = turned(x, y, angle)
    if boxy:
        power = 2 + boxy
        r2 = (np.abs(along) ** power + np.abs(across / axis_ratio) ** power) ** (2 / power)
    else:
        r2 = along**2 + (across / axis_ratio) ** 2
    b = 2 * index - 1 / 3 + 4 / (405 * index)
    return np.exp(-b * (((r2 + _CORE**2) / radius**2) ** (0.5 / index) - 1))


def edge_on_disc(along: Array, across: Array, scale: float, height: float) -> Array:
    """An exponential disc of scale length ``scale`` and sech^2 layers of ``height``, seen from its side.

    References
    ----------
    P. van der Kruit, L. Searle, A&A 95 (1981), eq. 5.
    """
    r = np.maximum(np.abs(along) / scale, 1e-6)
    return r * k1(r) / np.cosh(np.minimum(np.abs(across) / height, 40)) ** 2  # more would not fit into float32


def spiral_arms(
    r: Array, azimuth: Array, arms: int, pitch: float, phase: float, start: float, sharpness: float
) -> Array:
    """How much of the light of a disc lies in logarithmic arms: 0 between them and inside ``start``, 1 on their crest.

    Parameters
    ----------
    r, azimuth : ndarray
        In the plane of the disc.
    arms : int
        How many.
    pitch : float
        Angle between an arm and a circle.
    phase : float
        Azimuth of an arm at ``start``.
    start : float
        Radius where arms begin.
    sharpness : float
        Above 0; larger is narrower.
    """
    winding = np.log(np.maximum(r, 1e-3) / start) / float(np.tan(pitch))
    crest = np.exp(sharpness * (np.cos(arms * (azimuth - phase - winding)) - 1))
    return crest / (1 + np.exp(np.clip(-8 * (r / start - 0.9), -50, 50)))


def bar(along: Array, across: Array, length: float, width: float) -> Array:
    """A Ferrers bar (n = 2) of generalised elliptical shape, half as long as ``2 * length``; 0 outside."""
    one, two = np.abs(along / length), np.abs(across / width)
    m2 = np.cbrt(one * one * one + two * two * two) ** 2
    return np.maximum(1 - m2, 0) ** 2


def ring(r: Array, radius: float, width: float) -> Array:
    """A ring with a Gaussian profile of standard deviation ``width``."""
    return np.exp(-0.5 * ((r - radius) / width) ** 2)


def knots(x: Array, y: Array, where: Array, width: float, weights: Array) -> Array:
    """Star-forming knots: Gaussians of standard deviation ``width`` at positions ``where`` (K, 2)."""
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape), x.dtype)
    for (one, two), weight in zip(where.tolist(), weights.tolist(), strict=True):
        # on a row and a column the product is what costs, not the exponentials
        total += weight * np.exp(-((x - one) ** 2) / (2 * width**2)) * np.exp(-((y - two) ** 2) / (2 * width**2))
    return total


def dust_lane(
    along: Array, across: Array, depth: float, width: float, reach: float, offset: float, bend: float
) -> Array:
    """Optical depth of a lane along an axis.

    Parameters
    ----------
    along, across : ndarray
        Coordinates of the lane's axis.
    depth : float
        Optical depth at the centre.
    width : float
        Standard deviation across.
    reach : float
        Half its length: the lane ends smoothly there.
    offset : float
        Distance of its middle from the centre of the galaxy.
    bend : float
        How far its ends lie off the axis.
    """
    middle = offset + bend * (along / reach) ** 2
    return depth * np.exp(-0.5 * ((across - middle) / width) ** 2 - (along / reach) ** 4)


def tidal_tail(x: Array, y: Array, radius: float, first: float, sweep: float, width: float) -> Array:
    """A tail that leaves at radius ``radius`` and azimuth ``first`` and winds outwards over ``sweep``, fading.

    Its radius grows by half over one radian; it is 1 where it begins.
    """
    r, azimuth = np.hypot(x, y), np.arctan2(y, x)
    turn = float(np.sign(sweep)) * (azimuth - first) % (2 * np.pi)
    middle = radius * (1 + 0.5 * turn)
    fade = np.where(turn < abs(sweep), 1 - turn / abs(sweep), 0)
    return fade * np.exp(-0.5 * ((r - middle) / (width * (1 + 0.3 * turn))) ** 2)

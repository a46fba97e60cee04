"""Galaxies of 32 x 32 pixels, drawn by formulas: what evidence_acceleration.py learns to make.

Four kinds: ellipticals (Sersic profiles), discs with two logarithmic spiral arms, the same with a Ferrers bar, and
discs seen edge-on. Sizes, axis ratios, angles, centres and fluxes are random; no noise, no sky, a Gaussian point spread
function, and asinh of the flux, so that a picture's numbers lie near mean 0 and standard deviation 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

KINDS = ("elliptical", "spiral", "barred spiral", "edge-on")
SIDE = 32
#: Names of the columns of :attr:`Galaxies.shape`.
SHAPE = ("log size", "axis ratio", "cos of twice the angle", "sin of twice the angle", "share of the bulge", "log flux")

_FINER, _PSF = 3, 0.8  # subpixels a side, and pixels
_SOFTENING = 0.02
_OFFSET, _SCALE = 0.12, 0.18
_CHUNK = 500


class Galaxies(NamedTuple):
    """Pictures and what they show."""

    images: NDArray[np.float32]
    """[N, 32, 32]"""
    kinds: NDArray[np.int64]
    """[N], places in KINDS; in turn, so that every kind is as frequent."""
    shape: NDArray[np.float32]
    """[N, 6], see SHAPE."""


def draw_galaxies(count: int, seed: int) -> Galaxies:
    """The first ``count`` galaxies of a seed; a longer list begins with a shorter one, by whole chunks."""
    parts = [
        _chunk(min(_CHUNK, count - first), np.random.default_rng([seed, first])) for first in range(0, count, _CHUNK)
    ]
    return Galaxies(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _chunk(count: int, rng: np.random.Generator) -> Galaxies:
    def uniform(low: float, high: float) -> NDArray[np.float64]:
        return rng.uniform(low, high, _CHUNK)[:count, None, None]

    kinds = np.arange(count) % len(KINDS)
    elliptical, barred, edge_on = ((kinds == KINDS.index(name))[:, None, None] for name in (KINDS[0], *KINDS[2:]))
    angle, size = uniform(0, np.pi), np.exp(uniform(np.log(2.0), np.log(4.2)))
    ratio = np.where(edge_on, uniform(0.12, 0.25), uniform(0.45, 1.0))
    steps = ((np.arange(SIDE * _FINER) + 0.5) / _FINER - SIDE / 2)[None]
    x, y = steps[:, None, :] - uniform(-1.5, 1.5), steps[:, :, None] - uniform(-1.5, 1.5)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)

    radius = np.hypot(along, across / ratio) / size
    turn = np.arctan2(across / ratio, along)
    share = np.where(elliptical, 0.0, uniform(0.05, 0.5))
    spheroid = _unit(_sersic(radius, uniform(1.5, 3.5)))
    bulge = _unit(np.exp(-np.hypot(along, across / np.maximum(ratio, 0.6)) / (size * uniform(0.2, 0.4))))
    sense = np.where(uniform(-1, 1) < 0, -1.0, 1.0)
    winding = sense * np.log(radius + 0.05) / np.tan(np.deg2rad(uniform(14, 32)))
    arms = 1 + uniform(0.5, 0.95) * np.cos(2 * (turn - winding)) * np.minimum(radius, 1)
    length, width = size * uniform(0.9, 1.4), uniform(0.25, 0.4)
    bar = np.maximum(1 - (along**2 + (across / width) ** 2) / length**2, 0) ** 2
    disc = _unit(np.exp(-radius) * arms) + np.where(barred, uniform(0.2, 0.45), 0.0) * _unit(bar)
    flat = _unit(np.exp(-np.abs(along) / size) / np.cosh(across / (ratio * size)) ** 2)

    flux = np.exp(uniform(np.log(15.0), np.log(60.0)))
    light = np.where(elliptical, spheroid, (1 - share) * np.where(edge_on, flat, _unit(disc)) + share * bulge)
    blurred = gaussian_filter(flux * light, (0, _PSF * _FINER, _PSF * _FINER), truncate=3.0)
    pixels = blurred.reshape(count, SIDE, _FINER, SIDE, _FINER).sum((2, 4))
    values = np.arcsinh(pixels / _SOFTENING) / np.arcsinh(1 / _SOFTENING)
    columns = (np.log(size), ratio, np.cos(2 * angle), np.sin(2 * angle), share, np.log(flux))
    shape = np.concatenate([column.reshape(count, 1) for column in columns], 1)
    return Galaxies(((values - _OFFSET) / _SCALE).astype(np.float32), kinds, shape.astype(np.float32))


def _sersic(radius: NDArray[np.float64], index: NDArray[np.float64]) -> NDArray[np.float64]:
    """Surface brightness at ``radius`` effective radii; the usual b = 2 n - 1/3."""
    return np.exp(-(2 * index - 1 / 3) * radius ** (1 / index))


def _unit(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of flux 1 within the picture."""
    return light / light.sum((1, 2), keepdims=True)

"""Light within growing circles and ellipses: Petrosian radii and radii of a part of the light.

Where a radius lies is first guessed from pixel centres, then found with exact overlaps (:mod:`.overlap`) in a window
that is as small as the aperture allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope_astro.morphology import overlap
from priorscope_astro.morphology.filters import windows
from priorscope_astro.morphology.lockstep import Function, Rows, brent
from priorscope_astro.morphology.perimeter import Sums

Array = NDArray[np.float64]
#: Width of the annuli of a Petrosian radius, pixels, and the ratio of brightness that defines it.
ANNULUS, ETA = 1.0, 0.2
_XTOL = 1e-6
#: The guess's bins, pixels.
_BIN = 0.1
_GRID = 100


@dataclass(frozen=True)
class Shape:
    """Concentric apertures: a centre each, and for ellipses their elongation a/b and angle."""

    centre: Array
    elongation: Array | None = None
    theta: Array | None = None

    def rows(self, rows: Rows) -> Shape:
        if self.elongation is None or self.theta is None:
            return Shape(self.centre[rows])
        return Shape(self.centre[rows], self.elongation[rows], self.theta[rows])

    def moved(self, origin: Array) -> Shape:
        return Shape(self.centre - origin, self.elongation, self.theta)

    def corners(self, a: Array, size: tuple[int, int]) -> Array:
        """Corners' areas (:mod:`.overlap`) of the apertures with semi-major axes ``a``."""
        if self.elongation is None or self.theta is None:
            return overlap.circle(self.centre, a, size)
        return overlap.ellipse(self.centre, a, a / self.elongation, self.theta, size)

    def sums(self, of: Sums, a: Array, rows: Rows) -> Array:
        """Sums over the apertures with semi-major axes ``a``, of the images ``rows``: (K, n)."""
        if self.elongation is None or self.theta is None:
            return of.circle(self.centre, a, rows)
        return of.ellipse(self.centre, a, a / self.elongation, self.theta, rows)

    def area(self, a: Array) -> Array:
        """Whole area, inside the image or not."""
        return np.pi * a**2 if self.elongation is None else np.pi * a**2 / self.elongation

    def radii(self, size: tuple[int, int]) -> Array:
        """Semi-major axis of the aperture through each pixel's centre, (B, H, W)."""
        x = np.arange(size[1]) - self.centre[:, :1]
        y = np.arange(size[0]) - self.centre[:, 1:]
        if self.elongation is None or self.theta is None:
            return np.sqrt((y**2)[:, :, None] + (x**2)[:, None])
        cos, sin = np.cos(self.theta)[:, None], np.sin(self.theta)[:, None]
        along = (x * cos)[:, None] + (y * sin)[:, :, None]
        across = (y * cos)[:, :, None] - (x * sin)[:, None]
        across *= self.elongation[:, None, None]
        return np.sqrt(along**2 + across**2)


def window(images: NDArray[Any], centre: Array, reach: float) -> tuple[NDArray[Any], Array]:
    """Squares of the images about ``centre`` that hold a circle of radius ``reach``, and their origins (x, y).

    The squares are inside the images: what they do not hold of the circle lies outside.
    """
    height, width = images.shape[1:]
    size = int(np.ceil(2 * reach)) + 3
    tall, wide = min(size, height), min(size, width)
    if (tall, wide) == (height, width):
        return images, np.zeros((len(images), 2))
    left = np.clip(np.floor(centre[:, 0] - reach - 0.5).astype(int), 0, width - wide)
    low = np.clip(np.floor(centre[:, 1] - reach - 0.5).astype(int), 0, height - tall)
    origin = np.stack([left, low], axis=1)
    return windows(images, origin[:, ::-1], (tall, wide)), origin.astype(float)


class Light:
    """Flux and area of apertures up to a largest one, of images (B, H, W) and their masks.

    Parameters
    ----------
    images : array (B, H, W)
        0 where masked.
    masks : bool array (B, H, W), optional
        Pixels that do not count; where it is None, areas are not needed.
    shape : Shape
    largest : float
        Largest semi-major axis that will be asked for.
    """

    def __init__(self, images: Array, masks: NDArray[np.bool_] | None, shape: Shape, largest: float) -> None:
        cut, origin = window(images, shape.centre, largest)
        self.whole = False
        kinds = cut[None]
        if masks is not None:
            free = ~window(masks, shape.centre, largest)[0]
            ends = np.array([images.shape[2], images.shape[1]]) - 0.5
            inside = (shape.centre - largest > -0.5).all() and (shape.centre + largest < ends).all()
            self.whole = bool(inside and free.all())
            if not self.whole:
                kinds = np.stack([cut, free])
        self.shape = shape.moved(origin)
        self.sums = Sums(kinds, ellipses=shape.elongation is not None)

    def __call__(self, a: Array, rows: Rows) -> tuple[Array, Array]:
        """Flux and unmasked area within ``a``."""
        shape = self.shape.rows(rows)
        found = shape.sums(self.sums, a, rows)
        return found[0], shape.area(a) if self.whole else found[1]

    def flux(self, a: Array, rows: Rows) -> Array:
        """Flux within ``a``."""
        return self.shape.rows(rows).sums(self.sums, a, rows)[0]


def petrosian(images: Array, masks: NDArray[np.bool_], shape: Shape) -> tuple[Array, NDArray[np.int64]]:
    """Petrosian radius: where the mean in an annulus of one pixel is ETA of the mean within (Lotz et al. 2004, eq. 4).

    Of several such radii the innermost on a grid of 100 from the annulus's width to the stamp's diagonal. The
    absolute values of both means are compared.

    Returns
    -------
    radius : array (B,)
        Circles' radius, or ellipses' semi-major axis, pixels.
    flag : array (B,)
        2 where there is none: the smallest or largest radius is given.
    """
    count = len(images)
    outer = np.hypot(*images.shape[1:]) * (1 if shape.elongation is None else shape.elongation)
    grid = np.linspace(ANNULUS, np.broadcast_to(outer, count), _GRID, axis=1)
    flag = np.zeros(count, dtype=np.int64)

    def excess_in(light: Light) -> Function:
        def excess(a: Array, rows: Rows) -> Array:
            radii = np.concatenate([a + step * ANNULUS for step in (-0.5, 0.0, 0.5)])
            fluxes, areas = (one.reshape(3, -1) for one in light(radii, np.tile(rows, 3)))
            (inner, flux, wider), (inner_area, area, wider_area) = fluxes, areas
            annulus = _mean(wider - inner, wider_area - inner_area)
            within = _mean(flux, area)
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(within == 0, (annulus != 0).astype(float), annulus / within) - ETA

        return excess

    guess = _guessed_petrosian(images, masks, shape, grid)
    values = np.full((count, _GRID), np.nan)
    low, bracketed = np.full(count, -1), np.zeros(count, dtype=bool)
    # near the centre pixels are too few to guess from: the first radii exactly, then from just before the guess
    for first, last in ((np.zeros(count, dtype=np.intp), 2), (np.maximum(guess - 1, 3), _GRID - 1)):
        at = first.copy()
        rows = np.flatnonzero(~bracketed & (at <= last))
        reached = -1.0
        while len(rows):
            needed = float(grid[rows, at[rows]].max()) + ANNULUS
            if needed > reached:
                reached = float(grid[rows, np.minimum(at[rows] + 1, _GRID - 1)].max()) + ANNULUS
                light = Light(images, masks, shape, reached)
                excess = excess_in(light)
            found = excess(grid[rows, at[rows]], rows)
            values[rows, at[rows]] = found
            passed = found <= 0
            # started too late: go back until the excess is positive
            back = passed & (at[rows] == first[rows]) & (first[rows] > 3)
            ended = passed & ~back
            low[rows[ended]], bracketed[rows[ended]] = at[rows[ended]] - 1, True
            first[rows[back]] -= 1
            at[rows] += np.where(back, -1, 1)
            rows = rows[~ended]
            rows = rows[at[rows] <= last]
    radius = np.where(bracketed, grid[:, 0], grid[:, -1])
    flag[~bracketed | (low < 0)] = 2
    rows = np.flatnonzero(bracketed & (low >= 0))
    if len(rows):
        ends = grid[rows, low[rows]], grid[rows, low[rows] + 1]
        light = Light(images[rows], masks[rows], shape.rows(rows), float(ends[1].max()) + ANNULUS)
        known = values[rows, low[rows]], values[rows, low[rows] + 1]
        radius[rows] = brent(excess_in(light), *ends, ends=known, xtol=_XTOL)
    return radius, flag


def radius_of(images: Array, shape: Shape, total_radius: Array, fraction: Array | float) -> tuple[Array, Array]:
    """Radius within which a part of the light within ``total_radius`` lies.

    Returns
    -------
    radius : array (B,)
        NaN where ``total_radius`` is not positive; ``total_radius`` itself where there is no light in it.
    flag : array (B,)
        2 where the light in it is not positive (its absolute value is used).
    """
    count = len(images)
    every = np.arange(count)
    fraction = np.broadcast_to(fraction, count)
    usable = np.where(total_radius > 0, total_radius, 1.0)
    light = Light(images, None, shape, float(usable.max()))
    total = light.flux(usable, every)
    flag = np.where((total > 0) & (total_radius > 0), 0, 2)
    sound = (total != 0) & (total_radius > 0)
    target = fraction * np.abs(total)

    # a guess by pixel centres, then a bracket about it that is widened until it holds the crossing
    bins = int(np.ceil(usable.max() / _BIN)) + 1
    grown = np.abs(np.cumsum(_binned(images, shape.radii(images.shape[1:]), bins), axis=1))
    crossing = (grown > target[:, None]).argmax(1) * _BIN
    low, high = np.maximum(crossing - 0.5, 0), np.minimum(crossing + 0.5, usable)
    low = np.minimum(low, 0.9 * usable)
    radius = np.where(total_radius > 0, total_radius, np.nan)
    rows = np.flatnonzero(sound)
    if not len(rows):
        return radius, flag
    reach = float(high[rows].max()) + 0.5
    light = Light(images[rows], None, shape.rows(rows), reach)

    def excess(a: Array, asked: Rows) -> Array:
        return np.where(a > 0, np.abs(light.flux(np.maximum(a, 0), asked)), 0) - target[rows[asked]]

    some = np.arange(len(rows))
    low, high = low[rows], high[rows]
    at_low, at_high = excess(low, some), excess(high, some)
    for _ in range(_GRID):
        short = np.flatnonzero(at_high <= 0)
        if not len(short):
            break
        low[short], at_low[short] = high[short], at_high[short]
        high[short] = np.minimum(high[short] + 1, usable[rows[short]] * (1 + 1e-9))
        if high[short].max() > reach:
            reach = float(high[short].max()) + 2
            light = Light(images[rows], None, shape.rows(rows), reach)
        at_high[short] = excess(high[short], short)
    for _ in range(_GRID):
        late = np.flatnonzero((at_low > 0) & (low > 0))
        if not len(late):
            break
        high[late], at_high[late] = low[late], at_low[late]
        low[late] = np.maximum(low[late] - 1, 0)
        at_low[late] = excess(low[late], late)
    radius[rows] = brent(excess, low, high, ends=(at_low, at_high), xtol=_XTOL)
    return radius, flag


def aperture_flux(images: Array, shape: Shape, a: Array) -> Array:
    """Flux within semi-major axes ``a``."""
    return Light(images, None, shape, float(a.max())).flux(a, np.arange(len(images)))


def _mean(flux: Array, area: Array) -> Array:
    """Absolute mean; 0 where the area is empty (but for rounding)."""
    empty = np.abs(area) < 1e-9
    return np.where(empty, 0, np.abs(flux / np.where(empty, 1, area)))


def _binned(values: Array, radii: Array, bins: int) -> Array:
    """Sums of values (B, H, W) by bin of radius, (B, bins); the last holds all that is further out."""
    count = len(values)
    index = np.minimum((radii / _BIN).astype(np.int64), bins - 1)
    index += np.arange(count)[:, None, None] * bins
    sums = np.bincount(index.ravel(), values.ravel(), minlength=count * bins).astype(np.float64)
    return sums.reshape(count, bins)


def _guessed_petrosian(images: Array, masks: NDArray[np.bool_], shape: Shape, grid: Array) -> NDArray[np.intp]:
    """First index of the grid, from the third on, whose annulus is not clearly brighter than ETA of the mean within."""
    bins = int(np.ceil((grid[:, -1].max() + 1) / _BIN)) + 2
    radii = shape.radii(images.shape[1:])
    flux = np.cumsum(_binned(images, radii, bins), axis=1)
    area = np.cumsum(_binned((~masks).astype(float), radii, bins), axis=1)
    index = ((grid[..., None] + np.array([-0.5, 0, 0.5])) / _BIN).astype(int) - 1
    index = np.clip(index, 0, bins - 1).reshape(len(grid), -1)
    flux, area = (np.take_along_axis(one, index, 1).reshape(*grid.shape, 3) for one in (flux, area))
    annulus = _mean(flux[..., 2] - flux[..., 0], area[..., 2] - area[..., 0])
    close = annulus < (ETA + 0.06) * _mean(flux[..., 1], area[..., 1])
    close[:, :3] = False
    close[:, -1] = True
    return close.argmax(1)

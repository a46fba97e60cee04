"""Multimode, intensity and deviation (Freeman et al. 2013, Peth et al. 2016): is there a second nucleus?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from priorscope_astro.morphology.filters import NEIGHBOURS, box, gaussian, ranked, region_at, regions, windows
from priorscope_astro.morphology.lockstep import Rows, brent, nelder_mead
from priorscope_astro.morphology.profile import ETA

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
INVALID = np.nan
#: Spacing of the first quantiles, hops of the search that follows, and their temperature in units of the best value.
_SPACING, _HOPS, _TEMPERATURE = 0.02, 5, 0.5
#: Thresholds whose clumps are counted together.
_AT_ONCE = 64


def _cropped(light: Array, counted: Mask) -> tuple[Array, NDArray[np.intp]]:
    """Windows of one size about the counted pixels, outside which the light is 0; their first row and column (B, 2)."""
    ends = []
    for axis, side in ((2, light.shape[1]), (1, light.shape[2])):
        line = np.asarray(counted.any(axis))
        first, last = line.argmax(1), side - line[:, ::-1].argmax(1)
        size = int((last - first).max())
        ends.append((size, np.minimum(first, side - size)))
    (tall, low), (wide, left) = ends
    corner = np.stack([low, left], axis=1)
    return windows(light, corner, (tall, wide)), corner


def region(own: Array, counted: Mask, fallback: Mask, at: NDArray[np.intp]) -> tuple[Mask, NDArray[np.int64]]:
    """Pixels of the main clump at the quantile whose brightness is ETA of the mean above it.

    Parameters
    ----------
    own : array (B, H, W)
        Light of the segment, not negative.
    counted : bool array (B, H, W)
        The segment's unmasked pixels.
    fallback : bool array (B, H, W)
        Taken where even the faintest pixel is brighter than that.
    at : int array (B, 2)
        Row and column of the brightest pixel.

    Returns
    -------
    bool array (B, H, W), and flags: 2 where the brightest pixel had to be added.
    """
    levels, count = ranked(own, counted)
    cut, corner = _cropped(own, counted)
    peak = at - corner

    def level(q: Array, rows: Rows) -> Array:
        return levels[rows, (q * (count[rows] - 1)).astype(int)]

    def excess(q: Array, rows: Rows) -> Array:
        threshold = level(q, rows)
        value = np.full(len(rows), -ETA)  # at a threshold of 0 everything is one clump
        some = np.flatnonzero(threshold > 0)
        if len(some):
            light = cut if len(some) == len(cut) else cut[rows[some]]
            clump = region_at(light >= threshold[some, None, None], peak[rows[some]])
            mean = np.einsum("bij,bij->b", light, clump) / clump.sum((1, 2))
            value[some] += threshold[some] / mean
        return value

    every = np.arange(len(own))
    undefined = excess(np.zeros(len(own)), every) > 0
    found, flag = fallback.copy(), np.zeros(len(own), dtype=np.int64)
    rows = np.flatnonzero(~undefined)
    if not len(rows):
        return found, flag
    low, high = np.zeros(len(rows)), np.ones(len(rows))
    q = brent(lambda x, asked: excess(x, rows[asked]), low, high, xtol=1 / count[rows])
    threshold = level(q, rows)
    clump = region_at(own[rows] >= threshold[:, None, None], at[rows])
    clump[threshold <= 0] = True
    smooth = box(clump.astype(float), 3) > 0.5
    some = np.arange(len(rows))
    flag[rows] = np.where(smooth[some, at[rows, 0], at[rows, 1]], 0, 2)
    smooth[some, at[rows, 0], at[rows, 1]] = True
    found[rows] = region_at(smooth, at[rows])
    return found, flag


class _Clumps:
    """Pixels of the two largest clumps of images above thresholds, remembered by threshold."""

    def __init__(self, light: Array, counted: Mask) -> None:
        self.light = _cropped(light, light > 0)[0]
        self.ranked, self.count = ranked(light, counted)
        self.known = np.zeros(self.ranked.shape, dtype=bool)
        self.first, self.second = np.zeros((2, *self.ranked.shape), dtype=np.int64)

    def index(self, q: Array, rows: Rows) -> NDArray[np.intp]:
        return (q * (self.count[rows] - 1)).astype(int)

    def sizes(self, index: NDArray[np.intp], rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Largest and second largest clump at the threshold of this rank; 0 where there is no second."""
        ask = ~self.known[rows, index] & (self.ranked[rows, index] > 0)
        if ask.any():
            most = self.ranked.shape[1]
            places = np.unique(rows[ask] * most + index[ask])
            for part in np.array_split(places, -(-len(places) // _AT_ONCE)):
                self._count(part // most, part % most)
        return self.first[rows, index], self.second[rows, index]

    def _count(self, rows: Rows, index: NDArray[np.intp]) -> None:
        labels = regions(self.light[rows] >= self.ranked[rows, index][:, None, None])
        last = np.maximum.accumulate(labels.reshape(len(rows), -1).max(1))
        sizes = np.bincount(labels.ravel(), minlength=int(last[-1]) + 1)[1:]
        begin = np.concatenate([[0], last[:-1]]).astype(np.intp)
        first = np.maximum.reduceat(sizes, begin)
        owner = np.repeat(np.arange(len(rows)), np.diff(np.concatenate([begin, last[-1:]])))
        largest = np.full(len(rows), -1)
        hits = np.flatnonzero(sizes == first[owner])
        largest[owner[hits][::-1]] = hits[::-1]
        sizes[largest] = 0
        self.first[rows, index], self.second[rows, index] = first, np.maximum.reduceat(sizes, begin)
        self.known[rows, index] = True


def multimode(light: Array, counted: Mask) -> Array:
    """M: the second clump's area over the first's, at the quantile where second^2 / first is largest.

    The quantile is searched as in the reference: on a grid, refined while no second clump is found, then by
    basin-hopping from the best one, with the reference's random numbers.

    Parameters
    ----------
    light : array (B, H, W)
        Not negative; 0 outside the region.
    counted : bool array (B, H, W)
        Pixels whose values count in quantiles.

    Returns
    -------
    array (B,)
        0 where there is one clump at all thresholds.
    """
    clumps, count = _Clumps(light, counted), len(light)
    total = light.sum((1, 2))
    best, start, spacing = np.zeros(count), np.zeros(count), np.full(count, _SPACING)

    def energy(q: Array, rows: Rows) -> Array:
        value = total[rows].astype(float)
        some = np.flatnonzero((q >= 0) & (q <= 1))
        first, second = clumps.sizes(clumps.index(q[some], rows[some]), rows[some])
        split = second > 0
        value[some[split]] = -(second[split].astype(float) ** 2) / first[split]
        return value

    left, step = np.arange(count), _SPACING
    while len(left):
        grid = np.arange(0.0, 1.0, step)
        values = energy(np.tile(grid, len(left)), np.repeat(left, len(grid))).reshape(len(left), -1)
        best[left], start[left], spacing[left] = values.min(1), grid[values.argmin(1)], step
        left = left[best[left] >= 0]
        if step < 1e-3:
            break
        step /= 2
    rows = np.flatnonzero(best < 0)
    found = np.zeros(count)
    if len(rows):
        q = _hop(lambda x, asked: energy(x, rows[asked]), start[rows], -_TEMPERATURE * best[rows], spacing[rows])
        first, second = clumps.sizes(clumps.index(q, rows), rows)
        found[rows] = second / first
    return found


def _hop(energy: Callable[[Array, Rows], Array], start: Array, temperature: Array, step: Array) -> Array:
    """Basin-hopping (Wales and Doye 1997) in one dimension with simplex descents: where the lowest energy was found.

    Each function sees the same random numbers, those of scipy's routine with seed 0.
    """
    random = np.random.RandomState(0)  # the reference's generator

    def descend(x: Array):  # type: ignore[no-untyped-def]
        return nelder_mead(lambda at, rows: energy(at[:, 0], rows), x[:, None], xtol=1e-4, ftol=1e-4)

    now = descend(start)
    x, value, sound = now.x[:, 0].copy(), now.value.copy(), now.converged.copy()
    lowest_x, lowest, lowest_sound = x.copy(), value.copy(), sound.copy()
    accepted, step = np.zeros(len(start)), step.copy()
    for hop in range(1, _HOPS + 1):
        if hop % (_HOPS / 2) == 0:
            step = np.where(accepted / hop > 0.5, step / 0.9, step * 0.9)
        now = descend(x + (-step + 2 * step * random.uniform()))
        with np.errstate(over="ignore"):
            likely = np.exp(np.minimum(0, (value - now.value) / temperature)) >= random.uniform()
        accept = likely & (now.converged | ~sound)
        x, value = np.where(accept, now.x[:, 0], x), np.where(accept, now.value, value)
        sound = np.where(accept, now.converged, sound)
        accepted += accept
        lower = accept & now.converged & ((now.value < lowest) | ~lowest_sound)
        lowest_x, lowest = np.where(lower, now.x[:, 0], lowest_x), np.where(lower, now.value, lowest)
        lowest_sound |= lower
    return lowest_x


def intensity_and_deviation(light: Array, area: NDArray[np.int64]) -> tuple[Array, Array, NDArray[np.int64]]:
    """I: flux of the second hill over the brightest's; D: from the light's centre to the brightest hill's top.

    Hills are the watershed's of the image smoothed by a pixel. D is in units of the radius of a circle of the region's
    area.

    Parameters
    ----------
    light : array (B, H, W)
        Not negative; 0 outside the region.
    area : int array (B,)
        The region's pixels.

    Returns
    -------
    intensity, deviation : array (B,)
        0 with one hill; a deviation of INVALID, flag 2, without any.
    flag : array (B,)
    """
    from skimage.segmentation import watershed

    batch, height, width = light.shape
    smooth = gaussian(light, 1.0)
    tops = smooth == ndimage.maximum_filter(smooth, size=3, axes=(1, 2), mode="nearest")
    tops &= smooth > smooth.min((1, 2))[:, None, None]
    tops[:, [0, -1]] = tops[:, :, [0, -1]] = False
    owner, y, x = np.nonzero(tops)
    markers = np.zeros(light.shape, dtype=np.int32)
    markers[owner, y, x] = np.arange(1, len(owner) + 1)
    hills = watershed(-smooth, markers, connectivity=NEIGHBOURS, mask=smooth > 0)
    flux = np.bincount(hills.ravel(), smooth.ravel(), minlength=len(owner) + 1)[1:]
    order = np.lexsort((-flux, owner))
    count = np.bincount(owner, minlength=batch)
    begin = np.concatenate([[0], np.cumsum(count)[:-1]])
    some, more = count > 0, count > 1
    intensity, deviation = np.zeros(batch), np.full(batch, INVALID)
    intensity[more] = flux[order[begin[more] + 1]] / flux[order[begin[more]]]
    main = order[begin[some]]
    total = light.sum((1, 2))[some]
    with np.errstate(divide="ignore", invalid="ignore"):
        centre_x = light.sum(1)[some] @ np.arange(width) / total
        centre_y = light.sum(2)[some] @ np.arange(height) / total
        deviation[some] = np.sqrt(np.pi / area[some]) * np.hypot(x[main] - centre_x, y[main] - centre_y)
    deviation = np.where(np.isfinite(deviation), deviation, INVALID)
    return intensity, deviation, np.where(np.isnan(deviation), 2, 0)

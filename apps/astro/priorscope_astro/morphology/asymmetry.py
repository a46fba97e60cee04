"""Asymmetry under rotation by 180 degrees, and the centre that makes it least (Conselice et al. 2000).

Turning by 180 degrees about any point is a flip and a shift: with linear interpolation the same two weights hold along
an axis for all pixels of an image. The aperture's overlap with pixels is exact (:mod:`.overlap`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorscope_astro.morphology import overlap
from priorscope_astro.morphology.filters import windows
from priorscope_astro.morphology.lockstep import Rows, nelder_mead
from priorscope_astro.morphology.nearby import Nearby
from priorscope_astro.morphology.profile import Shape

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: The aperture is EXTENT Petrosian radii; a centre may be DRIFT of them from where the search starts.
EXTENT, DRIFT = 1.5, 0.25
#: Value where there is nothing to compare, so that a minimiser turns back.
NOTHING = 100.0
_MARGIN = 6
#: Steps of the simplices after which their size is below a pixel, mostly.
_CLOSE_AFTER = 7
#: Boxes (:class:`.nearby.Nearby`) are used once simplices are of NEAR pixels, drawn again when they have shrunk by
#: SHRINK, and at least of SMALLEST pixels.
_NEAR, _SHRINK, _SMALLEST = 0.05, 40, 1e-3


class Rotation:
    """Differences of images from themselves turned by 180 degrees, within apertures.

    Works in a window about ``start`` that holds apertures reaching ``reach`` pixels from centres within ``margin``
    pixels; :attr:`strayed` says which images were asked for a centre further away, whose value is then NOTHING.

    Parameters
    ----------
    images : array (B, H, W)
        0 where masked.
    masks : bool array (B, H, W)
        Masked pixels, and those that are turned onto them (the nearest pixel), do not count.
    start : array (B, 2)
        x, y.
    reach, margin : float
    """

    def __init__(self, images: Array, masks: Mask, start: Array, reach: float, margin: int) -> None:
        height, width = images.shape[1:]
        half = int(np.ceil(reach)) + margin + 2
        tall, wide = min(2 * half + 1, height), min(2 * half + 1, width)
        whole = (tall, wide) == (height, width)
        self.shape = (height, width)
        self.origin = np.zeros((len(images), 2), dtype=np.intp)
        if not whole:
            self.origin[:, 0] = np.clip(np.rint(start[:, 0]).astype(int) - half, 0, width - wide)
            self.origin[:, 1] = np.clip(np.rint(start[:, 1]).astype(int) - half, 0, height - tall)
            images, masks = (windows(one, self.origin[:, ::-1], (tall, wide)) for one in (images, masks))
        self.images = images
        self.size = (tall, wide)
        self.start, self.margin = start, margin
        self.strayed = np.zeros(len(images), dtype=bool)
        self.size_differences = overlap.differences(np.where(masks, 0.0, np.abs(images)))
        self.free_differences = overlap.differences((~masks).astype(float))
        # turned images are windows of flipped ones, shifted by whole pixels; what lies outside is 0
        reach_of_shift = int(np.abs(2 * (start - self.origin) - np.array([wide - 1, tall - 1])).max()) + 2 * margin + 3
        self.pad = min(reach_of_shift, max(tall, wide) + 1)
        flipped = np.pad(images[:, ::-1, ::-1], ((0, 0), (self.pad, self.pad), (self.pad, self.pad)))
        self.views = np.lib.stride_tricks.sliding_window_view(flipped, (tall + 1, wide + 1), axis=(1, 2))
        self.masked = np.argwhere(masks)
        count = len(images)
        self.turned = np.empty((count, tall + 1, wide + 1))
        self.turned_about = np.full((count, 2), np.iinfo(np.intp).min)
        shapes = {"lines": (tall, wide + 1), "found": (tall, wide), "weights": (tall, wide)}
        shapes |= {"corners": (tall + 1, wide + 1), "caps": (tall + 1, wide + 1)}
        self.memory: dict[str, Array | None] = {name: np.empty((count, *shape)) for name, shape in shapes.items()}
        self.masks = masks

    def sums(self, centre: Array, rows: Rows | None, corners: Array, *, squares: bool = False) -> tuple[Array, ...]:
        """Sums over the apertures with these corners' areas (:mod:`.overlap`) about ``centre``, in the window's frame.

        Returns
        -------
        difference, size, area : array (n,)
            Sum of |turned - image|, of |image| and the unmasked area; with ``squares`` also the sums of
            (turned - image)^2 and image^2.
        """
        twice = 2 * centre
        whole = np.floor(twice).astype(np.intp)
        part = (twice - whole)[:, :, None, None]
        turned = self.about(whole, rows)
        memory = self.memory if rows is None else dict.fromkeys(self.memory)
        lines = np.subtract(turned[:, :-1], turned[:, 1:], out=memory["lines"])
        lines *= part[:, 1]
        lines += turned[:, 1:]
        found = np.subtract(lines[:, :, :-1], lines[:, :, 1:], out=memory["found"])
        found *= part[:, 0]
        found += lines[:, :, 1:]
        images, sizes, free = (
            one if rows is None else one[rows] for one in (self.images, self.size_differences, self.free_differences)
        )
        found -= images
        np.abs(found, out=found)
        weights = overlap.pixels(corners, (memory["lines"], memory["weights"]))
        size, area = overlap.weighted(corners, sizes), overlap.weighted(corners, free)
        power = np.einsum("bij,bij,bij->b", weights, images, images) if squares else None
        if len(self.masked):
            self._leave_masked_out(rows, twice, found, weights, (size, area, power))
        difference = np.einsum("bij,bij->b", weights, found)
        if power is None:
            return difference, size, area
        return difference, size, area, np.einsum("bij,bij,bij->b", weights, found, found), power

    def about(self, whole: NDArray[np.intp], rows: Rows | None) -> Array:
        """Images turned about a pixel's corner or middle, and one line and column more; kept until that changes."""
        tall, wide = self.size
        y, x = self.pad + tall - 2 - whole[:, 1], self.pad + wide - 2 - whole[:, 0]
        if rows is not None:
            return self.views[rows, y, x]
        moved = np.flatnonzero((whole != self.turned_about).any(1))
        if len(moved):
            self.turned[moved] = self.views[moved, y[moved], x[moved]]
            self.turned_about[moved] = whole[moved]
        return self.turned

    def _leave_masked_out(
        self, rows: Rows | None, twice: Array, found: Array, weights: Array, sums: tuple[Array | None, ...]
    ) -> None:
        """Masked pixels and those that are turned onto them: no difference, no size, no area."""
        rows = np.arange(len(self.images)) if rows is None else rows
        place = np.full(len(self.images), -1)
        place[rows] = np.arange(len(rows))
        index = place[self.masked[:, 0]]
        index, masked = index[index >= 0], self.masked[index >= 0]
        y, x = masked[:, 1], masked[:, 2]
        found[index, y, x] = 0
        opposite_y = np.rint(twice[index, 1] - y).astype(int)
        opposite_x = np.rint(twice[index, 0] - x).astype(int)
        inside = (opposite_y >= 0) & (opposite_y < self.size[0]) & (opposite_x >= 0) & (opposite_x < self.size[1])
        index, y, x = index[inside], opposite_y[inside], opposite_x[inside]
        found[index, y, x] = 0
        free = ~self.masks[rows[index], y, x]
        index, y, x = index[free], y[free], x[free]
        weight, image = weights[index, y, x], self.images[rows[index], y, x]
        for total, values in zip(sums, (np.abs(image), np.ones(len(image)), image**2), strict=True):
            if total is not None:
                np.subtract.at(total, index, weight * values)

    def cas(self, centre: Array, rows: Rows, radius: Array, sky: Array) -> Array:
        """Asymmetry within circles: sum of |turned - image| less the sky's, over the sum of |image|.

        Parameters
        ----------
        centre : array (n, 2)
            x, y in the images' frame.
        rows : int array (n,)
        radius, sky : array (B,)
            Pixels; mean |turned - image| a pixel of the sky, 0 where it is unknown.
        """
        outside = (centre < 0).any(1) | (centre >= np.array(self.shape[::-1])).any(1)
        strays = ~outside & (np.abs(centre - self.start[rows]) > self.margin).any(1)
        self.strayed[rows[strays]] = True
        value = np.full(len(rows), NOTHING)
        good = ~(outside | strays)
        if not good.any():
            return value
        if 2 * np.count_nonzero(good) > len(self.images):
            # all, in memory that is there, rather than copies of some
            local = (self.start - self.origin).astype(float)
            local[rows[good]] = centre[good] - self.origin[rows[good]]
            corners = overlap.circle(local, radius, self.size, (self.memory["corners"], self.memory["caps"]))
            difference, size, area = (one[rows[good]] for one in self.sums(local, None, corners))
        else:
            some = rows[good]
            local = centre[good] - self.origin[some]
            difference, size, area = self.sums(local, some, overlap.circle(local, radius[some], self.size))
        value[good] = _ratio(difference - area * sky[rows[good]], size)
        return value


class _Search:
    """Asymmetry as a function of the centre, in windows and then in boxes that close in on it."""

    def __init__(self, images: Array, masks: Mask, start: Array, radius: Array, sky: Array, margin: int) -> None:
        self.images, self.masks, self.radius, self.sky = images, masks, radius, sky
        self.wide = Rotation(images, masks, start, float(radius.max()), margin)
        self.close: Rotation | None = None
        self.near: Nearby | None = None
        self.place = self.within = np.arange(len(images))
        self.steps, self.half = 0, np.inf

    def __call__(self, x: Array, rows: Rows) -> Array:
        if self.near is None or self.close is None:
            return self._whole(x, rows)
        place = self.place[rows]
        local = x - self.close.origin[place]
        near = self.near.holds(local, place)
        if near.all():
            return self._near(local, rows, place)
        value = np.empty(len(rows))
        if near.any():
            value[near] = self._near(local[near], rows[near], place[near])
        value[~near] = self._whole(x[~near], rows[~near])
        return value

    def _near(self, local: Array, rows: Rows, place: Rows) -> Array:
        assert self.near is not None
        difference, size, area = self.near.sums(local, place)
        return _ratio(difference - area * self.sky[rows], size)

    def _whole(self, x: Array, rows: Rows) -> Array:
        if self.close is None:
            return self.wide.cas(x, rows, self.radius, self.sky)
        self.close.strayed[:] = False
        value = self.close.cas(x, self.place[rows], self.radius[self.within], self.sky[self.within])
        far = np.flatnonzero(self.close.strayed[self.place[rows]])
        if len(far):
            value[far] = self.wide.cas(x[far], rows[far], self.radius, self.sky)
        return value

    def watch(self, simplex: Array, rows: Rows) -> None:
        """Close in once the simplices are small, and again when they are smaller, or many of them have converged."""
        self.steps += 1
        side = np.abs(simplex[:, 1:] - simplex[:, :1]).max((1, 2))
        usual = float(np.partition(side, len(side) // 2)[len(side) // 2])
        smaller = usual < _NEAR and _SHRINK * usual < self.half and self.half > _SMALLEST
        if self.steps == _CLOSE_AFTER or smaller or (self.close and 2 * len(rows) < len(self.within)):
            radius = self.radius[rows]
            self.close = Rotation(self.images[rows], self.masks[rows], simplex[:, 0], float(radius.max()), 1)
            self.within = rows
            self.place = np.zeros(len(self.images), dtype=np.intp)
            self.place[rows] = np.arange(len(rows))
            if usual < _NEAR:
                self.half = max(2 * usual, _SMALLEST)
                half = np.clip(2 * side, _SMALLEST, 2 * _NEAR)
                self.near = Nearby(self.close, simplex[:, 0] - self.close.origin, half, radius)


class _Searches:
    """Several searches as one function, of the first one's rows, then the second one's."""

    def __init__(self, searches: list[_Search]) -> None:
        self.searches = searches
        self.ends = np.cumsum([len(search.images) for search in searches])

    def _each(self, rows: Rows) -> Iterator[tuple[_Search, slice, Rows]]:
        begin = first = 0
        for search, end, last in zip(self.searches, np.searchsorted(rows, self.ends), self.ends, strict=True):
            if end > begin:
                yield search, slice(begin, end), rows[begin:end] - first
            begin, first = end, last

    def __call__(self, x: Array, rows: Rows) -> Array:
        return np.concatenate([search(x[some], own) for search, some, own in self._each(rows)])

    def watch(self, simplex: Array, rows: Rows) -> None:
        for search, some, own in self._each(rows):
            search.watch(simplex[some], own)


@dataclass
class Wanted:
    """Images of one size whose centre of least asymmetry is wanted.

    Parameters
    ----------
    images : array (B, H, W)
        0 where masked.
    masks : bool array (B, H, W)
    centroid : array (B, 2)
    brightest : int array (B, 2)
        x, y of the brightest pixel.
    radius : array (B,)
        Petrosian radius about the centroid.
    sky : array (B,)
        Mean |turned - image| a pixel of the sky, 0 where it is unknown.
    """

    images: Array
    masks: Mask
    centroid: Array
    brightest: NDArray[np.intp]
    radius: Array
    sky: Array


def least(parts: list[tuple[Array, Mask, Array, Array, Array]]) -> list[Array]:
    """Centres of least asymmetry of parts' images, masks, start, radius and sky, searched together: (B, 2) each."""
    found = [np.array(start) for _, _, start, _, _ in parts]
    left = [np.arange(len(start)) for start in found]
    for margin in (_MARGIN, max((images.shape[1 + axis] for images, *_ in parts for axis in (0, 1)), default=0)):
        some = [number for number, rows in enumerate(left) if len(rows)]
        if not some:
            break
        searches = []
        for number in some:
            images, masks, start, radius, sky = parts[number]
            rows = left[number]
            searches.append(_Search(images[rows], masks[rows], start[rows], radius[rows], sky[rows], margin))
        together = _Searches(searches)
        begin = np.concatenate([parts[number][2][left[number]] for number in some])
        best = nelder_mead(together, begin, xtol=1e-6, ftol=1e-4, watch=together.watch).x
        for number, search, centres in zip(some, searches, np.split(best, together.ends[:-1]), strict=True):
            found[number][left[number]] = centres
            left[number] = left[number][search.wide.strayed]
    return found


def centre(wanted: list[Wanted]) -> list[tuple[Array, NDArray[np.int64]]]:
    """Centre of least asymmetry within DRIFT Petrosian radii of the centroid.

    Where the search ends further away it begins again from the brightest pixel; where it ends too far from that one,
    the centroid is taken.

    Returns
    -------
    list of (centre, flag)
        Arrays (B, 2) and (B,); the flag is 1 where it began again, 2 where the centroid was taken.
    """
    found = least([(one.images, one.masks, one.centroid, EXTENT * one.radius, one.sky) for one in wanted])
    flags = [np.zeros(len(one), dtype=np.int64) for one in found]
    away = [
        np.flatnonzero(np.linalg.norm(at - one.centroid, axis=1) > DRIFT * one.radius)
        for at, one in zip(found, wanted, strict=True)
    ]
    starts = [one.brightest[rows].astype(float) for one, rows in zip(wanted, away, strict=True)]
    again = least(
        [
            (one.images[rows], one.masks[rows], start, EXTENT * one.radius[rows], one.sky[rows])
            for one, rows, start in zip(wanted, away, starts, strict=True)
        ]
    )
    for at, flag, one, rows, start, second in zip(found, flags, wanted, away, starts, again, strict=True):
        lost = np.linalg.norm(second - start, axis=1) > DRIFT * one.radius[rows]
        at[rows] = np.where(lost[:, None], one.centroid[rows], second)
        flag[rows] = np.where(lost, 2, 1)
    return list(zip(found, flags, strict=True))


def asymmetries(
    images: Array,
    masks: Mask,
    at: Array,
    radius: Array,
    sky: Array,
    sigma: Array,
    ring: Shape,
    inner: Array,
    outer: Array,
) -> dict[str, Array]:
    """Asymmetry, its square form (Sazonova et al. 2024, eq. 27) and that of an elliptical ring, about one centre.

    Parameters
    ----------
    at : array (B, 2)
    radius : array (B,)
        Of the circles of the first two.
    sky, sigma : array (B,)
        Mean |turned - image| a pixel, and standard deviation, of the sky; NaN where unknown.
    ring : Shape
    inner, outer : array (B,)
        The ring's semi-major axes.
    """
    reach = float(max(radius.max(), np.nanmax(outer)))
    turn = Rotation(images, masks, at, reach, 1)
    local = at - turn.origin
    circle = overlap.circle(local, radius, turn.size)
    difference, size, area, square, power = turn.sums(local, None, circle, squares=True)
    known = np.isfinite(sky)
    sky, noise = np.where(known, sky, 0), np.where(known, sigma, 0) ** 2
    found = {"asymmetry": _ratio(difference - area * sky, size)}
    with np.errstate(divide="ignore", invalid="ignore"):
        found["rms_asymmetry2"] = (square - 2 * area * noise) / (power - area * noise)
    shape = ring.moved(turn.origin.astype(float))
    corners = shape.corners(outer, turn.size) - shape.corners(inner, turn.size)
    difference, size, area = turn.sums(local, None, corners)
    found["outer_asymmetry"] = _ratio(difference - area * sky, size)
    return found


def shape_asymmetry(segments: Mask, masks: Mask, at: Array, radius: Array) -> Array:
    """Asymmetry of a source's outline within circles of ``radius`` (Pawlik et al. 2016)."""
    turn = Rotation(segments.astype(float), masks, at, float(np.nanmax(radius)), 1)
    local = at - turn.origin
    difference, size, _ = turn.sums(local, None, overlap.circle(local, radius, turn.size))
    return _ratio(difference, size)


def _ratio(over: Array, under: Array) -> Array:
    return np.where(under == 0, NOTHING, over / np.where(under == 0, 1, under))

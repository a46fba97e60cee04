"""Asymmetry of images about centres near a known one, where most pixels need not be looked at again.

Between two places half a pixel apart an image turned by 180 degrees is bilinear in the place. A pixel inside all the
apertures, whose difference keeps its sign throughout a box of centres, so adds a bilinear function of the centre to
the sum, the same four numbers for all of them. Others are listed: those at the aperture's edge, and those whose
difference changes its sign.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Mask = NDArray[np.bool_]


class Turning(Protocol):
    """Images in windows, (B, H, W), 0 where masked, and what they are turned about half of ``whole``."""

    images: Array
    masks: Mask

    def about(self, whole: Index, rows: Index) -> Array: ...


class Nearby:
    """Sums over circles about centres in a box each, of an image's difference from itself turned about that centre.

    Parameters
    ----------
    turning : Turning
        Images in windows, and those turned.
    middle : array (B, 2)
        x, y of the boxes' middles, in the windows' frame.
    half : array (B,)
        Half the boxes' sides. No box reaches over a half or whole pixel.
    radius : array (B,)
    """

    def __init__(self, turning: Turning, middle: Array, half: Array, radius: Array) -> None:
        images, masks = turning.images, turning.masks
        whole = np.floor(2 * middle).astype(np.intp)
        turned = turning.about(whole, np.arange(len(images)))
        count, height, width = images.shape
        self.whole, self.radius, self.size = whole, radius, (height, width)
        self.low = np.maximum(2 * (middle - half[:, None]) - whole, 0)
        self.high = np.minimum(2 * (middle + half[:, None]) - whole, 1)
        last = turned[:, 1:, 1:]
        by_x, by_y = turned[:, 1:, :-1] - last, turned[:, :-1, 1:] - last
        by_both = turned[:, :-1, :-1] - last
        by_both -= by_x
        by_both -= by_y
        terms = np.stack([last - images, by_x, by_y, by_both], axis=1)
        lowest, highest = np.full(images.shape, np.inf), np.full(images.shape, -np.inf)
        for y in (self.low[:, 1], self.high[:, 1]):
            constant, slope = (terms[:, part] + y[:, None, None] * terms[:, part + 2] for part in (0, 1))
            for x in (self.low[:, 0], self.high[:, 0]):
                value = slope * x[:, None, None]
                value += constant
                np.minimum(lowest, value, out=lowest)
                np.maximum(highest, value, out=highest)
        x, y = np.abs(np.arange(width) - middle[:, :1]), np.abs(np.arange(height) - middle[:, 1:])
        near = (np.maximum(y - 0.5, 0) ** 2)[:, :, None] + (np.maximum(x - 0.5, 0) ** 2)[:, None]
        far = ((y + 0.5) ** 2)[:, :, None] + ((x + 0.5) ** 2)[:, None]
        reach = np.sqrt(2) * half
        inside = far <= (np.maximum(radius - reach, 0) ** 2)[:, None, None]
        edge = (near < ((radius + reach) ** 2)[:, None, None]) & ~inside
        free = ~masks
        inside &= free
        self.masks: Mask | None = None
        if masks.any():
            self.masks = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
            opposite = self._perhaps_opposite(masks)
            edge |= opposite & inside
            inside &= ~opposite
        edge &= free
        positive, negative = inside & (lowest >= 0), inside & (highest <= 0)
        sign = (positive.astype(float) - (negative & ~positive)).reshape(count, -1)
        self.settled = np.einsum("bkn,bn->kb", terms.reshape(count, 4, -1), sign)
        self.size_inside = np.einsum("bij,bij->b", np.abs(images), inside)
        self.area_inside = inside.sum((1, 2)).astype(float)
        every = np.arange(count)[:, None]
        y_, x_, real = _listed(inside & ~positive & ~negative)
        self.open = np.moveaxis(terms[every, :, y_, x_], 2, 0) * real
        self.y, self.x, real = _listed(edge)
        self.edge = np.moveaxis(terms[every, :, self.y, self.x], 2, 0) * real
        self.edge_sizes = np.stack([np.abs(images[every, self.y, self.x]) * real, real])

    def _perhaps_opposite(self, masks: Mask) -> Mask:
        """Pixels that some centre in the box turns onto a masked one."""
        owner, *masked = np.nonzero(masks)
        found = np.zeros_like(masks)
        ends = [
            [np.rint(self.whole[owner, axis] + part[owner, axis] - at).astype(int) for part in (self.low, self.high)]
            for axis, at in ((1, masked[0]), (0, masked[1]))
        ]
        for y in ends[0]:
            for x in ends[1]:
                there = (y >= 0) & (y < self.size[0]) & (x >= 0) & (x < self.size[1])
                found[owner[there], y[there], x[there]] = True
        return found

    def holds(self, centre: Array, rows: Index) -> Mask:
        """Whether centres (n, 2) are in the boxes of ``rows``."""
        part = 2 * centre - self.whole[rows]
        return np.asarray(((part >= self.low[rows]) & (part <= self.high[rows])).all(1))

    def sums(self, centre: Array, rows: Index) -> tuple[Array, Array, Array]:
        """Sums within circles about ``centre`` (n, 2) of |turned - image| and of |image|, and the unmasked area."""
        x, y = (2 * centre - self.whole[rows]).T
        terms = np.stack([np.ones_like(x), x, y, x * y])
        lists = self.settled, self.open, self.edge, self.edge_sizes, self.y[None], self.x[None]
        settled, opened, edge, sizes, at_y, at_x = (
            one if len(rows) == len(self.radius) else one.take(rows, 1) for one in lists
        )
        weights = _overlap(at_x[0] - centre[:, :1], at_y[0] - centre[:, 1:], self.radius[rows, None])
        if self.masks is not None:
            mirror_y = np.clip(np.rint(2 * centre[:, 1:] - at_y[0]).astype(int) + 1, 0, self.size[0] + 1)
            mirror_x = np.clip(np.rint(2 * centre[:, :1] - at_x[0]).astype(int) + 1, 0, self.size[1] + 1)
            weights *= ~self.masks[rows[:, None], mirror_y, mirror_x]
        difference = (settled * terms).sum(0)
        difference += np.abs(_bilinear(opened, terms)).sum(1)
        difference += (np.abs(_bilinear(edge, terms)) * weights).sum(1)
        size, area = (sizes * weights).sum(2)
        return difference, self.size_inside[rows] + size, self.area_inside[rows] + area


def _bilinear(coefficients: NDArray, terms: Array) -> Array:
    found = coefficients[1] * terms[1, :, None]
    found += coefficients[0]
    slope = coefficients[3] * terms[1, :, None]
    slope += coefficients[2]
    slope *= terms[2, :, None]
    found += slope
    return found


def _listed(chosen: Mask) -> tuple[Index, Index, Array]:
    """Row and column of the chosen pixels of each image, (B, most), filled up with pixel 0; and 1 where not filled."""
    owner, *where = np.nonzero(chosen)
    count = np.bincount(owner, minlength=len(chosen))
    place = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    y, x = np.zeros((2, len(chosen), int(count.max())), dtype=np.intp)
    y[owner, place], x[owner, place] = where
    return y, x, (np.arange(y.shape[1]) < count[:, None]).astype(float)


def _overlap(x: Array, y: Array, r: Array) -> Array:
    """Overlap of pixels at x, y from the centres with circles of radius r, all (n, L) or (n, 1)."""
    ends = np.empty((2, 2, *x.shape))
    np.add(x, np.array([-0.5, 0.5])[:, None, None], out=ends[0])
    np.add(y, np.array([-0.5, 0.5])[:, None, None], out=ends[1])
    sign = np.sign(ends)
    square = ends**2
    np.minimum(ends, r, out=ends)
    np.maximum(ends, -r, out=ends)
    arc = np.sqrt(np.maximum(r**2 - square, 0))
    arc *= ends
    arc += r**2 * np.arcsin(ends / r)
    arc *= 0.5
    # areas between the axes and the corners, (2, 2, n, L)
    area = (arc[0] - (np.pi / 4 * r**2) * sign[0])[:, None] * sign[1]
    area += arc[1] * sign[0][:, None]
    product = ends[0][:, None] * ends[1]
    np.copyto(area, product, where=square[0][:, None] + square[1] <= r**2)
    return area[1, 1] - area[0, 1] - area[1, 0] + area[0, 0]

"""Sums of images over circles and ellipses with exact overlap, for the cost of a perimeter rather than of an area.

As in :mod:`.overlap` a sum is the scalar product of corners' areas and an image's mixed second differences. Along a
column of corners the area is a polynomial of y inside the aperture, and outside it a function of x added to one of y:
of what was added up along columns and rows beforehand, only the values where they cross the aperture are needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Mask = NDArray[np.bool_]
_TINY = 1e-9
#: Part by which the square of an aperture's size is larger where it crosses lines of corners: rows and columns then
#: agree on a corner that lies on the aperture by construction.
_LARGER = 2e-13


class Sums:
    """Sums over one aperture a row, of K images each.

    Parameters
    ----------
    images : array (K, B, H, W)
        0 outside.
    ellipses : bool
        Whether :meth:`ellipse` will be asked for.
    """

    def __init__(self, images: Array, *, ellipses: bool) -> None:
        kinds, count, height, width = images.shape
        self.size = (height, width)
        # steps of the image across each line of corners, by the number of corners before; none outside the image
        rows = np.zeros((kinds, count, height + 1, width + 2))
        rows[:, :, :-1, 1:-1] = images
        rows[:, :, 1:, 1:-1] -= images
        # along columns also the sums of all steps but the last, and of these times the pixel's number
        columns = np.zeros((3 if ellipses else 2, kinds, count, height + 2, width + 1))
        steps, sums = columns[0], columns[1]
        steps[:, :, 1:-1, :-1] = images
        steps[:, :, 1:-1, 1:] -= images
        for line in range(1, height + 1):
            np.add(sums[:, :, line], steps[:, :, line], out=sums[:, :, line + 1])
            if ellipses:
                np.multiply(steps[:, :, line], line - 1, out=columns[2][:, :, line + 1])
                columns[2][:, :, line + 1] += columns[2][:, :, line]
        self.rows, self.columns = rows.reshape(kinds, -1), columns.reshape(len(columns), kinds, -1)
        self.row = np.arange(count * (height + 1)).reshape(count, -1) * (width + 2)
        self.column = np.arange(count)[:, None] * ((height + 2) * (width + 1)) + np.arange(width + 1)
        self.x, self.y = np.arange(width + 1) - 0.5, np.arange(height + 1) - 0.5

    def circle(self, centre: Array, radius: Array, which: Index | None = None) -> Array:
        """Sums over circles about ``centre`` (n, 2), of all or ``which`` rows: (K, n).

        A radius that is not above 0 counts as an empty circle.
        """
        r, (cx, cy) = np.maximum(radius, _TINY)[:, None], centre.T[:, :, None]
        x, arc, half, off = _quarter(self.x - cx, r)
        # a corner's area above the circle, or minus that below it, but for a function of y
        beside = arc - np.where(x > 0, 1, -1) * (np.pi / 4 * r**2)
        (first, (low_step, low_sum, *_)), (last, (high_step, high_sum, *_)) = self._columns(cy + 0.5, half, off, which)
        found = (x * (last - (cy + 1.5)) - beside) * high_step
        found -= (x * (first - (cy + 1.5)) + beside) * low_step
        found -= x * (high_sum - low_sum)
        _, arc, half, off = _quarter(self.y - cy, r)
        return found.sum(2) - self._rows(arc, cx + 0.5, half, off, which)

    def ellipse(self, centre: Array, a: Array, b: Array, theta: Array, which: Index | None = None) -> Array:
        """Sums over ellipses (as in :func:`.overlap.ellipse`), of all or ``which`` rows: (K, n)."""
        a, b = (np.maximum(one, _TINY)[:, None] for one in (a, b))
        cx, cy = centre.T[:, :, None]
        cos, sin = np.cos(theta)[:, None], np.sin(theta)[:, None]
        xx, yy, xy = (a * cos) ** 2 + (b * sin) ** 2, (a * sin) ** 2 + (b * cos) ** 2, (a**2 - b**2) * sin * cos
        right, top, tilt = np.sqrt(xx), np.sqrt(yy), xy / yy

        def below(height: Array) -> Array:
            """Half the area below a height."""
            u = np.minimum(np.maximum(height / top, -1), 1)
            return 0.5 * a * b * (u * np.sqrt((1 - u) * (1 + u)) + np.arcsin(u) + 0.5 * np.pi)

        raw = self.x - cx
        x = np.minimum(np.maximum(raw, -right), right)
        square = (1 - raw / right) * (1 + raw / right)
        middle, chord = xy / xx * x, a * b / right
        half = chord * np.sqrt(np.maximum(square, 0))
        enters, leaves = middle - half, middle + half
        (first, (low_step, *low_sums)), (last, (high_step, *high_sums)) = self._columns(
            middle + (cy + 0.5), *_half(chord, square), which
        )
        low, high = (at - (cy + 1.5) for at in (first, last))
        # chords below the entry, and above the exit, lie wholly left of the line or wholly right of it
        number = np.arange(len(self.x))
        right_of = [number > np.floor(sign * tilt * top + (cx + 0.5)) for sign in (-1, 1)]
        weight = x * (enters - low) - 0.5 * tilt * (enters**2 - low**2)
        weight -= np.where(right_of[0], 1, -1) * below(enters)
        found = weight * low_step
        weight = x * (high - leaves) - 0.5 * tilt * (high**2 - leaves**2)
        weight += np.where(right_of[1], 1, -1) * below(leaves)
        found += weight * high_step
        found -= (x + tilt * cy) * (high_sums[0] - low_sums[0])
        found += tilt * (high_sums[1] - low_sums[1])
        raw = self.y - cy
        y = np.minimum(np.maximum(raw, -top), top)
        crossing = _half(a * b / top, (1 - raw / top) * (1 + raw / top))
        return found.sum(2) - self._rows(below(y), tilt * y + (cx + 0.5), *crossing, which)

    def _columns(
        self, middle: Array, half: Array, beside: Mask, which: Index | None
    ) -> list[tuple[Index, list[Array]]]:
        """At both crossings of each column: how many corners come before it, and what was added up."""
        start, found = self.column if which is None else self.column[which], []
        for before in _crossings(middle, half, beside, self.size[0]):
            at = start + before * len(self.x)
            found.append((before, [part.take(at, axis=1) for part in self.columns]))
        return found

    def _rows(self, weight: Array, middle: Array, half: Array, beside: Mask, which: Index | None) -> Array:
        start = self.row if which is None else self.row[which]
        first, last = _crossings(middle, half, beside, self.size[1])
        return ((self.rows.take(start + first, axis=1) + self.rows.take(start + last, axis=1)) * weight).sum(2)


def _quarter(raw: Array, r: Array) -> tuple[Array, Array, Array, Mask]:
    """x within a circle, the area under the arc from 0 to x; half the chord there, and which lines lie beside it."""
    x = np.minimum(np.maximum(raw, -r), r)
    square = (r - raw) * (r + raw)
    arc = 0.5 * (x * np.sqrt(np.maximum(square, 0)) + r**2 * np.arcsin(x / r))
    square += _LARGER * r**2
    return x, arc, np.sqrt(np.maximum(square, 0)), square < 0


def _half(chord: Array, square: Array) -> tuple[Array, Mask]:
    """Half an ellipse's chord where lines of corners end; and which lines lie beside it."""
    square = square + _LARGER
    return chord * np.sqrt(np.maximum(square, 0)), square < 0


def _crossings(middle: Array, half: Array, beside: Mask, side: int) -> tuple[Index, Index]:
    """How many corners come before chords, and before their ends; the same where lines lie ``beside`` the aperture."""
    last = np.floor(middle + half)
    last += 1
    first = np.ceil(middle - half)
    np.copyto(first, last, where=beside)
    before, until = (np.minimum(np.maximum(one, 0), side + 1).astype(np.intp) for one in (first, last))
    return before, until

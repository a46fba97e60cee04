"""Exact overlap of circles and ellipses with square pixels, for many apertures at once.

An aperture is described by its area below and left of each corner of the pixel grid, in closed form: the part of it in
a pixel is the mixed second difference over the pixel's corners, and a sum of pixels weighted with their overlap is a
scalar product of the corners' areas with the image's mixed second differences (:func:`differences`). Square roots and
arc sines are needed along each axis only, never per pixel. Pixel i reaches from i - 0.5 to i + 0.5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_TINY = 1e-9


def differences(images: Array) -> Array:
    """Mixed second differences of images (B, H, W) that are 0 outside: (B, H + 1, W + 1), one a corner."""
    batch, height, width = images.shape
    found = np.zeros((batch, height + 1, width + 1))
    found[:, :-1, :-1] = images
    found[:, 1:, 1:] += images
    found[:, :-1, 1:] -= images
    found[:, 1:, :-1] -= images
    return found


def pixels(corners: Array, out: tuple[Array | None, Array | None] = (None, None)) -> Array:
    """Overlap with each pixel (B, H, W), from the corners' areas (B, H + 1, W + 1).

    ``out``: memory for an array (B, H, W + 1) and for the result.
    """
    rows = np.subtract(corners[:, 1:], corners[:, :-1], out=out[0])
    return np.subtract(rows[:, :, 1:], rows[:, :, :-1], out=out[1])


def weighted(corners: Array, image_differences: Array) -> Array:
    """Sum over pixels of image times overlap, (B,)."""
    batch = len(corners)
    return np.einsum("bn,bn->b", corners.reshape(batch, -1), image_differences.reshape(batch, -1))


def circle(
    centre: Array, radius: Array, shape: tuple[int, int], out: tuple[Array | None, Array | None] = (None, None)
) -> Array:
    """Corners' areas of circles: signed area between the axes through the centre and the corner.

    Parameters
    ----------
    centre : array (B, 2)
        x and y in pixels.
    radius : array (B,)
        In pixels; not above 0 counts as an empty circle.
    shape : tuple of int
        Height and width of the images.
    out : tuple of array (B, H + 1, W + 1), optional
        Memory for the result, and to work in.
    """
    r = np.maximum(radius, _TINY)[:, None]
    x = np.minimum(np.maximum(np.arange(shape[1] + 1) - 0.5 - centre[:, :1], -r), r)
    y = np.minimum(np.maximum(np.arange(shape[0] + 1) - 0.5 - centre[:, 1:], -r), r)
    chord = np.sqrt((r - y) * (r + y))
    # area under the arc from 0 to x, and to the chord's end
    arc = 0.5 * (x * np.sqrt((r - x) * (r + x)) + r**2 * np.arcsin(x / r))[:, None]
    end = 0.5 * (chord * np.abs(y) + r**2 * np.arcsin(np.minimum(chord / r, 1)))[:, :, None]
    chord, x = chord[:, :, None], x[:, None]
    area = np.maximum(x, -chord, out=out[0])
    np.minimum(area, chord, out=area)
    area *= y[:, :, None]
    cap = np.maximum(arc, -end, out=out[1])
    np.minimum(cap, end, out=cap)
    np.subtract(arc, cap, out=cap)
    cap *= np.sign(y)[:, :, None]
    area += cap
    return area


def ellipse(centre: Array, a: Array, b: Array, theta: Array, shape: tuple[int, int]) -> Array:
    """Corners' areas of ellipses: area below and left of the corner.

    Parameters
    ----------
    centre : array (B, 2)
        x and y in pixels.
    a, b : array (B,)
        Semi-axes in pixels; not above 0 counts as empty.
    theta : array (B,)
        Angle of ``a`` from the x axis towards the y axis, radians.
    shape : tuple of int
        Height and width of the images.
    """
    a, b = np.maximum(a, _TINY)[:, None], np.maximum(b, _TINY)[:, None]
    cos, sin = np.cos(theta)[:, None], np.sin(theta)[:, None]
    xx, yy, xy = (a * cos) ** 2 + (b * sin) ** 2, (a * sin) ** 2 + (b * cos) ** 2, (a**2 - b**2) * sin * cos
    right, top = np.sqrt(xx), np.sqrt(yy)
    x = np.minimum(np.maximum(np.arange(shape[1] + 1) - 0.5 - centre[:, :1], -right), right)
    y = np.minimum(np.maximum(np.arange(shape[0] + 1) - 0.5 - centre[:, 1:], -top), top)

    def below(height: Array) -> Array:
        """Half the area below a height."""
        u = np.minimum(np.maximum(height / top, -1), 1)
        return 0.5 * a * b * (u * np.sqrt((1 - u) * (1 + u)) + np.arcsin(u) + 0.5 * np.pi)

    # where the upright line through x enters and leaves the ellipse; at each height the chord's middle is at tilt y
    tilt = (xy / yy)[:, :, None]
    half = a * b / right * np.sqrt(np.maximum((1 - x / right) * (1 + x / right), 0))
    enters, leaves = xy / xx * x - half, xy / xx * x + half
    p, p_enters, p_leaves = below(y)[:, :, None], below(enters)[:, None], below(leaves)[:, None]
    # chords below the entry, and above the exit, lie wholly left of the line or wholly right of it
    left_below = 2.0 * (x > -xy / top)[:, None]
    left_above = 2.0 * (x > xy / top)[:, None]
    enters, leaves, x = enters[:, None], leaves[:, None], x[:, None]
    t = np.maximum(y[:, :, None], enters)
    np.minimum(t, leaves, out=t)
    area = t * t
    area *= -0.5 * tilt
    t *= x
    area += t
    area += 0.5 * tilt * enters**2 - x * enters
    part = np.minimum(p, p_enters)
    part *= left_below - 1
    area += part
    np.minimum(p, p_leaves, out=part)
    area += part
    np.subtract(p, p_leaves, out=part)
    np.maximum(part, 0, out=part)
    part *= left_above
    area += part
    return area

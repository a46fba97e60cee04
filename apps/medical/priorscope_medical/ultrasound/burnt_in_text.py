"""Where a cine shows echoes, and where text, marks and borders of the scanner's screen, which nobody may touch.

Echoes move; the screen does not. So the sector is the convex hull of what changes over time, and what is bright, sharp
and still in it is written over it. Text that is dim, or that lies over a bright wall, is not recognised. One picture
alone does not tell: there the sector is the largest bright region, and only coloured marks are recognised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from priorscope.errors import InputError
from priorscope_medical.ultrasound.cine import Cine

Mask = NDArray[np.bool_]
#: Grey levels (of 255) of standard deviation over time that are more than compression's.
_MOVES = 0.5
#: What counts as written: grey levels that a pixel has, those over its surroundings, and its deviation over time.
_LIGHT, _OVER, _STILL = 120, 60, 1.0
#: Share of the sector that may be coloured in a B-mode cine.
_COLOUR = 0.004


@dataclass(frozen=True)
class Screen:
    """Parts of a picture.

    Parameters
    ----------
    sector : ndarray of bool [H, W]
        Where echoes are shown.
    kept : ndarray of bool [H, W]
        What stays as it is: everything outside the sector, and what is written over it.
    how : str
        How they were found.
    """

    sector: Mask
    kept: Mask
    how: str


def find_screen(cine: Cine) -> Screen:
    """Find the sector and what is written over it.

    Raises
    ------
    InputError
        A constant picture, no sector, or colour that moves (Doppler).
    """
    grey = 255 * cine.grey
    if float(grey.max() - grey.min()) < 8:
        raise InputError(
            "the pictures are constant: there are no echoes in them", path=cine.path, remedy="Check the file."
        )
    if len(grey) > 1:
        deviation = grey.std(0)
        active, how = deviation > _MOVES, "the convex hull of what changes over time"
        if active.mean() < 0.01:
            raise InputError(
                "hardly anything changes over time", path=cine.path, remedy="Give one frame of it, or a moving cine."
            )
    else:
        deviation = np.zeros(grey.shape[1:])
        active, how = _bright(grey[0]), "the largest bright region of the one picture"
    sector = _largest(active)
    if sector.mean() < 0.01:
        raise InputError(
            "no sector with echoes is found in the pictures", path=cine.path, remedy="Give B-mode, in its usual grey."
        )
    sector = _hull(sector)
    coloured = cine.coloured
    _refuse_doppler(cine, coloured, sector)
    written = coloured.any(0) & sector
    if len(grey) > 1:
        mean = grey.mean(0)
        still = (deviation < _STILL) & (mean > _LIGHT) & (mean - ndimage.median_filter(mean, 15) > _OVER)
        written |= _small(still & sector, most=0.01 * sector.sum())
    written = ndimage.binary_dilation(written, iterations=2) & sector
    return Screen(sector, ~sector | written, how)


def _refuse_doppler(cine: Cine, coloured: Mask, sector: Mask) -> None:
    """Colour of a mark stands still; that of blood flow comes and goes."""
    share = coloured[:, sector].mean(1)
    fickle = coloured.any(0) & ~coloured.all(0) & sector if len(coloured) > 1 else np.zeros_like(sector)
    if share.max() > 0.05 or fickle.sum() > _COLOUR * sector.sum():
        raise InputError(
            "shows colour in its sector, as colour Doppler does",
            path=cine.path,
            remedy="Only B-mode is dehazed: export it without colour, or in grey for a tinted B-mode.",
        )


def _bright(picture: NDArray[np.floating]) -> Mask:
    smooth = ndimage.gaussian_filter(picture, 2.0)
    return np.asarray(smooth > max(4.0, 0.04 * float(smooth.max())))


def _largest(mask: Mask) -> Mask:
    joined = ndimage.binary_closing(np.pad(mask, 4), iterations=2)[4:-4, 4:-4]
    opened = ndimage.binary_opening(joined, iterations=2)
    labels, count = ndimage.label(opened)
    if not count:
        return np.zeros_like(mask)
    sizes = ndimage.sum_labels(opened, labels, range(1, count + 1))
    return np.asarray(labels == 1 + int(np.argmax(sizes)))


def _hull(mask: Mask) -> Mask:
    from skimage.morphology import convex_hull_image

    return np.asarray(convex_hull_image(mask))


def _small(mask: Mask, most: float) -> Mask:
    """Connected parts of at most so many pixels: letters, not walls."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    if not count:
        return mask
    sizes = ndimage.sum_labels(mask, labels, range(1, count + 1))
    return np.asarray(np.isin(labels, 1 + np.flatnonzero(sizes <= most)))

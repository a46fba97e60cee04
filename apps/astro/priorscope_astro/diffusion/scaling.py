"""From images to the network's values and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from priorscope.errors import InputError
from priorscope_astro.data.stamps import check_stamp
from priorscope_astro.diffusion.spec import ModelSpec

#: Standard deviation of the network's values over the training images.
TARGET_STD = 0.5


class Scaling:
    """Images of a spec <-> values (B, bands, side, side) of a standard deviation of about a half."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.stretch = None
        if spec.stretch is not None:
            from priorscope_astro.imaging.stretch import AsinhStretch

            self.stretch = AsinhStretch.from_dict(spec.stretch)
        self._offset = np.asarray(spec.offset, np.float32)[:, None, None]
        self._scale = np.asarray(spec.scale, np.float32)[:, None, None]

    def values(self, image: NDArray[Any], *, what: str = "an image") -> NDArray[np.float32]:
        """What the network sees of one image, cut or resized to the spec's side.

        Parameters
        ----------
        image : uint8 (H, W, 3) of displays; float (bands, H, W) of flux
        what : str
            Named in messages.

        Returns
        -------
        float32 (bands, side, side)

        Raises
        ------
        InputError
            Another shape or dtype, NaN pixels, a mosaic, or a stamp smaller than the side.
        """
        side = self.spec.side
        if self.stretch is None:
            y = display_values(image, side, what=what)
        else:
            y = np.asarray(self.stretch.apply(cut_stamp(image, len(self.spec.bands), side, what=what)), np.float32)
        return (y - self._offset) / self._scale

    def images(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Images of the network's values (B, bands, side, side): uint8 (B, side, side, 3), or flux of that shape."""
        y = values * self._scale + self._offset
        if self.stretch is None:
            return np.moveaxis((y.clip(0, 1) * 255).round().astype(np.uint8), 1, -1)
        return np.asarray(self.stretch.invert(y), np.float32)


def display_values(image: NDArray[Any], side: int, *, what: str = "an image") -> NDArray[np.float32]:
    """A picture uint8 (H, W, 3) as float32 (3, side, side) in 0 ... 1: its central square, resized."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"{what} is {image.dtype} {list(image.shape)}", remedy="A display is uint8 [H, W, 3].")
    least = min(image.shape[:2])
    top, left = ((length - least) // 2 for length in image.shape[:2])
    square = image[top : top + least, left : left + least]
    if least != side:
        square = np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.LANCZOS))
    return np.moveaxis(square, -1, 0).astype(np.float32) / np.float32(255)


def cut_stamp(flux: NDArray[Any], bands: int, side: int, *, what: str = "a stamp") -> NDArray[np.float32]:
    """The central square of a stamp (bands, H, W): float32 (bands, side, side). Nothing is resampled."""
    if flux.ndim != 3 or flux.shape[0] != bands:
        raise InputError(f"{what} has shape {list(flux.shape)}", remedy=f"A stamp here is [{bands}, y, x].")
    check_stamp(flux, what=what)
    height, width = flux.shape[1:]
    if min(height, width) < side:
        raise InputError(f"{what} has {width} x {height} pixels", remedy=f"The model takes {side} or more.")
    top, left = (height - side) // 2, (width - side) // 2
    return np.asarray(flux[:, top : top + side, left : left + side], np.float32)

"""What is done to the network's input alone: blur, median blur, a hole. The reconstruction target does not have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from priorscope.errors import InputError

#: Sides of the blurs' windows, pixels (those that albumentations draws from by default).
_WINDOWS = (3, 5, 7)


@dataclass(frozen=True)
class Damage:
    """How often and how much; the defaults are SDPose's."""

    blur: float = 0.1
    """Share of the crops that a box blur happens to."""
    median: float = 0.1
    """Share of the crops with a median filter."""
    hole: float = 1.0
    """Share of the crops with a black rectangle."""
    hole_sides: tuple[float, float] = (0.2, 0.4)
    """Least and greatest side of it, as shares of the crop's sides."""

    def check(self) -> Damage:
        """Refuse numbers that make no sense (InputError)."""
        for name in ("blur", "median", "hole"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)}", remedy="Use a share from 0 to 1.")
        if not 0 < self.hole_sides[0] <= self.hole_sides[1] <= 1:
            raise InputError(f"sides of the hole {self.hole_sides}", remedy="Give two shares of the crop, up to 1.")
        return self


def damaged(image: NDArray[np.uint8], how: Damage, random: np.random.Generator) -> NDArray[np.uint8]:
    """A damaged copy of a uint8 RGB image (H, W, 3); nothing moves."""
    blurred, filtered, pierced = random.random(3)
    windows = random.choice(_WINDOWS, 2)
    sides, place = random.random(2), random.random(2)
    image = image.copy()
    if blurred < how.blur:
        image = ndimage.uniform_filter(image, (windows[0], windows[0], 1), mode="mirror")
    if filtered < how.median:
        image = ndimage.median_filter(image, (windows[1], windows[1], 1), mode="mirror")
    if pierced < how.hole:
        size = np.array(image.shape[:2])
        low, high = how.hole_sides
        extent = np.maximum((size * (low + sides * (high - low))).astype(int), 1)
        top, left = (place * (size - extent + 1)).astype(int)
        image[top : top + extent[0], left : left + extent[1]] = 0
    return image

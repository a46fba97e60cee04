"""Photometric distortion: brightness, contrast, saturation, hue, each in half of the crops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from priorscope.errors import InputError


@dataclass(frozen=True)
class ColourAugmentation:
    """How far colours are changed; the defaults are SDPose's."""

    share: float = 0.5
    """Share of the crops that each change happens to."""
    brightness: float = 32.0
    """Largest change, in grey levels."""
    contrast: tuple[float, float] = (0.5, 1.5)
    """Least and greatest factor on grey levels."""
    saturation: tuple[float, float] = (0.5, 1.5)
    """Least and greatest factor."""
    hue: float = 36.0
    """Largest turn of the colour wheel, degrees; published as 18 in OpenCV's half degrees."""

    def check(self) -> ColourAugmentation:
        """Refuse numbers that make no sense (InputError)."""
        if not 0 <= self.share <= 1:
            raise InputError(f"a share {self.share} of changed colours", remedy="Use a number from 0 to 1.")
        for name in ("contrast", "saturation"):
            low, high = getattr(self, name)
            if not 0 <= low <= high < float("inf"):
                raise InputError(f"{name} {low} ... {high}", remedy="Give the least and the greatest factor.")
        for name in ("brightness", "hue"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} {getattr(self, name)}", remedy="Use 0 or more.")
        return self


def distort(image: NDArray[np.uint8], how: ColourAugmentation, random: np.random.Generator) -> NDArray[np.uint8]:
    """Change the colours of a uint8 RGB image (H, W, 3); nothing moves.

    Contrast comes before or after saturation and hue, at random. Grey levels are cut to 0 ... 255 after each step.
    """
    bright, contrasted, saturated, turned, last = random.random(5)
    level, contrast, saturation, hue = random.random(4)
    factor = how.contrast[0] + contrast * (how.contrast[1] - how.contrast[0])
    contrasted_first = contrasted < how.share and last < 0.5
    if bright < how.share:
        image = _levels(image, 1.0, (2 * level - 1) * how.brightness)
    if contrasted_first:
        image = _levels(image, factor, 0.0)
    saturation = how.saturation[0] + saturation * (how.saturation[1] - how.saturation[0])
    degrees = (2 * hue - 1) * how.hue
    if saturated < how.share or turned < how.share:
        image = _hue_and_saturation(
            image, degrees if turned < how.share else 0.0, saturation if saturated < how.share else 1.0
        )
    if contrasted < how.share and not contrasted_first:
        image = _levels(image, factor, 0.0)
    return image


def _levels(image: NDArray[np.uint8], factor: float, offset: float) -> NDArray[np.uint8]:
    table = (np.arange(256) * factor + offset).clip(0, 255).round().astype(np.uint8)
    return table[image]


def _hue_and_saturation(image: NDArray[np.uint8], degrees: float, factor: float) -> NDArray[np.uint8]:
    hsv = np.array(Image.fromarray(image).convert("HSV"))
    hsv[..., 0] = hsv[..., 0] + np.uint8(round(degrees / 360 * 256) % 256)  # wraps round, as hues do
    hsv[..., 1] = _levels(hsv[..., 1], factor, 0.0)
    return np.array(Image.fromarray(hsv, "HSV").convert("RGB"))

"""From linear light to the pictures of one camera: the same faults in all frames of a clip, new noise in each."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Sensor:
    """Settings and faults of a camera.

    Attributes
    ----------
    key : float
        Mean of the exposed picture, linear.
    balance : ndarray, (3,)
        White balance.
    gamma, contrast, saturation : float
    blur : float
        Out of focus: sigma in pixels; 0 for none.
    noise : float
        Standard deviation at mid grey, display values of 0 to 1.
    quality : int
        Of JPEG; 0 leaves the picture as it is.
    """

    key: float
    balance: Array
    gamma: float
    contrast: float
    saturation: float
    blur: float
    noise: float
    quality: int

    def gain(self, light: Array) -> float:
        """The exposure, from one frame for all of a clip."""
        brightness = light.mean(axis=-1)
        return self.key / (float(np.minimum(brightness, np.quantile(brightness, 0.97)).mean()) + 1e-4)

    def develop(self, light: Array, gain: float, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Linear light, (H, W, 3), to a picture, uint8."""
        picture = light * (gain * self.balance).astype(np.float32)
        if self.blur > 0:
            from scipy.ndimage import gaussian_filter

            picture = gaussian_filter(picture, (self.blur, self.blur, 0), truncate=2.5)
        picture = picture / (1 + 0.35 * picture)
        display = np.clip(picture * 1.15, 0, 1) ** np.float32(1 / self.gamma)
        grey = display.mean(axis=-1, keepdims=True)
        display = grey + self.saturation * (display - grey)
        display = 0.5 + (1 + self.contrast) * (display - 0.5)
        if self.noise > 0:
            display = display + self.noise * rng.standard_normal(display.shape, dtype=np.float32)
        result = np.rint(np.clip(display, 0, 1) * 255).astype(np.uint8)
        return _jpeg(result, self.quality) if self.quality else result


def random_sensor(rng: np.random.Generator, height: int) -> Sensor:
    """What a random camera does to a picture of `height` rows."""
    warm, green = rng.normal(size=2) * [0.09, 0.03]
    return Sensor(
        key=rng.uniform(0.16, 0.42),
        balance=np.array([1 + warm, 1 + green, 1 - warm]),
        gamma=rng.uniform(1.9, 2.5),
        contrast=rng.uniform(-0.15, 0.25),
        saturation=0.0 if rng.uniform() < 0.04 else rng.uniform(0.6, 1.3),
        blur=rng.uniform(0.25, 0.6) * max(1.0, height / 192) if rng.uniform() < 0.7 else 0.0,
        noise=0.05 * rng.uniform() ** 3.5,
        quality=int(rng.integers(40, 96)) if rng.uniform() < 0.35 else 0,
    )


def _jpeg(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    with Image.open(file) as back:
        return np.asarray(back)

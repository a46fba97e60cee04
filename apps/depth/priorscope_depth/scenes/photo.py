"""From linear light to a photograph: exposure, white balance, tone curve, blur, noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def develop(light: NDArray[np.floating], valid: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Take a picture of linear light, (H, W, 3), with the settings and faults of a random camera.

    It is exposed for what is not sky (`valid`, (H, W)), as far as that can be had.

    Returns
    -------
    ndarray, uint8, (H, W, 3)
    """
    from scipy.ndimage import gaussian_filter

    height, width = light.shape[:2]
    brightness = light.mean(axis=-1)
    brightness = np.minimum(brightness, np.quantile(brightness, 0.97))
    level = brightness[valid].mean() if valid.mean() > 0.1 else brightness.mean()
    level = 0.75 * level + 0.25 * brightness.mean()
    picture = light.astype(np.float32) * np.float32(rng.uniform(0.18, 0.45) / (level + 1e-6))
    t, g = rng.normal(size=2) * [0.1, 0.03]
    picture = picture * np.array([1 + t, 1 + g, 1 - t], dtype=np.float32)
    if rng.uniform() < 0.5:
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
        x = np.linspace(-1, 1, width, dtype=np.float32)[:, None]
        picture = picture / (1 + rng.uniform(0, 0.35) * (x**2 + y**2))
    if rng.uniform() < 0.6:
        sigma = rng.uniform(0.25, 0.9) * height / 192
        picture = gaussian_filter(picture, (sigma, sigma, 0))
    noise = 0.02 * rng.uniform() ** 2
    grain = rng.standard_normal(size=picture.shape, dtype=np.float32)
    picture = picture + grain * np.sqrt(noise**2 * 0.3 + noise * 0.03 * np.maximum(picture, 0))
    # a shoulder that lets highlights run out softly, then the display's gamma with some contrast of its own
    white = rng.uniform(1.5, 4.0)
    picture = np.clip(picture, 0, None)
    picture = picture * (1 + picture / white**2) / (1 + 0.6 * picture)
    display = np.clip(picture, 0, 1) ** (1 / rng.uniform(1.9, 2.5))
    display = display + rng.uniform(-0.1, 0.25) * (display - 0.5) * (1 - np.abs(2 * display - 1))
    grey = display.mean(axis=-1, keepdims=True)
    saturation = 0.0 if rng.uniform() < 0.03 else rng.uniform(0.6, 1.25)
    display = grey + saturation * (display - grey)
    return np.rint(np.clip(display, 0, 1) * 255).astype(np.uint8)

"""From linear light to a photograph: focus, exposure, white balance, blur, noise, tone curve, sharpening, JPEG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def develop(light: Array, depth: Array, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Take a picture with the settings and faults of a random camera.

    Parameters
    ----------
    light : ndarray, (H, W, 3)
        Linear. It is exposed for what is not sky, as far as that can be had.
    depth : ndarray, (H, W)
        Metres, 0 for sky: what is out of focus depends on it.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, uint8, (H, W, 3)
    """
    picture = _expose(light.astype(np.float32), depth > 0, rng)
    picture = _lens(picture, depth, rng)
    noise = 0.03 * rng.uniform() ** 2.5
    grain = rng.standard_normal(size=picture.shape, dtype=np.float32)
    if rng.uniform() < 0.3:
        # the noise of phones is smoothed and so comes in blots
        grain = 1.6 * _blur(grain, 0.7)
    # read noise, and shot noise that grows with the light
    picture = picture + grain * np.sqrt(noise**2 * 0.3 + noise * 0.03 * np.maximum(picture, 0))
    # a shoulder that lets highlights run out softly, then the display's gamma with some contrast of its own
    white = rng.uniform(1.5, 4.0)
    picture = np.clip(picture, 0, None)
    picture = picture * (1 + picture / white**2) / (1 + 0.6 * picture)
    display = np.clip(picture, 0, 1).astype(np.float32) ** np.float32(1 / rng.uniform(1.9, 2.5))
    display = display + rng.uniform(-0.1, 0.25) * (display - 0.5) * (1 - np.abs(2 * display - 1))
    grey = display.mean(axis=-1, keepdims=True)
    saturation = 0.0 if rng.uniform() < 0.03 else rng.uniform(0.6, 1.25)
    display = grey + saturation * (display - grey)
    if rng.uniform() < 0.35:
        display = display + rng.uniform(0.2, 1.0) * (display - _blur(display, 1.0 * light.shape[0] / 192))
    result = np.rint(np.clip(display, 0, 1) * 255).astype(np.uint8)
    return _jpeg(result, int(rng.integers(35, 96))) if rng.uniform() < 0.5 else result


def _expose(light: Array, valid: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """Exposure and white balance; nights stay darker than days."""
    brightness = light.mean(axis=-1)
    brightness = np.minimum(brightness, np.quantile(brightness, 0.97))
    level = brightness[valid].mean() if valid.mean() > 0.1 else brightness.mean()
    level = 0.75 * level + 0.25 * brightness.mean()
    key = rng.uniform(0.18, 0.45) * min(1.0, (level / 0.12) ** 0.35)
    t, g = rng.normal(size=2) * [0.1, 0.03]
    return light * (np.array([1 + t, 1 + g, 1 - t], dtype=np.float32) * np.float32(key / (level + 1e-6)))


def _lens(picture: Array, depth: Array, rng: np.random.Generator) -> Array:
    """Vignetting, blur, blur by distance from the plane in focus, camera shake, flare."""
    height, width = picture.shape[:2]
    scale = height / 192
    if rng.uniform() < 0.5:
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
        x = np.linspace(-1, 1, width, dtype=np.float32)[:, None]
        picture = picture / (1 + rng.uniform(0, 0.35) * (x**2 + y**2))
    fault = rng.uniform()
    if fault < 0.12 and (depth > 0).any():
        disparity = np.where(depth > 0, 1 / np.maximum(depth, 0.1), 0).astype(np.float32)
        focus = np.quantile(disparity, rng.uniform(0.3, 0.95))
        strong = rng.uniform(1.0, 3.0) * scale
        share = np.clip(np.abs(disparity - focus) / max(float(np.quantile(disparity, 0.95)), 1e-3) * 2, 0, 1)
        share = _blur(share[..., None], scale)
        picture = picture * (1 - share) + _blur(picture, strong) * share
    elif fault < 0.22:
        picture = _shaken(picture, rng.uniform(1.0, 3.0) * scale, rng.uniform(0, np.pi))
    elif fault < 0.7:
        picture = _blur(picture, rng.uniform(0.25, 0.8) * scale)
    if rng.uniform() < 0.25:
        small = np.minimum(picture, 4)[::4, ::4]
        glare = np.repeat(np.repeat(_blur(small, 5.0 * scale), 4, axis=0), 4, axis=1)[:height, :width]
        picture = picture + rng.uniform(0.02, 0.12) * (glare - picture)
    return picture


def _blur(picture: Array, sigma: float) -> Array:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(picture, (sigma, sigma, 0), truncate=3.0)


def _shaken(picture: Array, length: float, angle: float) -> Array:
    """The mean of copies shifted along a short straight way (pixels)."""
    height, width = picture.shape[:2]
    reach = int(np.ceil(length / 2)) + 1
    padded = np.pad(picture, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    steps = np.linspace(-0.5, 0.5, 2 + 2 * int(length)) * length
    total = np.zeros_like(picture)
    for step in steps:
        dy, dx = reach + round(step * np.sin(angle)), reach + round(step * np.cos(angle))
        total += padded[dy : dy + height, dx : dx + width]
    return total / np.float32(len(steps))


def _jpeg(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    with Image.open(file) as back:
        return np.asarray(back)

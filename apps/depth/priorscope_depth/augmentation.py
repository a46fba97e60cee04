"""Random views of a training scene, fixed by (seed, epoch, item)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from priorscope_depth.pairs.pair import TrainingPair

#: (height, width) of the batches, as shares of the stored scenes: half of them whole, the others square and wide.
SHAPES = ((1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 0.75), (0.75, 1.0), (0.625, 1.0))


def batch_shape(height: int, width: int, generator: np.random.Generator, multiple: int) -> tuple[int, int]:
    """A shape for one batch, at most (height, width), in multiples of ``multiple``."""
    rows, columns = SHAPES[int(generator.integers(len(SHAPES)))]
    return (
        max(int(height * rows) // multiple, 1) * multiple,
        max(int(width * columns) // multiple, 1) * multiple,
    )


class View(NamedTuple):
    """A training view."""

    image: torch.Tensor
    """(3, height, width) in [0, 1]."""
    depth: torch.Tensor
    """(height, width), metres, 0 where there is none."""
    normals: torch.Tensor
    """(3, height, width), x right, y up, z towards the viewer, 0 where there are none."""
    sky: torch.Tensor
    """(height, width), bool."""


def random_view(
    pair: TrainingPair,
    shape: tuple[int, int],
    generator: np.random.Generator,
) -> View:
    """Crop, mirror and recolour one pair.

    Parameters
    ----------
    pair : TrainingPair
        Cropping leaves relative depth as it is, and normals in the frame of the whole camera.
    shape : (height, width)
        Of the result.
    generator : numpy Generator
    """
    rows, columns = pair.rgb.shape[:2]
    largest = min(rows / shape[0], columns / shape[1])
    zoom = largest * generator.uniform(0.8, 1.0)
    size = max(int(shape[0] * zoom), 1), max(int(shape[1] * zoom), 1)
    top = int(generator.integers(rows - size[0] + 1))
    left = int(generator.integers(columns - size[1] + 1))
    window = (slice(top, top + size[0]), slice(left, left + size[1]))
    image = torch.from_numpy(pair.rgb[window].astype(np.float32) / 255).permute(2, 0, 1)[None]
    image = functional.interpolate(image, shape, mode="bilinear", antialias=True, align_corners=False)
    # a truth between two surfaces would belong to neither: nearest, never averaged
    layers = [pair.depth[window], pair.sky[window]]
    if pair.normals is not None:
        layers += list(np.moveaxis(pair.normals[window], -1, 0))
    stacked = torch.from_numpy(np.stack(layers).astype(np.float32))[None]
    truth = functional.interpolate(stacked, shape, mode="nearest-exact")
    if generator.random() < 0.5:
        image, truth = image.flip(-1), truth.flip(-1)
        truth[:, 2:3] *= -1
    normals = truth[0, 2:] if pair.normals is not None else torch.zeros(3, *shape)
    return View(_recolour(image[0], generator), truth[0, 0], normals, truth[0, 1] > 0.5)


def _recolour(image: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """Exposure, contrast, white balance, saturation, gamma; sometimes grey, blurred or noisy."""
    gains = torch.from_numpy(np.exp(generator.normal(0, 0.06, 3)).astype(np.float32))
    image = image * gains[:, None, None] * float(np.exp(generator.normal(0, 0.15)))
    mean = image.mean()
    image = (image - mean) * float(np.exp(generator.normal(0, 0.15))) + mean
    grey = image.mean(0, keepdim=True)
    saturation = 0.0 if generator.random() < 0.06 else float(np.exp(generator.normal(0, 0.3)))
    image = (grey + (image - grey) * saturation).clamp(0, 1)
    image = image ** float(np.exp(generator.normal(0, 0.15)))
    if generator.random() < 0.2:
        small = [max(int(side * generator.uniform(0.4, 0.9)), 4) for side in image.shape[1:]]
        blurred = functional.interpolate(image[None], small, mode="bilinear", antialias=True, align_corners=False)
        image = functional.interpolate(blurred, image.shape[1:], mode="bilinear", align_corners=False)[0]
    if generator.random() < 0.3:
        noise = generator.standard_normal(image.shape, dtype=np.float32)
        image = image + float(generator.uniform(0, 0.04)) * torch.from_numpy(noise)
    return image.clamp(0, 1)

"""What the published transforms of training sets are made of: resizing, cropping, mirroring."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from priorscope_depth.augmentation import View
from priorscope_depth.pairs.normals import flip_x
from priorscope_depth.pairs.pair import TrainingPair

#: Height and width of the crop of KITTI's depth benchmark.
KITTI_CROP = (352, 1216)


def shorter_side(pair: TrainingPair, size: int) -> TrainingPair:
    """Resize so that the shorter side is ``size`` pixels.

    The image bilinearly (Pillow), the truth to torch's ``nearest``, which takes pixel floor(i * old / new): up to
    half a pixel off, as published. The longer side is rounded down, as torchvision does.
    """
    height, width = pair.rgb.shape[:2]
    longer = int(size * max(height, width) / min(height, width))
    return _resized(pair, *((size, longer) if height <= width else (longer, size)))


def kitti_crop(pair: TrainingPair, size: tuple[int, int] = KITTI_CROP) -> TrainingPair:
    """Crop (height, width) from the bottom, centred; a smaller image is enlarged until it holds the crop."""
    height, width = pair.rgb.shape[:2]
    scale = max(size[0] / height, size[1] / width)
    if scale > 1:
        height, width = max(round(height * scale), size[0]), max(round(width * scale), size[1])
        pair = _resized(pair, height, width)
    top, left = height - size[0], (width - size[1]) // 2
    window = np.s_[top : top + size[0], left : left + size[1]]
    return _at(pair, pair.rgb[window], window)


def mirrored(pair: TrainingPair) -> TrainingPair:
    """Left and right exchanged; the x of normals changes its sign."""
    turned = _at(pair, pair.rgb[:, ::-1], np.s_[:, ::-1])
    return turned if turned.normals is None else replace(turned, normals=flip_x(turned.normals))


def to_view(pair: TrainingPair, generator: np.random.Generator) -> View:
    """Tensors of a pair, mirrored half of the time."""
    if generator.random() < 0.5:
        pair = mirrored(pair)
    image = torch.from_numpy(pair.rgb.astype(np.float32) / 255).permute(2, 0, 1)
    if pair.normals is None:
        normals = torch.zeros(3, *pair.depth.shape)
    else:
        normals = _tensor(np.moveaxis(pair.normals, -1, 0))
    return View(image, _tensor(pair.depth), normals, _tensor(pair.sky))


def _tensor(array: NDArray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _resized(pair: TrainingPair, height: int, width: int) -> TrainingPair:
    image = Image.fromarray(pair.rgb).resize((width, height), Image.Resampling.BILINEAR)
    old_height, old_width = pair.rgb.shape[:2]
    grid = np.ix_(_floor_nearest(old_height, height), _floor_nearest(old_width, width))
    return _at(pair, np.asarray(image), grid)


def _floor_nearest(old: int, new: int) -> NDArray[np.int64]:
    # in float32, as torch computes it
    places = np.floor(np.arange(new, dtype=np.float32) * np.float32(old / new)).astype(np.int64)
    return np.minimum(places, old - 1)


def _at(pair: TrainingPair, rgb: NDArray[np.uint8], where: tuple) -> TrainingPair:
    return replace(
        pair,
        rgb=rgb,
        depth=pair.depth[where],
        valid=pair.valid[where],
        sky=pair.sky[where],
        normals=None if pair.normals is None else pair.normals[where],
    )

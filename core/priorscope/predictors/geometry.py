"""From an image of any size to one that a network takes, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch.nn import functional

from priorscope.errors import InputError

Interpolation = Literal["bilinear", "nearest-exact"]


def resize(
    image: torch.Tensor, size: tuple[int, int], mode: Interpolation = "bilinear", *, antialias: bool = True
) -> torch.Tensor:
    """Resize (B, C, H, W) to ``size`` = (height, width); pixel centres at half-integers, edges aligned.

    Equal to torchvision's tensor resize with the same settings. No copy where the size is right already.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    if mode == "bilinear":
        return functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=antialias)
    return functional.interpolate(image, size, mode=mode)


@dataclass(frozen=True)
class Frame:
    """Sizes (height, width) that an image went through: its own, the resized one, the padded one."""

    original: tuple[int, int]
    processed: tuple[int, int]
    padded: tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Resize to a processing resolution, pad to a multiple, and undo both on the prediction.

    Parameters
    ----------
    resolution : int
        Length of the longer side while processing, in pixels; 0 keeps the image's own size.
    upscale : bool
        Also enlarge images that are smaller. The published pipelines all do.
    multiple : int
        The network needs sides that are multiples of this: replicated padding at the right and at the bottom,
        cropped from the prediction. 1: no padding.
    float_factor : bool
        Sizes by a float factor as Lotus' code has them, where 47 pixels at 768 become 767; otherwise integer
        arithmetic.
    back : {"bilinear", "nearest-exact"}
        Interpolation of the prediction to the image's size.
    back_antialias : bool
        Antialias that interpolation where it shrinks.
    """

    resolution: int = 768
    upscale: bool = True
    multiple: int = 8
    float_factor: bool = False
    back: Interpolation = "bilinear"
    back_antialias: bool = True

    def __post_init__(self) -> None:
        if self.resolution < 0:
            raise InputError(
                f"a processing resolution of {self.resolution} pixels", remedy="Use 0 (the image's own) or more."
            )
        if self.multiple < 1:
            raise InputError(f"sides in multiples of {self.multiple}", remedy="Use 1 or more.")

    @classmethod
    def lotus(cls, resolution: int = 768) -> Geometry:
        """Lotus' official geometry (parity): no padding, so the autoencoder floors; nearest back-resize."""
        return cls(resolution, multiple=1, float_factor=True, back="nearest-exact")

    @classmethod
    def diffusers(cls, resolution: int = 768) -> Geometry:
        """That of diffusers' Marigold pipelines (parity): bilinear back-resize without antialias."""
        return cls(resolution, back_antialias=False)

    def native(self) -> Geometry:
        """The same, at the image's own size."""
        return replace(self, resolution=0)

    def processing_size(self, height: int, width: int) -> tuple[int, int]:
        """Size at which an image of ``height`` x ``width`` is processed, before padding."""
        longer = max(height, width)
        if self.resolution == 0 or (longer < self.resolution and not self.upscale):
            return height, width
        if self.float_factor:
            factor = min(self.resolution / width, self.resolution / height)
            size = int(height * factor), int(width * factor)
        else:
            size = height * self.resolution // longer, width * self.resolution // longer
        return max(size[0], 1), max(size[1], 1)

    def prepare(self, image: torch.Tensor) -> tuple[torch.Tensor, Frame]:
        """Resize and pad ``image`` (B, C, H, W); returns it with the sizes that :meth:`restore` needs."""
        original = (int(image.shape[-2]), int(image.shape[-1]))
        processed = self.processing_size(*original)
        image = resize(image, processed)
        bottom, right = -processed[0] % self.multiple, -processed[1] % self.multiple
        if bottom or right:
            image = functional.pad(image, (0, right, 0, bottom), mode="replicate")
        return image, Frame(original, processed, (processed[0] + bottom, processed[1] + right))

    def crop(self, prediction: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Take the padding off a prediction (B, C, h, w); a floored one (official geometry) stays as it is."""
        if tuple(prediction.shape[-2:]) != frame.padded:
            return prediction
        return prediction[..., : frame.processed[0], : frame.processed[1]]

    def restore(self, prediction: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Crop and resize a prediction (B, C, h, w) to the image's own size."""
        prediction = self.crop(prediction, frame)
        return resize(prediction, frame.original, self.back, antialias=self.back_antialias)

"""Images larger than a network was trained on, sampled in overlapping patches that agree after every step.

Blending finished patches leaves seams: each has gone its own way. Here the noisy sample is one image throughout; at
every step the model is asked about its patches, and their answers become one answer for the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Level, Model, Prediction, StepInfo
from priorscope.errors import InputError
from priorscope.predictors.tiling import feather, tile_starts

#: How overlapping patches become one: weights that fall towards their rims; the later patch wins; equal weights;
#: a Hann window's.
Blend = Literal["feather", "replace", "average", "hann"]
Place = tuple[int, int]


def patch_places(
    shape: Sequence[int], size: tuple[int, int], overlap: tuple[int, int] = (0, 0), *, official: bool = False
) -> list[Place]:
    """(top, left) of patches in raster order.

    Parameters
    ----------
    shape : sequence of int
        The image's; its last two are (H, W).
    size, overlap : (int, int)
        Height and width of a patch and least overlap, in pixels.
    official : bool
        Parity with the published code: patches at multiples of size - overlap, and what is left over at the bottom
        and at the right belongs to none. Default: patches are spread evenly and cover the image.
    """
    height, width = shape[-2:]
    if min(size) < 1 or size[0] > height or size[1] > width:
        raise InputError(
            f"patches of {size} in an image of {height} x {width}", remedy="Pad the image, or use smaller."
        )
    rows, columns = (
        _official_starts(length, patch, shared) if official else tile_starts(length, patch, shared)
        for length, patch, shared in zip((height, width), size, overlap, strict=True)
    )
    return [(top, left) for top in rows for left in columns]


def take_patches(images: torch.Tensor, places: Sequence[Place], size: tuple[int, int]) -> torch.Tensor:
    """The patches of ``images`` (B, C, H, W) at ``places``: (places * B, C, h, w), all images of a place in a row."""
    return torch.cat([images[..., top : top + size[0], left : left + size[1]] for top, left in places])


def stitch_patches(
    patches: torch.Tensor, places: Sequence[Place], shape: Sequence[int], *, blend: Blend = "feather"
) -> torch.Tensor:
    """One answer for images of ``shape`` (B, C, H, W) from those for their patches (places * B, C, h, w).

    Pixels that belong to no patch are 0. Differentiable.
    """
    size, batch = (patches.shape[-2], patches.shape[-1]), shape[0]
    if len(patches) != batch * len(places):
        raise InputError(f"{len(patches)} patches for {batch} images and {len(places)} places")
    windows = _windows(places, size, (shape[-2], shape[-1]), blend).to(patches)
    total = patches.new_zeros(tuple(shape))
    for place, patch, window in zip(places, patches.split(batch), windows, strict=True):
        top, left = place
        whole = (..., slice(top, top + size[0]), slice(left, left + size[1]))
        total[whole] = total[whole] + window * patch
    return total


class Patched:
    """A model of small images as one of large ones.

    Parameters
    ----------
    model : Model
        Told nothing about where in the image a patch lies.
    size, overlap : (int, int)
        As for :func:`patch_places`.
    blend : {"feather", "replace", "average", "hann"}
        "replace" is the published way: in an overlap the patch that comes later in raster order decides.
    batch_size : int
        Patches a network call.

    Notes
    -----
    Because all patches read the same noisy image, "replace" equals running patches apart and copying the overlaps from
    neighbour to neighbour after each step. A step asks about every pixel of an overlap more than once: 10 % of each
    side costs about 1.2 times the network calls. Without gradients activations are those of ``batch_size`` patches.
    """

    def __init__(
        self,
        model: Model,
        size: tuple[int, int],
        overlap: tuple[int, int],
        *,
        blend: Blend = "feather",
        batch_size: int = 16,
    ) -> None:
        if blend not in get_args(Blend):
            raise InputError(f"blend {blend!r}", remedy=f"Use one of {', '.join(get_args(Blend))}.")
        if batch_size < 1:
            raise InputError(f"{batch_size} patches a call", remedy="Use 1 or more.")
        self.model, self.schedule = model, model.schedule
        self.size, self.overlap, self.blend, self.batch_size = size, overlap, blend, batch_size

    def __call__(
        self,
        x: torch.Tensor,
        t: Level,
        condition: Condition | None = None,
        info: StepInfo | None = None,
    ) -> Prediction:
        """Ask about the images ``x`` (B, C, H, W) at level ``t``, a number or (B,)."""
        places = patch_places(x.shape, self.size, self.overlap)
        patches = take_patches(x, places, self.size)
        items = torch.arange(len(x)).repeat(len(places))
        per_item = isinstance(t, torch.Tensor) and t.numel() == len(x) > 1
        answers = []
        for start in range(0, len(patches), self.batch_size):
            rows = slice(start, start + self.batch_size)
            chosen = items[rows]
            level = t.flatten()[chosen] if per_item and isinstance(t, torch.Tensor) else t
            told = None if condition is None else condition.select(chosen)
            answers.append(self.model(patches[rows], level, told, info))
        return Prediction(
            *(
                stitch_patches(torch.cat(list(part)), places, x.shape, blend=self.blend)
                for part in zip(*answers, strict=True)
            )
        )


def _official_starts(length: int, patch: int, shared: int) -> list[int]:
    if not 0 <= shared < patch:
        raise InputError(f"patches of {patch} pixels cannot overlap by {shared}")
    return list(range(0, length - patch + 1, patch - shared))


def _windows(places: Sequence[Place], size: tuple[int, int], image: tuple[int, int], blend: Blend) -> torch.Tensor:
    """Weights of each patch's pixels (places, h, w), which sum to 1 in every pixel that has any."""
    slices = [(slice(top, top + size[0]), slice(left, left + size[1])) for top, left in places]
    if blend == "replace":
        owner = torch.full(image, -1)
        for index, place in enumerate(slices):
            owner[place] = index
        return torch.stack([(owner[place] == index).double() for index, place in enumerate(slices)])
    plain = [_plain_window(place, places, size, blend) for place in places]
    total = torch.zeros(image, dtype=torch.float64)
    for place, window in zip(slices, plain, strict=True):
        total[place] += window
    return torch.stack([window / total[place] for place, window in zip(slices, plain, strict=True)])


def _plain_window(place: Place, places: Sequence[Place], size: tuple[int, int], blend: Blend) -> torch.Tensor:
    if blend == "average":
        return torch.ones(size, dtype=torch.float64)
    sides = []
    for axis, patch in enumerate(size):
        if blend == "hann":
            hann = torch.hann_window(patch, periodic=False, dtype=torch.float64) if patch > 1 else torch.ones(1)
            sides.append(hann.clamp(min=1e-8))
        else:
            sides.append(_feathered(place[axis], sorted({other[axis] for other in places}), patch))
    return sides[0][:, None] * sides[1][None, :]


def _feathered(start: int, starts: Sequence[int], patch: int) -> torch.Tensor:
    """Ramps as long as the overlap with the neighbours, flat at the image's border."""
    index, window = starts.index(start), torch.ones(patch, dtype=torch.float64)
    if index > 0:
        window *= feather(patch, max(starts[index - 1] + patch - start, 0), first=False, last=True)
    if index < len(starts) - 1:
        window *= feather(patch, max(start + patch - starts[index + 1], 0), first=True, last=False)
    return window

"""Does a model copy its training images? Each generated image against its nearest one, however turned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from priorscope.errors import InputError
from priorscope_astro.diffusion.symmetry import COUNT, turned
from priorscope_astro.metrics import share_interval

#: Largest side of the images that are compared, pixels: noise averages out, and copies stay copies.
_SIDE = 32
_BLOCK = 4096


@dataclass(frozen=True)
class Nearest:
    """The nearest training image of each of N images.

    Attributes
    ----------
    distance : float32 array (N,)
        Root mean square difference, in units of the images' standard deviation; 0 for a copy, about 1.4 for images
        that have nothing in common.
    index : int64 array (N,)
        Which training image.
    turn : int64 array (N,)
        How the image was turned to fit it, see :func:`priorscope_astro.diffusion.symmetry.turned`.
    """

    distance: NDArray[np.float32]
    index: NDArray[np.int64]
    turn: NDArray[np.int64]


@dataclass(frozen=True)
class Memorisation:
    """How near generated images come to training images, and how near images that were not trained on come.

    Attributes
    ----------
    generated, held_out : Nearest
        Nearest training images of either.
    threshold : float
        The distance below which a share of ``quantile`` of the held-out images lies.
    copies : float
        Share of the generated images below it; about ``quantile`` for a model that does not copy.
    interval : tuple of float
        95 % interval of that share (Wilson's).
    quantile : float
    """

    generated: Nearest
    held_out: Nearest
    threshold: float
    copies: float
    interval: tuple[float, float]
    quantile: float

    @property
    def copied(self) -> bool:
        """Whether more images are near training images than chance explains: the interval lies above ``quantile``."""
        return self.interval[0] > self.quantile


def nearest_training_image(
    images: NDArray[np.float32] | Sequence[NDArray[np.float32]],
    training: NDArray[np.float32] | Sequence[NDArray[np.float32]],
    *,
    side: int = _SIDE,
    device: torch.device | str = "cpu",
    same: bool = False,
) -> Nearest:
    """Find, for each image, the training image that differs least, over its eight turns and mirrorings.

    Parameters
    ----------
    images : float array (N, C, H, H)
        Square, in the values that the network sees (stretched: in linear flux only bright cores would count).
    training : float array (M, C, H, H)
    side : int
        Images are averaged down to at most this side first.
    device : torch.device
    same : bool
        Both are the same images: an image is not its own neighbour.

    Returns
    -------
    Nearest

    Raises
    ------
    InputError
        Images of other shapes than the training images, none at all, or values that are not finite.

    Notes
    -----
    Each image has its mean subtracted and is divided by its standard deviation, so that a copy that is a little
    brighter is still one. Memory: M C side^2 floats, and 4096 N.
    """
    first, second = _reduced(images, side, "images"), _reduced(training, side, "training images")
    if first.shape[1:] != second.shape[1:]:
        raise InputError(
            f"images of shape {list(first.shape[1:])} and training images of {list(second.shape[1:])}",
            remedy="Compare images of one size and the same bands.",
        )
    if same and len(first) != len(second):
        raise InputError(f"{len(first)} and {len(second)} images are not the same images")
    if same and len(first) < 2:
        raise InputError("one image has no other that could be near", remedy="Give two or more.")
    size = first[0].numel()
    bank = second.flatten(1).to(device)
    best = torch.full((len(first),), float("inf"))
    index, turn = torch.zeros(len(first), dtype=torch.int64), torch.zeros(len(first), dtype=torch.int64)
    for which in range(COUNT):
        asked = turned(first, which).flatten(1).to(device)
        for begin in range(0, len(bank), _BLOCK):
            # |a - b|^2 / n = 2 - 2 a b / n, as both have a mean square of 1
            distance = (2 - 2 * asked @ bank[begin : begin + _BLOCK].T / size).clamp(min=0).sqrt()
            if same:
                own = torch.arange(len(first)) - begin
                here = (own >= 0) & (own < distance.shape[1])
                distance[here.nonzero()[:, 0], own[here]] = float("inf")
            found, place = (value.cpu() for value in distance.min(1))
            better = found < best
            best = torch.where(better, found, best)
            index = torch.where(better, place + begin, index)
            turn = torch.where(better, which, turn)
    return Nearest(best.numpy(), index.numpy(), turn.numpy())


def memorisation(
    generated: NDArray[np.float32],
    training: NDArray[np.float32],
    held_out: NDArray[np.float32],
    *,
    quantile: float = 0.05,
    side: int = _SIDE,
    device: torch.device | str = "cpu",
) -> Memorisation:
    """Compare how near generated images come to training images with how near held-out images come.

    Parameters
    ----------
    generated, training, held_out : float arrays (N, C, H, H)
        See :func:`nearest_training_image`. Held-out images should be drawn like the generated ones: as many of each
        class, and the same noise.
    quantile : float
        Of the held-out distances, the threshold.
    side : int
    device : torch.device

    Raises
    ------
    InputError
        As :func:`nearest_training_image`; a quantile outside (0, 1), or fewer than 1 / quantile held-out images.
    """
    if not 0 < quantile < 1:
        raise InputError(f"a quantile of {quantile}", remedy="Use a number between 0 and 1, such as 0.05.")
    if len(held_out) < 1 / quantile:
        raise InputError(
            f"{len(held_out)} held-out images do not tell a quantile of {quantile:g}",
            remedy=f"Give {int(np.ceil(1 / quantile))} or more.",
        )
    drawn = nearest_training_image(generated, training, side=side, device=device)
    real = nearest_training_image(held_out, training, side=side, device=device)
    threshold = float(np.quantile(real.distance, quantile))
    below = int((drawn.distance < threshold).sum())
    share = share_interval(below, len(generated))
    return Memorisation(drawn, real, threshold, share.estimate, (share.low, share.high), quantile)


def _reduced(images: NDArray[np.float32] | Sequence[NDArray[np.float32]], side: int, what: str) -> torch.Tensor:
    if side < 1:
        raise InputError(f"a side of {side} pixels", remedy="Use 1 or more.")
    array = np.asarray(images, np.float32)
    if array.ndim != 4 or not array.size or array.shape[2] != array.shape[3]:
        raise InputError(f"{what} of shape {list(array.shape)}", remedy="They are [N, bands, side, side].")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array).all((1, 2, 3)))[0])
        raise InputError(f"{what}: number {bad} has values that are NaN or infinite")
    values = torch.from_numpy(np.ascontiguousarray(array))
    if values.shape[-1] > side:
        values = functional.adaptive_avg_pool2d(values, side)
    values = values - values.mean((1, 2, 3), keepdim=True)
    std = values.square().mean((1, 2, 3), keepdim=True).sqrt()
    if not bool((std > 0).all()):
        raise InputError(f"{what}: number {int((std.flatten() == 0).nonzero()[0, 0])} is constant")
    return values / std

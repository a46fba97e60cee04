"""Sequences longer than a network was trained on: related noise, and windows that are fused.

For videos, and for volumes as stacks of slices. Source: Qiu et al. 2024 (FreeNoise).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from numbers import Integral

import torch

from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError


def frame_order(frames: int, *, window: int = 16, stride: int = 4, seed: int | random.Random = 0) -> list[int]:
    """Which of the first ``window`` frames' noise each frame gets: the same noise again and again, locally shuffled.

    Parameters
    ----------
    frames : int
        Length of the sequence.
    window : int
        Frames that the network was trained on. These get noise of their own.
    stride : int
        Frames that are shuffled together, at most ``window``: each such chunk is a permutation of the one ``window``
        frames before it, so every window of whole chunks has each noise once.
    seed : int or random.Random
        Of the permutations.

    Returns
    -------
    list of int
        ``frames`` numbers from 0 to ``window`` - 1.
    """
    _check_window(frames, window, stride)
    draw = seed if isinstance(seed, random.Random) else random.Random(seed)
    order = list(range(min(window, frames)))
    while len(order) < frames:
        start = len(order) - window
        chunk = order[start : start + stride]
        draw.shuffle(chunk)
        order += chunk
    return order[:frames]


def rescheduled_noise(
    noise: Noise, shape: Sequence[int], *, axis: int, window: int = 16, stride: int = 4, seed: int | random.Random = 0
) -> torch.Tensor:
    """Standard normal noise for a long sequence, of which only ``window`` frames are drawn.

    Parameters
    ----------
    noise : Noise
    shape : sequence of int
        (B, ...), with the frames along ``axis``.
    axis : int
        Not that of the batch.
    window, stride, seed
        As for :func:`frame_order`; the order is that of every item.

    Returns
    -------
    Tensor of shape ``shape``
        On the CPU, in float32.
    """
    if not -len(shape) < axis < len(shape) or axis == 0:
        raise InputError(
            f"the frames lie along axis {axis}, the batch or none of {len(shape)}",
            remedy="Give the axis of the frames.",
        )
    order = frame_order(shape[axis], window=window, stride=stride, seed=seed)
    drawn = list(shape)
    drawn[axis] = min(window, shape[axis])
    return noise.draw(drawn).index_select(axis, torch.tensor(order))


def windows(frames: int, *, window: int = 16, stride: int = 4) -> list[tuple[int, int]]:
    """First and past-the-last frame of overlapping windows that cover a sequence.

    A sequence of at most ``window`` frames is one window. Where the strides leave a rest, the last window ends with
    the sequence (official code leaves the rest out).
    """
    _check_window(frames, window, stride)
    if frames <= window:
        return [(0, frames)]
    starts = list(range(0, frames - window + 1, stride))
    if starts[-1] + window < frames:
        starts.append(frames - window)
    return [(start, start + window) for start in starts]


def window_weights(window: int) -> torch.Tensor:
    """Triangular weights (window,), 1 at both ends and highest in the middle, where a frame sees most neighbours."""
    rising = torch.arange(1, window + 1)
    return torch.minimum(rising, rising.flip(0)).float()


def fused_windows(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, *, axis: int, window: int = 16, stride: int = 4
) -> torch.Tensor:
    """Apply ``function`` to overlapping windows of frames and average what it says of each frame.

    Parameters
    ----------
    function : callable
        Keeps the shape of its argument: attention over time of a video network, or a whole network.
    x : Tensor
        With the frames along ``axis``; those of a sequence of at most ``window`` frames are given as they are.

    Returns
    -------
    Tensor of the shape of ``x``
        Weighted by :func:`window_weights`.

    Raises
    ------
    InputError
        A function that changes the shape, an axis that ``x`` does not have, a window or stride that makes no sense.
    """
    if not -x.ndim <= axis < x.ndim:
        raise InputError(f"the frames lie along axis {axis} of {x.ndim}", remedy="Give the axis of the frames.")
    spans = windows(x.shape[axis], window=window, stride=stride)
    if len(spans) == 1:
        return function(x)
    weights = window_weights(window).to(x)
    shape = [1] * x.ndim
    shape[axis] = window
    total, weight = torch.zeros_like(x), x.new_zeros(x.shape[axis])
    for start, end in spans:
        given = x.narrow(axis, start, window)
        part = function(given)
        if part.shape != given.shape:
            raise InputError(f"a window of shape {tuple(given.shape)} became {tuple(part.shape)}")
        total.narrow(axis, start, window).add_(part * weights.reshape(shape))
        weight[start:end] += weights
    shape[axis] = x.shape[axis]
    return total / weight.reshape(shape)


def _check_window(frames: int, window: int, stride: int) -> None:
    whole = all(isinstance(count, Integral) for count in (frames, window, stride))
    if not (whole and frames >= 1 and 1 <= stride <= window):
        raise InputError(
            f"{frames} frames in windows of {window} by strides of {stride}",
            remedy="Use whole numbers, and a stride from 1 to the window.",
        )

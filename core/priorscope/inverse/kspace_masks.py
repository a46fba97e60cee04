"""Which positions of k-space are measured: line masks (width,) and point masks (height, width), centre at n // 2."""

from __future__ import annotations

import math

import numpy as np
import torch

from priorscope.errors import InputError
from priorscope.inverse.operator import image_size


def uniform_lines(
    width: int, acceleration: float, centre_fraction: float = 0.08, *, seed: int | np.random.Generator = 0
) -> torch.Tensor:
    """Lines at random, all equally likely, and the middle block.

    Parameters
    ----------
    width : int
        Number of phase-encoding lines.
    acceleration : float
        ``round(width / acceleration)`` lines are measured, the block included.
    centre_fraction : float
        Share of all lines in the contiguous block around ``width // 2``.
    seed : int or numpy.random.Generator
        Where the draws come from.

    Returns
    -------
    torch.Tensor
        (width,), bool.
    """
    return _drawn_lines(np.ones(width), acceleration, centre_fraction, seed)


def gaussian_lines(
    width: int,
    acceleration: float,
    centre_fraction: float = 0.08,
    *,
    std: float = 1 / 6,
    seed: int | np.random.Generator = 0,
) -> torch.Tensor:
    """As :func:`uniform_lines`, likelier near the centre: a Gaussian of ``std`` times the width."""
    away = (np.arange(width) - width // 2) / (std * width)
    return _drawn_lines(np.exp(-0.5 * away**2), acceleration, centre_fraction, seed)


def equispaced_lines(width: int, acceleration: int, centre_fraction: float = 0.08, *, offset: int = 0) -> torch.Tensor:
    """Every ``acceleration``-th line from ``offset`` on, and the calibration lines in the middle.

    With the calibration lines more is measured than one line in ``acceleration``: :func:`measured_acceleration` tells.
    """
    _check(width, acceleration, centre_fraction)
    if acceleration != int(acceleration) or not 0 <= offset < acceleration:
        raise InputError(
            f"every {acceleration}-th line from {offset} on", remedy="Use a whole number and 0 <= offset < it."
        )
    mask = torch.zeros(width, dtype=torch.bool)
    mask[offset :: int(acceleration)] = True
    mask[_block(width, centre_fraction)] = True
    return mask


def variable_density(
    size: int | tuple[int, int],
    acceleration: float,
    centre_fraction: float = 0.04,
    *,
    power: float = 4.0,
    seed: int | np.random.Generator = 0,
) -> torch.Tensor:
    """Points at random, likelier near the centre: (H, W), ``round(H W / acceleration)`` of them.

    The likelihood falls as ``(1 - r)^power`` with the distance r from the centre, 0 at the corners; ``centre_fraction``
    of the plane, a disc, is measured in any case.
    """
    height, width = image_size(size)
    _check(height * width, acceleration, centre_fraction)
    y = (np.arange(height) - height // 2) / (height / 2)
    x = (np.arange(width) - width // 2) / (width / 2)
    distance = np.hypot(y[:, None], x[None])
    wanted = round(height * width / acceleration)
    inner = np.argsort(distance, axis=None, kind="stable")[: int(height * width * centre_fraction)]
    density = np.maximum(1 - distance / math.sqrt(2), 1e-6).ravel() ** power
    return torch.from_numpy(_draw(density, inner, wanted, seed).reshape(height, width))


def mbir_lines(
    width: int, acceleration: float = 2.0, centre_fraction: float = 0.15, *, seed: int | np.random.RandomState = 0
) -> torch.Tensor:
    """DiffusionMBIR's 'uniform1d' (parity): lines drawn with replacement, so fewer than asked for.

    At 240 lines, acceleration 2 and centre 0.15 it keeps 95 or 96 instead of 120.
    """
    _check(width, acceleration, centre_fraction)
    random = seed if isinstance(seed, np.random.RandomState) else np.random.RandomState(seed)
    centre = int(width * centre_fraction)
    drawn = int(width / acceleration - centre)
    if drawn < 0:
        raise InputError(
            f"{int(width / acceleration)} lines are to be measured and the centre alone has {centre}",
            remedy="Lower the acceleration or the centre's share.",
        )
    mask = torch.zeros(width, dtype=torch.bool)
    mask[torch.from_numpy(random.choice(width, drawn))] = True
    first = width // 2 - centre // 2
    mask[first : first + centre] = True
    return mask


def measured_acceleration(mask: torch.Tensor) -> float:
    """Positions of k-space for each one measured; InputError where none is."""
    measured = int((mask != 0).sum())
    if measured == 0:
        raise InputError("a k-space mask that measures nothing")
    return mask.numel() / measured


def _drawn_lines(
    density: np.ndarray, acceleration: float, centre_fraction: float, seed: int | np.random.Generator
) -> torch.Tensor:
    width = len(density)
    _check(width, acceleration, centre_fraction)
    block = np.arange(width)[_block(width, centre_fraction)]
    return torch.from_numpy(_draw(density, block, round(width / acceleration), seed))


def _draw(density: np.ndarray, always: np.ndarray, wanted: int, seed: int | np.random.Generator) -> np.ndarray:
    """``wanted`` positions, ``always`` among them, the others without replacement with these relative densities."""
    mask = np.zeros(len(density), dtype=bool)
    mask[always] = True
    if wanted < len(always) or wanted < 1:
        raise InputError(
            f"{wanted} positions are to be measured and the centre alone has {len(always)}",
            remedy="Lower the acceleration or the centre's share.",
        )
    random = np.random.default_rng(seed)
    # The largest of log density + Gumbel noise are a draw without replacement.
    keys = np.log(density + np.finfo(float).tiny) + random.gumbel(size=len(density))
    keys[mask] = -np.inf
    mask[np.argsort(keys)[::-1][: wanted - len(always)]] = True
    return mask


def _block(width: int, fraction: float) -> slice:
    lines = round(width * fraction)
    first = width // 2 - lines // 2
    return slice(first, first + lines)


def _check(positions: int, acceleration: float, centre_fraction: float) -> None:
    if positions < 1 or not 1 <= acceleration <= positions or not 0 <= centre_fraction <= 1:
        raise InputError(
            f"a mask of {positions} positions, acceleration {acceleration}, centre {centre_fraction}",
            remedy="Use an acceleration of at least 1, at most the number of positions, and a centre within 0 and 1.",
        )

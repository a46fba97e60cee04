"""A whole B-mode cine without its haze: into the prior's square, sampling, and the haze off the full pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_medical.ultrasound.bmode_dehaze import BmodeSampling, haze_free
from priorscope_medical.ultrasound.bmode_frame import Smoothing, Square, guided_haze
from priorscope_medical.ultrasound.bmode_gain import HazeLevel, haze_to_take
from priorscope_medical.ultrasound.bmode_prior import EchoPrior
from priorscope_medical.ultrasound.bmode_trust import from_mask, trust_map


@dataclass(frozen=True)
class BmodeSettings:
    """All that dehazing can be told.

    Parameters
    ----------
    sampling : BmodeSampling
    strength : float
        How much of the haze that was found is taken off; 1: all of it.
    level : HazeLevel
    smoothing : Smoothing
    size : int, optional
        Side of the prior's square in pixels; default: that of its training pictures.
    """

    sampling: BmodeSampling = field(default_factory=BmodeSampling)
    strength: float = 1.0
    level: HazeLevel = field(default_factory=HazeLevel)
    smoothing: Smoothing = field(default_factory=Smoothing)
    size: int | None = None


@dataclass(frozen=True)
class Dehazed:
    """The result, float32 from 0 to 1.

    Parameters
    ----------
    clean, haze : ndarray [T, H, W]
        The pictures, and what was taken off them (``strength`` included).
    estimate : ndarray [T, size, size]
        What the prior makes of them in its square: a look at the method, not a result.
    square : Square
    """

    clean: NDArray[np.float32]
    haze: NDArray[np.float32]
    estimate: NDArray[np.float32]
    square: Square


def dehaze_frames(
    grey: NDArray[np.float32],
    sector: NDArray[np.bool_],
    prior: EchoPrior,
    settings: BmodeSettings | None = None,
    *,
    kept: NDArray[np.bool_] | None = None,
    tissue: NDArray[np.bool_] | None = None,
    told: Callable[[int, int], None] | None = None,
) -> Dehazed:
    """Take haze off a sequence.

    Parameters
    ----------
    grey : ndarray [T, H, W]
        From 0 to 1.
    sector : ndarray of bool [H, W]
        Where echoes are.
    prior : EchoPrior
    settings : BmodeSettings, optional
    kept : ndarray of bool [H, W], optional
        Pixels that stay as they are; default: all outside of the sector.
    tissue : ndarray of bool [H, W], optional
        semantic: where there is surely no haze; default: :func:`~.bmode_trust.trust_map`.
    told : callable, optional
        ``told(frames done, frames)``.
    """
    settings = settings or BmodeSettings()
    if not 0 <= settings.strength <= 2:
        raise InputError(f"strength {settings.strength}", remedy="Use 0 (nothing) to 1 (all haze that is found), or 2.")
    kept = ~sector if kept is None else kept
    square = Square.around(sector, working_size(prior, settings.size))
    full = torch.from_numpy(np.where(sector, grey, 0).astype(np.float32))
    small = square.taken(full)
    inside = square.taken(torch.from_numpy(sector[None].astype(np.float32)))[0] > 0.5
    trust = None
    if settings.sampling.method == "semantic":
        if tissue is None:
            found = trust_map(small.numpy(), inside.numpy())
        else:
            at = square.taken(torch.from_numpy(tissue[None].astype(np.float32)))[0] > 0.5
            found = from_mask((at | ~inside).numpy(), len(grey))
        trust = torch.from_numpy(found)
    estimate = haze_free(small, prior, settings.sampling, trust=trust, told=told)
    taken = haze_to_take(small.numpy(), estimate.numpy(), inside.numpy(), settings.level)
    haze = guided_haze(torch.from_numpy(taken), small, full, square, settings.smoothing)
    off = torch.minimum(settings.strength * haze, full).numpy()
    off[:, kept] = 0
    return Dehazed((grey - off).astype(np.float32), off, estimate.numpy(), square)


def working_size(prior: EchoPrior, size: int | None) -> int:
    """The side of the prior's square: its own, or the nearest that its network takes."""
    if size is None:
        return prior.values.size
    if size < 32:
        raise InputError(f"size {size}", remedy="Use 32 or more.")
    return max(1, round(size / prior.multiple)) * prior.multiple

"""How much is taken off where: haze as a smooth level of power over the picture, which echoes above it survive.

The prior's estimate says where there should be no echoes; there the picture shows the haze alone. Its level is spread
smoothly from those places to the walls between them and taken off in power, as echoes and haze add up before the log
compression: a wall well above the level loses little, whatever the prior made of it. (Where the map is carried to the
full picture, in :mod:`.bmode_frame`, what lies beside haze loses some more.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from priorscope.errors import InputError

Frames = NDArray[np.float32]
#: Grey (0 to 1) below which a pixel is black and tells nothing of haze; share of sure haze around that is enough.
_BLACK, _ENOUGH = 0.04, 0.1
_ROUNDS = 4


@dataclass(frozen=True)
class HazeLevel:
    """How the level is found and taken off.

    Parameters
    ----------
    dynamic_range : float
        In dB from black to white. Scanners do not store it; 55 lies in the middle of what is usual.
    margin : float
        dB that are taken off beyond the level, for haze's own speckle.
    reach : float
        Standard deviation of the level's smoothing in pixels of the prior.
    smooth : float
        Of the picture before its level is compared, in pixels of the prior.
    stands_out : float
        dB above the level from which on a pixel is an echo that the prior has missed, such as a thin leaflet.
    sure : float
        Share of a pixel's brightness that the prior must call haze for it to count fully.
    """

    dynamic_range: float = 55.0
    margin: float = 3.0
    reach: float = 6.0
    smooth: float = 1.0
    stands_out: float = 10.0
    sure: float = 0.8

    def __post_init__(self) -> None:
        if min(self.dynamic_range, self.reach, self.sure) <= 0 or self.smooth < 0:
            raise InputError(f"haze's level with {self}", remedy="Ranges and lengths are positive.")


def haze_to_take(grey: Frames, estimate: Frames, inside: NDArray[np.bool_], how: HazeLevel) -> Frames:
    """Grey values to take off, from 0 to the picture's own.

    Parameters
    ----------
    grey, estimate : ndarray [T, H, W]
        The picture and what the prior makes of it, from 0 (black) to 1.
    inside : ndarray of bool [H, W]
        The sector.
    how : HazeLevel

    Returns
    -------
    ndarray of float32 [T, H, W]
        Never so much that the result lies below the estimate.
    """

    def smoothed(values: NDArray[np.floating], sigma: float) -> NDArray[np.float64]:
        return np.asarray(gaussian_filter(values.astype(np.float64), (0, sigma, sigma)))

    picture, guess = smoothed(grey, how.smooth), smoothed(estimate, how.smooth)
    surplus = (grey - estimate) / np.maximum(grey, 0.05)
    weight = np.clip(surplus / how.sure, 0, 1) * (grey > _BLACK) * inside
    level = np.full(grey.shape, np.inf)
    for _ in range(_ROUNDS):  # what stands out of the level is no haze, whatever the prior makes of it
        own = weight * (picture < level + how.stands_out / how.dynamic_range)
        around = smoothed(own, how.reach)
        level = smoothed(own * grey, how.reach) / np.maximum(around, 1e-6)
    share = 10 ** ((how.dynamic_range * (level - picture) + how.margin) / 10)  # of the power that is haze
    share *= np.clip(around / _ENOUGH, 0, 1)
    left = picture + 10 / how.dynamic_range * np.log10(np.maximum(1 - share, 1e-12))
    left = np.maximum(left, np.minimum(guess, picture))
    return (np.clip(picture - left, 0, picture) * inside).astype(np.float32)

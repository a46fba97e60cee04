"""How far a sensor's residuals spread at each depth: what a network's numbers are divided by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from priorscope.errors import InputError
from priorscope_depth.sensor.codec import LogDepth, is_residual
from priorscope_depth.sensor.data import SensorPair


@dataclass(frozen=True)
class Spread:
    """The deviation of residuals, ``at_metre * depth ** power``.

    Stereo and structured light err with the square of depth, in logarithmic depth therefore with its first power: at
    4 m eight times as far as at half a metre. Divided by one number for all depths, near residuals would be next to
    nothing beside the noise of a generator.

    Attributes
    ----------
    at_metre : float
        Above 0.
    power : float
        0: alike at all depths.
    """

    at_metre: float
    power: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.at_metre < math.inf or not math.isfinite(self.power):
            raise InputError(
                f"residuals of deviation {self.at_metre:g} times depth to {self.power:g}", remedy="It must be above 0."
            )

    def __call__(self, depth: torch.Tensor, codec: LogDepth) -> torch.Tensor:
        """Deviations at depths in metres, of their shape; what is not valid counts as 1 m."""
        known = torch.where(codec.is_valid(depth), depth, 1.0).clamp(min=codec.near)
        return self.at_metre * known**self.power


def fitted_spread(pairs: Sequence[SensorPair], codec: LogDepth) -> Spread:
    """The spread of measured pixels without outliers, by maximum likelihood of a Gaussian at each depth.

    Raises
    ------
    InputError
        If no pixel is measured, or every one exactly.
    """
    from scipy.optimize import minimize_scalar

    squares, depths = [np.zeros(0)], [np.zeros(0)]
    for pair in pairs:
        here = is_residual(codec, pair.scan, pair.clean)
        squares.append(np.square(codec.residual(pair.scan[here], pair.clean[here]), dtype=np.float64))
        depths.append(np.maximum(pair.clean[here], codec.near).astype(np.float64))
    square, depth = np.concatenate(squares), np.concatenate(depths)
    if not square.any():
        raise InputError("the scans measure nothing, or everything exactly", remedy="Give scans of a real sensor.")
    log_depth = np.log(depth)

    def surprise(power: float) -> float:
        return float(np.log(np.mean(square * np.exp(-2 * power * log_depth))) + 2 * power * log_depth.mean())

    # one depth says nothing of how the spread changes with it
    varied = np.ptp(log_depth) > 0.1
    power = float(minimize_scalar(surprise, bounds=(-4, 4), method="bounded").x) if varied else 0.0
    return Spread(float(np.sqrt(np.mean(square * depth ** (-2 * power)))), power)

"""Noise levels as an angle: signal cos(a), noise sin(a), between two angles that are neither pure noise nor clean."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from priorscope.diffusion.schedule import Schedule
from priorscope.errors import InputError


@dataclass(frozen=True)
class AngleSchedule(Schedule):
    """alpha = cos(a), sigma = sin(a), with a linear in t from arccos(max_signal) at 0 to arccos(min_signal) at 1.

    Below t = 0 is the clean level, where :func:`angle_times` ends. Networks are told sigma^2.
    Source: zea's ``DiffusionModel``, after Keras' example of DDIM.
    """

    min_signal: float = 0.02
    max_signal: float = 0.95
    start: float = field(default=1.0, init=False)
    end: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.min_signal < self.max_signal <= 1:
            raise InputError(
                f"signal rates from {self.min_signal} to {self.max_signal}", remedy="0 < min_signal < max_signal <= 1."
            )

    def _alpha_sigma(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if np.any(t > 1):
            raise InputError(f"time {np.max(t)} lies beyond the noisiest level 1")
        low, high = math.acos(self.max_signal), math.acos(self.min_signal)
        angle = low + t * (high - low)
        return np.where(t < 0, 1.0, np.cos(angle)), np.where(t < 0, 0.0, np.sin(angle))

    def label(self, t: Any) -> Any:
        """sigma(t)^2."""
        if isinstance(t, torch.Tensor):
            return torch.from_numpy(self._alpha_sigma(t.detach().cpu().double().numpy())[1] ** 2).float()
        return self(t)[1] ** 2


def angle_times(steps: int) -> list[float]:
    """Levels 1, 1 - 1 / steps, ..., 1 / steps, and the clean one: DDIM's last step gives the estimate itself."""
    if steps < 1:
        raise InputError(f"{steps} steps", remedy="Ask for at least one.")
    return [*(1 - np.arange(steps) / steps).tolist(), -1.0]

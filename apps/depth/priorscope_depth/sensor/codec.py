"""Depth on a logarithmic scale, and a scan as what it differs by from the exact depth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.errors import InputError

Array = TypeVar("Array", NDArray[np.floating], torch.Tensor)


#: Metres between scan and exact depth from which a pixel does not count; Stable-Sim2Real's 0.5, whose unit it leaves
#: open, read as metres.
OUTLIER = 0.5


@dataclass(frozen=True)
class LogDepth:
    """Metres to [-1, 1] and back: 2 ln(d / near) / ln(far / near) - 1.

    Attributes
    ----------
    near, far : float
        Metres. An error of one per cent is the same step everywhere between them.
    invalid : float
        Depth from which a value is no measurement, metres; such, and what is missing (0), becomes 1, the far end.

    Source: Stable-Sim2Real: 0.05 to 5 m, invalid beyond 4.9.
    """

    near: float = 0.05
    far: float = 5.0
    invalid: float = 4.9

    def __post_init__(self) -> None:
        if not 0 < self.near < self.invalid <= self.far < math.inf:
            raise InputError(
                f"log depth from {self.near} to {self.far} m, invalid from {self.invalid} m",
                remedy="They must rise: near, invalid, far.",
            )

    @property
    def step(self) -> float:
        """Change of the code for a relative change of depth, d code = step d depth / depth."""
        return 2 / math.log(self.far / self.near)

    def is_valid(self, depth: Any) -> Any:
        """Where ``depth`` is a measurement: above 0 and up to ``invalid``; NaN and infinity are none."""
        return (depth > 0) & (depth <= self.invalid)

    def encode(self, depth: Array) -> Array:
        """Metres to [-1, 1]; what is nearer than ``near`` counts as that far, what is not valid as ``far``."""
        if isinstance(depth, torch.Tensor):
            metres = torch.where(self.is_valid(depth), depth, self.far).clamp(min=self.near)
            return torch.log(metres / self.near) * self.step - 1
        known = np.maximum(np.where(self.is_valid(depth), depth, self.far), self.near)
        return (np.log(known / self.near) * self.step - 1).astype(depth.dtype)

    def decode(self, code: Array) -> Array:
        """[-1, 1] to metres; what lies beyond ``invalid`` becomes 0, no measurement."""
        if isinstance(code, torch.Tensor):
            metres = self.near * torch.exp((code.clamp(-1, 1) + 1) / self.step)
            return torch.where(metres <= self.invalid, metres, 0.0)
        depth = self.near * np.exp((np.clip(code, -1, 1) + 1) / self.step)
        return np.where(depth <= self.invalid, depth, 0).astype(code.dtype)

    def residual(self, scan: Array, clean: Array) -> Array:
        """Half of what the scan's code exceeds the exact depth's by, in [-1, 1]; two depth maps in metres."""
        return (self.encode(scan) - self.encode(clean)) / 2

    def apply(self, residual: Array, clean: Array) -> Array:
        """The scan in metres that differs from ``clean`` by ``residual``; undoes :meth:`residual`."""
        return self.decode(self.encode(clean) + 2 * residual)


def is_residual(codec: LogDepth, scan: Array, clean: Array) -> Any:
    """Where a scan differs from exact depth (both in metres) by its sensor's error: both valid, no outlier."""
    return codec.is_valid(scan) & codec.is_valid(clean) & (abs(scan - clean) < OUTLIER)

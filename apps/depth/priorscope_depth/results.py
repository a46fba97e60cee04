"""What a prediction is, with its units and conventions in the result and not in the reader's head."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class DepthResult:
    """A relative depth map.

    Parameters
    ----------
    values : float32 array (H, W)
        ``space="depth"``: larger is farther; ``"disparity"``: larger is nearer (inverse depth).
    space : {"depth", "disparity"}
    scale : {"affine-invariant", "metric"}
        Affine-invariant: values in [0, 1]; true depth (or disparity) is ``a * values + b`` with unknown a > 0 and b.
        Metric: metres (disparity: 1/metre).
    uncertainty : float32 array (H, W) or None
        Spread of an ensemble relative to the range.
    model : str
    notes : dict
        How it came about beyond that, JSON-able: a second model, the fit to known distances, a focal length.
    """

    values: np.ndarray
    space: Literal["depth", "disparity"]
    scale: Literal["affine-invariant", "metric"] = "affine-invariant"
    uncertainty: np.ndarray | None = None
    model: str = ""
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NormalsResult:
    """Surface normals.

    Parameters
    ----------
    values : float32 array (H, W, 3)
        Unit vectors in the camera's frame: x to the right, y up, z towards the viewer.
    uncertainty : float32 array (H, W) or None
        Mean angle between ensemble members and their mean, divided by pi.
    model : str
    """

    values: np.ndarray
    uncertainty: np.ndarray | None = None
    model: str = ""
    frame: str = "x right, y up, z towards the viewer"

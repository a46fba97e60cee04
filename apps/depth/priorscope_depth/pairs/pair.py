"""One image with its truth, and where such pairs come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainingPair:
    """An image with its depth and, where known, its normals.

    Attributes
    ----------
    rgb : ndarray, uint8, (H, W, 3)
    depth : ndarray, float32, (H, W)
        Planar depth (along the camera's axis), metres; 0 where there is none.
    valid : ndarray, bool, (H, W)
        Where there is depth.
    sky : ndarray, bool, (H, W)
        Where there is none because it is infinitely far.
    normals : ndarray, float32, (H, W, 3), or None
        Unit, in the camera's frame: x right, y up, z towards the viewer; 0 where unknown.
    key : str
        Unique within its source.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    valid: NDArray[np.bool_]
    sky: NDArray[np.bool_]
    normals: NDArray[np.float32] | None
    key: str


class PairSource(Protocol):
    """A training set. Picklable: processes that prepare batches get a copy."""

    name: str

    def __len__(self) -> int: ...

    def read(self, index: int) -> TrainingPair:
        """The pair at ``index``, the same at every call."""
        ...

"""What a pose estimator found in an image: people, their keypoints, and how they were looked at."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError


@dataclass(frozen=True, eq=False)
class Poses:
    """The people of one image, N of them, with K keypoints each.

    Lengths are in pixels of the whole image, the middle of its first pixel at (0, 0), x to the right, y down.

    Parameters
    ----------
    keypoints : float64 array (N, K, 2)
        x, y; may lie outside of the image.
    scores : float32 array (N, K)
        Of each keypoint. From heatmaps: their largest value, as it is: it may exceed 1 or be negative.
    boxes : float32 array (N, 4)
        Left, top, right, bottom of each person, as they were given.
    box_scores : float32 array (N,)
        The detector's confidence; 1 where nobody stated one.
    skeleton : str
        Name of the skeleton (:mod:`priorscope_pose.skeletons`): order and names of the keypoints.
    crop : str
        How people were cut out (:data:`priorscope_pose.geometry.POLICIES`): the same model gives other keypoints for
        ``"stretched"`` than for ``"evaluated"`` crops.
    ids : int64 array (N,), optional
        Who is who from frame to frame; None for single images.
    regions : float32 array (N, 2), optional
        Width and height of the region that each crop showed. Their product is the area that OKS-based suppression
        of duplicates uses.
    model : str

    Raises
    ------
    InputError
        Arrays whose lengths do not agree.
    """

    keypoints: NDArray[np.float64]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    box_scores: NDArray[np.float32]
    skeleton: str
    crop: str
    ids: NDArray[np.int64] | None = None
    regions: NDArray[np.float32] | None = None
    model: str = ""

    def __post_init__(self) -> None:
        people, count = self.scores.shape if self.scores.ndim == 2 else (-1, -1)
        expected: dict[str, tuple[int, ...]] = {
            "keypoints": (people, count, 2),
            "scores": (people, count),
            "boxes": (people, 4),
            "box_scores": (people,),
            "ids": (people,),
            "regions": (people, 2),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise InputError(f"{name} of shape {value.shape} where scores have shape {self.scores.shape}")

    def __len__(self) -> int:
        """The number of people."""
        return len(self.scores)

    def select(self, index: ArrayLike) -> Poses:
        """Some of the people: by a boolean mask (N,), or by their places, in that order."""
        places = np.asarray(index)
        if places.dtype != np.bool_:
            places = places.astype(np.int64).reshape(-1)
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[places] for name, value in values.items() if isinstance(value, np.ndarray)})

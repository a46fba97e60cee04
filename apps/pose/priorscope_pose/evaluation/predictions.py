"""Predicted people of a whole data set, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError
from priorscope_pose.data.annotations import ImageId
from priorscope_pose.skeletons import Skeleton

if TYPE_CHECKING:
    from priorscope_pose.poses import Poses


@dataclass(frozen=True, eq=False)
class Predictions:
    """N people, each in some image, in pixels of the whole image.

    Parameters
    ----------
    skeleton : Skeleton
        Of K key points.
    image_ids : sequence of N ids
    keypoints : array (N, K, 2)
        float64; x, y.
    keypoint_scores : array (N, K)
        float64; any scale; where a model gives none, ones.
    scores : array (N,)
        float64; of the person, by which people are ranked. Before :func:`priorscope_pose.evaluation.nms.postprocess`,
        the score of the box.
    boxes : array (N, 4), optional
        float64; left, top, right, bottom.
    areas : array (N,), optional
        float64; square pixels, for OKS-NMS: of the padded box that was cropped (mmpose), else of the key points'
        extent.
    ids : array (N,), optional
        int64; equal ids in one image mean one person predicted twice.
    track_ids : array (N,), optional
        int64.
    present : array (N, K), optional
        bool; key points that were predicted at all (PoseTrack's files may leave some out). Default: all.
    part_scores : mapping of str to array (N,)
        COCO-WholeBody: scores of parts, by which each part ranks people. Default: ``scores``.
    path : Path, optional
        Where they were read from, for messages.

    Raises
    ------
    InputError
        Arrays of other lengths; key points or scores that are not finite.
    """

    skeleton: Skeleton
    image_ids: Sequence[ImageId]
    keypoints: NDArray[np.float64]
    keypoint_scores: NDArray[np.float64]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64] | None = None
    areas: NDArray[np.float64] | None = None
    ids: NDArray[np.int64] | None = None
    track_ids: NDArray[np.int64] | None = None
    present: NDArray[np.bool_] | None = None
    part_scores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    path: Path | None = None

    def __post_init__(self) -> None:
        count, size = len(self.image_ids), len(self.skeleton)
        shapes = {
            "keypoints": (count, size, 2),
            "keypoint_scores": (count, size),
            "scores": (count,),
            "boxes": (count, 4),
            "areas": (count,),
            "ids": (count,),
            "track_ids": (count,),
            "present": (count, size),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:
                continue
            dtype = np.bool_ if name == "present" else np.int64 if name.endswith("ids") else np.float64
            array = np.asarray(value, dtype)
            if not count:
                array = array.reshape(shape)
            if array.shape != shape:
                raise InputError(
                    f"{name} of predictions have shape {array.shape}; "
                    f"{count} people of {self.skeleton.name} need {shape}",
                    path=self.path,
                )
            object.__setattr__(self, name, array)
            if dtype is np.float64:
                self._check_finite(name, array)
        for part, value in self.part_scores.items():
            self._check_finite(f"scores of part {part}", np.asarray(value))

    def _check_finite(self, name: str, array: NDArray[Any]) -> None:
        bad = ~np.isfinite(array).all(tuple(range(1, array.ndim)))
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(
                f"{name} of prediction {row} (image {self.image_ids[row]}) are not finite; "
                f"{int(bad.sum())} of {len(array)} predictions are so",
                path=self.path,
                remedy="Leave such people out, or give an undecided key point the score 0.",
            )

    def __len__(self) -> int:
        return len(self.image_ids)

    def select(self, rows: ArrayLike) -> Predictions:
        """Some of the people, by index, in that order."""
        index = np.asarray(rows, np.int64).reshape(-1)
        picked: dict[str, Any] = {"image_ids": [self.image_ids[int(i)] for i in index]}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                picked[item.name] = value[index]
        picked["part_scores"] = {part: np.asarray(value)[index] for part, value in self.part_scores.items()}
        return replace(self, **picked)

    def rows_by_image(self) -> dict[ImageId, NDArray[np.int64]]:
        """Indices of the people of each image, in their order."""
        found: dict[ImageId, list[int]] = {}
        for row, image_id in enumerate(self.image_ids):
            found.setdefault(image_id, []).append(row)
        return {image_id: np.array(rows, np.int64) for image_id, rows in found.items()}

    @classmethod
    def join(cls, parts: Sequence[Predictions]) -> Predictions:
        """All people of several predictions; what not all of them have is dropped.

        Raises
        ------
        InputError
            None is given, or their skeletons differ.
        """
        if not parts:
            raise InputError("no predictions to join")
        if len({part.skeleton.name for part in parts}) > 1:
            raise InputError(f"predictions of {sorted({part.skeleton.name for part in parts})} cannot be joined")
        joined: dict[str, Any] = {"image_ids": [image_id for part in parts for image_id in part.image_ids]}
        for item in fields(cls):
            values = [getattr(part, item.name) for part in parts]
            if all(isinstance(value, np.ndarray) for value in values):
                joined[item.name] = np.concatenate(values)
            elif any(isinstance(value, np.ndarray) for value in values):
                joined[item.name] = None
        shared = set.intersection(*(set(part.part_scores) for part in parts))
        joined["part_scores"] = {name: np.concatenate([part.part_scores[name] for part in parts]) for name in shared}
        return replace(parts[0], **joined)

    @classmethod
    def from_poses(cls, skeleton: Skeleton, poses: Iterable[tuple[ImageId, Poses]]) -> Predictions:
        """From the predictor's results, image by image: boxes' scores, and the regions of the crops as areas.

        Parameters
        ----------
        skeleton : Skeleton
        poses : iterable of (image id, Poses)
            Their ``ids`` become ``track_ids``; what some of them do not have is left out for all.

        Raises
        ------
        InputError
            Poses of another skeleton.
        """
        image_ids: list[ImageId] = []
        found: list[Poses] = []
        for image_id, its in poses:
            if its.skeleton != skeleton.name:
                raise InputError(f"poses of {its.skeleton}, not {skeleton.name}")
            image_ids += [image_id] * len(its)
            found.append(its)

        def joined(name: str, *shape: int) -> NDArray[np.float64]:
            arrays = [np.asarray(getattr(its, name), np.float64).reshape(-1, *shape) for its in found]
            return np.concatenate([np.zeros((0, *shape)), *arrays])

        tracked, framed = (all(getattr(its, name) is not None for its in found) for name in ("ids", "regions"))
        return cls(
            skeleton,
            image_ids,
            joined("keypoints", len(skeleton), 2),
            joined("scores", len(skeleton)),
            joined("box_scores"),
            boxes=joined("boxes", 4),
            areas=joined("regions", 2).prod(1) if framed else None,
            track_ids=joined("ids").astype(np.int64) if tracked and found else None,
        )

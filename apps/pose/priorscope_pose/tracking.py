"""Who is who from frame to frame: people keep a number while they move, cross, or are lost for a moment."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_pose.evaluation.oks import object_keypoint_similarity
from priorscope_pose.poses import Poses
from priorscope_pose.skeletons import Skeleton

Array = NDArray[np.float64]


@dataclass
class _Track:
    """A person as last seen."""

    id: int
    frame: int
    keypoints: Array
    shown: NDArray[np.bool_]
    box: Array
    velocity: Array
    """Pixels a frame, (2,)."""
    seen: int = 1


class Tracker:
    """Give people the numbers they had in the frames before.

    Each person known is moved on as fast as they moved last, and compared with everybody in the new frame: the mean of
    the similarity of poses (OKS) and of boxes (intersection over union). People and poses are then paired so that the
    sum of similarities is largest. Who is not found is looked for, where they would be by now, for ``patience`` frames.

    Parameters
    ----------
    skeleton : Skeleton
        Of the poses.
    similarity : float
        A pair that is less similar is none: a new person begins.
    patience : int
        Frames after which somebody who was not seen is forgotten.
    keypoint_threshold : float
        Keypoints with a lower score do not count.
    """

    def __init__(
        self, skeleton: Skeleton, *, similarity: float = 0.2, patience: int = 15, keypoint_threshold: float = 0.3
    ) -> None:
        if not 0 < similarity <= 1 or patience < 0:
            raise InputError(f"a similarity of {similarity} and a patience of {patience} frames")
        self.sigmas = skeleton.sigma_array()
        self.similarity, self.patience, self.keypoint_threshold = similarity, patience, keypoint_threshold
        self._tracks: list[_Track] = []
        self._frame = -1
        self._count = 0

    def update(self, poses: Poses, frame: int | None = None) -> Poses:
        """The poses with ``ids``: numbers from 1, in the order of appearance.

        Parameters
        ----------
        poses : Poses
            Of the next frame; in any order, perhaps none.
        frame : int, optional
            Its number, larger than that of the one before. Default: one more.

        Raises
        ------
        InputError
            A frame number that is not larger.
        """
        frame = self._frame + 1 if frame is None else frame
        if frame <= self._frame:
            raise InputError(f"frame {frame} after frame {self._frame}", remedy="Give frames in order of time.")
        self._frame = frame
        self._tracks = [track for track in self._tracks if frame - track.frame <= self.patience + 1]
        ids = np.zeros(len(poses), np.int64)
        for track, place in self._pairs(poses, frame):
            ids[place] = track.id
            self._follow(track, poses, place, frame)
        for place in np.flatnonzero(ids == 0).tolist():
            self._count += 1
            ids[place] = self._count
            self._tracks.append(
                _Track(
                    self._count,
                    frame,
                    poses.keypoints[place],
                    poses.scores[place] >= self.keypoint_threshold,
                    poses.boxes[place].astype(np.float64),
                    np.zeros(2),
                )
            )
        return replace(poses, ids=ids)

    def _pairs(self, poses: Poses, frame: int) -> list[tuple[_Track, int]]:
        from scipy.optimize import linear_sum_assignment

        if not self._tracks or not len(poses):
            return []
        similar = self._similarities(poses, frame)
        # nobody is paired with a stranger only so that the others fit better
        similar = np.where(similar < self.similarity, 0, similar)
        rows, columns = linear_sum_assignment(similar, maximize=True)
        return [
            (self._tracks[row], int(column))
            for row, column in zip(rows, columns, strict=True)
            if similar[row, column] > 0
        ]

    def _similarities(self, poses: Poses, frame: int) -> Array:
        """(tracks, poses), 0 to 1."""
        moved = np.stack([track.velocity * (frame - track.frame) for track in self._tracks])
        keypoints = np.stack([track.keypoints for track in self._tracks]) + moved[:, None]
        boxes = np.stack([track.box for track in self._tracks]) + np.tile(moved, 2)
        shown = np.stack([track.shown for track in self._tracks])
        new_boxes = poses.boxes.astype(np.float64)
        counted = shown[:, None] & (poses.scores >= self.keypoint_threshold)[None]
        areas = (_areas(boxes)[:, None] + _areas(new_boxes)[None]) / 2
        oks = object_keypoint_similarity(keypoints, poses.keypoints, areas, self.sigmas, counted)
        return (oks + box_overlap(boxes, new_boxes)) / 2

    def _follow(self, track: _Track, poses: Poses, place: int, frame: int) -> None:
        shown = poses.scores[place] >= self.keypoint_threshold
        box = poses.boxes[place].astype(np.float64)
        both = shown & track.shown
        if both.any():
            step = np.median(poses.keypoints[place][both] - track.keypoints[both], axis=0)
        else:
            step = (box[:2] + box[2:] - track.box[:2] - track.box[2:]) / 2
        step = step / (frame - track.frame)
        track.velocity = step if track.seen == 1 else (track.velocity + step) / 2
        track.keypoints, track.shown, track.box = poses.keypoints[place], shown, box
        track.frame = frame
        track.seen += 1


def box_overlap(first: Array, second: Array) -> Array:
    """Intersection over union of boxes (N, 4) with boxes (M, 4): (N, M); 0 where neither has an area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    union = _areas(first)[:, None] + _areas(second)[None] - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0.0)


def _areas(boxes: Array) -> Array:
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(-1)

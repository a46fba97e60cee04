"""COCO's results list of predicted poses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from os import PathLike
from pathlib import Path

from priorscope_pose.data.annotations import ImageId
from priorscope_pose.evaluation.nms import person_scores
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.evaluation.results_file import write_results
from priorscope_pose.poses import Poses
from priorscope_pose.skeletons import Skeleton


def write_coco_results(
    path: str | PathLike[str],
    poses: Iterable[tuple[ImageId, Poses]],
    skeleton: Skeleton,
    *,
    boxes: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write the people of several images as COCO's tools read them.

    A person's score is that of the box times the mean of its keypoints above 0.2, as mmpose ranks people
    (:func:`~priorscope_pose.evaluation.nms.person_scores`).

    Parameters
    ----------
    path : path-like
    poses : iterable of (image id, Poses)
    skeleton : Skeleton
        That of the poses.
    boxes : bool
        Also write ``bbox``; see :func:`~priorscope_pose.evaluation.results_file.write_results` for what that changes.
    overwrite : bool
    """
    found = Predictions.from_poses(skeleton, poses)
    return write_results(
        path,
        replace(found, scores=person_scores(found.scores, found.keypoint_scores)),
        boxes=boxes,
        overwrite=overwrite,
    )

"""A model of one skeleton on data of another: only the key points count that both call by the same name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from priorscope_pose.data.annotations import Annotations, PersonAnnotation
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.skeletons import Skeleton


def annotated_names(data: Skeleton) -> tuple[str, ...]:
    """Names of the key points that the data set annotates: all, but for PoseTrack's ears."""
    places = data.parts.get("annotated", range(len(data)))
    return tuple(data.keypoints[place] for place in places)


def shared_names(data: Skeleton, model: Skeleton) -> tuple[str, ...]:
    """Those of :func:`annotated_names` that a model's skeleton has too."""
    return tuple(name for name in annotated_names(data) if name in model.keypoints)


def labelled_as_shared(annotations: Annotations, model: Skeleton) -> Annotations:
    """The annotations with those key points not labelled that a model's skeleton does not have.

    Who has no other key points is ignored by evaluation.
    """
    own = annotations.skeleton
    lacking = [place for place, name in enumerate(own.keypoints) if name not in model.keypoints]
    if not lacking:
        return annotations

    def changed(person: PersonAnnotation) -> PersonAnnotation:
        keypoints = person.keypoints.copy()
        keypoints[lacking, 2] = 0
        return replace(person, keypoints=keypoints, labelled=person.labelled if (keypoints[:, 2] > 0).any() else 0)

    images = (replace(image, people=tuple(map(changed, image.people))) for image in annotations)
    return replace(annotations, images=tuple(images))


def in_skeleton(predictions: Predictions, skeleton: Skeleton) -> Predictions:
    """Predictions in the places of another skeleton.

    A key point that was not predicted lies at the mean of the person's others, with a score of 0, and is not
    ``present``. Scores of parts are left out.

    Parameters
    ----------
    predictions : Predictions
    skeleton : Skeleton
        With at least one key point of theirs.
    """
    own = predictions.skeleton
    if own.keypoints == skeleton.keypoints:
        return replace(predictions, skeleton=skeleton)
    names = tuple(name for name in skeleton.keypoints if name in own.keypoints)
    there, source = [skeleton.index(name) for name in names], [own.index(name) for name in names]
    count = len(predictions)
    keypoints = np.zeros((count, len(skeleton), 2)) + predictions.keypoints[:, source].mean(1, keepdims=True)
    keypoints[:, there] = predictions.keypoints[:, source]
    scores, present = np.zeros((count, len(skeleton))), np.zeros((count, len(skeleton)), bool)
    scores[:, there] = predictions.keypoint_scores[:, source]
    present[:, there] = True if predictions.present is None else predictions.present[:, source]
    return replace(
        predictions, skeleton=skeleton, keypoints=keypoints, keypoint_scores=scores, present=present, part_scores={}
    )

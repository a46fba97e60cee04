"""The trivial pose: every joint where it is on average in a person's box. What a model must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_pose.data.annotations import Annotations
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.skeletons import Skeleton


@dataclass(frozen=True, eq=False)
class MeanPose:
    """Where joints are in a box, whatever the picture shows.

    Parameters
    ----------
    skeleton : Skeleton
        Of K keypoints.
    places : array (K, 2)
        float64; in shares of the box's width and height, (0, 0) its left upper corner.
    """

    skeleton: Skeleton
    places: NDArray[np.float64]

    def predictions(self, annotations: Annotations) -> Predictions:
        """That pose in the annotated box of everybody who counts in COCO's evaluation; all scores are 1.

        Raises
        ------
        InputError
            Annotations of another skeleton.
        """
        if annotations.skeleton.name != self.skeleton.name:
            raise InputError(f"the mean pose of {self.skeleton.name} for data of {annotations.skeleton.name}")
        pairs = annotations.usable_people()
        boxes = np.array([person.box for _, person in pairs]).reshape(-1, 4)
        sides = boxes[:, 2:] - boxes[:, :2]
        return Predictions(
            self.skeleton,
            [image.id for image, _ in pairs],
            boxes[:, None, :2] + self.places * sides[:, None],
            np.ones((len(pairs), len(self.skeleton))),
            np.ones(len(pairs)),
            boxes=boxes,
            areas=sides.prod(1),
            ids=np.arange(len(pairs)),
        )


def mean_pose(annotations: Annotations) -> MeanPose:
    """The mean over all people with a box and labelled joints.

    Raises
    ------
    InputError
        A joint that nobody has.
    """
    people = [person for _, person in annotations.usable_people() if (person.box[2:] > person.box[:2]).all()]
    labelled = np.array([person.keypoints[:, 2] > 0 for person in people]).reshape(-1, len(annotations.skeleton))
    missing = [name for name, count in zip(annotations.skeleton.keypoints, labelled.sum(0), strict=True) if not count]
    if missing:
        raise InputError(f"nobody of {len(people)} people has a labelled {missing[0]}", remedy="Give more people.")
    places = np.array(
        [(person.keypoints[:, :2] - person.box[:2]) / (person.box[2:] - person.box[:2]) for person in people]
    )
    weights = labelled[..., None]
    return MeanPose(annotations.skeleton, (places * weights).sum(0) / weights.sum(0))

"""What a drawn picture shows, exactly: joints with visibility, boxes, masks, parts.

Pixels are counted as COCO and mmpose count them for joints: (0, 0) is the middle of the first pixel. Boxes and head
boxes are left, top, right, bottom of the area covered, so that the first pixel alone has the box (0, 0, 1, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.scenes.camera import Camera
from priorscope.scenes.world import Caster
from priorscope_pose.data.annotations import AnnotatedImage, PersonAnnotation
from priorscope_pose.skeletons import COCO, POSETRACK

from .figure import JOINTS, Figure, Placed
from .flesh import PARTS

Array = NDArray[np.float64]

LIMB_OF = {
    "shoulder": "upper_arm",
    "elbow": "forearm",
    "wrist": "hand",
    "hip": "thigh",
    "knee": "shin",
    "ankle": "foot",
}
_ABOVE = {"elbow": "upper_arm", "wrist": "forearm", "knee": "thigh", "ankle": "shin"}
_DEPTH = {
    **{"nose": 0.025, "left_eye": 0.02, "right_eye": 0.02, "left_ear": 0.03, "right_ear": 0.03},
    **{"head_top": 0.1, "head_bottom": 0.11},
    **{"shoulder": 0.105, "elbow": 0.075, "wrist": 0.065, "hip": 0.15, "knee": 0.105, "ankle": 0.085},
}
"""How far from the surface a joint may lie for that surface to be its own, metres at 1.75 m."""


def own_parts(joint: str) -> tuple[str, ...]:
    """The parts of the body on whose surface a joint is seen."""
    if joint in ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "head_top"):
        return ("head",)
    if joint == "head_bottom":
        return ("head", "neck", "trunk")
    side, name = joint.split("_")
    parts = [f"{side}_{LIMB_OF[name]}"]
    if name in _ABOVE:
        parts.append(f"{side}_{_ABOVE[name]}")
    if name == "shoulder":
        parts.append("trunk")
    if name == "hip":
        parts += ["hips", "trunk", "skirt"]
    return tuple(parts)


@dataclass(frozen=True, eq=False)
class PersonTruth:
    """One person of a picture.

    Attributes
    ----------
    joints : ndarray, float64, (19, 3)
        x, y and v in the order of `JOINTS`: v is 0 outside the picture (x and y still hold), 1 hidden, 2 visible.
    box : ndarray, float64, (4,)
        Of the visible pixels.
    area : float
        Visible pixels.
    head_box : ndarray, float64, (4,)
        Of the whole head, hidden or not, perhaps beyond the picture.
    track_id : int
        The same through a clip; the person's number in `Truth.owner`.
    action : str
    """

    joints: Array
    box: Array
    area: float
    head_box: Array
    track_id: int
    action: str

    @property
    def coco(self) -> Array:
        """COCO's 17 joints, (17, 3); those that are not labelled are 0."""
        return _labelled(self.joints[: len(COCO)])

    @property
    def posetrack(self) -> Array:
        """PoseTrack18's 17 slots, (17, 3): v is 1 for a joint inside the picture, else all three are 0; no ears."""
        slots = _labelled(self.joints[[JOINTS.index(name) for name in POSETRACK.keypoints]])
        slots[[POSETRACK.index("left_ear"), POSETRACK.index("right_ear")]] = 0
        slots[:, 2] = np.minimum(slots[:, 2], 1)
        return slots


def _labelled(joints: Array) -> Array:
    return np.where(joints[:, 2:] > 0, joints, 0.0)


@dataclass(frozen=True, eq=False)
class Truth:
    """What a picture shows.

    Attributes
    ----------
    people : tuple of PersonTruth
        Those of whom at least `MINIMAL_AREA` pixels are seen.
    owner : ndarray, int16, (H, W)
        The track id of the person at each pixel's centre, -1 elsewhere.
    part : ndarray, int16, (H, W)
        The place in `flesh.PARTS`, -1 elsewhere.
    """

    people: tuple[PersonTruth, ...]
    owner: NDArray[np.int16]
    part: NDArray[np.int16]

    def annotated(
        self, image_id: int, path: Path, *, layout: str = "coco", video: str | None = None, frame: int | None = None
    ) -> AnnotatedImage:
        """The picture as the loaders give it: with the joints of "coco" or of "posetrack"; ids count from 100 times
        the image's.
        """
        if layout not in ("coco", "posetrack"):
            raise InputError(f"there is no layout {layout!r} of joints", remedy="Choose coco or posetrack.")
        height, width = self.owner.shape
        people = []
        for person in self.people:
            joints = person.coco if layout == "coco" else person.posetrack
            people.append(
                PersonAnnotation(
                    image_id=image_id,
                    id=100 * image_id + person.track_id,
                    box=person.box,
                    keypoints=joints,
                    area=person.area,
                    labelled=int((joints[:, 2] > 0).sum()),
                    track_id=person.track_id,
                    head_box=person.head_box,
                )
            )
        return AnnotatedImage(image_id, path, width, height, tuple(people), video=video, frame=frame)


MINIMAL_AREA = 12
"""Pixels of a person below which nobody would have annotated it."""


def project(camera: Camera, points: Array, height: int, width: int) -> tuple[Array, Array]:
    """Image points, (N, 2), with (0, 0) in the middle of the first pixel, and depths, (N,), of world points, (N, 3)."""
    seen = (points - camera.position) @ camera.rotation.T
    depth = seen[:, 2]
    matrix = camera.intrinsics(height, width)
    flat = seen[:, :2] / np.where(np.abs(depth) < 1e-6, 1e-6, depth)[:, None]
    return flat * [matrix[0, 0], matrix[1, 1]] + [matrix[0, 2] - 0.5, matrix[1, 2] - 0.5], depth


def visibility(
    caster: Caster, camera: Camera, placed: Placed, figure: Figure, ours: NDArray[np.bool_], part: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Whether a ray from the camera to each joint of `JOINTS` first meets that joint's own part close by, (19,).

    Parameters
    ----------
    ours : ndarray, bool
        For each mesh of the caster's world whether it belongs to the figure.
    part : ndarray, int
        And which part of `flesh.PARTS` it is.
    """
    rays = placed.joints - camera.position
    hits = caster.cast(camera.position, rays)
    result = np.ones(len(JOINTS), dtype=bool)
    scale = figure.build.height / 1.75
    stout = max(figure.build.girth / scale, 1.0)
    for ray, mesh, share in zip(hits.ray, hits.part, hits.distance, strict=True):
        name = JOINTS[ray]
        gap = (1 - share) * float(np.linalg.norm(rays[ray]))
        kind = name if name in _DEPTH else name.split("_")[1]
        reach = _DEPTH[kind] * (figure.build.head if kind == name else scale * stout) + figure.outfit.loose
        own = bool(ours[mesh]) and PARTS[part[mesh]] in own_parts(name)
        # what lies behind the joint does not hide it
        result[ray] = gap < -1e-3 or (own and gap < reach)
    return result

"""What training does to a person's region: the published augmentation of the DCPose / FAMI-Pose lineage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_pose.diffpose.codec import matrix_of
from priorscope_pose.diffpose.spec import DiffPoseSpec
from priorscope_pose.geometry.boxes import center_scale
from priorscope_pose.skeletons import Skeleton


@dataclass(frozen=True)
class Augmentation:
    """How strongly regions are changed; the defaults are published, in the code of DCPose and FAMI-Pose.

    All frames of a clip are changed alike.
    """

    scale: float = 0.35
    """The region grows by clip(1 + scale N, 1 - scale, 1 + scale), N standard normal."""
    rotation: float = 45.0
    """Degrees: clip(rotation N, -2 rotation, 2 rotation)."""
    rotation_share: float = 0.6
    """Share of the clips that are rotated."""
    half_body: float = 0.3
    """Share of the clips with enough keypoints that show the upper or the lower half only."""
    half_body_keypoints: int = 8
    """A half is shown where more keypoints than this are labelled."""
    half_body_padding: float = 1.5
    """Of the box about that half's keypoints."""
    upper_share: float = 0.6915
    """Share of the upper halves: published is that a normal number, not a uniform one, is below 0.5."""
    flip: float = 0.5
    """Share of the clips that are mirrored."""

    def check(self) -> Augmentation:
        """Refuse numbers that make no sense (InputError)."""
        for name in ("rotation_share", "half_body", "upper_share", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)}", remedy="Use a share from 0 to 1.")
        if not 0 <= self.scale < 1 or not 0 <= self.rotation < float("inf") or not self.half_body_padding > 0:
            raise InputError(
                f"scale {self.scale}, rotation {self.rotation}, half_body_padding {self.half_body_padding}",
                remedy="Use a scale below 1, and numbers above 0.",
            )
        return self


#: For held-out data.
NONE = Augmentation(scale=0.0, rotation_share=0.0, half_body=0.0, flip=0.0)


@dataclass(frozen=True, eq=False)
class Region:
    """What a crop shows: middle and size (2,) in pixels of the image, degrees, and whether it is mirrored."""

    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    rotation: float
    mirrored: bool


def draw_region(
    box: NDArray[np.float64],
    keypoints: NDArray[np.float64],
    spec: DiffPoseSpec,
    skeleton: Skeleton,
    augmentation: Augmentation,
    random: np.random.Generator,
) -> Region:
    """The region of one clip.

    Parameters
    ----------
    box : array (4,)
    keypoints : array (K, 3)
        x, y, v.
    spec, skeleton, augmentation
    random : Generator
        As many numbers are drawn whatever the settings are, so that switching one off leaves the others as they were.

    Returns
    -------
    Region
    """
    half, upper, turned, mirrored = random.random(4)
    size_noise, turn_noise = random.standard_normal(2)
    center, scale = (values[0].astype(np.float64) for values in center_scale(box[None], spec.input_size, spec.padding))
    labelled = keypoints[:, 2] > 0
    if labelled.sum() > augmentation.half_body_keypoints and half < augmentation.half_body:
        points = half_body(keypoints, skeleton, upper=upper < augmentation.upper_share)
        if points is not None:
            center, scale = _region_of(points, spec.input_size, augmentation.half_body_padding)
    factor = np.clip(1 + augmentation.scale * size_noise, 1 - augmentation.scale, 1 + augmentation.scale)
    most = 2 * augmentation.rotation
    rotation = float(np.clip(augmentation.rotation * turn_noise, -most, most))
    return Region(
        center,
        scale * factor,
        rotation if turned < augmentation.rotation_share else 0.0,
        bool(mirrored < augmentation.flip),
    )


def half_body(keypoints: NDArray[np.float64], skeleton: Skeleton, *, upper: bool) -> NDArray[np.float64] | None:
    """Labelled keypoints (n, 2) of one half of the body, or None where there are fewer than two.

    As published: the upper half where it was asked for and has more than two; else the lower, if that has more than
    two; else the upper.
    """
    if "upper" not in skeleton.parts or "lower" not in skeleton.parts:
        return None
    halves = []
    for part in ("upper", "lower"):
        points = keypoints[list(skeleton.parts[part])]
        halves.append(points[points[:, 2] > 0, :2])
    above, below = halves
    if upper and len(above) > 2:
        chosen = above
    else:
        chosen = below if len(below) > 2 else above
    return chosen if len(chosen) >= 2 else None


def _region_of(
    points: NDArray[np.float64], size: tuple[int, int], padding: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As published: about the points' mean, as large as their extent, in the crop's aspect ratio."""
    extent = np.maximum(points.max(0) - points.min(0), 1.0)  # points on a line have no extent across it
    box = np.concatenate([-extent, extent])[None] / 2
    _, scale = center_scale(box, size, padding)
    return points.mean(0), scale[0].astype(np.float64)


def region_matrix(region: Region, spec: DiffPoseSpec, image_width: int) -> NDArray[np.float64]:
    """The map (2, 3) from the image to the crop; a mirrored one mirrors the image first, as published."""
    center = region.center.copy()
    if region.mirrored:
        center[0] = image_width - 1 - center[0]
    found = matrix_of(spec)(center[None], region.scale[None], spec.input_size, region.rotation)
    matrix = np.asarray(found[0], np.float64)
    if region.mirrored:
        matrix[:, 2] += matrix[:, 0] * (image_width - 1)
        matrix[:, 0] *= -1
    return matrix

"""Which region of a picture a training crop shows: mirror, half body, random box, in SDPose's published order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import truncnorm

from priorscope.errors import InputError
from priorscope_pose.geometry.affine import apply, udp_matrix
from priorscope_pose.geometry.boxes import PADDING, center_scale
from priorscope_pose.geometry.crop import warp
from priorscope_pose.skeletons import Skeleton
from priorscope_pose.training.people import Person

_ONE = truncnorm(-1.0, 1.0)


@dataclass(frozen=True)
class RegionAugmentation:
    """How strongly the region is changed; the defaults are SDPose's, as its data loader has them."""

    flip: float = 0.5
    """Share of the crops that are mirrored."""
    half_body: float = 0.3
    """Share of the people with enough keypoints of whom the upper or the lower half is shown."""
    half_body_keypoints: int = 9
    """Labelled keypoints that a person needs for it."""
    half_body_upper: int = 2
    """Of which so many in the upper half, for the upper half to be shown."""
    half_body_lower: int = 3
    """And in the lower half."""
    half_body_padding: float = 1.5
    """Factor on the extent of the half's keypoints."""
    upper_share: float = 0.7
    """Share of upper halves, where both halves have enough keypoints."""
    shift: float = 0.16
    """Largest shift, as a share of the region's sides."""
    shift_share: float = 0.3
    """Share of the crops that are shifted."""
    scale: tuple[float, float] = (0.5, 1.5)
    """Least and greatest factor on the region."""
    scale_share: float = 1.0
    """Share of the crops that are scaled."""
    rotation: float = 80.0
    """Largest rotation, degrees."""
    rotation_share: float = 0.6
    """Share of the crops that are rotated."""

    def check(self) -> RegionAugmentation:
        """Refuse numbers that make no sense (InputError)."""
        for name in ("flip", "half_body", "upper_share", "shift_share", "scale_share", "rotation_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)}", remedy="Use a share from 0 to 1.")
        if not 0 < self.scale[0] <= self.scale[1] < float("inf"):
            raise InputError(f"factors on the region {self.scale}", remedy="Give the least and the greatest, above 0.")
        for name in ("shift", "rotation"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} {getattr(self, name)}", remedy="Use 0 or more.")
        return self


#: For held-out people: the region that evaluation shows.
NO_CHANGE = RegionAugmentation(flip=0.0, half_body=0.0, shift_share=0.0, scale_share=0.0, rotation_share=0.0)


@dataclass(frozen=True, eq=False)
class Cut:
    """A crop and what it shows.

    Parameters
    ----------
    image : uint8 array (h, w, 3)
    keypoints : float64 array (K, 2)
        In pixels of the crop, perhaps outside of it; names changed sides in a mirrored crop.
    visible : float32 array (K,)
        1 where labelled. A keypoint outside keeps it: the codec gives it no weight once its Gaussian has left too.
    """

    image: NDArray[np.uint8]
    keypoints: NDArray[np.float64]
    visible: NDArray[np.float32]


def mirrored(person: Person, skeleton: Skeleton) -> Person:
    """Box and keypoints as in the mirrored picture; the picture itself stays, :func:`cut_out` mirrors it."""
    last = person.image.shape[1] - 1
    left, top, right, bottom = person.box
    keypoints = person.keypoints.copy()
    if len(keypoints):
        keypoints[:, 0] = last - keypoints[:, 0]
        keypoints = keypoints[list(skeleton.flip_indices)]
    return replace(person, box=np.array([last - right, top, last - left, bottom]), keypoints=keypoints)


def half_body_box(
    keypoints: NDArray[np.float64], skeleton: Skeleton, how: RegionAugmentation, *, upper: bool
) -> NDArray[np.float64] | None:
    """Centre and padded extent (x, y, w, h) of one half's labelled keypoints; None where neither half has enough.

    As mmpose's RandomHalfBody: about the keypoints' mean, not the middle of their extent.
    """
    labelled = keypoints[:, 2] > 0
    if labelled.sum() < how.half_body_keypoints or not {"upper", "lower"} <= set(skeleton.parts):
        return None
    halves = {}
    for part, least in (("upper", how.half_body_upper), ("lower", how.half_body_lower)):
        places = [place for place in skeleton.parts[part] if labelled[place]]
        if len(places) >= max(least, 2):
            halves[part] = keypoints[places, :2]
    if not halves:
        return None
    wanted = "upper" if upper else "lower"
    points = halves.get(wanted, next(iter(halves.values())))
    extent = np.maximum(points.max(0) - points.min(0), 1.0)  # points on a line have no extent across it
    return np.concatenate([points.mean(0), extent * how.half_body_padding])


def draw_region(
    person: Person, skeleton: Skeleton, how: RegionAugmentation, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Centre, size (before the aspect ratio is mended) and rotation in degrees of one crop.

    As many numbers are drawn whatever ``how`` is, so that switching one change off leaves the others as they were.
    """
    half, upper, shifted, scaled, turned = random.random(5)
    shift_x, shift_y, factor, turn = _ONE.ppf(random.random(4))
    center = (person.box[:2] + person.box[2:]) / 2
    size = (person.box[2:] - person.box[:2]) * PADDING
    if half < how.half_body and len(person.keypoints):
        found = half_body_box(person.keypoints, skeleton, how, upper=upper < how.upper_share)
        if found is not None:
            center, size = found[:2], found[2:]
    if shifted < how.shift_share:
        center = center + np.array([shift_x, shift_y]) * how.shift * size
    if scaled < how.scale_share:
        low, high = how.scale
        size = size * (factor * (high - low) / 2 + (high + low) / 2)
    return center, size, float(turn * how.rotation) if turned < how.rotation_share else 0.0


def cut_out(
    person: Person,
    skeleton: Skeleton,
    size: tuple[int, int],
    how: RegionAugmentation,
    random: np.random.Generator,
) -> Cut:
    """The crop of a person by the unbiased (UDP) warp, black outside of the picture.

    Parameters
    ----------
    person : Person
    skeleton : Skeleton
        Which keypoints swap in a mirror, and which are the halves of a body.
    size : tuple of int
        (width, height) of the crop.
    how : RegionAugmentation
    random : Generator

    Returns
    -------
    Cut
    """
    flip = bool(random.random() < how.flip)
    seen = mirrored(person, skeleton) if flip else person
    center, extent, rotation = draw_region(seen, skeleton, how, random)
    box = np.concatenate([center - extent / 2, center + extent / 2])
    center32, scale = center_scale(box[None], size, 1.0)
    matrix = udp_matrix(center32, scale, size, rotation)[0].astype(np.float64)
    keypoints = apply(matrix, seen.keypoints[:, :2]) if len(seen.keypoints) else np.zeros((0, 2))
    if flip:  # of the picture, before the crop
        matrix[:, 2] += matrix[:, 0] * (person.image.shape[1] - 1)
        matrix[:, 0] *= -1
    image = warp(person.image, matrix[None], size)[0]
    return Cut(image, keypoints, (seen.keypoints[:, 2] > 0).astype(np.float32))

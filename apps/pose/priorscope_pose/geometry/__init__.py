"""From a person's box to the crop that a network takes, and from its keypoints back to the image."""

from priorscope_pose.geometry.affine import apply, classic_matrix, invert, udp_matrix
from priorscope_pose.geometry.boxes import (
    center_scale,
    check_boxes,
    clip_boxes,
    usable_boxes,
    xywh_to_xyxy,
    xyxy_to_xywh,
)
from priorscope_pose.geometry.crop import POLICIES, Crops, Policy, crop_people, warp
from priorscope_pose.geometry.flip import flip_back, flip_back_combined, flip_coordinates, merge_flip

__all__ = [
    "POLICIES",
    "Crops",
    "Policy",
    "apply",
    "center_scale",
    "check_boxes",
    "classic_matrix",
    "clip_boxes",
    "crop_people",
    "flip_back",
    "flip_back_combined",
    "flip_coordinates",
    "invert",
    "merge_flip",
    "udp_matrix",
    "usable_boxes",
    "warp",
    "xywh_to_xyxy",
    "xyxy_to_xywh",
]

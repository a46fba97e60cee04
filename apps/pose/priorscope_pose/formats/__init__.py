"""Poses in the layouts of other tools: COCO's results, OpenPose's JSON, ControlNet's pictures, numpy archives."""

from priorscope_pose.formats.arrays import PoseArchive, read_poses, write_poses
from priorscope_pose.formats.coco import write_coco_results
from priorscope_pose.formats.controlnet import controlnet_image
from priorscope_pose.formats.openpose import (
    BODY_18,
    BODY_25,
    body_points,
    openpose_document,
    write_openpose,
)

__all__ = [
    "BODY_18",
    "BODY_25",
    "PoseArchive",
    "body_points",
    "controlnet_image",
    "openpose_document",
    "read_poses",
    "write_coco_results",
    "write_openpose",
    "write_poses",
]

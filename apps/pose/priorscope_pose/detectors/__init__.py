"""Who finds the people: a file of boxes, a detector of transformers or mmdet, or nobody (the whole image).

All of them are called alike (:class:`~priorscope_pose.detectors.base.Detector`); any other may take their place.
"""

from priorscope_pose.detectors.base import Detector, Shown, WholeImage, best_boxes
from priorscope_pose.detectors.box_file import BoxFile, read_box_file
from priorscope_pose.detectors.mmdet import boxes_from_mmdet

__all__ = ["BoxFile", "Detector", "Shown", "WholeImage", "best_boxes", "boxes_from_mmdet", "read_box_file"]

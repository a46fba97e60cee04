"""CrowdPose (Li et al. 2019): 14 key points, and for every image how crowded it is."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from priorscope_pose.data.annotations import Annotations
from priorscope_pose.data.coco import read_coco
from priorscope_pose.skeletons import CROWDPOSE


def read_crowdpose(path: str | PathLike[str], images: str | PathLike[str] | None = None) -> Annotations:
    """Read ``crowdpose_{train,val,test}.json`` (or mmpose's ``mmpose_crowdpose_*.json``).

    Areas are those of the boxes, as the benchmark takes them. ``num_keypoints`` stays what the file says: it counts
    fewer key points than are labelled, and the benchmark ignores people by it.

    Parameters
    ----------
    path : path-like
    images : path-like, optional
        Default: ``images`` beside the file or beside its folder, else the file's folder.

    Raises
    ------
    InputError
        As :func:`priorscope_pose.data.coco.read_coco`.
    """
    path = Path(path)
    folders = [folder / "images" for folder in (path.parent, path.parent.parent)]
    folder = next((folder for folder in folders if folder.is_dir()), path.parent)
    return read_coco(path, images if images is not None else folder, skeleton=CROWDPOSE, area_of_box=True)

"""Human-Art (Ju et al. 2023): people in photographs and in works of art, with COCO's 17 key points."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from priorscope_pose.data.annotations import Annotations
from priorscope_pose.data.coco import read_coco
from priorscope_pose.skeletons import HUMANART


def read_humanart(path: str | PathLike[str], images: str | PathLike[str] | None = None) -> Annotations:
    """Read ``HumanArt/annotations/{validation_humanart,training_humanart_coco}.json``.

    Parameters
    ----------
    path : path-like
    images : path-like, optional
        The folder that holds ``HumanArt``, from which its file names start. Default: the one above ``annotations``'
        own.

    Raises
    ------
    InputError
        As :func:`priorscope_pose.data.coco.read_coco`.
    """
    path = Path(path)
    folder = Path(images) if images is not None else path.parent.parent.parent
    return read_coco(path, folder, skeleton=HUMANART)

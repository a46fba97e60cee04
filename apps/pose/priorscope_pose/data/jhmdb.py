"""JHMDB (Jhuang et al. 2013) in the JSON files of mmpose: 15 joints, one person a frame."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path, PurePosixPath

import numpy as np

from priorscope_pose.data.annotations import AREA_OF_BOX, Annotations, PersonAnnotation
from priorscope_pose.data.coco import read_coco
from priorscope_pose.skeletons import JHMDB


def read_jhmdb(path: str | PathLike[str], images: str | PathLike[str] | None = None) -> Annotations:
    """Read ``Sub{1,2,3}_{train,test}.json``.

    The files count pixels from 1; here they count from 0, as everywhere else. The area is that of the box inside of the
    image, at least 1.

    Parameters
    ----------
    path : path-like
    images : path-like, optional
        The folder of the videos' folders. Default: ``Rename_Images`` beside the file or its folder, else the file's.

    Raises
    ------
    InputError
        As :func:`priorscope_pose.data.coco.read_coco`.
    """
    path = Path(path)
    folders = [folder / "Rename_Images" for folder in (path.parent, path.parent.parent)]
    folder = next((folder for folder in folders if folder.is_dir()), path.parent)
    folder = Path(images) if images is not None else folder
    read = read_coco(path, folder, skeleton=JHMDB)
    shifted = []
    for image in read:
        name = PurePosixPath(image.path.relative_to(folder).as_posix())
        shifted.append(
            replace(
                image,
                people=tuple(_from_zero(person, image.width, image.height) for person in image.people),
                video=str(name.parent),
                frame=int(name.stem) if name.stem.isdigit() else None,
            )
        )
    return Annotations(JHMDB, tuple(shifted), path)


def _from_zero(person: PersonAnnotation, width: int, height: int) -> PersonAnnotation:
    moved = replace(person, box=person.box - 1, keypoints=person.keypoints - np.array([1.0, 1.0, 0.0]))
    cut = moved.clipped_box(width, height)
    area = 0.0 if cut is None else (cut[2] - cut[0]) * (cut[3] - cut[1]) * AREA_OF_BOX
    return replace(moved, area=max(float(area), 1.0))

"""Poses of an image or a video in one numpy archive."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.data.arrays import write_npz
from priorscope.errors import InputError
from priorscope_pose.poses import Poses
from priorscope_pose.skeletons import skeleton

_ARRAYS = ("keypoints", "scores", "boxes", "box_scores", "ids", "regions")
_OPTIONAL = ("ids", "regions")
_WORDS = ("skeleton", "crop", "model")


@dataclass(frozen=True, eq=False)
class PoseArchive:
    """What :func:`write_poses` wrote.

    Parameters
    ----------
    poses : list of Poses
        One a frame.
    frames : int64 array (T,)
        Their numbers.
    size : (width, height)
        Of the frames, in pixels.
    """

    poses: list[Poses]
    frames: NDArray[np.int64]
    size: tuple[int, int]


def write_poses(
    path: str | PathLike[str],
    poses: Sequence[Poses],
    size: tuple[int, int],
    *,
    frames: Sequence[int] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the poses of the frames of a video, or of one image, as ``.npz``.

    All people lie one after the other: ``keypoints`` (P, K, 2), ``scores`` (P, K), ``boxes`` (P, 4), ``box_scores``
    (P,), ``regions`` (P, 2) and ``ids`` (P,) where they are known, ``frame`` (P,): the number of each one's frame;
    ``frames`` (T,): numbers of all frames; ``size`` (width, height); ``keypoint_names`` (K,); ``about``: JSON text with
    skeleton, crop policy and model.

    Parameters
    ----------
    path : path-like
    poses : sequence of Poses
        One a frame, all of one model.
    size : (width, height)
    frames : sequence of int, optional
        Numbers of the frames; by default they count from 0.
    overwrite : bool

    Raises
    ------
    InputError
        No poses, poses of several models, or a wrong number of frame numbers.
    """
    if not poses:
        raise InputError("no poses to write", path=path)
    numbers = np.arange(len(poses)) if frames is None else np.asarray(frames, np.int64)
    if numbers.shape != (len(poses),):
        raise InputError(f"{numbers.size} frame numbers for poses of {len(poses)} frames", path=path)
    words = [{name: getattr(its, name) for name in _WORDS} for its in poses]
    if any(its != words[0] for its in words):
        raise InputError("poses of several models, skeletons or crops in one file", path=path)
    arrays = {
        name: np.concatenate([getattr(its, name) for its in poses])
        for name in _ARRAYS
        if name not in _OPTIONAL or all(getattr(its, name) is not None for its in poses)
    }
    arrays["frame"] = np.repeat(numbers, [len(its) for its in poses])
    arrays |= {"frames": numbers, "size": np.array(size, np.int64)}
    names = np.array(skeleton(poses[0].skeleton).keypoints)
    return write_npz(path, {**arrays, "keypoint_names": names, "about": json.dumps(words[0])}, overwrite=overwrite)


def read_poses(path: str | PathLike[str]) -> PoseArchive:
    """Read what :func:`write_poses` wrote.

    Raises
    ------
    InputError
        No such file, or another archive.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
    except FileNotFoundError:
        raise InputError("no such file", path=path, remedy="Check the path.") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"is no numpy archive ({error})", path=path) from None
    lacking = [name for name in (*_ARRAYS, "frame", "frames", "size", "about") if name not in arrays]
    if set(lacking) - set(_OPTIONAL):
        raise InputError(f"has no {lacking[0]!r}", path=path, remedy="Is it an archive of `priorscope pose predict`?")
    words = json.loads(str(arrays["about"]))
    poses = []
    for number in arrays["frames"]:
        its = arrays["frame"] == number
        poses.append(Poses(**{name: arrays[name][its] for name in _ARRAYS if name in arrays}, **words))
    width, height = (int(side) for side in arrays["size"])
    return PoseArchive(poses, arrays["frames"], (width, height))

"""What DATA means on the command line: an annotation file, a folder of videos, or people that are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from priorscope.errors import InputError
from priorscope_pose.data.annotations import Annotations
from priorscope_pose.evaluation.suite import METRICS
from priorscope_pose.people import HELD_OUT_SEED, write_coco, write_posetrack

#: Drawn people that are looked at while training: other ones than those that ``evaluate`` measures on.
LOOKED_AT_SEED = HELD_OUT_SEED + 10_000
_PREFIX = "people:"


def drawn_count(data: str) -> int | None:
    """COUNT of ``people:COUNT``; None for anything else.

    Raises
    ------
    InputError
        What follows the colon is no positive number.
    """
    if not data.startswith(_PREFIX):
        return None
    text = data.removeprefix(_PREFIX)
    if not text.isdigit() or not int(text):
        raise InputError(f"cannot draw {data!r}", remedy="Write people:COUNT, for example people:2000.")
    return int(text)


def read_annotations(data: str, layout: str, images: Path | None = None) -> Annotations:
    """The data set in its layout, a name of :data:`priorscope_pose.evaluation.suite.METRICS`.

    Raises
    ------
    InputError
        No such layout, or files that are not as it says.
    """
    if layout not in METRICS:
        raise InputError(f"no layout {layout!r}", remedy=f"There are {', '.join(METRICS)}.")
    if not Path(data).exists():
        raise InputError("no such file or folder", path=data, remedy="Give annotations, or people:COUNT to draw some.")
    return METRICS[layout].read(data, images)


def draw_stills(folder: Path, count: int, first: int = 0, *, workers: int = 1, progress: bool = True) -> Annotations:
    """``count`` drawn pictures in COCO's layout in ``folder``, drawn unless they are there."""
    path = folder / "annotations/person_keypoints_drawn.json"
    if not path.is_file():
        seeds = range(first, first + count)
        write_coco(folder, seeds, split="drawn", people=None, workers=max(workers, 1), progress=progress)
    return METRICS["coco"].read(path)


def draw_clips(folder: Path, count: int, first: int = 0, *, workers: int = 1, progress: bool = True) -> Annotations:
    """``count`` drawn clips in PoseTrack18's layout in ``folder``; those that are there are kept."""
    seeds = range(first, first + count)
    path = write_posetrack(
        folder, seeds, split="drawn", frames=7, people=None, workers=max(workers, 1), progress=progress
    )
    return METRICS["posetrack"].read(path)


def hold_out(annotations: Annotations, count: int, seed: int) -> tuple[Annotations, Annotations | None]:
    """Some pictures set apart, at most a tenth; of videos, whole ones.

    Returns
    -------
    rest, held_out : Annotations
        The second is None where ``count`` is 0 or there is too little.
    """
    videos = annotations.videos()
    random = np.random.default_rng([seed, 11])
    if videos:
        names = sorted(videos)
        number = min(max(1, round(len(names) * min(0.1, count / max(len(annotations), 1)))), len(names) - 1)
        chosen = {names[place] for place in random.permutation(len(names))[: number if count else 0]}
        ids = {image.id for name in chosen for image in videos[name]}
    else:
        number = min(count, len(annotations) // 10)
        ids = {annotations.images[int(place)].id for place in random.permutation(len(annotations))[:number]}
    if not ids:
        return annotations, None
    rest = [image.id for image in annotations if image.id not in ids]
    return annotations.select(rest), annotations.select(ids)

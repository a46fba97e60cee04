"""Data sets of drawn people on disk, in COCO's and in PoseTrack18's layout.

The annotation files are written last and whole, so a folder that has one is finished; pictures of a run that was cut
short are drawn again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import refuse_overwrite, write_text
from priorscope.errors import InputError
from priorscope_pose.skeletons import COCO, POSETRACK

from .draw import GENERATOR_VERSION, draw_clip, draw_people
from .truth import PersonTruth, Truth

_CHUNK = 25
"""Seeds that a worker takes at a time."""


def write_coco(
    folder: str | os.PathLike[str],
    seeds: Sequence[int],
    *,
    split: str = "train2017",
    height: int = 160,
    width: int = 128,
    people: int | None = 1,
    suffix: str = ".jpg",
    workers: int = 1,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Draw pictures into ``folder/SPLIT`` and their key points into ``folder/annotations/person_keypoints_SPLIT.json``.

    Image ids are the seeds. Boxes and areas are those of the visible pixels, which ``segmentation`` holds as COCO's
    uncompressed run lengths.

    Parameters
    ----------
    folder : path-like
        Made if need be.
    seeds : sequence of int
        One picture each.
    split : str
        A name without ``_`` and ``/``.
    height, width, people
        As in `draw_people`; `options` are its other arguments.
    suffix : str
        ``.jpg`` (quality 95) or ``.png``.
    workers : int
        Processes. The files are the same whatever their number.
    progress : bool
        Show a bar with throughput and remaining time.

    Returns
    -------
    Path
        The annotation file.

    Raises
    ------
    InputError
        For a wrong argument, or if the annotation file is there already.
    """
    folder, seeds = Path(folder), _checked(seeds, split, suffix, workers)
    result = refuse_overwrite(folder / "annotations" / f"person_keypoints_{split}.json", remedy="Name another folder.")
    (folder / split).mkdir(parents=True, exist_ok=True)
    one = partial(
        _coco_picture, folder / split, suffix, {"height": height, "width": width, "people": people, **options}
    )
    images, annotations = _collected(one, seeds, workers, progress)
    content = {
        "info": {"description": "people drawn by priorscope", "version": str(GENERATOR_VERSION)},
        "licenses": [],
        "categories": [_category(COCO.keypoints, COCO.edges)],
        "images": images,
        "annotations": annotations,
    }
    return write_text(result, json.dumps(content))


def write_posetrack(
    folder: str | os.PathLike[str],
    seeds: Sequence[int],
    *,
    split: str = "train",
    frames: int = 5,
    height: int = 160,
    width: int = 128,
    people: int | None = 1,
    suffix: str = ".jpg",
    workers: int = 1,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Draw clips into ``folder/images/SPLIT/VIDEO`` and write ``folder/annotations/SPLIT/VIDEO.json``, one a seed.

    As in PoseTrack18, all joints inside a picture are labelled (v = 1), hidden or not; ears never are; the box is the
    extent of the labelled joints, 30 % larger; head box and track id are given for each person. Somebody without a
    labelled joint, or of whom fewer than `truth.MINIMAL_AREA` pixels are seen, is left out of a frame.

    Parameters
    ----------
    folder, seeds, split, suffix, workers, progress
        As in `write_coco`. Clips whose annotation file is there already are kept.
    frames, height, width, people
        As in `draw_clip`; `options` are its other arguments.

    Returns
    -------
    Path
        The folder of the annotation files.
    """
    folder, seeds = Path(folder), _checked(seeds, split, suffix, workers)
    result = folder / "annotations" / split
    result.mkdir(parents=True, exist_ok=True)
    setting = {"frames": frames, "height": height, "width": width, "people": people, **options}
    todo = [seed for seed in seeds if not (result / f"{_video(seed)}.json").exists()]
    _collected(partial(_posetrack_clip, folder, split, suffix, setting), todo, workers, progress)
    return result


def _checked(seeds: Sequence[int], split: str, suffix: str, workers: int) -> list[int]:
    seeds = [int(seed) for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(
            f"{len(seeds)} seeds, {len(set(seeds))} of them different", remedy="Give each once, 0 or more."
        )
    if not split or set(split) & set("_/\\") or split.startswith("."):
        raise InputError(f"a split cannot be called {split!r}", remedy="Use a name such as train2017.")
    if suffix not in (".jpg", ".png"):
        raise InputError(f"pictures cannot be written as {suffix!r}", remedy="Choose .jpg or .png.")
    if workers < 1:
        raise InputError(f"workers is {workers}", remedy="Give 1 or more.")
    return seeds


def _category(keypoints: Sequence[str], edges: Sequence[tuple[int, int]]) -> dict[str, Any]:
    skeleton = [[one + 1, two + 1] for one, two in edges]
    return {"supercategory": "person", "id": 1, "name": "person", "keypoints": list(keypoints), "skeleton": skeleton}


def _save(path: Path, image: NDArray[np.uint8]) -> None:
    from PIL import Image

    if path.suffix == ".jpg":
        Image.fromarray(image).save(path, quality=95, subsampling=0)
    else:
        Image.fromarray(image).save(path)


def _xywh(box: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 3) for value in (box[0], box[1], box[2] - box[0], box[3] - box[1])]


def _flat(joints: NDArray[np.float64]) -> list[float]:
    return [int(value) if place % 3 == 2 else round(float(value), 3) for place, value in enumerate(joints.ravel())]


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's uncompressed run lengths of a mask, (H, W): column by column, zeros first."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [not mask[-1, -1]]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(ends, prepend=0)
    return {"size": list(mask.shape), "counts": counts.tolist()}


def _coco_picture(folder: Path, suffix: str, setting: dict[str, Any], seed: int) -> tuple[dict, list[dict]]:
    image, truth = draw_people(seed, **setting)
    name = f"{seed:012d}{suffix}"
    _save(folder / name, image)
    height, width = truth.owner.shape
    people = [_coco_person(seed, person, truth) for person in truth.people]
    return {"id": seed, "file_name": name, "height": height, "width": width}, people


def _coco_person(seed: int, person: PersonTruth, truth: Truth) -> dict[str, Any]:
    joints = person.coco
    return {
        "id": 100 * seed + person.track_id,
        "image_id": seed,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": _xywh(person.box),
        "area": person.area,
        "num_keypoints": int((joints[:, 2] > 0).sum()),
        "keypoints": _flat(joints),
        "segmentation": run_lengths(truth.owner == person.track_id),
        "action": person.action,
    }


def _video(seed: int) -> str:
    return f"{seed:06d}_people"


def _posetrack_clip(
    folder: Path, split: str, suffix: str, setting: dict[str, Any], seed: int
) -> tuple[dict, list[dict]]:
    images, truths = draw_clip(seed, **setting)
    video = _video(seed)
    place = folder / "images" / split / video
    place.mkdir(parents=True, exist_ok=True)
    records, annotations = [], []
    for number, (image, truth) in enumerate(zip(images, truths, strict=True)):
        name = f"{number:06d}{suffix}"
        _save(place / name, image)
        image_id = int(f"1{seed:06d}{number:04d}")
        height, width = truth.owner.shape
        records.append(
            {
                "id": image_id,
                "frame_id": image_id,
                "vid_id": f"{seed:06d}",
                "nframes": len(images),
                "is_labeled": True,
                "has_no_densepose": True,
                "file_name": f"images/{split}/{video}/{name}",
                "width": width,
                "height": height,
                "ignore_regions_x": [],
                "ignore_regions_y": [],
            }
        )
        annotations += [_tracked(image_id, person) for person in truth.people if person.posetrack[:, 2].any()]
    category = _category(POSETRACK.keypoints, POSETRACK.edges)
    content = {"categories": [category], "images": records, "annotations": annotations}
    write_text(folder / "annotations" / split / f"{video}.json", json.dumps(content))
    return {}, []


def _tracked(image_id: int, person: PersonTruth) -> dict[str, Any]:
    joints = person.posetrack
    points = joints[joints[:, 2] > 0, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.15 * (high - low)
    return {
        "id": 100 * image_id + person.track_id,
        "image_id": image_id,
        "track_id": person.track_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": _xywh(np.concatenate([low - margin, high + margin])),
        "bbox_head": _xywh(person.head_box),
        "num_keypoints": len(points),
        "keypoints": _flat(joints),
        "scores": [],
    }


def _collected(
    one: Callable[[int], tuple[dict, list[dict]]], seeds: list[int], workers: int, progress: bool
) -> tuple[list[dict], list[dict]]:
    """What `one` gives for each seed, in the order of the seeds."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("people"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    images: list[dict] = []
    annotations: list[dict] = []
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("people", total=len(seeds), rate="")
        for image, people in _results(one, seeds, workers):
            images.append(image)
            annotations += people
            bar.advance(task)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:.1f} /s" if speed else "")
    return images, annotations


def _results(
    one: Callable[[int], tuple[dict, list[dict]]], seeds: list[int], workers: int
) -> Iterator[tuple[dict, list[dict]]]:
    if workers == 1:
        yield from map(one, seeds)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # spawn: a forked child would share the parent's threads' locks (torch, BLAS)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(one, seeds, chunksize=max(1, min(_CHUNK, len(seeds) // workers)))

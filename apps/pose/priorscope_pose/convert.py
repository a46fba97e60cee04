"""Annotated or predicted poses into other tools' layouts, without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from priorscope.data.files import refuse_existing
from priorscope.data.images import ImageFile, read_image
from priorscope.data.json_file import read_json
from priorscope.errors import InputError
from priorscope_pose.configs import ConvertConfig, check_numbers
from priorscope_pose.data.annotations import AnnotatedImage, Annotations
from priorscope_pose.data.coco import image_folder, read_coco
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.evaluation.results_file import read_results
from priorscope_pose.poses import Poses
from priorscope_pose.results import Writer
from priorscope_pose.skeletons import skeleton


def convert(config: ConvertConfig) -> int:
    """Run ``priorscope pose convert``.

    Raises
    ------
    InputError
        Files of another layout, a results list without its annotations, pictures that are needed and missing.
    """
    if not config.formats:
        raise InputError("no format was named", remedy="For example --formats openpose controlnet.")
    check_numbers(config, "keypoint_threshold")
    which = skeleton(config.skeleton)
    results = None
    if isinstance(read_json(config.poses), list):
        if config.annotations is None:
            raise InputError(
                "is a results list, which does not say what its images are called",
                path=config.poses,
                remedy="Give its --annotations.",
            )
        annotations = read_coco(config.annotations, config.images, skeleton=which)
        results = read_results(config.poses, annotations)
    else:
        annotations = read_coco(config.poses, config.images, skeleton=which)
    files = _files(annotations, config)
    writer = Writer(config, {})
    if not config.overwrite:
        refuse_existing(path for file in files for path in writer.image_files(file).values())
    count = 0
    for file, image, poses in zip(files, annotations, _poses(annotations, results), strict=True):
        if "overlay" in config.formats or not (image.width and image.height):
            pixels = read_image(image.path)
        else:
            pixels = np.empty((image.height, image.width, 3), np.uint8)  # only its size matters
        writer.picture(file, pixels, poses)
        count += len(poses)
    print(f"{count} people in {len(files)} images, results in {config.out}")
    return 0


def _files(annotations: Annotations, config: ConvertConfig) -> list[ImageFile]:
    """Each image with a name for its results: its file name without suffix, where no two share that."""
    source = annotations.path
    assert source is not None
    folder = image_folder(source) if config.images is None else config.images
    names = [
        image.path.relative_to(folder) if image.path.is_relative_to(folder) else Path(image.path.name)
        for image in annotations
    ]
    counts = Counter(name.with_suffix("").as_posix().lower() for name in names)
    stems = [
        name.with_suffix("").as_posix() if counts[name.with_suffix("").as_posix().lower()] == 1 else name.as_posix()
        for name in names
    ]
    return [ImageFile(image.path, stem) for image, stem in zip(annotations, stems, strict=True)]


def _poses(annotations: Annotations, results: Predictions | None) -> Iterator[Poses]:
    """The poses of each image in turn."""
    if results is None:
        yield from (annotated_poses(image, annotations.skeleton.name) for image in annotations)
        return
    lost = next((image_id for image_id in results.image_ids if image_id not in annotations), None)
    if lost is not None:
        raise InputError(
            f"holds people of image {lost}, which {annotations.path} does not list",
            path=results.path,
            remedy="Are they results of another split?",
        )
    rows_of = results.rows_by_image()
    for image in annotations:
        rows = rows_of.get(image.id, np.zeros(0, np.int64))
        keypoints = results.keypoints[rows]
        boxes = results.boxes[rows] if results.boxes is not None else _extents(keypoints)
        yield Poses(
            keypoints,
            results.keypoint_scores[rows].astype(np.float32),
            boxes.astype(np.float32),
            results.scores[rows].astype(np.float32),
            results.skeleton.name,
            "",
            ids=None if results.track_ids is None else results.track_ids[rows],
        )


def annotated_poses(image: AnnotatedImage, skeleton_name: str) -> Poses:
    """The annotated people of an image as poses: score 1 where a keypoint is labelled, else 0.

    Groups and people without any labelled keypoint are left out.
    """
    people = [person for person in image.people if not person.iscrowd and person.visible.any()]
    size = len(skeleton(skeleton_name))
    keypoints = np.array([person.keypoints for person in people], np.float64).reshape(-1, size, 3)
    tracks = [person.track_id for person in people]
    return Poses(
        keypoints[..., :2],
        (keypoints[..., 2] > 0).astype(np.float32),
        np.array([person.box for person in people], np.float32).reshape(-1, 4),
        np.ones(len(people), np.float32),
        skeleton_name,
        "",
        ids=None if not people or None in tracks else np.array(tracks, np.int64),
    )


def _extents(keypoints: np.ndarray) -> np.ndarray:
    return np.concatenate([keypoints.min(1), keypoints.max(1)], 1) if len(keypoints) else np.zeros((0, 4))

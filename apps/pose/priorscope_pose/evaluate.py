"""``priorscope pose evaluate``: predictions kept picture by picture, then the figures of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from priorscope.data.images import read_image
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.suite import SuiteResult, run_items
from priorscope.evaluation.tables import print_table
from priorscope_pose.configs import EvaluateConfig, check_numbers
from priorscope_pose.data.annotations import AnnotatedImage, Annotations
from priorscope_pose.data.boxes import POSETRACK_THRESHOLD, DetectedBoxes, annotated_boxes, read_boxes
from priorscope_pose.diffpose.clips import FrameFiles
from priorscope_pose.estimators import Estimator, load_estimator
from priorscope_pose.evaluation.nms import postprocess
from priorscope_pose.evaluation.posetrack_file import write_posetrack_results
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.evaluation.results_file import write_results
from priorscope_pose.evaluation.shared_keypoints import (
    annotated_names,
    in_skeleton,
    labelled_as_shared,
    shared_names,
)
from priorscope_pose.evaluation.suite import METRICS, evaluate_poses
from priorscope_pose.people import HELD_OUT_SEED
from priorscope_pose.poses import Poses
from priorscope_pose.skeletons import COCO, POSETRACK, Skeleton
from priorscope_pose.training.sources import draw_clips, draw_stills, drawn_count, read_annotations

_MAY_DIFFER = ("resume", "out", "worst", "settings.device", "settings.batch_size")
#: Metrics whose protocol has neither a score of the person nor a suppression of doubles.
_PLAIN = ("posetrack", "jhmdb", "pck", "pckh")
_COCO = ("coco", "coco-ood", "humanart")


def run_evaluation(config: EvaluateConfig) -> int:
    """Run ``priorscope pose evaluate``; 1 when some pictures failed.

    Raises
    ------
    InputError
        Wrong files or options, a model of another skeleton, no picture that could be evaluated.
    """
    from priorscope_pose.evaluation_report import write_report

    _check(config)
    drawn = drawn_count(config.data)
    # of what is not drawn a mistake is found before anything is made
    annotations = None if drawn else _read(config)
    boxes = None if annotations is None else boxes_of(config, annotations)
    estimator = load_estimator(config.settings)
    if annotations is None:
        own = POSETRACK if config.metric == "posetrack" else COCO
    else:
        own = annotations.skeleton
    shared = _shared(estimator, own, config)
    run = RunFolder.create(config.out, config, resume=config.resume, may_differ=_MAY_DIFFER)
    if annotations is None or boxes is None:
        draw = draw_clips if config.metric == "posetrack" else draw_stills
        annotations = _limited(draw(run.path / "people", drawn or 0, HELD_OUT_SEED), config.limit)
        boxes = boxes_of(config, annotations)
    annotations = labelled_as_shared(annotations, estimator.skeleton)
    result = predict_all(estimator, annotations, boxes, run, batch_size=config.settings.batch_size)
    if not result.rows:
        first = result.failures[0]
        raise InputError(f"none of {len(result.failures)} could be evaluated; the first, {first.key}: {first.error}")
    predictions = predictions_of(result.rows, estimator.skeleton)
    figures, counted = figures_of(annotations, predictions, config)
    about = {"model": estimator.name, **estimator.about(), **conditions(config), "people": len(predictions)}
    if shared:
        about["counted_keypoints"] = list(shared)
    run.write_metrics({**about, "figures": figures, "failed": len(result.failures)})
    if config.metric != "posetrack":
        write_results(run.path / "results.json", counted, overwrite=True)
    elif not shared:  # the files have no way to say that a keypoint was not predicted
        ranked = replace(counted, keypoint_scores=counted.keypoint_scores * counted.scores[:, None])
        write_posetrack_results(run.path / "results", ranked, annotations, overwrite=True)
    print_table([{"figure": name, "value": value} for name, value in figures.items()])
    write_report(run, config, annotations, counted, figures, about, result, boxes)
    print(f"report: {run.report_path}")
    return 1 if result.failures else 0


def conditions(config: EvaluateConfig) -> dict[str, Any]:
    """How it is counted, resolved: ``metric``, ``boxes``, ``score``, ``nms``, ``detection_area``."""
    plain = config.metric in _PLAIN
    return {
        "metric": config.metric,
        "boxes": "annotated" if config.boxes is None else str(config.boxes),
        "score": ("as_given" if plain else "bbox_keypoint") if config.score == "auto" else config.score,
        "nms": ("none" if plain else "oks") if config.nms == "auto" else config.nms,
        "nms_threshold": config.nms_threshold,
        "detection_area": config.detection_area,
    }


def figures_of(
    annotations: Annotations, predictions: Predictions, config: EvaluateConfig
) -> tuple[dict[str, float], Predictions]:
    """The benchmark's figures, and the predictions as they were counted: scored, doubles suppressed, and in the
    skeleton of the annotations."""
    how, own = conditions(config), annotations.skeleton
    if set(annotated_names(own)) <= set(predictions.skeleton.keypoints):
        predictions = in_skeleton(predictions, own)  # now, so that no other keypoint has a part in scores
    if how["score"] != "as_given" or how["nms"] != "none":
        predictions = postprocess(predictions, score=how["score"], nms=how["nms"], nms_threshold=config.nms_threshold)
    predictions = in_skeleton(predictions, own)
    if config.boxes is not None:
        predictions = replace(predictions, ids=None)  # a detector's, which are nobody's in the annotations
    options: dict[str, Any] = {}
    if config.metric in _COCO:
        options["detection_area"] = config.detection_area
    if config.metric == "posetrack":
        options["joint_scores"] = "keypoint_times_person"
    return evaluate_poses(annotations, predictions, config.metric, **options), predictions


def _shared(estimator: Estimator, own: Skeleton, config: EvaluateConfig) -> tuple[str, ...]:
    """The data's keypoints that count where the model lacks some; none where it has all."""
    model = estimator.skeleton
    names = shared_names(own, model)
    total = len(annotated_names(own))
    if len(names) == total:
        return ()
    if not names or not config.shared_keypoints:
        also = f" Or count the {len(names)} of {total} that it has with --shared-keypoints." if names else ""
        raise InputError(
            f"{estimator.name} finds keypoints of {model.name}, the data has {own.name}",
            remedy=f"Use a model and a --metric of one skeleton.{also}",
        )
    print(f"only {len(names)} of {total} keypoints count: {', '.join(names)}")
    return names


@dataclass(frozen=True)
class _Item:
    """A picture, or the frames of a video."""

    key: str
    images: Sequence[AnnotatedImage]
    is_clip: bool


def predict_all(
    estimator: Estimator,
    annotations: Annotations,
    boxes: DetectedBoxes,
    run: RunFolder | None = None,
    *,
    batch_size: int = 1,
) -> SuiteResult:
    """Ask the model for everybody who has a box; rows are kept as they come, and a later call goes on.

    Parameters
    ----------
    estimator : Estimator
        One that looks at neighbours gets whole videos, others single pictures.
    annotations : Annotations
    boxes : DetectedBoxes
    run : RunFolder, optional
    batch_size : int
        Pictures that are read and asked about together; how many people a batch has is the estimator's affair.

    Returns
    -------
    SuiteResult
        A row an item: ``images``, a list of ``id`` and ``people``; of each ``keypoints`` (K, 2), ``scores`` (K,),
        ``box``, ``box_score``, ``region`` (width and height) and the box's ``id``.
    """
    videos = annotations.videos() if estimator.reach else {}
    items = [_Item(name, frames, True) for name, frames in videos.items()]
    in_video = {image.id for frames in videos.values() for image in frames}
    items += [
        _Item(str(image.id), [image], False)
        for image in annotations
        if image.id not in in_video and len(boxes.of(image.id))
    ]

    def ask(batch: list[_Item]) -> list[dict[str, Any]]:
        if any(item.is_clip for item in batch):
            return [_row(item, _ask(item, estimator, boxes), boxes) for item in batch]
        pictures = [read_image(item.images[0].path) for item in batch]
        its = [boxes.of(item.images[0].id) for item in batch]
        found = estimator.pictures(pictures, its, [item.key for item in batch])
        return [_row(item, [poses], boxes) for item, poses in zip(batch, found, strict=True)]

    return run_items(items, ask, key=lambda item: item.key, run=run, batch_size=batch_size, progress="people")


def _ask(item: _Item, estimator: Estimator, boxes: DetectedBoxes) -> list[Poses]:
    its = [boxes.of(image.id) for image in item.images]
    if item.is_clip:
        frames = FrameFiles([image.path for image in item.images], kept=16)
        return estimator.clip(frames, its, item.key, numbers=[image.frame for image in item.images])
    return estimator.pictures([read_image(item.images[0].path)], its, [item.key])


def _row(item: _Item, found: Sequence[Poses], boxes: DetectedBoxes) -> dict[str, Any]:
    return {
        "images": [
            {"id": image.id, "people": _people(poses, boxes.of(image.id).ids.tolist())}
            for image, poses in zip(item.images, found, strict=True)
            if len(poses)
        ]
    }


def _people(poses: Poses, ids: list[int]) -> list[dict[str, Any]]:
    return [
        {
            "id": ids[place],
            "keypoints": poses.keypoints[place].tolist(),
            "scores": poses.scores[place].tolist(),
            "box": poses.boxes[place].tolist(),
            "box_score": float(poses.box_scores[place]),
            "region": None if poses.regions is None else poses.regions[place].tolist(),
        }
        for place in range(len(poses))
    ]


def predictions_of(rows: Sequence[dict[str, Any]], skeleton: Skeleton) -> Predictions:
    """All rows of :func:`predict_all` as arrays, with the scores of the boxes."""
    pairs = [(image["id"], person) for row in rows for image in row["images"] for person in image["people"]]
    people = [person for _, person in pairs]
    framed = all(person["region"] is not None for person in people)

    def joined(name: str, *shape: int) -> np.ndarray:
        return np.array([person[name] for person in people], np.float64).reshape(-1, *shape)

    return Predictions(
        skeleton,
        [image_id for image_id, _ in pairs],
        joined("keypoints", len(skeleton), 2),
        joined("scores", len(skeleton)),
        joined("box_score"),
        boxes=joined("box", 4),
        areas=joined("region", 2).prod(1) if framed else None,
        ids=joined("id").astype(np.int64),
    )


def boxes_of(config: EvaluateConfig, annotations: Annotations) -> DetectedBoxes:
    """The annotated boxes, or those of a detector's file; InputError where there are none."""
    if config.boxes is None:
        annotated = annotated_boxes(annotations)
        if not len(annotated):
            raise InputError(
                f"nobody in {len(annotations)} pictures has a box and a labelled keypoint",
                path=annotations.path,
                remedy="Are these annotations of keypoints?",
            )
        return annotated
    threshold = config.box_threshold
    if threshold is None:
        threshold = POSETRACK_THRESHOLD if config.metric == "posetrack" else -np.inf
    found = read_boxes(config.boxes, annotations, threshold=threshold, part=bool(config.limit))
    if not len(found):
        raise InputError(
            f"holds no usable box of a person in {len(annotations)} pictures",
            path=config.boxes,
            remedy="Is it the file for these pictures? Is --box-threshold too high?",
        )
    return found


def _read(config: EvaluateConfig) -> Annotations:
    annotations = _limited(read_annotations(config.data, config.metric, config.images), config.limit)
    annotations.check_images()
    return annotations


def _limited(annotations: Annotations, limit: int) -> Annotations:
    if not limit:
        return annotations
    videos = annotations.videos()
    if videos:
        return annotations.select(image.id for name in list(videos)[:limit] for image in videos[name])
    return annotations.select(image.id for image in annotations.images[:limit])


def _check(config: EvaluateConfig) -> None:
    if config.metric not in METRICS:
        raise InputError(f"no metric {config.metric!r}", remedy=f"There are {', '.join(METRICS)}.")
    for name in ("limit", "worst"):
        if getattr(config, name) < 0:
            raise InputError(f"--{name} {getattr(config, name)}", remedy="Use 0 or more.")
    if not 0 < config.nms_threshold <= 1:
        raise InputError(f"--nms-threshold {config.nms_threshold}", remedy="Use a number above 0, up to 1.")
    if config.box_threshold is not None:
        check_numbers(config, "box_threshold")
    if config.detection_area != "keypoints" and config.metric not in _COCO:
        raise InputError(f"--detection-area for {config.metric}", remedy="It is an option of COCO's metric.")
    if drawn_count(config.data) and config.metric not in ("coco", "posetrack"):
        raise InputError(f"drawn people have no {config.metric} layout", remedy="Use --metric coco or posetrack.")

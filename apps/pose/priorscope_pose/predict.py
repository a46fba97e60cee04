"""Find people's keypoints in images, folders and videos, and write the results."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import refuse_existing
from priorscope.data.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, ImageFile, find_images, is_video, read_image
from priorscope.data.video import VideoFrame, read_video, read_video_info
from priorscope.errors import InputError
from priorscope.evaluation.suite import Failure, conclude, run_items
from priorscope_pose.configs import PredictConfig, check_numbers
from priorscope_pose.data.annotations import ImageId
from priorscope_pose.data.boxes import NO_BOXES, ImageBoxes
from priorscope_pose.detectors import BoxFile, Detector, Shown, WholeImage, best_boxes, read_box_file
from priorscope_pose.estimators import Estimator, load_estimator
from priorscope_pose.evaluation.nms import oks_nms, person_scores, similarities
from priorscope_pose.poses import Poses
from priorscope_pose.results import ClipWriter, Writer
from priorscope_pose.tracking import Tracker

# Frames of a video that are looked at together; noise is numbered by pieces, so it does not depend on --batch-size.
_PIECE = 8
_CONVENTION = (
    "pixels of the upright image, the middle of its first pixel at (0, 0), x to the right, y down; keypoints in COCO's "
    "files are x, y, score; scores are the largest values of heatmaps and may exceed 1"
)


def predict(config: PredictConfig) -> int:
    """Run ``priorscope pose predict``.

    Returns
    -------
    int
        0; 1 when some inputs failed, which are listed and do not stop the others.

    Raises
    ------
    InputError
        What is wrong for all inputs alike, before any work; the failure of the only input.
    """
    images, clips = _inputs(config)
    if not config.formats:
        raise InputError("no format was named", remedy="For example --formats overlay coco.")
    if config.max_people < 0 or not 0 < config.nms <= 1:
        raise InputError(f"--max-people {config.max_people} --nms {config.nms:g}", remedy="Give 0 or more, and 0 to 1.")
    check_numbers(config, "box_threshold", "keypoint_threshold")
    detector = _load_detector(config)
    if isinstance(detector, BoxFile):
        hint = detector.check(file.path for file in (*images, *clips))
        if hint:
            print(hint, file=sys.stderr)
    if not config.overwrite:
        refuse_existing(Writer(config, {}).targets(images, clips))
    estimator = load_estimator(config.settings)
    about = {
        "model": estimator.name,
        "skeleton": estimator.skeleton.name,
        "keypoints": list(estimator.skeleton.keypoints),
        "convention": _CONVENTION,
        **estimator.about(),
        "detector": detector.name,
        "box_threshold": config.box_threshold,
        "nms": config.nms,
    }
    run = _Run(config, detector, estimator, Writer(config, about))
    failures, records = run.images(images) if images else ([], [])
    for clip in clips:
        try:
            records.append(run.clip(clip))
        except InputError as error:
            failures.append(Failure(str(clip.path), str(error)))
    if records:
        run.writer.finish(run.writer.shared_file("about", [*images, *clips]), records)
        print(_summary(records, run.weak_boxes, config.box_threshold))
    return conclude(failures, len(images) + len(clips), config.out)


def _summary(records: Sequence[dict[str, Any]], weak_boxes: int, threshold: float) -> str:
    """What was found, in one line; where it is nobody, what may be the matter."""
    frames = sum(record.get("frames", 1) for record in records)
    people = sum(record["people"] for record in records)
    text = f"{people} people in {frames} images and frames"
    if weak_boxes and not people:
        text += f"; {weak_boxes} boxes have scores below --box-threshold {threshold:g}"
    unusable = sum(record["unusable_boxes"] for record in records)
    return f"{text}; {unusable} boxes without area or outside of the image left out" if unusable else text


def _inputs(config: PredictConfig) -> tuple[list[ImageFile], list[ImageFile]]:
    """Pictures and videos."""
    if not config.inputs:
        raise InputError("no input", remedy="Give images, folders or videos: priorscope pose predict photo.jpg")
    found = find_images(config.inputs, suffixes=IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    return [file for file in found if not is_video(file.path)], [file for file in found if is_video(file.path)]


def _load_detector(config: PredictConfig) -> Detector:
    if config.boxes is not None:
        return read_box_file(config.boxes)
    if config.detector == "whole":
        print("no --boxes and no --detector: each image is taken to show one person", file=sys.stderr)
        return WholeImage()
    from priorscope_pose.detectors.transformers_detr import TransformersDetector

    settings = config.settings
    return TransformersDetector.from_pretrained(config.detector, device=settings.device, precision=settings.precision)


class _Found(NamedTuple):
    boxes: ImageBoxes
    unusable: int


class _Run:
    """One call of the command, with all that it needs."""

    def __init__(self, config: PredictConfig, detector: Detector, estimator: Estimator, writer: Writer) -> None:
        self.config, self.detector, self.estimator, self.writer = config, detector, estimator, writer
        self.weak_boxes = 0

    def find(self, pictures: Sequence[NDArray[np.uint8]], shown: Sequence[Shown]) -> list[_Found]:
        """The people's boxes in each picture."""
        config = self.config
        found = self.detector(pictures, shown)
        self.weak_boxes += sum(int((its.scores < config.box_threshold).sum()) for its in found)
        return [
            _Found(
                *best_boxes(
                    its,
                    picture.shape[1],
                    picture.shape[0],
                    threshold=config.box_threshold,
                    limit=config.max_people,
                )
            )
            for its, picture in zip(found, pictures, strict=True)
        ]

    def once(self, poses: Poses) -> Poses:
        """Nobody twice."""
        if self.config.nms >= 1 or len(poses) < 2:
            return poses
        areas = (
            (poses.boxes[:, 2:] - poses.boxes[:, :2]).prod(1) if poses.regions is None else poses.regions.prod(1)
        ).astype(np.float64)
        scores = person_scores(poses.box_scores.astype(np.float64), poses.scores.astype(np.float64))
        similar = similarities(poses.keypoints, areas, self.estimator.skeleton.sigma_array())
        return poses.select(np.sort(oks_nms(similar, scores, self.config.nms)))

    def images(self, images: list[ImageFile]) -> tuple[list[Failure], list[dict[str, Any]]]:
        """Pictures in batches; one that cannot be read costs only itself."""
        ids = _image_ids(images, self.detector)
        poses_of: dict[str, Poses] = {}

        def work(batch: list[ImageFile]) -> list[dict[str, Any]]:
            pictures = [read_image(image.path) for image in batch]
            found = self.find(pictures, [Shown(image.path) for image in batch])
            results = self.estimator.pictures(pictures, [its.boxes for its in found], [image.stem for image in batch])
            rows = []
            for image, picture, its, poses in zip(batch, pictures, found, results, strict=True):
                poses_of[image.stem] = kept = self.once(poses)
                self.writer.picture(image, picture, kept)
                rows.append({"people": len(kept), "unusable_boxes": its.unusable})
            return rows

        outcome = run_items(
            images,
            work,
            key=lambda image: str(image.path),
            batch_size=self.config.settings.batch_size,
            progress="people" if len(images) > 1 else None,
        )
        failed = {failure.key for failure in outcome.failures}
        done = [image for image in images if str(image.path) not in failed]
        if done:
            self.writer.coco(
                self.writer.shared_file("results", images),
                [(ids[image.stem], poses_of[image.stem]) for image in done],
                self.estimator,
            )
        records = [
            {"file": row["key"], "image_id": ids[image.stem], **{key: row[key] for key in ("people", "unusable_boxes")}}
            for image, row in zip(done, outcome.rows, strict=True)
        ]
        return list(outcome.failures), records

    def clip(self, clip: ImageFile) -> dict[str, Any]:
        """A video, a few frames at a time. Where it breaks off, what came before is written, then the error raised."""
        config, reach = self.config, self.estimator.reach
        info = read_video_info(clip.path)
        if info.frames and isinstance(self.detector, BoxFile):
            self.detector.check_frames(clip.path, info.frames)
        tracker = None
        if config.track:
            tracker = Tracker(self.estimator.skeleton, keypoint_threshold=config.keypoint_threshold)
        unusable, broken = 0, None
        with ClipWriter(self.writer, clip, info.fps or 25.0) as writer:
            try:
                for window, first, count in windows(read_video(clip.path), _PIECE, reach):
                    looked = window[first : first + count]
                    found = self.find([frame.image for frame in looked], [Shown(clip.path, f.number) for f in looked])
                    unusable += sum(its.unusable for its in found)
                    boxes = [NO_BOXES] * first + [its.boxes for its in found]
                    boxes += [NO_BOXES] * (len(window) - len(boxes))
                    item = f"{clip.stem}/{looked[0].number}" if reach else clip.stem
                    results = self.estimator.clip([frame.image for frame in window], boxes, item)
                    for frame, poses in zip(looked, results[first : first + count], strict=True):
                        kept = self.once(poses)
                        if tracker is not None:
                            kept = tracker.update(kept, frame.number)
                        writer.write(frame.number, frame.image, kept)
            except InputError as error:
                if not writer.poses:
                    raise
                broken = error
        writer.finish(self.estimator)
        if broken is not None:
            raise InputError(
                f"{broken.fact}; results of the {len(writer.poses)} frames before are written",
                path=clip.path,
                remedy=broken.remedy,
            )
        record: dict[str, Any] = {
            "file": str(clip.path),
            "frames": len(writer.poses),
            "people": sum(map(len, writer.poses)),
            "unusable_boxes": unusable,
        }
        if tracker is not None:
            ids = [its.ids for its in writer.poses if its.ids is not None]
            record["persons"] = len(np.unique(np.concatenate([np.zeros(0, np.int64), *ids])))
        return record


def windows(frames: Iterable[VideoFrame], size: int, reach: int = 0) -> Iterator[tuple[list[VideoFrame], int, int]]:
    """Cut a video into pieces of ``size`` frames, each with up to ``reach`` frames before and after it.

    Memory holds one piece with its neighbours. Where the video raises, the frames before that come first.

    Yields
    ------
    frames : list of VideoFrame
        A piece with its neighbours.
    first : int
        Where the piece begins in them.
    count : int
        Its frames.
    """
    source = iter(frames)
    held: list[VideoFrame] = []
    begin, ended = 0, False
    broken: InputError | None = None
    while True:
        while not ended and len(held) < begin + size + reach:
            try:
                held.append(next(source))
            except StopIteration:
                ended = True
            except InputError as error:
                broken, ended = error, True
        count = min(size, len(held) - begin)
        if count <= 0:
            break
        yield held[: begin + count + reach], begin, count
        begin += count
        unneeded = max(0, begin - reach)
        del held[:unneeded]
        begin -= unneeded
    if broken is not None:
        raise broken


def _image_ids(images: Sequence[ImageFile], detector: Detector) -> dict[str, ImageId]:
    """Ids for COCO's results, by stem: those of the box file; else the number a name is; else the name.

    Where two pictures would share one, all have their names.
    """
    ids: dict[str, ImageId] = {}
    for image in images:
        stated = detector.image_id(image.path) if isinstance(detector, BoxFile) else None
        name = image.stem.rpartition("/")[2]
        ids[image.stem] = stated if stated is not None else int(name) if re.fullmatch(r"\d+", name) else image.stem
    return ids if len(set(ids.values())) == len(ids) else {image.stem: image.stem for image in images}

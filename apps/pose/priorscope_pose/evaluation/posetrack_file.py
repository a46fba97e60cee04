"""PoseTrack's results: one file a video."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from priorscope.data.files import refuse_existing, write_text
from priorscope.errors import InputError
from priorscope_pose.data.annotations import Annotations, ImageId
from priorscope_pose.data.posetrack import annolist_errors, annolist_points, frame_number
from priorscope_pose.data.records import field_of, id_of, keypoint_array, number_of, objects_of, whole_number_of
from priorscope_pose.evaluation.posetrack import NO_SCORE
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.skeletons import POSETRACK


def write_posetrack_results(
    folder: str | PathLike[str], predictions: Predictions, annotations: Annotations, *, overwrite: bool = False
) -> list[Path]:
    """Write ``VIDEO.json`` for every video that is annotated, as mmpose and poseval's converter read it.

    Every frame is listed, also where nobody was found. Without tracks, people of a frame are numbered from 0.

    Raises
    ------
    InputError
        A file exists, or an image belongs to no video.
    """
    folder = Path(folder)
    videos = annotations.videos()
    if sum(map(len, videos.values())) < len(annotations):
        raise InputError("some images belong to no video", path=annotations.path, remedy="Write COCO's results list.")
    paths = [folder / f"{video}.json" for video in videos]
    if not overwrite:
        refuse_existing(paths)
    rows_of = predictions.rows_by_image()
    category = {"supercategory": "person", "id": 1, "name": "person", "keypoints": list(POSETRACK.keypoints)}
    for path, (video, frames) in zip(paths, videos.items(), strict=True):
        records = []
        for image in frames:
            for place, row in enumerate(rows_of.get(image.id, ())):
                values = np.concatenate([predictions.keypoints[row], predictions.keypoint_scores[row][:, None]], 1)
                records.append(
                    {
                        "image_id": image.id,
                        "keypoints": values.reshape(-1).tolist(),
                        "scores": predictions.keypoint_scores[row].tolist(),
                        "score": float(predictions.scores[row]),
                        "track_id": place if predictions.track_ids is None else int(predictions.track_ids[row]),
                    }
                )
        images = [{"id": image.id, "file_name": _name(image.path, video)} for image in frames]
        content = {"images": images, "annotations": records, "categories": [category]}
        write_text(path, json.dumps(content), overwrite=overwrite)
    return paths


def read_video_results(content: dict[str, Any], annotations: Annotations | None, path: Path) -> Predictions:
    """People of a video's results: ``images`` and ``annotations``, or an ``annolist``.

    Raises
    ------
    InputError
        Neither of the two, frames of an ``annolist`` that are not annotated (or no annotations to find them by), broken
        records.
    """
    if "annolist" in content:
        with annolist_errors(path):
            return _from_annolist(content["annolist"], annotations, path)
    if "annotations" not in content:
        raise InputError("holds neither 'annotations' nor an 'annolist'", path=path, remedy="Is it a results file?")
    image_ids: list[ImageId] = []
    points, scores, people, tracks = [], [], [], []
    for place, record in enumerate(objects_of(content, "annotations", "result", path)):
        what = f"result {place}"
        values = keypoint_array(field_of(record, "keypoints", what, path), POSETRACK, what, path)
        image_ids.append(id_of(record, "image_id", what, path))
        stated: Any = record.get("scores")
        its = np.asarray(stated, np.float64) if stated else values[:, 2]
        if its.shape != (len(POSETRACK),):
            raise InputError(f"{what} has {its.size} scores, not {len(POSETRACK)}", path=path)
        points.append(values[:, :2])
        scores.append(its)
        people.append(number_of(record, "score", what, path) if "score" in record else float(its.mean()))
        tracks.append(whole_number_of(record, "track_id", what, path))
    return _predictions(image_ids, points, scores, people, tracks, None, path)


def _from_annolist(frames: list[dict[str, Any]], annotations: Annotations | None, path: Path) -> Predictions:
    if annotations is None:
        raise InputError(
            "names its frames by their files", path=path, remedy="Give the annotations they are results for."
        )
    known = {(image.path.parent.name, frame_number(image.path.name)): image.id for image in annotations}
    image_ids: list[ImageId] = []
    points, scores, people, tracks, present = [], [], [], [], []
    for frame in frames:
        name = PurePosixPath(str(frame["image"][0]["name"]))
        key = (name.parent.name, frame_number(name.name))
        rects = frame.get("annorect") or ()
        if rects and key not in known:
            raise InputError(f"frame {name} is not annotated", path=path, remedy="Are they results of another split?")
        for row, rect in enumerate(rects):
            values, its, has = annolist_points(rect, f"frame {name}, person {row}", path)
            if not has.any():
                continue
            its = np.where(np.isnan(its), NO_SCORE, its)
            image_ids.append(known[key])
            points.append(values[:, :2])
            scores.append(its)
            present.append(has)
            people.append(float(rect["score"][0]) if "score" in rect else float(its[has].mean()))
            tracks.append(rect["track_id"][0] if "track_id" in rect else None)
    return _predictions(image_ids, points, scores, people, tracks, present, path)


def _predictions(
    image_ids: list[ImageId],
    points: list[Any],
    scores: list[Any],
    people: list[float],
    tracks: list[Any],
    present: list[Any] | None,
    path: Path,
) -> Predictions:
    count = len(image_ids)
    return Predictions(
        POSETRACK,
        image_ids,
        np.array(points).reshape(count, len(POSETRACK), 2),
        np.array(scores).reshape(count, len(POSETRACK)),
        np.array(people, np.float64),
        track_ids=None if any(track is None for track in tracks) else np.array(tracks, np.int64),
        present=None if present is None else np.array(present, bool).reshape(count, len(POSETRACK)),
        path=path,
    )


def _name(path: Path, video: str) -> str:
    """The part of a frame's path that PoseTrack's files state: from ``images`` on."""
    parts = path.parts
    return "/".join(parts[parts.index("images") :]) if "images" in parts else f"{video}/{path.name}"

"""OKS average precision of COCO's family, matched and counted by COCO's tools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_pose.data.annotations import Annotations, ImageId
from priorscope_pose.evaluation.oks import similarity_to_annotated
from priorscope_pose.evaluation.predictions import Predictions

FIGURES = ("AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)")
CROWDPOSE_FIGURES = ("AP", "AP .5", "AP .75", "AR", "AR .5", "AR .75", "AP (E)", "AP (M)", "AP (H)")
#: Crowd indices from which an image of CrowdPose is of medium difficulty, and from which it is hard (its own tools).
CROWD_BOUNDS = (0.2, 0.8)
#: faster-coco-eval counts as pycocotools does (a test compares them) in a fraction of the time.
ENGINE = "faster-coco-eval"
_ARRAYS = ("points", "visible", "box")
DetectionArea = Literal["keypoints", "box"]


def coco_figures(
    annotations: Annotations,
    predictions: Predictions,
    *,
    part: str | None = None,
    detection_area: DetectionArea = "keypoints",
    max_detections: int = 20,
) -> dict[str, float]:
    """AP and AR over OKS 0.5, 0.55, ... 0.95, as pycocotools counts them.

    Also for Human-Art and COCO-OOD, which are evaluated as COCO. People whose ``num_keypoints`` is 0 are ignored, even
    where key points are labelled.

    Parameters
    ----------
    annotations : Annotations
    predictions : Predictions
        With their final scores (:func:`priorscope_pose.evaluation.nms.postprocess`).
    part : str, optional
        Count only a part of the skeleton (COCO-WholeBody's ``face`` and others).
    detection_area : str
        What decides whether an unmatched detection counts as medium or large. ``keypoints``: their extent, as COCO and
        SDPose count; ``box``: the detector's box, as mmpose 1.3.2 does by writing boxes into its results. Changes only
        AP (M), AP (L), AR (M) and AR (L).
    max_detections : int
        Of an image, by score.

    Returns
    -------
    dict
        `FIGURES`, in [0, 1]; NaN where nothing is annotated that could count.

    Raises
    ------
    InputError
        Another skeleton, predictions for images that are not annotated, no boxes where their area is asked for.
    """
    evaluation = _evaluation(annotations, predictions, part, detection_area, max_detections)
    return dict(zip(FIGURES, _summary(evaluation, True), strict=True))


def crowdpose_figures(
    annotations: Annotations, predictions: Predictions, *, bounds: tuple[float, float] = CROWD_BOUNDS
) -> dict[str, float]:
    """CrowdPose's figures: AP and AR, and AP of easy, medium and hard images by their crowd index.

    Parameters
    ----------
    annotations, predictions
        As for :func:`coco_figures`.
    bounds : (float, float)
        Easy is below the first, hard from the second on.

    Returns
    -------
    dict
        `CROWDPOSE_FIGURES`, in [0, 1]; NaN where nothing could count; AP (E), (M) and (H) only where every image states
        its crowd index.
    """
    values = _summary(_evaluation(annotations, predictions, None, "keypoints", 20), False)
    figures = dict(zip(CROWDPOSE_FIGURES[:6], values, strict=True))
    indices = [image.crowd_index for image in annotations if image.crowd_index is not None]
    if not indices or len(indices) < len(annotations):
        return figures
    place = np.digitize(indices, bounds)
    for level, name in enumerate(CROWDPOSE_FIGURES[6:]):
        ids = {image.id for image, its in zip(annotations, place, strict=True) if its == level}
        rows = [row for row, image_id in enumerate(predictions.image_ids) if image_id in ids]
        one = _evaluation(annotations.select(ids), predictions.select(rows), None, "keypoints", 20)
        figures[name] = _summary(one, False)[0]
    return figures


def check_match(annotations: Annotations, predictions: Predictions) -> None:
    """Raise an :class:`InputError` for predictions of another skeleton or of images that are not annotated."""
    if len(annotations.skeleton) != len(predictions.skeleton):
        raise InputError(
            f"predictions of {predictions.skeleton.name} ({len(predictions.skeleton)} key points) do not fit "
            f"annotations of {annotations.skeleton.name} ({len(annotations.skeleton)})",
            path=predictions.path,
        )
    unknown = [image_id for image_id in dict.fromkeys(predictions.image_ids) if image_id not in annotations]
    if unknown:
        raise InputError(
            f"{len(unknown)} predicted images are not annotated, the first is {unknown[0]}",
            path=predictions.path,
            remedy=f"Are they another split than {annotations.path or 'the annotations'}?",
        )


def _evaluation(
    annotations: Annotations,
    predictions: Predictions,
    part: str | None,
    detection_area: DetectionArea,
    max_detections: int,
) -> Any:
    """COCO's evaluation, run; ``part`` None counts all key points."""
    check_match(annotations, predictions)
    skeleton = annotations.skeleton
    points = list(range(len(skeleton))) if part is None else list(skeleton.parts[part])
    parted = part is not None or skeleton.name == "coco_wholebody"
    numbers = {image_id: i + 1 for i, image_id in enumerate(_sorted([image.id for image in annotations]))}
    truths: list[dict[str, Any]] = []
    for image in annotations:
        for person in image.people:
            visible = person.visible[points]
            # COCO's and CrowdPose's tools go by the file's number; those of COCO-WholeBody count again, part by part
            counted = int(np.count_nonzero(visible)) if parted else person.labelled
            truths.append(
                {
                    "id": len(truths) + 1,
                    "image_id": numbers[image.id],
                    "category_id": 1,
                    "points": person.keypoints[points, :2],
                    "visible": visible,
                    "box": person.box,
                    "area": person.area,
                    "iscrowd": int(person.iscrowd),
                    "num_keypoints": counted,
                }
            )
    areas = _detection_areas(predictions, detection_area)
    ranked, seen = predictions.scores, np.ones(len(predictions), bool)
    if skeleton.name == "coco_wholebody":  # xtcocotools leaves out people none of whose key points scores above 0
        ranked = np.asarray(predictions.part_scores.get(part or "wholebody", ranked))
        seen[:] = (predictions.keypoint_scores[:, points] > 0).any(1)
    found = [
        {
            "id": int(row) + 1,
            "image_id": numbers[predictions.image_ids[int(row)]],
            "category_id": 1,
            "points": predictions.keypoints[row, points],
            "score": float(ranked[row]),
            "area": float(areas[row]),
        }
        for row in np.flatnonzero(seen)
    ]
    return _run(list(numbers.values()), truths, found, skeleton.sigma_array()[points], max_detections)


def _sorted(ids: list[ImageId]) -> list[ImageId]:
    return sorted(ids, key=lambda image_id: (isinstance(image_id, str), image_id))


def _detection_areas(predictions: Predictions, detection_area: DetectionArea) -> NDArray[np.float64]:
    if detection_area == "box":
        if predictions.boxes is None:
            raise InputError(
                "predictions have no boxes to take areas from",
                path=predictions.path,
                remedy="Ask for detection_area 'keypoints', or write boxes.",
            )
        return np.prod(predictions.boxes[:, 2:] - predictions.boxes[:, :2], axis=1)
    body = list(predictions.skeleton.parts.get("body", range(len(predictions.skeleton))))
    points = predictions.keypoints[:, body]
    return np.prod(points.max(1) - points.min(1), axis=1)


def _run(
    images: Sequence[int],
    truths: list[dict[str, Any]],
    found: list[dict[str, Any]],
    sigmas: NDArray[np.float64],
    max_detections: int,
    engine: str = ENGINE,
) -> Any:
    """COCO's matching and counting, on similarities that are computed for all people of an image at once."""
    if engine == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    similar = _similarities(truths, found, sigmas, max_detections)

    class Evaluation(COCOeval):
        def computeOks(self, imgId: int, catId: int) -> Any:
            return similar.get(imgId, [])

    def indexed(records: list[dict[str, Any]]) -> Any:
        data = COCO()
        data.dataset = {
            "images": [{"id": number} for number in images],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [{name: record[name] for name in record if name not in _ARRAYS} for record in records],
        }
        data.createIndex()
        return data

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = Evaluation(indexed(truths), indexed(found), "keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.params.maxDets = [max_detections]
        evaluation.params.imgIds, evaluation.params.catIds = list(images), [1]  # also those without anybody
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _similarities(
    truths: list[dict[str, Any]], found: list[dict[str, Any]], sigmas: NDArray[np.float64], max_detections: int
) -> dict[int, NDArray[np.float64]]:
    """Image number -> (D, G): its detections, the best first and no more than count, with its annotated people."""
    by_image: dict[int, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
    for side, records in enumerate((truths, found)):
        for record in records:
            by_image.setdefault(record["image_id"], ([], []))[side].append(record)
    similar = {}
    for number, (its_truths, its_found) in by_image.items():
        if its_truths and its_found:
            order = np.argsort([-record["score"] for record in its_found], kind="mergesort")
            best = np.stack([its_found[i]["points"] for i in order[:max_detections]])
            points, visible, areas, boxes = (
                np.stack([record[name] for record in its_truths]) for name in ("points", "visible", "area", "box")
            )
            similar[number] = similarity_to_annotated(best, points, visible, areas, boxes, sigmas)
    return similar


def _summary(evaluation: Any, sizes: bool) -> list[float]:
    """AP, AP .5, AP .75, (AP of medium and large,) and the same of AR; NaN where there is nothing to count."""
    thresholds = evaluation.params.iouThrs
    precision, recall = evaluation.eval["precision"][:, :, 0, :, 0], evaluation.eval["recall"][:, 0, :, 0]

    def mean(values: Any) -> float:
        values = values[values > -1]
        return float(values.mean()) if values.size else float("nan")

    def row(table: Any) -> list[float]:
        chosen = [table[..., 0]] + [table[np.isclose(thresholds, at)][..., 0] for at in (0.5, 0.75)]
        if sizes:
            chosen += [table[..., 1], table[..., 2]]
        return [mean(values) for values in chosen]

    return row(precision) + row(recall)

"""From annotations and results, ours or those of other tools, to the figures that a benchmark prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike
from types import MappingProxyType
from typing import Any

from priorscope.errors import InputError
from priorscope_pose.data.annotations import Annotations
from priorscope_pose.data.coco import read_coco, read_coco_wholebody
from priorscope_pose.data.crowdpose import read_crowdpose
from priorscope_pose.data.humanart import read_humanart
from priorscope_pose.data.jhmdb import read_jhmdb
from priorscope_pose.data.posetrack import read_posetrack
from priorscope_pose.evaluation.coco import coco_figures, crowdpose_figures
from priorscope_pose.evaluation.nms import NmsMode, ScoreMode, postprocess
from priorscope_pose.evaluation.people import pck_figures
from priorscope_pose.evaluation.posetrack import posetrack_figures
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.evaluation.results_file import read_results
from priorscope_pose.evaluation.wholebody import wholebody_figures


@dataclass(frozen=True)
class Metric:
    """How a data set is read and counted.

    Parameters
    ----------
    read : callable
        ``read(path, images=None)`` -> Annotations.
    figures : callable
        ``figures(annotations, predictions, **options)`` -> name -> value.
    main : str
        The figure that tables show.
    """

    read: Callable[..., Annotations]
    figures: Callable[..., dict[str, float]]
    main: str = "AP"


def _flat_wholebody(annotations: Annotations, predictions: Predictions, **options: Any) -> dict[str, float]:
    parts = wholebody_figures(annotations, predictions, **options)
    whole = parts.pop("wholebody")
    return whole | {f"{part} {name}": value for part, figures in parts.items() for name, value in figures.items()}


def _jhmdb(annotations: Annotations, predictions: Predictions, **options: Any) -> dict[str, float]:
    box = pck_figures(annotations, predictions, scale="box", **options)
    torso = pck_figures(annotations, predictions, scale="torso", **options)
    return box | {name: value for name, value in torso.items() if name.startswith("tPCK")}


#: By the names that ``evaluate`` takes.
METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "coco": Metric(read_coco, coco_figures),
        "coco-ood": Metric(read_coco, coco_figures),
        "humanart": Metric(read_humanart, coco_figures),
        "coco-wholebody": Metric(read_coco_wholebody, _flat_wholebody),
        "crowdpose": Metric(read_crowdpose, crowdpose_figures),
        "posetrack": Metric(read_posetrack, posetrack_figures, "Total"),
        "jhmdb": Metric(read_jhmdb, _jhmdb, "PCK"),
        "pck": Metric(read_coco, pck_figures, "PCK"),
        "pckh": Metric(read_posetrack, partial(pck_figures, scale="head"), "PCKh"),
    }
)


def evaluate_poses(
    annotations: Annotations | str | PathLike[str],
    results: Predictions | str | PathLike[str],
    metric: str = "coco",
    *,
    score: ScoreMode = "as_given",
    nms: NmsMode = "none",
    nms_threshold: float = 0.9,
    **options: Any,
) -> dict[str, float]:
    """The figures of a benchmark.

    Parameters
    ----------
    annotations : Annotations or path
        A path is read in the layout of the metric's data set.
    results : Predictions or path
        A path is read by :func:`priorscope_pose.evaluation.results_file.read_results`.
    metric : str
        One of `METRICS`.
    score, nms, nms_threshold
        As for :func:`priorscope_pose.evaluation.nms.postprocess`. Default: results are final, as those in files are. Of
        a model's own output, mmpose and SDPose count with ``bbox_keypoint`` and ``oks``.
    options
        Those of the metric's own function, such as ``detection_area`` (COCO), ``scale`` and ``threshold`` (PCK).

    Returns
    -------
    dict
        Figure -> value; in [0, 1], but EPE in pixels. NaN where nothing could count.

    Raises
    ------
    InputError
        No such metric, files that are wrong, results that do not fit the annotations.
    """
    if metric not in METRICS:
        raise InputError(f"no metric {metric!r}", remedy=f"There are {', '.join(METRICS)}.")
    how = METRICS[metric]
    if not isinstance(annotations, Annotations):
        annotations = how.read(annotations)
    if not isinstance(results, Predictions):
        results = read_results(results, annotations)
    if score != "as_given" or nms != "none":
        results = postprocess(results, score=score, nms=nms, nms_threshold=nms_threshold)
    return how.figures(annotations, results, **options)

"""OKS AP against stored cases of mmpose's CocoMetric, and against cases worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from priorscope_pose.data.coco import read_coco, read_coco_wholebody
from priorscope_pose.evaluation.coco import FIGURES, coco_figures
from priorscope_pose.evaluation.nms import postprocess
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.evaluation.wholebody import PARTS, wholebody_figures
from priorscope_pose.skeletons import COCO, COCO_WHOLEBODY

#: name in the stored file -> options of postprocess
VARIANTS = {
    "default": {},
    "soft_nms": {"nms": "soft_oks"},
    "no_nms": {"nms": "none"},
    "score_bbox": {"score": "bbox"},
    "score_keypoint": {"score": "keypoint"},
    "nms_thr_0.5": {"nms_threshold": 0.5},
}


def predictions_of(case, skeleton):
    rows = case["predictions"]
    scale = np.array([row["bbox_scale"] for row in rows])
    return Predictions(
        skeleton,
        [row["img_id"] for row in rows],
        np.array([row["keypoints"] for row in rows]),
        np.array([row["keypoint_scores"] for row in rows]),
        np.array([row["bbox_score"] for row in rows]),
        boxes=np.concatenate([0 * scale, scale / 1.25], 1),  # only their size is stored
        areas=scale.prod(1),
        ids=np.array([row["id"] for row in rows]),
    )


def written(tmp_path, content):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content | {"images": [{"file_name": f"{i['id']}.jpg"} | i for i in content["images"]]}))
    return path


def same(figures, stored, tolerance):
    assert list(figures) == list(FIGURES)
    for name, value in figures.items():
        assert value == pytest.approx(stored[name], abs=tolerance), name


def test_golden_coco_eval(golden_files, read_json, tmp_path):
    for path in golden_files("pose", "coco_eval_body_*.json"):
        case = read_json(path)
        annotations = read_coco(written(tmp_path, case["gt"]))
        raw = predictions_of(case, COCO)
        for variant, options in VARIANTS.items():
            final = postprocess(raw, **options)
            stored = case["expected"][variant]
            assert len(final) == stored["n_results"]
            if "results_scores" in stored:
                ours = [[image, score] for image, score in zip(final.image_ids, final.scores, strict=True)]
                np.testing.assert_allclose(sorted(ours), sorted(stored["results_scores"]), atol=1e-6)
            metrics = {name.removeprefix("coco/"): value for name, value in stored["metrics"].items()}
            same(coco_figures(annotations, final), metrics, case["tolerance"])
        final = postprocess(raw)
        plain = dict(zip(FIGURES, case["expected"]["pycocotools_on_default_results"], strict=True))
        same(coco_figures(annotations, final), plain, case["tolerance"])
        for name, area in (
            ("mmpose_1.0.0_with_pred_bboxes", "keypoints"),
            ("mmpose_1.3.2_no_pred_bboxes", "keypoints"),
            ("mmpose_1.3.2_with_pred_bboxes", "box"),
        ):
            metrics = {key.removeprefix("coco/"): value for key, value in case["expected"][name].items()}
            same(coco_figures(annotations, final, detection_area=area), metrics, case["tolerance"])


def test_golden_coco_eval_wholebody(golden_files, read_json, tmp_path):
    for path in golden_files("pose", "coco_eval_wholebody_*.json"):
        case = read_json(path)
        annotations = read_coco_wholebody(written(tmp_path, case["gt"]))
        figures = wholebody_figures(annotations, postprocess(predictions_of(case, COCO_WHOLEBODY)))
        stored = case["expected"]["default"]["metrics"]
        whole = {name.removeprefix("coco-wholebody/"): value for name, value in stored.items()}
        same(figures["wholebody"], whole, case["tolerance"])
        for part in (*PARTS, "wholebody"):
            same(figures[part], dict(zip(FIGURES, case["expected"]["parts"][part], strict=True)), case["tolerance"])

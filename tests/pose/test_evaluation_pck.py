"""PCK and its kin, and OKS of single poses, against stored results of mmpose's functions."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from priorscope_pose.evaluation import pck as measure
from priorscope_pose.evaluation.nms import object_keypoint_similarity
from priorscope_pose.skeletons import COCO


@pytest.fixture(scope="module")
def stored(golden_files, read_json):
    path = golden_files("pose", "pck_oks.safetensors")[0]
    return load_file(path), read_json(path.with_suffix(".json"))


def agrees(ours, expected, tolerance):
    joints = np.where(np.isnan(ours.joints), -1, ours.joints)
    np.testing.assert_allclose(joints, expected["acc"], atol=tolerance)
    assert ours.mean == pytest.approx(expected["avg"], abs=tolerance)
    assert ours.counted == expected["cnt"]


def test_golden_pck_oks(stored):
    arrays, case = stored
    expected, tolerance = case["expected"], case["tolerance"]
    poses = arrays["pred"], arrays["gt"], arrays["mask"]
    for threshold in (0.05, 0.1, 0.2, 0.5):
        agrees(measure.pck(*poses, threshold, arrays["norm"]), expected[f"pck@{threshold}"], tolerance)
    assert measure.auc(*poses, 30) == pytest.approx(expected["auc_norm30"], abs=tolerance)
    assert measure.epe(*poses) == pytest.approx(expected["epe"], abs=tolerance)
    assert measure.nme(*poses, arrays["norm_nme"]) == pytest.approx(expected["nme_w"], abs=tolerance)
    ours = measure.heatmap_pck(arrays["hm_pred"], arrays["hm_gt"], arrays["hm_mask"], 0.3)
    agrees(ours, expected["pose_pck_heatmap@0.3"], tolerance)


def test_golden_pck_oks_similarity(stored):
    arrays, _ = stored
    source, others = arrays["oks.src"].reshape(1, -1, 3), arrays["oks.dst"].reshape(4, -1, 3)
    areas = ((arrays["oks.src_area"] + arrays["oks.dst_area"]) / 2)[None]
    sigmas = COCO.sigma_array()
    ours = object_keypoint_similarity(source[..., :2], others[..., :2], areas, sigmas)[0]
    for name in ("oks.iou", "oks.iou_default_sigma"):
        np.testing.assert_array_equal(ours.astype(np.float32), arrays[name])
    counted = (source[..., 2] > 0.5)[:, None] & (others[..., 2] > 0.5)[None]
    seen = object_keypoint_similarity(source[..., :2], others[..., :2], areas, sigmas, counted)[0]
    np.testing.assert_array_equal(seen.astype(np.float32), arrays["oks.iou_vis0.5"])

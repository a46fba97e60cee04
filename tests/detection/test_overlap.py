"""Overlap of oriented boxes against shapely, exact cases, and suppression."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope.errors import InputError
from priorscope_detection.geometry import overlap
from priorscope_detection.geometry.boxes import bev_corners, from_hwl, transform_boxes
from priorscope_detection.geometry.nms import rotated_nms
from priorscope_detection.geometry.overlap import bev_intersection, bev_iou, iou_3d
from priorscope_detection.geometry.poses import matrices

shapely = pytest.importorskip("shapely")


def shapely_common(a, b):
    first, second = (shapely.polygons(bev_corners(boxes.double()).numpy()) for boxes in (a, b))
    return shapely.area(shapely.intersection(first[:, None], second[None]))


def boxes_in(count, extent, seed, shortest=0.5):
    draw = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 7, generator=draw, dtype=torch.float64)
    boxes[:, :2] = (boxes[:, :2] - 0.5) * extent
    boxes[:, 3:6] = shortest + boxes[:, 3:6] * 5
    boxes[:, 6] = (boxes[:, 6] - 0.5) * 20
    return boxes


def one(x=0.0, y=0.0, length=4.0, width=2.0, yaw=0.0, z=0.0, height=1.5):
    return torch.tensor([[x, y, z, length, width, height, yaw]], dtype=torch.float64)


def test_golden_det_iou(golden_files, read_json):
    for path in golden_files("robotics_detection", "det_rotated_iou_nms*.safetensors"):
        case, tol = load_file(path), read_json(path.with_suffix(".json"))["tol"]["iou"]
        boxes = from_hwl(case["boxes_hwl"])
        torch.testing.assert_close(bev_iou(boxes, boxes).float(), case["iou_bev"], rtol=0, atol=tol)
        count = len(case["iou_3d_shapely"])
        torch.testing.assert_close(iou_3d(boxes[:count], boxes[:count]), case["iou_3d_shapely"], rtol=0, atol=tol)
        for threshold in (0.15, 0.01, 0.5):
            kept = rotated_nms(boxes, case["scores"], threshold)
            assert torch.equal(kept, case[f"nms_keep_{threshold}"])


@pytest.mark.parametrize("extent", [0.5, 6, 16, 60])
def test_random_boxes_as_shapely(extent):
    a, b = boxes_in(150, extent, 0), boxes_in(130, extent, 1)
    common = shapely_common(a, b)
    assert (common > 0).sum() > 10
    np.testing.assert_allclose(bev_intersection(a, b).numpy(), common, atol=1e-9)
    areas = [(boxes[:, 3] * boxes[:, 4]).numpy() for boxes in (a, b)]
    iou = common / (areas[0][:, None] + areas[1][None] - common)
    np.testing.assert_allclose(bev_iou(a, b).numpy(), iou, atol=1e-9)


@pytest.mark.parametrize("far", [0.0, 1e5])
@pytest.mark.parametrize("turn", [0.0, pi / 2, pi, 0.3, pi / 4, 1e-9, 1e-16, -3e-8, pi / 2 + 1e-12])
def test_boxes_that_share_edges(turn, far):
    """Identical, touching from each side, nested on an edge, and halves: what clipping tends to miss or count twice."""
    rest = one(yaw=turn)
    ahead = torch.tensor([np.cos(turn), np.sin(turn)])
    left = torch.tensor([-np.sin(turn), np.cos(turn)])
    others = [one(yaw=turn), one(yaw=turn + pi), one(length=2, width=4, yaw=turn + pi / 2)]
    expected = [8.0, 8.0, 8.0]
    for step, area in ((4 * ahead, 0), (-4 * ahead, 0), (2 * left, 0), (4 * ahead + 2 * left, 0), (2 * ahead, 4)):
        others.append(one(*step.tolist(), yaw=turn))
        expected.append(area)
    others.append(one(*(ahead + 0.5 * left).tolist(), length=2, width=1, yaw=turn))
    expected.append(2)
    stacked = torch.cat(others)
    for boxes in (rest, stacked):
        boxes[:, :2] += far
    atol = 1e-9 if far == 0 else 1e-5
    for common in (bev_intersection(rest, stacked)[0], bev_intersection(stacked, rest)[:, 0]):
        np.testing.assert_allclose(common.numpy(), expected, atol=atol)


def test_turned_square_has_a_closed_form():
    """A square and itself turned by 45 degrees share a regular octagon."""
    common = bev_intersection(one(length=2, width=2), one(length=2, width=2, yaw=pi / 4))
    assert float(common) == pytest.approx(8 * (sqrt(2) - 1), abs=1e-12)
    cross = bev_intersection(one(length=10, width=1), one(length=10, width=1, yaw=pi / 6))
    assert float(cross) == pytest.approx(1 / np.sin(pi / 6), abs=1e-12)


@pytest.mark.parametrize("thin", [1e-3, 1e-6, 1e-9, 1e-12])
def test_thin_and_tiny_boxes_as_shapely(thin):
    a, b = boxes_in(60, 4, 2), boxes_in(60, 4, 3)
    a[:, 4] = thin
    b[::2, 3] = thin
    b[::4, 4] = thin
    np.testing.assert_allclose(bev_intersection(a, b).numpy(), shapely_common(a, b), atol=1e-9)
    same = bev_iou(a, a)
    np.testing.assert_allclose(same.diagonal().numpy(), 1, atol=1e-5)
    assert float(same.max()) <= 1 + 1e-5


def test_a_box_without_area_has_nothing_in_common():
    flat = torch.cat([one(width=0), one(length=0), one(length=0, width=0)])
    assert bev_intersection(flat, one()).tolist() == [[0], [0], [0]]
    assert bev_intersection(one(), flat).tolist() == [[0, 0, 0]]


def test_float32_boxes_are_measured_in_float64():
    a, b = boxes_in(40, 8, 4), boxes_in(40, 8, 5)
    a[:, :2] += 140
    b[:, :2] += 140
    small_a, small_b = a.float(), b.float()
    result = bev_iou(small_a, small_b)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, bev_iou(small_a.double(), small_b.double()).float(), rtol=0, atol=0)


def test_volumes():
    box = one(z=0, height=2)
    assert float(iou_3d(box, one(z=1, height=2))) == pytest.approx(1 / 3)
    assert float(iou_3d(box, one(z=2, height=2))) == 0
    assert float(iou_3d(box, one(z=5, height=2))) == 0
    assert float(iou_3d(box, one(z=0.5, height=1))) == pytest.approx(0.5)
    a, b = boxes_in(80, 5, 6), boxes_in(80, 5, 7)
    torch.testing.assert_close(iou_3d(a, b), iou_3d(b, a).T, rtol=0, atol=1e-12)


def test_the_frame_and_the_order_do_not_matter():
    a, b = boxes_in(90, 8, 14), boxes_in(110, 8, 15)
    iou = bev_iou(a, b)
    torch.testing.assert_close(bev_iou(b, a), iou.T, rtol=0, atol=1e-12)
    transform = torch.from_numpy(matrices([30, -20, 1, 0, 77, 0]))
    moved = bev_iou(transform_boxes(a, transform), transform_boxes(b, transform))
    torch.testing.assert_close(moved, iou, rtol=0, atol=1e-9)
    turned = a + torch.tensor([0, 0, 0, 0, 0, 0, pi], dtype=torch.float64)
    torch.testing.assert_close(bev_iou(turned, b), iou, rtol=0, atol=1e-12)
    assert float(iou.max()) <= 1


def test_chunks_change_nothing(monkeypatch):
    a, b = boxes_in(50, 10, 8), boxes_in(70, 10, 9)
    whole = bev_iou(a, b)
    monkeypatch.setattr(overlap, "CHUNK", {"cpu": 7})
    monkeypatch.setattr(overlap, "ROWS", 150)
    assert torch.equal(bev_iou(a, b), whole)


def test_only_pairs_that_may_touch_are_clipped(monkeypatch):
    """A sparse scene of 1000 x 1000 costs a few thousand pairs, not a million."""
    seen = []
    measure = overlap.intersection_of_pairs
    monkeypatch.setattr(overlap, "intersection_of_pairs", lambda a, b: (seen.append(len(a)), measure(a, b))[1])
    a, b = boxes_in(1000, 200, 10), boxes_in(1000, 200, 11)
    bev_iou(a, b)
    assert 0 < sum(seen) < 5000
    seen.clear()
    dense = boxes_in(400, 2, 12)
    bev_iou(dense, dense)
    assert max(seen) <= overlap.CHUNK["cpu"]
    assert sum(seen) > 100_000


def test_empty_sets():
    none = torch.zeros(0, 7)
    assert bev_iou(none, none).shape == (0, 0)
    assert bev_iou(one().float(), none).shape == (1, 0)
    assert rotated_nms(none, torch.zeros(0), 0.5).shape == (0,)


def test_suppression_by_hand():
    boxes = torch.cat([one(), one(x=0.5), one(x=4.2), one(x=0.2), one(x=4.2, yaw=0.1)])
    scores = torch.tensor([0.8, 0.9, 0.3, 0.9, 0.4])
    assert rotated_nms(boxes, scores, 0.15).tolist() == [1, 4]
    assert rotated_nms(boxes, scores, 1.0).tolist() == [1, 3, 0, 4, 2]
    assert rotated_nms(boxes, scores, 1.0, limit=2).tolist() == [1, 3]
    above = torch.cat([one(), one(z=3)])
    assert rotated_nms(above, scores[:2], 0.15, overlap=iou_3d).tolist() == [1, 0]


def test_kept_boxes_do_not_overlap_and_the_rest_does():
    boxes, scores = boxes_in(300, 20, 13), torch.rand(300, generator=torch.Generator().manual_seed(0))
    kept = rotated_nms(boxes, scores, 0.2)
    iou = bev_iou(boxes, boxes[kept])
    among = iou[kept].fill_diagonal_(0)
    assert float(among.max()) <= 0.2
    gone = torch.ones(300, dtype=torch.bool)
    gone[kept] = False
    better = (iou > 0.2) & (scores[kept][None] >= scores[:, None])
    assert bool(better[gone].any(1).all())


def test_wrong_input_is_told():
    good, bad, scores = one(), one(width=0), torch.tensor([0.5])
    for call in (bev_iou, iou_3d):
        with pytest.raises(InputError, match=r"second boxes\[0\] has a size of 0 or less"):
            call(good, bad)
        with pytest.raises(InputError, match=r"first boxes\[0\] is not finite"):
            call(one(x=float("nan")), good)
    with pytest.raises(InputError, match="size of 0"):
        rotated_nms(bad, scores, 0.5)
    with pytest.raises(InputError, match="scores are not finite"):
        rotated_nms(good, scores * float("nan"), 0.5)
    crowd = torch.cat([good, bad])
    with pytest.raises(InputError, match=r"boxes\[1\] has a size of 0"):
        rotated_nms(crowd, torch.tensor([0.9, 0.1]), 0.5, limit=1)
    with pytest.raises(InputError, match="shape"):
        rotated_nms(good, torch.ones(2), 0.5)
    with pytest.raises(InputError, match=r"threshold is 1\.5"):
        rotated_nms(good, scores, 1.5)

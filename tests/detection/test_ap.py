"""Average precision: golden, by hand, in parts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope.errors import InputError
from priorscope_detection.evaluation.ap import (
    RANGES,
    VISIBILITIES,
    Part,
    average_precision,
    match,
    measure_frame,
    summary,
)
from priorscope_detection.geometry.boxes import boxes_from_corners

NONE = torch.zeros(0, 7)


def cars(*xs, y=0.0):
    return torch.tensor([[x, y, -1, 4, 2, 1.5, 0.0] for x in xs]).reshape(-1, 7)


def test_golden_det_ap(golden_files, read_json):
    for path in golden_files("robotics_detection", "det_ap*.safetensors"):
        case, tol = load_file(path), read_json(path.with_suffix(".json"))["tol"]["ap"]
        rows = []
        frames = sum(key.endswith(".gt") for key in case)
        for index in range(frames):
            truths, boxes, scores = (case[f"f{index}.{name}"] for name in ("gt", "det", "score"))
            if index == 4:  # this frame's detections were None, says the case
                boxes, scores = boxes[:0], scores[:0]
            rows.append(measure_frame(boxes_from_corners(boxes), scores, boxes_from_corners(truths)))
        for threshold in (0.3, 0.5, 0.7):
            result = average_precision(rows, threshold)
            legacy = average_precision(rows, threshold, order="per_frame")
            assert result.truths == int(case[f"gt_{threshold}"])
            assert np.array_equal(legacy.hits, case[f"tp_{threshold}"].bool().numpy())
            assert np.array_equal(~legacy.hits, case[f"fp_{threshold}"].bool().numpy())
            np.testing.assert_allclose(legacy.scores, case[f"score_{threshold}"], atol=tol)
            np.testing.assert_allclose(result.recall, case[f"mrec_{threshold}"], atol=tol)
            np.testing.assert_allclose(result.precision, case[f"mpre_{threshold}"], atol=tol)
            assert result.ap == pytest.approx(float(case[f"ap_{threshold}"]), abs=tol)
            assert legacy.ap == pytest.approx(float(case[f"ap_nosort_{threshold}"]), abs=tol)


def test_by_hand():
    """Ranked: right, wrong, right, of 4 true boxes: 1/4 x 1 + 1/4 x 2/3."""
    rows = [
        measure_frame(cars(0, 50), torch.tensor([0.9, 0.8]), cars(0, 10)),
        measure_frame(cars(20), torch.tensor([0.7]), cars(20, 30)),
    ]
    assert average_precision(rows).ap == pytest.approx(1 / 4 + 1 / 4 * 2 / 3)
    # frame after frame the same here; the other way round the right one of 0.7 comes first
    assert average_precision(rows, order="per_frame").ap == pytest.approx(1 / 4 + 1 / 4 * 2 / 3)
    assert average_precision(rows[::-1], order="per_frame").ap == pytest.approx(1 / 2)
    assert average_precision(rows[::-1]).ap == pytest.approx(1 / 4 + 1 / 4 * 2 / 3)


def test_a_second_box_on_the_same_car_is_false():
    row = measure_frame(cars(0, 0.1), torch.tensor([0.5, 0.9]), cars(0))
    assert row["scores"] == pytest.approx([0.9, 0.5])
    assert row["found"]["bev"]["0.5"] == [0, -1]


def test_a_detection_takes_the_best_box_that_is_left():
    iou = np.array([[0.6, 0.7], [0.0, 0.9], [0.6, 0.65]])
    assert match(iou, np.array([0.9, 0.8, 0.7]), 0.5).tolist() == [1, -1, 0]
    assert match(iou, np.array([0.8, 0.9, 0.7]), 0.5).tolist() == [0, 1, -1]
    assert match(iou, np.array([0.8, 0.9, 0.7]), 0.65).tolist() == [-1, 1, -1]
    assert match(iou, np.array([0.8, 0.9, 0.7]), 0.6).tolist() == [0, 1, -1]


def test_bev_and_volume_differ_by_height():
    high = cars(0)
    high[:, 2] += 0.75
    rows = [measure_frame(high, torch.tensor([0.9]), cars(0))]
    assert average_precision(rows, 0.7).ap == 1
    assert average_precision(rows, 0.5, overlap="3d").ap == 0
    assert average_precision(rows, 0.3, overlap="3d").ap == 1


def test_ranges():
    """A right box at 10 m, a missed one at 60 m, a false one at 70 m."""
    rows = [measure_frame(cars(10, 70), torch.tensor([0.5, 0.9]), cars(10, 60))]
    near, middle, far = (average_precision(rows, part=part) for part in RANGES)
    assert (near.ap, near.truths, near.hits.tolist()) == (1, 1, [True])
    assert middle.truths == 0
    assert np.isnan(middle.ap)
    assert (far.ap, far.truths, far.hits.tolist()) == (0, 1, [False])
    assert average_precision(rows).ap == pytest.approx(0.25)


def test_visibility():
    """Found: a car with 50 points and one without any; missed: one with 3 points; and one false box."""
    rows = [measure_frame(cars(0, 10, 90), torch.tensor([0.9, 0.8, 0.7]), cars(0, 10, 20), visibility=[50, 0, 3])]
    unseen, hardly, well = (average_precision(rows, part=part) for part in VISIBILITIES)
    assert (unseen.ap, unseen.truths, unseen.hits.tolist()) == (1, 1, [True, False])
    assert (hardly.ap, hardly.truths, hardly.hits.tolist()) == (0, 1, [False])
    assert (well.ap, well.truths) == (1, 1)


def test_parts_without_overlap_hold_every_true_box_once():
    draw = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(5):
        truths, boxes = (torch.rand(n, 7, generator=draw) * 40 + 1 for n in (30, 40))
        points = torch.randint(0, 30, (30,), generator=draw)
        rows.append(measure_frame(boxes, torch.rand(40, generator=draw), truths, visibility=points))
    for parts in (RANGES, VISIBILITIES):
        results = [average_precision(rows, 0.3, part=part) for part in parts]
        assert sum(result.truths for result in results) == 150
        assert sum(int(result.hits.sum()) for result in results) == int(average_precision(rows, 0.3).hits.sum()) > 0


def test_rows_survive_json_and_the_summary_names_its_figures():
    rows = [
        measure_frame(cars(10, 70), torch.tensor([0.5, 0.9]), cars(10, 60), visibility=[4, 0]),
        measure_frame(NONE, torch.zeros(0), cars(3), visibility=[7]),
        measure_frame(cars(3), torch.tensor([0.4]), NONE, visibility=[]),
    ]
    figures = summary(json.loads(json.dumps(rows)), parts=(*RANGES, *VISIBILITIES))
    assert figures == summary(rows, parts=(*RANGES, *VISIBILITIES))
    assert json.loads(json.dumps(figures)) == figures
    assert (figures["frames"], figures["truths"], figures["detections"]) == (3, 3, 3)
    assert figures["ap_bev_0.5"] == pytest.approx(1 / 3 * 1 / 2)
    assert figures["recall_bev_0.7"] == pytest.approx(1 / 3)
    assert figures["ap_bev_0.5_range_30_50"] is None
    assert figures["truths_range_50_100"] == 1
    assert figures["ap_bev_0.5_visibility_1_10"] == pytest.approx(1 / 2 * 1 / 2)
    assert {"ap_3d_0.3", "ap_bev_0.7_per_frame", "recall_bev_0.5_visibility_10_inf"} <= set(figures)


def test_without_detections_or_truth():
    empty = [measure_frame(NONE, torch.zeros(0), NONE)]
    assert np.isnan(average_precision(empty).ap)
    assert summary([])["ap_bev_0.5"] is None
    assert average_precision([measure_frame(NONE, torch.zeros(0), cars(1))]).ap == 0


def test_wrong_input_is_told():
    good, scores = cars(0), torch.tensor([0.5])
    flat = good.clone()
    flat[0, 4] = 0
    with pytest.raises(InputError, match=r"detections\[0\] has a size of 0"):
        measure_frame(flat, scores, good)
    with pytest.raises(InputError, match=r"true boxes\[0\] is not finite"):
        measure_frame(good, scores, good * float("nan"))
    for wrong in (torch.tensor([float("nan")]), torch.ones(2)):
        with pytest.raises(InputError, match="scores"):
            measure_frame(good, wrong, good)
    with pytest.raises(InputError, match="visibilities of shape"):
        measure_frame(good, scores, good, visibility=[1, 2])
    rows = [measure_frame(good, scores, good)]
    with pytest.raises(InputError, match=r"overlap 0\.6\. Measured were 0\.3, 0\.5, 0\.7"):
        average_precision(rows, 0.6)
    with pytest.raises(InputError, match="no visibility was given for visibility_0_5"):
        average_precision(rows, part=Part("visibility", 0, 5))

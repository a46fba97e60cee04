"""Anchors, targets, box codes, losses, and what makes boxes of a network's output."""

from __future__ import annotations

from math import log, pi, radians

import pytest
import torch
from safetensors.torch import load_file

from priorscope.errors import InputError
from priorscope_detection import targets
from priorscope_detection.anchors import AnchorGrid, grid_size
from priorscope_detection.box_coder import decode, direction_class, encode, with_direction
from priorscope_detection.geometry.boxes import corners, from_hwl, standup, to_hwl
from priorscope_detection.geometry.overlap import bev_iou
from priorscope_detection.losses import LossSettings, by_anchor, detection_loss
from priorscope_detection.post_processing import Detections, PostProcessing, candidates, finish
from priorscope_detection.targets import Targets, assign

SMALL = AnchorGrid((-12.8, -6.4, -3, 12.8, 6.4, 1), (0.4, 0.4))


def car(x=0.0, y=0.0, yaw=0.0, length=3.9, width=1.6):
    return [x, y, -1, length, width, 1.56, yaw]


def boxes_of(*rows):
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 7)


def test_golden_det_targets(golden_files, read_json):
    """Anchors, assignment, codes, decoding, the whole of post-processing, and the losses."""
    for path in golden_files("robotics_detection", "det_anchors_targets_decode*.safetensors"):
        case, about = load_file(path), read_json(path.with_suffix(".json"))
        tol = about["tol"]
        for name, config in about["configs"].items():
            values = {key[len(name) + 1 :]: value for key, value in case.items() if key.startswith(f"{name}.")}
            args, limits = config["anchor_args"], tuple(config["gt_range"])
            grid = AnchorGrid(
                tuple(args["cav_lidar_range"]),
                (args["vw"], args["vh"]),
                args["feature_stride"],
                (args["l"], args["w"], args["h"]),
                tuple(args["r"]),
                placement="published",
            )
            anchors = grid.boxes()
            torch.testing.assert_close(to_hwl(anchors), values["anchors"], **tol)
            thresholds = config["target_args"]
            targets = assign(
                anchors,
                from_hwl(values["gt"]),
                positive=thresholds["pos_threshold"],
                negative=thresholds["neg_threshold"],
                overlap="published",
            )
            assert torch.equal(targets.positive, values["pos"].bool())
            assert torch.equal(targets.negative, values["neg"].bool())
            torch.testing.assert_close(targets.codes.flatten(2), values["targets"], **tol)

            heads = values["cls"], values["reg"], values["dir"]
            losses = detection_loss(*heads, [targets], anchors)
            ours = torch.stack([losses.total, losses.classes, losses.boxes, losses.direction])
            torch.testing.assert_close(ours, values["loss"].float(), **tol)

            _, codes, _ = by_anchor(*heads)
            torch.testing.assert_close(to_hwl(decode(codes, anchors)).flatten(1, 3), values["decoded"], **tol)
            settings = PostProcessing.published(limits)
            assert settings.score == thresholds["score_threshold"]
            assert settings.nms == config["nms_thresh"]
            found = candidates(*heads, anchors, settings)
            for key, transforms in (("eye", None), ("tfm", [values["tfm"]])):
                result = finish(found, transforms, settings)
                torch.testing.assert_close(corners(result.boxes), values[f"{key}.boxes"], **tol)
                torch.testing.assert_close(result.scores, values[f"{key}.scores"], **tol)


def test_anchors_stand_at_the_centres_of_cells():
    anchors = SMALL.boxes()
    assert anchors.shape == (16, 32, 2, 7)
    assert anchors[0, 0, 0].tolist() == pytest.approx([-12.4, -6.0, -1, 3.9, 1.6, 1.56, 0])
    assert anchors[3, 5, 1].tolist() == pytest.approx([-8.4, -3.6, -1, 3.9, 1.6, 1.56, pi / 2])
    coarse = AnchorGrid(SMALL.limits, SMALL.voxel, stride=4)
    assert coarse.boxes()[0, :, 0, 0].tolist() == pytest.approx([-12 + 1.6 * i for i in range(16)])
    published = AnchorGrid(SMALL.limits, SMALL.voxel, stride=4, placement="published").boxes()
    assert published[0, 0, 0, 0] == pytest.approx(-12.4)


@pytest.mark.parametrize(
    ("limits", "voxel", "stride", "fact"),
    [
        ((-10, -8, -3, 10, 8, 1), (0.8, 0.4), 2, "25 x 40 pillars is not divisible by the stride 2.*1.6 m"),
        ((-10, -8, -3, 10, 8, 1), (0.3, 0.4), 1, "along x is 66.67 cells of 0.3 m"),
        ((-10, -8, -3, 10, -8, 1), (0.4, 0.4), 1, "is empty"),
        ((-10, -8, -3, float("nan"), 8, 1), (0.4, 0.4), 1, "is empty"),
        ((-10, -8, -3, 10, 8, 1), (0.4, 0.0), 1, "0 cells of 0 m"),
        ((-10, -8, -3, 10, 8, 1), (0.4, 0.4), 0, "stride is 0"),
    ],
)
def test_ranges_that_do_not_fit_are_told(limits, voxel, stride, fact):
    with pytest.raises(InputError, match=fact):
        AnchorGrid(limits, voxel, stride)


def test_sizes_of_anchors_are_checked():
    with pytest.raises(InputError, match="l, w, h above 0"):
        AnchorGrid(SMALL.limits, SMALL.voxel, size=(3.9, 0, 1.5))
    with pytest.raises(InputError, match="l, w, h above 0"):
        AnchorGrid(SMALL.limits, SMALL.voxel, yaws=())


def test_the_grid_of_the_published_range():
    assert grid_size((-140.8, -40, -3, 140.8, 40, 1), (0.4, 0.4, 4)) == (200, 704)
    assert grid_size((-100.8, -40, -3.5, 100.8, 40, 1.5), (0.4, 0.4)) == (200, 504)


def test_codes_by_hand():
    anchor, box = boxes_of([1, 2, -1, 4, 3, 1.5, 0]), boxes_of([2, 2, -0.25, 8, 3, 3, 0.5])
    assert encode(box, anchor)[0].tolist() == pytest.approx([0.2, 0, 0.5, log(2), 0, log(2), 0.5])


def test_decode_undoes_encode():
    draw = torch.Generator().manual_seed(0)
    boxes = torch.rand(16, 32, 2, 7, generator=draw, dtype=torch.float64) * 3 + 0.5
    anchors = SMALL.boxes()
    torch.testing.assert_close(decode(encode(boxes, anchors), anchors), boxes)
    wild = decode(torch.full((7,), 1e4), anchors[0, 0, 0])
    assert wild.isfinite().all()


def test_axis_and_half_make_the_heading():
    yaw = torch.linspace(-9, 9, 181, dtype=torch.float64)
    half = direction_class(yaw)
    assert set(half.tolist()) == {0, 1}
    for turn in (0, pi, -pi, 5 * pi):
        back = with_direction(yaw + turn, half)
        torch.testing.assert_close(torch.cos(back - yaw), torch.ones_like(yaw))
        assert back.abs().max() <= pi
    assert direction_class(torch.tensor([0.0, 1.0, pi, -1.0])).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("overlap", ["nearest", "rotated", "standup", "published"])
def test_each_box_gets_its_best_anchor(overlap):
    anchors = SMALL.boxes()
    boxes = boxes_of(car(0.1, 0.1), car(-6, 3, pi / 4), car(6, -3, 1.5), car(6, 3, 0, 2.0, 0.8))
    targets = assign(anchors, boxes, overlap=overlap)
    assert set(targets.vehicle.unique().tolist()) == {-1, 0, 1, 2, 3}
    assert torch.equal(targets.vehicle >= 0, targets.positive)
    assert not bool((targets.positive & targets.negative).any())
    assert targets.codes[~targets.positive].abs().sum() == 0
    chosen = targets.positive
    back = decode(targets.codes[chosen], anchors[chosen])
    torch.testing.assert_close(back, boxes[targets.vehicle[chosen]])


def test_limits_of_rotated_overlap():
    anchors, boxes = SMALL.boxes(), boxes_of(car(0.3, 0.2, 0.1))
    targets = assign(anchors, boxes, overlap="rotated")
    iou = bev_iou(anchors.view(-1, 7), boxes)[:, 0].view(16, 32, 2)
    best = iou == iou.max()
    assert torch.equal(targets.positive, (iou > 0.6) | best)
    assert torch.equal(targets.negative, (iou < 0.45) & ~best)
    assert int(((iou >= 0.45) & (iou <= 0.6)).sum()) > 0


def test_the_nearest_axis_decides():
    """A car that stands askew gets as many anchors as one that does not, unlike by stand-up rectangles."""
    anchors = SMALL.boxes()
    centre = anchors[8, 16, 0, :2].tolist()
    straight, askew, upright = (boxes_of(car(*centre, radians(angle))) for angle in (0, 40, 85))
    counts = [int(assign(anchors, boxes).positive.sum()) for boxes in (straight, askew, upright)]
    assert counts[0] == counts[1] > 1
    assert assign(anchors, askew).positive[..., 1].sum() == 0
    assert assign(anchors, upright).positive[..., 0].sum() == 0
    assert int(assign(anchors, askew, overlap="standup").positive.sum()) < counts[1]


def test_published_overlap_adds_a_metre():
    """1 x 1 m and its neighbour, a metre off: nothing in common, but a third of 2 x 2 m squares."""
    anchors = boxes_of([0, 0, -1, 1, 1, 1, 0], [0, 20, -1, 1, 1, 1, 0]).view(2, 1, 1, 7)
    boxes = boxes_of([1, 0, -1, 1, 1, 1, 0])
    assert assign(anchors, boxes, overlap="standup").positive.sum() == 0
    assert assign(anchors, boxes, positive=0.33, negative=0.1, overlap="published").positive.flatten().tolist() == [
        True,
        False,
    ]
    assert standup(boxes).tolist() == [[0.5, -0.5, 1.5, 0.5]]


def test_an_anchor_between_two_boxes_takes_the_nearer():
    anchors = boxes_of(car(0)).view(1, 1, 1, 7)
    boxes = boxes_of(car(0.8), car(0.1))
    assert int(assign(anchors, boxes, overlap="standup").vehicle) == 1
    assert int(assign(anchors, boxes, overlap="published").vehicle) == 0


@pytest.mark.parametrize("overlap", ["nearest", "rotated", "standup", "published"])
def test_leaving_out_anchors_far_from_all_boxes_changes_nothing(monkeypatch, overlap):
    anchors = SMALL.boxes()
    draw = torch.Generator().manual_seed(1)
    boxes = boxes_of(*(car() for _ in range(6)))
    boxes[:, :2] += (torch.rand(6, 2, generator=draw) - 0.5) * torch.tensor([30.0, 16.0])
    boxes[:, 6] = torch.rand(6, generator=draw) * 7
    quick = assign(anchors, boxes, overlap=overlap)
    used = []
    near = targets._near
    monkeypatch.setattr(targets, "_near", lambda *given: used.append(near(*given)) or torch.ones(SMALL.shape).bool())
    whole = assign(anchors, boxes, overlap=overlap)
    assert 0 < int(used[0].sum()) < used[0].numel()
    for name in ("positive", "negative", "codes", "vehicle"):
        assert torch.equal(getattr(quick, name), getattr(whole, name))


def test_without_boxes_all_is_background():
    targets = assign(SMALL.boxes(), torch.zeros(0, 7))
    assert bool(targets.negative.all())
    assert not bool(targets.positive.any())


def test_wrong_targets_are_told():
    with pytest.raises(InputError, match=r"true boxes\[0\] has a size of 0"):
        assign(SMALL.boxes(), boxes_of(car(length=0)))
    with pytest.raises(InputError, match=r"true boxes\[1\] is not finite"):
        assign(SMALL.boxes(), boxes_of(car(), car(float("nan"))))
    with pytest.raises(InputError, match=r"0\.7 \(negative\) and 0\.6"):
        assign(SMALL.boxes(), boxes_of(car()), negative=0.7)


def heads_for(anchors, targets, batch=1):
    """Outputs of a network that is right and sure."""
    height, width, count = anchors.shape[:3]
    classes = torch.where(targets.positive, 12.0, -12.0).movedim(-1, 0)
    codes = targets.codes.float().reshape(height, width, -1).movedim(-1, 0)
    half = direction_class(targets.codes[..., 6] + anchors[..., 6])
    halves = torch.nn.functional.one_hot(half, 2).float() * 30
    direction = halves.reshape(height, width, 2 * count).movedim(-1, 0)
    return tuple(maps[None].repeat(batch, 1, 1, 1) for maps in (classes, codes, direction))


def test_a_perfect_network_has_no_loss_and_gives_the_boxes_back():
    anchors = SMALL.boxes()
    boxes = boxes_of(car(0.1, 0.1, 3.0), car(-6, 3, -2.0), car(6, -3, 1.5))
    targets = assign(anchors, boxes)
    heads = heads_for(anchors, targets, 2)
    losses = detection_loss(*heads, [targets, targets], anchors)
    assert float(losses.total) < 1e-4
    assert float(losses.total) == pytest.approx(float(losses.classes + losses.boxes + losses.direction))
    for found in candidates(*heads, anchors):
        result = finish([found])
        assert len(result) == 3
        match = bev_iou(result.boxes.double(), boxes)
        assert match.max(0).values.tolist() == pytest.approx([1] * 3, abs=1e-5)
        turn = result.boxes[:, 6].double() - boxes[match.argmax(1), 6]
        torch.testing.assert_close(turn.cos(), torch.ones(3, dtype=torch.float64))


def test_losses_by_hand():
    anchors = boxes_of(car(0), car(50)).view(1, 2, 1, 7)
    targets = assign(anchors, boxes_of(car(0)))
    classes, codes = torch.zeros(1, 1, 1, 2), torch.zeros(1, 7, 1, 2)
    codes[0, 0, 0, 0], codes[0, 1, 0, 0] = 0.05, 2.0
    losses = detection_loss(classes, codes, torch.zeros(1, 2, 1, 2), [targets], anchors)
    # positive: 2 (weight) * 0.25 (alpha); negative: 0.75; both (1/2)^2 of ln 2
    assert float(losses.classes) == pytest.approx(2 * (2 * 0.25 + 0.75) * 0.25 * log(2))
    assert float(losses.boxes) == pytest.approx(2 * (0.5 * 9 * 0.05**2 + 2 - 0.5 / 9))
    assert float(losses.direction) == pytest.approx(0.2 * log(2))
    without = detection_loss(classes, codes, None, [targets], anchors, LossSettings(positive=0))
    assert float(without.direction) == 0
    assert float(without.classes) == pytest.approx(2 * 0.75 * 0.25 * log(2))


def test_a_box_turned_by_pi_costs_direction_only():
    anchors = boxes_of(car(0)).view(1, 1, 1, 7)
    targets = assign(anchors, boxes_of(car(0)))
    classes, codes, direction = heads_for(anchors, targets)
    codes[0, 6] = pi
    assert float(detection_loss(classes, codes, direction, [targets], anchors).boxes) < 1e-6
    codes[0, 6] = pi / 2
    assert float(detection_loss(classes, codes, direction, [targets], anchors).boxes) > 1


def test_each_frame_counts_alike_and_gradients_reach_all_heads():
    anchors = SMALL.boxes()
    few, many = (assign(anchors, boxes) for boxes in (boxes_of(car()), boxes_of(*(car(x) for x in (-8, 0, 8)))))
    draw = torch.Generator().manual_seed(0)
    heads = [torch.randn(2, channels, 16, 32, generator=draw, requires_grad=True) for channels in (2, 14, 4)]
    both = detection_loss(*heads, [few, many], anchors)
    alone = [
        detection_loss(*(maps[i : i + 1] for maps in heads), [one], anchors).total for i, one in enumerate([few, many])
    ]
    torch.testing.assert_close(both.total, sum(alone) / 2)
    both.total.backward()
    assert all(bool((maps.grad.flatten(1).abs().sum(1) > 0).all()) for maps in heads)


def test_a_frame_without_vehicles_has_a_finite_loss():
    anchors = SMALL.boxes()
    targets = assign(anchors, torch.zeros(0, 7))
    losses = detection_loss(*heads_for(anchors, targets), [targets], anchors)
    assert 0 <= float(losses.total) < 1e-3


def test_heads_that_do_not_fit_are_told():
    anchors = SMALL.boxes()
    targets = assign(anchors, boxes_of(car()))
    classes, codes, direction = heads_for(anchors, targets)
    with pytest.raises(InputError, match="Make both from the same AnchorGrid"):
        detection_loss(classes[..., 1:], codes[..., 1:], None, [targets], anchors)
    with pytest.raises(InputError, match="needs 7 channels an anchor, 14"):
        detection_loss(classes, codes[:, 1:], direction, [targets], anchors)
    with pytest.raises(InputError, match="range and stride"):
        candidates(classes[..., 1:], codes[..., 1:], direction[..., 1:], anchors)
    for maps in (classes, codes):
        wrong = maps.clone()
        wrong[:, :, 8, 16] = float("nan")
        classes[:, :, 8, 16] = 5
        pair = (wrong, codes) if maps is classes else (classes, wrong)
        with pytest.raises(InputError, match="outputs are not finite"):
            candidates(*pair, direction, anchors)


def test_filters():
    lorry, low, tiny, edge = car(0, 0, 0, 9.0, 2.5), car(3, 20), car(20, 3, 0, 0.01, 1.0), car(-12, -6)
    low[2] = -4
    boxes = boxes_of(lorry, low, tiny, edge)
    found = Detections(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]))

    def kept(**changes):
        return finish([found], settings=PostProcessing(**changes)).scores.tolist()

    assert kept() == pytest.approx([0.9, 0.8, 0.6])
    assert kept(longest=6.0) == pytest.approx([0.8, 0.6])
    assert kept(z=(-3.0, 1.0)) == pytest.approx([0.9, 0.6])
    assert kept(smallest=0.0) == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert kept(limits=SMALL.limits) == pytest.approx([0.9, 0.6])
    assert kept(limits=SMALL.limits, inside="corners") == pytest.approx([0.9])


def test_settings_are_checked():
    for name, value in (("score", 1.5), ("nms", -0.1), ("nms_limit", 0)):
        with pytest.raises(InputError, match=name):
            PostProcessing(**{name: value})


def test_late_fusion_joins_agents_in_one_frame():
    """Two agents, 10 m apart and facing each other, see the same car; the surer one's box stays."""
    transform = torch.tensor([[-1.0, 0, 0, 10], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    first = Detections(boxes_of(car(4, 1)), torch.tensor([0.5]))
    second = Detections(boxes_of(car(6, -1.1), car(-3, 2)), torch.tensor([0.7, 0.6]))
    result = finish([first, second], [torch.eye(4), transform])
    assert result.scores.tolist() == pytest.approx([0.7, 0.6])
    torch.testing.assert_close(result.boxes[0, :2], torch.tensor([4.0, 1.1], dtype=torch.float64))
    nobody = Detections(torch.zeros(0, 7), torch.zeros(0))
    assert len(finish([nobody])) == 0


def test_targets_hold_masks_of_the_grid():
    targets = assign(SMALL.boxes(), boxes_of(car()))
    assert isinstance(targets, Targets)
    assert targets.positive.shape == targets.negative.shape == targets.vehicle.shape == SMALL.shape
    assert targets.codes.shape == (*SMALL.shape, 7)

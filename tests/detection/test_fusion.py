"""Fusions: the published warp and attention, explicit geometry against points, sets that do not care about order."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from priorscope.errors import InputError
from priorscope_detection.fusion.agents import as_sets, check_agents, ego_rows, presence
from priorscope_detection.fusion.early import merge_points
from priorscope_detection.fusion.plain import attention_fusion, ego_only, max_fusion
from priorscope_detection.fusion.v2x import V2XFusion
from priorscope_detection.fusion.warp import coverage, published_affine, warp_to_ego

CELL = 0.8  # of the golden case


def pose(x, y, degrees):
    angle = math.radians(degrees)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64
    )
    matrix[0, 3], matrix[1, 3] = x, y
    return matrix


def test_golden_det_warp(golden_files, read_json):
    for path in golden_files("robotics_detection", "det_warp_fusion.safetensors"):
        case, tolerance = load_file(path), read_json(path.with_suffix(".json"))["tol"]
        agents = case["record_len"].tolist()
        height, width = case["x"].shape[2:]
        extent = (-width * CELL / 2, -height * CELL / 2, -3.0, width * CELL / 2, height * CELL / 2, 1.0)
        # pairwise[i, j] takes points of i to j
        to_ego = torch.cat([torch.linalg.inv(case["pairwise"][b, 0, :n].double()) for b, n in enumerate(agents)])
        for b, n in enumerate(agents):
            rows = slice(sum(agents[:b]), sum(agents[:b]) + n)
            torch.testing.assert_close(published_affine(to_ego[rows], extent).float(), case["M"][b, 0, :n], **tolerance)
            for published in (True, False):  # the range is symmetric about the sensor: both are the same
                warped = warp_to_ego(case["x"][rows], to_ego[rows], extent, published=published)
                torch.testing.assert_close(warped, case[f"warp_b{b}"], **tolerance)
        sets = as_sets(warp_to_ego(case["x"], to_ego, extent), agents)
        present = presence(agents)
        torch.testing.assert_close(max_fusion(sets, present), case["max_fusion"], **tolerance)
        torch.testing.assert_close(attention_fusion(sets, present), case["att_fusion"], **tolerance)


@pytest.mark.parametrize("extent", [(-16.0, -8.0, -3.0, 16.0, 8.0, 1.0), (0.0, -6.0, -3.0, 32.0, 10.0, 1.0)])
def test_warp_carries_a_linear_field_exactly(extent):
    # an agent's map that holds x and y of its cells' centres must give, at the ego's cells, where they are for it
    height, width = 32, 64
    x0, y0, _, x1, y1, _ = extent
    x = x0 + (torch.arange(width) + 0.5) * (x1 - x0) / width
    y = y0 + (torch.arange(height) + 0.5) * (y1 - y0) / height
    centres = torch.stack(torch.meshgrid(x, y, indexing="xy"))
    to_ego = pose(2.3, -1.1, 25.0)[None]
    warped = warp_to_ego(centres[None].double(), to_ego, extent)[0]
    back = torch.linalg.inv(to_ego[0])
    expected = torch.einsum("ij,jhw->ihw", back[:2, :2], centres.double()) + back[:2, 3, None, None]
    inner = ((expected[0] - (x0 + x1) / 2).abs() < (x1 - x0) / 2 - 1) & (
        (expected[1] - (y0 + y1) / 2).abs() < (y1 - y0) / 2 - 1
    )
    assert inner.sum() > 500
    torch.testing.assert_close(warped[:, inner], expected[:, inner])
    covered = coverage(to_ego, extent, height, width)[0]
    assert bool(covered[inner].all())
    outside = (expected[0] < x0) | (expected[0] > x1) | (expected[1] < y0) | (expected[1] > y1)
    assert torch.equal(covered, ~outside)
    published = warp_to_ego(centres[None].double(), to_ego, extent, published=True)[0]
    wrong = (published[:, inner] - expected[:, inner]).abs().max()
    assert (wrong < 1e-9) == (x0 + x1 == 0), "the published matrix is right for ranges about the sensor only"


def test_attention_leaves_out_who_does_not_reach():
    torch.manual_seed(0)
    sets = torch.randn(1, 3, 4, 5, 6, dtype=torch.float64)
    present = torch.ones(1, 3, 5, 6, dtype=torch.bool)
    present[:, 1, :, 3:] = False
    present[:, 2] = False
    fused = attention_fusion(sets, present)
    torch.testing.assert_close(fused[..., 3:], sets[:, 0, ..., 3:])
    expected = attention_fusion(sets[:, :2], torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(fused[..., :3], expected[..., :3])
    torch.testing.assert_close(max_fusion(sets, torch.tensor([[True, True, False]])), sets[:, :2].amax(1))
    assert torch.equal(ego_only(sets), sets[:, 0])


def test_order_of_the_others_does_not_matter():
    torch.manual_seed(0)
    sets = torch.randn(2, 4, 8, 7, 9)
    present = torch.rand(2, 4, 7, 9) > 0.3
    present[:, 0] = True
    kinds, delays = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 1]]), torch.rand(2, 4)
    network = V2XFusion(8, heads=2, windows=(2, 3), depth=2).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    order = [0, 3, 1, 2]
    first = network(sets, present, kinds, delays)
    second = network(sets[:, order], present[:, order], kinds[:, order], delays[:, order])
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first, network(sets, present, 1 - kinds, delays))
    assert not torch.allclose(first, network(sets, present, kinds, delays + 0.1))
    # the last block computes for the ego what a block computes for all
    block = network.blocks[0]
    everyone = block(sets, present, kinds)
    torch.testing.assert_close(block(sets, present, kinds, 1), everyone[:, :1], rtol=1e-4, atol=1e-5)
    # who does not take part has no say
    changed = sets.clone()
    changed[:, 2] = torch.randn(8, 7, 9)
    nobody = present.clone()
    nobody[:, 2] = False
    one = network(sets, nobody, kinds, delays)
    torch.testing.assert_close(one, network(changed, nobody, kinds, delays))
    alone = network(sets[:, [0, 1, 3]], nobody[:, [0, 1, 3]], kinds[:, [0, 1, 3]], delays[:, [0, 1, 3]])
    torch.testing.assert_close(one, alone, rtol=1e-4, atol=1e-5)
    one.sum().backward()
    assert all(bool(torch.isfinite(weight.grad).all()) for weight in network.parameters())


def test_sets_of_several_frames():
    rows = torch.arange(6.0)[:, None]
    assert torch.equal(as_sets(rows, (3, 1, 2))[..., 0], torch.tensor([[0.0, 1, 2], [3, 0, 0], [4, 5, 0]]))
    assert presence((3, 1, 2)).tolist() == [[True] * 3, [True, False, False], [True, True, False]]
    assert ego_rows((3, 1, 2)) == [0, 3, 4]
    for wrong in ((3, 0, 3), (), (3, 2)):
        with pytest.raises(InputError, match="at least its ego"):
            check_agents(wrong, 6)


def test_early_fusion_is_one_cloud():
    to_ego = torch.stack([pose(0, 0, 0), pose(10.0, 0.0, 90.0)])
    merged = merge_points([torch.tensor([[1.0, 2, 3, 0.5]]), torch.tensor([[1.0, 2, 3, 0.7]])], to_ego)
    torch.testing.assert_close(merged, torch.tensor([[1.0, 2, 3, 0.5], [8, 1, 3, 0.7]]))
    with pytest.raises(InputError, match="1 poses for 2 clouds"):
        merge_points([torch.zeros(1, 4)] * 2, to_ego[:1])


def test_poses_that_make_no_sense():
    features = torch.zeros(2, 3, 4, 4)
    extent = (-1.0, -1.0, 0.0, 1.0, 1.0, 1.0)
    with pytest.raises(InputError, match="not finite"):
        warp_to_ego(features, torch.full((2, 4, 4), math.nan), extent)
    with pytest.raises(InputError, match="shape"):
        warp_to_ego(features, torch.eye(3).repeat(2, 1, 1), extent)
    with pytest.raises(InputError, match="1 poses for the maps of 2"):
        warp_to_ego(features, torch.eye(4)[None], extent)

"""Pillars: against spconv's grouping and the published feature network, and at the edges of what may come in."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from priorscope.errors import InputError
from priorscope_detection.network.pillar_vfe import PillarVFE, WeightedBatchNorm, scatter_to_map
from priorscope_detection.pillars import PillarGrid, collate_pillars, group_points

GRID = PillarGrid((-12.8, -6.4, -3, 12.8, 6.4, 1), (0.4, 0.4, 4))


def cloud(count, seed=0, spread=(14.0, 7.0, 2.0)):
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.randn(count, 3, generator=generator) * torch.tensor(spread) / 2
    return torch.cat([xyz, torch.rand(count, 1, generator=generator)], 1)


def by_dictionary(points, grid, max_points, max_pillars):
    """The definition, point by point."""
    found: dict[tuple[int, ...], list[int]] = {}
    low, cell = torch.tensor(grid.extent[:3]), torch.tensor(grid.cell)
    for row, point in enumerate(points):
        if not torch.isfinite(point).all():
            continue
        at = torch.floor((point[:3] - low) / cell)
        if any(not 0 <= v < n for v, n in zip(at.tolist(), grid.size, strict=True)):
            continue
        key = tuple(int(v) for v in at)
        if key not in found and len(found) == max_pillars:
            continue
        members = found.setdefault(key, [])
        if len(members) < max_points:
            members.append(row)
    return found


def test_golden_det_pillars(golden_files, read_json):
    for path in golden_files("robotics_detection", "det_pillars.safetensors"):
        tensors, notes = load_file(path), read_json(path.with_suffix(".json"))
        tolerance = notes["tol"]
        for name, case in notes["config"].items():
            grid = PillarGrid(tuple(case["range"]), tuple(case["voxel"]))
            assert list(grid.size) == case["grid_xyz"]
            found = group_points(
                tensors[f"{name}.points"], grid, max_points=case["max_points"], max_pillars=case["max_voxels"]
            )
            assert torch.equal(found.padded(), tensors[f"{name}.voxels"])
            assert torch.equal(found.coords[:, 1:].int(), tensors[f"{name}.coords_zyx"])
            assert torch.equal(found.counts.int(), tensors[f"{name}.num_points"])
            for kind, network in {
                "std": PillarVFE([16]),
                "two": PillarVFE([8, 16], use_absolute_xyz=False, with_distance=True),
            }.items():
                start = f"{name}.{kind}.w."
                weights = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
                network.load_state_dict(weights)
                features = network.eval()(found)
                torch.testing.assert_close(features, tensors[f"{name}.{kind}.pillar_features"], **tolerance)
                if kind == "std":
                    image = scatter_to_map(features, found)
                    assert list(image.shape) == tensors[f"{name}.std.spatial_shape"].tolist()
                    torch.testing.assert_close(image.sum(1), tensors[f"{name}.std.spatial_sum_c"], **tolerance)


@pytest.mark.parametrize("chunk", [37, 400, 10_000])
def test_grouping_is_what_a_dictionary_does(chunk):
    points = cloud(1500)
    points[5, 3] = math.nan
    points[7, 1] = math.inf
    points[9, 0] = 12.8  # the upper end lies outside
    points[11, :3] = torch.tensor([-12.8, -6.4, -3.0])
    for max_points, max_pillars in ((32, 5000), (3, 5000), (3, 100)):
        found = group_points(points, GRID, max_points=max_points, max_pillars=max_pillars, chunk=chunk)
        expected = by_dictionary(points, GRID, max_points, max_pillars)
        assert [tuple(at) for at in found.coords[:, [3, 2, 1]].tolist()] == list(expected)
        rows = [row for members in expected.values() for row in members]
        assert torch.equal(found.points, points[rows])
        assert found.counts.tolist() == [len(members) for members in expected.values()]
        assert torch.equal(found.pillar, torch.repeat_interleave(torch.arange(len(found)), found.counts))


def test_batch_norm_in_training_counts_absent_points():
    points = cloud(600, seed=3).double()  # doubles: the two sums are rounded differently
    found = group_points(points, GRID, max_points=8)
    torch.manual_seed(0)
    ours = PillarVFE([16]).double().train()
    layer = ours.pfn_layers[0]
    plain = nn.BatchNorm1d(16, eps=1e-3, momentum=0.01).double().train()
    rows = torch.zeros(len(found), 8, 10, dtype=torch.float64)
    place = torch.arange(len(found.points)) - (found.counts.cumsum(0) - found.counts)[found.pillar]
    rows[found.pillar, place] = ours.inputs(found)
    expected = torch.relu(plain(layer.linear(rows).flatten(0, 1))).view(len(found), 8, 16).amax(1)
    got = ours(found)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(layer.norm.running_mean, plain.running_mean)
    torch.testing.assert_close(layer.norm.running_var, plain.running_var)
    # and its gradient
    weights = torch.randn_like(got)
    first = torch.autograd.grad((got * weights).sum(), layer.linear.weight)[0]
    second = torch.autograd.grad((expected * weights).sum(), layer.linear.weight)[0]
    torch.testing.assert_close(first, second)


def test_weighted_batch_norm_is_batch_norm_of_repeated_rows():
    torch.manual_seed(0)
    rows, weight = torch.randn(20, 5, dtype=torch.float64), torch.randint(1, 6, (20,))
    ours, plain = WeightedBatchNorm(5).double(), nn.BatchNorm1d(5).double()
    expected = plain(rows.repeat_interleave(weight, 0))
    torch.testing.assert_close(ours(rows, weight.double()).repeat_interleave(weight, 0), expected)
    torch.testing.assert_close(ours.running_var, plain.running_var)


def test_clouds_of_one_batch_stay_apart():
    parts = [group_points(cloud(count, seed), GRID) for seed, count in enumerate((300, 0, 200))]
    batch = collate_pillars(parts)
    assert batch.clouds == 3
    torch.manual_seed(0)
    network = PillarVFE([8]).eval()
    image = scatter_to_map(network(batch), batch)
    assert image.shape == (3, 8, 32, 64)
    assert not image[1].any()
    for number in (0, 2):
        torch.testing.assert_close(image[number], scatter_to_map(network(parts[number]), parts[number])[0])
    with pytest.raises(InputError, match="different grids"):
        collate_pillars([parts[0], group_points(cloud(9), PillarGrid((0, 0, -3, 4, 4, 1), (0.4, 0.4, 4)))])


@pytest.mark.parametrize("points", [torch.zeros(0, 4), torch.full((5, 4), math.nan), torch.full((5, 4), 1e9)])
def test_empty_clouds(points):
    found = group_points(points, GRID)
    assert len(found) == 0
    assert found.padded().shape == (0, 32, 4)
    for mode in (True, False):
        image = scatter_to_map(PillarVFE([8]).train(mode)(found), found)
        assert image.shape == (1, 8, 32, 64)
        assert not image.any()


class Allocations(TorchDispatchMode):
    """Bytes of the largest tensor that an operation made anew."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() not in given:
                self.largest = max(self.largest, value.untyped_storage().nbytes())
        return out


def test_ten_million_points_need_bounded_memory():
    count = 10_000_000
    points = torch.empty(count, 4).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    points *= torch.tensor([12.0, 6.0, 1.0, 1.0])
    with Allocations() as made:
        found = group_points(points, GRID)
    assert found.counts.max() == 32
    assert 0 < len(found) <= 64 * 32
    assert 0 < made.largest < 4 * 2**20, "a tensor that grows with the cloud"


def test_ranges_that_do_not_fit():
    with pytest.raises(InputError, match=r"is 64\.500 cells.*End it at"):
        PillarGrid((-12.8, -6.4, -3, 13.0, 6.4, 1), (0.4, 0.4, 4))
    with pytest.raises(InputError, match=r"20 cells along x are not divisible .* stride of 8.*End the range at 9\.6 m"):
        PillarGrid((0, 0, -3, 8, 6.4, 1), (0.4, 0.4, 4)).check_stride(8)
    with pytest.raises(InputError, match=r"from 1\.0 to 1\.0"):
        PillarGrid((1, 0, 0, 1, 1, 1), (0.4, 0.4, 4))
    with pytest.raises(InputError, match="cells along x, y, z"):
        PillarGrid((-1e5, -1e5, 0, 1e5, 1e5, 1), (0.1, 0.1, 1))
    with pytest.raises(InputError, match="shape"):
        group_points(torch.zeros(5, 2), GRID)
    with pytest.raises(InputError, match="int64"):
        group_points(torch.zeros(5, 4, dtype=torch.int64), GRID)
    with pytest.raises(InputError, match="takes 4"):
        PillarVFE([8])(group_points(torch.zeros(5, 5), GRID))

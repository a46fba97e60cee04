"""Spectral entropy and mutual information: official values, and cases with a known answer."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from priorscope.errors import InputError
from priorscope.features.entropy import (
    binned_entropy,
    entry_entropy,
    kernel_matrix,
    median_distance,
    mutual_information,
    spectral_entropy,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_golden_dse(golden_files, read_json):
    for path in golden_files("features", "dse_dsmi*.safetensors"):
        stored, expected = load_file(path), read_json(path.with_suffix(".json"))["expected"]
        x, labels = stored["X"], stored["labels"]
        kernel = kernel_matrix(x, 3.0)[:30, :30]
        torch.testing.assert_close(kernel, stored["K_X_sigma3"], atol=1e-10, rtol=0)
        ours = {
            "dse.X.max_N50.seed0": spectral_entropy(x, sigma=10, max_points=50),
            "dsmi.X.labels.sigma3.0": mutual_information(x, labels, sigma=3),
            "dsmi.X.labels.sigma10.0": mutual_information(x, labels, sigma=10),
            "dsmi.X.labels.sigma3.t2.rep2.seed1": mutual_information(x, labels, sigma=3, power=2, repeats=2, seed=1),
            "dsmi.X.cont.n_clusters4.sigma3": mutual_information(x, stored["cont_bins"], sigma=3),
        }
        for name in ("X", "Z"):
            points = stored[name]
            for sigma in (1.0, 3.0, 10.0):
                for power in (1, 2, 5):
                    ours[f"dse.{name}.sigma{sigma}.t{power}"] = spectral_entropy(points, sigma=sigma, power=power)
            ours[f"dse_matrix_entry.{name}.sigma10"] = entry_entropy(points, sigma=10)
            ours[f"cse.{name}"] = binned_entropy(points)
            ours[f"ase_gauss.{name}"] = spectral_entropy(points, sigma=10, kernel="gaussian")
            ours[f"ase_gauss_aniso.{name}"] = spectral_entropy(points, sigma=10)
            ours[f"ase_knn10.{name}"] = spectral_entropy(points, kernel="neighbours")
        assert set(ours) == set(expected)
        for name, value in ours.items():
            assert value == pytest.approx(expected[name], abs=1e-8, rel=0), name


def test_points_far_apart_are_as_many_directions_and_equal_points_one():
    far = torch.eye(16) * 1000
    assert spectral_entropy(far, sigma=1.0) == pytest.approx(4, abs=1e-9)
    assert spectral_entropy(torch.ones(16, 3), sigma=1.0) == pytest.approx(0, abs=1e-9)
    clusters = torch.arange(4).repeat_interleave(5)[:, None] * 1000.0 + torch.zeros(20, 2)
    assert spectral_entropy(clusters, sigma=1.0) == pytest.approx(2, abs=1e-9)


def test_the_kernel_has_the_eigenvalues_of_the_random_walk():
    points = normal(20, 3)
    gauss = kernel_matrix(points, 0.7, "gaussian")
    walk = torch.linalg.eigvals(gauss / gauss.sum(1, keepdim=True)).real.sort().values
    torch.testing.assert_close(torch.linalg.eigvalsh(kernel_matrix(points, 0.7)), walk, atol=1e-10, rtol=0)


def test_the_median_width_makes_entropy_independent_of_scale_and_rotation():
    points = normal(60, 5)
    turn, _ = torch.linalg.qr(normal(5, 5, seed=1))
    reference = spectral_entropy(points)
    assert spectral_entropy(points * 37 + 5) == pytest.approx(reference, abs=1e-9)
    assert spectral_entropy(points @ turn) == pytest.approx(reference, abs=1e-9)
    assert spectral_entropy(points * 0.1, sigma=10.0) < 0.02  # a fixed width sees one point
    assert reference > 1
    distances = [float((points[i] - points[j]).norm()) for i in range(60) for j in range(i)]
    assert median_distance(points) == pytest.approx(sorted(distances)[(len(distances) - 1) // 2])


def test_mutual_information_of_separate_and_of_shuffled_classes():
    labels = torch.arange(4).repeat_interleave(10)
    points = labels[:, None] * 100.0 + 0.01 * normal(40, 2)
    assert mutual_information(points, labels, sigma=1.0) == pytest.approx(2, abs=0.3)
    shuffled = labels[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    assert abs(mutual_information(points, shuffled, sigma=1.0, repeats=20)) < 0.15
    assert mutual_information(points, torch.zeros(40, dtype=torch.int64), sigma=1.0) == pytest.approx(0, abs=1e-9)


def test_binned_entropy_counts_cells():
    points = torch.tensor([[0.0, 5.0], [1.0, 5.0], [0.1, 5.0], [0.9, 5.0]])
    assert binned_entropy(points) == pytest.approx(1)
    assert binned_entropy(points, bins=20) == pytest.approx(2)
    assert binned_entropy(points[:1].repeat(7, 1)) == pytest.approx(0, abs=1e-12)
    assert math.isfinite(entry_entropy(points))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: spectral_entropy(torch.zeros(0, 3)),
        lambda: spectral_entropy(torch.zeros(5)),
        lambda: spectral_entropy(torch.full((5, 2), torch.nan)),
        lambda: spectral_entropy(torch.zeros(5, 2)),  # no width
        lambda: spectral_entropy(normal(5, 2), sigma=-1.0),
        lambda: spectral_entropy(normal(5, 2), kernel="square"),
        lambda: spectral_entropy(normal(5, 2), kernel="neighbours"),
        lambda: spectral_entropy(normal(5, 2), max_points=1),
        lambda: binned_entropy(normal(5, 2), bins=0),
        lambda: mutual_information(normal(5, 2), torch.zeros(4, dtype=torch.int64)),
        lambda: mutual_information(normal(5, 2), torch.zeros(5)),
        lambda: mutual_information(normal(5, 2), torch.zeros(5, dtype=torch.int64), repeats=0),
    ],
)
def test_wrong_input(wrong):
    with pytest.raises(InputError):
        wrong()

"""Nearest neighbours, soft-argmax, joint PCA and fusion: against official outputs and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from priorscope.errors import InputError
from priorscope.features.correspondence import (
    at_pixels,
    descriptors,
    match_points,
    mutual_nearest,
    nearest,
    similarity,
    soft_argmax,
)
from priorscope.features.fusion import fuse, joint_pca, principal_components
from priorscope.features.letterbox import Letterbox, patch_centre, patch_of


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_golden_sddino(golden_files):
    fusions, preprocessings = 0, 0
    for path in golden_files("features", "sddino_*.safetensors"):
        stored = load_file(path)
        if "fused1" in stored:
            check_fusion(stored)
            fusions += 1
        else:
            check_preprocessing(stored)
            preprocessings += 1
    assert fusions
    assert preprocessings


def check_fusion(stored):
    levels = [[stored[f"f{image}.{level}"][0] for level in ("s3", "s4", "s5")] for image in (1, 2)]
    reduced = joint_pca(*levels, (8, 8, 8))
    official = [stored[f"copca{image}"][0] for image in (1, 2)]
    signs = torch.sign((reduced[0] * official[0]).sum((1, 2)) + (reduced[1] * official[1]).sum((1, 2)))
    for ours, theirs in zip(reduced, official, strict=True):
        torch.testing.assert_close(ours * signs[:, None, None], theirs, atol=1e-4, rtol=0)
    dino = [stored[f"dino{image}"][0, 0].T.reshape(12, 8, 8) for image in (1, 2)]
    fused = [descriptors(fuse(maps)) for maps in zip(reduced, dino, strict=True)]
    within = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(fused[0] @ fused[1].T / 2, stored["sim_cos"], **within)
    torch.testing.assert_close(similarity(*fused), stored["sim_cos"], **within)
    torch.testing.assert_close(similarity(*fused, "euclidean"), stored["sim_l2"], **within)
    torch.testing.assert_close(similarity(*map(descriptors, reduced)), stored["sim_sd_cos"], **within)
    clear = stored["nn_margin"] > 1e-4
    assert clear.sum() > 32
    for metric in ("euclidean", "cosine"):  # equal, since every fused vector has norm sqrt(2)
        assert torch.equal(nearest(*fused, metric=metric).indices[clear], stored["nn_l2"][clear])


def check_preprocessing(stored):
    points = stored["kps"].numpy()
    sizes = [name.split(".")[1] for name in stored if name.startswith("off.")]
    assert sizes
    for size in sizes:
        width, height = map(int, size.split("x"))
        box = Letterbox(width, height, 840)
        assert np.allclose([box.left, box.top, box.scale], stored[f"off.{size}"].numpy(), atol=1e-4, rtol=0)
        seen = points[:, 2] > 0
        placed = box.points(points[:, :2])
        assert np.allclose(placed[seen], stored[f"kps840.{size}"].numpy()[seen, :2], atol=1e-4, rtol=0)
        assert np.allclose(box.undo(placed), points[:, :2], atol=1e-5)
        if f"img.{size}" in stored:
            for edge in (0, 1):
                ours = Letterbox(width, height, 96).image(stored[f"img.{size}"].numpy(), edge=bool(edge))
                assert np.array_equal(ours, stored[f"resized96.{size}.edge{edge}"].numpy()), (size, edge)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("block", [1, 7, 100, 10**6])
def test_blocks_do_not_change_the_neighbours(metric, block):
    first, second = normal(6, 5, 4), normal(6, 3, 7, seed=1)
    values = similarity(descriptors(first), descriptors(second), metric)
    found = nearest(first, second, metric=metric, block=block)
    assert torch.equal(found.indices, values.argmax(1))
    torch.testing.assert_close(found.scores, values.amax(1), atol=1e-6, rtol=1e-6)
    pairs, score = mutual_nearest(first, second, metric=metric, block=block)
    brute = [(i, int(j)) for i, j in enumerate(values.argmax(1)) if int(values[:, j].argmax()) == i]
    assert pairs.tolist() == [list(pair) for pair in brute]
    torch.testing.assert_close(score, values[pairs[:, 0], pairs[:, 1]], atol=1e-6, rtol=1e-6)


def test_no_more_similarities_are_held_than_asked(monkeypatch):
    from priorscope.features import correspondence

    held = []

    compared = correspondence._compared

    def recording(*args):
        values = compared(*args)
        held.append(values.numel())
        return values

    monkeypatch.setattr(correspondence, "_compared", recording)
    nearest(normal(300, 8), normal(200, 8, seed=1), block=1000)
    mutual_nearest(normal(300, 8), normal(200, 8, seed=1), block=1000)
    assert max(held) == 1000
    assert sum(held) == 2 * 300 * 200


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_compared_in_single(dtype):
    first, second = normal(16, 8, 8).to(dtype), normal(16, 8, 8, seed=1).to(dtype)
    found, expected = nearest(first, second), nearest(first.float(), second.float())
    assert torch.equal(found.indices, expected.indices)
    assert found.scores.dtype == torch.float32
    assert torch.equal(nearest(first, second.double()).indices, expected.indices)
    points = torch.tensor([[2999.0, 1.0], [2001.0, 5.0]])  # of which neither dtype has the first
    sizes = (8, 3000), (8, 3000)
    alike = match_points(first, first, points, *sizes)
    assert torch.equal(alike.points, match_points(first.float(), first.float(), points, *sizes).points)
    assert (alike.scores > 0.999).all()
    assert not match_points(first * 0, second, points, *sizes).scores.any()


def test_a_permutation_is_found_again():
    features = normal(50, 8)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    pairs, score = mutual_nearest(features[order] * 3, features, block=64)
    assert torch.equal(pairs[:, 1], order)
    torch.testing.assert_close(score, torch.ones(50), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "target_size"), [((19, 30), (27, 14)), ((5, 6), (9, 4)), ((4, 3), (3, 2))])
def test_enlarging_the_similarity_is_enlarging_the_features(size, target_size):
    source, target = normal(7, 5, 6, dtype=torch.float64), normal(7, 9, 4, seed=1, dtype=torch.float64)
    points = torch.tensor([[0.0, 0.0], [2.5, 1.5], [size[1] - 1, size[0] - 1], [1e4, -3.0]])
    large = functional.interpolate(source[None], size, mode="bilinear", align_corners=False)[0]
    x = points[:, 0].round().long().clamp(0, size[1] - 1)
    y = points[:, 1].round().long().clamp(0, size[0] - 1)
    torch.testing.assert_close(at_pixels(source, points, size), large[:, y, x].T)
    candidates = functional.interpolate(target[None], target_size, mode="bilinear", align_corners=False)[0]
    values = similarity(large[:, y, x].T, descriptors(candidates))
    for block in (1, 50, 10**6):
        found = match_points(source, target, points, size, target_size, block=block)
        expected = values.argmax(1)
        assert found.points.tolist() == [[int(i) % target_size[1], int(i) // target_size[1]] for i in expected]
        torch.testing.assert_close(found.scores, values.amax(1))


def test_soft_argmax_of_a_gaussian_is_its_centre():
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    centre = torch.tensor([[20.3, 17.8], [24.0, 20.5]])
    maps = torch.stack([-((x - cx) ** 2 + (y - cy) ** 2) / 8 for cx, cy in centre])
    torch.testing.assert_close(soft_argmax(maps, temperature=1.0, radius=None), centre, atol=1e-3, rtol=0)
    torch.testing.assert_close(soft_argmax(maps, temperature=1e-4, radius=None)[0], torch.tensor([20.0, 18.0]))


def test_a_window_ignores_the_second_mode():
    maps = torch.zeros(1, 9, 30)
    maps[0, 4, 5], maps[0, 4, 25] = 1.0, 0.99
    torch.testing.assert_close(soft_argmax(maps, temperature=0.02, radius=3), torch.tensor([[5.0, 4.0]]))
    torn = soft_argmax(maps, temperature=0.02, radius=None)
    assert 8 < float(torn[0, 0]) < 20
    corner = torch.zeros(1, 4, 4)
    corner[0, 3, 3] = 1
    torch.testing.assert_close(soft_argmax(corner, temperature=0.01, radius=0), torch.tensor([[3.0, 3.0]]))


def test_match_points_refined_recovers_a_known_shift():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")

    def field(shift):
        return torch.stack([torch.sin((x - shift) * k + p) for k in (2, 3, 5) for p in (0, 1)] + [y, y**2, y * 0 + 1])

    points = torch.tensor([[64.0, 64.0], [100.0, 30.0]])
    found = match_points(field(0.0), field(0.1), points, (128, 128), (128, 128), refine=1e-4, radius=10)
    expected = points + torch.tensor([0.1 / 2 * 31 * 4, 0.0])
    assert float((found.points - expected).abs().max()) < 0.75
    whole = match_points(field(0.0), field(0.1), points, (128, 128), (128, 128))
    assert float((found.points - expected).norm()) <= float((whole.points - expected).norm()) + 0.1


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_principal_components_are_those_of_the_svd(shape):
    rows = normal(*shape, dtype=torch.float64)
    found = principal_components(rows, 4)
    centred = rows - rows.mean(0)
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    torch.testing.assert_close(found.abs(), (left * values)[:, :4].abs(), atol=1e-10, rtol=0)
    assert torch.equal(found, principal_components(rows.clone(), 4))
    largest = found.gather(0, found.abs().argmax(0, keepdim=True))
    assert (largest > 0).all()
    every = principal_components(rows, 45)
    assert every.shape == (shape[0], 45)
    torch.testing.assert_close(every @ every.T, centred @ centred.T, atol=1e-9, rtol=0)
    assert not every[:, 40:].any()


def test_joint_pca_of_images_of_two_sizes():
    first = [normal(5, 8, 6), normal(7, 4, 3, seed=1)]
    second = [normal(5, 10, 4, seed=2), normal(7, 5, 2, seed=3)]
    one, other = joint_pca(first, second, (3, 2))
    assert one.shape == (5, 8, 6)
    assert other.shape == (5, 10, 4)


def test_patches_and_their_centres():
    centres = patch_centre(np.arange(3600), 840, 60)
    assert np.array_equal(centres[[0, 1, 60]], [[6.5, 6.5], [20.5, 6.5], [6.5, 20.5]])
    assert np.array_equal(patch_of(centres, 840, 60), np.arange(3600))
    with pytest.raises(InputError, match="outside"):
        patch_of([[840.0, 3.0]], 840, 60)


def test_points_may_be_an_array_or_a_list():
    source, target, points = normal(3, 4, 4), normal(3, 5, 4, seed=1), torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    expected = match_points(source, target, points, (8, 8), (10, 8))
    for given in (points.numpy(), points.numpy().astype(int), points.tolist()):
        found = match_points(source, target, given, (8, 8), (10, 8))
        assert torch.equal(found.points, expected.points)
        assert torch.equal(found.scores, expected.scores)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda: nearest(torch.zeros(0, 3), normal(4, 3)), "shape"),
        (lambda: nearest(normal(4, 3), normal(4, 2)), "channels"),
        (lambda: nearest(torch.zeros(4, 3, dtype=torch.int64), normal(4, 3)), "dtype"),
        (lambda: nearest(normal(4, 3).fill_(float("nan")), normal(4, 3)), "NaN"),
        (lambda: nearest(normal(4, 3), normal(4, 3), metric="manhattan"), "metric"),
        (lambda: nearest(normal(4, 3), normal(4, 3), block=0), "block"),
        (lambda: match_points(normal(3, 4, 4), normal(3, 4, 4), normal(4, 3), (4, 4), (4, 4)), "points"),
        (lambda: match_points(normal(1, 3, 4, 4), normal(3, 4, 4), normal(4, 2), (4, 4), (4, 4)), "map of shape"),
        (lambda: match_points(normal(3, 4, 4), normal(3, 4, 4), normal(4, 2), (4, 4), (0, 4)), "sizes"),
        (lambda: match_points(normal(3, 4, 4), normal(2, 4, 4), normal(4, 2), (4, 4), (4, 4)), "channels"),
        (lambda: match_points(normal(3, 4, 4), normal(3, 4, 4), [["a", "b"]], (4, 4), (4, 4)), "points of type list"),
        (lambda: match_points(normal(3, 4, 4).numpy(), normal(3, 4, 4), normal(4, 2), (4, 4), (4, 4)), "type ndarray"),
        (lambda: nearest(normal(4, 3).numpy(), normal(4, 3)), "type ndarray"),
        (lambda: soft_argmax(normal(4, 4)), "shape"),
        (lambda: soft_argmax(normal(1, 4, 4), temperature=0.0), "temperature"),
        (lambda: soft_argmax(normal(1, 4, 4), temperature=float("nan")), "temperature"),
        (lambda: similarity(normal(4, 3), normal(4, 2)), "channels"),
        (lambda: principal_components(normal(1, 4), 2), "components"),
        (lambda: principal_components(normal(5, 4) / 0, 2), "NaN"),
        (lambda: joint_pca([normal(3, 4, 4)], [normal(2, 4, 4)], (2,)), "levels"),
        (lambda: joint_pca([normal(3, 4, 4)], [], (2,)), "levels"),
        (lambda: fuse([normal(3, 4, 4), normal(3, 4, 5)]), "one size"),
        (lambda: fuse([]), "weights"),
        (lambda: Letterbox(0, 4, 96), "picture"),
        (lambda: Letterbox(1000, 1, 96), "picture"),
        (lambda: Letterbox(4, 4, 96).image(np.zeros((5, 4, 3), np.uint8)), "announced"),
    ],
)
def test_wrong_input(wrong, word):
    with pytest.raises(InputError, match=word):
        wrong()

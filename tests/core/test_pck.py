"""Percentage of correct key points: the three official evaluations, run by our own parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope.errors import InputError
from priorscope.features.correspondence import descriptors, match_points, nearest
from priorscope.features.fusion import fuse
from priorscope.features.letterbox import Letterbox, patch_centre, patch_of
from priorscope.features.pck import correct, longer_side, macro_average, pck, pck_by_category, rescale_points


def test_golden_pck(golden_files, read_json):
    checks = {"pck_dift": check_dift, "pck_sddino": check_sddino, "pck_hyperfeatures": check_hyperfeatures}
    seen = set()
    for path in golden_files("features", "pck_*.safetensors"):
        kind = next(kind for kind in checks if path.name.startswith(kind))
        annotations = read_json(golden_files("features", "pck_dift_spair.json")[0])["annotations"]
        checks[kind](load_file(path), read_json(path.with_suffix(".json")), annotations)
        seen.add(kind)
    assert seen == set(checks)


def size_of(imsize):
    return imsize[1], imsize[0]


def check_dift(stored, golden, annotations):
    outcomes, categories = [], []
    for pair in annotations:
        source, target = (stored[f"feat.{pair[f'{side}_imname']}"][0] for side in ("src", "trg"))
        points = torch.tensor(pair["src_kps"], dtype=torch.float32)
        found = match_points(source, target, points, size_of(pair["src_imsize"]), size_of(pair["trg_imsize"]))
        outcomes.append(correct(found.points.numpy(), pair["trg_kps"], longer_side(pair["trg_bndbox"])))
        categories.append(pair["category"])
    table = pck_by_category(outcomes, categories, overall="All")
    for line in golden["printed"]:
        name, _, kind, _, number = line.split()
        value = table[name].per_image if kind == "image" else table[name].per_point
        assert f"{100 * value:.2f}" == number, line


def position_features(channels, side, seed, noise):
    """The golden case's recipe: smooth functions of the position, and noise."""
    axis = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    functions = [x, y, x * y, x**2, y**2, torch.sin(3 * x), torch.cos(3 * y), torch.sin(3 * y)]
    values = torch.zeros(channels, side, side)
    values[: len(functions)] = torch.stack(functions)
    return values + noise * torch.randn(values.shape, generator=torch.Generator().manual_seed(seed))


def check_sddino(stored, golden, annotations):
    cats = [pair for pair in annotations if pair["category"] == "cat"]
    assert len(cats) * 2 == len(golden["pairs"])
    used = stored["kps"].shape[1]
    outcomes = {0.10: [], 0.05: [], 0.01: []}
    for number, pair in enumerate(cats):
        places, seen, boxes = [], [], []
        for which, side in enumerate(("src", "trg")):
            width, height = pair[f"{side}_imsize"][:2]
            box, square = Letterbox(width, height, 840), np.zeros((used, 2), np.float32)
            ids = [int(name) for name in pair["kps_ids"]]
            square[ids] = box.points(pair[f"{side}_kps"], np.float32)
            assert np.allclose(square, stored["kps"][2 * number + which, :, :2].numpy(), atol=1e-4)
            places.append(square)
            seen.append(np.isin(np.arange(used), ids))
            boxes.append(box)
        size = longer_side(pair["trg_bndbox"]) * boxes[1].scale
        assert size == pytest.approx(float(stored["thresholds"][number]))
        maps = []
        for which in (0, 1):
            stable = position_features(24, 60, 50 + 2 * number + which, 0.02)
            dino = position_features(10, 60, 1000 + 2 * number + which + 1, 0.02)
            maps.append(descriptors(fuse([stable, dino])))
        index = patch_of(places[0], 840, 60)
        found = nearest(maps[0][index], maps[1], metric="euclidean").indices.numpy()
        assert np.array_equal(found, stored[f"nn.pair{number}"].numpy())
        visible = seen[0] & seen[1]
        for alpha, results in outcomes.items():
            predicted = patch_centre(found, 840, 60)[visible]
            results.append(correct(predicted, places[1][visible], size, alpha, strict=True))
    ours = [pck(results).per_point for results in outcomes.values()]
    assert np.allclose(ours, stored["pck_0.10_0.05_0.01"].numpy(), atol=1e-4)


def check_hyperfeatures(stored, golden, annotations):
    size = (64, 64)
    source, true = (stored[name].flip(1) for name in ("source_yx", "target_yx"))
    found = match_points(stored["A"][0], stored["B"][0], source, size, size).points
    assert torch.equal(found.flip(1).long(), stored["pred_yx"])
    distance = np.hypot(*(found.double() - true).T.numpy())
    assert np.allclose(distance, stored["dist"].numpy(), atol=1e-12)
    outcomes = [correct(found.numpy(), true.numpy(), side) for side in (max(size), longer_side((3, 5, 40, 61)))]
    assert np.array_equal(outcomes[0], stored["correct_img"].numpy())
    assert np.array_equal(outcomes[1], stored["correct_bbox"].numpy())
    assert [pck([outcome]).per_point for outcome in outcomes] == golden["pck"]
    # the stored factors, 64/375 and 64/500, tell the image's size
    rescaled = rescale_points(source.numpy(), (375, 500), size)
    assert np.allclose(rescaled[:, ::-1], stored["rescaled"].numpy(), atol=1e-12)


def test_strict_and_not_strict_differ_on_the_circle():
    predicted, true = [[3.0, 4.0], [3.0, 4.1]], [[0.0, 0.0], [0.0, 0.0]]
    assert correct(predicted, true, 50).tolist() == [True, False]
    assert correct(predicted, true, 50, strict=True).tolist() == [False, False]


def test_averages():
    pairs = [np.array([True, False, False, False]), np.array([True]), np.array([], bool), np.array([True, True])]
    table = pck_by_category(pairs, ["a", "a", "a", "b"])
    assert (table["a"].per_point, table["a"].per_image) == (0.4, 0.625)
    assert (table["all"].pairs, table["all"].points) == (3, 7)
    assert macro_average(table) == pytest.approx(0.7)
    assert macro_average(table, weights={"a": 3.0, "b": 1.0}) == pytest.approx(0.55)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: correct([[0, 0]], [[0, 0], [1, 1]], 10),
        lambda: correct([[np.nan, 0]], [[0, 0]], 10),
        lambda: correct([[0, 0]], [[0, 0]], 0),
        lambda: longer_side((5, 5, 5, 9)),
        lambda: pck([]),
        lambda: pck([np.array([], bool)]),
        lambda: pck_by_category([np.array([True])], []),
        lambda: pck_by_category([np.array([True])], ["all"]),
    ],
)
def test_wrong_input(wrong):
    with pytest.raises(InputError):
        wrong()

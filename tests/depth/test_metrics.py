"""Depth and normal metrics: the official numbers, hand-made cases, and what must be refused."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from priorscope.errors import InputError
from priorscope_depth.alignment import fit_affine, subsample_indices
from priorscope_depth.metrics import (
    DEPTH_METRICS,
    NORMAL_THRESHOLDS,
    angular_errors,
    depth_metrics,
    mean_over_images,
    normal_metrics,
)
from priorscope_depth.normals_data import OFFICIAL_PAD, centred_padding
from priorscope_depth.protocols import COMPATS, depth_protocol, kitti_benchmark_crop, region_box

OFFICIAL_NAMES = {
    "abs_relative_difference": "abs_rel",
    "squared_relative_difference": "sq_rel",
    "rmse_linear": "rmse",
    "rmse_log": "rmse_log",
    "log10": "log10",
    "delta1_acc": "delta1",
    "delta2_acc": "delta2",
    "delta3_acc": "delta3",
    "i_rmse": "i_rmse",
    "silog_rmse": "silog",
}
# golden/depth/README.md: metrics rtol 1e-5, tensors atol 1e-5
RTOL, ATOL = 1e-5, 1e-5


def test_golden_depth_metrics(golden_files, read_json):
    for path in golden_files("depth", "eval_metrics*.json"):
        golden = read_json(path)
        depth = load_file(path.with_name(path.stem.replace("metrics", "depth") + ".safetensors"))
        normals = load_file(path.with_name(path.stem.replace("metrics", "normals") + ".safetensors"))
        assert golden["cases"]
        for name, case in golden["cases"].items():
            _check_alignment(name, case, depth)
        _check_subsampling(golden["downscaler"], depth)
        for name, box in golden["crops"].items():
            _check_crop(name, box)
        edges = golden["valid_edges_nyu"]
        column = np.array(edges["depth"], dtype=np.float32)[:, None]
        inside = np.zeros((480, 640), dtype=np.float32)
        inside[45 : 45 + len(column), 41:42] = column
        found = depth_protocol("nyuv2").valid(inside)
        assert found[45 : 45 + len(column), 41].tolist() == edges["valid"]
        assert found.sum() == sum(edges["valid"])
        edges = golden["delta_edges"]
        metrics = depth_metrics(*(np.array(edges[k], dtype=np.float32) for k in ("pred", "gt")))
        assert (metrics["delta1"], metrics["delta2"]) == (edges["d1"], edges["d2"])
        for name, expected in golden["normals"].items():
            _check_normals(name, expected, normals)
        for size, sides in golden["padding"].items():
            height, width = map(int, size.split("x"))
            assert centred_padding(height, width) == tuple(sides[k] for k in "lrtb")
        np.testing.assert_allclose(OFFICIAL_PAD, golden["padding_values"], rtol=RTOL)


def _check_alignment(name, case, tensors):
    p, g, valid, align_mask = (tensors[f"{name}.{k}"] for k in ("pred", "gt", "valid", "align_mask"))
    official, space = COMPATS["lotus"], "disparity" if "disparity" in case["alignment"] else "depth"
    bounds = float(case["min_depth"]), float(case["max_depth"])
    options = {
        "max_res": case["alignment_max_res"],
        "subsampling": official.subsampling,
        "positive_only": official.positive_only,
    }
    fit = fit_affine(p, g, valid, space, **options, solver=official.solver)
    assert fit.space == space
    assert valid.sum() == case["n_valid"]
    if case["alignment_max_res"] is None:
        assert fit.pixels == align_mask.sum() == case["n_align"]
    np.testing.assert_allclose([fit.scale, fit.shift], [case["scale"], case["shift"]], rtol=RTOL, err_msg=name)
    final = fit.depth(p, *bounds)
    assert str(final.dtype) == case["aligned_dtype"]
    np.testing.assert_allclose(fit(p), tensors[f"{name}.aligned"], atol=ATOL, rtol=0, err_msg=name)
    np.testing.assert_allclose(final, tensors[f"{name}.depth_final"], atol=ATOL, rtol=0, err_msg=name)
    metrics = depth_metrics(final, g, valid)
    # our own solver gives the same metrics
    own = depth_metrics(fit_affine(p, g, valid, space, **options).depth(p, *bounds), g, valid)
    for official_name, value in case["metrics"].items():
        for solver, found in (("lstsq", metrics), ("normal", own)):
            np.testing.assert_allclose(
                found[OFFICIAL_NAMES[official_name]], value, rtol=RTOL, err_msg=f"{name} {official_name} {solver}"
            )


def _check_subsampling(case, tensors):
    image, expected = tensors["downscaler.in"], tensors["downscaler.out"]
    max_res = round(case["scale"] * max(image.shape))
    rows, columns = subsample_indices(*image.shape, max_res, "width")
    assert list(expected.shape) == case["out_shape"]
    np.testing.assert_array_equal(image[rows][:, columns], expected[0])


def _check_crop(name, expected):
    kind, size = name.rsplit(" ", 1)
    height, width = map(int, size.split("x"))
    if kind == "kitti_bm_crop":
        cropped = kitti_benchmark_crop(np.stack(np.mgrid[:height, :width], axis=-1))
        assert list(cropped.shape[:2]) == expected["out"][1:]
        assert cropped[0, 0].tolist() == expected["first"]
        return
    region = "nyu" if kind == "nyu eigen" else kind.split()[1]
    top, bottom, left, right = region_box(region, height, width)
    assert [top, bottom, left, right] == expected["rows"] + expected["cols"]
    assert (bottom - top) * (right - left) == expected["count"]


def _check_normals(name, expected, tensors):
    case, _, marigold = name.partition(".")
    p, n, m = tensors[f"{case}.pred"][0], tensors[f"{case}.gt"][0], tensors[f"{case}.mask"][0, 0]
    errors = angular_errors(p, n, m, precision=COMPATS["lotus"].normal_precision)
    np.testing.assert_allclose(errors, tensors[f"{case}.error_deg"][0, 0][m], atol=ATOL, rtol=0)
    found = normal_metrics(errors, digits=COMPATS["marigold"].normal_digits if marigold else None)
    official = ["mean", "median", "rmse", "a1", "a2", "a3", "a4", "a5"]
    ours = ["mean", "median", "rmse", *NORMAL_THRESHOLDS]
    if marigold:
        official = ["mean_angular_error", "median_angular_error"]
        official += [f"sub{k}_error" for k in ("5", "7_5", "11_25", "22_5", "30")]
        ours = ["mean", "median", *NORMAL_THRESHOLDS]
    assert set(official) == set(expected)
    for official_name, own_name in zip(official, ours, strict=True):
        np.testing.assert_allclose(found[own_name], expected[official_name], rtol=RTOL, err_msg=official_name)


def test_depth_metrics_by_hand():
    found = depth_metrics(np.array([[2.0, 2.0, 99.0]]), np.array([[1.0, 4.0, 1.0]]), np.array([[True, True, False]]))
    log2 = np.log(2)
    expected = {
        "abs_rel": (1 + 0.5) / 2,
        "sq_rel": (1 + 1) / 2,
        "rmse": np.sqrt((1 + 4) / 2),
        "rmse_log": log2,
        "log10": np.log10(2),
        "delta1": 0.0,
        "delta2": 0.0,
        "delta3": 0.0,
        "i_rmse": np.sqrt((0.25 + 0.0625) / 2),
        "silog": 100 * log2,
    }
    assert list(found) == list(DEPTH_METRICS)
    assert found == pytest.approx(expected)


def test_perfect_depth_scores_perfectly():
    depth = np.linspace(0.5, 9, 100, dtype=np.float32).reshape(10, 10)
    found = depth_metrics(depth, depth)
    assert [found[f"delta{k}"] for k in (1, 2, 3)] == [1.0, 1.0, 1.0]
    assert all(found[name] == 0 for name in DEPTH_METRICS if not name.startswith("delta"))


def test_metrics_of_a_large_image_do_not_depend_on_the_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 10, (30, 40))
    prediction = depth * rng.uniform(0.7, 1.4, depth.shape)
    whole = depth_metrics(prediction, depth)
    monkeypatch.setattr("priorscope_depth.metrics._PIECE", 97)
    assert depth_metrics(prediction, depth) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
@pytest.mark.parametrize("where", ["prediction", "ground truth"])
def test_depth_metrics_refuse_what_is_no_depth(bad, where):
    arrays = {"prediction": np.ones((2, 2)), "ground truth": np.ones((2, 2))}
    arrays[where][0, 1] = bad
    with pytest.raises(InputError, match=f"{where} is not a positive finite depth at 1 of 4"):
        depth_metrics(*arrays.values())
    mask = np.array([[True, False], [True, True]])
    assert depth_metrics(*arrays.values(), mask)["abs_rel"] == 0


def test_depth_metrics_refuse_wrong_shapes_and_empty_masks():
    with pytest.raises(InputError, match="one shape"):
        depth_metrics(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(InputError, match="one shape"):
        depth_metrics(np.ones((2, 2)), np.ones((2, 2)), np.ones((1, 2), bool))
    with pytest.raises(InputError, match="mask is empty"):
        depth_metrics(np.ones((2, 2)), np.ones((2, 2)), np.zeros((2, 2), bool))


def test_mean_over_images_is_unweighted():
    assert mean_over_images([{"a": 1.0, "b": 0.0}, {"a": 2.0, "b": 1.0}]) == {"a": 1.5, "b": 0.5}
    with pytest.raises(InputError, match="no image"):
        mean_over_images([])


def test_angular_errors_by_hand():
    truth = np.zeros((3, 1, 5))
    truth[2] = 1
    prediction = np.zeros((3, 1, 5))
    prediction[:, 0, 0] = (0, 0, 7)  # length does not matter
    prediction[:, 0, 1] = (0, 1, 1)
    prediction[:, 0, 2] = (1, 0, 0)
    prediction[:, 0, 3] = (0, 0, -1)
    prediction[:, 0, 4] = (0, 0, 0)
    mask = np.ones((1, 5), bool)
    np.testing.assert_allclose(angular_errors(prediction, truth, mask), [0, 45, 90, 180, 90], atol=1e-5)
    mask[0, 1:] = False
    assert angular_errors(prediction, truth, mask).shape == (1,)


def test_small_angles_need_float64():
    angle = np.deg2rad(0.01)
    truth, prediction = np.zeros((3, 1, 1)), np.zeros((3, 1, 1))
    truth[2], prediction[2], prediction[0] = 1, np.cos(angle), np.sin(angle)
    mask = np.ones((1, 1), bool)
    assert angular_errors(prediction, truth, mask)[0] == pytest.approx(0.01, rel=1e-4)
    assert angular_errors(prediction, truth, mask, precision="float32")[0] != pytest.approx(0.01, rel=1e-2)


def test_angular_errors_refuse_wrong_inputs():
    normals, mask = np.ones((3, 2, 2)), np.ones((2, 2), bool)
    with pytest.raises(InputError, match=r"\[3, H, W\]"):
        angular_errors(np.ones((2, 2, 3)), np.ones((2, 2, 3)), mask)
    with pytest.raises(InputError, match=r"\[3, H, W\]"):
        angular_errors(normals, normals, np.ones((2, 3), bool))
    broken = normals.copy()
    broken[1, 0, 0] = np.nan
    with pytest.raises(InputError, match="prediction is NaN or infinite at 1 of 4"):
        angular_errors(broken, normals, mask)
    with pytest.raises(InputError, match="ground truth is NaN"):
        angular_errors(normals, broken, mask)


@pytest.mark.parametrize("count", [1, 2, 7, 1000, 1001])
def test_pooled_normal_metrics_equal_numpy_on_the_joined_errors(count):
    rng = np.random.default_rng(count)
    errors = (180 * rng.uniform(size=count) ** 3).astype(np.float32)
    errors[: count // 3] = errors[0]  # ties
    pieces = np.array_split(errors, 3)
    found = normal_metrics(pieces)
    assert found["mean"] == pytest.approx(errors.mean(dtype=np.float64))
    assert found["median"] == np.median(errors.astype(np.float64))
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(errors.astype(np.float64) ** 2)))
    for name, threshold in NORMAL_THRESHOLDS.items():
        assert found[name] == pytest.approx(100 * np.mean(errors < threshold))
    assert normal_metrics(errors) == pytest.approx(found, rel=1e-9)


def test_pooling_is_not_the_mean_of_images():
    images = [np.zeros(99, np.float32), np.full(1, 50, np.float32)]
    assert normal_metrics(images)["mean"] == pytest.approx(0.5)
    assert mean_over_images([normal_metrics(e) for e in images])["mean"] == pytest.approx(25.0)


def test_thresholds_are_strict():
    found = normal_metrics(np.array([5.0, 4.99, 30.0, 29.9], np.float32))
    assert (found["below_5"], found["below_30"]) == (25.0, 75.0)


def test_normal_metrics_refuse_wrong_inputs():
    with pytest.raises(InputError, match="no pixel"):
        normal_metrics([np.zeros(0, np.float32)])
    with pytest.raises(InputError, match=r"0\.\.180"):
        normal_metrics(np.array([np.nan], np.float32))
    with pytest.raises(InputError, match=r"0\.\.180"):
        normal_metrics(np.array([-1.0], np.float32))
    with pytest.raises(InputError, match="several times"):
        normal_metrics(iter([np.zeros(3, np.float32)]))

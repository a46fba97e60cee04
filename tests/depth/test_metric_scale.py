"""Metres from known distances: exact where the prediction is affine, in its own space; one line for what is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from priorscope.cli import main
from priorscope.errors import InputError
from priorscope_depth.known_points import KnownPoints, parse_distances, points_file, read_points
from priorscope_depth.metric_scale import to_metric, within
from priorscope_depth.results import DepthResult

HEIGHT, WIDTH = 30, 40
TRUTH = np.linspace(1.0, 12.0, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)


def predicted(space):
    """A prediction in [0, 1] that is exactly affine in the truth of its space."""
    values = TRUTH if space == "depth" else 1 / TRUTH
    return DepthResult(((values - values.min()) / np.ptp(values)).astype(np.float32), space, model="exact")


def points(count=60, seed=0, outliers=0):
    rng = np.random.default_rng(seed)
    places = rng.choice(HEIGHT * WIDTH, count, replace=False)
    v, u = np.divmod(places, WIDTH)
    depth = TRUTH[v, u].copy()
    depth[:outliers] *= rng.uniform(1.5, 4.0, outliers)
    return KnownPoints(u.astype(float), v.astype(float), depth, "points.csv")


@pytest.mark.parametrize("space", ["depth", "disparity"])
def test_the_truth_comes_back_with_a_third_of_outliers(space):
    result = to_metric(predicted(space), points(outliers=20))
    np.testing.assert_allclose(result.values, TRUTH, rtol=1e-4)
    assert (result.space, result.scale) == ("depth", "metric")
    note = result.notes["metric_fit"]
    assert (note["space"], note["points"], note["inliers"]) == (space, 60, 40)
    assert note["median_relative_error"] < 1e-5
    assert note["scale"] == pytest.approx(np.ptp(TRUTH if space == "depth" else 1 / TRUTH), rel=1e-4)


@pytest.mark.parametrize("space", ["depth", "disparity"])
def test_two_distances(space):
    known = parse_distances([f"0,0,{TRUTH[0, 0]}", f"39.9,29.2,{TRUTH[29, 39]}"])
    np.testing.assert_allclose(to_metric(predicted(space), known).values, TRUTH, rtol=1e-4)


def test_beyond_the_horizon_is_infinite_and_masked():
    result = DepthResult(np.array([[0.0, 0.4, 1.0]], np.float32), "disparity", model="m")
    fitted = to_metric(result, parse_distances(["1,0,10", "2,0,1"]))  # disparity 1.5 p - 0.5
    assert fitted.values[0, 0] == np.inf
    np.testing.assert_allclose(fitted.values[0, 1:], [10, 1], rtol=1e-5)
    np.testing.assert_array_equal(within(fitted, 5.0), [[False, False, True]])
    assert within(result, 5.0).all()


def test_behind_the_camera_is_nothing():
    """A fitted depth of 0 or less is no depth of a micrometre."""
    result = DepthResult(np.array([[0.0, 0.5, 1.0]], np.float32), "depth", model="m")
    fitted = to_metric(result, parse_distances(["1,0,1", "2,0,3"]))  # depth 4 p - 1
    np.testing.assert_allclose(fitted.values, [[0, 1, 3]], atol=1e-5)
    np.testing.assert_array_equal(within(fitted, 5.0), [[False, True, True]])


def test_what_the_side_file_says_is_json():
    """A known distance beyond all bounds, whose fitted disparity is at infinity."""
    result = DepthResult(np.array([[1.0, 0.0]], np.float32), "disparity", model="m")
    note = to_metric(result, parse_distances(["0,0,1", "1,0,1e300"])).notes["metric_fit"]
    json.dumps(note, allow_nan=False)
    assert note["median_relative_error"] is None


def test_relative_uncertainty_is_not_kept_with_metres():
    spread = np.full(TRUTH.shape, 0.1, np.float32)
    relative = predicted("disparity")
    fitted = to_metric(DepthResult(relative.values, "disparity", uncertainty=spread, model="two"), points())
    assert fitted.uncertainty is None


def write(path, rows):
    path = path / "points"
    np.save(path.with_suffix(".npy"), rows)
    np.savez(path.with_suffix(".npz"), u=rows[:, 0], v=rows[:, 1], depth=rows[:, 2])
    np.savez(path.with_name("one.npz"), rows)
    path.with_suffix(".csv").write_text("u, v, depth\n" + "\n".join(f"{u},{v},{d}" for u, v, d in rows) + "\n")
    path.with_name("bare.csv").write_text("\n".join(f"{u},{v},{d}" for u, v, d in rows))
    sparse = np.zeros((HEIGHT, WIDTH), np.uint16)
    sparse[rows[:, 1].astype(int), rows[:, 0].astype(int)] = np.rint(rows[:, 2] * 256)
    Image.fromarray(sparse).save(path.with_suffix(".png"))


@pytest.mark.parametrize("name", ["points.npy", "points.npz", "one.npz", "points.csv", "bare.csv", "points.png"])
def test_file_formats(tmp_path, name):
    given = points(12)
    order = np.lexsort((given.u, given.v))
    rows = np.stack([given.u, given.v, given.depth], axis=1)[order]
    write(tmp_path, rows)
    read = read_points(tmp_path / name)
    got = np.stack([read.u, read.v, read.depth], axis=1)
    np.testing.assert_allclose(got, rows, atol=1 / 256 if name.endswith("png") else 1e-12)
    np.testing.assert_allclose(to_metric(predicted("depth"), read).values, TRUTH, rtol=5e-3)


def test_points_of_several_pictures_lie_in_a_folder_under_their_names(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("a.csv", "b/a.npy", "c.csv", "c.png"):
        (tmp_path / name).touch()
    assert points_file(tmp_path / "a.csv", "anything", 1) == tmp_path / "a.csv"
    assert points_file(tmp_path, "a", 2) == tmp_path / "a.csv"
    assert points_file(tmp_path, "b/a", 2) == tmp_path / "b/a.npy"
    for arguments, word in (
        ((tmp_path / "a.csv", "a", 2), "one file for 2 pictures"),
        ((tmp_path, "d", 1), "holds no files of points for the picture d"),
        ((tmp_path, "c", 1), "holds 2 files"),
        ((tmp_path / "x", "a", 1), "no such file or folder"),
    ):
        with pytest.raises(InputError, match=word):
            points_file(*arguments)


def bad_files(folder):
    np.save(folder / "shape.npy", np.zeros((5, 4)))
    np.save(folder / "nan.npy", np.array([[1, 1, 2.0], [2, 2, np.nan]]))
    np.save(folder / "zero.npy", np.array([[1, 1, 2.0], [2, 2, 0.0]]))
    np.save(folder / "outside.npy", np.array([[1, 1, 2.0], [40, 2, 3.0]]))
    np.save(folder / "equal.npy", np.array([[1, 1, 2.0], [20, 20, 2.0]]))
    np.save(folder / "single.npy", np.array([[1, 1, 2.0]]))
    np.save(folder / "reversed.npy", np.array([[0, 0, 9.0], [20, 15, 4.0], [39, 29, 1.0]]))
    np.savez(folder / "lengths.npz", u=np.ones(2), v=np.ones(3), depth=np.ones(2))
    Image.fromarray(np.full((HEIGHT, WIDTH), 9, np.uint8)).save(folder / "eight.png")
    Image.fromarray(np.full((HEIGHT, WIDTH + 1), 900, np.uint16)).save(folder / "size.png")
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(folder / "none.png")
    (folder / "text.csv").write_text("1,1,2\n2,far,3\n")
    (folder / "names.csv").write_text("depth,u,v\n1,1,2\n")
    (folder / "empty.csv").write_text("")
    (folder / "points.las").write_bytes(b"LASF")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("shape.npy", "(N, 3)"),
        ("nan.npy", "1 of 2 points have no positive, finite depth"),
        ("zero.npy", "1 of 2 points have no positive, finite depth"),
        ("outside.npy", "1 of 2 points lie outside the picture of 40 x 30 pixels, the first at u = 40"),
        ("equal.npy", "all known values at these places are equal"),
        ("single.npy", "at least 2"),
        ("reversed.npy", "negative scale"),
        ("lengths.npz", "different lengths"),
        ("eight.png", "16 bits"),
        ("size.png", "has 41 x 30 pixels, the picture 40 x 30"),
        ("none.png", "0 points"),
        ("text.csv", "row 2"),
        ("names.csv", "columns depth, u, v"),
        ("empty.csv", "no points"),
        ("points.las", ".las"),
        ("missing.csv", "no such file"),
        ("missing.npz", "no such file"),
    ],
)
def test_wrong_points_are_one_line(tmp_path, name, word):
    bad_files(tmp_path)
    with pytest.raises(InputError) as error:
        to_metric(predicted("depth"), read_points(tmp_path / name))
    assert word in str(error.value)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["1,2"], "not u,v,metres"),
        (["1,2,x"], "not u,v,metres"),
        (["1,2,3"], "need 2"),
        (["1,2,3", "4,5,-1"], "1 of 2"),
    ],
)
def test_wrong_distances(words, word):
    with pytest.raises(InputError, match=word):
        parse_distances(words)


def test_metric_results_and_constant_ones_cannot_be_fitted():
    with pytest.raises(InputError, match="metres already"):
        to_metric(DepthResult(TRUTH.astype(np.float32), "depth", "metric", model="pro"), points())
    flat = DepthResult(np.full((HEIGHT, WIDTH), 0.5, np.float32), "depth", model="flat")
    with pytest.raises(InputError, match="predicted values at these places are equal"):
        to_metric(flat, points())


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def fitting_points(model, picture):
    """What the model itself says at four corners and in the middle, as distances: its fit is known."""
    from priorscope.data import read_image
    from priorscope_depth.predictor import DepthPredictor

    values = DepthPredictor.from_pretrained(model, resolution=64, device="cpu")(read_image(picture), items=["photo"])
    order = np.argsort(values.values, axis=None)[[0, 300, 600, 900, -1]]
    v, u = np.divmod(order, WIDTH)
    return values.values, np.stack([u, v, 1 / (0.5 * values.values[v, u] + 0.05)], axis=1)


def test_command(tiny_model, tmp_path, picture, capsys):
    model = tiny_model("lotus-d", "lotus-depth-d-v2-0-disparity")
    values, rows = fitting_points(model, picture)
    np.save(tmp_path / "photo.npy", rows)
    words = ["depth", "predict", str(picture), "--model", str(model), "--resolution", "64", "--device", "cpu"]
    formats = ["--formats", "png", "npy", "npz", "colour", "ply"]
    out = tmp_path / "out"
    assert main([*words, "--out", str(out), *formats, "--lidar", str(tmp_path / "photo.npy")]) == 0
    depth = np.load(out / "photo_metric_depth.npy")
    np.testing.assert_allclose(depth, 1 / (0.5 * values + 0.05), rtol=1e-3)
    side = json.loads((out / "photo_metric_depth.json").read_text())
    assert (side["space"], side["scale"], side["unit"]) == ("depth", "metric", "m")
    assert side["metric_fit"]["space"] == "disparity"
    assert side["metric_fit"]["points"] == 5
    assert side["max_depth"] == 250
    png = np.asarray(Image.open(out / "photo_metric_depth.png"))
    np.testing.assert_allclose(png / 1000, depth, atol=1e-3)
    assert b"metric: metres" in (out / "photo_metric_depth.ply").read_bytes()[:1000]
    near, far = rows[-1], rows[0]
    typed = [f"{u:g},{v:g},{d}" for u, v, d in (near, far)]
    assert main([*words, "--out", str(tmp_path / "typed"), "--max-depth", "10", "--distances", *typed]) == 0
    again = np.load(tmp_path / "typed" / "photo_metric_depth.npy")
    shown = depth <= 10
    np.testing.assert_allclose(again[shown], depth[shown], rtol=1e-3)
    assert np.isnan(again[depth > 10.01]).all()
    capsys.readouterr()
    for extra, word in {
        ("--distances", "1,1,2", "900,1,3"): "outside the picture",
        ("--lidar", str(tmp_path / "photo.npy"), "--distances", "1,1,2", "2,2,3"): "both",
        ("--lidar", str(tmp_path / "no.npy")): "no such file",
        ("--distances", *typed, "--max-depth", "0"): "0",
    }.items():
        assert main([*words, "--out", str(tmp_path / "refused"), *extra]) == 2
        (line,) = [row for row in capsys.readouterr().err.splitlines() if row.startswith(("error: ", "failed: "))]
        assert word in line
        assert not (tmp_path / "refused").exists()

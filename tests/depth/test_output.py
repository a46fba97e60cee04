"""Results on disk: numbers come back, files say what they mean, points lie where the camera saw them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from priorscope.data import motorcycle, read_array
from priorscope.errors import InputError
from priorscope_depth.output import Meaning, to_colours, to_png_values, write_result
from priorscope_depth.point_cloud import DepthRange, intrinsics_from_fov, point_cloud, to_depth, write_ply


@pytest.fixture
def ramp():
    return np.linspace(0, 1, 5 * 7, dtype=np.float32).reshape(5, 7)


def written(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_format_of_disparity(tmp_path, ramp):
    valid = np.ones((5, 7), bool)
    valid[0, :3] = False
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    paths = write_result(
        tmp_path / "sub/x",
        ramp,
        Meaning("disparity", model="tiny"),
        formats=("png", "npy", "npz", "colour", "ply"),
        valid=valid,
        rgb=rgb,
    )
    assert [path.name for path in paths] == [
        "x_disparity.png",
        "x_disparity.npy",
        "x_disparity.npz",
        "x_disparity_colour.png",
        "x_disparity.ply",
        "x_disparity.json",
    ]
    assert written(tmp_path / "sub") == sorted(path.name for path in paths)
    png, npy, npz, colour, ply, side = paths
    pixels = read_array(png)
    assert pixels.dtype == np.uint16
    np.testing.assert_allclose(pixels[valid] / 65535, ramp[valid], atol=0.5 / 65535 + 1e-7)
    assert (pixels[~valid] == 0).all()
    np.testing.assert_array_equal(read_array(npy), np.where(valid, ramp, np.nan))
    np.testing.assert_array_equal(read_array(npz, key="values")[valid], ramp[valid])
    np.testing.assert_array_equal(read_array(npz, key="valid"), valid)
    assert read_array(colour).shape == (5, 7, 3)
    assert ply.read_bytes().count(b"affine-invariant: not metric") == 1
    said = json.loads(side.read_text())
    assert said["space"] == "disparity"
    assert said["scale"] == "affine-invariant"
    assert said["unit"] is None
    assert "larger = nearer" in said["convention"]
    assert said["model"] == "tiny"
    assert said["size"] == {"height": 5, "width": 7}
    assert said["valid_pixels"] == 32
    assert {note["name"] for note in said["files"].values()} | {"x_disparity.json"} == set(written(tmp_path / "sub"))
    with np.load(npz, allow_pickle=False) as arrays:
        assert json.loads(str(arrays["meaning"]))["space"] == "disparity"


@pytest.mark.parametrize(("steps", "farthest"), [(1000, 65.5), (256, 255.9)])
def test_metric_png(tmp_path, steps, farthest):
    depth = np.array([[0.0002, 1.2345, farthest, 3.0]], np.float32)
    valid = np.array([[True, True, True, False]])
    png, side = write_result(
        tmp_path / "x", depth, Meaning("depth", "metric"), formats=("png",), valid=valid, steps_per_metre=steps
    )
    pixels = read_array(png)
    np.testing.assert_allclose(pixels[valid] / steps, depth[valid], atol=1 / steps)
    np.testing.assert_array_equal(pixels > 0, valid)  # 0 means none, so no valid pixel may be 0
    assert f"pixel / {steps}" in json.loads(side.read_text())["files"]["png"]["decoding"]


def test_metric_depth_beyond_sixteen_bits_is_refused_before_anything_is_written(tmp_path):
    far = np.array([[1.0, 80.0]], np.float32)
    with pytest.raises(InputError, match=r"80\.0 m.*256 steps"):
        write_result(tmp_path / "x", far, Meaning("depth", "metric"), formats=("npy", "png"))
    assert written(tmp_path) == []


def test_normals(tmp_path):
    normals = np.random.default_rng(0).normal(size=(6, 5, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    valid = np.ones((6, 5), bool)
    valid[2] = False
    frame = "x left, y up, z towards the viewer"
    png, npy, side = write_result(tmp_path / "x", normals, Meaning("normals", frame=frame), valid=valid)
    pixels = np.asarray(Image.open(png))
    np.testing.assert_allclose(pixels[valid] / 127.5 - 1, normals[valid], atol=0.5 / 127.5 + 1e-6)
    assert (pixels[~valid] == 0).all()
    assert np.isnan(read_array(npy)[2]).all()
    assert frame in json.loads(side.read_text())["convention"]
    with pytest.raises(InputError, match="no point cloud"):
        write_result(tmp_path / "y", normals, Meaning("normals"), formats=("ply",))


def test_near_is_warm_for_depth_and_disparity(ramp):
    for space, near, far in (("depth", (0, 0), (4, 6)), ("disparity", (4, 6), (0, 0))):
        picture = to_colours(ramp, Meaning(space)).astype(int)
        assert picture[near][0] > picture[near][2] + 50  # red over blue
        assert picture[far][2] > picture[far][0] + 50


def test_half_precision(tmp_path, ramp):
    path, _ = write_result(tmp_path / "x", ramp, Meaning("depth"), formats=("npz",), half_precision=True)
    values = read_array(path, key="values")
    assert values.dtype == np.float16
    np.testing.assert_allclose(values, ramp, rtol=1 / 2048)
    with pytest.raises(InputError, match="float16"):
        write_result(tmp_path / "y", ramp * 1e5, Meaning("depth", "metric"), formats=("npz",), half_precision=True)


def test_nothing_is_overwritten_silently(tmp_path, ramp):
    write_result(tmp_path / "x", ramp, Meaning("depth"), formats=("npy",))
    before = written(tmp_path)
    with pytest.raises(InputError, match="exists already"):
        write_result(tmp_path / "x", ramp * 0, Meaning("depth"), formats=("png", "npy"))
    assert written(tmp_path) == before
    np.testing.assert_array_equal(read_array(tmp_path / "x_depth.npy"), ramp)
    write_result(tmp_path / "x", ramp * 0, Meaning("depth"), formats=("npy",), overwrite=True)
    assert read_array(tmp_path / "x_depth.npy").max() == 0


@pytest.mark.parametrize(
    ("values", "meaning", "said"),
    [
        (np.full((3, 3), np.nan), Meaning("depth"), "9 NaN"),
        (np.full((3, 3), 1.5), Meaning("depth"), r"\[0, 1\]"),
        (np.full((3, 3), -1.0), Meaning("disparity", "metric"), "not negative"),
        (np.full((3, 3, 3), 2.0), Meaning("normals"), r"\[-1, 1\]"),
        (np.zeros((3, 3)), Meaning("normals"), r"\[H, W, 3\]"),
        (np.zeros((3, 3, 3)), Meaning("depth"), r"\[H, W\]"),
        (np.zeros((0, 3)), Meaning("depth"), r"\[H, W\]"),
        (np.zeros((3, 3), np.uint8), Meaning("depth"), "uint8"),
    ],
)
def test_wrong_maps(tmp_path, values, meaning, said):
    with pytest.raises(InputError, match=said):
        write_result(tmp_path / "x", values, meaning)
    assert written(tmp_path) == []


def test_wrong_words(tmp_path, ramp):
    for make in (lambda: Meaning("distance"), lambda: Meaning("depth", "relative"), lambda: DepthRange(5, 2)):
        with pytest.raises(InputError):
            make()
    for formats in ((), ("tiff",)):
        with pytest.raises(InputError, match="Known: png"):
            write_result(tmp_path / "x", ramp, Meaning("depth"), formats=formats)
    with pytest.raises(InputError, match="mask"):
        to_png_values(ramp, Meaning("depth"), valid=np.ones((2, 2), bool))
    with pytest.raises(InputError, match="no customary PNG"):
        to_png_values(ramp, Meaning("disparity", "metric"))


def test_a_plane_back_projects_to_a_plane():
    """Depth of the plane n.P = d, computed ray by ray; its points must satisfy the equation again."""
    intrinsics = np.array([[80.0, 0, 31.0], [0, 75.0, 22.5], [0, 0, 1]])
    normal, distance = np.array([0.3, -0.4, 0.87]), -4.0  # frame: x right, y up, z towards the viewer
    rows, columns = np.indices((48, 64)) + 0.5
    rays = np.stack([(columns - 31.0) / 80.0, -(rows - 22.5) / 75.0, -np.ones_like(rows)], axis=2)
    depth = distance / (rays @ normal)
    valid = np.ones(depth.shape, bool)
    valid[:, 10] = False
    points, colours = point_cloud(depth, intrinsics, valid=valid)
    assert points.shape == colours.shape == (48 * 63, 3)
    np.testing.assert_allclose(points @ normal, distance, atol=1e-5)
    assert (points[:, 2] < 0).all()
    corner = points[0]
    assert corner[0] < 0 < corner[1]  # the first pixel is up left


def test_points_project_back_onto_their_pixels():
    sample = motorcycle()
    points, colours = point_cloud(sample.depth, sample.intrinsics, sample.left, sample.valid)
    assert len(points) == sample.valid.sum()
    projected = (points * (1, -1, -1)) @ sample.intrinsics.T
    rows, columns = np.nonzero(sample.valid)
    np.testing.assert_allclose(projected[:, 0] / projected[:, 2], columns + 0.5, atol=1e-3)
    np.testing.assert_allclose(projected[:, 1] / projected[:, 2], rows + 0.5, atol=1e-3)
    np.testing.assert_array_equal(colours, sample.left[sample.valid])


def test_holes_make_no_points():
    depth = np.array([[1.0, 0.0, np.nan, np.inf, -2.0]])
    points, _ = point_cloud(depth, intrinsics_from_fov(1, 5, 90))
    assert len(points) == 1


def test_field_of_view():
    intrinsics = intrinsics_from_fov(10, 200, 90)
    np.testing.assert_allclose(intrinsics, [[100, 0, 100], [0, 100, 5], [0, 0, 1]])
    for wrong in (0, 180, -5, float("nan")):
        with pytest.raises(InputError, match="field of view"):
            intrinsics_from_fov(10, 200, wrong)


def test_stretching_over_a_range():
    values = np.array([0, 0.5, 1])
    np.testing.assert_allclose(to_depth(values, disparity=False, depth_range=DepthRange(2, 8)), [2, 5, 8])
    np.testing.assert_allclose(to_depth(values, disparity=True, depth_range=DepthRange(2, 8)), [8, 3.2, 2], rtol=1e-6)


def test_ply_is_read_by_others(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 3)).astype(np.float32)
    colours = rng.integers(0, 256, (50, 3), dtype=np.uint8)
    path = write_ply(tmp_path / "a.ply", points, colours, comments=["a\nb", "é"])
    cloud = trimesh.load(path)
    np.testing.assert_array_equal(cloud.vertices, points)
    np.testing.assert_array_equal(cloud.visual.vertex_colors[:, :3], colours)
    header = path.read_bytes().split(b"end_header\n")[0]
    assert b"comment a b\n" in header
    assert len(path.read_bytes()) == len(header) + len(b"end_header\n") + 50 * 15
    with pytest.raises(InputError, match=r"\[N, 3\]"):
        write_ply(tmp_path / "b.ply", points, colours[:4])


def test_metric_ply_states_metres(tmp_path):
    sample = motorcycle()
    ply, _ = write_result(
        tmp_path / "m",
        sample.depth,
        Meaning("depth", "metric"),
        formats=("ply",),
        valid=sample.valid,
        rgb=sample.left,
        intrinsics=sample.intrinsics,
    )
    header = ply.read_bytes()[:400]
    assert b"metric: metres" in header
    assert b"affine" not in header
    assert f"element vertex {sample.valid.sum()}".encode() in header


def test_an_ensembles_spread_is_kept(tmp_path):
    values, spread = np.linspace(0, 1, 12).reshape(3, 4), np.full((3, 4), 0.25)
    paths = write_result(tmp_path / "a", values, Meaning("depth"), formats=["npz"], uncertainty=spread)
    with np.load(paths[0]) as stored:
        np.testing.assert_array_equal(stored["uncertainty"], spread.astype(np.float32))
    assert "uncertainty" in json.loads(paths[-1].read_text())["files"]["npz"]["decoding"]

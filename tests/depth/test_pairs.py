"""Training pairs: the public layouts in miniature, a user's folder, scenes, transforms, mixing."""

from __future__ import annotations

import csv
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from priorscope.data.arrays import write_npy, write_npz
from priorscope.data.images import write_png
from priorscope.errors import InputError
from priorscope_depth.output import Meaning, write_result
from priorscope_depth.pairs import mixture as mixture_module
from priorscope_depth.pairs.folder import FolderPairs
from priorscope_depth.pairs.hypersim import SPLIT_FILE, HypersimPairs, hypersim_view, planar_depth, without_holes
from priorscope_depth.pairs.maps import read_depth, read_normals
from priorscope_depth.pairs.mixture import Mixture
from priorscope_depth.pairs.normals import face_the_camera, flip_x, normals_from_depth, unit_or_zero
from priorscope_depth.pairs.pair import TrainingPair
from priorscope_depth.pairs.scenes import ScenePairs, StreamedScenes, scene_pair
from priorscope_depth.pairs.split import hold_out
from priorscope_depth.pairs.transform import kitti_crop, mirrored, shorter_side, to_view
from priorscope_depth.pairs.vkitti import INTRINSICS, VkittiPairs, vkitti_view
from priorscope_depth.scenes import HELD_OUT_SEED, render_scene, write_scenes
from priorscope_depth.targets import normalise_depth, truncated_disparity

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def scene():
    """A street: it has sky."""
    found = render_scene(5, height=HEIGHT, width=WIDTH, kind="street", supersample=2)
    assert 0.05 < found.valid.mean() < 0.95
    return found


@pytest.fixture(scope="module")
def room():
    found = render_scene(7, height=HEIGHT, width=WIDTH, kind="room")
    assert found.valid.all()
    return found


def check_contract(pair, *, normals=True):
    """What every source promises."""
    shape = pair.rgb.shape[:2]
    assert pair.rgb.dtype == np.uint8
    assert pair.rgb.shape == (*shape, 3)
    assert pair.depth.dtype == np.float32
    assert pair.depth.shape == pair.valid.shape == pair.sky.shape == shape
    assert pair.valid.dtype == pair.sky.dtype == bool
    assert np.isfinite(pair.depth).all()
    assert np.array_equal(pair.valid, pair.depth > 0)
    assert not (pair.valid & pair.sky).any()
    if normals:
        assert pair.normals.dtype == np.float32
        assert pair.normals.shape == (*shape, 3)
        length = np.linalg.norm(pair.normals, axis=-1)
        assert np.all((length == 0) | (np.abs(length - 1) < 1e-5))
    else:
        assert pair.normals is None


def degrees(first, second):
    return np.degrees(np.arccos(np.clip((first * second).sum(-1), -1, 1)))


# Hypersim


def write_hypersim_frame(folder, scene, name="ai_001_001", camera="cam_00", frame=0):
    """A scene as Hypersim stores it: distance to the camera's centre, float16."""
    import h5py

    images = folder / name / "images"
    preview, geometry = images / f"scene_{camera}_final_preview", images / f"scene_{camera}_geometry_hdf5"
    preview.mkdir(parents=True, exist_ok=True)
    geometry.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.rgb).save(preview / f"frame.{frame:04d}.tonemap.jpg", quality=95)
    stretch = 1 / planar_depth(np.ones(scene.depth.shape, np.float32), 886.81 * scene.depth.shape[1] / 1024)
    distance = np.where(scene.valid, scene.depth * stretch, np.nan)
    for kind, array in (("depth_meters", distance), ("normal_cam", scene.normals)):
        with h5py.File(geometry / f"frame.{frame:04d}.{kind}.hdf5", "w") as file:
            file.create_dataset("dataset", data=array.astype(np.float16))
    return images


def write_split(folder, rows):
    with open(folder / SPLIT_FILE, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["scene_name", "camera_name", "frame_id"]
            + ["included_in_public_release", "exclude_reason", "split_partition_name"]
        )
        writer.writerows(rows)


@pytest.fixture
def hypersim(tmp_path, scene, room):
    write_hypersim_frame(tmp_path, room, frame=0)
    write_hypersim_frame(tmp_path, scene, frame=12)
    write_hypersim_frame(tmp_path, room, name="ai_002_003", camera="cam_01", frame=3)
    return tmp_path


def test_hypersim_gives_planar_depth_and_normals_that_face_the_camera(hypersim, room):
    source = HypersimPairs(hypersim)
    assert [source.read(i).key for i in range(3)] == [
        "ai_001_001/cam_00/0000",
        "ai_001_001/cam_00/0012",
        "ai_002_003/cam_01/0003",
    ]
    pair = source.read(0)
    check_contract(pair)
    np.testing.assert_allclose(pair.depth, room.depth, rtol=1e-3)  # float16 has 11 bits
    assert np.abs(pair.rgb.astype(int) - room.rgb).mean() < 6  # JPEG
    # the room's camera has another focal length than Hypersim's, so that a wall seen edge on may turn
    same = degrees(pair.normals, room.normals) < 0.2
    assert same.mean() > 0.95
    assert np.array_equal(pair.normals, face_the_camera(pair.normals, pair.depth, 886.81 * WIDTH / 1024))


def test_hypersim_normals_that_face_away_are_turned(tmp_path, room):
    write_hypersim_frame(tmp_path, replace(room, normals=-room.normals))
    write_hypersim_frame(tmp_path, room, frame=1)
    source = HypersimPairs(tmp_path)
    turned, right = source.read(0).normals, source.read(1).normals
    assert (degrees(turned, right) < 0.1).mean() > 0.99


def test_hypersim_holes_are_unknown_and_not_sky(hypersim, scene):
    source = HypersimPairs(hypersim)
    pair = source.read(1)
    check_contract(pair)
    assert np.array_equal(pair.valid, scene.valid)
    assert not pair.sky.any()
    whole = without_holes(source)
    assert [whole.read(i).key for i in range(len(whole))] == ["ai_001_001/cam_00/0000", "ai_002_003/cam_01/0003"]


def test_hypersim_follows_the_official_split(hypersim):
    write_split(
        hypersim,
        [
            ["ai_001_001", "cam_00", "0", "True", "", "train"],
            ["ai_001_001", "cam_00", "12", "False", "broken", ""],
            ["ai_002_003", "cam_01", "3", "True", "", "val"],
            ["ai_009_009", "cam_00", "1", "True", "", "train"],  # not downloaded
        ],
    )
    assert [frame[0] for frame in HypersimPairs(hypersim).frames] == ["ai_001_001"]
    assert [frame[0] for frame in HypersimPairs(hypersim, "val").frames] == ["ai_002_003"]
    with pytest.raises(InputError, match="none of the split 'test'"):
        HypersimPairs(hypersim, "test")


def test_hypersim_says_what_is_wrong(hypersim, tmp_path_factory, room):
    with pytest.raises(InputError, match=SPLIT_FILE):
        HypersimPairs(hypersim, "val")
    with pytest.raises(InputError, match="no such folder"):
        HypersimPairs(hypersim / "nothing")
    with pytest.raises(InputError, match="holds no Hypersim frames"):
        HypersimPairs(tmp_path_factory.mktemp("empty"))
    source = HypersimPairs(hypersim)
    geometry = hypersim / "ai_001_001/images/scene_cam_00_geometry_hdf5"
    whole = (geometry / "frame.0000.depth_meters.hdf5").read_bytes()
    (geometry / "frame.0000.depth_meters.hdf5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="depth_meters"):
        source.read(0)
    (geometry / "frame.0012.depth_meters.hdf5").unlink()
    with pytest.raises(InputError, match="is missing"):
        source.read(1)
    small = replace(room, depth=room.depth[:24], valid=room.valid[:24], normals=room.normals[:24])
    write_hypersim_frame(hypersim, small)
    with pytest.raises(InputError, match=r"has shape \[24, 64\]"):
        source.read(0)
    (hypersim / SPLIT_FILE).write_text("scene,frame\nai_001_001,0\n")
    with pytest.raises(InputError, match="is not Hypersim's split"):
        HypersimPairs(hypersim)


# Virtual KITTI 2


def write_vkitti_frame(folder, scene, name="Scene02", condition="clone", camera=0, frame=0):
    frames = folder / name / condition / "frames"
    rgb, depth = frames / f"rgb/Camera_{camera}", frames / f"depth/Camera_{camera}"
    rgb.mkdir(parents=True, exist_ok=True)
    depth.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.rgb).save(rgb / f"rgb_{frame:05d}.jpg", quality=95)
    centimetres = np.where(scene.valid, np.minimum(scene.depth * 100, 65535), 65535).astype(np.uint16)
    Image.fromarray(centimetres).save(depth / f"depth_{frame:05d}.png")
    return frames


@pytest.fixture
def vkitti(tmp_path, scene):
    for camera in (0, 1):
        write_vkitti_frame(tmp_path, scene, camera=camera)
    write_vkitti_frame(tmp_path, scene, name="Scene20", condition="15-deg-left", frame=41)
    write_vkitti_frame(tmp_path, scene, name="Scene01")
    return tmp_path


def test_vkitti_gives_the_training_scenes_with_sky(vkitti, scene):
    source = VkittiPairs(vkitti)
    assert [source.read(i).key for i in range(len(source))] == [
        "Scene02/clone/frames/rgb/Camera_0/rgb_00000",
        "Scene02/clone/frames/rgb/Camera_1/rgb_00000",
        "Scene20/15-deg-left/frames/rgb/Camera_0/rgb_00041",
    ]
    pair = source.read(0)
    check_contract(pair, normals=False)
    near = scene.valid & (scene.depth < 79.9)
    assert np.array_equal(pair.valid, near | (scene.valid & (scene.depth < 80)))
    assert np.array_equal(pair.sky, ~pair.valid)
    np.testing.assert_allclose(pair.depth[near], scene.depth[near], atol=0.011)  # centimetres


def test_vkitti_normals_are_stored_with_x_left(vkitti, room):
    frames = write_vkitti_frame(vkitti, room, name="Scene06")
    coded = np.rint((flip_x(room.normals) + 1) / 2 * 255).astype(np.uint8)
    coded[:3] = 0
    write_png(frames / "normal/Camera_0/normal_00000.png", coded)
    source = VkittiPairs(vkitti, ("Scene06",), normals=True)
    pair = source.read(0)
    check_contract(pair)
    assert not pair.normals[:3].any()
    assert degrees(pair.normals, room.normals)[3:].max() < 0.6
    write_png(frames / "normal/Camera_0/normal_00000.png", coded[:40], overwrite=True)
    with pytest.raises(InputError, match=r"\[40, 64\]"):
        source.read(0)


def test_vkitti_normals_come_from_depth_where_none_are_stored(vkitti):
    pair = VkittiPairs(vkitti, normals=True).read(0)
    check_contract(pair)
    assert np.linalg.norm(pair.normals, axis=-1)[pair.valid].mean() > 0.5


def test_vkitti_says_what_is_wrong(vkitti):
    with pytest.raises(InputError, match="no such folder"):
        VkittiPairs(vkitti / "nothing")
    with pytest.raises(InputError, match="holds no frames of Scene18"):
        VkittiPairs(vkitti, ("Scene18",))
    source = VkittiPairs(vkitti)
    depth = vkitti / "Scene02/clone/frames/depth/Camera_0/depth_00000.png"
    depth.write_bytes(depth.read_bytes()[:60])
    with pytest.raises(InputError, match="truncated"):
        source.read(0)
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(depth)
    with pytest.raises(InputError, match="expected uint16"):
        source.read(0)
    depth.unlink()
    with pytest.raises(InputError, match=r"vkitti_2\.0\.3_depth\.tar"):
        source.read(0)


# normals from depth


def plane(normal, distance, height, width, intrinsics):
    """Depth of the plane whose points satisfy normal . p = -distance (x right, y up, z backwards)."""
    x = (np.arange(width) + 0.5 - intrinsics[0, 2]) / intrinsics[0, 0]
    y = -(np.arange(height) + 0.5 - intrinsics[1, 2]) / intrinsics[1, 1]
    rays = np.stack(np.broadcast_arrays(x, y[:, None], -1.0), -1)
    return (-distance / (rays @ normal)).astype(np.float32)


@pytest.mark.parametrize("normal", [(0, 0, 1), (0.3, 0.2, 0.9), (-0.5, 0.6, 0.6)])
def test_the_normal_of_a_tilted_plane(normal):
    normal = np.array(normal) / np.linalg.norm(normal)
    intrinsics = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
    depth = plane(normal, 4.0, 48, 64, intrinsics)
    assert depth.min() > 0
    found = normals_from_depth(depth, intrinsics)
    # seen at a grazing angle, depth changes by more than 5 % from pixel to pixel
    known = np.linalg.norm(found, axis=-1) > 0
    assert known.mean() > 0.8
    assert known.all() or normal[2] < 0.8
    assert degrees(found, normal)[known].max() < 0.05


def test_normals_keep_to_their_own_side_of_a_step():
    intrinsics = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
    left, right = np.array([0.6, 0, 0.8]), np.array([-0.6, 0, 0.8])
    depth = plane(left, 3.0, 48, 64, intrinsics)
    depth[:, 32:] = plane(right, 6.0, 48, 64, intrinsics)[:, 32:]
    depth[:10] = 0
    found = normals_from_depth(depth, intrinsics)
    assert degrees(found[10:, :32], left).max() < 0.1
    assert degrees(found[10:, 32:], right).max() < 0.1
    assert not found[:10].any()


def test_no_normal_without_neighbours_or_along_a_line():
    intrinsics = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
    depth = np.zeros((48, 64), np.float32)
    depth[20, 5:40] = 2.0  # one row fixes no plane
    depth[40, 50:52] = depth[41, 50] = 2.0  # two neighbours are too few
    assert not normals_from_depth(depth, intrinsics).any()
    depth[21, 5:40] = 2.0
    assert degrees(normals_from_depth(depth, intrinsics)[20:22, 5:40], np.array([0, 0, 1.0])).max() < 0.1


def test_normals_from_the_depth_of_a_scene_are_those_of_the_renderer():
    room = render_scene(7, height=120, width=160, kind="room")
    found = normals_from_depth(room.depth, room.intrinsics)
    angle = degrees(found, room.normals)[np.linalg.norm(found, axis=-1) > 0]
    assert np.median(angle) < 0.5
    assert (angle < 10).mean() > 0.75


def test_intrinsics_of_vkitti_are_centred():
    # (620.5, 187) counts pixels from 0, so it is the middle of 1242 x 375 pixels
    assert tuple(INTRINSICS[:2, 2]) == (1242 / 2, 375 / 2)


def test_unit_or_zero():
    vectors = np.array([[[0.8, 0, 0], [0, np.nan, 1], [0, 0, 0.1], [0, 0, -1]]], np.float32)
    assert unit_or_zero(vectors).tolist() == [[[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, -1]]]


# a folder of one's own


def write_pair(folder, name, scene, *, layout="folders", save=None):
    """Image and depth; ``save(path without suffix, depth)`` writes the depth, else 16-bit millimetres."""
    if layout == "folders":
        image, depth = folder / f"images/{name}.png", folder / f"depth/{name}"
    else:
        image, depth = folder / f"{name}.png", folder / f"{name}_depth"
    write_png(image, scene.rgb)
    if save is None:
        write_png(depth.with_name(depth.name + ".png"), np.rint(scene.depth * 1000).clip(0, 65535).astype(np.uint16))
    else:
        depth.parent.mkdir(parents=True, exist_ok=True)
        save(depth, scene.depth)


@pytest.mark.parametrize("layout", ["folders", "beside"])
def test_a_folder_of_pairs(tmp_path, room, layout):
    for name in ("b", "a", "more/c"):
        write_pair(tmp_path, name, room, layout=layout)
    source = FolderPairs(tmp_path)
    assert source.keys == ["a", "b", "more/c"]
    pair = source.read(2)
    check_contract(pair, normals=False)
    assert pair.key == "more/c"
    assert np.array_equal(pair.rgb, room.rgb)
    np.testing.assert_allclose(pair.depth, room.depth, atol=5.1e-4)
    assert not pair.sky.any()


def save_npy(path, depth):
    write_npy(path.with_name(path.name + ".npy"), depth)


def save_npz(path, depth):
    write_npz(path.with_name(path.name + ".npz"), {"depth": depth, "intrinsics": np.eye(3)})


def save_tiff(path, depth):
    Image.fromarray(depth.astype(np.float32)).save(path.with_name(path.name + ".tiff"))


def save_exr(path, depth):
    import OpenEXR

    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, {"Z": depth.astype(np.float32)}).write(
        str(path.with_name(path.name + ".exr"))
    )


def save_layers(path, depth):
    import OpenEXR

    channels = {"Z": depth.astype(np.float32), "RGB": np.zeros((*depth.shape, 3), np.float32)}
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, channels).write(str(path.with_name(path.name + ".exr")))


@pytest.mark.parametrize("save", [save_npy, save_npz, save_tiff, save_exr, save_layers])
def test_depth_in_floating_point_is_metres(tmp_path, scene, save):
    depth = scene.depth.copy()
    depth[0, :4] = np.nan, np.inf, -1, 0
    write_pair(tmp_path, "a", replace(scene, depth=depth), save=save)
    pair = FolderPairs(tmp_path, depth_scale=0.5).read(0)
    check_contract(pair, normals=False)
    expected = scene.depth.copy()
    expected[0, :4] = 0
    assert np.array_equal(pair.depth, expected)


def test_integer_depth_is_scaled_disparity_is_inverted(tmp_path, room):
    write_png(tmp_path / "images/a.png", room.rgb)
    write_png(tmp_path / "depth/a.png", np.rint(room.depth * 256).astype(np.uint16))
    np.testing.assert_allclose(FolderPairs(tmp_path, depth_scale=1 / 256).read(0).depth, room.depth, atol=2.1e-3)
    disparity = (1 / room.depth).astype(np.float32)
    disparity[5, 5] = 0
    (tmp_path / "depth/a.png").unlink()
    write_npy(tmp_path / "depth/a.npy", disparity)
    given = FolderPairs(tmp_path, disparity=True).read(0)
    (tmp_path / "depth").rename(tmp_path / "disparity")
    by_name = FolderPairs(tmp_path).read(0)
    for pair in (given, by_name):
        check_contract(pair, normals=False)
        assert pair.depth[5, 5] == 0
        np.testing.assert_allclose(pair.depth[6:], room.depth[6:], rtol=1e-5)


def test_the_most_exact_file_is_read_and_pictures_for_the_eye_are_passed_over(tmp_path, room):
    write_png(tmp_path / "a.png", room.rgb)
    write_result(tmp_path / "a", room.depth, Meaning("depth", "metric"), formats=("png", "npy", "colour"))
    source = FolderPairs(tmp_path)
    assert len(source) == 1
    assert source.depths[0].name == "a_depth.npy"
    assert np.array_equal(source.read(0).depth, room.depth)


@pytest.mark.parametrize("steps", [1000, 256])
def test_the_side_file_tells_the_scale(tmp_path, room, steps):
    write_result(tmp_path / "a", room.depth, Meaning("depth", "metric"), formats=("png",), steps_per_metre=steps)
    np.testing.assert_allclose(read_depth(tmp_path / "a_depth.png", scale=7.0), room.depth, atol=0.51 / steps)


def test_the_side_file_and_the_npz_tell_disparity_and_the_mask(tmp_path, scene):
    disparity = np.where(scene.valid, 1 / np.where(scene.valid, scene.depth, 1), 0.01).astype(np.float32)
    meaning = Meaning("disparity", "metric")
    write_result(tmp_path / "a", disparity, meaning, valid=scene.valid, formats=("npy", "npz"))
    for suffix in ("npy", "npz"):
        found = read_depth(tmp_path / f"a_disparity.{suffix}")
        np.testing.assert_allclose(found, scene.depth, rtol=1e-5)
    (tmp_path / "a_disparity.json").unlink()  # the .npz carries its own description
    np.testing.assert_allclose(read_depth(tmp_path / "a_disparity.npz"), scene.depth, rtol=1e-5)


def test_predictions_without_a_scale_are_refused(tmp_path, room):
    values = (room.depth - room.depth.min()) / np.ptp(room.depth)
    write_result(tmp_path / "a", values, Meaning("depth"), formats=("png", "npz"))
    with pytest.raises(InputError, match="a factor and an offset only"):
        read_depth(tmp_path / "a_depth.png")
    (tmp_path / "a_depth.json").unlink()
    with pytest.raises(InputError, match="a factor and an offset only"):
        read_depth(tmp_path / "a_depth.npz")
    write_result(tmp_path / "a", room.normals, Meaning("normals"), formats=("npy",))
    with pytest.raises(InputError, match="holds normals"):
        read_depth(tmp_path / "a_normals.npy")


def test_a_damaged_side_file_is_not_passed_over(tmp_path, room):
    write_result(tmp_path / "a", room.depth, Meaning("depth", "metric"), formats=("png",), steps_per_metre=256)
    side = tmp_path / "a_depth.json"
    text = side.read_text()
    side.write_text(text[:40])
    with pytest.raises(InputError, match="no readable JSON"):
        read_depth(tmp_path / "a_depth.png")
    side.write_text(json.dumps({"exposure": 0.01}))  # somebody else's
    np.testing.assert_allclose(read_depth(tmp_path / "a_depth.png", scale=1 / 256), room.depth, atol=2.1e-3)
    side.write_text(json.dumps({"space": "depth", "scale": "metric"}))
    with pytest.raises(InputError, match="how many steps"):
        read_depth(tmp_path / "a_depth.png")


def test_depth_of_another_size_but_the_same_field_of_view(tmp_path, room):
    write_pair(tmp_path, "half", room, save=lambda path, depth: save_npy(path, depth[::2, ::2]))
    write_pair(tmp_path, "twice", room, save=lambda path, depth: save_npy(path, depth.repeat(2, 0).repeat(2, 1)))
    write_pair(tmp_path, "uneven", room, save=lambda path, depth: save_npy(path, np.full((60, 80), 3, np.float32)))
    write_pair(tmp_path, "wrong", room, save=lambda path, depth: save_npy(path, depth[:, :-1]))
    source = FolderPairs(tmp_path)
    half, twice, uneven = (source.read(index) for index in range(3))
    assert np.array_equal(half.depth, room.depth[::2, ::2].repeat(2, 0).repeat(2, 1))
    assert np.array_equal(twice.depth, room.depth)
    assert np.array_equal(uneven.depth, np.full((HEIGHT, WIDTH), 3, np.float32))
    with pytest.raises(InputError, match="not the same field of view"):
        source.read(3)


def test_files_without_a_partner_are_named(tmp_path, room):
    for name in ("a", "b"):
        write_pair(tmp_path, name, room)
    (tmp_path / "depth/a.png").unlink()
    with pytest.raises(InputError, match="1 of 2 images have no depth: a"):
        FolderPairs(tmp_path)
    (tmp_path / "images/a.png").unlink()
    write_png(tmp_path / "depth/left.png", np.ones((4, 4), np.uint16))
    with pytest.raises(InputError, match="1 files of depth have no image: left"):
        FolderPairs(tmp_path)
    (tmp_path / "depth/left.png").unlink()
    write_png(tmp_path / "images/c.png", room.rgb)
    write_png(tmp_path / "depth/c.png", np.ones((HEIGHT, WIDTH), np.uint16))
    write_png(tmp_path / "normals/c.png", np.full((HEIGHT, WIDTH, 3), 200, np.uint8))
    with pytest.raises(InputError, match="1 of 2 images have no normals: b"):
        FolderPairs(tmp_path)


def test_a_folder_without_pairs_says_how_it_should_look(tmp_path, room):
    with pytest.raises(InputError, match="no such folder"):
        FolderPairs(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"holds no image.*NAME_depth\.png"):
        FolderPairs(tmp_path)
    write_pair(tmp_path, "a", room)
    Image.fromarray(room.rgb).save(tmp_path / "images/a.jpg")
    with pytest.raises(InputError, match="have one name"):
        FolderPairs(tmp_path)
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="depth_scale"):
            FolderPairs(tmp_path, depth_scale=scale)


@pytest.mark.parametrize("values", [np.full((4, 4), np.nan), np.zeros((4, 4)), np.full((4, 4), -np.inf)])
def test_depth_without_a_valid_pixel_is_refused(tmp_path, values):
    write_npy(tmp_path / "a.npy", values)
    for disparity in (False, True):
        with pytest.raises(InputError, match="no pixel with depth"):
            read_depth(tmp_path / "a.npy", disparity=disparity)


def test_files_that_hold_no_depth_are_refused(tmp_path, room):
    write_png(tmp_path / "eight.png", np.full((4, 4), 9, np.uint8))
    write_png(tmp_path / "colour.png", room.rgb)
    write_npy(tmp_path / "mask.npy", np.ones((4, 4), bool))
    write_npy(tmp_path / "video.npy", np.ones((2, 4, 4)))
    write_npz(tmp_path / "several.npz", {"left": np.ones((4, 4)), "right": np.ones((4, 4))})
    write_npz(tmp_path / "masked.npz", {"depth": np.ones((4, 4)), "valid": np.ones((4, 5), bool)})
    for name in ("cut.npy", "cut.npz", "cut.png", "cut.tiff", "cut.exr"):
        (tmp_path / name).write_bytes(b"not at all")
    (tmp_path / "empty.png").write_bytes(b"")
    expected = {
        "eight.png": "has 8 bits",
        "colour.png": "depth has",
        "mask.npy": "real numbers",
        "video.npy": "depth has",
        "several.npz": "holds 2 arrays",
        "masked.npz": "its mask",
        "cut.npy": "cut.npy",
        "cut.npz": "no .npz file",
        "cut.png": "no PNG",
        "cut.tiff": "no TIFF",
        "cut.exr": "no EXR",
        "empty.png": "is empty",
        "absent.npy": "no such file",
    }
    for name, words in expected.items():
        with pytest.raises(InputError, match=words):
            read_depth(tmp_path / name)
    assert read_depth(tmp_path / "eight.png", scale=1.0, disparity=True)[0, 0] == np.float32(1 / 9)


def test_grey_saved_as_colour_is_depth(tmp_path):
    write_npy(tmp_path / "a.npy", np.full((4, 5, 3), 2.5, np.float32))
    assert np.array_equal(read_depth(tmp_path / "a.npy"), np.full((4, 5), 2.5, np.float32))


def test_pictures_stored_turned_are_refused(tmp_path, room):
    write_pair(tmp_path, "a", room)
    (tmp_path / "images/a.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(room.rgb).save(tmp_path / "images/a.jpg", exif=exif)
    with pytest.raises(InputError, match="EXIF orientation 6"):
        FolderPairs(tmp_path).read(0)


def test_real_frames_of_kitti_are_a_folder_of_pairs(shared_data):
    source = FolderPairs(shared_data("depth") / "kitti_raw", depth_scale=1 / 256)
    assert source.keys == ["0000000005", "0000000100"]
    for index in range(2):
        pair = source.read(index)
        check_contract(pair, normals=False)
        assert 0.1 < pair.valid.mean() < 0.5  # LiDAR
        assert 1 < pair.depth[pair.valid].min() < pair.depth.max() < 90  # metres


@pytest.mark.parametrize("kind", ["png", "npy", "planes"])
@pytest.mark.parametrize("x", ["right", "left"])
def test_normals_in_a_folder(tmp_path, scene, kind, x):
    write_pair(tmp_path, "a", scene)
    stored = scene.normals if x == "right" else flip_x(scene.normals)
    if kind == "png":
        write_result(tmp_path / "a", stored, Meaning("normals"), valid=scene.valid, formats=("png",))
        (tmp_path / "normals").mkdir()
        (tmp_path / "a_normals.png").rename(tmp_path / "normals/a.png")
    else:
        write_npy(tmp_path / "normals/a.npy", stored if kind == "npy" else np.moveaxis(stored, -1, 0))
    pair = FolderPairs(tmp_path, normals_x=x).read(0)
    check_contract(pair)
    assert degrees(pair.normals, scene.normals)[scene.valid].max() < 0.6
    assert not pair.normals[~scene.valid].any()


def test_normals_that_are_none_are_refused(tmp_path, room):
    write_npy(tmp_path / "lotus.npy", (room.normals + 1) / 2)
    with pytest.raises(InputError, match=r"2 n - 1"):
        read_normals(tmp_path / "lotus.npy")
    write_npy(tmp_path / "none.npy", np.full((4, 4, 3), np.nan))
    with pytest.raises(InputError, match="no pixel with a normal"):
        read_normals(tmp_path / "none.npy")
    write_npy(tmp_path / "flat.npy", np.ones((4, 4)))
    write_npy(tmp_path / "whole.npy", np.ones((4, 4, 3), int))
    for name in ("flat.npy", "whole.npy"):
        with pytest.raises(InputError, match="8-bit colour or floating point"):
            read_normals(tmp_path / name)


# scenes


def test_stored_and_streamed_scenes_are_the_same_pairs(tmp_path):
    write_scenes(tmp_path / "scenes", [3, 4], height=24, width=32, progress=False)
    stored, streamed = ScenePairs(tmp_path / "scenes"), StreamedScenes(2, 3, height=24, width=32)
    assert len(stored) == len(streamed) == 2
    for index in range(2):
        first, second = stored.read(index), streamed.read(index)
        check_contract(first)
        check_contract(second)
        assert first.key == second.key == str(3 + index)
        assert np.array_equal(first.rgb, second.rgb)
        assert np.array_equal(first.sky, second.sky)
        np.testing.assert_allclose(first.depth, second.depth, rtol=1e-3)
        assert degrees(first.normals, second.normals)[first.valid].max() < 0.6


def test_held_out_scenes_are_not_trained_on(tmp_path):
    write_scenes(tmp_path / "scenes", [HELD_OUT_SEED], height=16, width=16, progress=False)
    with pytest.raises(InputError, match="held-out"):
        ScenePairs(tmp_path / "scenes")
    for count, first in ((0, 0), (1, -1), (2, HELD_OUT_SEED - 1)):
        with pytest.raises(InputError, match="Use seeds"):
            StreamedScenes(count, first)
    with pytest.raises(IndexError):
        StreamedScenes(1).read(1)


def test_sources_are_picklable(tmp_path, hypersim, scene):
    write_pair(tmp_path / "own", "a", scene)
    write_vkitti_frame(tmp_path / "vkitti", scene)
    write_scenes(tmp_path / "scenes", [3], height=24, width=32, progress=False)
    sources = [
        HypersimPairs(hypersim),
        VkittiPairs(tmp_path / "vkitti"),
        FolderPairs(tmp_path / "own"),
        ScenePairs(tmp_path / "scenes"),
        StreamedScenes(1, 3, height=24, width=32),
    ]
    for source in sources:
        copy = pickle.loads(pickle.dumps(source))
        assert copy.name == source.name
        assert np.array_equal(copy.read(0).depth, source.read(0).depth)


# transforms


def pair_of(scene):
    return scene_pair(scene)


def test_the_shorter_side_is_resized_and_truth_is_never_mixed(scene):
    pair = shorter_side(pair_of(scene), 36)
    check_contract(pair)
    assert pair.rgb.shape == (36, 48, 3)
    expected = torch.nn.functional.interpolate(torch.from_numpy(scene.depth)[None, None], (36, 48), mode="nearest")
    assert np.array_equal(pair.depth, expected[0, 0])
    assert np.isin(pair.depth, scene.depth).all()
    upright = TrainingPair(
        *(np.zeros((50, 33, *s), t) for s, t in (((3,), "u1"), ((), "f4"), ((), "?"), ((), "?"))), None, ""
    )
    assert shorter_side(upright, 20).rgb.shape == (30, 20, 3)  # 30.3 rows


def test_the_kitti_crop_is_at_the_bottom_and_centred(scene):
    pair = pair_of(scene)
    cropped = kitti_crop(pair, (20, 41))
    check_contract(cropped)
    assert np.array_equal(cropped.depth, pair.depth[28:, 11:52])
    assert np.array_equal(cropped.rgb, pair.rgb[28:, 11:52])
    enlarged = kitti_crop(pair, (60, 70))
    check_contract(enlarged)
    assert enlarged.rgb.shape == (60, 70, 3)


def test_a_mirrored_scene_has_mirrored_normals():
    """A wall whose normal points to the right points to the left in the mirror."""
    intrinsics = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
    normal = np.array([0.6, 0.0, 0.8])
    depth = plane(normal, 4.0, 48, 64, intrinsics)
    pair = TrainingPair(
        np.zeros((48, 64, 3), np.uint8), depth, depth > 0, depth <= 0, normals_from_depth(depth, intrinsics), ""
    )
    turned = mirrored(pair)
    check_contract(turned)
    assert degrees(turned.normals, normals_from_depth(turned.depth, intrinsics)).max() < 0.05
    again = mirrored(turned)
    assert np.array_equal(again.normals, pair.normals)
    assert np.array_equal(again.depth, pair.depth)


def test_views_are_pairs_mirrored_half_of_the_time(scene):
    pair = pair_of(scene)
    seen = set()
    for seed in range(12):
        view = to_view(pair, np.random.default_rng(seed))
        turned = not torch.equal(view.depth, torch.from_numpy(pair.depth))
        expected = mirrored(pair) if turned else pair
        seen.add(turned)
        assert np.array_equal(view.depth, expected.depth)
        assert np.array_equal(view.sky, expected.sky)
        assert np.array_equal(view.normals, np.moveaxis(expected.normals, -1, 0))
        assert np.array_equal(np.rint(view.image.numpy() * 255), np.moveaxis(expected.rgb, -1, 0))
    assert seen == {False, True}
    bare = to_view(replace(pair, normals=None), np.random.default_rng(0))
    assert not bare.normals.any()


def test_the_published_views_have_the_published_sizes(scene):
    pair = pair_of(scene)
    assert hypersim_view(pair, np.random.default_rng(0)).image.shape == (3, 576, 768)
    assert vkitti_view(pair, np.random.default_rng(0)).image.shape == (3, 352, 1216)


# targets


def test_quantiles_over_valid_pixels_ignore_the_others():
    depth = torch.linspace(1, 10, 60).reshape(1, 6, 10)
    holes = depth.clone()
    holes[:, :3] = 0
    counts = holes > 0
    whole, some = normalise_depth(depth[:, 3:], "truncnorm"), normalise_depth(holes, "truncnorm", counts=counts)
    torch.testing.assert_close(some[:, :, 3:], whole)
    everything = normalise_depth(holes, "truncnorm")
    assert not torch.allclose(everything[:, :, 3:], whole)


def test_targets_lie_in_their_range_even_without_any_truth():
    empty = torch.zeros(2, 4, 5)
    for norm in ("instnorm", "truncnorm", "perscene", "disparity", "trunc_disparity"):
        target = normalise_depth(empty, norm, counts=empty > 0)
        assert target.shape == (2, 1, 4, 5)
        assert torch.isfinite(target).all()
        assert target.abs().max() <= 1
    with pytest.raises(InputError, match="norm 'log'"):
        normalise_depth(empty, "log")
    with pytest.raises(InputError, match=r"\(B, H, W\)"):
        normalise_depth(empty[0])


def test_truncated_disparity_paints_near_bright_and_the_sky_black(scene):
    target = truncated_disparity(torch.from_numpy(scene.depth)[None])[0, 0].numpy()
    assert (target[~scene.valid] == -1).all()
    order = np.argsort(scene.depth[scene.valid])
    assert (np.diff(target[scene.valid][order]) <= 0).all()
    assert target.max() == 1


# mixing


class Numbers:
    """A source of ``size`` pairs that are never read."""

    def __init__(self, size, name="numbers"):
        self.size, self.name = size, name

    def __len__(self):
        return self.size

    def read(self, index):
        raise NotImplementedError


def test_every_source_goes_through_its_own_passes():
    mixture = Mixture([Numbers(12), Numbers(7)], [0.9, 0.1])
    items = {0: [], 1: []}
    for step in range(400):
        which, places = mixture.plan(3, step, 4)
        assert len(places) == 4
        items[which] += [(place.epoch, place.item) for place in places]
    for which, size in ((0, 12), (1, 7)):
        seen = items[which]
        passes = len(seen) // size
        for epoch in range(passes):
            assert sorted(seen[epoch * size : (epoch + 1) * size]) == [(epoch, item) for item in range(size)]
        assert [item for _, item in seen[:size]] != [item for _, item in seen[size : 2 * size]]
    assert 0.85 < len(items[0]) / 1600 < 0.95


def test_a_plan_depends_on_its_arguments_only():
    mixture = Mixture([Numbers(50), Numbers(20), Numbers(5)], [5, 3, 2])
    steps = [0, 1, 2, 1023, 1024, 1025, 3000]
    forwards = [mixture.plan(1, step, 4) for step in steps]
    for cache in (mixture_module._block, mixture_module._given_before):
        cache.cache_clear()
    copy = Mixture([Numbers(50), Numbers(20), Numbers(5)], [5, 3, 2])
    assert [copy.plan(1, step, 4) for step in reversed(steps)] == forwards[::-1]
    assert [mixture.plan(2, step, 4) for step in steps] != forwards


def test_blocks_of_choices_join():
    """No item is left out or repeated where a block of choices ends."""
    mixture = Mixture([Numbers(3000), Numbers(3000)], [0.7, 0.3])
    items = {0: [], 1: []}
    for step in range(2100):
        which, places = mixture.plan(0, step, 1)
        items[which] += [place.item for place in places]
    for seen in items.values():
        assert len(set(seen)) == len(seen)


def test_mixtures_that_cannot_be():
    for sources, shares in (
        ([], ()),
        ([Numbers(0)], ()),
        ([Numbers(3)], [0.5, 0.5]),
        ([Numbers(3), Numbers(3)], [1, 0]),
        ([Numbers(3), Numbers(3)], [1, float("nan")]),
        ([Numbers(3), Numbers(3)], [1, float("inf")]),
    ):
        with pytest.raises(InputError):
            Mixture(sources, shares)


def test_held_out_pairs_are_not_in_the_rest():
    class Named(Numbers):
        def read(self, index):
            blank = np.zeros((2, 2), np.float32)
            return TrainingPair(np.zeros((2, 2, 3), np.uint8), blank, blank > 0, blank > 0, None, str(index))

    rest, kept = hold_out(Named(40), 3, 0)
    keys = {pair.key for pair in kept}
    assert len(keys) == 3
    assert keys | {rest.read(index).key for index in range(len(rest))} == {str(index) for index in range(40)}
    assert len(rest) == 37
    few, none = hold_out(Named(5), 3, 0)
    assert len(few) == 5
    assert none == []

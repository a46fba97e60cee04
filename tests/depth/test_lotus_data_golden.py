"""Training data as Lotus' official loaders prepare it: Hypersim's transform and Virtual KITTI's item."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from priorscope_depth.pairs.hypersim import planar_depth
from priorscope_depth.pairs.normals import face_the_camera, flip_x
from priorscope_depth.pairs.pair import TrainingPair
from priorscope_depth.pairs.transform import kitti_crop, shorter_side
from priorscope_depth.targets import normalise_depth

CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture
def stored(golden_files):
    return load_file(golden_files("depth", "lotus_train.safetensors")[0])


def painted(array):
    """(H, W, 3) to Lotus' (3, H, W)."""
    return np.moveaxis(array, -1, 0)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("norm", ["instnorm", "truncnorm", "perscene_norm", "disparity", "trunc_disparity"])
def test_golden_lotus_train_data(stored, norm, align):
    """Hypersim: 18 pixels are to these miniatures what 576 are to the real images."""
    case = f"hs.{norm}.{align}"
    image, depth, normals = (stored[f"{case}.{name}"] for name in ("img", "depth", "normal"))
    turned = face_the_camera(normals, depth, 886.81) if align else normals
    assert (not align) or 0.1 < (turned != normals).any(-1).mean() < 0.9
    pair = shorter_side(TrainingPair(image, depth, depth > 0, depth <= 0, turned, "0"), 18)
    ours = normalise_depth(torch.from_numpy(pair.depth)[None], norm.removesuffix("_norm"), farthest=65.0)
    np.testing.assert_allclose(painted(pair.rgb) / 255 * 2 - 1, stored[f"{case}.o_img"], **CLOSE)
    np.testing.assert_allclose(ours[0].expand(3, -1, -1), stored[f"{case}.o_depth"], **CLOSE)
    # Lotus' models have x to the left
    np.testing.assert_allclose(painted(flip_x(pair.normals)), stored[f"{case}.o_normal"], **CLOSE)


def test_golden_lotus_train_data_distance_becomes_planar_depth(stored, golden_files, read_json):
    figures = read_json(golden_files("depth", "lotus_train.json")[0])["hypersim_distance_to_depth"]
    depth = planar_depth(np.full(figures["size"], 3.0, dtype=np.float32), figures["focal"])
    np.testing.assert_allclose(depth[::32, ::32], stored["hypersim.plane_depth_of_dist3.sub32"], **CLOSE)
    assert depth[384, 512] == pytest.approx(figures["center"], abs=1e-5)
    assert depth[0, 0] == pytest.approx(figures["corner"], abs=1e-5)


@pytest.mark.parametrize("norm", ["truncnorm", "trunc_disparity"])
def test_golden_lotus_train_data_vkitti(stored, golden_files, read_json, norm):
    y, x = np.mgrid[:375, :1242]
    centimetres = (200 + (375 - y) * 15 + x * 0.5).astype(np.uint16)
    centimetres[:60] = 65535
    metres = centimetres.astype(np.float32) / 100
    valid, sky = (metres > 1e-5) & (metres < 80), metres >= 80
    rgb = np.stack([(7 * x + 3 * y) % 256, (x + 5 * y) % 256, (2 * x) % 256], -1).astype(np.uint8)
    coded = np.stack([(x // 3) % 256, (y // 2) % 256, np.full_like(x, 200)], -1).astype(np.float32)
    normals = flip_x(coded / 255 * 2 - 1)  # stored with x to the left
    depth = np.where(valid, metres, 0).astype(np.float32)
    pair = kitti_crop(TrainingPair(rgb, depth, valid, sky, normals, "0"))
    depth = pair.depth if "disparity" in norm else np.where(pair.sky, np.float32(1e4), pair.depth)
    ours = normalise_depth(torch.from_numpy(depth)[None], norm, counts=torch.from_numpy(pair.valid)[None])
    found = {
        "valid_mask_values": pair.valid[None].astype(np.float32),
        "sky_mask_values": pair.sky[None].astype(np.float32),
        "pixel_values": painted(pair.rgb) / np.float32(255) * 2 - 1,
        "depth_values": ours[0].expand(3, -1, -1).numpy(),
        "normal_values": painted(flip_x(pair.normals)),
    }
    figures = read_json(golden_files("depth", "lotus_train.json")[0])
    for name, array in found.items():
        about = figures[f"vk.{norm}.{name}"]
        assert list(array.shape) == about["shape"]
        np.testing.assert_allclose(array[:1, ::16, ::16], stored[f"vk.{norm}.{name}.sub"], **CLOSE)
        assert array.astype(np.float64).sum() == pytest.approx(about["sum"], rel=1e-5)

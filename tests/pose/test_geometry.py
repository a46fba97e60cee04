"""Boxes, matrices, crops and flips: what must hold whatever the official code does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope_pose.geometry import (
    POLICIES,
    apply,
    center_scale,
    check_boxes,
    classic_matrix,
    clip_boxes,
    crop_people,
    flip_back,
    flip_coordinates,
    invert,
    merge_flip,
    udp_matrix,
    usable_boxes,
    warp,
    xywh_to_xyxy,
    xyxy_to_xywh,
)

SIZE = (48, 64)


def test_box_layouts_and_clipping() -> None:
    xywh = [[10, 20, 30, 40], [-5, 0, 8, 7.5]]
    xyxy = xywh_to_xyxy(xywh)
    assert xyxy.tolist() == [[10, 20, 40, 60], [-5, 0, 3, 7.5]]
    assert xyxy_to_xywh(xyxy).tolist() == xywh
    assert clip_boxes([[-5, -6, 700, 30]], 640, 480).tolist() == [[0, 0, 639, 30]]
    assert xywh_to_xyxy([]).shape == (0, 4)


def test_region_is_the_padded_box_grown_to_the_aspect() -> None:
    # width 48 : height 64 = 0.75. A tall box keeps its height, a wide one its width.
    center, scale = center_scale([[0, 0, 10, 80], [20, 10, 80, 30]], SIZE)
    assert center.tolist() == [[5, 40], [50, 20]]
    assert scale.tolist() == [[75, 100], [75, 100]]
    _, tight = center_scale([[0, 0, 30, 40]], SIZE, padding=1)
    assert tight.tolist() == [[30, 40]]
    assert center.dtype == scale.dtype == np.float32


def test_unusable_boxes_are_told_apart_and_named() -> None:
    boxes = [[0, 0, 5, 5], [3, 3, 3, 9], [100, 0, 120, 9], [0, 0, np.nan, 2], [-9, -9, 0, 0], [-9, -9, 1, 1]]
    assert usable_boxes(boxes, 100, 50).tolist() == [True, False, False, False, False, True]
    assert check_boxes(boxes[:1], 100, 50).shape == (1, 4)
    for index, fact in ((1, "has no area"), (2, "outside the image of 100 x 50"), (3, "is not finite")):
        with pytest.raises(InputError, match=rf"box 1 \(.*{fact}"):
            check_boxes([boxes[0], boxes[index]], 100, 50)
    with pytest.raises(InputError, match=r"boxes of shape \[2, 3\]"):
        usable_boxes([[1, 2, 3], [4, 5, 6]], 100, 50)


def test_matrices_map_the_region_to_the_crop() -> None:
    center, scale = np.array([[30.0, 40.0], [10.0, -5.0]]), np.array([[60.0, 80.0], [30.0, 40.0]])
    corners = np.stack([center - scale / 2, center + scale / 2], 1)
    # Unbiased: the region's corners are the middles of the crop's corner pixels. Classic: they lie one pixel wider.
    np.testing.assert_allclose(apply(udp_matrix(center, scale, SIZE), corners), [[[0, 0], [47, 63]]] * 2, atol=1e-4)
    np.testing.assert_allclose(apply(classic_matrix(center, scale, SIZE), corners), [[[0, 0], [48, 64]]] * 2, atol=1e-4)
    for make, turned in ((udp_matrix, [0, 1]), (classic_matrix, [0, -1])):
        matrix = make(center[:1], [[60, 60]], (61, 61), 90)[0]
        direction = apply(matrix, center[:1] + [[1, 0]]) - apply(matrix, center[:1])
        np.testing.assert_allclose(direction[0] / np.linalg.norm(direction), turned, atol=1e-6)
        np.testing.assert_allclose(apply(matrix, center[:1])[0], [30, 30] if make is udp_matrix else [30.5] * 2)
    matrices = udp_matrix(center, scale, SIZE, [20, -100])
    np.testing.assert_allclose(apply(invert(matrices), apply(matrices, corners)), corners, atol=1e-9)


def test_identity_warp_copies_and_whole_pixel_shift_is_black_outside() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    still, moved = warp(image, [[[1, 0, 0], [0, 1, 0]], [[1, 0, 2], [0, 1, -3]]], (7, 9))
    assert np.array_equal(still, image)
    assert np.array_equal(moved[:6, 2:], image[3:, :5])
    assert not moved[6:].any()
    assert not moved[:, :2].any()


def test_separable_and_general_warp_agree() -> None:
    """A turn by 90 degrees mixes the directions, and must equal the upright warp of the turned image."""
    image = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    upright = np.array([[1.5, 0, 3], [0, 1.25, -2]])
    turned = upright @ np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    assert np.array_equal(*warp(image, [upright], (50, 44)), *warp(image.swapaxes(0, 1), [turned], (50, 44)))


@pytest.mark.parametrize("policy", POLICIES)
def test_points_come_back_to_the_image(policy: str) -> None:
    """A bright spot is where it was: found in the crop by its centre of mass and taken back to the image."""
    image = np.zeros((120, 160, 3), np.uint8)
    y, x = np.mgrid[:120, :160]
    spot = np.array([71.3, 52.6])
    image[:] = (255 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / 18))[..., None].round()
    crops = crop_people(image, [[50, 30, 96, 88]], (192, 256), policy)  # type: ignore[arg-type]
    assert (len(crops), crops.images.shape, crops.policy, crops.size) == (1, (1, 256, 192, 3), policy, (192, 256))
    mass = crops.images[0, ..., 0].astype(float)
    rows, columns = np.mgrid[:256, :192]
    pixel = np.array([(columns * mass).sum(), (rows * mass).sum()]) / mass.sum()
    size = np.array([192, 256])
    decoded = pixel if policy == "classic" else pixel * size / (size - 1)  # a codec's units
    np.testing.assert_allclose(crops.to_image(decoded[None, None])[0, 0], spot, atol=0.02)
    np.testing.assert_allclose(crops.to_image(torch.from_numpy(decoded)[None, None])[0, 0], spot, atol=0.02)
    if policy == "stretched":
        demo = crops.to_image(decoded[None, None], official=True)[0, 0]
        np.testing.assert_allclose(demo, [50, 30] + decoded * [46, 58] / size, atol=1e-6)
        assert 0.3 < np.abs(demo - spot).max() < 0.5
    with pytest.raises(InputError, match="for 1 crops"):
        crops.to_image(np.zeros((2, 1, 2)))


def test_stretched_shows_the_box_and_nothing_else() -> None:
    image = np.zeros((50, 60, 3), np.uint8)
    image[10:20, 5:45] = [200, 100, 50]
    crops = crop_people(image, [[5, 10, 45, 20], [-4.7, 12, 30, 19.9], [59.2, 30, 59.4, 49]], (48, 64), "stretched")
    assert (crops.images[0] == [200, 100, 50]).all()
    assert crops.center.tolist() == [[25, 15], [15, 15.5], [59.5, 39.5]]
    assert crops.scale.tolist() == [[40, 10], [30, 7], [1, 19]]


def test_stretched_is_opencvs_resize() -> None:
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(2).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    boxes = [[10, 20, 60, 85], [0, 0, 120, 90]]
    for size in ((192, 256), (30, 40)):
        crops = crop_people(image, boxes, size, "stretched")
        for crop, (x1, y1, x2, y2) in zip(crops.images, boxes, strict=True):
            official = cv2.resize(image[y1:y2, x1:x2], size, interpolation=cv2.INTER_LINEAR)
            assert np.abs(crop.astype(int) - official).max() <= 1


def test_no_person_and_bad_input() -> None:
    image = np.zeros((50, 60, 3), np.uint8)
    for policy in POLICIES:
        crops = crop_people(image, np.zeros((0, 4)), SIZE, policy)
        assert crops.images.shape == (0, 64, 48, 3)
        assert crops.to_image(np.zeros((0, 17, 2))).shape == (0, 17, 2)
    with pytest.raises(InputError, match="unknown crop policy 'squashed'"):
        crop_people(image, [[0, 0, 9, 9]], SIZE, "squashed")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="uint8"):
        crop_people(image[..., 0], [[0, 0, 9, 9]], SIZE)
    with pytest.raises(InputError, match="has no area"):
        crop_people(image, [[5, 5, 5, 9]], SIZE)
    with pytest.raises(InputError, match="4 channels"):
        warp(np.zeros((5, 5, 4), np.uint8), [[[1, 0, 0], [0, 1, 0]]], SIZE)


def test_box_across_the_border_is_padded_with_black() -> None:
    image = np.full((60, 60, 3), 255, np.uint8)
    crop = crop_people(image, [[-30, -40, 30, 40]], SIZE).images[0]
    assert not crop[:31, :].any()
    assert not crop[:, :23].any()
    assert (crop[33:, 25:] == 255).all()


def test_flip_back_undoes_mirroring() -> None:
    heatmaps = torch.rand(2, 3, 4, 5)
    mirrored = heatmaps[:, [0, 2, 1]].flip(-1)
    assert torch.equal(flip_back(mirrored, [0, 2, 1]), heatmaps)
    assert torch.equal(merge_flip(heatmaps, mirrored, (0, 2, 1)), heatmaps)
    shifted = flip_back(mirrored, [0, 2, 1], shift=True)
    assert torch.equal(shifted[..., 1:], heatmaps[..., :-1])
    assert torch.equal(shifted[..., 0], heatmaps[..., 0])
    points = torch.rand(2, 3, 2)
    there = flip_coordinates(points, [0, 2, 1])
    torch.testing.assert_close(flip_coordinates(there, [0, 2, 1]), points)
    for wrong in ([0, 1], [0, 1, 1], [1, 2, 3]):
        with pytest.raises(InputError, match="do not order 3 joints"):
            flip_back(heatmaps, wrong)

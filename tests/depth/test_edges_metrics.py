"""Edge metrics in cases that can be counted by hand, and exact edges of scenes made of two or three planes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from priorscope import InputError
from priorscope_depth.edges.metrics import edge_counts, edge_scores, match_edges
from priorscope_depth.edges.thinning import crispness, suppress
from priorscope_depth.edges.truth import scene_edges
from priorscope_depth.scenes import Scene, render_scene

SIZE = (60, 80)  # diagonal 100: the tolerance of 0.0075 is 0.75 pixels, that of 0.02 two pixels


def line(column=40, width=1, first=10, last=50):
    edges = np.zeros(SIZE, dtype=bool)
    edges[first:last, column : column + width] = True
    return edges


def test_a_perfect_map_scores_one():
    truth = line() | line(20)
    scores = edge_scores([truth.astype(float), line(30).astype(float)], [truth, line(30)])
    assert scores.ods == scores.ois == scores.ac == scores.precision == scores.recall == 1


def test_shifted_by_less_and_by_more_than_the_tolerance():
    truth = line()
    for shift, expected in ((1, 1.0), (2, 1.0), (3, 0.0)):
        scores = edge_scores([line(40 + shift).astype(float)], [truth], tolerance=0.02)
        assert (scores.ods, scores.ois) == (expected, expected)
    assert edge_scores([line(41).astype(float)], [truth]).ods == 0


def test_duplicates_are_penalised():
    """A line found three times over has one right pixel in three: P = 1/3, R = 1, F = 1/2."""
    thick, truth = line(39, 3, 0, 60), line(40, 1, 0, 60)
    scores = edge_scores([thick.astype(float)], [truth], processing="none", tolerance=0.02)
    assert scores.precision == pytest.approx(1 / 3)
    assert scores.recall == 1
    assert scores.ods == pytest.approx(0.5)
    assert scores.ac == pytest.approx(1 / 3)
    thinned = edge_scores([thick.astype(float)], [truth], tolerance=0.02)
    assert thinned.precision == thinned.recall == 1  # thinning forgives what the crispness shows
    assert thinned.ac == pytest.approx(1 / 3)


def test_one_pixel_pairs_with_one():
    """Two found pixels either side of a true one: one is right. A greedy choice would lose the second pair below."""
    found, truth = np.zeros(SIZE, dtype=bool), np.zeros(SIZE, dtype=bool)
    found[30, [39, 41]] = True
    truth[30, 40] = True
    assert [pair.sum() for pair in match_edges(found, truth, 1.0)] == [1, 1]
    # a - b - c - d in a row: b takes a or c, but d has only c; both pairs exist
    found[:], truth[:] = False, False
    truth[30, [10, 12]] = True
    found[30, [11, 13]] = True
    assert [pair.sum() for pair in match_edges(found, truth, 1.0)] == [2, 2]
    assert [pair.sum() for pair in match_edges(found, np.zeros_like(found), 1.0)] == [0, 0]


def test_the_radius_is_within():
    found, truth = np.zeros(SIZE, dtype=bool), np.zeros(SIZE, dtype=bool)
    found[10, 10] = truth[11, 11] = True
    assert match_edges(found, truth, math.sqrt(2))[0].sum() == 1
    assert match_edges(found, truth, math.sqrt(2) - 1e-6)[0].sum() == 0
    assert match_edges(found, found, 0.0)[0].sum() == 1


def test_thresholds_of_the_set_and_of_each_image():
    """Two images whose right line stands out at different strengths: one threshold cannot serve both."""
    truth = line()
    strong = truth * 0.9 + line(20) * 0.6
    weak = truth * 0.5 + line(20) * 0.2
    scores = edge_scores([strong, weak], [truth, truth], tolerance=0.02)
    assert scores.ois == 1
    # below 0.5: 2 right of 3 found, all recalled: F = 2 * 40 * 2 / (120 + 80); above 0.6: half is recalled, F = 2/3
    assert scores.ods == pytest.approx(0.8)
    assert scores.threshold <= 0.5


def test_several_annotators():
    """Right if anyone drew it; recall over all that was drawn."""
    counts = edge_counts(line().astype(float), [line(), line(20)], thresholds=3, tolerance=0.02)
    assert counts.found.tolist() == counts.paired_found.tolist() == [40] * 3
    assert counts.true.tolist() == [80] * 3
    assert counts.paired_true.tolist() == [40] * 3


@pytest.mark.parametrize("width", [1, 3, 5, 7])
def test_crispness_is_one_over_the_width(width):
    flat = line(36, width, 0, SIZE[0]).astype(float)
    assert crispness(flat) == pytest.approx(1 / width)
    assert (suppress(flat).sum(1) == 1).all()
    slanted = np.zeros(SIZE)
    for step in range(-(width // 2), width // 2 + 1):
        slanted[np.arange(60), np.clip(np.arange(60) + 10 + step, 0, 79)] = 1
    assert crispness(slanted) == pytest.approx(1 / width, abs=0.06)


@pytest.mark.parametrize("width", [2, 4, 8])
def test_two_middle_pixels_count_both(width):
    assert crispness(line(36, width, 0, SIZE[0]).astype(float)) == pytest.approx(2 / width)


@pytest.mark.parametrize("width", [9, 15, 31])
def test_the_flat_interior_of_a_wide_line_is_kept_and_thinned(width):
    """Nothing of it is a ridge; without its interior nothing would be left of the line."""
    wide, middle = line(20, width, 0, 60).astype(float), 20 + width // 2
    assert (np.flatnonzero(suppress(wide)[30]) == np.arange(23, 20 + width - 3)).all()
    assert crispness(wide) == pytest.approx((width - 6) / width)
    scores = edge_scores([wide], [line(middle, 1, 0, 60)])
    assert scores.precision == 1
    assert scores.recall == pytest.approx(1 - (width - 7) / 60, abs=0.02)  # thinning shortens both ends


def test_empty_maps():
    empty = np.zeros(SIZE)
    assert math.isnan(crispness(empty))
    scores = edge_scores([empty], [line()])
    assert scores.ods == scores.ois == 0
    assert math.isnan(scores.ac)


def test_mistakes():
    for values in (np.zeros((4, 4, 1)), np.zeros((4, 4), np.uint8), np.full((4, 4), 2.0), np.full((4, 4), np.nan)):
        with pytest.raises(InputError):
            crispness(values)
    with pytest.raises(InputError, match="one size"):
        edge_scores([np.zeros((4, 5))], [np.zeros((4, 4), dtype=bool)])
    with pytest.raises(InputError, match="truth"):
        edge_scores([np.zeros((4, 4))], [])
    with pytest.raises(InputError, match="tolerance"):
        match_edges(line(), line(), -1.0)
    with pytest.raises(InputError, match="processing"):
        edge_counts(np.zeros((4, 4)), np.zeros((4, 4), dtype=bool), processing="thin")


def planes(depth, normals, parts=None, valid=None):
    """A scene of given maps at 90 degrees of view."""
    height, width = depth.shape
    intrinsics = np.array([[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1.0]])
    valid = np.ones(depth.shape, dtype=bool) if valid is None else valid
    rgb = np.zeros((height, width, 3), np.uint8)
    return Scene(rgb, depth.astype(np.float32), normals.astype(np.float32), valid, intrinsics, "", 0, parts)


def facing(height, width):
    return np.broadcast_to(np.array([0.0, 0.0, 1.0]), (height, width, 3)).copy()


def test_a_step_is_marked_on_the_nearer_side():
    depth = np.full((20, 30), 2.0)
    depth[:, 12:20] = 1.5
    edges = scene_edges(planes(depth, facing(20, 30)))
    expected = np.zeros((20, 30), dtype=bool)
    expected[:, [12, 19]] = True
    np.testing.assert_array_equal(edges, expected)


def test_a_slanted_plane_has_no_edge():
    """Depth falls by 10 % from pixel to pixel, and still it is one plane."""
    height, width = 20, 40
    u = np.arange(width) + 0.5
    ray_x = (u - width / 2) / (width / 2)
    # the plane x = 1.2: depth = 1.2 / ray_x, on the right half of the picture
    depth = np.where(ray_x > 0.1, 1.2 / np.maximum(ray_x, 0.1), 0)[None].repeat(height, 0)
    normals = np.broadcast_to(np.array([-1.0, 0.0, 0.0]), (height, width, 3)).copy()
    edges = scene_edges(planes(depth, normals, valid=depth > 0))
    first = int(np.flatnonzero(ray_x > 0.1)[0])
    assert edges[:, first].all()  # where there begins to be depth
    assert not np.delete(edges, first, axis=1).any()


def test_a_crease_and_an_object():
    depth, normals = np.full((20, 30), 2.0), facing(20, 30)
    normals[:, 15:] = [math.sin(math.radians(40)), 0, math.cos(math.radians(40))]
    assert np.flatnonzero(scene_edges(planes(depth, normals), jump=1.0).all(0)).tolist() == [14]
    assert not scene_edges(planes(depth, normals), jump=1.0, crease=45).any()
    parts = np.zeros((20, 30), np.int32)
    parts[8:12, 8:12] = 1
    marked = scene_edges(planes(depth, facing(20, 30), parts))
    # equal depths: the upper or left pixel of each pair
    rim = np.zeros((20, 30), dtype=bool)
    rim[7, 8:12] = rim[11, 8:12] = rim[8:12, 7] = rim[8:12, 11] = True
    assert (marked <= rim).all()
    assert marked.sum() >= 12  # but for corners that thinning takes


def test_edges_of_a_drawn_scene():
    scene = render_scene(3, height=96, width=128, kind="clutter")
    edges = scene_edges(scene)
    assert 0.01 < edges.mean() < 0.4
    outlines = np.zeros_like(edges)
    assert scene.parts is not None
    outlines[:, :-1] |= scene.parts[:, :-1] != scene.parts[:, 1:]
    # every change of object has an edge near by
    near = binary_dilation(edges, iterations=2)
    assert near[outlines].mean() > 0.95  # thinning leaves a line of a tangle
    scores = edge_scores([edges.astype(float)], [edges])
    assert scores.precision == 1
    assert scores.recall > 0.9  # lines that nearly touch lose pixels to the suppression
    with pytest.raises(InputError):
        scene_edges(scene, jump=0)

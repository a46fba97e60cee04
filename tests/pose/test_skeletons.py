"""Key points of the data sets."""

from __future__ import annotations

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_pose.skeletons import SKELETONS, Skeleton, skeleton

STORED = {"coco": "coco", "coco_wholebody": "coco_wholebody", "humanart": "humanart", "posetrack18": "posetrack"}


@pytest.fixture(scope="module")
def metas(golden_files, read_json):
    return read_json(golden_files("pose", "keypoint_meta.json")[0])


@pytest.mark.parametrize("stored", STORED)
def test_skeleton_is_that_of_the_reference(metas, stored):
    meta, ours = metas[stored], SKELETONS[STORED[stored]]
    assert list(ours.keypoints) == meta["keypoint_names"]
    assert list(ours.flip_indices) == meta["flip_indices"]
    np.testing.assert_array_equal(np.float32(ours.sigmas), np.float32(meta["sigmas"]))
    np.testing.assert_array_equal(np.float32(ours.joint_weights), np.float32(meta["joint_weights"]))
    assert [list(edge) for edge in ours.edges] == meta["skeleton_links"]
    assert list(ours.parts["upper"]) == meta["upper_body_ids"]
    assert list(ours.parts["lower"]) == meta["lower_body_ids"]


@pytest.mark.parametrize("name", SKELETONS)
def test_skeleton_is_consistent(name):
    ours = SKELETONS[name]
    flip = np.array(ours.flip_indices)
    np.testing.assert_array_equal(flip[flip], np.arange(len(ours)))  # twice mirrored is as it was
    for here, there in zip(ours.keypoints, (ours.keypoints[i] for i in flip), strict=True):
        if here.startswith("left_"):
            assert there == here.replace("left_", "right_", 1)
    edges = {tuple(sorted(edge)) for edge in ours.edges}
    assert len(edges) == len(ours.edges)
    mirrored = {tuple(sorted((int(flip[a]), int(flip[b])))) for a, b in edges}
    assert mirrored == edges  # a mirrored body has the same limbs
    assert sorted(ours.parts["upper"] + ours.parts["lower"]) == [i for i in range(len(ours)) if i < 23]


def test_wholebody_parts_cover_all():
    ours = SKELETONS["coco_wholebody"]
    parts = [ours.parts[name] for name in ("body", "foot", "face", "lefthand", "righthand")]
    assert [len(part) for part in parts] == [17, 6, 68, 21, 21]
    assert sorted(sum(parts, ())) == list(range(133))
    assert ours.sigma_array("foot").tolist() == [0.068, 0.066, 0.066, 0.092, 0.094, 0.094]


def test_names():
    assert skeleton("crowdpose") is SKELETONS["crowdpose"]
    assert skeleton(SKELETONS["coco"]) is SKELETONS["coco"]
    assert SKELETONS["jhmdb"].index("belly") == 1
    with pytest.raises(InputError, match="no skeleton 'mpii'"):
        skeleton("mpii")
    with pytest.raises(InputError, match="no key point 'tail'"):
        SKELETONS["coco"].index("tail")
    with pytest.raises(InputError, match="lists of"):
        Skeleton("odd", ("a", "b"), (0.1,), (0, 1), (1.0, 1.0), ())


def test_sample_files_have_our_order(shared_data, read_json):
    """The names in the data sets' own files; CrowdPose's call the top of the head ``head``."""
    folder = shared_data("pose")
    for path, name in (
        ("coco/test_coco.json", "coco"),
        ("jhmdb/test_jhmdb_sub1.json", "jhmdb"),
        ("posetrack18/annotations/test_posetrack18_val.json", "posetrack"),
        ("crowdpose/test_crowdpose.json", "crowdpose"),
    ):
        names = read_json(folder / path)["categories"][0]["keypoints"]
        assert (
            tuple("top_head" if n == "head" and name == "crowdpose" else n for n in names) == SKELETONS[name].keypoints
        )

"""The protocols of the data sets, and which published figures may stand beside a result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_depth.protocols import (
    COMPATS,
    PROTOCOLS,
    depth_protocol,
    get_compat,
    kitti_benchmark_crop,
    region_box,
    resized_shape,
)
from priorscope_depth.published import PUBLISHED, published_depth


def test_every_protocol_states_the_facts_of_its_set():
    found = {p.name: (p.images, p.min_depth, p.max_depth, p.decoding) for p in PROTOCOLS.values()}
    assert found == {
        "nyuv2": (654, 1e-3, 10.0, "png"),
        "kitti": (652, 1e-5, 80.0, "png"),
        "eth3d": (454, 1e-5, np.inf, "float32"),
        "scannet": (800, 1e-3, 10.0, "png"),
        "diode": (771, 0.6, 350.0, "npy"),
    }
    assert all(p.tar.endswith(".tar") and p.list_file.endswith(".txt") for p in PROTOCOLS.values())


def test_resolutions_of_the_official_scripts():
    names = list(PROTOCOLS)
    assert [PROTOCOLS[n].resolution("lotus") for n in names] == [0, 0, 768, 0, 640]
    assert [PROTOCOLS[n].resolution("marigold") for n in names] == [0, 0, 756, 0, 640]
    assert [PROTOCOLS[n].resolution() for n in names] == [0, 0, 768, 0, 640]


def test_resized_shape_truncates_and_enlarges():
    assert resized_shape(60, 90, 40) == (26, 40)
    assert resized_shape(4032, 6048, 768) == (512, 768)
    assert resized_shape(768, 1024, 640) == (480, 640)
    assert resized_shape(45, 61, 64) == (47, 64)  # small images grow
    assert resized_shape(45, 61, 0) == (45, 61)
    assert resized_shape(1, 10000, 100) == (1, 100)
    with pytest.raises(InputError, match="not be negative"):
        resized_shape(4, 4, -1)


def test_default_convention_deviates_nowhere_and_the_officials_do():
    ours, lotus, marigold = (COMPATS[n] for n in ("priorscope", "lotus", "marigold"))
    for name in ("rounds_resized_input", "positive_only", "any_space"):
        assert not getattr(ours, name)
        assert getattr(lotus, name)
        assert getattr(marigold, name)
    assert (ours.subsampling, lotus.subsampling, marigold.subsampling) == ("both", "width", "width")
    assert get_compat(lotus) is lotus
    assert get_compat("marigold") is marigold
    with pytest.raises(InputError, match=r"unknown evaluation convention 'midas'.*Use one of"):
        get_compat("midas")


def test_valid_pixels_lie_strictly_within_the_range():
    kitti = replace(depth_protocol("kitti"), region=None)
    depth = np.array([[0, 1e-5, 1e-4, 79.99, 80, 84.9, np.nan, np.inf]], dtype=np.float32)
    assert kitti.valid(depth).tolist() == [[False, False, True, True, False, False, False, False]]
    mask = np.array([[True, True, False, True, True, True, True, True]])
    assert kitti.valid(depth, mask).sum() == 1


def test_diode_takes_its_mask_file_and_does_not_check_the_range():
    diode = depth_protocol("diode")
    depth = np.array([[0.1, 1.0, 400.0]], dtype=np.float32)
    assert diode.valid(depth, np.array([[1.0, 0.0, 1.0]])).tolist() == [[True, False, True]]
    with pytest.raises(InputError, match="mask file"):
        diode.valid(depth)


def test_regions():
    depth = np.full((352, 1216), 5.0, np.float32)
    eigen, garg = depth_protocol("kitti").valid(depth), depth_protocol("kitti", kitti_region="garg").valid(depth)
    assert (eigen.sum(), garg.sum()) == (230316, 232574)
    assert eigen[117:321, 43:1172].all()
    assert garg[143:349, 43:1172].all()
    assert depth_protocol("nyuv2").valid(np.full((480, 640), 5.0, np.float32)).sum() == 238560
    with pytest.raises(InputError, match="480 x 640 pixels, not for 240 x 320"):
        region_box("nyu", 240, 320)


def test_benchmark_crop_refuses_small_images():
    assert kitti_benchmark_crop(np.zeros((375, 1242, 3))).shape == (352, 1216, 3)
    with pytest.raises(InputError, match="smaller than the KITTI crop"):
        kitti_benchmark_crop(np.zeros((100, 1242)))


def test_unknown_protocol():
    with pytest.raises(InputError, match=r"unknown depth data set 'nyu'.*nyuv2"):
        depth_protocol("nyu")


def test_published_figures_need_the_same_alignment_convention_and_protocol():
    nyu = depth_protocol("nyuv2")
    rows = published_depth(nyu, "depth", "marigold")
    assert {row.method: row.values["nyuv2"] for row in rows} == {
        "Stable Diffusion + E2E FT": 0.054,
        "Marigold + E2E FT": 0.052,
        "GeoWizard + E2E FT": 0.056,
    }
    assert published_depth(nyu, "disparity", "marigold") == []
    assert published_depth(nyu, "depth", "lotus") == []
    assert published_depth(nyu, "depth", "priorscope") == []
    assert published_depth(nyu, "depth", replace(COMPATS["marigold"], solver="normal")) == []
    assert published_depth(replace(nyu, region=None), "depth", "marigold") == []
    assert published_depth(depth_protocol("kitti", kitti_region="garg"), "depth", "marigold") == []


def test_every_published_row_names_its_source():
    assert len(PUBLISHED) == 3
    for row in PUBLISHED:
        assert "README" in row.source
        assert (row.alignment, row.metric) == ("depth", "abs_rel")
        assert all(value > 0 for value in row.values.values())

"""The built-in samples: real values, from the wheel, never from the network."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from priorscope.data import motorcycle, photo
from priorscope.data.samples import PHOTO_NAMES
from priorscope.errors import InputError


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a sample asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_motorcycle_depth():
    sample = motorcycle()
    assert sample.left.shape == sample.right.shape == (500, 741, 3)
    assert sample.left.dtype == np.uint8
    assert sample.depth.dtype == np.float32
    assert np.isfinite(sample.depth).all()
    assert np.isfinite(sample.disparity).all()
    assert (~sample.valid).sum() == 27226
    assert (sample.depth[~sample.valid] == 0).all()
    known = sample.depth[sample.valid]
    assert known.min() == pytest.approx(2.11, abs=0.005)
    assert known.max() == pytest.approx(5.02, abs=0.005)
    triangulated = 994.978 * 0.193001 / (sample.disparity[sample.valid].astype(float) + 31.086)
    np.testing.assert_allclose(known, triangulated, rtol=1e-6)
    np.testing.assert_array_equal(sample.intrinsics, [[994.978, 0, 370.5], [0, 994.978, 250], [0, 0, 1]])


def test_disparity_warps_right_onto_left():
    """Proof that disparity, its sign and the two views belong together."""
    sample = motorcycle()
    rows, columns = np.indices(sample.depth.shape)
    source = np.rint(columns - sample.disparity).astype(int)
    inside = sample.valid & (source >= 0)
    left = sample.left.mean(2)[inside]
    warped = sample.right.mean(2)[rows[inside], source[inside]]
    unwarped = sample.right.mean(2)[inside]
    assert np.corrcoef(left, warped)[0, 1] > 0.9 > np.corrcoef(left, unwarped)[0, 1]


@pytest.mark.parametrize("name", PHOTO_NAMES)
def test_photos(name):
    image = photo(name)
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.std() > 10


@pytest.mark.parametrize("name", ["eagle", "", "../astronaut"])
def test_other_photos_are_refused(name):
    with pytest.raises(InputError, match="astronaut, camera"):
        photo(name)

"""SIMUS cines: echoes come from where scatterers are, and the convolution simulator agrees with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip("pymust")

from priorscope.errors import InputError
from priorscope_medical.ultrasound.cine_scores import envelope
from priorscope_medical.ultrasound.echo_lines import iq_lines, rf_of
from priorscope_medical.ultrasound.metrics import width_at_half
from priorscope_medical.ultrasound.multipath_haze import Haze
from priorscope_medical.ultrasound.quadrature import carrier_of
from priorscope_medical.ultrasound.simus_cines import SIMUS_SCAN, Array, haze_received, lines, received, simus_cine


def point(reach, beam):
    angle = SIMUS_SCAN.angles[beam]
    return np.array([reach * math.sin(angle)]), np.array([reach * math.cos(angle)]), np.ones(1)


@pytest.fixture(scope="module")
def points():
    """RF of two points, simulated apart and together."""
    array = Array()
    first, second = point(35e-3, 32), point(70e-3, 18)
    both = tuple(np.concatenate(pair) for pair in zip(first, second, strict=True))
    return [received(array, *one) for one in (first, second, both)]


def test_echoes_add(points):
    first, second, both = points
    np.testing.assert_allclose(both, first + second, atol=2e-4 * np.abs(both).max())


def test_a_point_is_where_it_is_and_as_wide_as_the_convolution_simulator_has_it(points):
    array, scan = Array(), SIMUS_SCAN
    for recorded, (reach, beam) in zip(points[:2], ((35e-3, 32), (70e-3, 18)), strict=True):
        size = envelope(lines(array, recorded[None]))[0]
        row, column = np.unravel_index(size.argmax(), size.shape)
        assert column == beam
        assert scan.depths[row] == pytest.approx(reach, abs=0.15e-3)
        convolved = envelope(rf_of(scan, iq_lines(scan, *point(reach, beam)))[None])[0]
        top = np.unravel_index(convolved.argmax(), convolved.shape)
        along, expected = (width_at_half(one[:, at]) for one, at in ((size, column), (convolved, top[1])))
        assert along == pytest.approx(expected, rel=0.2)
        # speckle is narrower than a point at the carrier alone: between 1.4 beams and 2
        assert scan.beam_width < width_at_half(size[row]) < 1.5 * scan.beam_width


def test_haze_is_low_wide_and_still():
    array = Array()
    haze = Haze(smear=10.0, lower=0.1, memory=0.98)
    rf = lines(array, haze_received(array, haze, 2, 50.0, np.random.default_rng(1)))
    draw = np.random.default_rng(2)
    x, z = draw.uniform(-40e-3, 40e-3, 2000), draw.uniform(10e-3, 90e-3, 2000)
    tissue = lines(array, received(array, x, z, draw.normal(size=2000))[None])

    def beside(values):
        one, other = values[..., 2:], values[..., :-2]
        return float((one * other).sum() / math.sqrt((one**2).sum() * (other**2).sum()))

    assert beside(rf) > beside(tissue) + 0.2
    assert carrier_of(torch.from_numpy(rf)) < 0.96 * carrier_of(torch.from_numpy(tissue))
    assert float((rf[0] * rf[1]).sum() / np.linalg.norm(rf[0]) / np.linalg.norm(rf[1])) > 0.9


@pytest.mark.slow
def test_a_seed_fixes_a_cine():
    first, again = (simus_cine(5, frames=1, density=2e5) for _ in range(2))
    for name in ("tissue", "haze", "noise", "regions"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    third = first.haze[:, : SIMUS_SCAN.samples // 3]
    assert 10 * math.log10(2 * float(np.mean(third**2))) == pytest.approx(first.made_of.level, abs=0.01)


def test_refusals():
    with pytest.raises(InputError, match="0 frames"):
        simus_cine(0, frames=0)

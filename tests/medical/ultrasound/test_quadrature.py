"""RF as rows of I and Q: what a band holds comes back, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch

from priorscope.errors import InputError
from priorscope_medical.ultrasound.quadrature import Quadrature, as_channels, as_rows, carrier_of


def burst(samples=800, carrier=0.22, beams=3, shift=0.0):
    """Gaussian pulses well inside of the line, a beam each."""
    place = torch.arange(samples, dtype=torch.float64)[:, None] - torch.tensor([250.0, 400.0, 555.5])[:beams]
    return torch.exp(-((place / 30) ** 2) / 2) * torch.cos(2 * math.pi * carrier * place + shift)


def test_rows_hold_a_band_wholly():
    rf = burst()
    way = Quadrature(800, 0.22)
    rows = way.forward(rf)
    assert rows.shape == (way.rows, 3)
    torch.testing.assert_close(way.inverse(rows), rf, atol=1e-6, rtol=0)
    assert float(rows.abs().max()) == pytest.approx(1.0, abs=0.02)  # the envelope's height
    turned = way.forward(burst(shift=0.7))
    torch.testing.assert_close(turned, rows * complex(math.cos(0.7), math.sin(0.7)), atol=1e-6, rtol=0)


def test_what_lies_outside_of_the_band_is_taken_away_once():
    way = Quadrature(800, 0.22)
    rf = burst() + burst(carrier=0.05)
    kept = way.inverse(way.forward(rf))
    torch.testing.assert_close(kept, burst(), atol=2e-3, rtol=0)
    inside = way.inverse(way.forward(kept))
    assert float((inside - kept).norm() / kept.norm()) < 0.01


def test_rows_are_the_same_for_any_sampling():
    """A line sampled twice as densely has the same rows."""
    fine = burst(1600, 0.11, 1)
    place = torch.arange(1600, dtype=torch.float64)[:, None] / 2 - 250.0
    fine = torch.exp(-((place / 30) ** 2) / 2) * torch.cos(2 * math.pi * 0.22 * place)
    coarse = Quadrature(800, 0.22).forward(burst(beams=1))
    found = Quadrature(1600, 0.11).forward(fine)
    assert found.shape == coarse.shape
    torch.testing.assert_close(found.abs(), coarse.abs(), atol=0.02, rtol=0)


def test_the_carrier_is_the_mean_frequency():
    assert carrier_of(burst()) == pytest.approx(0.22, abs=1e-4)
    both = torch.cat([burst(), burst(carrier=0.18)], 1)
    assert carrier_of(both[None]) == pytest.approx(0.20, abs=1e-3)


def test_channels_are_pairs_of_i_and_q():
    rows = torch.randn(2, 3, 5, 4, dtype=torch.complex64)
    channels = as_channels(rows)
    assert channels.shape == (2, 6, 5, 4)
    assert torch.equal(channels[:, 2], rows[:, 1].real)
    assert torch.equal(channels[:, 3], rows[:, 1].imag)
    assert torch.equal(as_rows(channels), rows)


@pytest.mark.parametrize(
    ("make", "fact"),
    [
        (lambda: Quadrature(800, 0.4), "0.4 cycles"),
        (lambda: Quadrature(10, 0.2), "2 periods"),
        (lambda: Quadrature(800, 0.2).forward(torch.zeros(700, 2)), "700 samples"),
        (lambda: carrier_of(torch.zeros(800, 2)), "without a signal"),
        (lambda: carrier_of(torch.full((800, 2), math.nan)), "not finite"),
        (lambda: carrier_of(torch.zeros(8)), r"shape \(8,\)"),
        (lambda: as_rows(torch.zeros(3, 4, 4)), "no pairs"),
    ],
)
def test_refusals(make, fact):
    with pytest.raises(InputError, match=fact):
        make()

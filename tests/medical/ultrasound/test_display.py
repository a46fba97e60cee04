"""Scan conversion, gain over depth and log compression."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope_medical.ultrasound.display import normalised, time_gain, to_decibel, to_grey
from priorscope_medical.ultrasound.scan_conversion import Sector, scan_convert, to_beams

SECTOR = Sector((0.01, 0.1), (-0.6, 0.7), radius=0.02)


def smooth(x, z):
    return torch.sin(40 * x) + torch.cos(30 * z)


def beams(shape=(400, 300)):
    depth, angle = torch.meshgrid(
        torch.linspace(*SECTOR.depths, shape[0]), torch.linspace(*SECTOR.angles, shape[1]), indexing="ij"
    )
    length = depth + SECTOR.radius
    return smooth(length * torch.sin(angle), length * torch.cos(angle) - SECTOR.radius)


def test_scan_conversion_puts_values_where_they_belong():
    left, right, near, far = SECTOR.extent()
    x, z = np.linspace(left, right, 201), np.linspace(near, far, 181)
    image = scan_convert(beams()[None], SECTOR, x, z, fill=math.nan)[0]
    across, down = torch.meshgrid(torch.tensor(x), torch.tensor(z), indexing="xy")
    inside = image.isfinite()
    expected = smooth(across, down).float()
    assert (image - expected)[inside].abs().max() < 1e-3
    length, angle = torch.hypot(across, down + SECTOR.radius) - SECTOR.radius, torch.atan2(across, down + SECTOR.radius)
    rim = (length > 0.0101) & (length < 0.0999) & (angle > -0.599) & (angle < 0.699)
    assert inside[rim].all()
    assert not inside[(length < 0.0099) | (length > 0.1001) | (angle < -0.601) | (angle > 0.701)].any()


def test_there_and_back():
    left, right, near, far = SECTOR.extent()
    x, z = np.linspace(left, right, 500), np.linspace(near, far, 500)
    samples = beams((100, 80))[None]
    image = scan_convert(samples, SECTOR, x, z)
    back = to_beams(image, SECTOR, (left, right), (near, far), (100, 80))
    inner = (..., slice(3, -3), slice(3, -3))
    assert (back - samples)[inner].abs().max() < 0.01


def test_gain_makes_up_for_attenuation():
    times = torch.linspace(0, 1e-4, 1001, dtype=torch.float64)
    centimetres = 100 * 1540 * times / 2
    weakened = 10 ** (-2 * 0.7 * 3 * centimetres / 20)
    torch.testing.assert_close(
        time_gain(weakened, times, frequency=3e6, attenuation=0.7), torch.ones_like(times), rtol=1e-9, atol=0
    )


def test_decibels():
    values = to_decibel(torch.tensor([1.0, 0.1, 1e-2, 1e-9, 0.0]), dynamic_range=50)
    torch.testing.assert_close(values, torch.tensor([0.0, -20.0, -40.0, -50.0, -50.0]))
    assert to_decibel(torch.tensor([1j * 0.5]), reference=1.0).item() == pytest.approx(20 * math.log10(0.5))
    assert to_grey(values, dynamic_range=50).tolist() == [255, 153, 51, 0, 0]


def test_one_scale_for_all_frames():
    samples = torch.tensor([[1.0, -4.0], [2.0, 3.0]])
    scaled, scale = normalised(samples)
    assert scale == 4
    torch.testing.assert_close(scaled * scale, samples)
    assert normalised(samples, quantile=0.75)[1] == 3


@pytest.mark.parametrize(
    ("call", "fact"),
    [
        (lambda: Sector((0.1, 0.01), (-1, 1)), "Near before far"),
        (lambda: Sector((0.0, 0.1), (-90, 90)), "Radians"),
        (lambda: scan_convert(torch.zeros(4, 4, dtype=torch.complex64), SECTOR, [0.0], [0.05]), "complex"),
        (lambda: scan_convert(torch.zeros(4, 1), SECTOR, [0.0], [0.05]), "2 x 2"),
        (lambda: normalised(torch.zeros(3)), "scale is 0"),
        (lambda: to_decibel(torch.ones(3), dynamic_range=-1), "-1 dB"),
        (lambda: time_gain(torch.ones(3), torch.ones(3), frequency=0), "attenuation"),
    ],
)
def test_refusals(call, fact):
    with pytest.raises(InputError, match=fact):
        call()

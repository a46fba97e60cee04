"""Pictures of RF lines: where things lie, how bright they are, and what is black."""

from __future__ import annotations

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_medical.ultrasound.beamforming import linear_grid, sector_grid
from priorscope_medical.ultrasound.rf_pictures import rf_pictures


def lines(amplitudes):
    """RF whose envelope is ``amplitudes`` (samples, beams): a carrier of four samples a period."""
    return (amplitudes * np.cos(np.pi / 2 * np.arange(len(amplitudes)))[:, None])[None]


def test_levels_are_decibels_below_the_reference():
    levels = np.repeat([0.0, -20.0, -40.0, -80.0], 10) * np.ones((400, 1))
    points = linear_grid(np.linspace(-0.02, 0.02, 40), np.linspace(0.01, 0.05, 400))
    pictures, pixel = rf_pictures(lines(10 ** (levels / 20)), points, reference=1.0, dynamic_range=60.0, size=101)
    assert pictures.shape == (1, 101, 101)
    assert pixel == pytest.approx(0.4)
    # 255 (1 - 20 / 60), and so on, in the middle of each band
    for column, grey in ((12, 255), (37, 170), (62, 85), (90, 0)):
        assert pictures[0, 10:90, column].astype(int) == pytest.approx(grey, abs=1)


def test_a_point_of_a_sector_lies_where_it_is():
    angles, depths = np.radians(np.linspace(-40, 40, 81)), np.linspace(0.02, 0.1, 800)
    amplitude = np.full((800, 81), 1e-4)
    beam, sample = 60, 500
    amplitude[sample - 6 : sample + 7, beam - 1 : beam + 2] = 1
    pictures, pixel = rf_pictures(lines(amplitude), sector_grid(angles, depths), size=300)
    row, column = (np.mean(index) for index in np.nonzero(pictures[0] > 200))
    x = depths[sample] * np.sin(angles[beam]) + 0.1 * np.sin(np.radians(40))
    z = depths[sample] * np.cos(angles[beam]) - 0.02 * np.cos(np.radians(40))
    assert (column * pixel, row * pixel) == pytest.approx((1e3 * x, 1e3 * z), abs=1.5)
    assert pictures[0, 0, 0] == pictures[0, -1, 0] == 0  # beside the beams


def test_nothing_is_drawn_before_the_first_samples_of_a_sector():
    angles, depths = np.radians(np.linspace(-40, 40, 81)), np.linspace(0.02, 0.1, 800)
    pictures, pixel = rf_pictures(lines(np.ones((800, 81))), sector_grid(angles, depths), size=300)
    z = 0.02 * np.cos(np.radians(40)) + 1e-3 * pixel * np.arange(pictures.shape[1])
    middle = pictures[0, :, 150]
    assert not middle[z < 0.02 - 2e-3 * pixel].any()
    assert (middle[(z > 0.02 + 2e-3 * pixel) & (z < 0.099)] > 200).all()


def test_wrong_lines():
    points = linear_grid([0.0, 0.01], np.linspace(0, 0.01, 64))
    with pytest.raises(InputError, match="without a signal"):
        rf_pictures(np.zeros((1, 64, 2)), points)
    with pytest.raises(InputError, match="at points of shape"):
        rf_pictures(np.ones((1, 60, 2)), points)
    with pytest.raises(InputError, match="in one place"):
        rf_pictures(np.ones((1, 64, 2)), np.zeros((64, 2, 3)))

"""RF lines of channel data: a point's echo lies at its depth, with the probe's carrier."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope_medical.ultrasound.channel_data import Transmit
from priorscope_medical.ultrasound.cine_scores import envelope
from priorscope_medical.ultrasound.quadrature import carrier_of
from priorscope_medical.ultrasound.rf_lines import rf_lines


@pytest.mark.parametrize(
    "waves",
    [
        [Transmit()],
        [Transmit(source=(0.0, 0.0, -10e-3))],
        [Transmit(source=(x, 0.0, 40e-3), origin=(x, 0.0, 0.0)) for x in (0.0, 2e-3, 4e-3)],
    ],
)
def test_a_point_is_found(echoes, waves):
    found = rf_lines(echoes(waves))
    assert found.rf.shape == (1, *found.points.shape[:2])
    size = envelope(found.rf)[0]
    place = found.points[np.unravel_index(size.argmax(), size.shape)]
    np.testing.assert_allclose(place, [2e-3, 0, 20e-3], atol=0.4e-3)
    beam = size.max(0).argmax()
    assert carrier_of(torch.from_numpy(found.rf[:, :, beam : beam + 1])) == pytest.approx(found.carrier, rel=0.06)


def test_beams_and_refusals(echoes):
    data = echoes([Transmit()])
    assert rf_lines(data, beams=20).rf.shape[2] == 20
    with pytest.raises(InputError, match="too short"):
        rf_lines(echoes([Transmit()], duration=3e-6))

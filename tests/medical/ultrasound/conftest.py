"""Echoes of one point, as a probe records them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from priorscope_medical.ultrasound.beamforming import transmit_delay
from priorscope_medical.ultrasound.channel_data import ChannelData, linear_array

CARRIER, SPEED, BANDWIDTH = 5e6, 1540.0, 0.5
ELEMENTS = linear_array(64, 0.3e-3)
POINT = np.array([2e-3, 0.0, 20e-3])


def pulse(time):
    """A Gaussian pulse whose spectrum is at -6 dB at the edges of the band."""
    width = math.sqrt(2 * math.log(2)) / (math.pi * BANDWIDTH * CARRIER)
    return np.exp(-(time**2) / (2 * width**2)) * np.cos(2 * np.pi * CARRIER * time)


def echoes(waves, *, point=POINT, sampling=4 * CARRIER, duration=40e-6, elements=ELEMENTS):
    """What the elements record of one point: the pulse, delayed by the way there and back."""
    count = round(duration * sampling)
    back = np.linalg.norm(point - elements, axis=1) / SPEED
    samples = []
    for wave in waves:
        time = wave.start + np.arange(count)[:, None] / sampling
        samples.append(pulse(time - float(transmit_delay(wave, point, SPEED)) - back))
    return ChannelData(np.stack(samples)[None].astype(np.float32), sampling, CARRIER, elements, tuple(waves), SPEED)


@pytest.fixture(scope="session", name="echoes")
def _echoes() -> Callable[..., ChannelData]:
    """``echoes(waves)``: RF of a point at x = 2 mm, z = 20 mm under 64 elements, at 5 MHz."""
    return echoes

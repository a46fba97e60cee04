"""SatDiFuser's learning rate."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from priorscope.errors import InputError
from priorscope_remote_sensing.learning_rate import satdifuser_rate


def test_golden_satdifuser_schedule(golden_files):
    for path in golden_files("features", "satdifuser_lr*"):
        if path.suffix == ".safetensors":
            expected = load_file(path)["lr"]
            rates = [satdifuser_rate(epoch) for epoch in range(len(expected))]
            np.testing.assert_allclose(rates, expected, atol=1e-10, rtol=0)


def test_ends():
    assert satdifuser_rate(0, start=1e-4) == 1e-4
    assert satdifuser_rate(0, warmup=0) == 1e-2
    assert satdifuser_rate(5) == 1e-2
    assert satdifuser_rate(40) == pytest.approx(1e-5)
    assert satdifuser_rate(1000) == satdifuser_rate(40)


@pytest.mark.parametrize("wrong", [{"epoch": -1}, {"epoch": 0, "warmup": 40}, {"epoch": 0, "warmup": -1}])
def test_senseless(wrong):
    with pytest.raises(InputError):
        satdifuser_rate(**wrong)

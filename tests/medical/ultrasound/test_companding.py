"""Companding: the laws, their inverse, and the measurement of tissue and haze behind them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from priorscope.diffusion.product import Parts
from priorscope.diffusion.simple_sde import SimpleVESchedule
from priorscope.errors import InputError
from priorscope.inverse.joint_measurement import pull_back
from priorscope_medical.ultrasound.companding import companded_sum, compress, compress_range, expand


def test_golden_dehaze_processing_companding(golden_files):
    tolerance = {"rtol": 0, "atol": 1e-6}
    for path in golden_files("medical", "dehaze_processing*.safetensors"):
        data = load_file(path)
        x = data["cmp.x"]
        for name, law in (("mu", "mu"), ("a", "A")):
            small = compress(x, law=law, clip=True)
            torch.testing.assert_close(small, data[f"cmp.{name}"], **tolerance)
            torch.testing.assert_close(expand(small, law=law, clip=True), data[f"cmp.{name}_expand"], **tolerance)
            torch.testing.assert_close(expand(x, law=law, clip=True), data[f"cmp.{name}_expand_of_x"], **tolerance)
        torch.testing.assert_close(compress_range(data["cmp01.x"], 0, 1), data["cmp01.out"], **tolerance)


def test_golden_dehaze_companded(golden_files, read_json):
    for path in golden_files("medical", "dehaze_companded*.safetensors"):
        data = load_file(path)
        for case in read_json(path.with_suffix(".json"))["cases"]:
            got = {key.split(".", 1)[1]: value for key, value in data.items() if key.startswith(f"{case['i']}.")}
            sigma = SimpleVESchedule(case["sigma"])(case["t"])[1]
            assert sigma == pytest.approx(float(got["std"]), rel=1e-10)
            close = {"rtol": 1e-10, "atol": 1e-10}
            torch.testing.assert_close(got["y"] + sigma * got["z"], got["y_hat"], **close)
            parts = Parts([got["x"].shape[1:], got["h"].shape[1:]])
            state = parts.join([got["x"], got["h"]])
            measurement = companded_sum(parts, case["gamma"], mu=case["mu"])
            misfit = (got["y_hat"] - measurement.forward(state)).square().sum()
            torch.testing.assert_close(misfit[None], got["err"], **close)
            pull = pull_back(measurement, state, got["y_hat"])
            for part, name in zip(parts.split(-2 * pull), ("grad_x", "grad_h"), strict=True):
                torch.testing.assert_close(part, got[name], **close)
            moved = state + 2 * parts.factors((case["lam"], case["kappa"]), state) * pull
            for part, name in zip(parts.split(moved), ("x_out", "h_out"), strict=True):
                torch.testing.assert_close(part, got[name], **close)


@pytest.mark.parametrize("law", ["mu", "A"])
def test_laws_are_inverse_odd_and_have_a_slope_at_zero(law):
    x = torch.linspace(-1.5, 1.5, 301, dtype=torch.float64).requires_grad_(True)
    y = compress(x, law=law)
    torch.testing.assert_close(expand(y, law=law), x)
    torch.testing.assert_close(y, -y.flip(0))
    assert compress(torch.tensor(1.0), law=law) == pytest.approx(1.0)
    (slope,) = torch.autograd.grad(y.sum(), x)
    at_zero = {"mu": 255 / 5.545177444, "A": 87.6 / (1 + 4.472780998)}[law]
    assert slope[150] == pytest.approx(at_zero, rel=1e-6)


def test_the_sum_is_taken_before_companding_and_survives_noisy_states():
    parts = Parts([(1, 4, 4)] * 2)
    generator = torch.Generator().manual_seed(0)
    echoes = [0.4 * torch.rand(1, 1, 4, 4, generator=generator) - 0.2 for _ in range(2)]
    state = parts.join([compress(echo) for echo in echoes])
    y = companded_sum(parts, 0.6).forward(state)
    torch.testing.assert_close(expand(y), echoes[0] + 0.6 * echoes[1])
    noisy = companded_sum(parts, 0.6).slopes(SimpleVESchedule()(1.0)[1] * torch.randn(1, 2, 4, 4, generator=generator))
    assert all(value.isfinite().all() for value in noisy)


def test_refusals():
    with pytest.raises(InputError, match="companding law"):
        compress(torch.zeros(1), law="log")
    with pytest.raises(InputError, match="mu = 0"):
        compress(torch.zeros(1), strength=0.0)
    with pytest.raises(InputError, match="a range from"):
        compress_range(torch.zeros(1), 1, 0)
    with pytest.raises(InputError, match="haze of strength -1"):
        companded_sum(Parts([(1,), (1,)]), -1)

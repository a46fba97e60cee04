"""Weights fit a module to the last key, or one line says what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from priorscope.backbones.state_dict import filled, read_safetensors
from priorscope.errors import InputError


def made():
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_weights_come_in_as_they_are(tmp_path):
    source = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    half = {key: value.half() if value.is_floating_point() else value for key, value in source.state_dict().items()}
    save_file(half, tmp_path / "a.safetensors")
    state = read_safetensors(tmp_path / "a.safetensors")
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
    module = filled(made(), state, tmp_path)
    assert not module.training
    assert not any(weight.requires_grad for weight in module.parameters())
    assert all(torch.equal(value, half[key].to(value.dtype)) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"0.bias": None}, r"1 missing \(0\.bias\)"),
        ({"2.bias": torch.zeros(1)}, r"1 unexpected \(2\.bias\)"),
        ({"0.weight": torch.zeros(2, 2)}, r"1 wrongly shaped \(0\.weight \(2, 2\) instead of \(2, 3\)\)"),
        ({"0.bias": torch.tensor([1, float("nan")])}, r"1 not finite \(0\.bias\)"),
        ({"0.bias": torch.tensor([1, float("inf")])}, r"1 not finite \(0\.bias\)"),
        ({"1.running_mean": torch.tensor([1, float("nan")])}, r"1 not finite \(1\.running_mean\)"),
        ({f"a.{n}": torch.zeros(1) for n in range(5)}, r"5 unexpected \(a\.0, a\.1, a\.2 and 2 more\)"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    state = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict() | changes
    state = {key: value for key, value in state.items() if value is not None}
    with pytest.raises(InputError, match=message) as error:
        filled(made(), state, Path("model"))
    assert "do not fit Sequential: " in str(error.value)
    assert "\n" not in str(error.value)


def test_what_to_do_is_the_callers_to_say():
    with pytest.raises(InputError) as error:
        filled(made(), {}, Path("model"), remedy="Name the base.")
    assert error.value.remedy == "Name the base."


def test_a_mask_may_hold_infinity():
    module = nn.Linear(3, 2)
    module.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    state = {name: value.clone() for name, value in module.state_dict().items()}
    assert torch.equal(filled(module, state, Path("model")).get_buffer("mask"), state["mask"])


def test_damaged_files_are_named(tmp_path):
    with pytest.raises(InputError, match="is missing"):
        read_safetensors(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match=r"a\.safetensors: cannot be read"):
        read_safetensors(tmp_path / "a.safetensors")

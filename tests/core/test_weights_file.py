"""Weights are written with the permissions of any new file."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors import safe_open
from safetensors import torch as safetensors

from priorscope.data.weights_file import save_file, share


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_permissions_are_those_of_a_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        (tmp_path / "plain").touch()
        save_file({"a": torch.arange(3.0)}, tmp_path / "model.safetensors", {"format": "pt"})
        (tmp_path / "folder/inner").mkdir(parents=True)
        safetensors.save_file({"b": torch.ones(2)}, tmp_path / "folder/inner/other.safetensors")
        share(tmp_path / "folder")
        assert os.umask(mask) == mask  # as it was
    finally:
        os.umask(before)
    expected = (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "model.safetensors").stat().st_mode == expected
    assert (tmp_path / "folder/inner/other.safetensors").stat().st_mode == expected
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert torch.equal(file.get_tensor("a"), torch.arange(3.0))


def test_apps_and_core_write_weights_by_it():
    """safetensors' own function would make files that only their owner can read."""
    from pathlib import Path

    root = Path(__file__).parents[2]
    own = root / "core/priorscope/data/weights_file.py"
    direct = [
        path
        for folder in ("core", "apps")
        for path in (root / folder).rglob("*.py")
        if path != own and any("safetensors.torch import" in line and "save_file" in line for line in path.open())
    ]
    assert not direct

"""Pages of a mapped file leave memory; no value is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from priorscope.backbones.pages import give_back

MIB = 1 << 20


def file_pages() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssFile")).split()[1]) << 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")
def test_read_weights_leave_memory_and_read_again(tmp_path):
    written = {"used": torch.randn(8 * MIB), "kept": torch.randn(2 * MIB)}
    save_file(written, tmp_path / "weights.safetensors")
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        used, kept = file.get_tensor("used"), file.get_tensor("kept")
    used.sum()
    kept.sum()
    before = file_pages()
    given = give_back([used])
    after = file_pages()
    assert used.nbytes - 2 * 4096 <= given <= used.nbytes
    assert before - after > 30 * MIB
    assert torch.equal(used, written["used"])
    assert torch.equal(kept, written["kept"])


def test_no_value_of_ordinary_memory_is_lost():
    values = torch.arange(4 * MIB)
    give_back([values, values[:3], torch.empty(0), torch.empty(5, device="meta")])
    assert torch.equal(values, torch.arange(4 * MIB))

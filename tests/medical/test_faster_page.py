"""docs/faster.md: its code runs as it stands, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/faster.md"


@pytest.mark.slow
def test_the_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 7
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert "4 6" in capsys.readouterr().out  # passes in full and not, as the page says
    assert names["few"].shape == names["x"].shape
    assert (tmp_path / "start.safetensors").is_file()


def test_links_lead_to_files():
    text = PAGE.read_text()
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    assert targets
    assert not [target for target in targets if "://" not in target and not (PAGE.parent / target).exists()]
    assert not re.search(r"@[A-Z]+@", text), "a placeholder was left"

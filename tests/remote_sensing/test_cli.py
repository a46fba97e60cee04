"""The commands of the remote-sensing app answer at once, and its models are listed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from priorscope.backbones.table import published_models
from priorscope.cli import main
from priorscope.errors import InputError
from priorscope_remote_sensing.table import MODELS, find_backbone

HEAVY = ("torch", "diffusers", "matplotlib", "scipy", "rasterio", "sklearn")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["predict", "--help"], ["evaluate", "--help"]])
def test_help_imports_nothing_heavy(words):
    code = f"""
import json, sys
from priorscope.cli import main
try:
    main(["remote-sensing", *{words!r}])
except SystemExit:
    pass
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr.splitlines()[-1]) == []
    assert "remote-sensing" in done.stdout
    if words == ["--help"]:
        assert all(verb in done.stdout for verb in ("train", "predict", "evaluate", "demo"))


def test_models(capsys):
    assert main(["models", "remote-sensing"]) == 0
    printed = capsys.readouterr().out
    assert "tiny-terrain" in printed
    assert "13751498" in printed
    assert [row.name for row in MODELS] == [row.name for row in published_models() if row.app == "remote-sensing"]


def test_backbones_by_name_and_by_folder(tmp_path):
    assert (find_backbone("tiny-terrain") / "unet" / "config.json").is_file()
    assert find_backbone(str(tmp_path)) == tmp_path
    with pytest.raises(InputError, match=r"resolution512/.*zenodo|zenodo.*resolution512/"):
        find_backbone("diffusionsat-512")
    with pytest.raises(InputError, match="Did you mean tiny-terrain"):
        find_backbone("tiny-terain")
    with pytest.raises(InputError, match="no such folder of a backbone"):
        find_backbone("./none")

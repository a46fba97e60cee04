"""The bundled model does its job: on real photographs it runs, on held-out scenes it beats the plane."""

from __future__ import annotations

import json

import numpy as np
import pytest

from priorscope.cli import main


@pytest.mark.slow
def test_bundled_model_beats_the_plane(tmp_path):
    """AbsRel on 200 held-out scenes at most half of the best plane's, whichever space the plane is fitted in."""
    out = tmp_path / "run"
    assert main(["depth", "evaluate", "scenes", "--out", str(out), "--batch-size", "8", "--device", "cpu"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["model"], metrics["images"]) == ("tiny-depth", 200)
    means = metrics["means"]
    model = means["prediction/disparity"]["abs_rel"]
    planes = [means[f"plane/{space}"]["abs_rel"] for space in ("depth", "disparity")]
    assert model <= 0.5 * min(planes)


def test_real_photographs(shared_data, tmp_path, capsys):
    folder = shared_data("depth") / "in_the_wild"
    out = tmp_path / "out"
    assert main(["depth", "predict", str(folder), "--out", str(out), "--formats", "npy", "--device", "cpu"]) == 0
    assert "6 of 6 inputs done" in capsys.readouterr().out
    for path in out.glob("*.npy"):
        values = np.load(path)
        assert 0 <= values.min() < values.max() <= 1
        # what is at the bottom of these photographs is nearer than what is at the top
        rows = len(values) // 4
        assert values[-rows:].mean() > values[:rows].mean()


def test_model_card_and_size():
    from pathlib import Path

    import priorscope_depth

    folder = Path(priorscope_depth.__file__).parent / "models/tiny-depth"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 3 * 2**20
    assert "Measured" in (folder / "README.md").read_text()

"""The demo from end to end, on a small scene."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio

from priorscope.cli import main
from priorscope_remote_sensing import demo


@pytest.mark.parametrize("control", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_demo(tmp_path, capsys, monkeypatch, control):
    monkeypatch.setattr(demo, "_FOREST_PIXELS", 500)
    out = tmp_path / "demo"
    words = ["remote-sensing", "demo", "--out", str(out), "--size", "256", "--steps", "2", "--device", "cpu"]
    words += ["--control"] if control else []
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "random forest on bands" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    methods = [row["method"].split(" ")[0] for row in metrics["methods"]]
    assert methods == ["head", *(["the"] if control else []), "random", "random"]
    assert all(0 < row["pixel accuracy"] <= 1 for row in metrics["methods"])
    with rasterio.open(out / "map" / "scene.tif") as made, rasterio.open(out / "truth.tif") as truth:
        assert (made.crs, made.transform, made.shape) == (truth.crs, truth.transform, truth.shape)
        classes, true = made.read(1), truth.read(1)
    with rasterio.open(out / "labels.tif") as file:
        shown = file.read(1)
    hidden = shown == 255
    assert 0.3 < hidden.mean() < 0.7
    np.testing.assert_array_equal(shown[~hidden], true[~hidden])
    # the first row is of the map, on the pixels whose labels were hidden
    assert metrics["methods"][0]["pixel accuracy"] == np.mean(classes[hidden] == true[hidden])
    report = (out / "report.html").read_text()
    assert "Land cover of a procedural landscape" in report
    assert "http" not in report.replace("http-equiv", "").replace("http://www.w3.org", "")
    (out / "demo.txt").unlink()
    assert main(words) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_a_mistake_leaves_the_earlier_demo(tmp_path, capsys):
    for name in ("config.yaml", "demo.txt"):
        (tmp_path / name).write_text("")
    assert main(["remote-sensing", "demo", "--out", str(tmp_path), "--backbone", "nix", "--device", "cpu"]) == 2
    assert "no model is called 'nix'" in capsys.readouterr().err
    assert (tmp_path / "config.yaml").exists()


def test_mistakes(tmp_path, capsys):
    assert main(["remote-sensing", "demo", "--out", str(tmp_path / "a"), "--size", "100"]) == 2
    assert main(["remote-sensing", "demo", "--out", str(tmp_path / "a"), "--steps", "0"]) == 2
    assert main(["remote-sensing", "demo", "--out", str(tmp_path / "a"), "--seed", "-1"]) == 2
    assert capsys.readouterr().err.count("\n") == 3
    assert not (tmp_path / "a").exists()

"""The evidence of edges and scans draws what its rows say."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from priorscope_depth.edges.data import EdgePair
from priorscope_depth.sensor.data import SensorPair

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("evidence_depth_extras")


def test_the_figure_is_of_the_rows_that_are_given(script, tmp_path, monkeypatch):
    """Of another file than the usual one, too, and with the blur that was chosen there."""
    picture = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
    pairs = [EdgePair(picture, np.zeros((32, 48), bool), f"scene-{number}") for number in range(3)]
    for name in ("regression-longer", "diffusion-longer-mean-of-8", "diffusion-longer"):
        np.savez(tmp_path / f"edges-{name}.npz", *[np.zeros((32, 48))] * 3)
    drawn = []
    monkeypatch.setattr(script, "drawn_pairs", lambda *_: pairs)
    monkeypatch.setattr(script, "draw_edges", lambda pairs, found, path: drawn.append(found["sobel"]))
    script.draw(tmp_path, tmp_path / "new/figures", [])
    assert drawn == []
    script.draw(tmp_path, tmp_path / "new/figures", [{"part": "edges", "method": "sobel", "blur": 2.0}])
    np.testing.assert_array_equal(drawn[0], [script.sobel(pair, 2.0) for pair in pairs])


def test_the_sensors_figure_takes_its_sigma_from_the_rows(script, tmp_path, monkeypatch):
    exact = np.full((16, 16), 2.0, np.float32)

    class Simulator:
        @classmethod
        def from_pretrained(cls, path, device):
            return lambda depths, seed: depths

    for name in script.LEARNT:
        (tmp_path / f"sensor-{name}/model").mkdir(parents=True)
    drawn = []
    pair = SensorPair(exact, exact, "scene")
    monkeypatch.setattr(script, "drawn_scans", lambda *_, **__: [pair, pair])
    monkeypatch.setattr(script, "SensorSimulator", Simulator)
    monkeypatch.setattr(script, "draw_scans", lambda exact, scans, path: drawn.append(scans["gaussian-z2"]))
    script.draw(tmp_path, tmp_path / "figures", [{"part": "sensor", "method": "gaussian-z2", "sigma": 0.02}])
    expected = script.gaussian_scans([exact, exact], 0.02, script.SEED, power=2.0)
    np.testing.assert_array_equal(drawn[0], expected)

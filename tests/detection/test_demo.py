"""The demo with tiny settings, and the bundled models."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from priorscope.cli import main
from priorscope.errors import InputError
from priorscope.evaluation.demo_folder import demo_folder
from priorscope_detection.checkpoints import Detector, save_detector
from priorscope_detection.configs import DemoConfig, ModelConfig
from priorscope_detection.demo import demo
from priorscope_detection.network.detector import CollaborativeDetector
from priorscope_detection.network.spec import SIZES
from priorscope_detection.simulator.settings import LidarSettings, StreetSettings

STREETS = StreetSettings(kind="crossing", cars=2, frames=3, spread=15.0, lidar=LidarSettings(beams=8, columns=128))


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    torch.manual_seed(1)
    network = CollaborativeDetector(replace(SIZES["tiny"], fusion="codiff"))
    return str(save_detector(Detector(network), tmp_path_factory.mktemp("models") / "codiff"))


def asked(untrained, out, **changes):
    config = DemoConfig(
        out,
        scenarios=1,
        sigmas=(0.0, 0.4),
        delays=(0.0, 200.0),
        streets=STREETS,
        settings=ModelConfig(untrained, device="cpu"),
    )
    return replace(config, **changes)


def test_a_demo_of_any_model(untrained, tmp_path):
    config = asked(untrained, tmp_path / "demo")
    assert demo(config) == 0
    run = config.out
    metrics = json.loads((run / "metrics.json").read_text())
    assert [row["model"] for row in metrics["outcomes"]] == [":steps=0", untrained]
    assert metrics["frame"].endswith("/000002"), "the first whose messages can be 200 ms old"
    assert {path.name for path in (run / "figures").iterdir()} == {
        "junction-0.png",
        "junction-1.png",
        "junction-2.png",
        "robustness.png",
    }
    report = (run / "report.html").read_text()
    for words in ("One moment", "All frames", "Robustness", "0.4 m, 0.4 degrees and 200 ms"):
        assert words in report
    rows = [json.loads(line) for line in (run / "items.jsonl").read_text().splitlines()]
    assert not any(row.get("young") for row in rows)
    # both models; undisturbed, two noises at 200 ms, two delays at 0.4 m, of which one is there already
    assert len(rows) == 2 * 4
    assert demo(config) == 0, "a demo's folder is replaced"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scenarios": 0}, "--scenarios 0"),
        ({"delays": ()}, "a curve without points"),
        ({"delays": (0.0, 150.0)}, "no whole number of frames"),
        ({"delays": (0.0, 300.0)}, "up to 300 ms in streets of 3 frames"),
        ({"delay": float("inf")}, "up to inf ms"),
        ({"pose_noise": -1.0}, "position"),
    ],
)
def test_mistakes(untrained, tmp_path, changes, words):
    config = asked(untrained, tmp_path / "demo", **changes)
    run = demo_folder(config.out, config, "an earlier demo")
    run.report_path.write_text("its report")
    with pytest.raises(InputError, match=words):
        demo(config)
    assert run.report_path.read_text() == "its report", "a mistake costs no results"


def test_unknown_models_are_one_line(capsys, tmp_path):
    assert main(["detection", "demo", "--out", str(tmp_path / "demo"), "--model", "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()

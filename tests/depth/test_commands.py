"""The demo and the evaluation commands from end to end, with a small untrained model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from priorscope.cli import main
from priorscope_depth.training.save import save_model
from priorscope_depth.training.start import start_from


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    return save_model(start_from("new").predictor, tmp_path_factory.mktemp("untrained") / "model")


def test_demo(untrained, tmp_path, capsys):
    out = tmp_path / "demo"
    words = ["depth", "demo", "--model", str(untrained), "--out", str(out), "--scenes", "2", "--device", "cpu"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "2.11 to 5.02 m" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    # the baselines do not depend on the model: these are the Motorcycle's
    constant, plane = metrics["motorcycle"]["constant/disparity"], metrics["motorcycle"]["plane/disparity"]
    assert constant["abs_rel"] == pytest.approx(0.2285, abs=1e-3)
    assert plane["abs_rel"] == pytest.approx(0.1381, abs=1e-3)
    assert 0 < metrics["motorcycle"]["prediction/disparity"]["abs_rel"] < 1
    report = (out / "report.html").read_text()
    assert "data-points" in report
    assert "Photograph, truth, aligned prediction, relative error." in report
    assert "http" not in report.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert np.load(out / "depth.npy").shape == (500, 741)
    assert main([*words[:-4], "--scenes", "0", "--device", "cpu"]) == 0  # a demo may replace a demo
    capsys.readouterr()
    (out / "demo.txt").unlink()
    assert main(words) == 2  # but nothing else
    assert "holds a run already" in capsys.readouterr().err


def test_evaluate_scenes(untrained, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["depth", "evaluate", "scenes", "--model", str(untrained), "--out", str(out), "--limit", "3"]
    assert main([*words, "--batch-size", "2"]) == 0
    printed = capsys.readouterr().out
    assert "aligned in disparity" in printed
    assert "Not aligned in depth" in printed
    assert "3 of the set's 200 images" in printed
    first = json.loads((out / "metrics.json").read_text())
    assert first["images"] == 3
    assert first["processing_resolution"] == 256
    assert len((out / "items.jsonl").read_text().splitlines()) == 3
    assert "Best, median and worst image" in (out / "report.html").read_text()
    costs = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["images"] for row in costs] == [2, 1]  # not those that the report draws again
    assert [row["network_passes"] for row in costs] == [1, 1]
    assert "passes of the network, in which each image" in (out / "report.html").read_text()
    assert main(words) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert json.loads((out / "metrics.json").read_text())["means"] == first["means"]


def test_evaluate_says_what_is_missing(untrained, tmp_path, capsys):
    model = ["--model", str(untrained), "--out", str(tmp_path / "run")]
    assert main(["depth", "evaluate", "nyuv2", *model]) == 2
    assert "nyu_labeled_extracted.tar" in capsys.readouterr().err
    assert main(["depth", "evaluate", "nyuv2", "--data", str(tmp_path), *model]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "filename_list_test.txt" in error
    assert main(["depth", "evaluate-normals", "nyuv2", "--data", str(tmp_path), *model]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_evaluate_refuses_what_has_no_effect(untrained, tmp_path, capsys):
    model = ["--model", str(untrained), "--out", str(tmp_path / "run")]
    for words, option in (
        (["scenes", "--data", str(tmp_path)], "--data"),
        (["scenes", "--list-file", str(tmp_path / "list.txt")], "--list-file"),
        (["scenes", "--kitti-region", "garg"], "--kitti-region"),
        (["nyuv2", "--data", str(tmp_path), "--kitti-region", "garg"], "--kitti-region"),
    ):
        assert main(["depth", "evaluate", *words, *model]) == 2
        assert f"{option} of {words[0]}" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_evaluate_normals(tiny_model, tmp_path, capsys):
    """A miniature of the archive's layout, whose truth is the model's own prediction turned to x left: no error."""
    from PIL import Image

    from priorscope_depth import DepthPredictor

    model = tiny_model("lotus-d", "lotus-normal-d-v1-1")
    rgb = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    predicted = DepthPredictor.from_pretrained(model, device="cpu", resolution=0)(rgb)
    truth = np.rint((predicted.values * [-1, 1, 1] + 1) / 2 * 255).astype(np.uint8)
    folder = tmp_path / "dsine_eval/ibims"
    folder.mkdir(parents=True)
    Image.fromarray(rgb).save(folder / "a_img.png")
    Image.fromarray(truth).save(folder / "a_normal.png")
    out = tmp_path / "run"
    words = ["depth", "evaluate-normals", "ibims", "--data", str(tmp_path / "dsine_eval"), "--out", str(out)]
    assert main([*words, "--model", str(model), "--device", "cpu"]) == 0
    assert "ibims, 1 images" in capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["means"]["mean"] < 0.5  # degrees: what eight bits round away
    assert metrics["means"]["below_5"] == 100
    assert (out / "report.html").is_file()


def test_scenes_command(tmp_path, capsys):
    from priorscope_depth.scenes import StoredScenes

    words = ["depth", "scenes", "--out", str(tmp_path / "s"), "--count", "2", "--height", "48", "--width", "64"]
    assert main(words) == 0
    assert len(StoredScenes(tmp_path / "s")) == 2
    assert main([*words[:-2], "--width", "80"]) == 2
    assert "another request" in capsys.readouterr().err
    for option in ("--count", "--workers"):
        assert main([*words[:4], option, "0"]) == 2
        assert f"{option} 0" in capsys.readouterr().err


def test_train_command(tmp_path, capsys):
    scenes = ["--out", str(tmp_path / "scenes"), "--count", "4", "--height", "48", "--width", "64"]
    assert main(["depth", "scenes", *scenes]) == 0
    words = ["depth", "train", "--out", str(tmp_path / "run"), "--scenes", str(tmp_path / "scenes"), "--model", "new"]
    options = ["--steps", "2", "--batch-size", "2", "--size", "64", "--held-out", "1", "--device", "cpu"]
    assert main([*words, *options]) == 0
    assert "held_out_abs_rel" in capsys.readouterr().out
    assert (tmp_path / "run/report.html").is_file()
    assert main(["depth", "predict", str(tmp_path / "nothing.png"), "--model", str(tmp_path / "run/model")]) == 2

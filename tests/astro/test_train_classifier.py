"""The command that trains a classifier alone, and what takes it afterwards."""

from __future__ import annotations

import json

import numpy as np
import pytest

from priorscope.cli import main
from priorscope.evaluation.run_folder import load_config
from priorscope_astro.classifier.command_config import TrainClassifierConfig
from priorscope_astro.classifier.network import GalaxyClassifier
from priorscope_astro.classifier.report import question_rows
from priorscope_astro.conditions.tree import ANSWERS
from priorscope_astro.data.splits import make_splits
from priorscope_astro.data.stamps import read_stamps, write_stamps

LOOP = ["--widths", "8", "16", "--steps", "6", "--batch-size", "8", "--warmup", "2", "--device", "cpu"]
LOOP += ["--log-every", "2", "--validate-every", "3", "--checkpoint-every", "3", "--ema", "0.5"]


def train(data, out, *options):
    return main(["astro", "train-classifier", str(data), "--out", str(out), *LOOP, *options])


@pytest.fixture(scope="module")
def splits(simulated_survey, tmp_path_factory):
    path = tmp_path_factory.mktemp("splits") / "splits.ecsv"
    make_splits(read_stamps(simulated_survey / "stamps.npz").ids, validation=0.2, test=0.3, seed=2).write(path)
    return path


@pytest.fixture(scope="module")
def trained(simulated_survey, splits, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "votes"
    assert train(simulated_survey, out, "--side", "48", "--splits", str(splits)) == 0
    return out


def test_a_classifier_of_votes_leaves_a_whole_run_folder(trained, simulated_survey, splits):
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "metrics.json", "report.html"):
        assert (trained / name).stat().st_size > 0
    model = GalaxyClassifier.load(trained / "model")
    assert (model.spec.size, model.spec.classes) == (48, ())
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "held_out_fraction_error" in row] == [0, 3, 6]
    html = (trained / "report.html").read_text()
    assert "How far its vote fractions are off" in html
    assert "t01_smooth_or_features" in html
    asked = load_config(trained, TrainClassifierConfig)  # can be fed back
    assert (asked.data, asked.splits, asked.head, asked.loop.steps) == (simulated_survey, splits, "votes", 6)


def test_a_stopped_training_goes_on_as_if_it_had_not(trained, simulated_survey, splits, tmp_path, capsys):
    options = ["--side", "48", "--splits", str(splits)]
    assert train(simulated_survey, tmp_path / "run", *options, "--max-seconds", "1e-9") == 0
    assert "--resume goes on" in capsys.readouterr().out
    assert train(simulated_survey, tmp_path / "run", *options, "--resume") == 0
    weights = [run / "model/model.safetensors" for run in (trained, tmp_path / "run")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert train(simulated_survey, tmp_path / "run", "--side", "32", "--splits", str(splits), "--resume") == 2
    assert "these keys differ: side" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["flux", "display"])
def test_a_classifier_of_classes(simulated_survey, tmp_path, mode):
    options = ["--head", "classes", "--mode", mode, "--side", "16", "--sampling", "balanced", "--loss", "focal"]
    assert train(simulated_survey, tmp_path / "run", *options) == 0
    names = GalaxyClassifier.load(tmp_path / "run/model").spec.classes
    assert {"round", "dust_lane"} <= set(names)
    assert "" not in names
    assert "What it takes for what" in (tmp_path / "run/report.html").read_text()


def test_classes_of_a_file_are_learnt_where_the_data_has_its_own(simulated_survey, tmp_path, capsys):
    rules = tmp_path / "mine.json"
    rules.write_text(
        '{"classes": [{"name": "disc", "tags": "features or disk-shaped"}, {"name": "s", "tags": "smooth"}]}'
    )
    options = ["--side", "48", "--head", "classes", "--classes", str(rules)]
    assert train(simulated_survey, tmp_path / "run", *options) == 0
    assert GalaxyClassifier.load(tmp_path / "run/model").spec.classes == ("disc", "s")
    capsys.readouterr()
    words = [simulated_survey, tmp_path / "second", *options, "--mode", "display", "--class-column", "gz2_class"]
    assert train(*words) == 2
    assert "changes nothing: --class-column gz2_class says the classes" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()


def test_evaluate_takes_it(trained, simulated_survey, splits, tmp_path):
    survey, out = read_stamps(simulated_survey / "stamps.npz"), tmp_path / "out"
    drawn = {"ids": [f"g{row}" for row in range(24)], "bands": survey.bands, "unit": survey.unit}
    flux = np.stack([survey.stamp(row) for row in range(24)])
    write_stamps(tmp_path / "drawn.npz", flux=flux, labels=survey.labels[:24], counts=survey.votes.counts[:24], **drawn)
    words = ["astro", "evaluate", str(tmp_path / "drawn.npz"), str(simulated_survey), "--out", str(out)]
    words += ["--splits", str(splits), "--classifier", str(trained), "--repeats", "10", "--no-sersic"]
    assert main([*words, "--rare", "dust_lane", "--best", "3", "--device", "cpu"]) == 0
    found = json.loads((out / "metrics.json").read_text())
    assert found["classifier"] == "given"
    assert [row["classifier"] for row in found["rare"]["searches"]] == ["given"]
    assert found["feature_space"].startswith("16 features of the classifier")


def test_errors_of_questions_by_hand():
    counts = np.zeros((3, len(ANSWERS)), np.int64)
    counts[0, :3], counts[1, :3] = [6, 4, 0], [0, 10, 0]
    counts[2, :3] = [1, 1, 1]  # too few to count
    fractions = np.zeros((3, len(ANSWERS)))
    fractions[:, :3] = [0.5, 0.3, 0.2]
    learnt = np.zeros((1, len(ANSWERS)), np.int64)
    learnt[0, :3] = [3, 7, 0]
    (row,) = question_rows(fractions, counts, learnt)
    assert (row["question"], row["galaxies"]) == ("t01_smooth_or_features", 2)
    assert row["error"] == pytest.approx((0.1 + 0.1 + 0.2 + 0.5 + 0.7 + 0.2) / 6)
    assert row["error of the mean"] == pytest.approx((0.3 + 0.3 + 0 + 0.3 + 0.3 + 0) / 6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--side", "4"], "--side 4"),
        (["--side", "50"], "a multiple of 4 with these --widths"),
        (["--side", "96"], "The model takes 96 or more"),
        (["--loss", "focal"], "votes have no classes"),
        (["--gamma", "3"], "gamma 3.0 with the loss cross-entropy"),
        (["--class-column", "gz2_class"], "--class-column with --head votes"),
        (["--classes", "gz2"], "--classes with --head votes"),
        (["--cuts", "willett13"], "--cuts with --head votes"),
        (["--agreement", "0.8"], "--agreement with --head votes"),
        (["--head", "classes", "--agreement", "0.8"], "--agreement 0.8 changes nothing: the data says the classes"),
        (["--head", "classes", "--id-column", "objid"], "stamps have their own ids"),
        (["--head", "classes", "--class-column", "gz2_class"], "stamps have their own"),
        (["--agreement", "nan"], "--agreement nan"),
        (["--lr", "0"], "--lr 0.0"),
        (["--lora", "4"], "--lora 4 for a network that begins with random weights"),
        (["--gradient-checkpointing"], "--gradient-checkpointing for a network that has none"),
        (["--splits", "nowhere.ecsv"], "no such file"),
    ],
)
def test_bad_options(simulated_survey, tmp_path, capsys, options, words):
    assert train(simulated_survey, tmp_path / "run", "--side", "16", *options) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_data_without_votes_or_pictures(simulated_survey, tmp_path, capsys):
    flux = np.random.default_rng(0).normal(size=(12, 3, 16, 16)).astype(np.float32)
    write_stamps(tmp_path / "a.npz", ids=range(12), flux=flux, bands="gri", unit="nmgy", labels=["a", "b"] * 6)
    for data, options, words in (
        (tmp_path / "a.npz", [], "has no votes. Use --head classes"),
        (simulated_survey / "gz2_hart16.csv", ["--mode", "display"], "has no images"),
        (simulated_survey / "stamps.npz", ["--mode", "display"], "Use --mode flux"),
        (tmp_path / "nowhere", [], "no such file"),
        (simulated_survey / "images", [], "holds no flux. Pictures are learnt with --mode display"),
        (simulated_survey / "truth.csv", [], "holds no flux. Pictures are learnt with --mode display"),
    ):
        assert train(data, tmp_path / "run", "--side", "16", *options) == 2
        assert words in capsys.readouterr().err
    assert train(tmp_path / "a.npz", tmp_path / "run", "--side", "16", "--head", "classes") == 0

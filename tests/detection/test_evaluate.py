"""evaluate: figures of known detections, rows that are kept, reports, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from priorscope.cli import main
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import read_jsonl
from priorscope_detection import evaluate
from priorscope_detection.checkpoints import Detector, save_detector
from priorscope_detection.configs import EvaluateConfig, ModelConfig
from priorscope_detection.data.dair import DairV2X
from priorscope_detection.data.frame import Frame
from priorscope_detection.data.kitti import Kitti
from priorscope_detection.data.nuscenes import NuScenes, NuScenesInfo
from priorscope_detection.data.open import open_frames
from priorscope_detection.data.opv2v import OPV2V
from priorscope_detection.data.rigid import inverse, move_boxes
from priorscope_detection.evaluation.conditions import Condition, Reader, conditions_of, models_of
from priorscope_detection.network.detector import CollaborativeDetector
from priorscope_detection.network.spec import SIZES
from priorscope_detection.noise import Disturbance
from priorscope_detection.post_processing import Detections, PostProcessing
from priorscope_detection.predictor import Found
from priorscope_detection.simulator.scenario import Streets
from priorscope_detection.simulator.settings import LidarSettings, StreetSettings
from priorscope_detection.simulator.write import write_opv2v

STREETS = StreetSettings(kind="crossing", cars=2, frames=4, spread=15.0, lidar=LidarSettings(beams=12, columns=256))


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return write_opv2v(tmp_path_factory.mktemp("streets"), [0], STREETS, progress=False)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    """A model folder with random weights."""
    torch.manual_seed(1)
    spec = replace(SIZES["tiny"], fusion="codiff")
    return save_detector(Detector(CollaborativeDetector(spec)), tmp_path_factory.mktemp("models") / "codiff")


class Oracle:
    """Knows the other agent's frame and puts true boxes where the told poses say they are.

    ``own`` of the boxes it takes from the ego, which no noise moves.
    """

    def __init__(self, settings: ModelConfig, own: float = 0.0) -> None:
        self.detector = Detector(CollaborativeDetector(SIZES["tiny"]))
        self.choice = PostProcessing()
        self.own = own

    @classmethod
    def load(cls, settings: ModelConfig) -> Oracle:
        return cls(settings, {"noisy": 0.0, "half": 0.5}[settings.model])

    def about(self):
        return {"fusion": "oracle"}

    message_shapes = ((8, 16, 8),)

    def __call__(self, frame: Frame) -> Found:
        right, told = frame.to_ego(clean=True)[1], frame.to_ego()[1]
        boxes = frame.truth.boxes
        moved = move_boxes(told @ inverse(right), boxes)
        kept = int(self.own * len(boxes))
        moved[:kept] = boxes[:kept]
        scores = torch.linspace(0.9, 0.3, len(moved), dtype=torch.float64)
        inside = np.abs(moved[:, :2]) < [12.8, 6.4]
        keep = torch.from_numpy(inside.all(1))
        return Found(Detections(torch.from_numpy(moved)[keep], scores[keep]))

    def sent_bytes(self, frame: Frame, found: Found, **_) -> list[int]:
        return [100 * (number + 1) for number in range(len(frame.agents) - 1)]


def asked(data, out, **changes) -> EvaluateConfig:
    return EvaluateConfig(str(data), out=out, settings=ModelConfig("noisy"), pictures=1, **changes)


@pytest.fixture
def oracle(monkeypatch):
    monkeypatch.setattr(evaluate, "Predictor", Oracle)


def test_figures_of_known_detections(streets, oracle, tmp_path):
    """All right without noise; with it precision falls, and less for the model that needs the pose less."""
    config = asked(
        streets, tmp_path / "run", compare=("half",), robustness=True, sigmas=(0.0, 0.3, 3.0), delays=(0.0, 200.0)
    )
    assert evaluate.run_evaluation(replace(config, noise_seeds=(0, 1, 2))) == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    found = {(each["model"], each["setting"]): each for each in metrics["outcomes"]}
    clean = found["noisy", "0m 0deg 0ms"]
    assert clean["truths"] >= 4
    for name in ("ap_bev_0.3", "ap_bev_0.7", "ap_3d_0.7", "recall_bev_0.5", "ap_bev_0.7_per_frame"):
        assert clean[name] == pytest.approx(1.0), name
    assert clean["bytes_per_agent"] == 150
    assert clean["seeds"] == 1  # nothing is drawn
    some, much = found["noisy", "0.3m 0.3deg 0ms"], found["noisy", "3m 3deg 0ms"]
    assert 1 > some["ap_bev_0.7"] > much["ap_bev_0.7"]
    assert some["seeds"] == 3
    assert some["std"]["ap_bev_0.7"] > 0
    assert found["half", "3m 3deg 0ms"]["ap_bev_0.5"] > much["ap_bev_0.5"]
    assert ("noisy", "0m 0deg 200ms") in found
    report = (tmp_path / "run/report.html").read_text()
    assert f"Detection on {streets}" in report  # what was asked for, and not the last folder's name
    assert "10 or more points" in report
    for words in ("Robustness", "By range", "By visibility", "What is sent", "half", "legacy"):
        assert words in report


def test_true_boxes_count_by_the_models_own_range():
    """CoAlign leaves out boxes that reach beyond the range, its own and true ones alike; ours go by the centre."""
    extent = SIZES["tiny"].extent
    ours = Oracle(ModelConfig("noisy"))
    published = Oracle(ModelConfig("noisy"))
    published.choice = PostProcessing.published(extent)
    #: inside; over the edge of 12.8 m; with its centre beyond; with its roof above 1 m
    boxes = np.array([[0.0, 0, -1, 4, 2, 1.5, 0.3], [11, 0, -1, 4, 2, 1.5, 0], [13, 0, -1, 4, 2, 1.5, 0]])
    boxes = np.concatenate([boxes, [[0.0, 4, -0.5, 4, 2, 3.5, 0]]])
    for models, counted in (
        ({"a": published, "b": published}, [True, False, False, False]),
        ({"a": ours}, [True, True, False, True]),
        ({"a": published, "b": ours}, [True, True, False, True]),
    ):
        assert evaluate.counted_boxes(models, extent)(boxes).tolist() == counted


def test_frames_without_a_past_can_be_left_out(streets, oracle, tmp_path):
    """At the beginning of a sequence no message is as old as asked: said in the report, and told in the rows."""
    assert evaluate.run_evaluation(asked(streets, tmp_path / "all", delay=200.0)) == 0
    rows = read_jsonl(tmp_path / "all/items.jsonl")
    assert [row.get("young", False) for row in rows] == [True, True, False, False]
    assert "2 of 4 frames come so early" in (tmp_path / "all/report.html").read_text()
    assert evaluate.run_evaluation(asked(streets, tmp_path / "late", delay=200.0, skip=2, limit=1)) == 0
    (row,) = read_jsonl(tmp_path / "late/items.jsonl")
    assert row["key"].endswith("/000002")
    assert "come so early" not in (tmp_path / "late/report.html").read_text()


def test_a_mean_over_seeds_is_that_of_the_seeds(streets, oracle, tmp_path):
    figures = {}
    for seeds in ((0,), (1,), (0, 1)):
        out = tmp_path / str(seeds)
        evaluate.run_evaluation(asked(streets, out, pose_noise=0.4, yaw_noise=0.4, noise_seeds=seeds))
        figures[seeds] = json.loads((out / "metrics.json").read_text())["outcomes"][0]["ap_bev_0.5"]
    assert figures[0,] != figures[1,]
    assert figures[0, 1] == pytest.approx((figures[0,] + figures[1,]) / 2)


def test_a_run_that_was_cut_off_goes_on(streets, untrained, tmp_path):
    """Rows that are there are kept, and the figures are those of a run in one go."""
    words = ["detection", "evaluate", str(streets), "--model", str(untrained), "--out", str(tmp_path / "run")]
    words += ["--compare", ":steps=1", "--pose-noise", "0.4", "--delay", "100", "--limit", "2"]
    words += ["--score-threshold", "0.005", "--pictures", "0"]
    assert main(words) == 0

    def figures():
        found = json.loads((tmp_path / "run/metrics.json").read_text())["outcomes"]
        return [{name: value for name, value in each.items() if name != "seconds_per_frame"} for each in found]

    once = figures()
    rows = read_jsonl(tmp_path / "run/items.jsonl")
    assert len(rows) == 4
    assert sum(len(row["scores"]) for row in rows) > 0
    path = tmp_path / "run/items.jsonl"
    path.write_text("".join(json.dumps(row | {"seconds": 77.0}) + "\n" for row in rows[:2]))
    (tmp_path / "run/metrics.json").unlink()
    assert main(words) == 2  # only when asked
    assert main([*words, "--resume"]) == 0
    assert figures() == once
    assert [row["seconds"] == 77.0 for row in read_jsonl(path)] == [True, True, False, False]


def test_disturbances_do_not_depend_on_who_asks(streets):
    config = EvaluateConfig(str(streets), pose_noise=0.4, delay=100.0)
    condition = conditions_of(config)[0]
    frames = open_frames(streets)
    reader = Reader(frames, 70.0)
    reader.disturbed(3, conditions_of(replace(config, delay=0.0))[0])
    one, other = reader.disturbed(2, condition), Reader(frames, 70.0).disturbed(2, condition)
    np.testing.assert_array_equal(one.to_ego(), other.to_ego())
    assert not np.allclose(one.to_ego(), one.to_ego(clean=True))
    assert [agent.delay for agent in one.agents] == [0.0, 100.0, 100.0]
    np.testing.assert_array_equal(one.truth.boxes, frames.read(2).truth.boxes)


def test_conditions_are_each_measured_once():
    config = EvaluateConfig("x", robustness=True, noise_seeds=(0, 1), pose_noise=0.4, yaw_noise=0.4, delay=200.0)
    names = [condition.name for condition in conditions_of(config)]
    assert len(names) == len(set(names))
    assert names[:2] == ["0.4m 0.4deg 200ms seed 0", "0.4m 0.4deg 200ms seed 1"]
    # 0, 0.2, 0.6 at 200 ms (0 once), and five other delays
    assert len(names) == 2 + (1 + 2 * 2) + 5 * 2


def test_disturbances_are_those_of_the_command():
    options = {"pose_noise": 0.1, "yaw_noise": 0.2, "laplace": True, "noisy_ego": False, "delay": 100.0}
    config = EvaluateConfig("x", drop_agents=0.3, noise_seeds=(7,), robustness=True, **options)
    base, *others = conditions_of(config)
    assert base == Condition(Disturbance(0.1, 0.2, "laplace", ego=False, delay=100.0, drop=0.3), 7)
    assert len(others) == 4 + 5  # four strengths, five other delays
    for other in others:
        how = other.how
        assert (how.distribution, how.ego, how.drop, other.seed) == ("laplace", False, 0.3, 7)
        assert how.position == how.yaw if how.delay == 100.0 else (how.position, how.yaw) == (0.1, 0.2)


@pytest.mark.parametrize("changes", [{"delay": 100.0}, {"pose_noise": 0.1}, {"drop_agents": 0.1}, {"robustness": True}])
def test_frames_of_one_agent_cannot_be_disturbed(streets, oracle, tmp_path, monkeypatch, changes):
    """The curves would be flat, as if the model stood everything."""
    assert [kind.single for kind in (Kitti, NuScenes, NuScenesInfo, OPV2V, DairV2X, Streets)] == [True] * 3 + [
        False
    ] * 3
    monkeypatch.setattr(OPV2V, "single", True)
    with pytest.raises(InputError, match=r"a disturbance of .*, but each frame of train has one agent"):
        evaluate.run_evaluation(asked(streets, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_bytes_are_those_of_the_command(streets, untrained, tmp_path):
    sent = {}
    for name, changes in (
        ("usual", {}),
        ("half", {"bytes_per_value": 2}),
        ("packed", {"compression": 4.0}),
        ("alone", {"reach": 0.1}),
    ):
        config = EvaluateConfig(
            str(streets), out=tmp_path / name, settings=ModelConfig(str(untrained)), pictures=0, limit=1, **changes
        )
        assert evaluate.run_evaluation(config) == 0
        (outcome,) = json.loads((tmp_path / name / "metrics.json").read_text())["outcomes"]
        sent[name] = outcome["bytes_per_agent"]
    assert sent["usual"] > 1000
    # a pose takes 24 bytes in every case
    assert sent["half"] - 24 == (sent["usual"] - 24) / 2
    assert sent["packed"] - 24 == (sent["usual"] - 24) / 4
    assert sent["alone"] is None


def test_models_are_asked_as_told():
    config = EvaluateConfig(
        "x", settings=ModelConfig("a", steps=4), compare=(":steps=8", "b", "a:start=noise:poses=corrected")
    )
    found = models_of(config)
    assert list(found) == ["a", ":steps=8", "b", "a:start=noise:poses=corrected"]
    assert [(each.model, each.steps) for each in found.values()] == [("a", 4), ("a", 8), ("b", None), ("a", None)]
    last = found["a:start=noise:poses=corrected"]
    assert (last.start, last.correct_poses) == ("noise", True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"compare": (":steps=x",)}, "is no option"),
        ({"compare": ("half", "half")}, "compared twice"),
        ({"noise_seeds": ()}, "--noise-seeds"),
        ({"limit": -1}, "--limit"),
        ({"skip": -1}, "--skip"),
        ({"skip": 4}, "--skip 4 leaves nothing"),
        ({"reach": -1.0}, "--reach"),
        ({"compression": 0.5}, "--compression"),
        ({"bytes_per_value": 0}, "--bytes-per-value"),
        ({"delay": 130.0}, "no whole number of frames"),
        ({"pose_noise": -0.1}, "position"),
        ({"data": "simulated:none"}, "number of scenarios"),
        ({"data": "simulated:1", "delay": 150.0}, "no whole number of frames"),
        ({"data": "simulated:1", "skip": 10}, "--skip 10 leaves nothing"),
        ({"compare": ("",)}, "--compare names nothing"),
        ({"compression": float("inf")}, "--compression inf"),
        ({"compression": 3.0}, "--compression 3: noisy sends maps of 8 channels"),
        ({"data": "nowhere"}, "no such file"),
        ({"sigmas": (0.0, 0.4)}, "--sigmas without --robustness"),
        ({"delays": (0.0,)}, "--delays without --robustness"),
        ({"streets": STREETS}, r"--streets\.\* are of simulated streets, the data are "),
        ({"data": "simulated:1", "layout": "kitti"}, "--layout kitti, but the streets are simulated"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(streets, oracle, tmp_path, changes, words):
    config = replace(asked(streets, tmp_path / "run"), **changes)
    with pytest.raises(InputError, match=words) as caught:
        evaluate.run_evaluation(config)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_bytes_of_features_that_none_sends_cannot_be_fewer(streets, oracle, tmp_path, monkeypatch):
    monkeypatch.setattr(Oracle, "message_shapes", ())
    with pytest.raises(InputError, match="--compression 8, but none of the models sends features"):
        evaluate.run_evaluation(asked(streets, tmp_path / "run", compression=8.0))


def test_the_report_says_what_compression_is_of(streets, oracle, tmp_path):
    assert evaluate.run_evaluation(asked(streets, tmp_path / "run", compression=8.0, limit=1)) == 0
    assert "precision is that of features as they are" in (tmp_path / "run/report.html").read_text()


@pytest.mark.slow
def test_two_processes_find_what_one_does(untrained, tmp_path, launcher):
    """The first drives the streets, both measure, and the first says what came out."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = ["detection", "evaluate", "simulated:2", "--model", str(untrained), "--score-threshold", "0.005"]
    words += ["--pictures", "0", "--streets.frames", "2", "--streets.cars", "2", "--streets.lidar.beams", "8"]
    words += ["--streets.lidar.columns", "64", "--pose-noise", "0.4"]
    found = {}
    for name, start in (("alone", [sys.executable]), ("launched", launcher)):
        command = [*start, "-m", "priorscope.cli", *words, "--out", str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("report: ") == 1
        (outcome,) = json.loads((tmp_path / name / "metrics.json").read_text())["outcomes"]
        found[name] = {key: value for key, value in outcome.items() if key != "seconds_per_frame"}
        assert outcome["frames"] == 4
        assert outcome["detections"] > 0
    assert found["launched"] == found["alone"]


def test_models_of_different_ranges_are_not_compared(streets, untrained, tmp_path):
    spec = replace(SIZES["tiny"], extent=(-12.8, -12.8, -3.0, 12.8, 12.8, 1.0))
    other = save_detector(Detector(CollaborativeDetector(spec)), tmp_path / "other")
    config = EvaluateConfig(str(streets), out=tmp_path / "run", settings=ModelConfig(str(untrained)))
    with pytest.raises(InputError, match="same range"):
        evaluate.run_evaluation(replace(config, compare=(str(other),)))


def test_streets_are_simulated_for_an_evaluation(oracle, tmp_path):
    config = asked("simulated:1", tmp_path / "run", streets=replace(STREETS, frames=1))
    assert evaluate.run_evaluation(config) == 0
    assert [path.name for path in (tmp_path / "run/streets/test").iterdir()] == ["street_1000000000"]


def test_the_command_simulates_in_opv2vs_layout(tmp_path):
    words = ["detection", "simulate", "--out", str(tmp_path / "s"), "--count", "1", "--first-seed", "3"]
    words += [
        "--streets.cars",
        "1",
        "--streets.frames",
        "1",
        "--streets.lidar.beams",
        "4",
        "--streets.lidar.columns",
        "64",
    ]
    assert main(words) == 0
    frames = open_frames(tmp_path / "s/train")
    assert frames.sequence(0) == "street_000003"
    assert main([*words[:4], "--count", "0"]) == 2
    for split in ("../../elsewhere", "..", ""):
        assert main([*words, "--split", split]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"s"}
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"train"}

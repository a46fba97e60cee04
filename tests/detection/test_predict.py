"""predict: boxes on disk and in pictures; what it takes and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from priorscope.cli import main
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope_detection.checkpoints import Detector, save_detector
from priorscope_detection.configs import ModelConfig
from priorscope_detection.data.frame import Agent, Frame, Truth
from priorscope_detection.data.kitti import lidar_box, read_calibration, read_labels
from priorscope_detection.data.open import open_frames
from priorscope_detection.data.rigid import inverse, move_points, pose_matrix
from priorscope_detection.geometry.boxes import corners
from priorscope_detection.network.detector import CollaborativeDetector
from priorscope_detection.network.spec import SIZES, FusionName
from priorscope_detection.picture import FOUND_COLOUR, TRUE_COLOUR, bird_view
from priorscope_detection.post_processing import Detections, PostProcessing
from priorscope_detection.predictor import Predictor, find_detector
from priorscope_detection.results import AT_THE_LIDAR, kitti_lines
from priorscope_detection.simulator.settings import LidarSettings, StreetSettings
from priorscope_detection.simulator.write import write_opv2v
from priorscope_detection.view import _EDGES

STREETS = StreetSettings(kind="crossing", cars=2, frames=2, spread=15.0, lidar=LidarSettings(beams=12, columns=256))


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return write_opv2v(tmp_path_factory.mktemp("streets"), [0], STREETS, progress=False)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """``untrained(fusion)``: a model folder whose random heads find some boxes."""
    folder = tmp_path_factory.mktemp("models")

    def make(fusion: FusionName) -> Path:
        path = folder / fusion
        if not path.exists():
            torch.manual_seed(1)
            network = CollaborativeDetector(replace(SIZES["tiny"], fusion=fusion)).eval()
            torch.nn.init.zeros_(network.cls_head.bias)  # scores about 0.5: some boxes of any features
            if fusion == "codiff":  # a new denoiser puts out zeros
                for weight in network.codiff.network.parameters():
                    torch.nn.init.normal_(weight, std=0.3)
            save_detector(Detector(network, choice=PostProcessing(score=0.3)), path)
        return path

    return make


def predict(*words) -> int:
    return main(["detection", "predict", *map(str, words)])


@pytest.mark.parametrize("fusion", ["none", "late", "early", "attention", "codiff"])
def test_every_fusion_writes_boxes_and_a_picture(streets, untrained, tmp_path, fusion):
    assert predict(streets, "--model", untrained(fusion), "--out", tmp_path / "out", "--limit", 1) == 0
    stem = open_frames(streets).name(0).replace("/", "_")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{stem}{suffix}" for suffix in (".json", ".txt", ".png")
    }
    content = json.loads((tmp_path / f"out/{stem}.json").read_text())
    assert content["agents"][0] == open_frames(streets).read(0).ego.name
    x0, y0, _, x1, y1, _ = SIZES["tiny"].extent
    assert content["boxes"]
    for box in content["boxes"]:
        assert 0.3 < box["score"] <= 1
        assert x0 <= box["centre"][0] <= x1
        assert y0 <= box["centre"][1] <= y1
    labels = read_labels(tmp_path / f"out/{stem}.txt")
    assert len(labels) == len(content["boxes"])
    found = np.array([[*box["centre"], *box["size"], box["yaw"]] for box in content["boxes"]])
    back = np.array([lidar_box(label, AT_THE_LIDAR) for label in labels])
    np.testing.assert_allclose(back[:, :6], found[:, :6], atol=2e-4)
    np.testing.assert_allclose(np.cos(back[:, 6] - found[:, 6]), 1, atol=1e-6)
    with Image.open(tmp_path / f"out/{stem}.png") as picture:
        assert picture.size == (256, 128)


def test_a_page_shows_points_and_boxes_in_three_dimensions(streets, untrained, tmp_path):
    words = (streets, "--model", untrained("attention"), "--out", tmp_path / "out", "--limit", 1)
    assert predict(*words, "--formats", "view") == 0
    (page,) = (tmp_path / "out").iterdir()
    text = page.read_text()
    assert page.suffix == ".html"
    assert "data-points" in text
    assert "found boxes" in text
    # the edges are the box's: four along each of its sides
    corner = corners(torch.tensor([[1.0, 2.0, 3.0, 4.0, 2.0, 1.0, 0.3]]))[0]
    lengths = sorted(round(float((corner[a] - corner[b]).norm()), 4) for a, b in _EDGES)
    assert lengths == [1.0] * 4 + [2.0] * 4 + [4.0] * 4
    assert len(set(_EDGES)) == 12


def test_recordings_need_rerun(streets, untrained, tmp_path, capsys, monkeypatch):
    words = (streets, "--model", untrained("attention"), "--out", tmp_path / "out", "--limit", 1, "--formats", "rerun")
    try:
        import rerun  # noqa: F401
    except ImportError:
        pass
    else:
        assert predict(*words) == 0
        (path,) = (tmp_path / "out").iterdir()
        assert path.suffix == ".rrd"
        assert path.stat().st_size > 10_000
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert predict(*words, "--overwrite") == 2
    assert "pip install rerun-sdk" in capsys.readouterr().err


def test_predictions_are_those_of_the_frame_and_the_seed(streets, untrained):
    frame = open_frames(streets).read(0)
    settings = ModelConfig(str(untrained("codiff")), device="cpu", steps=2, start="noise")
    once, again = (Predictor.load(settings)(frame).boxes for _ in range(2))
    other = Predictor.load(replace(settings, seed=1))(frame).boxes
    assert torch.equal(once.boxes, again.boxes)
    assert torch.equal(once.scores, again.scores)
    assert len(once) != len(other) or not torch.equal(once.scores, other.scores)


def test_boxes_are_chosen_as_the_command_says(streets, untrained):
    model = str(untrained("attention"))
    usual = Predictor.load(ModelConfig(model, device="cpu"))
    asked = Predictor.load(
        ModelConfig(
            model, device="cpu", score_threshold=0.45, nms=0.6, published_frames=True, correct_poses=True, seed=9
        )
    )
    assert (usual.choice.score, usual.choice.nms, usual.published, usual.correct_poses) == (0.3, 0.15, False, False)
    assert (asked.choice.score, asked.choice.nms, asked.published, asked.correct_poses) == (0.45, 0.6, True, True)
    assert (usual.seed, asked.seed) == (0, 9)
    frame = open_frames(streets).read(0)
    few = Predictor.load(ModelConfig(model, device="cpu", score_threshold=0.5))(frame).boxes
    many = Predictor.load(ModelConfig(model, device="cpu", nms=0.6))(frame).boxes
    own = Predictor.load(ModelConfig(model, device="cpu", published_frames=True))(frame).boxes
    boxes = usual(frame).boxes
    assert 0 < len(few) < len(boxes) < len(many)
    assert float(few.scores.min()) > 0.5
    assert not torch.equal(own.scores[:5], boxes.scores[:5])


def test_who_is_out_of_reach_is_not_heard(streets, untrained, tmp_path):
    words = ("--model", untrained("attention"), "--out", tmp_path / "out", "--limit", 1, "--formats", "json")
    assert predict(streets, *words, "--reach", 0.1) == 0
    (path,) = (tmp_path / "out").iterdir()
    assert json.loads(path.read_text())["agents"] == [open_frames(streets).read(0).ego.name]


def test_no_step_is_no_diffusion(streets, untrained):
    frame = open_frames(streets).read(0)
    settings = ModelConfig(str(untrained("codiff")), device="cpu", steps=0)
    predictor = Predictor.load(settings)
    assert predictor.about()["steps"] == 0
    network = predictor.detector.network
    network.codiff.refine = None  # not called
    found = predictor(frame)
    coarse = found.boxes
    attention = 4 * 8 * (16 * 8 + 8 * 4 + 4 * 2) + 24
    assert predictor.sent_bytes(frame, found) == [attention] * 2, "no latent is sent"
    with_diffusion = Predictor.load(replace(settings, steps=1))(frame).boxes
    assert len(coarse) != len(with_diffusion) or not torch.equal(coarse.scores, with_diffusion.scores)


def test_poses_can_be_corrected_before_fusion(streets, untrained):
    frame = open_frames(streets).read(0)
    settings = ModelConfig(str(untrained("attention")), device="cpu", correct_poses=True)
    predictor = Predictor.load(settings)
    found = predictor(frame)
    assert len(found.sent) == len(frame.agents) - 1
    plain = Predictor.load(replace(settings, correct_poses=False))
    more = np.subtract(predictor.sent_bytes(frame, found), plain.sent_bytes(frame, plain(frame)))
    assert more.tolist() == [32 * count for count in found.sent]


def test_a_unit_on_a_pole_finds_boxes_to_correct_poses_by(untrained, box_surface):
    """Its cars are 5 m below its LiDAR, below the detector's range: found as if it stood at the ego's height."""
    points = box_surface([3.0, 1.0, -1.0, 4.0, 1.8, 1.5, 0.3], 200)
    ego = Agent("1", points, np.eye(4), np.eye(4))
    predictor = Predictor.load(ModelConfig(str(untrained("attention")), device="cpu", correct_poses=True))
    found = {}
    for height in (0.0, 5.0):
        pose = pose_matrix([6.0, -2.0, height, 0.0, 40.0, 0.0])
        unit = Agent("-1", move_points(inverse(pose), points), pose, pose, "infrastructure")
        found[height] = predictor._alone(Frame("f", (ego, unit), Truth.of({})))[1].boxes
    assert len(found[0.0]) > 0
    assert found[5.0].shape == found[0.0].shape
    down = torch.tensor([0.0, 0, 5, 0, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(found[5.0] + down, found[0.0], atol=1e-3, rtol=0)


def test_what_is_sent_follows_from_the_fusion(streets, untrained):
    frame = open_frames(streets).read(0)
    sent = {}
    for fusion in ("none", "early", "attention", "codiff"):
        predictor = Predictor.load(ModelConfig(str(untrained(fusion)), device="cpu"))
        sent[fusion] = predictor.sent_bytes(frame, predictor(frame))
    assert sent["none"] == [0, 0]
    assert sent["early"] == [16 * len(agent.points) + 24 for agent in frame.agents[1:]]
    # 8 channels at three scales of a 32 x 16 map, halved each time
    assert sent["attention"] == [4 * 8 * (16 * 8 + 8 * 4 + 4 * 2) + 24] * 2
    assert sent["codiff"] == [sent["attention"][0] + 4 * 4 * 16 * 8] * 2


def test_a_single_sweep_is_enough(untrained, tmp_path, box_surface):
    box_surface([3.0, 1.0, -1.0, 4.0, 1.8, 1.5, 0.3], 200).tofile(tmp_path / "sweep.bin")
    assert predict(tmp_path / "sweep.bin", "--model", untrained("attention"), "--out", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out/sweep.json").read_text())["agents"] == ["sweep"]


def test_a_sweep_of_nuscenes_is_the_same_by_itself(untrained, shared_data, tmp_path):
    """Its intensities are bytes; the network knows shares."""
    folder = shared_data("detection") / "mmdet3d_demo/nuscenes"
    (info,), (sweep,) = folder.glob("*.pkl"), folder.glob("*.pcd.bin")
    found = []
    for number, path in enumerate((info, sweep)):
        out = tmp_path / str(number)
        assert predict(path, "--model", untrained("attention"), "--out", out, "--formats", "json") == 0
        (written,) = out.iterdir()
        boxes = json.loads(written.read_text())["boxes"]
        found.append([[*box["centre"], *box["size"], box["yaw"], box["score"]] for box in boxes])
    assert found[0]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_results_tell_how_old_messages_were(streets, untrained, tmp_path):
    """At the beginning of a sequence none is as old as asked."""
    words = ("--model", untrained("none"), "--out", tmp_path / "out", "--delay", 100, "--formats", "json")
    assert predict(streets, *words) == 0
    ages = [json.loads(path.read_text())["ages"] for path in sorted((tmp_path / "out").iterdir())]
    assert ages == [[0.0, 0.0, 0.0], [0.0, 100.0, 100.0]]


def test_points_that_are_not_finite_are_told(untrained, tmp_path, box_surface):
    points = box_surface([3.0, 1.0, -1.0, 4.0, 1.8, 1.5, 0.3], 200)
    points[:60, 1] = np.nan
    points.tofile(tmp_path / "sweep.bin")
    assert predict(tmp_path / "sweep.bin", "--model", untrained("none"), "--out", tmp_path / "out") == 0
    content = json.loads((tmp_path / "out/sweep.json").read_text())
    assert (content["points"], content["not_finite"]) == ([140], [60])


def test_pictures_show_what_is_looked_for(streets, untrained, tmp_path):
    """A true box of somebody on foot in green would look like a miss."""
    copy = tmp_path / "streets"
    shutil.copytree(streets, copy)
    greens = []
    for kind in ("vehicle", "pedestrian"):
        for path in copy.glob("*/*/*.yaml"):
            path.write_text(re.sub("obj_type: \\w+", f"obj_type: {kind}", path.read_text()))
        out = tmp_path / kind
        words = ("--model", untrained("none"), "--out", out, "--limit", 1, "--formats", "picture")
        assert predict(copy, *words) == 0
        (path,) = out.iterdir()
        with Image.open(path) as picture:
            greens.append(int((np.asarray(picture) == TRUE_COLOUR).all(-1).sum()))
    assert greens[0] > 0 == greens[1]


def test_the_picture_shows_boxes_where_they_are():
    points = np.array([[5.0, 3.0, 0, 0]], np.float32)
    agent = Agent("a", points, np.eye(4), np.eye(4))
    truth = Truth(("1",), np.array([[-4.0, 2.0, 0, 4.0, 2.0, 1.5, 0.0]]), ("car",))
    found = np.array([[4.0, -2.0, 0, 4.0, 2.0, 1.5, np.pi / 2]])
    picture = bird_view(Frame("f", (agent,), truth), found, (-10, -5, -3, 10, 5, 1), metres=0.1)
    assert picture.shape == (100, 200, 3)
    assert tuple(picture[19, 150]) != (255, 255, 255)  # x 5, y 3

    def extent_of(colour):
        rows, columns = np.nonzero((picture == colour).all(-1))
        return (columns.min() - 100) / 10, (columns.max() - 100) / 10, (50 - rows.max()) / 10, (50 - rows.min()) / 10

    np.testing.assert_allclose(extent_of(TRUE_COLOUR), [-6, -2, 1, 3], atol=0.25)
    np.testing.assert_allclose(extent_of(FOUND_COLOUR), [3, 5, -4, 0], atol=0.25)


def test_kitti_rows_have_its_columns():
    found = Detections(torch.tensor([[10.0, 2.0, -1.0, 4.0, 1.8, 1.5, 0.0]], dtype=torch.float64), torch.tensor([0.5]))
    row = kitti_lines(found)[0].split()
    assert len(row) == 16
    assert row[0] == "Car"
    h, w, length, x, y, z, turn, score = map(float, row[8:])
    # straight ahead of the camera, standing on its underside, heading along its z
    assert (h, w, length, x, y, z, score) == (1.5, 1.8, 4.0, -2.0, 1.75, 10.0, 0.5)
    assert turn == pytest.approx(-np.pi / 2, abs=1e-4)
    assert float(row[3]) == pytest.approx(-np.pi / 2 - np.arctan2(-2.0, 10.0), abs=1e-4)


def test_real_kitti_sweeps_give_rows_in_kittis_camera_frame(untrained, tmp_path):
    data = Path(__file__).parents[3] / "shared/data/detection/kitti_full"
    if not data.is_dir():
        pytest.skip("no KITTI sample here")
    assert predict(data, "--model", untrained("none"), "--out", tmp_path / "out", "--limit", 1) == 0
    name = open_frames(data).name(0)
    content = json.loads((tmp_path / f"out/{name}.json").read_text())
    labels = read_labels(tmp_path / f"out/{name}.txt")
    to_camera = read_calibration(next((data / "training/calib").glob(f"{name}.txt")))
    assert len(labels) == len(content["boxes"])
    rows = [line.split() for line in (tmp_path / f"out/{name}.txt").read_text().splitlines()]
    camera = open_frames(data).camera(0)
    ahead = [row for row in rows if float(row[13]) > 3 and abs(float(row[11])) < 0.5 * float(row[13])]
    assert ahead
    assert all(0 <= float(row[4]) < float(row[6]) <= camera.width - 1 for row in ahead)
    assert all(row[4:8] == ["-1"] * 4 for row in rows if float(row[13]) < -6)
    for label, box in zip(labels, content["boxes"], strict=True):
        np.testing.assert_allclose(lidar_box(label, to_camera)[:3], box["centre"], atol=5e-4)


def test_a_run_folder_is_a_model(untrained, tmp_path):
    detector = find_detector(str(untrained("attention")))
    save_detector(detector, tmp_path / "run/model")
    assert find_detector(str(tmp_path / "run")).spec == detector.spec


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["MISSING.bin"], "no such file"),
        (["MISSING"], "no such file or folder"),
        (["STREETS", "--model", "nowhere"], "nowhere"),
        (["STREETS", "--steps", 2], "takes no --steps"),
        (["STREETS", "--score-threshold", 2], "score"),
        (["STREETS", "--limit", -1], "--limit"),
        (["STREETS", "--reach", 0], "--reach"),
        (["STREETS", "--delay", 50], "no whole number of frames"),
        (["STREETS", "STREETS"], "two inputs"),
        (["STREETS", "--device", "teapot"], "teapot"),
        (["STREETS", "--pose-noise", -1], "pose noise in metres"),
        (["STREETS", "--model", "ALONE", "--correct-poses"], "--correct-poses changes nothing"),
        (["SWEEP", "--pose-noise", 0.4], "--pose-noise, but each frame has one agent"),
        (["SWEEP", "--yaw-noise", 0.4], "--yaw-noise, but each frame has one agent"),
        (["SWEEP", "--delay", 100], "--delay, but each frame has one agent"),
        (["SWEEP", "--correct-poses"], "--correct-poses, but each frame has one agent"),
        (["SWEEP", "--limit", 1], "--limit, but there are single sweeps only"),
        (["SWEEP", "--layout", "kitti"], "--layout, but there are single sweeps only"),
        (["STREETS", "--model", "RUN"], "is a run folder without a model. A training that was cut off"),
        (["STREETS", "--model", "EMPTY"], "holds no model: neither config.json nor config.yaml"),
        (["STREETS", "--model", "SWEEP"], "is no folder of a model"),
    ],
)
def test_mistakes_are_one_line(streets, untrained, tmp_path, capsys, words, said):
    places = {"STREETS": streets, "MISSING": tmp_path / "no", "MISSING.bin": tmp_path / "no.bin"}
    places |= {name: tmp_path / name for name in ("RUN", "EMPTY")}
    places |= {"SWEEP": tmp_path / "sweep.bin", "ALONE": untrained("none")}
    places["SWEEP"].write_bytes(b"\0" * 32)
    places["EMPTY"].mkdir()
    RunFolder.create(places["RUN"], {"seed": 0})
    model = [] if "--model" in words else ["--model", untrained("attention")]
    assert predict(*[places.get(word, word) for word in words], *model, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_results_are_not_overwritten_unless_asked(untrained, tmp_path, box_surface, capsys):
    box_surface([3.0, 1.0, -1.0, 4.0, 1.8, 1.5, 0.3], 50).tofile(tmp_path / "sweep.bin")
    words = [tmp_path / "sweep.bin", "--model", untrained("none"), "--out", tmp_path / "out"]
    assert predict(*words) == 0
    assert predict(*words) == 2
    assert "sweep.json" in capsys.readouterr().err
    assert predict(*words, "--overwrite") == 0


def test_one_bad_sweep_does_not_stop_the_others(untrained, tmp_path, box_surface, capsys):
    box_surface([3.0, 1.0, -1.0, 4.0, 1.8, 1.5, 0.3], 50).tofile(tmp_path / "good.bin")
    (tmp_path / "bad.bin").write_bytes(b"123")
    sweeps = [tmp_path / "bad.bin", tmp_path / "good.bin"]
    assert predict(*sweeps, "--model", untrained("none"), "--out", tmp_path / "out") == 1
    assert "bad.bin" in capsys.readouterr().err
    assert (tmp_path / "out/good.json").is_file()


@pytest.mark.parametrize("correct_poses", [False, True])
def test_frames_of_ones_own_that_make_no_sense(untrained, correct_poses):
    settings = ModelConfig(str(untrained("attention")), device="cpu", correct_poses=correct_poses)
    predictor = Predictor.load(settings)
    ego = Agent("1", np.zeros((3, 4), np.float32), np.eye(4), np.eye(4))
    with pytest.raises(InputError, match="frame f has no agent"):
        predictor(Frame("f", (), Truth.of({})))
    with pytest.raises(InputError, match="pose is not finite"):
        predictor(Frame("f", (ego, replace(ego, name="2", pose=np.full((4, 4), np.nan))), Truth.of({})))


def test_an_unknown_steps_number_is_refused_before_reading(untrained):
    for steps in (-1, 5000):
        with pytest.raises(InputError, match=f"{steps} steps"):
            Predictor.load(ModelConfig(str(untrained("codiff")), device="cpu", steps=steps))

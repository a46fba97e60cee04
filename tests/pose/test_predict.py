"""``priorscope pose predict`` from files to files, with a small model of random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from priorscope.cli import main
from priorscope.data.images import read_image
from priorscope.data.video import VideoFrame, read_video, write_video
from priorscope.errors import InputError
from priorscope_pose.configs import ModelConfig
from priorscope_pose.conv.network import ConvPoseNetwork
from priorscope_pose.detectors.base import image_boxes
from priorscope_pose.diffpose.model import DiffPoseModel
from priorscope_pose.diffpose.spec import DiffPoseSpec
from priorscope_pose.estimators import load_estimator
from priorscope_pose.formats import BODY_18, read_poses
from priorscope_pose.predict import windows
from priorscope_pose.sdpose.checkpoint import save_network
from priorscope_pose.sdpose.predictor import SDPosePredictor
from priorscope_pose.sdpose.small import new_model
from priorscope_pose.skeletons import COCO

SIZE = (32, 48)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    network = new_model("tiny", input_size=SIZE, seed=3).eval().requires_grad_(False)
    for key, value in network.head.state_dict().items():
        value.add_(0.2 * torch.randn(value.shape, generator=torch.Generator().manual_seed(len(key))))
    return str(save_network(network, tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="module")
def photo():
    """60 x 80, smooth, so that JPEG and scaling change little."""
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((80, 60), Image.Resampling.BICUBIC))


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def run(model, out, *words):
    return main(["pose", "predict", *map(str, words), "--model", model, "--out", str(out), "--device", "cpu"])


def loaded(path):
    return json.loads(path.read_text())


def test_a_picture_becomes_every_format(model, photo, tmp_path, capsys):
    path = save(tmp_path / "photo.png", photo)
    out = tmp_path / "out"
    formats = ("overlay", "coco", "openpose", "controlnet", "npz")
    assert run(model, out, path, "--keypoint-threshold=-100", "--formats", *formats) == 0
    captured = capsys.readouterr()
    assert "1 people in 1 images and frames" in captured.out
    assert captured.err == "no --boxes and no --detector: each image is taken to show one person\n"
    names = {"photo_pose.png", "photo_keypoints.json", "photo_controlnet.png", "photo_poses.npz"}
    assert {file.name for file in out.iterdir()} == names | {"photo_results.json", "photo_about.json"}

    # the same as the predictor says of the whole picture
    expected = SDPosePredictor.from_pretrained(model, device="cpu")(photo, [[0, 0, 80, 60]])
    archive = read_poses(out / "photo_poses.npz")
    np.testing.assert_allclose(archive.poses[0].keypoints, expected.keypoints, atol=1e-3)
    (row,) = loaded(out / "photo_results.json")
    assert (row["image_id"], row["category_id"]) == ("photo", 1)
    values = np.reshape(row["keypoints"], (17, 3))
    np.testing.assert_allclose(values[:, :2], expected.keypoints[0], atol=1e-3)
    np.testing.assert_allclose(values[:, 2], expected.scores[0], atol=1e-4)
    (person,) = loaded(out / "photo_keypoints.json")["people"]
    points = np.reshape(person["pose_keypoints_2d"], (18, 3))
    places = {name: place for place, name in enumerate(BODY_18) if name != "neck"}
    seen = {name for name in places if expected.scores[0, COCO.index(name)] > 0}
    assert len(seen) > 3
    for name in seen:
        np.testing.assert_allclose(points[places[name], :2], expected.keypoints[0, COCO.index(name)], atol=2e-3)
    about = loaded(out / "photo_about.json")
    assert (about["skeleton"], about["crop"], about["flip_test"]) == ("coco", "evaluated", True)
    assert about["detector"] == "whole image"
    assert about["inputs"] == [{"file": str(path), "image_id": "photo", "people": 1, "unusable_boxes": 0}]
    assert (read_image(out / "photo_pose.png") != photo).any()
    assert read_image(out / "photo_controlnet.png").shape == (60, 80, 3)


def test_crops_of_the_other_policy_are_other_poses_and_say_so(model, photo, tmp_path):
    path = save(tmp_path / "photo.png", photo)
    found = {}
    for crop in ("evaluated", "stretched"):
        assert run(model, tmp_path / crop, path, "--crop", crop, "--formats", "npz") == 0
        found[crop] = read_poses(tmp_path / crop / "photo_poses.npz").poses[0]
        assert loaded(tmp_path / crop / "photo_about.json")["crop"] == found[crop].crop == crop
    assert np.abs(found["evaluated"].keypoints - found["stretched"].keypoints).max() > 0.5


def test_pictures_of_every_kind_are_read_upright(model, photo, tmp_path):
    """A camera's rotation, 16 bits, grey, transparency: the poses are those of the plain picture."""
    folder = tmp_path / "in"
    grey = photo[..., 0]
    save(folder / "plain.png", photo)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the file holds the picture turned to the left
    save(folder / "rotated.png", np.ascontiguousarray(np.rot90(photo)), exif=exif)
    save(folder / "alpha.png", np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)]))
    save(folder / "grey.png", grey)
    save(folder / "grey3.png", np.dstack([grey] * 3))
    save(folder / "deep.png", grey.astype(np.uint16) * 257)
    assert run(model, tmp_path / "out", folder, "--formats", "npz", "overlay") == 0
    found = {path.name.removesuffix("_poses.npz"): read_poses(path) for path in (tmp_path / "out").glob("*.npz")}
    assert len(found) == 6
    for name, same in (("rotated", "plain"), ("alpha", "plain"), ("grey", "grey3"), ("deep", "grey3")):
        assert found[name].size == (80, 60)
        np.testing.assert_allclose(found[name].poses[0].keypoints, found[same].poses[0].keypoints, atol=1e-3)
    assert read_image(tmp_path / "out/rotated_pose.png").shape == (60, 80, 3)


def test_boxes_of_a_file_and_what_is_wrong_with_them(model, photo, tmp_path, capsys):
    """Zero area, outside of the image and low scores are left out and told; who hangs over the border is not."""
    save(tmp_path / "in/a.png", photo)
    save(tmp_path / "in/b.png", photo)
    boxes = tmp_path / "boxes.json"
    rows = [[10, 10, 40, 50], [20, 20, 20, 40], [500, 10, 540, 50], [60, 20, 200, 55, 0.8], [5, 5, 30, 30, 0.1]]
    boxes.write_text(json.dumps({"a.png": rows, "b.png": [[3, 3, 3, 3]]}))
    out = tmp_path / "out"
    assert run(model, out, tmp_path / "in", "--boxes", boxes, "--formats", "overlay", "coco", "openpose", "npz") == 0
    assert "2 people in 2 images and frames; 3 boxes without area or outside" in capsys.readouterr().out
    found = read_poses(out / "a_poses.npz").poses[0]
    np.testing.assert_allclose(found.boxes, [[10, 10, 40, 50], [60, 20, 200, 55]])
    np.testing.assert_allclose(found.box_scores, [1, 0.8])
    # nobody in b: an empty list, an untouched picture
    assert loaded(out / "b_keypoints.json")["people"] == []
    np.testing.assert_array_equal(read_image(out / "b_pose.png"), photo)
    assert len(read_poses(out / "b_poses.npz").poses[0]) == 0
    assert [row["image_id"] for row in loaded(out / "results.json")] == ["a", "a"]
    assert [one["unusable_boxes"] for one in loaded(out / "about.json")["inputs"]] == [2, 1]


def test_boxes_that_find_nobody_say_why(model, photo, tmp_path, capsys):
    for name in "ab":
        save(tmp_path / f"in/{name}.png", photo)
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"a.png": [[10, 10, 40, 50, 0.3]], "c.png": [[10, 10, 40, 50]]}))
    assert run(model, tmp_path / "out", tmp_path / "in", "--boxes", boxes, "--formats", "coco") == 0
    told = capsys.readouterr()
    assert "boxes.json names 1 of 2 inputs, nobody is looked for in b.png; it also names c.png\n" in told.err
    assert "0 people in 2 images and frames; 1 boxes have scores below --box-threshold 0.5\n" in told.out
    assert run(model, tmp_path / "low", tmp_path / "in", "--boxes", boxes, "--box-threshold", "0.2") == 0
    assert "1 people in 2 images and frames\n" in capsys.readouterr().out
    clip = tmp_path / "clip.mp4"
    write_video(clip, [photo] * 3, fps=10)
    boxes.write_text(json.dumps([{"image_id": 785, "bbox": [1, 2, 30, 40], "score": 1.0}]))
    assert run(model, tmp_path / "clip", clip, "--boxes", boxes) == 2
    assert "boxes.json: has no box for the frames 0 to 2 of clip.mp4. It has boxes for 785:" in capsys.readouterr().err
    assert not list((tmp_path / "clip").rglob("*"))


def test_annotations_give_boxes_and_image_ids(model, photo, tmp_path):
    save(tmp_path / "in/000000000012.png", photo)
    save(tmp_path / "in/000000000013.png", photo)
    content = {
        "images": [{"id": 7, "file_name": "000000000012.png"}, {"id": 8, "file_name": "000000000013.png"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 10, 30, 40]}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(content))
    assert run(model, tmp_path / "out", tmp_path / "in", "--boxes", tmp_path / "gt.json", "--formats", "coco") == 0
    assert [row["image_id"] for row in loaded(tmp_path / "out/results.json")] == [7]
    # without a file that says better, the number that a name is
    assert run(model, tmp_path / "plain", tmp_path / "in", "--formats", "coco") == 0
    assert [row["image_id"] for row in loaded(tmp_path / "plain/results.json")] == [12, 13]


def test_pictures_of_one_number_have_their_names_as_ids(model, photo, tmp_path):
    for folder in "ab":
        save(tmp_path / f"in/{folder}/01.png", photo)
    assert run(model, tmp_path / "out", tmp_path / "in", "--formats", "coco") == 0
    assert [row["image_id"] for row in loaded(tmp_path / "out/results.json")] == ["a/01", "b/01"]


def test_nobody_twice_and_only_the_best(model, photo, tmp_path):
    path = save(tmp_path / "photo.png", photo)
    boxes = tmp_path / "boxes.csv"
    rows = [(10, 10, 40, 50, 0.7), (10, 10, 40, 50, 0.9), (45, 5, 75, 55, 0.6)]
    boxes.write_text("file,x1,y1,x2,y2,score\n" + "".join(f"photo.png,{','.join(map(str, row))}\n" for row in rows))

    def scores(*words):
        out = tmp_path / "_".join(words or ("plain",))
        assert run(model, out, path, "--boxes", boxes, "--formats", "npz", *words) == 0
        return read_poses(out / "photo_poses.npz").poses[0].box_scores.tolist()

    assert scores() == pytest.approx([0.9, 0.6])
    assert scores("--nms", "1") == pytest.approx([0.7, 0.9, 0.6])
    assert scores("--nms", "1", "--max-people", "2") == pytest.approx([0.7, 0.9])


def test_results_that_are_there_are_kept(model, photo, tmp_path, capsys):
    path = save(tmp_path / "photo.png", photo)
    out = tmp_path / "out"
    assert run(model, out, path) == 0
    before = (out / "photo_results.json").read_bytes()
    assert run("no-such-model", out, path) == 2  # found out before a model is loaded
    assert "exists already (and 3 more of the results). Use --overwrite or another --out." in capsys.readouterr().err
    assert run(model, out, path, "--overwrite") == 0
    assert (out / "photo_results.json").read_bytes() == before
    # another picture may join it
    assert run(model, out, save(tmp_path / "other.png", photo)) == 0
    assert (out / "other_results.json").exists()


def test_a_broken_picture_costs_only_itself(model, photo, tmp_path, capsys):
    save(tmp_path / "in/good.png", photo)
    (tmp_path / "in/bad.png").write_bytes(b"nothing")
    assert run(model, tmp_path / "out", tmp_path / "in") == 1
    captured = capsys.readouterr()
    assert "1 of 2 inputs done" in captured.out
    assert "failed: " in captured.err
    assert "bad.png" in captured.err
    assert len(loaded(tmp_path / "out/results.json")) == 1
    assert run(model, tmp_path / "alone", tmp_path / "in/bad.png") == 2
    assert not (tmp_path / "alone").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no input"),
        (["none.jpg"], "no such file or folder"),
        (["PHOTO", "--formats"], "no format was named"),
        (["PHOTO", "--nms", "0"], "--nms 0"),
        (["PHOTO", "--max-people", "-1"], "--max-people -1"),
        (["PHOTO", "--keypoint-threshold", "nan"], "--keypoint-threshold nan"),
        (["PHOTO", "--box-threshold", "nan"], "--box-threshold nan"),
        (["PHOTO", "--model", "sdpose-body", "--batch-size", "0"], "a batch size of 0"),
        (["PHOTO", "--model", "sdpose-bodi"], "Did you mean sdpose-body"),
        (["PHOTO", "--detector", "PekingU/rtdetr_v2_r18vd"], "hf download PekingU/rtdetr_v2_r18vd"),
        (["PHOTO", "--boxes", "none.json"], "none.json: no such file"),
    ],
)
def test_what_users_get_wrong_is_one_line(words, message, photo, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(save(tmp_path / "photo.png", photo))
    assert main(["pose", "predict", *(path if word == "PHOTO" else word for word in words)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("no --boxes")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "out").exists()


# --- videos -------------------------------------------------------------------------------------------------------


def walk(photo, count):
    """The picture moves to the right, two pixels a frame."""
    return [np.roll(photo, 2 * place, axis=1) for place in range(count)]


def frame_boxes(path, name, count):
    """Two people: one who walks to the right, one who stands still and is lost in frames 3 and 4."""
    frames = {}
    for place in range(count):
        walker, stander = [5 + 2 * place, 10, 25 + 2 * place, 50], [50, 12, 75, 58]
        frames[str(place)] = [walker] if place in (3, 4) else [stander, walker] if place % 2 else [walker, stander]
    path.write_text(json.dumps({name: frames}))
    return path


def test_a_video_with_people_who_keep_their_numbers(model, photo, tmp_path, capsys):
    count = 11  # more than the frames looked at together
    clip = write_video(tmp_path / "walk.mp4", walk(photo, count), 12.5)
    boxes = frame_boxes(tmp_path / "boxes.json", "walk.mp4", count)
    out = tmp_path / "out"
    words = ("--boxes", boxes, "--formats", "overlay", "coco", "openpose", "controlnet", "npz", "--nms", "1")
    assert run(model, out, clip, *words) == 0
    assert "20 people in 11 images and frames" in capsys.readouterr().out
    for name in ("walk_pose.mp4", "walk_controlnet.mp4"):
        frames = list(read_video(out / name))
        assert len(frames) == count
        assert frames[0].image.shape == (60, 80, 3)
        assert frames[1].seconds == pytest.approx(1 / 12.5, abs=1e-3)
    archive = read_poses(out / "walk_poses.npz")
    walker = [1] * count
    for place, poses in enumerate(archive.poses):
        left = poses.ids[poses.boxes[:, 0] == 5 + 2 * place]
        assert left.tolist() == walker[:1], place
        assert set(poses.ids.tolist()) == ({1} if place in (3, 4) else {1, 2})
    rows = loaded(out / "walk_results.json")
    assert [row["image_id"] for row in rows[:4]] == [0, 0, 1, 1]
    assert [row["track_id"] for row in rows[:4]] == [1, 2, 2, 1]
    documents = sorted((out / "walk_openpose").iterdir())
    assert [path.name for path in documents[:2]] == [f"walk_{n:012d}_keypoints.json" for n in (0, 1)]
    assert [person["person_id"] for person in loaded(documents[1])["people"]] == [[2], [1]]
    (record,) = loaded(out / "walk_about.json")["inputs"]
    assert (record["frames"], record["people"], record["persons"]) == (count, 20, 2)
    # frame by frame it is what pictures give
    frame = list(read_video(clip))[9].image
    expected = SDPosePredictor.from_pretrained(model, device="cpu")(frame, archive.poses[9].boxes)
    np.testing.assert_allclose(archive.poses[9].keypoints, expected.keypoints, atol=1e-3)
    # existing results of a video are kept, too
    assert run(model, out, clip, *words) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_video_without_tracking_and_without_people(model, photo, tmp_path):
    clip = write_video(tmp_path / "walk.mp4", walk(photo, 3), 25)
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"walk.mp4": {"1": [[10, 10, 40, 50]]}}))
    assert run(model, tmp_path / "out", clip, "--boxes", boxes, "--no-track", "--formats", "npz", "overlay") == 0
    archive = read_poses(tmp_path / "out/walk_poses.npz")
    assert [len(poses) for poses in archive.poses] == [0, 1, 0]
    assert archive.poses[1].ids is None
    assert len(list(read_video(tmp_path / "out/walk_pose.mp4"))) == 3


def test_a_video_that_ends_early_gives_what_it_has_and_says_so(model, tmp_path, capsys):
    rng = np.random.default_rng(0)
    whole = write_video(
        tmp_path / "whole.mp4", (rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(40)), 10
    )
    data = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 6 // 10])
    before: list[VideoFrame] = []
    with pytest.raises(InputError, match="breaks off"):
        before.extend(read_video(cut))
    good = len(before)
    assert 10 < good < 30
    out = tmp_path / "out"
    assert run(model, out, cut, "--formats", "overlay", "coco") == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error"))
    assert f"results of the {good} frames before are written" in line
    assert len(list(read_video(out / "cut_pose.mp4"))) == good
    assert [row["image_id"] for row in loaded(out / "cut_results.json")] == list(range(good))
    # among others it fails alone
    (tmp_path / "text.mp4").write_text("no video")
    assert run(model, tmp_path / "both", whole, tmp_path / "text.mp4", "--formats", "coco") == 1
    captured = capsys.readouterr()
    assert "1 of 2 inputs done" in captured.out
    assert "text.mp4: is broken" in captured.err


@pytest.mark.parametrize("reach", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 8, 11, 17])
def test_windows_hold_each_frame_once_with_its_neighbours(count, reach):
    seen = []
    frames = (VideoFrame(number, 0.0, np.zeros((1, 1, 3), np.uint8)) for number in range(count))
    for window, first, size in windows(frames, 8, reach):
        numbers = [frame.number for frame in window]
        piece = numbers[first : first + size]
        before, after = max(0, piece[0] - reach), min(count, piece[-1] + 1 + reach)
        assert numbers == list(range(before, after))
        seen += piece
    assert seen == list(range(count))


def test_windows_give_what_came_before_an_error():
    def frames():
        for number in range(10):
            yield VideoFrame(number, 0.0, np.zeros((1, 1, 3), np.uint8))
        raise InputError("breaks off")

    seen = []
    with pytest.raises(InputError, match="breaks off"):
        seen.extend((window[first].number, size) for window, first, size in windows(frames(), 8, 2))
    assert seen == [(0, 8), (8, 2)]


# --- other models -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory):
    spec = DiffPoseSpec(
        distance=1,
        input_size=SIZE,
        backbone="conv",
        backbone_settings={"widths": [4, 8, 8, 16]},
        width=16,
        layers=1,
        heads=2,
        decoder_width=16,
        decoder_heads=2,
    )
    folder = tmp_path_factory.mktemp("diffpose") / "model"
    DiffPoseModel.new(spec, seed=1).eval().save_pretrained(folder)
    return str(folder)


def test_diffpose_looks_at_clips(clip_model, photo, tmp_path):
    """Noise and neighbours do not depend on the batch, and a picture is a clip of one frame."""
    count = 10
    clip = write_video(tmp_path / "walk.mp4", walk(photo, count), 25)
    boxes = frame_boxes(tmp_path / "boxes.json", "walk.mp4", count)
    found = []
    for size in (1, 5):
        out = tmp_path / f"out{size}"
        words = ("--boxes", boxes, "--batch-size", size, "--steps", 2, "--nms", "1", "--formats", "npz", "openpose")
        assert run(clip_model, out, clip, *words) == 0
        found.append(read_poses(out / "walk_poses.npz"))
    for one, other in zip(*(archive.poses for archive in found), strict=True):
        np.testing.assert_allclose(one.keypoints, other.keypoints, atol=1e-2)
    about = loaded(tmp_path / "out1/walk_about.json")
    assert (about["skeleton"], about["steps"], about["crop"]) == ("posetrack", 2, "classic")
    path = save(tmp_path / "photo.png", photo)
    assert run(clip_model, tmp_path / "single", path, "--formats", "coco") == 0
    assert len(loaded(tmp_path / "single/photo_results.json")[0]["keypoints"]) == 3 * 17
    assert run(clip_model, tmp_path / "wrong", path, "--steps", "0") == 2


def test_diffpose_sees_gaps_of_a_video_as_in_training(clip_model, photo):
    """A neighbour that is not there is the key frame, not the next frame that is."""
    estimator = load_estimator(ModelConfig(model=clip_model, device="cpu", steps=1))
    frames = walk(photo, 3)
    nobody, somebody = image_boxes([], []), image_boxes([[10, 10, 50, 50]], [1.0])
    boxes = [nobody, somebody, nobody]
    alone = estimator.clip([frames[1]] * 3, boxes, "a")[1].keypoints
    np.testing.assert_array_equal(estimator.clip(frames, boxes, "a", numbers=[0, 4, 9])[1].keypoints, alone)
    assert (estimator.clip(frames, boxes, "a", numbers=[3, 4, 5])[1].keypoints != alone).any()


def test_the_baseline_of_convolutions(photo, tmp_path):
    folder = ConvPoseNetwork.new("tiny", input_size=SIZE, seed=1).save(tmp_path / "model")
    path = save(tmp_path / "photo.png", photo)
    assert run(str(folder), tmp_path / "out", path, "--formats", "npz") == 0
    found = read_poses(tmp_path / "out/photo_poses.npz").poses[0]
    expected = SDPosePredictor(ConvPoseNetwork.load(folder))(photo, [[0, 0, 80, 60]])
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-3)


def test_an_empty_name_is_no_model(tmp_path, capsys):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    assert main(["pose", "predict", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--model", ""]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out").exists()

"""Boxes from files in every layout, from mmdet's results, and from a small detector of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope_pose.data.boxes import ImageBoxes
from priorscope_pose.detectors import Shown, WholeImage, best_boxes, boxes_from_mmdet, read_box_file
from priorscope_pose.detectors.base import image_boxes

REAL = Path(__file__).resolve().parents[3] / "shared/data/pose/coco"


def written(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def corners(found):
    return found.boxes.tolist()


# --- which boxes are taken ----------------------------------------------------------------------------------------


def test_best_boxes_drops_what_cannot_be_cropped():
    """Without area, inside out, wholly outside, not finite: left out and counted. Partly outside: kept as it is."""
    boxes = [
        [10, 10, 50, 60],
        [20, 20, 20, 60],
        [50, 10, 10, 60],
        [200, 10, 260, 60],
        [-40, -40, -1, -1],
        [np.nan, 0, 5, 5],
        [-30, 10, 40, 400],
        [10, 10, 50, 60],
    ]
    found = image_boxes(boxes, [0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.6, 0.4])
    taken, unusable = best_boxes(found, 100, 100, threshold=0.5)
    assert corners(taken) == [[10, 10, 50, 60], [-30, 10, 40, 400]]
    assert taken.ids.tolist() == [0, 6]
    assert unusable == 5
    assert best_boxes(found, 100, 100)[0].ids.tolist() == [0, 6, 7]


def test_best_boxes_keeps_the_best_in_their_order():
    found = image_boxes([[0, 0, 9, 9]] * 4, [0.3, 0.8, 0.5, 0.8])
    assert best_boxes(found, 10, 10, limit=2)[0].ids.tolist() == [1, 3]
    assert best_boxes(found, 10, 10, limit=3)[0].ids.tolist() == [1, 2, 3]
    nobody, unusable = best_boxes(image_boxes([], []), 10, 10, limit=2)
    assert len(nobody) == unusable == 0


def test_whole_image():
    (found,) = WholeImage()([np.zeros((30, 40, 3), np.uint8)], [Shown(Path("a.jpg"))])
    assert corners(found) == [[0, 0, 40, 30]]
    assert best_boxes(found, 40, 30, threshold=1)[1] == 0


# --- files --------------------------------------------------------------------------------------------------------


def test_detections_in_cocos_layout(tmp_path):
    rows = [
        {"image_id": 785, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.9},
        {"image_id": 785, "category_id": 2, "bbox": [0, 0, 5, 5], "score": 0.9},
        {"image_id": "b/x.png", "bbox": [1, 2, 3, 4], "score": 0.2},
    ]
    file = read_box_file(written(tmp_path, "dets.json", rows))
    assert len(file) == 2
    assert corners(file.of(Shown(Path("/data/000000000785.jpg")))) == [[10, 20, 40, 60]]
    assert corners(file.of(Shown(Path("COCO_val2014_000000000785.jpg")))) == [[10, 20, 40, 60]]
    assert file.image_id(Path("000000000785.jpg")) == 785
    assert corners(file.of(Shown(Path("/data/b/x.png")))) == [[1, 2, 4, 6]]
    assert len(file.of(Shown(Path("/data/x.png")))) == 0
    assert file.image_id(Path("y.png")) is None


def test_detections_without_area_are_counted_not_lost(tmp_path):
    """As in the other layouts; a picture all of whose boxes are so is named nevertheless."""
    rows = [{"image_id": "photo", "bbox": [50, 50, -20, 40], "score": 1.0}]
    file = read_box_file(written(tmp_path, "dets.json", rows))
    file.check([Path("photo.jpg")])
    taken, unusable = best_boxes(file.of(Shown(Path("photo.jpg"))), 100, 100)
    assert (len(taken), unusable) == (0, 1)


def test_detections_of_a_video_are_numbered_by_frame(tmp_path):
    rows = [{"image_id": frame, "bbox": [frame, 0, 10, 10], "score": 1.0} for frame in (0, 2)]
    file = read_box_file(written(tmp_path, "dets.json", rows))
    clip = Path("walk.mp4")
    assert corners(file.of(Shown(clip, 2))) == [[2, 0, 12, 10]]
    assert len(file.of(Shown(clip, 1))) == 0
    file.check([clip])
    with pytest.raises(InputError, match=r"one list of frames for 2 videos\. Give one video at a time"):
        file.check([clip, Path("run.mp4")])


def test_annotations_in_cocos_layout(tmp_path):
    content = {
        "images": [
            {"id": 7, "file_name": "a/x.jpg"},
            {"id": 8, "file_name": "b/x.jpg"},
            {"id": 9, "file_name": "y.jpg"},
        ],
        "annotations": [
            {"id": 70, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            {"id": 71, "image_id": 7, "category_id": 1, "bbox": [0, 0, 100, 100], "iscrowd": 1},
            {"id": 72, "image_id": 8, "category_id": 1, "bbox": [5, 5, 5, 5]},
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    file = read_box_file(written(tmp_path, "gt.json", content))
    first = file.of(Shown(tmp_path / "a/x.jpg"))
    assert corners(first) == [[1, 2, 4, 6]]
    assert first.ids.tolist() == [70]
    assert first.scores.tolist() == [1]
    assert file.image_id(tmp_path / "b/x.jpg") == 8
    assert len(file.of(Shown(Path("y.jpg")))) == 0
    file.check([tmp_path / "y.jpg"])  # named, with nobody in it


def test_plain_json(tmp_path):
    content = {
        "photo.jpg": [[1, 2, 3, 4], [5, 6, 7, 8, 0.25]],
        "sub/photo.jpg": [],
        "clip.mp4": {"0": [[1, 1, 9, 9]], "12": [[2, 2, 9, 9, 0.5]]},
    }
    file = read_box_file(written(tmp_path, "boxes.json", content))
    found = file.of(Shown(Path("/x/photo.jpg")))
    assert corners(found) == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert found.scores.tolist() == [1, 0.25]
    assert len(file.of(Shown(Path("/x/sub/photo.jpg")))) == 0  # the longest name that fits
    assert corners(file.of(Shown(Path("clip.mp4"), 12))) == [[2, 2, 9, 9]]
    assert len(file.of(Shown(Path("clip.mp4"), 5))) == 0


def test_csv(tmp_path):
    text = "file, x1, y1, x2, y2, score, frame\nphoto.jpg,1,2,3,4,0.5,\nphoto.jpg,5,6,7,8,,\nclip.mp4,1,1,2,2,,3\n"
    file = read_box_file(written(tmp_path, "boxes.csv", text))
    found = file.of(Shown(Path("photo.jpg")))
    assert corners(found) == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert found.scores.tolist() == [0.5, 1]
    assert corners(file.of(Shown(Path("clip.mp4"), 3))) == [[1, 1, 2, 2]]
    plain = read_box_file(written(tmp_path, "plain.csv", "\ufefffile,x1,y1,x2,y2\nC:\\pictures\\a.jpg,1,2,3,4\n"))
    assert corners(plain.of(Shown(Path("/pictures/a.jpg")))) == []
    assert corners(plain.of(Shown(Path("/C:/pictures/a.jpg")))) == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "is not valid JSON"),
        ("a.json", 3, "holds a JSON int, no boxes"),
        ("a.json", {"photo.jpg": [[1, 2, 3]]}, r"photo\.jpg has no list of boxes\. Give a list"),
        ("a.json", {"photo.jpg": [[1, 2, 3, "x"]]}, "is not of numbers"),
        ("a.json", '{"photo.jpg": [[1, 2, 3, NaN]]}', "is not finite"),
        ("a.json", {"clip.mp4": {"first": []}}, "'first' is no frame number"),
        ("a.json", [{"image_id": 1, "bbox": [1, 2], "score": 1}], "box 0: its box is not four numbers"),
        ("a.json", [{"image_id": 1, "bbox": [1, 2, 3, 4]}], "box 0 has no 'score'"),
        ("a.csv", "x,y\n1,2\n", "has no column 'file'. The first line names file, x1"),
        ("a.csv", "file,x1,y1,x2,y2\na.jpg,1,2,3,4\na.jpg,1,2,3\n", "line 3 is no box: a.jpg,1,2,3"),
        ("a.csv", "file,x1,y1,x2,y2\na.jpg,1,2,3,inf\n", "line 2 is no box"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, message):
    path = written(tmp_path, name, content)
    with pytest.raises(InputError, match=message) as error:
        read_box_file(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files(tmp_path):
    for name in ("none.json", "none.csv"):
        with pytest.raises(InputError, match="no such file"):
            read_box_file(tmp_path / name)


def test_a_file_for_other_inputs_is_refused(tmp_path):
    file = read_box_file(written(tmp_path, "boxes.json", {"photo.jpg": [[1, 2, 3, 4]]}))
    with pytest.raises(InputError, match=r"names none of the inputs \(other\.jpg\)\. It names photo\.jpg"):
        file.check([Path("other.jpg")])
    with pytest.raises(InputError, match=r"its boxes of 'photo\.jpg' fit a/photo\.jpg and b/photo\.jpg"):
        file.check([Path("a/photo.jpg"), Path("b/photo.jpg")])
    file.check([Path("a/photo.jpg"), Path("b/other.jpg")])
    with pytest.raises(InputError, match="holds no box of a person"):
        read_box_file(written(tmp_path, "empty.json", [])).check([Path("a.jpg")])


def test_a_file_for_some_of_the_inputs_says_for_which(tmp_path):
    boxes = {f"{name}.jpg": [[1, 2, 3, 4]] for name in "abcdef"}
    file = read_box_file(written(tmp_path, "boxes.json", boxes))
    assert file.check([Path("a.jpg"), Path("b.jpg")]) is None
    assert file.check([Path(f"{name}.jpg") for name in "axyzw"]) == (
        "boxes.json names 1 of 5 inputs, nobody is looked for in x.jpg, y.jpg, z.jpg, ...; "
        "it also names b.jpg, c.jpg, d.jpg, ..."
    )
    assert file.check([Path(f"{name}.jpg") for name in "abcdefg"]).endswith(
        "names 6 of 7 inputs, nobody is looked for in g.jpg"
    )
    assert file.check([Path("a.jpg"), Path("clip.mp4")]).startswith(
        "boxes.json names 1 of 2 inputs, nobody is looked for in clip.mp4"
    )


def test_boxes_of_another_video_or_of_no_frame_are_refused(tmp_path):
    clip = Path("clip.mp4")
    rows = [{"image_id": number, "bbox": [1, 2, 3, 4], "score": 1.0} for number in (785, 40083)]
    for content in (rows, {"clip.mp4": {"785": [[1, 2, 3, 4]], "40083": []}}):
        file = read_box_file(written(tmp_path, "boxes.json", content))
        file.check([clip])
        file.check_frames(clip, 786)
        with pytest.raises(
            InputError, match=r"no box for the frames 0 to 7 of clip\.mp4\. It has boxes for 785, 40083:"
        ):
            file.check_frames(clip, 8)
    for name, content, words in (
        (
            "a.json",
            [{**rows[0], "image_id": "street"}],
            r"its image ids \(street\) are no numbers of frames of clip\.mp4",
        ),
        ("b.json", {"clip.mp4": [[1, 2, 3, 4]]}, r"its boxes of 'clip\.mp4' are not those of frames\. In JSON give"),
        ("c.csv", "file,x1,y1,x2,y2\nclip.mp4,1,2,3,4\n", "are not those of frames"),
        ("d.json", [], "holds no box of a person"),
    ):
        with pytest.raises(InputError, match=words):
            read_box_file(written(tmp_path, name, content)).check([clip])


@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples here")
def test_real_files_of_coco():
    images = sorted(REAL.glob("*.jpg"))
    detections, annotations = (read_box_file(REAL / f"test_coco{name}.json") for name in ("_det_AP_H_56", ""))
    detections.check(images)
    assert sum(len(detections.of(Shown(path))) for path in images) == 118
    assert sum(len(annotations.of(Shown(path))) for path in images) == 14
    assert [annotations.image_id(path) for path in images] == [785, 40083, 196141, 197388]
    # the detector found the annotated people: for each, a box of at least half its area shared
    from priorscope_pose.tracking import box_overlap

    for path in images:
        overlap = box_overlap(annotations.of(Shown(path)).boxes, detections.of(Shown(path)).boxes)
        assert overlap.max(1).min() > 0.5


# --- mmdet --------------------------------------------------------------------------------------------------------


def test_results_of_mmdet():
    boxes = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [1, 1, 2, 2]])
    parts = {"bboxes": boxes, "scores": torch.tensor([0.9, 0.4, 0.8]), "labels": torch.tensor([0, 0, 17])}
    instances = SimpleNamespace(**parts)
    plain = {name: value.tolist() for name, value in parts.items()}
    table = np.array([[1, 2, 3, 4, 0.9], [5, 6, 7, 8, 0.4]])
    for result in (
        SimpleNamespace(pred_instances=instances),
        instances,
        parts,
        plain,
        table,
        [table, np.zeros((0, 5)), np.ones((1, 5))],
    ):
        found = boxes_from_mmdet(result)
        assert isinstance(found, ImageBoxes)
        assert corners(found) == [[1, 2, 3, 4], [5, 6, 7, 8]]
        np.testing.assert_allclose(found.scores, [0.9, 0.4], rtol=1e-6)
    assert corners(boxes_from_mmdet(parts, person=17)) == [[1, 1, 2, 2]]
    assert boxes_from_mmdet(boxes).scores.tolist() == [1, 1, 1]
    assert len(boxes_from_mmdet(np.zeros((0, 5)))) == 0
    assert len(boxes_from_mmdet({"bboxes": [], "scores": [], "labels": []})) == 0


@pytest.mark.parametrize("result", [None, "boxes", np.zeros((2, 3)), {}, []])
def test_what_is_no_result_of_mmdet(result):
    with pytest.raises(InputError, match="no result of mmdet"):
        boxes_from_mmdet(result)
    with pytest.raises(InputError, match="1 boxes with 2 scores"):
        boxes_from_mmdet({"bboxes": [[1, 2, 3, 4]], "scores": [1, 2]})


# --- transformers -------------------------------------------------------------------------------------------------

NAMES = {"id2label": {0: "dog", 1: "person", 2: "tree"}, "label2id": {"dog": 0, "person": 1, "tree": 2}}
PREPARATION = {"size": {"height": 64, "width": 96}, "rescale_factor": 1 / 255, "do_normalize": False}


def small_detr(family="RTDetr"):
    """A detector with a tiny backbone and random weights."""
    import transformers
    from transformers import RTDetrResNetConfig

    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic", out_indices=[2, 3, 4]
    )
    config = getattr(transformers, f"{family}Config")(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 16, 16],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
        num_queries=6,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_denoising=0,
        **NAMES,
    )
    torch.manual_seed(0)
    return getattr(transformers, f"{family}ForObjectDetection")(config).eval()


def small_rf_detr():
    from transformers import RfDetrConfig, RfDetrForObjectDetection
    from transformers.models.rf_detr.configuration_rf_detr import RfDetrDinov2Config

    backbone = RfDetrDinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        num_windows=2,
        out_indices=[1, 2, 3, 4],
    )
    config = RfDetrConfig(
        backbone_config=backbone,
        d_model=16,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        num_queries=6,
        group_detr=1,
        decoder_n_points=2,
        intermediate_size=16,
        **NAMES,
    )
    torch.manual_seed(0)
    return RfDetrForObjectDetection(config).eval()


@pytest.fixture(scope="module")
def detr_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detr") / "model"
    small_detr().save_pretrained(folder)
    written(folder, "preprocessor_config.json", PREPARATION)
    return folder


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((50, 80, 3), (120, 90, 3))]


def test_transformers_detector_says_what_transformers_says(detr_folder, photos):
    """Pixels and boxes as RTDetrImageProcessor prepares and reads them."""
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

    from priorscope_pose.detectors.transformers_detr import TransformersDetector

    detector = TransformersDetector.from_pretrained(detr_folder, device="cpu")
    assert detector.person == 1
    processor = RTDetrImageProcessorPil(**PREPARATION)
    inputs = processor(images=photos, return_tensors="pt")
    for picture, theirs in zip(photos, inputs["pixel_values"], strict=True):
        np.testing.assert_allclose(detector.prepare(picture), theirs.numpy(), atol=1e-6)
    with torch.no_grad():
        answer = detector.model(**{"pixel_values": inputs["pixel_values"]})
    sizes = [picture.shape[:2] for picture in photos]
    # all queries of all classes, of which we take a person's
    logits = answer.logits
    answer.logits = torch.where(torch.arange(3) == 1, logits, torch.full_like(logits, -50))
    expected = processor.post_process_object_detection(answer, threshold=1e-6, target_sizes=sizes)
    found = detector(photos)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) == 6
        assert (np.diff(ours.scores) <= 0).all()
        np.testing.assert_allclose(ours.scores, theirs["scores"], atol=1e-5)
        np.testing.assert_allclose(ours.boxes, theirs["boxes"], atol=1e-2)
    assert detector([]) == []
    # one by one is as together
    for picture, ours in zip(photos, found, strict=True):
        np.testing.assert_allclose(detector([picture])[0].boxes, ours.boxes, atol=1e-2)


def test_predict_asks_the_detector(detr_folder, photos, tmp_path):
    """The command's boxes are the best of the detector's."""
    from PIL import Image

    from priorscope.cli import main
    from priorscope_pose.detectors.transformers_detr import TransformersDetector
    from priorscope_pose.formats import read_poses
    from priorscope_pose.sdpose.checkpoint import save_network
    from priorscope_pose.sdpose.small import new_model

    model = save_network(new_model("tiny", input_size=(32, 48)), tmp_path / "model")
    Image.fromarray(photos[1]).save(tmp_path / "photo.png")
    words = ["--detector", str(detr_folder), "--model", str(model), "--out", str(tmp_path / "out"), "--device", "cpu"]
    words += ["--box-threshold", "0", "--max-people", "2", "--nms", "1", "--formats", "npz"]
    assert main(["pose", "predict", str(tmp_path / "photo.png"), *words]) == 0
    (expected,) = TransformersDetector.from_pretrained(detr_folder, device="cpu")([photos[1]])
    taken, _ = best_boxes(expected, 90, 120, limit=2)
    found = read_poses(tmp_path / "out/photo_poses.npz").poses[0]
    assert len(found) == 2
    np.testing.assert_allclose(found.boxes, taken.boxes, atol=1e-3)
    np.testing.assert_allclose(found.box_scores, taken.scores, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: small_detr("RTDetrV2"), (64, 96)),
        (lambda: small_detr("DFine"), (64, 96)),
        (small_rf_detr, (56, 56)),
    ],
    ids=["RTDetrV2", "DFine", "RfDetr"],
)
def test_the_other_families_load_and_answer(make, size, photos, tmp_path):
    from priorscope_pose.detectors.transformers_detr import TransformersDetector

    model = make()
    model.save_pretrained(tmp_path / "model")
    written(tmp_path / "model", "preprocessor_config.json", {"size": {"height": size[0], "width": size[1]}})
    detector = TransformersDetector.from_pretrained(tmp_path / "model", device="cpu")
    pixels = torch.from_numpy(np.stack([detector.prepare(picture) for picture in photos]))
    with torch.no_grad():
        answer = model(pixel_values=pixels)
    for place, (found, picture) in enumerate(zip(detector(photos), photos, strict=True)):
        scores = answer.logits[place, :, 1].sigmoid().numpy()
        np.testing.assert_allclose(found.scores, np.sort(scores)[::-1], atol=1e-5)
        # the middle and the size of the best box, in parts of the picture
        x, y, width, height = answer.pred_boxes[place, scores.argmax()].numpy() * np.tile(picture.shape[1::-1], 2)
        expected = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        np.testing.assert_allclose(found.boxes[0], expected, atol=1e-2)


def test_normalised_pixels(photos):
    from priorscope_pose.detectors.transformers_detr import TransformersDetector

    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    model = small_detr()
    plain = TransformersDetector(model, PREPARATION).prepare(photos[0])
    changes = {"do_normalize": True, "image_mean": mean, "image_std": std}
    normal = TransformersDetector(model, PREPARATION | changes).prepare(photos[0])
    np.testing.assert_allclose(normal, (plain - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1)), atol=1e-5)


def test_what_a_detector_folder_may_lack(detr_folder, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    from priorscope_pose.detectors.transformers_detr import TransformersDetector

    def changed(name, **changes):
        folder = tmp_path / name
        shutil.copytree(detr_folder, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
        return folder

    with pytest.raises(InputError, match=r"is a yolos, no detector known here\. Use rt_detr, rt_detr_v2"):
        TransformersDetector.from_pretrained(changed("yolos", model_type="yolos"), device="cpu")
    labels = {"id2label": {"0": "cat", "1": "cow", "2": "bus"}, "label2id": {"cat": 0, "cow": 1, "bus": 2}}
    with pytest.raises(InputError, match=r"knows no person\. It finds cat"):
        TransformersDetector.from_pretrained(changed("cats", **labels), device="cpu")
    halved = changed("halved")
    weights = load_file(halved / "model.safetensors")
    lost = next(key for key in weights if "encoder" in key and "weight" in key)
    save_file({key: value for key, value in weights.items() if key != lost}, halved / "model.safetensors")
    with pytest.raises(InputError, match="lacks 1 weights"):
        TransformersDetector.from_pretrained(halved, device="cpu")
    (halved / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"preprocessor_config\.json: is missing"):
        TransformersDetector.from_pretrained(halved, device="cpu")
    with pytest.raises(InputError, match="no fixed size"):
        TransformersDetector(small_detr(), {"size": {"shortest_edge": 800}})


def test_a_detector_that_is_not_here_says_how_to_get_it():
    """The tests' environment has no network: one line, which names the command."""
    from priorscope_pose.detectors.transformers_detr import TransformersDetector

    with pytest.raises(InputError, match=r"not in the local cache.*hf download PekingU/rtdetr_v2_r18vd") as error:
        TransformersDetector.from_pretrained("PekingU/rtdetr_v2_r18vd", device="cpu")
    assert "\n" not in str(error.value)

"""``priorscope remote-sensing train`` and ``evaluate``: every kind of data, runs that survive, mistakes named."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from PIL import Image
from rasterio.transform import from_origin

from priorscope.cli import main
from priorscope.errors import InputError
from priorscope.evaluation import RunFolder
from priorscope.training import LoopConfig
from priorscope_remote_sensing.configs import DataConfig, TrainConfig
from priorscope_remote_sensing.data.bands import RECIPES, SENTINEL2
from priorscope_remote_sensing.data.eurosat import CLASSES
from priorscope_remote_sensing.data.geobench import GeoBenchSample
from priorscope_remote_sensing.data.legend import Legend
from priorscope_remote_sensing.data.rasters import geotiff_writer, write_geotiff
from priorscope_remote_sensing.fusers import ExpertFuser
from priorscope_remote_sensing.predictor import SatellitePredictor
from priorscope_remote_sensing.prior import ReflectanceSpace, TerrainPrior
from priorscope_remote_sensing.satdifuser import SatDiFuserModel
from priorscope_remote_sensing.settings import SatDiFuserSettings
from priorscope_remote_sensing.train import train
from priorscope_remote_sensing.training import examples
from priorscope_remote_sensing.training.examples import LabelledSet, kind_of, open_split, open_training
from priorscope_remote_sensing.training.feed import ExampleFeed, stacked, turned
from priorscope_remote_sensing.training.task import best_look

SIDE = 64
NAMES = ("water", "land")
PLACE = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5.2e6, 10, 10)}
LOOP = {
    "steps": 4,
    "batch_size": 2,
    "lr": 1e-2,
    "warmup": 1,
    "optimizer": "adam",
    "ema": 0.0,
    "log_every": 1,
    "validate_every": 2,
    "checkpoint_every": 2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior") / "prior"
    TerrainPrior.new(ReflectanceSpace([-2.0] * 13, [1.0] * 13)).save_pretrained(folder)
    return folder


def write_scene(folder, name="scene", *, seed=0, crs=PLACE["crs"]):
    """Thirteen bands over two classes that differ in brightness, in stripes of 8 pixels; labels as rasters."""
    classes = (np.arange(SIDE) // 8 % 2).astype(np.uint8)[None].repeat(SIDE, axis=0)
    rng = np.random.default_rng(seed)
    values = (500 + 2000 * classes.astype(np.uint16) + rng.integers(0, 200, (13, SIDE, SIDE))).astype(np.uint16)
    write_geotiff(folder / f"{name}.tif", values, band_names=SENTINEL2, **{**PLACE, "crs": crs})
    with geotiff_writer(
        folder / "labels" / f"{name}.tif",
        {"count": 1, "height": SIDE, "width": SIDE, "dtype": "uint8"},
        **{**PLACE, "crs": crs},
    ) as target:
        Legend.of(NAMES).mark(target, "labels")
        target.write(classes, 1)
    return folder / f"{name}.tif", folder / "labels" / f"{name}.tif"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture
def small(prior, scene, tmp_path):
    """``small(name, **changes)``: a quick configuration; changes of the loop and the data are found by name."""

    def make(name, **changes):
        loop = LOOP | {key: changes.pop(key) for key in list(changes) if key in LoopConfig.__dataclass_fields__}
        source = {"data": str(scene[0]), "labels": scene[1], "patch": 16}
        source |= {key: changes.pop(key) for key in list(changes) if key in DataConfig.__dataclass_fields__}
        plain = {"backbone": str(prior), "projection": 8, "head_channels": 8, "held_out": 4, "experts": 2}
        return TrainConfig(DataConfig(**source), out=tmp_path / name, loop=LoopConfig(**loop), **plain | changes)

    return make


def a_model(*, names=NAMES, recipe="sentinel2", task="segmentation"):
    return SatDiFuserSettings(task, names, RECIPES[recipe], "tiny-terrain")


def going_on(config, **changes):
    return replace(config, loop=replace(config.loop, resume=True, **changes))


def weights(folder):
    return SatDiFuserModel.from_pretrained(folder).decoder.state_dict()


# ---- data -------------------------------------------------------------------------------------------------------


def test_rasters_are_split_by_blocks(scene):
    config = DataConfig(str(scene[0]), labels=scene[1], patch=16)
    data, held_out = open_training(config, RECIPES["sentinel2"])
    assert (data.task, data.names, len(data) + len(held_out)) == ("segmentation", NAMES, 16)
    assert not set(data.indices) & set(held_out.indices)
    again = open_split(config, "test", a_model(), patch=16)
    assert again.indices == held_out.indices
    assert len(open_split(config, "auto", a_model())) == 16
    example = data.read(0)
    assert example.image.shape == (13, 16, 16)
    np.testing.assert_array_equal(example.label, np.arange(16)[None].repeat(16, axis=0) // 8)
    assert example.metadata.gsd == pytest.approx(10, rel=1e-3)
    assert len(data.some(3, seed=1)) == 3
    assert data.some(3, seed=1).indices == data.some(3, seed=1).indices


def test_rasters_of_one_name_in_several_folders(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels.tif"
    for index, folder in enumerate(("2020", "2021/may")):
        _, written = write_scene(images / folder, "scene", seed=index)
        written.rename(labels)
    for folder, keys in (
        (images / "2020", ["scene.tif:0,0"]),
        (images, ["2020/scene.tif:0,0", "2021/may/scene.tif:0,0"]),
    ):
        data = open_split(DataConfig(str(folder), labels=labels, patch=32), "all", a_model())
        assert [data.key(place) for place in range(0, len(data), 4)] == keys


def test_vector_labels(scene, tmp_path):
    x, y = 5e5, 5.2e6
    boxes = [shapely.box(x, y - 640, x + 320, y), shapely.box(x + 320, y - 640, x + 640, y)]
    path = tmp_path / "fields.gpkg"
    columns = [np.array(["west", "east"], dtype=object)]
    pyogrio.raw.write(path, shapely.to_wkb(boxes), columns, ["kind"], crs=PLACE["crs"], geometry_type="Polygon")
    data, _ = open_training(DataConfig(str(scene[0]), labels=path, column="kind", patch=16), RECIPES["sentinel2"])
    assert data.names == ("east", "west")
    for place in range(len(data)):
        example = data.read(place)
        left = int(example.key.split(",")[1])
        assert (example.label == (1 if left < 32 else 0)).all()


def test_geobench_and_eurosat_are_told_apart(scene, tmp_path):
    for name in CLASSES:
        (tmp_path / "2750" / name).mkdir(parents=True)
        for index in range(6):
            Image.new("RGB", (64, 64), (index, 3, 4)).save(tmp_path / "2750" / name / f"{name}_{index}.jpg")
    assert kind_of(DataConfig("m-eurosat")) == "geobench"
    assert kind_of(DataConfig(str(scene[0]))) == "rasters"
    assert kind_of(DataConfig(str(scene[0].parent))) == "rasters"
    assert kind_of(DataConfig(str(tmp_path))) == "eurosat"
    data, held_out = open_training(DataConfig(str(tmp_path)))
    assert data.task == "classification"
    assert data.recipe == RECIPES["rgb"]
    assert len(data) > len(held_out) > 0
    assert CLASSES[data.read(0).label] in data.key(0)


def test_geobench_by_its_name(monkeypatch):
    asked = []

    class Task(list):
        kind, names, recipe, no_data = "multi-label", ("a", "b"), RECIPES["rgb"], None
        samples = ("one", "two")

        def __init__(self, *words, **options):
            super().__init__([GeoBenchSample("one", np.zeros((3, 8, 8), np.float32), np.array([0, 1], np.float32))] * 2)
            asked.append((*words, options["partition"]))

    monkeypatch.setattr(examples, "GeoBench", Task)
    config = DataConfig("m-bigearthnet", partition="0.01x_train")
    data, _ = open_training(config)
    assert (data.task, data.names, len(data), data.key(1)) == ("multi-label", ("a", "b"), 2, "two")
    batch = stacked([data.read(0), data.read(1)])
    assert batch["label"].dtype == torch.float32
    model = a_model(names=("a", "b"), recipe="rgb", task="multi-label")
    open_split(config, "auto", model)
    assert asked == [("m-bigearthnet", split, "0.01x_train") for split in ("train", "valid", "test")]
    with pytest.raises(InputError, match="--split all is for rasters"):
        open_split(config, "all", model)
    with pytest.raises(InputError, match="a set for multi-label, the model one for classification"):
        open_split(config, "auto", replace(model, task="classification"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "m-nothing"}, "neither a file or folder nor a task"),
        ({"labels": None}, "rasters without labels"),
        ({"labels": "none.gpkg"}, "no such file or folder of labels"),
        ({"column": "kind"}, "--column is for vector files"),
        ({"classes": ("water", "land")}, "VALUE=NAME"),
        ({"classes": ("0=water", "0=land")}, "each value once"),
        ({"recipe": "nothing"}, "no band recipe 'nothing'"),
        ({"recipe": "rgb", "bands": ("B04",)}, "both --recipe and --bands"),
        ({"bands": ("B04",), "divisor": -1.0}, "--divisor -1"),
        ({"block": 1e6}, "one block"),
        ({"split_seed": -1}, "--split-seed -1"),
    ],
)
def test_data_that_cannot_be_read(scene, changes, words, tmp_path):
    given = {"data": str(scene[0]), "labels": scene[1], "patch": 16} | changes
    if isinstance(given["labels"], str):
        given["labels"] = tmp_path / given["labels"]
    with pytest.raises(InputError, match=words):
        open_training(DataConfig(**given), RECIPES["sentinel2"])


def test_labels_and_bands_that_must_be_named(scene, tmp_path):
    with pytest.raises(InputError, match="--recipe"):
        open_training(DataConfig(str(scene[0]), labels=scene[1]))
    bare = write_geotiff(tmp_path / "bare.tif", np.zeros((SIDE, SIDE), np.uint8), **PLACE)
    with pytest.raises(InputError, match="--classes 1=water"):
        open_training(DataConfig(str(scene[0]), labels=bare), RECIPES["sentinel2"])
    named = DataConfig(str(scene[0]), labels=bare, classes=("0=nothing", "3=some"), patch=16)
    assert open_training(named, RECIPES["sentinel2"])[0].names == ("nothing", "some")
    with pytest.raises(InputError, match="those of the model land, water"):
        open_split(DataConfig(str(scene[0]), labels=scene[1]), "all", a_model(names=("land", "water")))


def test_mixed_projections(tmp_path, prior, capsys):
    write_scene(tmp_path, "a")
    write_scene(tmp_path, "b", crs="EPSG:32634")
    (tmp_path / "images").mkdir()
    for name in "ab":
        (tmp_path / f"{name}.tif").rename(tmp_path / "images" / f"{name}.tif")
    config = DataConfig(str(tmp_path / "images"), labels=tmp_path / "labels", patch=16)
    with pytest.raises(InputError, match="different coordinate reference systems"):
        open_training(config, RECIPES["sentinel2"])
    words = ["train", "--data", tmp_path / "images", "--labels", tmp_path / "labels", "--backbone", prior]
    assert main(["remote-sensing", *map(str, words), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_batches_are_fixed_by_step_and_turned_together_with_their_labels(scene):
    data, _ = open_training(DataConfig(str(scene[0]), labels=scene[1], patch=16), RECIPES["sentinel2"])
    feed = ExampleFeed(data, 4, seed=3, augment=True)
    whole, part = feed.batch(5, range(4)), feed.batch(5, range(2, 4))
    assert whole["key"][2:] == part["key"]
    torch.testing.assert_close(whole["image"][2:], part["image"])
    # the bright class is bright wherever the patch was turned
    bright = whole["image"].mean(1) > 0.15
    assert torch.equal(bright.long(), whole["label"])
    seen = {turned(data.read(0), turn).image.tobytes() for turn in range(8)}
    assert len(seen) == 8
    assert turned(data.read(0), 0).image.tobytes() == data.read(0).image.tobytes()
    with pytest.raises(InputError, match="different sizes"):
        stacked([data.read(0), data.read(0)._replace(image=np.zeros((13, 8, 8), np.float32))])


# ---- training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fuser", ["gw", "lw", "moe"])
def test_a_training_learns_and_its_model_maps(small, fuser, scene, tmp_path, capsys):
    config = small(fuser, fuser=fuser, steps=12, validate_every=6, keep="maps", batch_size=4, dense_steps=3)
    result = train(config)
    assert result.finished
    rows = [row for row in RunFolder(config.out).history() if "loss" in row]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    look = best_look(config.out / "checkpoints" / "best.safetensors")
    looks = {row["step"]: row["held_out_miou"] for row in RunFolder(config.out).history() if "held_out_miou" in row}
    assert look["score"] == pytest.approx(max(score for step, score in looks.items() if step))
    assert looks[look["step"]] == pytest.approx(look["score"])
    assert "best of all looks" in (config.out / "report.html").read_text()
    model = SatDiFuserModel.from_pretrained(result.model)
    assert model.settings.classes == NAMES
    if isinstance(model.decoder, ExpertFuser):
        assert int(model.decoder.updates_done) in (look["step"] - 1, look["step"])
    words = ["predict", scene[0], "--model", result.model, "--out", tmp_path / "map", "--device", "cpu"]
    assert main(["remote-sensing", *map(str, words)]) == 0
    with rasterio.open(tmp_path / "map" / "scene.tif") as made:
        assert made.shape == (SIDE, SIDE)


def test_a_cut_run_goes_on_as_if_it_had_not_been(small):
    whole, cut = (
        small("whole", fuser="moe", augment=True, dense_steps=2),
        small("cut", fuser="moe", augment=True, dense_steps=2),
    )
    train(whole)
    first = train(replace(cut, loop=replace(cut.loop, max_seconds=1e-6)))
    assert not first.finished
    train(going_on(cut, max_seconds=0.0))
    strip = [
        [{k: v for k, v in row.items() if k != "examples_per_second"} for row in RunFolder(config.out).history()]
        for config in (whole, cut)
    ]
    assert strip[0] == strip[1]
    one, other = weights(whole.out / "model"), weights(cut.out / "model")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_early_end_and_epochs(small, monkeypatch):
    from priorscope_remote_sensing.training import task as module

    monkeypatch.setattr(module, "figures", lambda counts: {"miou": 0.5})  # no look is better than the first
    config = small("early", patience=2, steps=20, validate_every=1)
    result = train(config)
    assert result.finished
    metrics = json.loads((config.out / "metrics.json").read_text())
    assert (metrics["best_step"], metrics["best_score"]) == (1, 0.5)
    assert (config.out / "model" / "decoder.safetensors").is_file()
    assert len(RunFolder(config.out).history()) < 6
    assert result.step == 3  # two looks after the best
    assert train(going_on(config)) == result  # has ended
    by_epochs = small("epochs", epochs=1, held_out=0, batch_size=4)
    assert train(by_epochs).step == len(open_training(by_epochs.source, RECIPES["sentinel2"])[0]) // 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"projection": 6}, "--projection 6"),
        ({"patience": 2, "held_out": 0}, "--patience without"),
        ({"epochs": -1}, "--epochs -1"),
        ({"balance": float("nan")}, "--balance nan"),
        ({"seed": -1}, "--seed -1"),
        ({"lora": 4}, "--lora 4 for a network that begins with random weights"),
        ({"gradient_checkpointing": True}, "--gradient-checkpointing for a network that has none"),
        ({"recipe": "sentinel2-rgb"}, "the backbone takes B01"),
        ({"use_metadata": True}, "told no metadata"),
        ({"save_steps": (49,)}, "49"),
        ({"backbone": "tiny-terain"}, "Did you mean tiny-terrain"),
    ],
)
def test_trainings_that_cannot_be(small, changes, words):
    config = small("wrong", **changes)
    with pytest.raises(InputError, match=words):
        train(config)
    assert not config.out.exists()


class Hostile:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_runs_something(prior, tmp_path, capsys):
    folder = tmp_path / "m-eurosat"
    folder.mkdir()
    (folder / "task_specs.pkl").write_bytes(pickle.dumps(Hostile(f"touch {tmp_path / 'ran'}")))
    words = ["remote-sensing", "train", "--data", folder, "--backbone", prior, "--out", tmp_path / "run"]
    assert main([*map(str, words), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "system" in error
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "run").exists()


# ---- evaluate ---------------------------------------------------------------------------------------------------


def test_evaluate(small, scene, tmp_path, capsys):
    config = small("run", keep="none")
    model = train(config).model
    out = tmp_path / "evaluation"
    words = ["evaluate", "--data", scene[0], "--labels", scene[1], "--patch", 16, "--model", model, "--out", out]
    words = ["remote-sensing", *map(str, words), "--device", "cpu"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "16 images, segmentation" in printed
    assert "passes of the network, in which each image" in printed
    costs = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["images"] for row in costs) == 16
    assert all(row["network_passes"] >= 1 and row["seconds"] > 0 for row in costs)
    assert "SatDiFuser's" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    counts = np.array(metrics["counts"])
    assert counts.sum() == SIDE * SIDE
    assert metrics["correct"]["pixel_accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
    assert metrics["official"]["mAcc"] == pytest.approx(100 * metrics["correct"]["pixel_accuracy"])
    assert (out / "figures" / "confusion.png").is_file()
    assert "From the best image to the worst" in (out / "report.html").read_text()
    # a run that was cut off goes on from the rows that are there
    lines = (out / "items.jsonl").read_text().splitlines()
    (out / "items.jsonl").write_text("\n".join(lines[:5]) + "\n")
    assert main(words) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*words, "--resume", "--batch-size", "3"]) == 0
    assert json.loads((out / "metrics.json").read_text())["counts"] == metrics["counts"]
    assert main([*words[:-2], "--limit", "-1", "--device", "cpu"]) == 2


def test_evaluate_refuses_other_splits_and_classes(small, scene, tmp_path, capsys):
    model = train(small("run", held_out=0, steps=1)).model
    base = ["remote-sensing", "evaluate", "--data", str(scene[0]), "--labels", str(scene[1]), "--patch", "16"]
    base += ["--model", str(model), "--out", str(tmp_path / "e"), "--device", "cpu"]
    classifier = a_model(task="classification")
    with pytest.raises(InputError, match="a set for segmentation, the model one for classification"):
        open_split(DataConfig(str(scene[0]), labels=scene[1]), "auto", classifier)
    for more, expected in (
        (["--split", "valid"], "rasters have no split valid"),
        (["--classes", "0=sea", "1=land"], "those of the model water, land"),
        (["--recipe", "rgb"], "the model takes B01"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--split", "test", "--patch", "32"], "Use --patch 16"),
    ):
        assert main([*base, *more]) == 2
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("\n") == 1
    assert not (tmp_path / "e").exists()


def test_patches_of_another_size_are_seen_at_the_scale_of_the_training(small, scene, tmp_path, monkeypatch):
    model = train(small("run", held_out=0, steps=1)).model  # on patches of 16 pixels
    asked = []
    call = SatellitePredictor.__call__

    def noted(self, images, metadata=None):
        asked.append((images.shape[-1], self.model.settings.image_size))
        return call(self, images, metadata)

    monkeypatch.setattr(SatellitePredictor, "__call__", noted)
    words = ["evaluate", "--data", scene[0], "--labels", scene[1], "--patch", 32, "--model", model]
    assert main(["remote-sensing", *map(str, words), "--out", str(tmp_path / "e"), "--device", "cpu"]) == 0
    assert set(asked) == {(32, 32)}


def test_sets_are_light_to_describe(scene):
    data, _ = open_training(DataConfig(str(scene[0]), labels=scene[1], patch=16), RECIPES["sentinel2"])
    assert isinstance(data, LabelledSet)
    assert len({data.key(place) for place in range(len(data))}) == len(data)

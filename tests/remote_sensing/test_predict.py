"""``priorscope remote-sensing predict``: maps and classes of any raster, and mistakes that are one line."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin
from safetensors.torch import save_file

from priorscope.backbones import SD2_UNET
from priorscope.cli import main
from priorscope.errors import InputError
from priorscope_remote_sensing import predict as predict_module
from priorscope_remote_sensing.data.bands import RECIPES, SENTINEL2
from priorscope_remote_sensing.data.rasters import open_raster, write_geotiff
from priorscope_remote_sensing.decoder import DecoderConfig
from priorscope_remote_sensing.features import KeptFeatures
from priorscope_remote_sensing.metadata import Metadata
from priorscope_remote_sensing.models import build_decoder
from priorscope_remote_sensing.predictor import SatellitePredictor, load_backbone, save_trained
from priorscope_remote_sensing.prior import ReflectanceSpace, TerrainPrior
from priorscope_remote_sensing.satdifuser import SatDiFuserModel
from priorscope_remote_sensing.satunet import SatUNet
from priorscope_remote_sensing.scene_metadata import scene_metadata
from priorscope_remote_sensing.settings import SatDiFuserSettings

CLASSES = ("water", "forest", "field")
PLACE = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5.2e6, 10, 10)}
SCHEDULER = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
RGB_UNET = {
    **SD2_UNET,
    "in_channels": 48,
    "out_channels": 48,
    "block_out_channels": (8, 16, 16, 16),
    "attention_head_dim": (2, 2, 2, 2),
    "cross_attention_dim": 8,
    "norm_num_groups": 4,
    "sample_size": 8,
}


@pytest.fixture(scope="module")
def rgb_backbone(tmp_path_factory):
    """DiffusionSat's layout around a small network on 4 x 4 pixel patches."""
    folder = tmp_path_factory.mktemp("backbone") / "resolution256"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        SatUNet(**RGB_UNET).save_pretrained(folder / "unet")
    for name, content in (("vae", {"_class_name": "PatchSpace", "patch": 4}), ("scheduler", SCHEDULER)):
        (folder / name).mkdir()
        file = "config.json" if name == "vae" else "scheduler_config.json"
        (folder / name / file).write_text(json.dumps(content))
    save_file({"state": torch.zeros(1, 2, 8)}, folder / "empty_prompt.safetensors")
    return folder.parent


@pytest.fixture(scope="module")
def terrain_backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("terrain") / "prior"
    TerrainPrior.new(ReflectanceSpace([-2.0] * 13, [1.0] * 13)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(rgb_backbone, terrain_backbone, tmp_path_factory):
    """``models(task, ...)``: a folder of an untrained model, made once for each choice."""
    made = {}

    def make(task="segmentation", *, bands="sentinel2-rgb", fuser="gw", use_metadata=False, terrain=False):
        choice = (task, bands, fuser, use_metadata, terrain)
        if choice in made:
            return made[choice]
        folder = tmp_path_factory.mktemp("model") / "model"
        where = terrain_backbone if terrain else rgb_backbone
        own = {"mean": 0.0, "std": 1.0} if terrain else {}
        settings = SatDiFuserSettings(
            task, CLASSES, RECIPES[bands], str(where), image_size=32, prompt="", use_metadata=use_metadata, **own
        )
        backbone = load_backbone(str(where), use_metadata=use_metadata, device="cpu")
        sizes = {"projection_dim": 16, "norm_groups": 2, "channels": 8, "experts": 3}
        head = "segmentation" if task == "segmentation" else "classification"
        with torch.random.fork_rng():
            torch.manual_seed(0)
            probe = SatDiFuserModel(build_decoder(DecoderConfig(fuser, head, 3, taps=((8,),), **sizes)), settings)
            taps = KeptFeatures(probe, backbone).tap_widths(32, 32)
            decoder = build_decoder(DecoderConfig(fuser, head, 3, taps=taps, **sizes))
        save_trained(SatDiFuserModel(decoder, settings), folder, side=32)
        return made.setdefault(choice, folder)

    return make


def scene(path, shape=(50, 70), bands=3, *, names=None, seed=0, holes=None, **place):
    values = np.random.default_rng(seed).integers(1, 3000, (bands, *shape)).astype(np.uint16)
    if holes is not None:
        values[(slice(None), *holes)] = 0
    place = {**PLACE, **({"nodata": 0} if holes is not None else {}), **place}
    return write_geotiff(path, values, band_names=names, **place)


def run(*words):
    return main(["remote-sensing", "predict", *map(str, words), "--device", "cpu"])


def refused(capsys, words, *parts):
    """One line on stderr, status 2."""
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for part in parts:
        assert part in error
    return error


def test_a_scene_becomes_a_map_on_its_own_grid(models, tmp_path, capsys):
    path = scene(tmp_path / "in" / "a.tif", holes=np.s_[:10, :20])
    out = tmp_path / "out"
    assert run(tmp_path / "in", "--model", models(), "--out", out, "--confidence") == 0
    assert "1 of 1 inputs done" in capsys.readouterr().out
    with rasterio.open(out / "a.tif") as made, rasterio.open(path) as given:
        assert (made.crs, made.transform, made.shape) == (given.crs, given.transform, given.shape)
        classes = made.read(1)
        assert made.nodata == 255
        assert made.tags(1)["CLASS_1"] == "forest"
    assert (classes[:10, :20] == 255).all()
    assert (classes[10:] < 3).all()
    legend = json.loads((out / "a_legend.json").read_text())
    assert [row["name"] for row in legend["classes"]] == list(CLASSES)
    assert sum(legend["pixels"].values()) == 50 * 70 - 200
    assert (out / "a_confidence.tif").is_file()
    refused(capsys, [path, "--model", models(), "--out", out], "exists already", "--overwrite")
    assert run(path, "--model", models(), "--out", out, "--overwrite") == 0


@pytest.mark.parametrize(("shape", "tile"), [((50, 70), 24), ((7, 90), 0), ((33, 33), 40)])
def test_any_size_and_any_tile(models, tmp_path, shape, tile):
    path = scene(tmp_path / "a.tif", shape)
    assert run(path, "--model", models(), "--out", tmp_path / "out", "--tile", tile) == 0
    with rasterio.open(tmp_path / "out" / "a.tif") as made:
        assert made.shape == shape
        assert (made.read(1) < 3).all()


def test_the_map_is_what_the_predictor_says(models, tmp_path):
    path = scene(tmp_path / "a.tif", (32, 32))
    assert run(path, "--model", models(), "--out", tmp_path / "out") == 0
    with rasterio.open(path) as given, rasterio.open(tmp_path / "out" / "a.tif") as made:
        image, classes = RECIPES["sentinel2-rgb"].scale(given.read()), made.read(1)
    predictor = SatellitePredictor.from_pretrained(models(), device="cpu")
    probabilities = predictor(torch.from_numpy(image)[None])
    assert probabilities.shape == (1, 3, 32, 32)
    np.testing.assert_array_equal(classes, probabilities[0].argmax(0).numpy())
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, 32, 32))
    larger = predictor.at_side(64)
    assert larger.model.settings.image_size == 64
    assert larger.at_side(64) is larger


def test_thirteen_bands(models, tmp_path):
    shuffled = list(reversed(SENTINEL2))
    path = scene(tmp_path / "a.tif", (40, 32), 13, names=shuffled)
    model = models(bands="sentinel2", terrain=True)
    assert run(path, "--model", model, "--out", tmp_path / "out") == 0
    with rasterio.open(path) as given:
        values = given.read()[::-1]
    write_geotiff(tmp_path / "b.tif", values.copy(), band_names=SENTINEL2, **PLACE)
    assert run(tmp_path / "b.tif", "--model", model, "--out", tmp_path / "out") == 0
    with rasterio.open(tmp_path / "out" / "a.tif") as first, rasterio.open(tmp_path / "out" / "b.tif") as second:
        np.testing.assert_array_equal(first.read(), second.read())


def test_twelve_bands_for_a_model_of_three(models, tmp_path, capsys):
    path = scene(tmp_path / "a.tif", bands=12)
    words = [path, "--model", models(), "--out", tmp_path / "out"]
    refused(capsys, words, "12 bands without names", "--band-names")
    names = [name for name in SENTINEL2 if name != "B10"]
    assert run(*words, "--band-names", *names) == 0
    assert (tmp_path / "out" / "a.tif").is_file()


def test_a_scene_without_any_data(models, tmp_path, capsys):
    path = scene(tmp_path / "a.tif", holes=np.s_[:, :])
    assert run(path, "--model", models(), "--out", tmp_path / "out") == 0
    assert "no pixel with data" in capsys.readouterr().out
    with rasterio.open(tmp_path / "out" / "a.tif") as made:
        assert (made.read(1) == 255).all()
    refused(capsys, [path, "--model", models("classification"), "--out", tmp_path / "c"], "holds no pixel with data")


def test_one_bad_file_among_others(models, tmp_path, capsys):
    scene(tmp_path / "in" / "a.tif")
    scene(tmp_path / "in" / "b.tif", bands=5)
    (tmp_path / "in" / "c.tif").write_bytes(b"II*\0 nothing")
    assert run(tmp_path / "in", "--model", models(), "--out", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "1 of 3 inputs done" in printed.out
    assert "b.tif: has 5 bands" in printed.err
    assert "c.tif: is not a raster" in printed.err
    assert (tmp_path / "out" / "a.tif").is_file()


def test_another_projection(models, tmp_path):
    path = scene(tmp_path / "a.tif")
    assert run(path, "--model", models(), "--out", tmp_path / "out", "--crs", "EPSG:4326") == 0
    with rasterio.open(tmp_path / "out" / "a.tif") as made:
        assert made.crs.to_epsg() == 4326
        assert set(np.unique(made.read(1))) <= {0, 1, 2, 255}


def test_classes_of_images_and_pictures(models, tmp_path, capsys):
    scene(tmp_path / "in" / "a.tif", (20, 28), names=["B04", "B03", "B02"])
    scene(tmp_path / "in" / "b.tif", (28, 20), seed=1, names=["B04", "B03", "B02"])
    out = tmp_path / "out"
    assert run(tmp_path / "in", "--model", models("classification", fuser="moe"), "--out", out) == 0
    with open(out / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = json.loads((out / "predictions.json").read_text())
    assert [row["image"].rsplit("/", 1)[1] for row in rows] == ["a.tif", "b.tif"]
    for row, entry in zip(rows, found, strict=True):
        assert row["class"] == entry["class"] == max(entry["probabilities"], key=entry["probabilities"].get)
        assert float(row[f"p({row['class']})"]) == pytest.approx(entry["probability"], abs=1e-6)
        assert sum(entry["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    Image.new("RGB", (30, 40), (10, 90, 200)).save(tmp_path / "c.png")
    words = [tmp_path / "c.png", "--model", models("multi-label", bands="rgb"), "--out", tmp_path / "multi"]
    assert run(*words) == 0
    [entry] = json.loads((tmp_path / "multi" / "predictions.json").read_text())
    assert entry["classes"] == [name for name, p in entry["probabilities"].items() if p > 0.5]
    refused(capsys, words, "exists already")


def test_metadata(models, tmp_path, capsys):
    path = scene(tmp_path / "a.tif")
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2018-08-30T10:20:00", CLOUDCOVER="25")
    with open_raster(path) as dataset:
        told = scene_metadata(dataset)
        other = scene_metadata(dataset, date="2020-01-31", cloud_cover=0.5)
    assert (told.year, told.month, told.day, told.cloud_cover) == (2018, 8, 30, 0.25)
    assert told.gsd == pytest.approx(10 / 0.9996, rel=1e-5)  # UTM draws its central meridian 0.04 % too short
    # EPSG:32633 has its central meridian, 15 degrees east, at easting 500 km; the scene's centre lies 350 m east of it
    assert told.longitude == pytest.approx(15.0047, abs=1e-3)
    assert told.latitude == pytest.approx(46.95, abs=0.01)
    assert (other.year, other.month, other.day, other.cloud_cover) == (2020, 1, 31, 0.5)
    out = tmp_path / "out"
    told_model = models("classification", use_metadata=True)
    found = []
    for number, words in enumerate(([], ["--date", "1990-01-01"])):
        assert run(path, "--model", told_model, "--out", out / str(number), *words) == 0
        found.append(json.loads((out / str(number) / "predictions.json").read_text())[0]["probability"])
    assert found[0] != found[1]
    refused(capsys, [path, "--model", models(), "--out", out, "--date", "2018-08-30"], "told no metadata")
    refused(capsys, [path, "--model", told_model, "--out", out / "2", "--date", "yesterday"], "'yesterday' is no date")


def test_metadata_of_degrees_and_of_nothing(tmp_path):
    path = scene(tmp_path / "a.tif", (10, 10), crs="EPSG:4326", transform=from_origin(20, 60.005, 0.001, 0.001))
    with open_raster(path) as dataset:
        told = scene_metadata(dataset)
    # tables of WGS 84: at 60 degrees a degree has 111 412 m from south to north and 55 800 m from west to east
    assert told.gsd == pytest.approx((111.412 * 55.800) ** 0.5, rel=1e-4)
    assert told.year is None
    path = scene(tmp_path / "b.tif", (10, 10), crs=None, transform=None)
    with open_raster(path) as dataset:
        assert scene_metadata(dataset) is None


def test_the_ground_sampling_distance_is_that_on_the_ground(tmp_path):
    # web maps stretch by 1 / cos(latitude); 60 degrees north lies at 8 399 738 m
    place = {"crs": "EPSG:3857", "transform": from_origin(2e6, 8_399_738 + 50, 10, 10)}
    with open_raster(scene(tmp_path / "a.tif", (10, 10), **place)) as dataset:
        assert scene_metadata(dataset).gsd == pytest.approx(5, rel=5e-3)
    # on the antimeridian
    place = {"crs": "EPSG:4326", "transform": from_origin(179.995, 0.005, 0.001, 0.001)}
    with open_raster(scene(tmp_path / "b.tif", (10, 10), **place)) as dataset:
        assert scene_metadata(dataset).gsd == pytest.approx((111.320 * 110.574) ** 0.5, rel=1e-4)


def test_tags_are_read_behind_a_projection_and_impossible_ones_passed_over(tmp_path):
    path = scene(tmp_path / "a.tif", (10, 10))
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="1975-08-30", CLOUDCOVER="25")
    with open_raster(path, crs="EPSG:4326") as dataset:
        told = scene_metadata(dataset)
    assert (told.year, told.cloud_cover) == (None, 0.25)
    assert told.gsd == pytest.approx(10, rel=0.1)  # GDAL keeps the diagonal, not the side


def test_a_local_coordinate_system(models, tmp_path):
    path = scene(tmp_path / "a.tif", crs='LOCAL_CS["site",UNIT["metre",1]]')
    assert run(path, "--model", models(), "--out", tmp_path / "out") == 0
    with open_raster(path) as dataset:
        assert dataset.crs is not None
        assert scene_metadata(dataset) is None


def test_two_inputs_that_would_write_one_file(models, tmp_path, capsys):
    paths = [scene(tmp_path / f"{name}.tif") for name in ("a", "a_confidence")]
    words = [*paths, "--model", models(), "--out", tmp_path / "out"]
    refused(capsys, [*words, "--confidence"], "a_confidence.tif: two inputs would write this file")
    assert not (tmp_path / "out").exists()
    assert run(*words) == 0


def test_images_too_large_for_one_answer(models, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict_module, "MOST_VALUES", 3 * 40 * 50)
    path = scene(tmp_path / "a.tif", (40, 51))
    refused(capsys, [path, "--model", models("classification"), "--out", tmp_path / "out"], "has 40 x 51 pixels")
    path = scene(tmp_path / "b.tif", (40, 50))
    assert run(path, "--model", models("classification"), "--out", tmp_path / "out") == 0


def test_what_fails_for_all_fails_once(models, tmp_path, capsys):
    paths = [scene(tmp_path / f"{name}.tif") for name in "ab"]
    words = [*paths, "--model", models(), "--out", tmp_path / "out"]
    refused(capsys, [*words, "--crs", "EPSG:banana"], "'EPSG:banana' is not a coordinate reference system")
    refused(capsys, [*words, "--date", "yesterday"], "'yesterday' is no date")
    refused(capsys, [*words, "--cloud-cover", 25], "cloud_cover = 25.0")
    refused(capsys, [*words, "--tile", -5], "--tile -5")
    words = [*paths, "--model", models("classification"), "--out", tmp_path / "out"]
    refused(capsys, [*words, "--confidence"], "one for classification, not for maps")


def test_mistakes(models, tmp_path, capsys):
    path = scene(tmp_path / "a.tif")
    out = tmp_path / "out"
    refused(capsys, ["--model", models(), "--out", out], "no input")
    refused(capsys, [tmp_path / "none.tif", "--model", models(), "--out", out], "none.tif")
    refused(capsys, [path, "--model", tmp_path / "none", "--out", out], "none")
    refused(capsys, [path, "--model", models(), "--out", out, "--backbone", tmp_path / "none"], "no such folder")
    refused(capsys, [path, "--model", models(), "--out", out, "--backbone", "diffusionsat-512"], "zenodo.org/records")
    refused(capsys, [path, "--model", models(), "--out", out, "--backbone", "diffusionsat-51"], "diffusionsat-512")
    refused(capsys, [path, "--model", models(), "--out", out, "--overlap", 99], "--overlap 99")
    refused(capsys, [path, "--model", models(), "--out", out, "--batch-size", 0], "--batch-size 0")
    assert not out.exists()


def test_a_backbone_that_has_gone(models, tmp_path, capsys):
    path = scene(tmp_path / "a.tif")
    folder = tmp_path / "model"
    folder.mkdir()
    for file in models().iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    content = json.loads((folder / "priorscope.json").read_text())
    content["settings"]["backbone"] = "/gone/away"
    (folder / "priorscope.json").write_text(json.dumps(content))
    refused(capsys, [path, "--model", folder, "--out", tmp_path / "o"], "/gone/away cannot be loaded", "--backbone")
    backbone = json.loads((models() / "priorscope.json").read_text())["settings"]["backbone"]
    assert run(path, "--model", folder, "--out", tmp_path / "o", "--backbone", backbone) == 0


# ---- kept features ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(models, rgb_backbone, tmp_path_factory):
    def make(keep, folder=None, seed=0):
        model = SatDiFuserModel.from_pretrained(models("classification"))
        backbone = load_backbone(str(rgb_backbone), device="cpu")
        return KeptFeatures(model, backbone, keep=keep, folder=folder, seed=seed, batch_size=2)

    return make


def same(first, second, tolerance=0.0):
    assert first.keys() == second.keys()
    for step in first:
        for one, other in zip(first[step], second[step], strict=True):
            torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


def test_kept_maps_equal_fresh_ones_and_are_made_again_when_damaged(kept, tmp_path):
    images = torch.rand(3, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    fresh = kept("none")(images)
    first = kept("maps", tmp_path)
    calls = []
    first.backbone.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    same(first(images), fresh, 2e-3)  # kept in float16
    assert len(calls) == 2 * 3  # two batches, three levels
    again = kept("maps", tmp_path)
    again.backbone.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    same(again(images), first(images))
    assert len(calls) == 6
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 3
    content = bytearray(files[0].read_bytes())
    content[-5] ^= 255
    files[0].write_bytes(content)
    with pytest.warns(RuntimeWarning, match="made again"):
        same(kept("maps", tmp_path)(images), first(images))
    other = kept("maps", tmp_path, seed=1)(images)
    assert len(sorted(tmp_path.rglob("*.safetensors"))) == 6  # other noise is kept apart
    assert any(not torch.equal(a, b) for a, b in zip(other[40], fresh[40], strict=True))


def test_what_the_network_is_asked_decides_about_kept_maps(models, rgb_backbone, tmp_path):
    """The key is the feature store's own: an input scale or other told levels are seen, too."""
    images = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    found = []
    for scale in (None, lambda alpha, sigma: 0.5):
        model = SatDiFuserModel.from_pretrained(models("classification"))
        backbone = load_backbone(str(rgb_backbone), device="cpu")
        backbone.denoiser.input_scale = scale
        found.append(KeptFeatures(model, backbone, keep="maps", folder=tmp_path)(images))
    assert not torch.allclose(found[0][40][0], found[1][40][0])


def test_noise_depends_on_the_image_and_the_draw_alone(kept):
    features = kept("none")
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    whole = features(images)
    one = features(images[1:2])
    same({step: [scale[1:2] for scale in scales] for step, scales in whole.items()}, one, 1e-5)
    drawn = features(images, draw=1)
    assert not torch.allclose(drawn[40][0], whole[40][0])
    with pytest.raises(InputError, match="without a folder"):
        kept("maps")


def test_metadata_is_told_at_the_scale_that_the_network_sees(models, rgb_backbone):
    model = SatDiFuserModel.from_pretrained(models("classification", use_metadata=True))
    features = KeptFeatures(model, load_backbone(str(rgb_backbone), use_metadata=True, device="cpu"))
    features(torch.rand(2, 3, 16, 16), metadata=[Metadata(gsd=10.0), None])
    assert set(features._extractors) == {Metadata(gsd=5.0), None}  # 16 pixels become 32
    with pytest.raises(InputError, match="1 metadata for 2 images"):
        features(torch.rand(2, 3, 16, 16), metadata=[None])

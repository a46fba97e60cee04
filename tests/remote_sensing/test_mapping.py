"""Maps of whole scenes: equal to the prediction at once where that is local, seamless, georeferenced, bounded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from PIL import Image
from rasterio.transform import from_origin

from priorscope.errors import InputError
from priorscope.predictors.tiling import predict_tiled
from priorscope_remote_sensing.data.bands import BandRecipe
from priorscope_remote_sensing.data.legend import MISSING_COLOUR, UNLABELLED, Legend
from priorscope_remote_sensing.data.rasters import write_geotiff
from priorscope_remote_sensing.mapping import map_scene

RNG = np.random.default_rng(0)
RGB = BandRecipe(("Red", "Green", "Blue"), 255.0)
LEGEND = Legend.of(["water", "forest", "built-up"])
UTM = "EPSG:32633"
TRANSFORM = from_origin(465000, 5080000, 10, 10)


def brightest_band(patches):
    """A pixel-wise classifier: softmax over the three bands."""
    return torch.softmax(20 * patches, dim=1)


def scene_file(path, shape, *, nodata=None, crs=UTM, holes=None):
    values = RNG.integers(1, 256, (3, *shape)).astype(np.uint8)
    if holes is not None:
        values[:, holes] = nodata
    write_geotiff(path, values, crs=crs, transform=TRANSFORM, nodata=nodata, band_names=RGB.bands)
    return values


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


@pytest.mark.parametrize("shape", [(64, 64), (61, 97), (7, 130), (1, 1), (33, 32), (200, 40)])
def test_a_pixelwise_model_gives_the_same_map_in_tiles(tmp_path, shape):
    values = scene_file(tmp_path / "scene.tif", shape)
    sizes = []

    def predict(patches):
        sizes.append(tuple(patches.shape))
        return brightest_band(patches)

    result = map_scene(
        tmp_path / "scene.tif", tmp_path / "map.tif", predict, LEGEND, RGB, tile=32, overlap=20, batch_size=3
    )
    np.testing.assert_array_equal(read(result.path), values.argmax(axis=0))
    assert {size[1:] for size in sizes} == {(3, 32, 32)}
    assert max(size[0] for size in sizes) <= 3
    assert sum(result.pixels.values()) == shape[0] * shape[1]
    assert result.missing == 0


@pytest.mark.parametrize("overlap", [0, 8, 24])
def test_weights_sum_to_one_and_blend_without_a_step(tmp_path, overlap):
    """Every tile answers its own constant: the blend must be their weighted mean, and smooth where they overlap."""
    scene_file(tmp_path / "scene.tif", (32, 120))
    answers = iter(np.linspace(0.2, 0.8, 100))

    def predict(patches):
        first = torch.tensor([next(answers) for _ in patches], dtype=torch.float32)
        first = first.view(-1, 1, 1, 1).expand(-1, 1, 32, 32)
        return torch.cat([1 - first, first * 0, first], dim=1)

    out = tmp_path / "map.tif"
    result = map_scene(
        tmp_path / "scene.tif", out, predict, LEGEND, RGB, tile=32, overlap=overlap, batch_size=2, confidence=True
    )
    sure = read(result.confidence).astype(float)
    assert sure.min() >= 50
    assert sure.max() <= 80
    if overlap >= 8:
        assert np.abs(np.diff(sure, axis=1)).max() <= 3  # constants differ by up to 10 per cent


@pytest.mark.parametrize(("shape", "overlap"), [((70, 90), 8), ((32, 75), 20), ((90, 33), 0)])
def test_the_blend_is_that_of_the_core_tiler(tmp_path, shape, overlap):
    """A model that answers by the place in its tile shows every weight; the reference holds the whole scene."""
    values = scene_file(tmp_path / "scene.tif", shape)
    slope = torch.linspace(-1, 1, 32)

    def predict(patches):
        return torch.softmax(6 * patches * (1 + slope[:, None] * 0.5 - slope[None] * 0.8), dim=1)

    result = map_scene(
        *(tmp_path / "scene.tif", tmp_path / "map.tif", predict, LEGEND, RGB),
        **{"tile": 32, "overlap": overlap, "confidence": True},
    )
    whole = predict_tiled(torch.from_numpy(values / np.float32(255))[None], predict, tile=32, overlap=overlap)[0]
    best = whole.topk(2, dim=0).values.numpy()
    clear = best[0] - best[1] > 1e-5
    np.testing.assert_array_equal(read(result.path)[clear], whole.argmax(dim=0).numpy()[clear])
    np.testing.assert_allclose(read(result.confidence), 100 * best[0], atol=0.501)


def test_a_scene_smaller_than_a_tile_is_mirrored(tmp_path):
    values = scene_file(tmp_path / "scene.tif", (5, 9)) / np.float32(255)
    seen = []

    def predict(patches):
        seen.append(patches)
        return brightest_band(patches)

    map_scene(tmp_path / "scene.tif", tmp_path / "map.tif", predict, LEGEND, RGB, tile=16, overlap=4)
    patch = seen[0][0].numpy()
    np.testing.assert_allclose(patch[:, :5, :9], values, rtol=1e-6)
    np.testing.assert_array_equal(patch[:, 5:10], patch[:, 4::-1])
    np.testing.assert_array_equal(patch[:, :, 9:16], patch[:, :, 8:1:-1])


def test_the_map_carries_place_colours_names_and_legend(tmp_path):
    scene_file(tmp_path / "scene.tif", (40, 300))
    out = tmp_path / "made" / "map.tif"
    result = map_scene(tmp_path / "scene.tif", out, brightest_band, LEGEND, RGB, tile=32, overlap=8, confidence=True)
    with rasterio.open(out) as dataset:
        assert dataset.crs == rasterio.crs.CRS.from_string(UTM)
        assert dataset.transform == TRANSFORM
        assert dataset.nodata == UNLABELLED
        assert dataset.dtypes == ("uint8",)
        assert dataset.descriptions == ("land cover",)
        colours = dataset.colormap(1)
        assert [colours[index][:3] for index in range(3)] == list(LEGEND.colours)
        assert dataset.tags(1)["CLASS_1"] == "forest"
        rasterio.shutil.copy(dataset, tmp_path / "view.vrt", driver="VRT")
    assert "<Category>built-up</Category>" in (tmp_path / "view.vrt").read_text()  # GDAL itself knows the names
    table = json.loads(result.legend.read_text())
    assert [row["name"] for row in table["classes"]] == list(LEGEND.names)
    assert table["classes"][0]["colour"] == "#{:02x}{:02x}{:02x}".format(*LEGEND.colours[0])
    assert table["pixels"] == {name: int((read(out) == index).sum()) for index, name in enumerate(LEGEND.names)}
    with Image.open(result.picture) as picture:
        found = {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3)}
    assert set(LEGEND.colours) <= found
    assert result.confidence == tmp_path / "made" / "map_confidence.tif"


def test_missing_pixels_get_no_class_and_do_not_reach_the_model(tmp_path):
    holes = np.zeros((70, 90), bool)
    holes[:, :40] = True  # more than a tile wide
    holes[5, 80] = True
    values = scene_file(tmp_path / "scene.tif", holes.shape, nodata=0, holes=holes)
    seen = []

    def predict(patches):
        seen.append(patches)
        return brightest_band(patches)

    progress = []
    result = map_scene(
        *(tmp_path / "scene.tif", tmp_path / "map.tif", predict, LEGEND, RGB),
        **{"tile": 32, "overlap": 8, "confidence": True, "progress": lambda done, all_: progress.append((done, all_))},
    )
    classes = read(result.path)
    np.testing.assert_array_equal(classes == UNLABELLED, holes)
    np.testing.assert_array_equal(classes[~holes], values.argmax(axis=0)[~holes])
    np.testing.assert_array_equal(read(result.confidence) == UNLABELLED, holes)
    assert min(patch.min() for patch in seen) > 0
    assert sum(len(patch) for patch in seen) < progress[-1][1]  # tiles without data were left out
    assert progress[-1][0] == progress[-1][1]
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    assert result.missing == holes.sum()
    assert (LEGEND.paint(classes)[holes] == MISSING_COLOUR).all()


def test_a_scene_without_any_data_is_an_empty_map(tmp_path):
    scene_file(tmp_path / "scene.tif", (40, 40), nodata=0, holes=np.ones((40, 40), bool))

    def predict(patches):
        raise AssertionError("nothing is there to predict")

    result = map_scene(tmp_path / "scene.tif", tmp_path / "map.tif", predict, LEGEND, RGB, tile=32, overlap=8)
    assert (read(result.path) == UNLABELLED).all()
    assert sum(result.pixels.values()) == 0


def test_a_map_in_another_projection(tmp_path):
    scene_file(tmp_path / "scene.tif", (60, 50))
    result = map_scene(
        *(tmp_path / "scene.tif", tmp_path / "map.tif", brightest_band, LEGEND, RGB),
        **{"tile": 32, "overlap": 8, "crs": "EPSG:32632"},
    )
    with rasterio.open(result.path) as dataset, rasterio.open(tmp_path / "scene.tif") as scene:
        assert dataset.crs.to_epsg() == 32632
        corners = rasterio.warp.transform_bounds(scene.crs, dataset.crs, *scene.bounds)
        np.testing.assert_allclose(dataset.bounds, corners, atol=15)  # a pixel and a half
    assert 0 < result.missing < 60 * 50  # corners outside the turned scene


def test_memory_is_bounded_by_rows_of_tiles(tmp_path):
    """A tall scene is read and written in windows: the whole would be 96 rows of tiles."""
    import tracemalloc

    values = np.broadcast_to(np.arange(3, dtype=np.uint8)[:, None, None] + 1, (3, 6144, 64))
    write_geotiff(tmp_path / "scene.tif", values, crs=UTM, transform=TRANSFORM, band_names=RGB.bands)
    tracemalloc.start()
    map_scene(tmp_path / "scene.tif", tmp_path / "map.tif", brightest_band, LEGEND, RGB, tile=64, overlap=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 3 * 6144 * 64 / 8  # float32 of an eighth of the scene


def test_nothing_is_replaced_silently(tmp_path):
    scene_file(tmp_path / "scene.tif", (40, 40))
    run = (tmp_path / "scene.tif", tmp_path / "map.tif", brightest_band, LEGEND, RGB)
    (tmp_path / "map_legend.json").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        map_scene(*run, tile=32, overlap=8)
    assert not (tmp_path / "map.tif").exists()
    map_scene(*run, tile=32, overlap=8, overwrite=True)
    assert (tmp_path / "map_legend.json").read_text() != "mine"
    before = (tmp_path / "scene.tif").read_bytes()
    with pytest.raises(InputError, match="replace its own scene"):
        map_scene(tmp_path / "scene.tif", tmp_path / "scene.tif", *run[2:], overwrite=True)
    assert (tmp_path / "scene.tif").read_bytes() == before


def test_a_model_that_fails_leaves_no_half_map(tmp_path):
    scene_file(tmp_path / "scene.tif", (100, 40))
    run = (tmp_path / "scene.tif", tmp_path / "map.tif")
    bad = {
        "NaN": lambda patches: brightest_band(patches) * float("nan"),
        "was expected": lambda patches: brightest_band(patches)[:, :2],
        "keep the size": lambda patches: brightest_band(patches)[..., ::2],
    }
    for message, predict in bad.items():
        with pytest.raises(InputError, match=message):
            map_scene(*run, predict, LEGEND, RGB, tile=32, overlap=8)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_twelve_bands_without_names_are_refused(tmp_path):
    write_geotiff(tmp_path / "scene.tif", np.ones((12, 40, 40), np.uint16), crs=UTM, transform=TRANSFORM)
    with pytest.raises(InputError, match=r"12 bands without names.*--band-names"):
        map_scene(tmp_path / "scene.tif", tmp_path / "map.tif", brightest_band, LEGEND, RGB)
    names = [f"B{number:02d}" for number in range(1, 13)]
    result = map_scene(
        *(tmp_path / "scene.tif", tmp_path / "map.tif", brightest_band, LEGEND, RGB),
        **{"band_names": names, "tile": 32, "overlap": 0},
    )
    assert sum(result.pixels.values()) == 1600


@pytest.mark.parametrize("options", [{"tile": 0}, {"batch_size": 0}, {"tile": 32, "overlap": 32}, {"crs": "here"}])
def test_wrong_settings(tmp_path, options):
    scene_file(tmp_path / "scene.tif", (40, 40))
    with pytest.raises(InputError):
        map_scene(tmp_path / "scene.tif", tmp_path / "map.tif", brightest_band, LEGEND, RGB, **options)


def test_a_map_of_the_real_landsat_picture(shared_data, tmp_path):
    scene = shared_data("remote_sensing") / "rasterio_RGB.byte.tif"
    result = map_scene(scene, tmp_path / "map.tif", brightest_band, LEGEND, RGB, tile=256, overlap=32)
    with rasterio.open(scene) as dataset, rasterio.open(result.path) as made:
        values, valid = dataset.read(), (dataset.read() != 0).all(axis=0)
        assert (made.crs, made.transform, made.shape) == (dataset.crs, dataset.transform, dataset.shape)
        classes = made.read(1)
    np.testing.assert_array_equal(classes != UNLABELLED, valid)
    np.testing.assert_array_equal(classes[valid], values.argmax(axis=0)[valid])


def test_legends_give_each_class_its_own_colour():
    names = [f"class {index}" for index in range(200)] + ["forest", "tree crops"]
    legend = Legend.of(names, {"class 3": (1, 2, 3)})
    assert len(set(legend.colours)) == len(names)
    assert legend.colours[3] == (1, 2, 3)
    assert Legend.of(names).colours == Legend.of(names).colours


@pytest.mark.parametrize(
    "make",
    [
        lambda: Legend.of([]),
        lambda: Legend.of(["a", "a"]),
        lambda: Legend.of([str(index) for index in range(256)]),
        lambda: Legend.of(["a"], {"b": (0, 0, 0)}),
        lambda: Legend(("a",), ((0, 0, 300),)),
        lambda: LEGEND.paint(np.full((2, 2), 3)),
        lambda: LEGEND.paint(np.zeros((2, 2))),
    ],
)
def test_wrong_legends(make):
    with pytest.raises(InputError):
        make()

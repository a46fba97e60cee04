"""Rasters: missing pixels, names of bands, projections, wrong files; patches and splits by blocks."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import BandRecipe
from priorscope_remote_sensing.data.labels import RasterLabels
from priorscope_remote_sensing.data.legend import UNLABELLED
from priorscope_remote_sensing.data.patches import PatchSet, block_split
from priorscope_remote_sensing.data.rasters import (
    band_names,
    common_crs,
    data_bands,
    fill_missing,
    find_rasters,
    open_raster,
    parse_crs,
    read_bands,
    write_geotiff,
)

RNG = np.random.default_rng(0)
TRANSFORM = from_origin(465000, 5080000, 10, 10)
ONE = BandRecipe(("grey",), 1.0, None)
PLACE = {"crs": "EPSG:32633", "transform": TRANSFORM}


def test_written_rasters_come_back_with_names_place_and_holes(tmp_path):
    values = RNG.normal(size=(3, 11, 300)).astype(np.float32)
    values[1, 2, 3], values[0, 4, 5], values[2, 6, 7] = -9999, np.nan, np.inf
    write_geotiff(tmp_path / "a.tif", values, nodata=-9999, band_names=("B04", "B03", "B02"), **PLACE)
    with open_raster(tmp_path / "a.tif") as dataset:
        assert band_names(dataset) == ["B04", "B03", "B02"]
        assert dataset.transform == TRANSFORM
        read, valid = read_bands(dataset, [2, 0])
    holes = [(2, 3), (4, 5), (6, 7)]
    # a pixel is missing where one of the bands asked for is: band 1 was not
    assert sorted(zip(*np.nonzero(~valid), strict=True)) == holes[1:]
    np.testing.assert_array_equal(read[:, valid], values[[2, 0]][:, valid])
    assert (read[:, ~valid] == 0).all()


@pytest.mark.parametrize("text", ["EPSG:banana", "EPSG:0", "nowhere", ""])
def test_what_is_no_projection(text):
    with pytest.raises(InputError, match="not a coordinate reference system"):
        parse_crs(text)


def test_nan_as_nodata_and_windows(tmp_path):
    values = np.arange(60, dtype=np.float32).reshape(1, 6, 10)
    values[0, 0, 0] = np.nan
    write_geotiff(tmp_path / "a.tif", values, nodata=np.nan, **PLACE)
    with open_raster(tmp_path / "a.tif") as dataset:
        read, valid = read_bands(dataset, window=(2, 3, 2, 4))
        np.testing.assert_array_equal(read[0], values[0, 2:4, 3:7])
        assert valid.all()
        assert not read_bands(dataset)[1][0, 0]
        for window in ((0, 0, 7, 1), (-1, 0, 1, 1), (0, 0, 0, 1), (0, 9, 1, 2)):
            with pytest.raises(InputError, match="leaves the raster"):
                read_bands(dataset, window=window)


def test_an_alpha_band_is_no_band_but_says_what_is_missing(tmp_path):
    layout = {
        "driver": "GTiff",
        "count": 4,
        "height": 4,
        "width": 5,
        "dtype": "uint8",
        "photometric": "RGB",
        "alpha": "yes",
    }
    pixels = np.full((4, 4, 5), 255, np.uint8)
    pixels[3, 1, 2] = 0
    with rasterio.open(tmp_path / "a.tif", "w", **layout, **PLACE) as dataset:
        dataset.write(pixels)
    with open_raster(tmp_path / "a.tif") as dataset:
        assert data_bands(dataset) == 3
        assert band_names(dataset) == ["red", "green", "blue"]
        values, valid = read_bands(dataset)
    assert values.shape == (3, 4, 5)
    assert np.argwhere(~valid).tolist() == [[1, 2]]
    with open_raster(tmp_path / "a.tif", crs="EPSG:32634", resampling="nearest") as dataset:
        values, valid = read_bands(dataset)
    assert values.shape[0] == 3
    assert (values[:, valid] == 255).all()
    assert 0 < (~valid).sum() < valid.size  # the hole and the corners


@pytest.mark.parametrize("name", ["NIR", "B08", "08 - NIR", "Near infrared"])
def test_near_infrared_that_is_marked_as_transparency_is_refused(tmp_path, name):
    layout = {"driver": "GTiff", "count": 4, "height": 4, "width": 5, "dtype": "uint8"}
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", **layout, photometric="RGB", alpha="yes", **PLACE) as dataset:
        dataset.write(np.full((4, 4, 5), 7, np.uint8))
        dataset.set_band_description(4, name)
    with (
        pytest.raises(InputError, match=f"{name}, as transparency.*--colorinterp red,green,blue,undefined"),
        open_raster(path),
    ):
        pass
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [*dataset.colorinterp[:3], rasterio.enums.ColorInterp.undefined]
    with open_raster(path) as dataset:
        assert data_bands(dataset) == 4
        assert read_bands(dataset)[1].all()
    for harmless in ("alpha", "4", "mask"):
        with rasterio.open(path, "r+") as dataset:
            dataset.colorinterp = [*dataset.colorinterp[:3], rasterio.enums.ColorInterp.alpha]
            dataset.set_band_description(4, harmless)
        with open_raster(path) as dataset:
            assert data_bands(dataset) == 3


def test_missing_pixels_are_filled_with_the_mean_of_the_others():
    values = np.array([[[1.0, 3.0], [99.0, 5.0]]], np.float32)
    valid = np.array([[True, True], [False, True]])
    np.testing.assert_array_equal(fill_missing(values, valid)[0], [[1, 3], [3, 5]])
    assert (fill_missing(values, np.zeros((2, 2), bool)) == 0).all()


def test_the_real_picture_has_its_bands_and_nodata(shared_data):
    with open_raster(shared_data("remote_sensing") / "rasterio_RGB.byte.tif") as dataset:
        assert band_names(dataset) == ["red", "green", "blue"]
        valid = read_bands(dataset)[1]
        assert (valid == (dataset.read() != 0).all(axis=0)).all()
    assert 0.5 < valid.mean() < 1


def test_reprojecting_a_raster_keeps_what_lies_where(tmp_path):
    """A step in the east-west direction lies at the same longitude before and after."""
    values = np.repeat((np.arange(100) >= 50).astype(np.float32)[None], 80, axis=0) + 1
    write_geotiff(tmp_path / "a.tif", values, **PLACE)
    with open_raster(tmp_path / "a.tif", crs="EPSG:4326", resampling="nearest") as dataset:
        read, valid = read_bands(dataset)
        assert dataset.crs.to_epsg() == 4326
        row = dataset.height // 2
        column = int(np.argmax(read[0, row] == 2))
        x, _ = rasterio.warp.transform(dataset.crs, "EPSG:32633", *[[part] for part in dataset.xy(row, column)])
    assert abs(x[0] - (465000 + 500)) < 15
    assert read[:, valid].min() == 1
    with open_raster(tmp_path / "a.tif", crs="EPSG:32632") as dataset:
        values, valid = read_bands(dataset)
    assert not valid[0, 0]  # turned by some degrees: the corners are outside
    assert valid.mean() > 0.8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "not a raster"),
        (lambda path: path.write_bytes(b"II*\0nothing"), "not a raster"),
        (lambda path: path.mkdir(), "no such file"),
    ],
)
def test_files_that_are_no_raster(tmp_path, make, message):
    make(tmp_path / "a.tif")
    with pytest.raises(InputError, match=message), open_raster(tmp_path / "a.tif"):
        pass


def test_a_truncated_raster_names_the_window(tmp_path):
    write_geotiff(tmp_path / "a.tif", RNG.normal(size=(1, 600, 600)), **PLACE)
    data = (tmp_path / "a.tif").read_bytes()
    with rasterio.open(tmp_path / "b.tif", "w", driver="GTiff", count=1, height=600, width=600, dtype="float64") as out:
        out.write(RNG.normal(size=(1, 600, 600)))
    data = (tmp_path / "b.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"b\.tif"), open_raster(tmp_path / "b.tif") as dataset:
        read_bands(dataset)


def test_complex_rasters_are_refused(tmp_path):
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", count=1, height=4, width=4, dtype="complex64") as out:
        out.write(np.ones((1, 4, 4), np.complex64))
    with pytest.raises(InputError, match="complex"), open_raster(tmp_path / "a.tif"):
        pass


@pytest.mark.parametrize(
    "values", [np.zeros((2, 2), bool), np.zeros((0, 3, 3)), np.zeros(3), np.zeros((1, 1, 2, 2)), np.array([["a"]])]
)
def test_arrays_that_are_no_raster(tmp_path, values):
    with pytest.raises(InputError):
        write_geotiff(tmp_path / "a.tif", values)
    assert not list(tmp_path.iterdir())


def test_writing_replaces_nothing_and_checks_names(tmp_path):
    write_geotiff(tmp_path / "a.tif", np.zeros((2, 2)))
    with pytest.raises(InputError, match="exists already"):
        write_geotiff(tmp_path / "a.tif", np.zeros((2, 2)))
    with pytest.raises(InputError, match="2 names"):
        write_geotiff(tmp_path / "b.tif", np.zeros((2, 2)), band_names=("a", "b"))
    with pytest.raises(InputError, match=r"\.tif"):
        write_geotiff(tmp_path / "b.png", np.zeros((2, 2)))


def test_mixed_projections_are_an_error_unless_one_is_asked_for(tmp_path):
    write_geotiff(tmp_path / "a.tif", np.ones((40, 40)), **PLACE)
    write_geotiff(tmp_path / "b.tif", np.ones((40, 40)), crs="EPSG:32632", transform=TRANSFORM)
    (tmp_path / ".hidden.tif").write_bytes(b"")
    files = find_rasters(tmp_path)
    assert [path.name for path in files] == ["a.tif", "b.tif"]
    with pytest.raises(InputError, match=r"different.*32633.*a\.tif.*32632.*b\.tif.*--crs"):
        common_crs(files)
    with pytest.raises(InputError, match="different"):
        PatchSet(tmp_path, None, ONE, size=20)
    assert common_crs(files, crs="EPSG:32633") == "EPSG:32633"
    patches = PatchSet(tmp_path, None, ONE, size=20, crs="EPSG:32633")
    assert {patch.scene.name for patch in patches.patches} == {"a.tif", "b.tif"}
    west = {name: min(p.bounds[0] for p in patches.patches if p.scene.name == name) for name in ("a.tif", "b.tif")}
    assert west["a.tif"] == 465000
    assert west["b.tif"] < 0  # six degrees further west
    with pytest.raises(InputError, match="no raster"):
        find_rasters(_folder(tmp_path / "empty"))


def _folder(path):
    path.mkdir()
    return path


def test_patches_cover_the_raster_and_carry_labels(tmp_path):
    values = RNG.uniform(1, 9, (1, 50, 70)).astype(np.float32)
    values[0, :20, :20] = -1  # a patch without data
    values[0, 30, 30] = -1
    stored = RNG.integers(0, 4, (50, 70)).astype(np.uint8) * 10
    stored[30, 30] = 10  # a label where the image has no data
    write_geotiff(tmp_path / "images" / "a.tif", values, nodata=-1, **PLACE)
    write_geotiff(tmp_path / "labels" / "a.tif", stored, nodata=30, **PLACE)
    labels = RasterLabels(tmp_path / "labels", {20: "late", 10: "early"})
    patches = PatchSet(tmp_path / "images", labels, ONE, size=20)
    assert len(patches) == 3 * 4 - 1
    assert patches.names == ("late", "early")
    whole = np.full((60, 80), 255, np.uint8)
    seen = np.zeros((60, 80), bool)
    for patch, item in zip(patches.patches, patches, strict=True):
        place = np.s_[patch.top : patch.top + 20, patch.left : patch.left + 20]
        whole[place], seen[place] = item.labels, item.valid
        inside = values[0][place]
        np.testing.assert_array_equal(item.image[0][item.valid], inside[item.valid[: len(inside), : inside.shape[1]]])
        assert np.isfinite(item.image).all()
        assert item.image.min() >= 1  # filled with the mean, not with nodata
    np.testing.assert_array_equal(seen[:50, :70], values[0] != -1)
    assert not seen[50:].any()
    expected = np.select([stored == 20, stored == 10], [0, 1], UNLABELLED)
    np.testing.assert_array_equal(whole[:50, :70], np.where(values[0] == -1, UNLABELLED, expected))
    assert patches.bounds[0].tolist() == [465200, 5079800, 465400, 5080000]
    assert patches.bounds[-1].tolist() == [465600, 5079500, 465700, 5079600]


def test_patches_without_enough_data_or_labels_are_left_out(tmp_path):
    values = np.ones((1, 20, 40), np.float32)
    values[0, :15, :20] = -1
    write_geotiff(tmp_path / "a.tif", values, nodata=-1, **PLACE)
    assert len(PatchSet(tmp_path / "a.tif", None, ONE, size=20)) == 2
    assert len(PatchSet([tmp_path / "a.tif"], None, ONE, size=20, least_valid=0.5)) == 1
    with pytest.raises(InputError, match="no patch"):
        PatchSet(tmp_path / "a.tif", None, ONE, size=20, least_labelled=0.1)
    for options in ({"size": 0}, {"size": 4, "stride": 0}):
        with pytest.raises(InputError):
            PatchSet(tmp_path / "a.tif", None, ONE, **options)


def grid_bounds(rows, columns, size=10.0, step=10.0):
    top, left = np.mgrid[:rows, :columns].reshape(2, -1) * step
    return np.column_stack([left, top, left + size, top + size])


def test_block_splits_are_disjoint_paired_and_separate_neighbours():
    bounds = grid_bounds(20, 20)
    splits = [block_split(bounds, 50, seed=3, index=index) for index in range(10)]
    again = block_split(bounds, 50, seed=3, index=7)
    np.testing.assert_array_equal(again.test, splits[7].test)
    assert len({tuple(split.test) for split in splits}) == 10
    for split in splits:
        assert sorted([*split.train, *split.test]) == list(range(400))
        assert len(split.test) == 200
        blocks = [{tuple(block) for block in bounds[side, :2] // 50} for side in split]
        assert not blocks[0] & blocks[1]


def test_training_items_near_a_test_block_are_left_out():
    bounds = grid_bounds(40, 40, size=25, step=5)  # overlapping patches
    for gap in (0, 12):
        split = block_split(bounds, 50, seed=0, gap=gap)
        train, test = bounds[split.train], bounds[split.test]
        # brute force: no training patch overlaps a pixel at the centre of a test patch, nor comes nearer than the gap
        centre = (test[:, :2] + test[:, 2:]) / 2
        outside = np.maximum(train[:, None, :2] - centre[None], centre[None] - train[:, None, 2:]).max(axis=2)
        assert outside.min() >= gap
        assert 0 < len(split.train) < len(bounds) - len(split.test)


def test_blocks_that_line_up_with_the_patches_lose_none():
    bounds = grid_bounds(8, 7) + 5
    shifted = block_split(bounds, 20, seed=0, origin=(0, 0))
    aligned = block_split(bounds, 20, seed=0, origin=(5, 85))
    assert len(shifted.train) + len(shifted.test) < 56
    assert len(aligned.train) + len(aligned.test) == 56


def test_every_class_is_on_both_sides():
    bounds = grid_bounds(12, 12)
    labels = np.zeros(144, int)
    labels[[0, 143]] = 1  # two rare items, in opposite corners
    for index in range(5):
        split = block_split(bounds, 30, seed=0, index=index, labels=labels)
        assert sorted(labels[split.train])[-1] == sorted(labels[split.test])[-1] == 1
    labels[143] = 0
    with pytest.raises(InputError, match="every class"):
        block_split(bounds, 30, seed=0, labels=labels, attempts=20)


@pytest.mark.parametrize(
    ("bounds", "options"),
    [
        (np.zeros((0, 4)), {}),
        (np.zeros((3, 3)), {}),
        (np.full((3, 4), np.nan), {}),
        (grid_bounds(3, 3), {"block": 0}),
        (grid_bounds(3, 3), {"block": 1000}),
        (grid_bounds(3, 3), {"test_share": 1}),
        (grid_bounds(3, 3), {"gap": -1}),
        (grid_bounds(3, 3), {"labels": np.zeros(4)}),
    ],
)
def test_wrong_splits(bounds, options):
    with pytest.raises(InputError):
        block_split(bounds, **{"block": 10, "seed": 0, **options})

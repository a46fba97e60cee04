"""Labels on the grid of a raster: against brute force, in other projections, and from wrong files."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pyogrio
import pytest
import shapely
from rasterio.transform import from_origin
from rasterio.warp import transform

from priorscope.errors import InputError
from priorscope_remote_sensing.data.labels import RasterLabels, VectorLabels
from priorscope_remote_sensing.data.legend import UNLABELLED
from priorscope_remote_sensing.data.rasters import open_raster, write_geotiff

RNG = np.random.default_rng(0)
WEST, NORTH = 465000, 5080000
UTM = "EPSG:32633"
TRANSFORM = from_origin(WEST, NORTH, 10, 10)
CENTRES = np.stack(np.meshgrid(WEST + 10 * np.arange(60) + 5, NORTH - 10 * np.arange(40) - 5), axis=-1)


@pytest.fixture
def raster(tmp_path):
    write_geotiff(tmp_path / "scene.tif", np.ones((40, 60)), crs=UTM, transform=TRANSFORM)
    return tmp_path / "scene.tif"


def write_vectors(path, geometries, columns, *, crs=UTM, layer=None, append=False):
    geometries = [None if shape is None else shapely.to_wkb(shape) for shape in geometries]
    kinds = {"geometry_type": "Unknown", "crs": crs, "layer": layer, "append": append}
    pyogrio.raw.write(
        path, np.array(geometries, object), [np.asarray(v) for v in columns.values()], list(columns), **kinds
    )
    return path


def triangle(seed):
    rng = np.random.default_rng(seed)
    return shapely.Polygon(rng.uniform([WEST, NORTH - 400], [WEST + 600, NORTH], (3, 2)))


SHAPES = [triangle(seed) for seed in range(6)]
NAMES = ["water", "forest", "water", "crop", "forest", "crop"]


def brute_force(shapes, names, order):
    points = shapely.points(CENTRES)
    classes = np.full(points.shape, UNLABELLED, np.uint8)
    for shape, name in zip(shapes, names, strict=True):
        if name in order:
            classes[shapely.contains(shape, points)] = order.index(name)
    return classes


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp"])
def test_polygons_label_the_pixels_whose_centres_they_hold(raster, tmp_path, suffix):
    path = write_vectors(tmp_path / f"fields{suffix}", SHAPES, {"kind": np.array(NAMES, object)})
    labels = VectorLabels(path, "kind")
    assert labels.names == ("crop", "forest", "water")
    assert len(labels) == 6
    with open_raster(raster) as dataset:
        whole = labels.read(dataset)
        parts = [labels.read(dataset, (top, left, 10, 20)) for top in range(0, 40, 10) for left in range(0, 60, 20)]
    np.testing.assert_array_equal(whole, brute_force(SHAPES, NAMES, labels.names))
    rows = [np.hstack(parts[start : start + 3]) for start in range(0, 12, 3)]
    np.testing.assert_array_equal(np.vstack(rows), whole)


def test_chosen_classes_and_empty_cells(raster, tmp_path):
    names = ["water", "forest", None, "crop", "", "crop"]
    path = write_vectors(tmp_path / "a.gpkg", SHAPES, {"kind": np.array(names, object)})
    labels = VectorLabels(path, "kind", classes=["forest", "crop"])
    assert labels.names == ("forest", "crop")
    with open_raster(raster) as dataset:
        np.testing.assert_array_equal(labels.read(dataset), brute_force(SHAPES, names, labels.names))


def test_numbers_as_classes_are_sorted_by_value(raster, tmp_path):
    path = write_vectors(tmp_path / "a.gpkg", SHAPES[:3], {"code": np.array([10.0, 9.0, np.nan])})
    labels = VectorLabels(path, "code")
    assert labels.names == ("9", "10")
    assert len(labels) == 2


def test_coordinates_are_reprojected_to_the_raster(raster, tmp_path):
    """RFC 7946 GeoJSON is longitude and latitude: the labels are those of the same shapes in metres."""
    degrees = [
        shapely.transform(shape, lambda xy: np.column_stack(transform(UTM, "EPSG:4326", *xy.T))) for shape in SHAPES
    ]
    features = [
        {"type": "Feature", "properties": {"kind": name}, "geometry": json.loads(shapely.to_geojson(shape))}
        for name, shape in zip(NAMES, degrees, strict=True)
    ]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    labels = VectorLabels(tmp_path / "a.geojson", "kind")
    with open_raster(raster) as dataset:
        found = labels.read(dataset)
        assert shapely.equals_exact(labels.geometries(dataset.crs)[0], SHAPES, 0.01).all()
    expected = brute_force(SHAPES, NAMES, labels.names)
    assert (found != expected).mean() < 0.005  # straight edges in degrees are not quite straight in metres
    assert (expected != UNLABELLED).mean() > 0.2


def test_points_label_their_pixel_and_later_features_win(raster, tmp_path):
    rows, columns = RNG.integers(0, 40, 30), RNG.integers(0, 60, 30)
    points = [shapely.Point(WEST + 10 * c + 2, NORTH - 10 * r - 7) for r, c in zip(rows, columns, strict=True)]
    points += [shapely.Point(WEST - 50, NORTH), shapely.box(WEST, NORTH - 20, WEST + 10, NORTH), points[0]]
    names = ["a"] * 31 + ["box", "last"]
    labels = VectorLabels(write_vectors(tmp_path / "a.gpkg", points, {"c": np.array(names, object)}), "c")
    with open_raster(raster) as dataset:
        found = labels.read(dataset)
    expected = np.full((40, 60), UNLABELLED, np.uint8)
    expected[rows, columns] = 0
    expected[:2, 0] = 1
    expected[rows[0], columns[0]] = 2
    np.testing.assert_array_equal(found, expected)


def test_all_touched_labels_more(raster, tmp_path):
    path = write_vectors(tmp_path / "a.gpkg", SHAPES[:1], {"c": np.array(["x"], object)})
    with open_raster(raster) as dataset:
        centres = VectorLabels(path, "c").read(dataset) == 0
        touched = VectorLabels(path, "c", all_touched=True).read(dataset) == 0
    assert (touched | ~centres).all()
    assert touched.sum() > centres.sum()


def test_vector_labels_travel_to_workers(raster, tmp_path):
    labels = VectorLabels(write_vectors(tmp_path / "a.gpkg", SHAPES, {"kind": np.array(NAMES, object)}), "kind")
    with open_raster(raster) as dataset:
        before = labels.read(dataset)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(labels)).read(dataset), before)


def test_wrong_vector_files(raster, tmp_path):
    path = write_vectors(tmp_path / "a.gpkg", SHAPES, {"kind": np.array(NAMES, object)}, layer="one")
    write_vectors(path, SHAPES, {"kind": np.array(NAMES, object)}, layer="two", append=True)
    no_crs = write_vectors(tmp_path / "b.shp", SHAPES, {"kind": np.array(NAMES, object)}, crs=None)
    hollow = write_vectors(tmp_path / "c.gpkg", [None, shapely.Point()], {"kind": np.array(["a", "b"], object)})
    blank = write_vectors(tmp_path / "d.gpkg", SHAPES[:1], {"kind": np.array([""], object)})
    (tmp_path / "e.gpkg").write_bytes(b"SQLite format 3\0 but cut")
    cases = [
        ((path, "kind"), {}, "layers one, two"),
        ((path, "kind"), {"layer": "three"}, "no layer 'three'"),
        ((path, "class"), {"layer": "one"}, "no column 'class'; it has kind"),
        ((path, "kind"), {"layer": "one", "classes": ["lava"]}, "no value 'lava'"),
        ((path, "kind"), {"layer": "one", "classes": ["crop", "crop"]}, "twice"),
        ((path, "kind"), {"layer": "one", "classes": []}, "0 classes"),
        ((path, "kind"), {"layer": "one", "crs": "nowhere"}, "not a coordinate reference system"),
        ((no_crs, "kind"), {}, "says no coordinate reference system"),
        ((hollow, "kind"), {}, "no feature with a geometry"),
        ((blank, "kind"), {}, "0 classes"),
        ((tmp_path / "e.gpkg", "kind"), {}, "not a vector file"),
        ((tmp_path / "f.gpkg", "kind"), {}, "no such file"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(InputError, match=message):
            VectorLabels(*arguments, **options)
    assert len(VectorLabels(no_crs, "kind", crs=UTM)) == 6


def test_a_raster_without_projection_takes_no_vectors(tmp_path):
    write_geotiff(tmp_path / "scene.tif", np.ones((4, 4)), transform=TRANSFORM)
    labels = VectorLabels(write_vectors(tmp_path / "a.gpkg", SHAPES, {"kind": np.array(NAMES, object)}), "kind")
    with open_raster(tmp_path / "scene.tif") as dataset, pytest.raises(InputError, match="no features can be laid"):
        labels.read(dataset)


def test_label_rasters_on_the_same_grid_and_on_another(raster, tmp_path):
    stored = RNG.integers(0, 3, (40, 60)).astype(np.uint8)
    write_geotiff(tmp_path / "labels" / "scene.tif", stored, crs=UTM, transform=TRANSFORM)
    classes = {2: "two", 0: "zero"}
    expected = np.select([stored == 2, stored == 0], [0, 1], UNLABELLED)
    with open_raster(raster) as dataset:
        labels = RasterLabels(tmp_path / "labels", classes)
        np.testing.assert_array_equal(labels.read(dataset), expected)
        np.testing.assert_array_equal(labels.read(dataset, (3, 4, 5, 6)), expected[3:8, 4:10])
        write_geotiff(tmp_path / "a.tif", stored, crs=UTM, transform=from_origin(WEST - 10, NORTH, 10, 10))
        moved = RasterLabels(tmp_path / "a.tif", classes).read(dataset)  # the same size, one pixel further west
        np.testing.assert_array_equal(moved[:, :-1], expected[:, 1:])
        assert (moved[:, -1] == UNLABELLED).all()
        # half as coarse, shifted by a whole pixel, and smaller: what it does not cover is unlabelled
        coarse = stored[:20:2, :20:2]
        write_geotiff(tmp_path / "b.tif", coarse, crs=UTM, transform=from_origin(WEST + 10, NORTH - 10, 20, 20))
        found = RasterLabels(tmp_path / "b.tif", classes).read(dataset)
    wanted = np.full((40, 60), UNLABELLED, np.uint8)
    wanted[1:21, 1:21] = np.kron(expected[:20:2, :20:2], np.ones((2, 2), np.uint8))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("pixel", [1e-6, 1e-4, 10.0])
def test_small_pixels_are_no_reason_to_take_two_grids_for_one(tmp_path, pixel):
    # in degrees a pixel of a decimetre is 1e-6: tolerances are a share of the pixel, not of the unit
    crs = "EPSG:4326" if pixel < 1 else UTM
    write_geotiff(tmp_path / "scene.tif", np.ones((8, 8)), crs=crs, transform=from_origin(15, 47, pixel, pixel))
    stored = RNG.integers(0, 3, (8, 8)).astype(np.uint8)
    classes = {0: "a", 1: "b", 2: "c"}
    with open_raster(tmp_path / "scene.tif") as dataset:
        write_geotiff(tmp_path / "coarse.tif", stored, crs=crs, transform=from_origin(15, 47, 2 * pixel, 2 * pixel))
        found = RasterLabels(tmp_path / "coarse.tif", classes).read(dataset)
        np.testing.assert_array_equal(found, np.kron(stored[:4, :4], np.ones((2, 2), np.uint8)))
        write_geotiff(tmp_path / "moved.tif", stored, crs=crs, transform=from_origin(15 - pixel, 47, pixel, pixel))
        found = RasterLabels(tmp_path / "moved.tif", classes).read(dataset)
        np.testing.assert_array_equal(found[:, :-1], stored[:, 1:])
        write_geotiff(
            tmp_path / "rounded.tif", stored, crs=crs, transform=from_origin(15, 47 + 1e-3 * pixel, pixel, pixel)
        )
        np.testing.assert_array_equal(RasterLabels(tmp_path / "rounded.tif", classes).read(dataset), stored)


def test_labels_of_a_reprojected_raster(raster, tmp_path):
    stored = np.repeat((np.arange(60) >= 30).astype(np.uint8)[None], 40, axis=0)
    write_geotiff(tmp_path / "labels" / "scene.tif", stored, crs=UTM, transform=TRANSFORM)
    labels = RasterLabels(tmp_path / "labels", {0: "west", 1: "east"})
    with open_raster(raster, crs="EPSG:32632") as dataset:
        found = labels.read(dataset)
    assert found.shape == dataset.shape
    assert (found == UNLABELLED).any()  # the corners
    middle = found[dataset.height // 2]
    kept = middle[middle != UNLABELLED]
    assert (np.diff(kept.astype(int)) >= 0).all()
    assert 0.4 < kept.mean() < 0.6


def test_wrong_label_rasters(raster, tmp_path):
    folder = tmp_path / "labels"
    write_geotiff(folder / "other.tif", np.zeros((40, 60)), crs=UTM, transform=TRANSFORM)
    write_geotiff(tmp_path / "half.tif", np.full((40, 60), 0.5), crs=UTM, transform=TRANSFORM)
    write_geotiff(tmp_path / "bare.tif", np.zeros((3, 3)))
    with open_raster(raster) as dataset:
        for source, message in ((folder, r"no labels for scene\.tif"), (tmp_path / "half.tif", "fractions")):
            with pytest.raises(InputError, match=message):
                RasterLabels(source, {0: "a"}).read(dataset)
        with pytest.raises(InputError, match="no coordinate reference system"):
            RasterLabels(tmp_path / "bare.tif", {0: "a"}).read(dataset)
    write_geotiff(folder / "deeper" / "other.tif", np.zeros((4, 4)))
    for classes in ({}, {0: "a", 1: "a"}, {0.5: "a"}, {2**24: "a"}):
        with pytest.raises(InputError):
            RasterLabels(raster, classes)
    with pytest.raises(InputError, match="there twice"):
        RasterLabels(folder, {0: "a"})

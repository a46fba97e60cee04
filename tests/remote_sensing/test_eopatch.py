"""The real Sentinel-2 patch: order of bands and dates, labels against their polygons, ways through GeoTIFF."""

from __future__ import annotations

import shutil
from datetime import date

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import RECIPES, SENTINEL2, BandRecipe, ndvi
from priorscope_remote_sensing.data.eopatch import read_eopatch
from priorscope_remote_sensing.data.labels import RasterLabels, VectorLabels
from priorscope_remote_sensing.data.legend import UNLABELLED
from priorscope_remote_sensing.data.patches import PatchSet, block_split
from priorscope_remote_sensing.data.rasters import open_raster


@pytest.fixture(scope="module")
def folder(shared_data):
    folder = shared_data("remote_sensing") / "eopatch"
    if not folder.is_dir():
        pytest.skip(f"no Sentinel-2 patch at {folder}")
    return folder


@pytest.fixture(scope="module")
def patch(folder):
    return read_eopatch(folder)


def test_band_order_and_dates_are_proven_by_the_vegetation_index(patch):
    """Only red and near infrared at the right date give the stored index; any other pair of bands does not."""
    for scene in range(5):
        red, nir = patch.bands(scene, ("B04", "B08"))
        np.testing.assert_array_equal(ndvi(red, nir), patch.ndvi[scene])
        for other in ("B03", "B05", "B8A", "B07"):
            assert np.abs(ndvi(red, patch.bands(scene, (other,))[0]) - patch.ndvi[scene]).mean() > 0.01
    assert len({patch.ndvi[scene].tobytes() for scene in range(5)}) == 5


def test_the_shape_of_spectra_is_that_of_sentinel_2(patch):
    """Forest on a clear day: near infrared far above red, and the cirrus band darker than all others."""
    forest = patch.labels == patch.names.index("forest")
    for scene in patch.clear:
        mean = dict(zip(SENTINEL2, patch.scenes[scene][:, forest].mean(axis=1), strict=True))
        assert mean["B08"] > 4 * mean["B04"]
        assert mean["B10"] < 0.01
        assert mean["B10"] == min(mean.values())
        assert mean["B01"] > mean["B02"] > mean["B04"]  # haze is blue


def test_what_the_patch_says_of_itself(patch):
    assert patch.scenes.shape == (5, 13, 101, 100)
    assert [stamp.date() for stamp in patch.dates] == [
        *(date(2015, 8, 20), date(2015, 7, 31), date(2015, 9, 9), date(2015, 8, 30), date(2015, 7, 11))
    ]
    assert patch.clear == [4, 3, 2]
    counts = {name: int((patch.labels == index).sum()) for index, name in enumerate(patch.names)}
    assert dict(zip(patch.codes, counts.values(), strict=True)) == {1: 11, 2: 7601, 3: 1777, 4: 358, 8: 198}
    assert (patch.labels == UNLABELLED).sum() == 155
    assert patch.crs.to_epsg() == 32633
    assert 600 < patch.elevation.min() < patch.elevation.max() < 900


def test_polygons_of_the_geopackage_give_the_label_raster(patch, folder, tmp_path):
    """The label raster was made from these polygons: laid on the scene's grid they agree, and shifted they do not."""
    scene = patch.write_scene(tmp_path / "scene.tif", patch.clear[0])
    labels = VectorLabels(folder / "vector_timeless/LULC.gpkg", "LULC_ID", classes=[str(code) for code in patch.codes])
    with open_raster(scene) as dataset:
        found = labels.read(dataset)
    agreement = (found == patch.labels).mean()
    assert agreement > 0.98
    assert (np.roll(found, 3, axis=0) == patch.labels).mean() < agreement - 0.05
    assert (np.roll(found, 3, axis=1) == patch.labels).mean() < agreement - 0.05


def test_patches_of_the_scene_and_spatial_splits(patch, tmp_path):
    scene = patch.write_scene(tmp_path / "scene.tif", 2)
    patch.write_labels(tmp_path / "labels.tif")
    recipe = BandRecipe(SENTINEL2, 1.0, None)
    patches = PatchSet(scene, RasterLabels(tmp_path / "labels.tif", dict(enumerate(patch.names))), recipe, size=32)
    assert len(patches) == 16
    np.testing.assert_array_equal(patches[5].image, patch.scenes[2][:, 32:64, 32:64])
    np.testing.assert_array_equal(patches[5].labels, patch.labels[32:64, 32:64])
    split = block_split(patches.bounds, 320, seed=0)
    train, test = patches.bounds[split.train], patches.bounds[split.test]
    apart = np.maximum(train[:, None, :2] - test[None, :, 2:], test[None, :, :2] - train[:, None, 2:]).max(axis=2)
    assert apart.min() > -1  # metres: no two patches share a pixel
    with pytest.raises(InputError, match="no band that can be grey"):
        PatchSet(scene, None, BandRecipe(("grey",)), size=32)
    rgb = PatchSet(scene, None, RECIPES["sentinel2-rgb-reflectance"], size=101)[0].image
    expected = patch.bands(2, ("B04", "B03", "B02")) / 0.4095
    np.testing.assert_allclose(rgb[:, :, :100], np.clip(expected, 0, 1), rtol=1e-5)


def test_a_linear_classifier_learns_the_labels(patch):
    """SOURCES.md: 0.73 to 0.75 balanced accuracy for forest, grass, shrub or artificial from the three clear dates."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.preprocessing import StandardScaler

    merged = np.full(patch.labels.shape, -1)
    for target, codes in enumerate(((2,), (3,), (4, 8))):
        for code in codes:
            merged[patch.labels == patch.codes.index(code)] = target
    rows, columns = np.nonzero(merged >= 0)
    pixels = patch.scenes[patch.clear][:, :, rows, columns].reshape(39, -1).T
    labels = merged[rows, columns]
    split = block_split(np.column_stack([columns, rows, columns + 1, rows + 1]), 20, seed=0, labels=labels)
    scaler = StandardScaler().fit(pixels[split.train])
    model = LogisticRegression(class_weight="balanced", max_iter=300)
    model.fit(scaler.transform(pixels[split.train]), labels[split.train])
    assert balanced_accuracy_score(labels[split.test], model.predict(scaler.transform(pixels[split.test]))) > 0.6


def test_a_patch_with_swapped_bands_or_missing_files_is_refused(folder, tmp_path):
    copy = tmp_path / "patch"
    shutil.copytree(folder, copy)
    scenes = np.load(copy / "REFERENCE_SCENES.npy")
    np.save(copy / "REFERENCE_SCENES.npy", scenes[..., ::-1])
    with pytest.raises(InputError, match=r"vegetation index.*order"):
        read_eopatch(copy)
    np.save(copy / "REFERENCE_SCENES.npy", scenes[..., :12])
    with pytest.raises(InputError, match="5 scenes of 12 bands"):
        read_eopatch(copy)
    np.save(copy / "REFERENCE_SCENES.npy", scenes)
    for name in ("mask/CLM.npy", "bbox.geojson", "timestamps.json", "vector_timeless/LULC.gpkg"):
        (copy / name).rename(tmp_path / "away")
        with pytest.raises(InputError, match=name.rpartition("/")[2]):
            read_eopatch(copy)
        (tmp_path / "away").rename(copy / name)
    np.save(copy / "mask/CLM.npy", np.zeros((68, 100, 101, 1), np.uint8))
    with pytest.raises(InputError, match=r"CLM\.npy.*shape"):
        read_eopatch(copy)
    with pytest.raises(InputError, match="no such folder"):
        read_eopatch(tmp_path / "nowhere")

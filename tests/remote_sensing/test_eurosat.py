"""EuroSAT in miniature: pictures and 13-band files, official lists and drawn splits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from rasterio.transform import from_origin

from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import EUROSAT_ORDER, SENTINEL2, BandRecipe
from priorscope_remote_sensing.data.eurosat import CLASSES, SPLITS, EuroSat
from priorscope_remote_sensing.data.rasters import write_geotiff

RGB_BELOW = "2750"
MS_BELOW = "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
COUNT = 6


def write_pictures(root):
    for number, name in enumerate(CLASSES):
        folder = root / RGB_BELOW / name
        folder.mkdir(parents=True)
        for index in range(1, COUNT + 1):
            Image.new("RGB", (64, 64), (20 * number, 100, 10 * index)).save(folder / f"{name}_{index}.jpg", quality=95)


def write_bands(root):
    """Band i of EuroSAT's order holds 100 (i + 1) everywhere."""
    values = np.repeat(100 * np.arange(1, 14, dtype=np.uint16), 64 * 64).reshape(13, 64, 64)
    for number, name in enumerate(CLASSES):
        for index in range(1, COUNT + 1):
            place = {"crs": f"EPSG:{32630 + number % 3}", "transform": from_origin(5e5, 5e6, 10, 10)}
            write_geotiff(root / MS_BELOW / name / f"{name}_{index}.tif", values, **place)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("rgb")
    write_pictures(root)
    return root


@pytest.fixture(scope="module")
def bands(tmp_path_factory):
    root = tmp_path_factory.mktemp("ms")
    write_bands(root)
    return root


def test_pictures(pictures):
    data = EuroSat(pictures, "train")
    assert data.names == CLASSES
    assert not data.official
    for sample in data:
        name, index = sample.name.split("_")
        assert sample.label == CLASSES.index(name)
        assert sample.image.shape == (3, 64, 64)
        expected = np.array([20 * sample.label, 100, 10 * int(index)]) / 255
        np.testing.assert_allclose(sample.image.mean(axis=(1, 2)), expected, atol=0.012)


def test_thirteen_bands_in_the_order_of_the_files(bands):
    rgb = EuroSat(bands, "test")[0].image
    np.testing.assert_allclose(rgb[:, 0, 0], np.array([400, 300, 200]) / 4095, rtol=1e-6)
    every = EuroSat(bands, "test", recipe=BandRecipe(SENTINEL2, 100.0, None))[0].image
    # B8A lies last in the file and ninth in Sentinel-2's order
    np.testing.assert_array_equal(every[:, 5, 5], [EUROSAT_ORDER.index(name) + 1 for name in SENTINEL2])


def test_drawn_splits_cover_everything_once_and_agree_between_the_archives(pictures, bands):
    parts = {split: [path.stem for path in EuroSat(pictures, split).files] for split in SPLITS}
    assert sorted(name for part in parts.values() for name in part) == sorted(
        f"{name}_{index}" for name in CLASSES for index in range(1, COUNT + 1)
    )
    assert len(parts["train"]) > max(len(parts["val"]), len(parts["test"]))
    for split in SPLITS:
        assert [path.stem for path in EuroSat(bands, split).files] == parts[split]
    assert [path.stem for path in EuroSat(bands, "test", seed=1).files] != parts["test"]


def test_official_lists_are_followed(tmp_path):
    write_pictures(tmp_path)
    write_bands(tmp_path)
    (tmp_path / "eurosat-train.txt").write_text("River_2.jpg\nForest_1.jpg\n\n")
    for kind in ("rgb", "all"):
        data = EuroSat(tmp_path, "train", bands=kind)
        assert data.official
        assert [sample.name for sample in data] == ["River_2", "Forest_1"]
    (tmp_path / "eurosat-train.txt").write_text("River_2.jpg\nRiver_99.jpg")
    with pytest.raises(InputError, match=r"1 of 2 listed.*River_99\.jpg"):
        EuroSat(tmp_path, "train", bands="rgb")
    with pytest.raises(InputError, match="bands='rgb' or 'all'"):
        EuroSat(tmp_path, "train")


def test_a_folder_of_classes_is_taken_too(pictures):
    assert len(EuroSat(pictures / RGB_BELOW, "train")) == len(EuroSat(pictures, "train"))


def test_what_is_wrong_with_the_folder(pictures, bands, tmp_path):
    for root, options, message in (
        (tmp_path / "nowhere", {}, "no such folder"),
        (tmp_path, {}, "no folder AnnualCrop"),
        (pictures, {"bands": "all"}, r"no folder AnnualCrop with \.tif"),
        (pictures, {"bands": "infrared"}, "bands is 'infrared'"),
    ):
        with pytest.raises(InputError, match=message):
            EuroSat(root, "train", **options)
    with pytest.raises(InputError, match="no split 'valid'"):
        EuroSat(pictures, "valid")
    with pytest.raises(InputError, match="no band that can be B08"):
        EuroSat(pictures, "train", recipe=BandRecipe(("B08",)))[0]
    (tmp_path / "2750" / "AnnualCrop").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "2750" / "AnnualCrop" / "AnnualCrop_1.jpg")
    with pytest.raises(InputError, match=r"holds no \.jpg of Forest"):
        EuroSat(tmp_path, "train")


def test_broken_files_are_named(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "eurosat-test.txt").write_text("River_1.jpg")
    path = tmp_path / RGB_BELOW / "River" / "River_1.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"River_1\.jpg"):
        EuroSat(tmp_path, "test")[0]

"""Names of bands, recipes, the vegetation index."""

from __future__ import annotations

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import (
    EUROSAT_ORDER,
    RECIPES,
    SENTINEL2,
    BandRecipe,
    band_indices,
    ndvi,
    same_band,
)

GEOBENCH_SENTINEL2 = (
    *("01 - Coastal aerosol", "02 - Blue", "03 - Green", "04 - Red", "05 - Vegetation Red Edge"),
    *("06 - Vegetation Red Edge", "07 - Vegetation Red Edge", "08 - NIR", "08A - Vegetation Red Edge"),
    *("09 - Water vapour", "10 - SWIR - Cirrus", "11 - SWIR", "12 - SWIR"),
)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *(("B04", "04 - Red"), ("B04", "Red"), ("red", "04 - Red"), ("B4", "B04"), ("b04", "B04_10m"), ("R", "red")),
        *(("B8A", "08A - Vegetation Red Edge"), ("NIR", "B08"), ("04", "B04"), (" Blue ", "02 - Blue")),
        *(("nir", "05 - NIR"), ("VV", "vv")),
    ],
)
def test_names_that_mean_one_band(first, second):
    assert same_band(first, second)
    assert same_band(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *(("B04", "B03"), ("B8A", "B08"), ("B08", "08A - Vegetation Red Edge"), ("red", "B03"), ("Red", "Blue")),
        *(
            ("B04", "04 - VV.Imaginary"),
            ("B4", "red"),
            ("B05", "06 - Vegetation Red Edge"),
            ("B05", "red"),
            ("VV", "VH"),
            ("B11", "B01"),
        ),
    ],
)
def test_names_that_mean_two_bands(first, second):
    """B4 without a zero is red on Landsat 8 and near infrared on Landsat 7: no guess."""
    assert not same_band(first, second)
    assert not same_band(second, first)


def test_every_sentinel_2_band_is_found_under_every_spelling():
    for names in (SENTINEL2, EUROSAT_ORDER, GEOBENCH_SENTINEL2, [name.replace("B0", "B") for name in SENTINEL2]):
        found = band_indices(SENTINEL2, names, 13)
        assert sorted(found) == list(range(13))
    assert band_indices(SENTINEL2, GEOBENCH_SENTINEL2, 13) == list(range(13))
    assert band_indices(EUROSAT_ORDER, SENTINEL2, 13) == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 8]
    assert band_indices(("Red", "Green", "Blue"), GEOBENCH_SENTINEL2, 13) == [3, 2, 1]


def test_a_file_without_names():
    assert RECIPES["rgb"].indices(None, 3) == [0, 1, 2]
    assert RECIPES["rgb"].indices([None] * 3, 3) == [0, 1, 2]
    with pytest.raises(InputError, match=r"s2\.tif: has 12 bands without names.*takes 3: Red, Green, Blue.*band_names"):
        RECIPES["rgb"].indices(None, 12, path="s2.tif")
    with pytest.raises(InputError, match="without names"):
        RECIPES["rgb"].indices(None, 2)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["B01", "B02", "B03"], "no band that can be Red"),
        (["Red", "B04", "Green", "Blue"], "2 bands that can be Red"),
        (["Red", None, "Blue"], r"no band that can be Green.*\(unnamed\)"),
    ],
)
def test_missing_and_ambiguous_names(names, message):
    with pytest.raises(InputError, match=message):
        RECIPES["rgb"].indices(names, len(names))


def test_a_wrong_number_of_names():
    with pytest.raises(InputError, match="2 band names were given for a file of 3"):
        RECIPES["rgb"].indices(["Red", "Green"], 3)


def test_scales():
    stored = np.array([0, 4095, 8190, 255], np.uint16)
    np.testing.assert_allclose(RECIPES["sentinel2-rgb"].scale(stored), [0, 1, 1, 255 / 4095])
    np.testing.assert_allclose(
        RECIPES["sentinel2-rgb-reflectance"].scale(stored / 10000), RECIPES["sentinel2-rgb"].scale(stored), atol=1e-7
    )
    np.testing.assert_allclose(RECIPES["rgb"].scale(np.array([0, 51, 255], np.uint8)), [0, 0.2, 1])
    # the official chesapeake input is black and white: everything above 1 is 1
    np.testing.assert_array_equal(RECIPES["chesapeake-official"].scale(np.array([0, 1, 200], np.uint8)), [0, 1, 1])
    scaled = RECIPES["rgb"].scale(np.array([np.nan, 300]))
    assert scaled.dtype == np.float32
    assert np.isnan(scaled[0])
    with pytest.raises(InputError, match="several names"):
        BandRecipe("B04", 1.0)
    for wrong in ((), ("Red",)):
        with pytest.raises(InputError):
            BandRecipe(wrong, 0 if wrong else 1)


def test_ndvi_by_hand_and_bad_input():
    index = ndvi(np.array([1, 3, 0, 0], np.uint16), np.array([3, 1, 0, 5], np.uint16))
    np.testing.assert_allclose(index, [0.5, -0.5, np.nan, 1])
    with pytest.raises(InputError, match="different shapes"):
        ndvi(np.zeros(2), np.zeros(3))

"""Morphology: statmorph's values, whatever the batch, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file

from priorscope.errors import InputError

pytest.importorskip("scipy")
from priorscope_astro.imaging import lupton_rgb
from priorscope_astro.morphology import QUANTITIES, measure, middle_source, segment
from priorscope_astro.morphology.sersic import profile


def sersic(size, amplitude, rhalf, n, x, y, ellip, theta):
    parameters = [np.log(amplitude), np.log(rhalf), np.log(n), x, y, ellip, theta]
    return profile(np.array([parameters]), size)[0]


def tolerances(name, rel):
    return 1e-3 if name.startswith("sersic") else rel


def test_golden_morphology(golden_files, read_json):
    for path in golden_files("astro_accel", "astro*.safetensors"):
        data, expected = load_file(path), read_json(path.with_suffix(".json"))
        rel, cases = expected["tolerance"]["rtol"], expected["cases"]
        images, labels = (np.stack([data[f"{name}.{part}"] for name in cases]) for part in ("image", "segmap"))
        found = measure(images, labels, sigma=expected["setup"]["noise_sigma"], psf=data["psf"], fit=True)
        for place, (name, values) in enumerate(cases.items()):
            assert len(values) == 38  # 36 and two flags
            for key, value in values.items():
                assert found[key][place] == pytest.approx(value, rel=tolerances(key, rel), abs=0), (name, key)
        image = sersic((200, 200), 1, 15, 2.5, 100.5, 96.4, 0.4, 0.5)
        found = measure(image[None], (image > 0.02).astype(int)[None], gain=1000.0, fit=True)
        for key, value in expected["sersic2d"].items():
            assert found[key][0] == pytest.approx(value, rel=tolerances(key, rel), abs=0), key


def test_golden_morphology_pictures(golden_files):
    for path in golden_files("astro_accel", "astro*.safetensors"):
        data = load_file(path)
        bands = np.stack([data[f"lupton.{band}"] for band in "irg"])
        for name, expected in data.items():
            if name.startswith("lupton.rgb"):
                stretch, softening, minimum = (float(part[1:]) for part in name.split("_")[1:])
                got = lupton_rgb(bands, stretch=stretch, softening=softening, minimum=minimum)
                np.testing.assert_array_equal(got, expected, err_msg=name)
                np.testing.assert_array_equal(
                    lupton_rgb(np.stack([bands, 2 * bands]), stretch=stretch, softening=softening, minimum=minimum)[0],
                    expected,
                )


@pytest.fixture(scope="module")
def crowded():
    """Galaxies with neighbours, NaN, masked pixels and a hot one; cut-outs of different sizes."""
    rng = np.random.default_rng(5)
    size, images, masks = (64, 70), [], np.zeros((8, 64, 70), dtype=bool)
    for number in range(8):
        image = rng.normal(0, 1, size)
        for other in range(1 + number % 3):
            x, y = (35, 32) if other == 0 else rng.uniform(8, 56, 2)
            rhalf = rng.uniform(1.5, 4) * (1 if other == 0 else 0.4)
            shape = rng.uniform(0.7, 3), x + rng.normal(), y + rng.normal(), rng.uniform(0, 0.7), rng.uniform(0, 3)
            image += sersic(size, rng.uniform(4, 30), rhalf, *shape)
        if number % 2:
            image[rng.integers(25, 45), rng.integers(30, 45)] = np.nan
        if number % 4 == 2:
            masks[number, 28:30, 36:43] = True
        if number == 3:
            image[36, 41] += 400
        images.append(image)
    images = np.stack(images)
    return images, segment(images, np.ones((1, 1, 1))), masks


def test_masks_neighbours_and_cutouts_as_statmorph(crowded):
    statmorph = pytest.importorskip("statmorph")
    images, labels, masks = crowded
    found = measure(images, labels, sigma=1.0, mask=masks)
    target = middle_source(labels)
    cutouts = set()
    for place in (2, 3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = statmorph.SourceMorphology(
                images[place],
                labels[place],
                int(target[place]),
                mask=masks[place],
                weightmap=np.ones(images[place].shape),
                sersic_fitting_args={"maxiter": 2},  # the fit is not compared here
            )
        cutouts.add((source.nx_stamp, source.ny_stamp))
        for key in (*QUANTITIES, "flag"):
            value = source[key] if source[key] != -99.0 else np.nan
            assert found[key][place] == pytest.approx(value, rel=1e-5, abs=1e-9, nan_ok=True), (place, key)
    assert len(cutouts) > 1


def test_a_galaxy_is_the_same_in_every_batch(crowded):
    images, labels, masks = crowded
    together = measure(images, labels, sigma=1.0, mask=masks, fit=True)
    for place in (0, 3, 6):
        alone = measure(
            images[place : place + 1], labels[place : place + 1], sigma=1.0, mask=masks[place : place + 1], fit=True
        )
        for key, values in together.items():
            close = 1e-4 if key.startswith("sersic") else 1e-9
            assert alone[key][0] == pytest.approx(values[place], rel=close, abs=close, nan_ok=True), key


def test_what_shapes_mean():
    size = (64, 64)
    disc, bulge = (sersic(size, 10, 6, n, 31.7, 32.1, 0.0, 0.0) for n in (1, 4))
    inclined = sersic(size, 10, 8, 1, 31.7, 32.1, 0.6, 0.5)
    lopsided = disc + sersic(size, 20, 1.5, 1, 38, 35, 0, 0)
    noise = np.random.default_rng(0).normal(0, 0.05, (4, *size))
    found = measure(np.stack([disc, bulge, inclined, lopsided]) + noise, sigma=0.05, fit=True)
    assert (found["flag"][[0, 2, 3]] <= 1).all()
    assert found["flag"][1] == 2  # its wings reach the stamp's edge: no sky
    assert found["concentration"][1] > found["concentration"][0] + 0.5
    assert found["gini"][1] > found["gini"][0]
    assert found["m20"][1] < found["m20"][0]
    assert found["asymmetry"][3] > 0.1 > abs(found["asymmetry"][0])
    assert found["ellipticity_asymmetry"][2] == pytest.approx(0.6, abs=0.1)
    assert found["orientation_asymmetry"][2] == pytest.approx(0.5, abs=0.05)
    assert found["sersic_n"][:3] == pytest.approx([1, 4, 1], rel=0.05)
    assert found["sersic_rhalf"][:3] == pytest.approx([6, 6, 8], rel=0.05)
    assert found["sersic_chi2_dof"][:3] == pytest.approx([1, 1, 1], abs=0.1)
    np.testing.assert_allclose(found["xc_asymmetry"][:3], 31.7, atol=0.1)


def test_a_fit_sees_through_the_psf():
    size = (64, 64)
    y, x = np.mgrid[-12:13, -12:13]
    psf = (1 + (x**2 + y**2) / 9.0) ** -2.5
    from scipy.signal import fftconvolve

    sharp = sersic(size, 10, 4, 1.5, 31, 33, 0.4, 1.0)
    seen = fftconvolve(sharp, psf / psf.sum(), mode="same") + np.random.default_rng(0).normal(0, 0.02, size)
    with_psf = measure(seen[None], sigma=0.02, psf=psf, fit=True)
    without = measure(seen[None], sigma=0.02, fit=True)
    assert with_psf["sersic_n"][0] == pytest.approx(1.5, rel=0.03)
    assert with_psf["sersic_rhalf"][0] == pytest.approx(4, rel=0.01)
    assert with_psf["sersic_theta"][0] == pytest.approx(1.0, abs=0.02)
    assert without["sersic_rhalf"][0] > 4.2


def test_nothing_to_measure_is_flagged_and_nothing_else_is_lost():
    size = (64, 64)
    sky = np.random.default_rng(0).normal(0, 0.05, size)
    galaxy = sersic(size, 10, 6, 1, 31.7, 32.1, 0.3, 0.5) + sky
    missing, negative = np.full(size, np.nan), -galaxy
    found = measure(np.stack([sky, galaxy, missing, negative]), fit=True)
    assert found["flag"][0] >= 2  # specks of noise
    assert found["flag"][2] == 4
    assert found["flag"][3] >= 2
    assert found["flag"][1] <= 1
    for key, values in found.items():
        if not key.startswith("flag"):
            assert np.isnan(values[2]), key
            assert np.isfinite(values[1]), key
    flat = measure(galaxy[None], np.ones((1, *size), int))  # a segment that is the whole stamp leaves no sky
    assert flat["flag"][0] == 2
    assert np.isnan(flat["sky_sigma"][0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": np.zeros((64, 64))}, r"shape \(64, 64\)"),
        ({"images": np.zeros((1, 4, 4))}, "at least 8"),
        ({"images": np.zeros((1, 2000, 16))}, "a mosaic"),
        ({"images": np.zeros((1, 64, 64), complex)}, "dtype complex"),
        ({"segmentation": np.zeros((2, 64, 64))}, "a segmentation of shape"),
        ({"mask": np.zeros((1, 64, 63), bool)}, "a mask of shape"),
        ({"sigma": 0.0}, "sigma is not positive"),
        ({"sigma": np.ones(3)}, r"sigma of shape \(3,\)"),
        ({"sigma": 1.0, "gain": 2.0}, "both sigma and gain"),
        ({"gain": -1.0}, "gain -1.0"),
        ({"psf": np.ones((4, 4))}, "odd sides"),
        ({"psf": np.zeros((3, 3))}, "without light"),
    ],
)
def test_bad_input_is_refused(change, words):
    arguments = {"images": np.zeros((1, 64, 64))} | change
    with pytest.raises(InputError, match=words):
        measure(**arguments)

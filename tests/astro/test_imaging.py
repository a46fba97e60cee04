"""Flux to files and back, stretches, coordinates, noise; real samples where they are."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_astro.imaging import (
    AsinhStretch,
    Provenance,
    lupton_rgb,
    power_spectrum,
    read_stamp_fits,
    rows_down,
    sky_sigma,
    stamp_wcs,
    write_stamp_fits,
)

fits = pytest.importorskip("astropy.io.fits")

PROMPT = "sdss, {completely round:1.3} galaxy, " + "'dust lane' " * 30 + "αβγ\nnext line \\ end"
ORIGIN = Provenance("tiny-galaxies", "3f" * 32, 17, "euler-a", 40, 6.5, PROMPT, "587722982829850805", ("made",) * 2)


def galaxy(bands=3, side=24, seed=0):
    y, x = np.mgrid[:side, :side]
    bright = 50 * np.exp(-((x - side / 2) ** 2 + (y - side / 2) ** 2) / 20)
    noise = np.random.default_rng(seed).normal(0, 0.3, (bands, side, side))
    return (bright * (1 + np.arange(bands))[:, None, None] + noise).astype(np.float32)


@pytest.mark.parametrize("cube", [False, True])
def test_a_stamp_comes_back_as_it_went(tmp_path, cube):
    flux, psf = galaxy(), np.full((3, 5, 5), 0.04)
    wcs = stamp_wcs((24, 24), 0.396, 184.9511, -0.8754)
    path = write_stamp_fits(
        tmp_path / "a.fits",
        flux,
        bands=("g", "r", "i"),
        unit="nanomaggies",
        provenance=ORIGIN,
        psf=psf,
        wcs=wcs,
        pixel_scale=0.396,
        sky_sigma=(0.1, 0.2, 0.3),
        cube=cube,
    )
    back = read_stamp_fits(path)
    np.testing.assert_array_equal(back.flux, flux)
    assert back.flux.dtype == np.float32
    np.testing.assert_array_equal(back.psf, psf)
    assert (back.bands, back.unit, back.pixel_scale) == (("g", "r", "i"), "nmgy", 0.396)
    assert back.sky_sigma == (0.1, 0.2, 0.3)
    assert back.provenance == ORIGIN
    pixels = np.array([[0, 0], [23, 5.5], [11.5, 11.5]])
    world = np.stack(wcs.pixel_to_world_values(*pixels.T), 1)
    np.testing.assert_allclose(np.stack(back.wcs.world_to_pixel_values(*world.T), 1), pixels, atol=1e-6)
    assert world[2] == pytest.approx([184.9511, -0.8754], abs=1e-10)


def test_the_file_is_what_astropy_expects(tmp_path):
    path = write_stamp_fits(tmp_path / "a.fits", galaxy(), bands=("g", "r", "i"), unit="nmgy", provenance=ORIGIN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(path, checksum=True) as units:
            units.verify("exception")
            assert [unit.name for unit in units] == ["PRIMARY", "G", "R", "I"]
            header = units[0].header
            assert all("CHECKSUM" in unit.header and "DATASUM" in unit.header for unit in units)
            assert header["SYNTH"] is True
            assert (header["SEED"], header["NSTEPS"], header["CFG"]) == (17, 40, 6.5)
            assert header["REFID"] == "587722982829850805"
            assert len(header["PROMPT"]) > 300
            assert list(header["HISTORY"]) == ["made", "made"]
            assert units["R"].header["BUNIT"] == "nmgy"
            assert "CTYPE1" not in units["R"].header  # no scale, no coordinates
    assert b"CONTINUE" in path.read_bytes()
    plain = write_stamp_fits(tmp_path / "real.fits", galaxy(1), bands=("r",), unit="Jy")
    assert fits.getheader(plain)["SYNTH"] is False
    assert read_stamp_fits(plain).provenance is None


def test_no_file_is_replaced_or_left_half_written(tmp_path):
    path = write_stamp_fits(tmp_path / "a.fits", galaxy(1), bands=("r",), unit="nmgy")
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        write_stamp_fits(path, galaxy(1, seed=1), bands=("r",), unit="nmgy")
    with pytest.raises(InputError, match="NaN"):
        write_stamp_fits(path, np.full((1, 8, 8), np.nan), bands=("r",), unit="nmgy", overwrite=True)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["a.fits"]
    write_stamp_fits(path, galaxy(1, seed=1), bands=("r",), unit="nmgy", overwrite=True)
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unit": ""}, "unit of the flux is missing"),
        ({"unit": "mag"}, "magnitude"),
        ({"unit": "m"}, "no flux"),
        ({"unit": "blorps"}, "not known"),
        ({"flux": -galaxy(1)}, "negative flux"),
        ({"flux": np.zeros((1, 4000, 8), np.float32)}, "mosaic"),
        ({"flux": galaxy(2)}, r"for the bands \['r'\]"),
        ({"bands": ("psf",)}, r"bands named \['psf'\]"),
        ({"psf": np.ones((2, 3, 3))}, "2 of psf for 1 bands"),
        ({"sky_sigma": ()}, "0 of sky_sigma for 1 bands"),
    ],
)
def test_what_is_no_stamp_is_not_written(tmp_path, change, words):
    arguments = {"flux": galaxy(1), "bands": ("r",), "unit": "nmgy"} | change
    with pytest.raises(InputError, match=words):
        write_stamp_fits(tmp_path / "a.fits", arguments.pop("flux"), **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cube", [False, True])
def test_negative_flux_that_a_model_drew_is_kept(tmp_path, cube):
    """It is a result; real galaxies of negative flux are a mistake."""
    options = {"bands": ("g", "r", "i"), "unit": "nmgy", "cube": cube}
    path = write_stamp_fits(tmp_path / "a.fits", -galaxy(), provenance=ORIGIN, **options)
    np.testing.assert_array_equal(read_stamp_fits(path).flux, -galaxy())
    fits.setval(path, "SYNTH", value=False)
    with pytest.raises(InputError, match="negative flux"):
        read_stamp_fits(path)


def test_what_is_no_stamp_is_not_read(tmp_path):
    def refused(words, write, **options):
        path = tmp_path / "bad.fits"
        path.unlink(missing_ok=True)
        write(path)
        with pytest.raises(InputError, match=words) as caught:
            read_stamp_fits(path, **options)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def image(data, **cards):
        def write(path):
            unit = fits.PrimaryHDU(data)
            unit.header.update(cards)
            unit.writeto(path)

        return write

    good = galaxy(1)[0]
    refused("no such file", lambda path: None)
    refused("has no BUNIT", image(good))
    refused("is a magnitude", image(good, BUNIT="mag"))
    refused("has no image", image(None))
    refused("mosaic", image(np.zeros((8, 4000), np.float32), BUNIT="nmgy"))
    refused("NaN", image(np.full((8, 8), np.nan), BUNIT="nmgy"))
    refused("negative flux", image(-good, BUNIT="nmgy"))
    refused("no FITS file", lambda path: path.write_text("SIMPLE, but no"))
    refused("no FITS file", lambda path: path.write_bytes(b""))

    def changed(path):
        write_stamp_fits(path, galaxy(), bands=("g", "r", "i"), unit="nmgy")
        content = bytearray(path.read_bytes())
        content[-1500] ^= 1
        path.write_bytes(content)

    refused("damaged", changed)

    def cut(path):
        write_stamp_fits(path, galaxy(side=64), bands=("g", "r", "i"), unit="nmgy")
        path.write_bytes(path.read_bytes()[:-9000])

    refused("damaged|no FITS file", cut)

    def mixed(path):
        units = [fits.ImageHDU(good, name=name) for name in "GR"]
        units[0].header["BUNIT"], units[1].header["BUNIT"] = "nmgy", "Jy"
        fits.HDUList([fits.PrimaryHDU(), *units]).writeto(path)

    refused("in the units", mixed)
    image(good)(tmp_path / "plain.fits")
    assert read_stamp_fits(tmp_path / "plain.fits", calibrated=False).unit == ""


def test_real_hsc_bands_go_round(tmp_path, shared_data):
    sample = np.load(shared_data("astro") / "hsc_cosmos_35.npz")
    flux, bands = sample["images"], tuple(str(band) for band in sample["filters"])
    wcs = stamp_wcs(flux.shape[1:], 0.168, 150.1, 2.2)
    path = write_stamp_fits(tmp_path / "hsc.fits", flux, bands=bands, unit="adu", psf=sample["psfs"], wcs=wcs)
    back = read_stamp_fits(path)
    np.testing.assert_allclose(back.flux, flux, rtol=1e-6)
    np.testing.assert_allclose(back.psf, sample["psfs"], rtol=1e-6)
    assert back.bands == bands
    sources = np.stack([sample["catalog"]["x"], sample["catalog"]["y"]], 1)
    again = np.stack(back.wcs.world_to_pixel_values(*wcs.pixel_to_world_values(*sources.T)), 1)
    np.testing.assert_allclose(again, sources, atol=1e-3)
    noise = np.sqrt(np.median(sample["variance"], axis=(1, 2)))
    assert sky_sigma(flux) == pytest.approx(noise, rel=0.5)


def test_real_m51_goes_round(tmp_path, shared_data):
    source = shared_data("astro") / "M51.fits"
    with pytest.raises(InputError, match="BUNIT"):
        read_stamp_fits(source)
    seen = read_stamp_fits(source, calibrated=False)
    assert seen.flux.shape == (1, 512, 512)
    assert seen.wcs is None
    wcs = stamp_wcs((512, 512), 0.6, 202.4696, 47.1953)
    path = write_stamp_fits(tmp_path / "m51.fits", seen.flux, bands=("B",), unit="adu", wcs=wcs, cube=True)
    back = read_stamp_fits(path)
    np.testing.assert_allclose(back.flux, fits.getdata(source)[None], rtol=1e-6)
    assert (
        np.abs(back.wcs.world_to_pixel_values(*wcs.pixel_to_world_values(0.0, 511.0)) - np.array([0, 511])).max() < 1e-3
    )


def test_the_stretch_is_undone_and_survives_json():
    flux = np.stack([galaxy(), -galaxy(seed=1)]).astype(np.float64)
    stretch = AsinhStretch((0.3, 0.2, 0.5), (50.0, 100.0, 150.0))
    stretched = stretch.apply(flux)
    again = AsinhStretch.from_dict(json.loads(json.dumps(stretch.to_dict())))
    assert again == stretch
    np.testing.assert_allclose(again.invert(stretched), flux, rtol=1e-12, atol=1e-12)
    one = np.array([50.0, 100, 150])[:, None, None]
    np.testing.assert_allclose(stretch.apply(one), 1)
    beta = np.array([0.3, 0.2, 0.5])[:, None, None]
    np.testing.assert_allclose(stretch.apply(1e-7 * one), 1e-7 * one / beta / np.arcsinh(one / beta))
    # float32, as models have it, keeps flux to the noise's millionth part
    single = stretch.invert(stretched.astype(np.float32))
    assert np.abs(single - flux).max() < 1e-4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"beta": [1.0], "scale": [1.0, 2.0]}, "1 beta and 2 scales"),
        ({"beta": [0.0], "scale": [1.0]}, "beta of a stretch"),
        ({"beta": [1.0], "scale": [float("nan")]}, "scale of a stretch"),
        ({"beta": [1.0]}, "beta and scale"),
        ({"kind": "log", "beta": [1.0], "scale": [1.0]}, "kind 'log'"),
        ({"beta": ["a"], "scale": [1.0]}, "lists of numbers"),
    ],
)
def test_a_stretch_that_is_none(values, words):
    with pytest.raises(InputError, match=words):
        AsinhStretch.from_dict(values)


def test_other_bands_are_refused():
    stretch = AsinhStretch((1.0,), (2.0,))
    for image in (np.zeros((2, 8, 8)), np.zeros((8, 8))):
        with pytest.raises(InputError, match="1 bands"):
            stretch.apply(image)
        with pytest.raises(InputError, match="1 bands"):
            stretch.invert(image)
    with pytest.raises(InputError, match="three bands"):
        lupton_rgb(np.zeros((4, 8, 8)))
    with pytest.raises(InputError, match="not finite"):
        lupton_rgb(np.full((3, 8, 8), np.nan))
    with pytest.raises(InputError, match="above 0"):
        lupton_rgb(np.zeros((3, 8, 8)), stretch=0)


def test_pictures_turn_rows_and_keep_colours():
    flux = np.zeros((3, 4, 5))
    flux[0, 0, 1] = 1e6
    picture = lupton_rgb(flux)
    assert picture.dtype == np.uint8
    assert picture[0, 1].tolist() == [255, 0, 0]
    assert rows_down(picture)[-1, 1].tolist() == [255, 0, 0]
    np.testing.assert_array_equal(rows_down(rows_down(picture)), picture)


@pytest.mark.parametrize("place", [(0.0, 10.0, 91.0), (1.0, 400.0, 0.0), (-1.0, 10.0, 0.0), (float("nan"), 0.0, 0.0)])
def test_no_coordinates_without_scale_and_place(place):
    with pytest.raises(InputError, match=r"scale|position"):
        stamp_wcs((8, 8), *place)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PSF", None, "HDU PSF is no image"),
        ("PSF", np.full((5, 5), np.nan), "HDU PSF is no image"),
        ("PSF", np.ones(5), "HDU PSF is no image"),
        ("PIXSCALE", -0.4, "PIXSCALE is -0.4"),
        ("BUNIT", 3, "'3' is a number"),
    ],
)
def test_headers_and_psfs_that_cannot_be(tmp_path, name, value, words):
    band = fits.ImageHDU(galaxy(1)[0], name="R")
    band.header["BUNIT"] = "nmgy"
    units = [fits.PrimaryHDU(), band]
    if name == "PSF":
        units.append(fits.ImageHDU(value, name="PSF"))
    else:
        band.header[name] = value
    fits.HDUList(units).writeto(tmp_path / "a.fits")
    with pytest.raises(InputError, match=words):
        read_stamp_fits(tmp_path / "a.fits")


def test_a_table_is_no_psf_and_text_is_no_truth(tmp_path):
    band = fits.ImageHDU(galaxy(1)[0], name="R")
    band.header["BUNIT"] = "nmgy"
    first = fits.PrimaryHDU()
    first.header["SYNTH"] = "F"
    fits.HDUList([first, band]).writeto(tmp_path / "a.fits")
    assert read_stamp_fits(tmp_path / "a.fits").provenance is None
    column = fits.Column("a", "E", array=[1.0, 2.0])
    fits.HDUList([first, band, fits.BinTableHDU.from_columns([column], name="PSF")]).writeto(tmp_path / "b.fits")
    with pytest.raises(InputError, match="HDU PSF is no image"):
        read_stamp_fits(tmp_path / "b.fits")


def test_the_centre_of_a_stamp_that_is_no_square():
    wcs = stamp_wcs((10, 31), 0.396, 184.9511, -0.8754)  # rows, columns
    assert wcs.pixel_to_world_values(15, 4.5) == pytest.approx([184.9511, -0.8754], abs=1e-10)


def test_noise_of_the_sky():
    rng = np.random.default_rng(0)
    sky = rng.normal(0, [[[0.5]], [[2.0]]], (2, 96, 96))
    assert sky_sigma(sky) == pytest.approx([0.5, 2.0], rel=0.03)
    y, x = np.mgrid[:96, :96]
    bright = 1000 * np.exp(-((x - 48) ** 2 + (y - 48) ** 2) / 60)
    assert sky_sigma(sky + bright) == pytest.approx([0.5, 2.0], rel=0.1)
    missing = sky[0].copy()
    missing[:40] = np.nan
    assert sky_sigma(missing) == pytest.approx(0.5, rel=0.05)
    assert np.isnan(sky_sigma(np.full((8, 8), np.nan)))
    with pytest.raises(InputError, match="0 clippings"):
        sky_sigma(sky, steps=0)
    frequency, power = power_spectrum(rng.normal(0, 2, (40, 32, 32)))
    assert frequency.shape == (16,)
    assert power.shape == (40, 16)
    np.testing.assert_allclose(power.mean(0)[1:], 4, rtol=0.2)
    waves = np.cos(2 * np.pi * 0.25 * np.arange(32))[None] * np.ones((32, 1))
    frequency, power = power_spectrum(waves)
    assert frequency[np.nanargmax(power)] == pytest.approx(0.25, abs=1 / 32)


def test_provenance_of_one_image_is_its_own(tmp_path):
    paths = [
        write_stamp_fits(
            tmp_path / f"{seed}.fits", galaxy(1), bands=("r",), unit="nmgy", provenance=replace(ORIGIN, seed=seed)
        )
        for seed in (1, 2)
    ]
    assert [read_stamp_fits(path).provenance.seed for path in paths] == [1, 2]
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_flags_and_variances_of_a_survey_are_no_bands(tmp_path):
    from astropy.io import fits

    flux = np.random.default_rng(0).normal(1, 0.1, (16, 16)).astype(np.float32)
    image = fits.ImageHDU(flux, name="IMAGE")
    image.header["BUNIT"] = "nJy"
    beside = [fits.ImageHDU(np.ones((16, 16), np.int32), name="MASK"), fits.ImageHDU(flux**2, name="VARIANCE")]
    fits.HDUList([fits.PrimaryHDU(), image, *beside]).writeto(tmp_path / "calexp.fits")
    stamp = read_stamp_fits(tmp_path / "calexp.fits")
    np.testing.assert_array_equal(stamp.flux, flux[None])
    assert stamp.bands == ("image",)
    with pytest.raises(InputError, match="bands named"):
        write_stamp_fits(tmp_path / "own.fits", flux[None], bands=["variance"], unit="nJy")


@pytest.mark.parametrize("length", [0, 20, 30, 40, 50, 60, 70, 300])
def test_no_card_is_too_long(tmp_path, length):
    """What has no room beside its comment goes without one, long texts over several cards; quotes count twice."""
    text = ("it's" * length)[:length]
    where = Provenance(text, text, 2**63 - 1, text, 20, 1.5, text, text, (text,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_stamp_fits(tmp_path / "a.fits", np.ones((1, 8, 8)), bands=["g"], unit="nmgy", provenance=where)
    found = read_stamp_fits(tmp_path / "a.fits").provenance
    assert (found.model, found.model_sha, found.sampler, found.prompt) == (text,) * 4


@pytest.mark.parametrize("before", range(60, 80))
def test_history_comes_back_whatever_its_length(tmp_path, before):
    """A line that needs two cards stays one, also where an escaped letter or a blank falls on the border."""
    history = ("x" * before + "\u00dcbergang", "y" * before + "  \\& two blanks", "z" * 200, "")
    where = replace(ORIGIN, history=history)
    write_stamp_fits(tmp_path / "a.fits", np.ones((1, 8, 8)), bands=["g"], unit="nmgy", provenance=where)
    assert read_stamp_fits(tmp_path / "a.fits").provenance.history == history


def test_history_of_blanks_comes_to_an_end(tmp_path):
    where = replace(ORIGIN, history=(" " * 500 + "made",))
    write_stamp_fits(tmp_path / "a.fits", np.ones((1, 8, 8)), bands=["g"], unit="nmgy", provenance=where)
    assert read_stamp_fits(tmp_path / "a.fits").provenance.history[0].endswith("made")

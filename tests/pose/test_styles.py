"""Styles change the look and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from priorscope.data.images import read_image
from priorscope.errors import InputError
from priorscope_pose.configs import StylesConfig
from priorscope_pose.data.coco import read_coco
from priorscope_pose.people import write_coco
from priorscope_pose.styles import _OPPONENT, _bands, brushed_canvas, oil, run_styles, sketch, styled, transfer

STYLES = ("oil", "transfer", "sketch")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("drawn"), range(3), height=64, width=48, suffix=".png", progress=False)


def square():
    image = np.full((80, 60, 3), 40, np.uint8)
    image[30:60, 20:45] = [200, 120, 60]
    return image


@pytest.mark.parametrize("style", STYLES)
def test_edges_stay_where_they_are(style):
    image = square()
    found = styled(image, style, seed=0, reference=np.full((10, 10, 3), 90, np.uint8))
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    steps = np.abs(np.diff(found.astype(float).mean(-1), axis=1))[35:55].mean(0)
    assert set(np.argsort(steps)[-2:]) <= {18, 19, 20, 43, 44, 45}
    assert steps[[18, 19, 20]].max() > 5 * np.median(steps)


def test_strength_and_determinism():
    image = square() + np.random.default_rng(0).integers(0, 30, (80, 60, 3), dtype=np.uint8)
    for style in STYLES:
        np.testing.assert_array_equal(styled(image, style, seed=1, strength=0.0), image)
        whole = styled(image, style, seed=1)
        np.testing.assert_array_equal(whole, styled(image, style, seed=1))
        assert np.abs(whole.astype(int) - image).mean() > 3
    assert (brushed_canvas(40, 30, 0) != brushed_canvas(40, 30, 1)).any()


def test_oil_flattens_noise_and_keeps_the_edge():
    noisy = (square() + np.random.default_rng(0).integers(0, 40, (80, 60, 3))).astype(np.uint8)
    found = oil(noisy).astype(float)
    assert found[5:25, 5:15].std(axis=(0, 1)).max() < 0.5 * noisy[5:25, 5:15].std(axis=(0, 1)).min()
    # a blur would need several pixels for the step
    step = found[45, 15:26].mean(-1)
    assert np.abs(np.diff(step)).max() > 0.7 * (step.max() - step.min())


def test_oil_keeps_constant_pictures():
    image = np.full((30, 20, 3), 77, np.uint8)
    np.testing.assert_array_equal(oil(image), image)


def test_bands_add_up():
    picture = np.random.default_rng(0).normal(size=(40, 30, 3))
    np.testing.assert_allclose(sum(_bands(picture)), picture, atol=1e-12)
    np.testing.assert_allclose(_OPPONENT @ _OPPONENT.T, np.eye(3), atol=1e-12)


def test_transfer_takes_the_mean_colour():
    random = np.random.default_rng(0)
    image = random.integers(90, 150, (64, 48, 3), dtype=np.uint8)
    reference = (random.integers(100, 140, (64, 48, 3)) + [20, 0, -20]).astype(np.uint8)
    found = transfer(image, reference)
    np.testing.assert_allclose(found.mean((0, 1)), reference.mean((0, 1)), atol=1.0)
    np.testing.assert_allclose(transfer(image, image).mean((0, 1)), image.mean((0, 1)), atol=1.0)


def test_a_sketch_has_no_colour_but_its_paper():
    found = sketch(square()).astype(float)
    paper = np.array([252, 248, 238])
    ratio = found / paper
    assert np.ptp(ratio, axis=-1).max() < 0.02


@pytest.mark.parametrize("workers", [1, 2])
def test_a_set_is_restyled_with_its_annotations(people, tmp_path, workers):
    assert run_styles(StylesConfig(people, tmp_path / "out", styles=("oil", "transfer"), workers=workers)) == 0
    before = read_coco(people)
    for style in ("oil", "transfer"):
        path = tmp_path / "out" / style / "annotations" / people.name
        assert path.read_bytes() == people.read_bytes()
        after = read_coco(path)
        after.check_images()
        for one, other in zip(before, after, strict=True):
            assert one.path.name == other.path.name
            first, second = read_image(one.path), read_image(other.path)
            assert first.shape == second.shape
            assert (first != second).any()
    if workers == 2:
        run_styles(StylesConfig(people, tmp_path / "again", styles=("transfer",)))
        for image in read_coco(tmp_path / "again/transfer/annotations" / people.name):
            twin = tmp_path / "out/transfer/train2017" / image.path.name
            np.testing.assert_array_equal(read_image(image.path), read_image(twin))
    with pytest.raises(InputError, match="--out"):
        run_styles(StylesConfig(people, tmp_path / "out", styles=("oil",)))


def test_a_style_that_was_cut_off_goes_on_as_it_began(people, tmp_path):
    config = StylesConfig(people, tmp_path / "out", styles=("transfer",))
    run_styles(config)
    folder = tmp_path / "out/transfer"
    (folder / "annotations" / people.name).unlink()  # written last
    lost = sorted((folder / "train2017").iterdir())[0]
    before = lost.read_bytes()
    lost.unlink()
    for other in (
        replace(config, seed=1),
        replace(config, strength=0.5),
        replace(config, reference=_a_picture(people)),
    ):
        with pytest.raises(InputError, match="begun with another strength, seed or reference"):
            run_styles(other)
    assert not lost.exists()
    run_styles(config)
    assert lost.read_bytes() == before


def _a_picture(people):
    return next(image.path for image in read_coco(people))


def test_refusals(people, tmp_path):
    with pytest.raises(InputError, match="strength"):
        run_styles(StylesConfig(people, tmp_path, strength=2.0))
    bad = tmp_path / "annotations.json"
    bad.write_text(json.dumps({"images": [{"id": 1, "file_name": "../x.png"}], "annotations": []}))
    with pytest.raises(InputError, match="names a picture"):
        run_styles(StylesConfig(bad, tmp_path / "out"))
    bad.write_text(json.dumps({"images": [{"id": 1, "file_name": "x.png"}], "annotations": []}))
    with pytest.raises(InputError, match="--images"):
        run_styles(StylesConfig(bad, tmp_path / "out"))
    with pytest.raises(InputError, match="no style"):
        styled(square(), "cubism", seed=0)

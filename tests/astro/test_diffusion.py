"""Our own model of galaxies: what it is told, how images become its values, training, drawing, saving."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from priorscope.caching import DeepCache
from priorscope.errors import InputError
from priorscope_astro.conditions.condition import CONDITION_SIZE, Condition
from priorscope_astro.conditions.tree import ANSWERS, SLICES
from priorscope_astro.data.galaxies import GalaxySet
from priorscope_astro.diffusion import GalaxyFeed, ModelSpec, drop_questions, load_galaxy_model, new_model
from priorscope_astro.diffusion.feed import TrainingImages
from priorscope_astro.diffusion.network import SIZES, new_unet, schedule
from priorscope_astro.diffusion.scaling import cut_stamp, display_values
from priorscope_astro.diffusion.spec import is_galaxy_model, model_folder
from priorscope_astro.diffusion.symmetry import COUNT, turned

TAGS = ("sdss, completely round galaxy", "sdss, spiral galaxy, bar-shaped structure in the center of galaxy")


def display_spec(**changes):
    settings = {"side": 16, "bands": ("R", "G", "B"), "offset": (0.1, 0.2, 0.3), "scale": (0.5, 0.5, 0.5)}
    return ModelSpec("display", **settings | changes)


def pictures(count=6, side=16, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    captions = tuple(TAGS[index % 2] for index in range(count))
    return GalaxySet(tuple(f"g{index}" for index in range(count)), images, "display", captions=captions)


@pytest.fixture(scope="module")
def model():
    built = new_model(display_spec(), "tiny", seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for weight in built.unet.parameters():  # a new network's last layers may be near zero
            weight.data += 0.05 * torch.randn_like(weight)
    built.unet.eval().requires_grad_(False)
    return built


def test_hidden_questions_are_hidden_whole():
    vector = Condition.from_tags(TAGS[1]).to_vector()
    known = [name for name, place in SLICES.items() if vector[len(ANSWERS) + place.start] == 1]
    assert len(known) >= 3
    random = np.random.default_rng(0)
    counts, empty, total = dict.fromkeys(known, 0), 0, 1500
    for _ in range(total):
        kept = drop_questions(vector, random, question=0.2, everything=0.1)
        Condition.from_vector(kept, extrapolate=True)
        empty += not kept.any()
        for name in known:
            place = SLICES[name]
            flags = kept[len(ANSWERS) + place.start : len(ANSWERS) + place.stop]
            assert flags.min() == flags.max()
            np.testing.assert_array_equal(kept[place], vector[place] * flags)
            counts[name] += not flags.any()
    # each is hidden with 1 - 0.9 x 0.8; standard error 0.012
    assert np.array(list(counts.values())) / total == pytest.approx(0.28, abs=0.05)
    assert empty / total == pytest.approx(0.1 + 0.9 * 0.2 ** len(known), abs=0.03)
    np.testing.assert_array_equal(drop_questions(vector, random, question=0, everything=0), vector)
    assert not drop_questions(vector, random, question=1, everything=0).any()
    with pytest.raises(InputError, match="dropout question of 2"):
        drop_questions(vector, random, question=2)
    with pytest.raises(InputError, match="shape"):
        drop_questions(vector[:3], random)


def test_turns_are_the_eight_symmetries():
    image = np.arange(2 * 9).reshape(2, 3, 3)
    found = [turned(image, which) for which in range(COUNT)]
    assert len({view.tobytes() for view in found}) == 8
    for which, view in enumerate(found):
        np.testing.assert_array_equal(turned(torch.from_numpy(image), which).numpy(), view)
        assert sorted(view[0].ravel()) == sorted(image[0].ravel())


def test_noisiest_level_is_pure_noise():
    assert schedule()(999) == (0.0, 1.0)


def test_bundled_size_fits():
    """mini as float16 must stay below the 3 MB of a bundled model."""
    unet = new_unet("mini", channels=12)
    weights = sum(value.numel() for value in unet.parameters())
    assert 1.0e6 < weights < 1.45e6
    assert set(SIZES) == {"tiny", "mini", "small", "base"}


def test_values_and_images_are_inverse():
    model = new_model(display_spec(), "tiny")
    image = pictures().image(0)
    values = model.scaling.values(image)
    assert values.shape == (3, 16, 16)
    assert values[1, 2, 3] == pytest.approx((image[2, 3, 1] / 255 - 0.2) / 0.5)
    np.testing.assert_array_equal(model.scaling.images(values[None])[0], image)
    wide = np.zeros((20, 30, 3), np.uint8)
    wide[:, 5:25] = 200
    assert display_values(wide, 20) == pytest.approx(200 / 255)
    assert display_values(wide, 10).shape == (3, 10, 10)


def test_stamps_are_cut_around_their_centre():
    flux = np.random.default_rng(0).normal(size=(2, 9, 11)).astype(np.float32)
    np.testing.assert_array_equal(cut_stamp(flux, 2, 5), flux[:, 2:7, 3:8])
    for bad, words in (
        (flux[0], "shape"),
        (np.where(flux > 2, np.nan, flux), "NaN"),
        (flux[:, :4], "takes 5 or more"),
        (np.zeros((2, 1100, 1100), np.float32), "mosaic"),
        (flux - 50, "negative"),
    ):
        with pytest.raises(InputError, match=words):
            cut_stamp(bad, 2, 5)


def test_batches_follow_from_seed_and_step():
    galaxies = pictures()
    images = TrainingImages(galaxies, display_spec(), galaxies.vectors())
    feed = GalaxyFeed(images, 4, seed=3)
    whole, part = feed.batch(7, range(4)), feed.batch(7, range(2, 4))
    assert whole["image"].shape == whole["eps"].shape == (4, 3, 16, 16)
    assert whole["answers"].shape == (4, CONDITION_SIZE)
    for name in ("image", "answers", "t", "eps"):
        assert torch.equal(whole[name][2:], part[name])
    assert not torch.equal(feed.batch(8, range(4))["eps"], whole["eps"])
    plain = GalaxyFeed(images, 6, question=0, everything=0, turn=False).batch(0, range(6))
    for row, key in enumerate(plain["key"]):
        place = galaxies.ids.index(key)
        np.testing.assert_array_equal(plain["image"][row].numpy(), images[place])
        np.testing.assert_array_equal(plain["answers"][row].numpy(), galaxies.vectors()[place])
    levels = torch.cat([feed.batch(step, range(4))["t"] for step in range(200)])
    assert levels.min() < 20
    assert levels.max() > 980


def test_an_image_is_that_of_its_seed_and_condition(model):
    answers = np.stack([Condition.from_tags(tags).to_vector() for tags in TAGS])
    first = model.generate(answers, [5, 6], steps=4)
    assert first.shape == (2, 16, 16, 3)
    assert first.dtype == np.uint8
    alone = model.generate(answers[1:], [6], steps=4)
    assert np.abs(alone[0].astype(int) - first[1]).max() <= 1
    assert (model.generate(answers[1:], [7], steps=4) != alone).any()
    assert (model.generate(answers[:1], [6], steps=4, guidance=3) != model.generate(answers[1:], [6], steps=4)).any()
    cached = model.generate(answers, [5, 6], steps=6, cache=DeepCache(3))
    assert (cached != model.generate(answers, [5, 6], steps=6)).any()
    # without a condition guidance changes nothing
    nothing = np.zeros((1, CONDITION_SIZE), np.float32)
    guided = model.generate(nothing, [6], steps=4, guidance=4.0)
    assert np.abs(guided.astype(int) - model.generate(nothing, [6], steps=4, guidance=1.0)).max() <= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answers": np.zeros((2, 74))}, "1 seeds"),
        ({"answers": np.zeros((1, 37))}, "shape"),
        ({"answers": np.full((1, 74), np.nan)}, "NaN"),
        ({"solver": "magic"}, "solver 'magic'"),
        ({"steps": 0}, "0 steps"),
        ({"guidance": -1.0}, "guidance -1"),
    ],
)
def test_senseless_requests(model, change, words):
    with pytest.raises(InputError) as caught:
        model.generate(**{"answers": np.zeros((1, 74)), "seeds": [1]} | change)
    assert words in str(caught.value)


def test_a_model_is_found_by_its_name_its_run_or_its_folder(model, tmp_path):
    model.save(tmp_path / "run/model")
    assert model_folder(tmp_path / "run") == model_folder(tmp_path / "run/model") == tmp_path / "run/model"
    assert is_galaxy_model(model_folder("tiny-galaxies"))
    assert model_folder(tmp_path / "nowhere") == tmp_path / "nowhere"


def test_a_saved_model_draws_the_same(model, tmp_path):
    answers = np.stack([Condition.from_tags(TAGS[0]).to_vector()])
    psf = np.random.default_rng(0).random((3, 5, 5)).astype(np.float32)
    model.psf = psf
    model.save(tmp_path / "full", half=False)
    model.save(tmp_path / "half")
    full = load_galaxy_model(tmp_path / "full", device="cpu")
    np.testing.assert_array_equal(full.generate(answers, [1], steps=4), model.generate(answers, [1], steps=4))
    np.testing.assert_array_equal(full.psf, psf)
    assert full.spec == model.spec
    full.save(tmp_path / "again")
    assert str(tmp_path) not in (tmp_path / "again/unet/config.json").read_text()  # nobody else's business
    half = load_galaxy_model(tmp_path / "half", device="cpu")
    difference = half.generate(answers, [1], steps=4).astype(int) - model.generate(answers, [1], steps=4)
    assert np.abs(difference).mean() < 2
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "half" / weights).stat().st_size < 0.55 * (tmp_path / "full" / weights).stat().st_size


def change_spec(**changes):
    def change(folder):
        content = json.loads((folder / "priorscope.json").read_text())
        (folder / "priorscope.json").write_text(json.dumps(content | changes))

    return change


def change_schedule(folder):
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rescale_betas_zero_snr": False}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "priorscope.json").unlink(), "priorscope.json: is missing"),
        (change_spec(family="lotus"), "family 'lotus'"),
        (change_spec(bands=["g", "r"]), "display of 2 bands"),
        (change_spec(scale=[1, 1, 0]), "scales"),
        (change_spec(side=15), "15 pixels"),
        (change_spec(patch=4), "blocks of 4"),
        (change_spec(mode="flux"), "stretch"),
        (change_spec(other=1), "unknown keys: other"),
        (change_schedule, "another schedule"),
        (lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").unlink(), "holds no weights"),
    ],
)
def test_damaged_model_folder(model, tmp_path, damage, words):
    model.save(tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(InputError) as caught:
        load_galaxy_model(tmp_path / "model", device="cpu")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes_that_do_not_fit():
    with pytest.raises(InputError, match="multiples of 8"):
        new_model(display_spec(side=20), "mini")
    with pytest.raises(InputError, match="size 'huge'"):
        new_model(display_spec(), "huge")
    galaxies = pictures()
    with pytest.raises(InputError, match="no galaxy"):
        TrainingImages(galaxies.select([]), display_spec(), np.zeros((0, 74)))
    with pytest.raises(InputError, match="6 galaxies have 2 conditions"):
        TrainingImages(galaxies, display_spec(), np.zeros((2, 74)))


def test_a_draw_that_is_no_galaxy_is_looked_at_all_the_same():
    """Early in a training a model of flux may draw what no stamp is; the look at it must not end the training."""
    from types import SimpleNamespace

    from priorscope_astro.diffusion.scaling import Scaling
    from priorscope_astro.diffusion.task import preview

    stretch = {"kind": "asinh", "beta": [0.1] * 3, "scale": [10.0] * 3}
    bands = {"bands": ("g", "r", "i"), "offset": (0.0,) * 3, "scale": (1.0,) * 3}
    spec = ModelSpec("flux", side=8, stretch=stretch, unit="nmgy", **bands).check()
    flux = np.full((3, 8, 8), -400, np.float32)
    flux[0, 1, 2] = 10  # g is shown as blue, and row 0 is below
    shown = preview(SimpleNamespace(spec=spec, scaling=Scaling(spec)), flux)
    assert shown[6, 2].tolist() == [0, 0, 255]
    assert shown.sum() == 255


def test_a_model_is_loaded_by_its_name_or_run_folder_as_the_commands_take_it(tmp_path):
    from priorscope_astro.demo_config import BUNDLED_FOLDER

    bundled = load_galaxy_model("tiny-galaxies", device="cpu")
    assert bundled.spec.side == 48
    (tmp_path / "run").mkdir()
    (tmp_path / "run/model").symlink_to(BUNDLED_FOLDER)
    assert load_galaxy_model(tmp_path / "run", device="cpu").spec == bundled.spec

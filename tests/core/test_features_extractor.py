"""The extractor as users call it, on a tiny model folder in Stable Diffusion's layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from priorscope.backbones import LatentDistribution, PatchSpace, UNetNetwork
from priorscope.diffusion import Condition, Denoiser, Noise, VPSchedule
from priorscope.errors import InputError
from priorscope.features import AtLevels, FeatureExtractor, Generation, Inversion, Tap, Tapped, Viewer

TAPS = (Tap("up_blocks.0", name="coarse"), Tap("up_blocks.1.resnets.0", "branch", name="fine"))


@pytest.fixture(scope="module")
def tiny_unet(small_unet):
    return small_unet().requires_grad_(False)


@pytest.fixture(scope="module")
def folder(tiny_unet, tmp_path_factory):
    from diffusers import AutoencoderKL

    root = tmp_path_factory.mktemp("model")
    tiny_unet.save_pretrained(root / "unet")
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
        layers_per_block=1,
    )
    vae.save_pretrained(root / "vae")
    (root / "scheduler").mkdir()
    scheduler = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    (root / "scheduler/scheduler_config.json").write_text(json.dumps({**scheduler, "prediction_type": "v_prediction"}))
    save_file({"state": torch.randn(1, 5, 8)}, root / "empty_prompt.safetensors")
    return root


@pytest.fixture
def build(tiny_unet):
    """An extractor on patches of 2 x 2 of one colour channel each: no autoencoder, so tests are quick."""

    def make(**kwargs):
        condition = Condition({"text": torch.ones(1, 5, 8)}, shared=["text"])
        denoiser = Denoiser(UNetNetwork(tiny_unet), VPSchedule.from_betas(), kwargs.pop("prediction_type", "v"))
        space = LatentsOfFour()
        return FeatureExtractor(
            denoiser, space, condition, kwargs.pop("taps", TAPS), **{"mode": AtLevels((261,)), **kwargs}
        )

    return make


class LatentsOfFour(PatchSpace):
    """Four channels of an eighth of the size, as Stable Diffusion has; counts how often it encodes."""

    def __init__(self):
        super().__init__(8)
        self.channels = 4
        self.images = 0

    def encode(self, image, posterior="mode", noise=None):
        self.images += len(image)
        return super().encode(image)[:, ::48]


def pictures(count=3, height=40, width=56):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_a_model_folder_gives_maps(folder):
    extractor = FeatureExtractor.from_pretrained(folder, TAPS, t=(21, 161), device="cpu")
    maps = extractor(pictures(2, 40, 51), batch_size=1)  # neither square nor divisible by 8
    assert {name: tuple(value.shape) for name, value in maps.items()} == {
        "coarse@21": (2, 16, 5, 6),
        "fine@21": (2, 8, 5, 6),
        "coarse@161": (2, 16, 5, 6),
        "fine@161": (2, 8, 5, 6),
    }
    assert extractor.viewer.denoiser.prediction_type == "v"
    assert all(value.dtype == torch.float32 for value in maps.values())
    assert FeatureExtractor.from_pretrained(folder, TAPS, t=np.int64(21), device="cpu").mode == AtLevels((21,))
    # a published set brings its settings; the latent's side is an eighth of the image's
    published = FeatureExtractor.from_pretrained(folder, "dift", size=64, device="cpu")
    assert (published.mode, published.ensemble, published.posterior) == (AtLevels((261,)), 8, "mode")
    assert published(pictures(1)[0])["up_blocks.1"].shape == (1, 8, 8, 8)
    assert FeatureExtractor.from_pretrained(folder, "dift", device="cpu").size == (768, 768)
    assert FeatureExtractor.from_pretrained(folder, "dift", size=0, device="cpu").size is None


def test_one_encoding_gives_the_whole_posterior(folder):
    space = FeatureExtractor.from_pretrained(folder, TAPS, t=1, device="cpu").latents
    image = torch.rand(2, 3, 32, 24) * 2 - 1
    with torch.no_grad():
        both = space.posterior(image)
        torch.testing.assert_close(both.mean, space.encode(image))
        eps = torch.randn(both.mean.shape)
        drawn = space.encode(image, "sample", Noise.recorded([eps]))
    torch.testing.assert_close(both.mean + both.std * eps, drawn)
    assert (both.std > 0).all()
    certain = PatchSpace(4).posterior(image)
    assert torch.equal(certain.mean, PatchSpace(4).encode(image))
    assert not certain.std.any()
    with pytest.raises(InputError, match="smaller than one latent pixel"):
        space.posterior(image[:, :, :4])


@pytest.mark.parametrize("mode", [AtLevels((21, 261)), Inversion(10, (9, 7)), Generation(10, (6, 8))])
def test_an_image_does_not_see_its_batch(build, mode):
    extractor = build(mode=mode, ensemble=3)
    images = pictures()
    together = extractor(images, batch_size=9)
    assert len(together) == 4
    for size in (1, 2, 4):
        for name, value in extractor(images, batch_size=size).items():
            torch.testing.assert_close(value, together[name], atol=1e-5 * float(value.abs().max()), rtol=0)
    alone = extractor(images[::-1][:1])
    for name, value in alone.items():
        torch.testing.assert_close(value[0], together[name][2], atol=1e-5 * float(value.abs().max()), rtol=0)


def test_a_level_does_not_see_the_others(build):
    one, several = build(), build(mode=AtLevels((21, 261, 600)))
    torch.testing.assert_close(one(pictures())["fine"], several(pictures())["fine@261"])


def test_an_ensemble_is_the_mean_of_its_members_and_encodes_once(build):
    extractor, single = build(ensemble=4), build()
    latents = extractor.encode(pictures())
    eps = torch.randn(12, *latents.mean.shape[1:])
    averaged = extractor.extract_latents(latents, noise=Noise.recorded([eps]), batch_size=5)[261]
    for member in range(4):
        part = single.extract_latents(latents, noise=Noise.recorded([eps[member::4]]))[261]
        averaged = {name: value - part[name] / 4 for name, value in averaged.items()}
    assert max(float(value.abs().max()) for value in averaged.values()) < 1e-5
    extractor.latents.images = 0
    extractor(pictures(), batch_size=2)
    assert extractor.latents.images == 3


def test_a_level_is_the_same_however_it_is_written():
    assert repr(AtLevels((21,))) == repr(AtLevels([21.0])) == repr(AtLevels(np.array([21])))


def test_named_images_are_not_hashed_without_a_cache(build, monkeypatch):
    from priorscope.features import extractor

    expected = build()(pictures(2), items=["a", "b"])["fine"]
    monkeypatch.delattr(extractor, "content_hash")
    assert torch.equal(build()(pictures(2), items=["a", "b"])["fine"], expected)


def test_members_draw_their_own_latents(build):
    extractor = build(posterior="sample", ensemble=2)
    mean = torch.randn(1, 4, 5, 7)
    recorded = torch.randn(2, 4, 5, 7)
    noise = torch.randn(2, 4, 5, 7)
    drawn = extractor.extract_latents(
        LatentDistribution(mean, torch.full_like(mean, 0.5)),
        noise=Noise.recorded([noise]),
        posterior_noise=Noise.recorded([recorded]),
    )[261]
    single = build()
    latents = LatentDistribution(mean + 0.5 * recorded, torch.zeros_like(recorded))
    expected = single.extract_latents(latents, noise=Noise.recorded([noise]))[261]
    for name, value in drawn.items():
        torch.testing.assert_close(value, expected[name].mean(0, keepdim=True), atol=1e-5, rtol=1e-5)


def test_seeds_and_names_decide_about_noise(build):
    extractor = build()
    images = pictures(2)
    first = extractor(images)["fine"]
    assert torch.equal(first, extractor(images)["fine"])
    assert not torch.allclose(first, extractor(images, seed=1)["fine"])
    named = extractor(images, items=["a", "b"])["fine"]
    assert not torch.allclose(first, named)
    torch.testing.assert_close(extractor(images[1], items=["b"])["fine"][0], named[1], atol=1e-5, rtol=1e-5)


def test_what_is_told_of_each_image(build, tmp_path):
    images = pictures()
    text = torch.randn(3, 5, 8)
    extractor = build(ensemble=2, cache=tmp_path)
    plain = extractor(images)
    told = extractor(images, condition=Condition({"text": text}), batch_size=4)
    for row in range(3):
        alone = build(ensemble=2)
        alone.viewer.condition = Condition({"text": text[row : row + 1]}, shared=["text"])
        for name, value in alone(images[row]).items():
            torch.testing.assert_close(value[0], told[name][row], atol=1e-5 * float(value.abs().max()), rtol=0)
    assert not torch.allclose(plain["fine"], told["fine"])
    swapped = extractor(images, condition=Condition({"text": text.flip(0)}))
    assert not torch.allclose(swapped["fine"][0], told["fine"][0])
    torch.testing.assert_close(swapped["fine"][1], told["fine"][1])


def test_published_ways(folder):
    extractor = FeatureExtractor.from_pretrained(folder, "hyperfeatures", size=32, device="cpu")
    assert extractor.mode == Inversion(50, (49, 45, 40, 35, 30, 25, 20, 15, 10, 5, 0), offset=0)
    maps = extractor.extract(pictures(1))
    assert list(maps) == [49, 45, 40, 35, 30, 25, 20, 15, 10, 5, 0]
    assert len(maps[0]) == 4


def test_tensors_and_arrays_agree(build):
    extractor = build()
    images = pictures()
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    items = [0, 1, 2]
    for name, value in extractor(images, items=items).items():
        torch.testing.assert_close(value, extractor(tensors, items=items)[name], atol=1e-5, rtol=1e-5)


class GaussianOracle(torch.nn.Module):
    """Answers with the exact v for data that is normal with this standard deviation."""

    spread = 0.7

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule
        self.seen = torch.nn.Identity()

    def forward(self, x, label):
        alpha, sigma = self.schedule(float(label[0]))
        return self.seen(x) * alpha * sigma * (1 - self.spread**2) / (alpha**2 * self.spread**2 + sigma**2)


def test_inversion_reads_what_the_network_predicts():
    # on the probability flow of a Gaussian, x over the standard deviation of its level stays constant
    schedule = VPSchedule.from_betas()
    oracle = GaussianOracle(schedule)
    viewer = Viewer(Denoiser(oracle, schedule, "v"), Tapped(oracle, [Tap("seen", name="x_t")]))
    x = torch.randn(2, 4, 6, 6)
    t = float(range(1, 1000, 2)[499 - 100 - 1])  # the call of save step 100 of 500
    alpha, sigma = schedule(t)
    expected = x * (alpha**2 * oracle.spread**2 + sigma**2) ** 0.5 / oracle.spread
    errors = {}
    for official in (False, True):
        x_t = Inversion(500, (100,), official=official)(viewer, x)[100]["x_t"]
        errors[official] = float((x_t - expected).norm() / expected.norm())
    assert errors[False] < 0.02
    assert errors[True] > 0.1  # v read as epsilon


@pytest.mark.parametrize(
    ("images", "fact"),
    [
        (np.zeros((8, 8, 3), np.float32), "uint8"),
        (np.zeros((0, 8, 3), np.uint8), "empty"),
        (np.zeros((8, 8, 4), np.uint8), "uint8 array"),
        ([], "no images"),
        (["photo.png"], "got str"),
        ("photo.png", "got str"),
        (Path("photo.png"), "got PosixPath"),
        (Image.fromarray(np.zeros((8, 8, 3), np.uint8)), "got Image"),
        (np.zeros((8, 8), np.uint8), r"got uint8 array \(8, 8\)"),
        (torch.full((1, 3, 8, 8), float("nan")), "NaN"),
        (torch.full((1, 3, 8, 8), 1.5), "outside"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "float tensor"),
        (torch.zeros(3, 8, 8), "float tensor"),
    ],
)
def test_wrong_images(build, images, fact):
    with pytest.raises(InputError, match=fact):
        build()(images)


def test_wrong_requests(build, folder, tmp_path):
    images = [pictures(1)[0], pictures(1, 48, 48)[0]]
    with pytest.raises(InputError, match="different sizes"):
        build()(images)
    with pytest.raises(InputError, match="different sizes"):
        build()(images, batch_size=1)
    assert build(size=32)(images)["coarse"].shape == (2, 16, 4, 4)
    with pytest.raises(InputError, match="item names"):
        build()(images[:1], items=["a", "b"])
    for rows in (2, 4):
        with pytest.raises(InputError, match=f"'text' has {rows} rows"):
            build()(pictures(3), condition=Condition({"text": torch.zeros(rows, 5, 8)}))
    with pytest.raises(InputError, match="batch size of 0"):
        build()(images[:1], batch_size=0)
    with pytest.raises(InputError, match="ensemble of 0"):
        build(ensemble=0)
    with pytest.raises(InputError, match="size of 4"):
        build(size=4)
    with pytest.raises(InputError, match="batch size of 0"):
        build().encode(images[:1], batch_size=0)
    with pytest.raises(InputError, match=r"size of \(64,\)"):
        build(size=(64,))
    with pytest.raises(InputError, match="mode 'inversion'"):
        build(mode="inversion")
    for levels in (261, ("low",), ()):
        with pytest.raises(InputError, match="noise level"):
            AtLevels(levels)
    for save in (9, (9.5,), ()):
        with pytest.raises(InputError, match="save steps"):
            build(mode=Inversion(10, save))(images[:1])
    with pytest.raises(InputError, match=r"no tap set is called 'sd_dino'.*sd-dino"):
        FeatureExtractor.from_pretrained(folder, "sd_dino")
    with pytest.raises(InputError, match="posterior"):
        build(posterior="median")
    with pytest.raises(InputError, match="neither -1 nor within"):
        build(mode=AtLevels((1000,)))(images[:1])
    with pytest.raises(InputError, match="save steps"):
        build(mode=Inversion(10, (10,)))(images[:1])
    with pytest.raises(InputError, match="state no level"):
        FeatureExtractor.from_pretrained(folder, TAPS)
    with pytest.raises(InputError, match="both t and a mode"):
        FeatureExtractor.from_pretrained(folder, TAPS, t=1, mode=Inversion())
    with pytest.raises(InputError, match=r"no tap set is called 'difd'.*dift"):
        FeatureExtractor.from_pretrained(folder, "difd")
    with pytest.raises(InputError, match="no model is called 'nonesuch'"):
        FeatureExtractor.from_pretrained("nonesuch")
    with pytest.raises(InputError, match=r"scheduler_config.json: is missing"):
        FeatureExtractor.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="cross_attention_dim = 8"):
        FeatureExtractor.from_pretrained(folder, TAPS, t=1, text=torch.zeros(1, 2, 6))


def test_a_broken_network_is_noticed(build):
    extractor = build()
    conv_in = extractor.viewer.taps.network.conv_in
    hook = conv_in.register_forward_hook(lambda module, inputs, output: output * float("nan"))
    with pytest.raises(InputError, match="NaN or infinite values at coarse"):
        extractor(pictures(1))
    hook.remove()

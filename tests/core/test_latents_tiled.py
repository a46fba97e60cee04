"""The autoencoder in row strips gives what it gave before; in tiles, nearly so."""

from __future__ import annotations

import copy

import pytest
import torch

from priorscope.backbones.folding import lean
from priorscope.backbones.latents import AutoencoderSpace, load_latent_space
from priorscope.backbones.streaming import decode_in_strips, encode_in_strips, stream
from priorscope.diffusion.noise import Noise

#: Sides that do and do not divide by 8, one latent row, one latent column.
SIZES = [(64, 96), (43, 61), (8, 40), (80, 8)]


@pytest.fixture(scope="module")
def vae():
    from diffusers import AutoencoderKL

    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKL(
            latent_channels=4,
            block_out_channels=(16, 32, 48, 48),
            layers_per_block=2,
            norm_num_groups=8,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ).eval()
        for parameter in vae.parameters():  # trained networks have means and offsets that a fresh one lacks
            parameter.data += 0.05 * torch.randn_like(parameter)
    return vae.requires_grad_(False)


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def assert_equal_to_rounding(ours, plain):
    assert ours.shape == plain.shape
    assert ours.dtype == plain.dtype
    difference = (ours - plain).abs().max() / plain.abs().max()
    assert difference < (1e-13 if plain.dtype == torch.float64 else 1e-5), difference


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strips_equal_the_whole(vae, size, dtype):
    vae = copy.deepcopy(vae).to(dtype)
    streamed = copy.deepcopy(vae)
    assert stream(streamed)
    image = draw(2, 3, *size).to(dtype)
    plain = vae.encode(image).latent_dist.parameters
    assert_equal_to_rounding(streamed.encode(image).latent_dist.parameters, plain)
    latents = draw(2, 4, *plain.shape[-2:]).to(dtype)
    assert_equal_to_rounding(streamed.decode(latents).sample, vae.decode(latents).sample)


@pytest.mark.parametrize("strip_bytes", [1, 10_000, 1 << 30])
def test_strips_of_any_height(vae, strip_bytes):
    streamed = copy.deepcopy(vae)
    stream(streamed)
    image, latents = draw(1, 3, 51, 64), draw(1, 4, 7, 5)
    assert_equal_to_rounding(encode_in_strips(streamed.encoder, image, strip_bytes=strip_bytes), vae.encoder(image))
    assert_equal_to_rounding(decode_in_strips(streamed.decoder, latents, strip_bytes=strip_bytes), vae.decoder(latents))


def test_statistics_keep_their_digits_far_from_zero(vae):
    """A map whose mean is 3000 times its spread: sums of squares in float32 would keep nothing."""
    vae = copy.deepcopy(vae)
    vae.encoder.conv_in.bias += 3000
    streamed = copy.deepcopy(vae)
    stream(streamed)
    image = draw(1, 3, 64, 64)
    exact = copy.deepcopy(vae).double().encoder(image.double())
    ours, plain = ((network.encoder(image) - exact).abs().max() for network in (streamed, vae))
    assert ours < 4 * plain


def test_nan_stays_nan_and_stays_in_its_image(vae):
    streamed = copy.deepcopy(vae)
    stream(streamed)
    latents = draw(2, 4, 4, 4)
    latents[0, 0, 1, 1] = float("nan")
    decoded = streamed.decode(latents).sample
    assert decoded[0].isnan().any()
    assert_equal_to_rounding(decoded[1:], vae.decode(latents[1:]).sample)


def test_a_map_is_never_held_more_than_three_times(vae, monkeypatch):
    """Peak of live activations, counted by tensors: what an ordinary pass holds is more."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Peak(TorchDispatchMode):
        """Largest number of bytes of tensors made in here that were alive at once."""

        def __init__(self):
            super().__init__()
            self.now, self.peak, self.alive = 0, 0, {}

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            import weakref

            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    key = storage.data_ptr()
                    if key not in self.alive and storage.nbytes():
                        self.alive[key] = size = storage.nbytes()
                        self.now += size
                        self.peak = max(self.peak, self.now)
                        weakref.finalize(storage, self.free, key, size)
            return result

        def free(self, key, size):
            if self.alive.pop(key, None) is not None:
                self.now -= size

    streamed = copy.deepcopy(vae)
    stream(streamed)
    latents = draw(1, 4, 24, 24)
    side = 24 * 8
    largest = 4 * 32 * side * side  # the last enlargement: 32 channels at full size
    with torch.no_grad():
        with Peak() as ours:
            decode_in_strips(streamed.decoder, latents, strip_bytes=50_000)
        with Peak() as plain:
            vae.decoder(latents)
    assert largest < ours.peak < 2.2 * largest
    assert plain.peak > 1.5 * ours.peak


def test_other_blocks_are_left_alone():
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        act_fn="relu",
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    before = vae.decoder.forward
    assert not stream(vae)
    assert vae.decoder.forward == before


def test_phases_alone_equal_the_whole(vae):
    """What a GPU runs: no strips, but lean blocks."""
    leaner = copy.deepcopy(vae)
    lean(leaner, phases=True)
    latents, image = draw(2, 4, 6, 9), draw(2, 3, 48, 72)
    assert_equal_to_rounding(leaner.decode(latents).sample, vae.decode(latents).sample)
    assert_equal_to_rounding(leaner.encode(image).latent_dist.mean, vae.encode(image).latent_dist.mean)


@pytest.mark.parametrize("posterior", ["mode", "sample"])
def test_a_lean_space_gives_the_same_latents_and_images(vae, posterior):
    plain, ours = AutoencoderSpace(vae), AutoencoderSpace(copy.deepcopy(vae))
    ours.lean()
    image = draw(2, 3, 64, 48).clamp(-1, 1)
    latents = [
        space.encode(image, posterior, Noise.per_item([0, 1]) if posterior == "sample" else None)
        for space in (plain, ours)
    ]
    assert_equal_to_rounding(latents[1], latents[0])
    assert_equal_to_rounding(ours.decode(latents[0]), plain.decode(latents[0]))


def test_tiles_are_strips_too_and_deviate_little(vae, tmp_path):
    """Tiles have statistics of their own, so they are not exact; in strips or not makes no difference to them."""
    vae.save_pretrained(tmp_path)
    whole = load_latent_space(tmp_path)
    tiled, lean_tiled = load_latent_space(tmp_path, tiled=True), load_latent_space(tmp_path, tiled=True)
    lean_tiled.lean()
    latents = draw(1, 4, 80, 12)  # 640 rows: three tiles of 320
    image = torch.nn.functional.interpolate(draw(1, 3, 20, 8), (640, 96), mode="bicubic")
    with torch.no_grad():
        for ours, plain, exact in (
            (lean_tiled.decode(latents), tiled.decode(latents), whole.decode(latents)),
            (lean_tiled.encode(image), tiled.encode(image), whole.encode(image)),
        ):
            assert_equal_to_rounding(ours, plain)
            assert (plain - exact).abs().max() > 1e-4 * exact.abs().max()
            assert (plain - exact).std() < 0.5 * exact.std()  # random weights: trained ones deviate less
        assert torch.equal(tiled.decode(latents[..., :40, :]), whole.decode(latents[..., :40, :]))

"""What is kept on disk: equal to what was made, whole under concurrent writers, and made again where it is damaged."""

from __future__ import annotations

import multiprocessing
import os
import warnings

import numpy as np
import pytest
import torch

from priorscope.backbones import PatchSpace
from priorscope.diffusion import Denoiser, VPSchedule
from priorscope.errors import InputError
from priorscope.features import AtLevels, FeatureExtractor, Tap, TensorFolder
from priorscope.features.cache import content_hash, fingerprint

MAPS = {"b": torch.arange(24.0).reshape(2, 3, 4), "a": torch.tensor([1, 2])}


def test_what_is_kept_comes_back(tmp_path):
    cache = TensorFolder(tmp_path, {"t": 261})
    assert cache.get("photo") is None
    cache.put("photo", MAPS)
    kept = TensorFolder(tmp_path, {"t": 261}).get("photo")
    assert list(kept) == ["b", "a"]
    assert all(torch.equal(kept[name], value) for name, value in MAPS.items())
    assert cache.get("other") is None
    assert TensorFolder(tmp_path, {"t": 262}).get("photo") is None
    half = TensorFolder(tmp_path, {"t": 261}, dtype=torch.float16)
    assert half.get("photo") is None
    assert half.put("photo", MAPS)["b"].dtype == torch.float16
    assert half.get("photo")["a"].dtype == torch.int64


def test_maps_are_mapped_not_read(tmp_path):
    cache = TensorFolder(tmp_path, {})
    cache.put("photo", {"x": torch.zeros(8_000_000)})
    cache.get("photo")  # verified now

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    kept = [cache.get("photo")["x"] for _ in range(10)]
    assert resident() - before < 32_000_000  # ten copies would take 320 MB
    assert sum(float(value[-1]) for value in kept) == 0


def damage_byte(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x40
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize(
    "damage",
    [damage_byte, truncate, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"\xff" * 400)],
)
def test_a_damaged_file_is_noticed_and_made_again(tmp_path, damage):
    cache = TensorFolder(tmp_path, {})
    cache.put("photo", MAPS)
    assert cache.get("photo") is not None
    damage(cache.path("photo"))
    with pytest.warns(RuntimeWarning, match=f"{cache.path('photo').name}.*is damaged"):
        assert cache.get("photo") is None
    cache.put("photo", MAPS)
    assert torch.equal(cache.get("photo")["b"], MAPS["b"])


def write_and_read(folder, rounds):
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    cache = TensorFolder(folder, {})
    for index in range(rounds):
        key = str(index % 5)
        kept = cache.get(key)
        if kept is not None and not bool((kept["x"] == float(key)).all()):
            raise SystemExit(3)
        cache.put(key, {"x": torch.full((20_000,), float(key))})
    raise SystemExit(0)


def test_several_processes_write_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_and_read, args=(tmp_path, 60)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 5  # nothing was left aside
    for key in range(5):
        assert bool((TensorFolder(tmp_path, {}).get(str(key))["x"] == key).all())


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 5, 3, padding=1)
        self.calls = 0

    def forward(self, x, label):
        self.calls += 1
        return self.first(x + label.reshape(-1, 1, 1, 1) / 1000)


class Counting(PatchSpace):
    def __init__(self):
        super().__init__(1)
        self.images = 0

    def encode(self, image, posterior="mode", noise=None):
        self.images += len(image)
        return image


def extractor(folder, network=None, **kwargs):
    denoiser = Denoiser(network or Network(), VPSchedule.from_betas())
    settings = {"mode": AtLevels((21, 261)), **kwargs}
    return FeatureExtractor(denoiser, Counting(), None, [Tap("first")], cache=folder, **settings)


def test_the_extractor_makes_nothing_twice(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
    plain = extractor(None)(images)
    first = extractor(tmp_path)
    made = first(images[:2], batch_size=1)
    made = first(images)
    assert first.latents.images == 3
    assert first.viewer.taps.network.calls == 2 * 2 + 2  # two levels: two images alone, then the third
    again = extractor(tmp_path)
    kept = again(images[::-1])
    assert again.latents.images == again.viewer.taps.network.calls == 0
    for name, value in plain.items():
        assert torch.equal(made[name], kept[name].flip(0))
        torch.testing.assert_close(value, kept[name].flip(0), atol=1e-6, rtol=1e-6)
    # another level: latents are kept, maps are not; another seed and another name likewise
    for changed, call in (
        (extractor(tmp_path, mode=AtLevels((30,))), {}),
        (extractor(tmp_path), {"seed": 1}),
        (extractor(tmp_path), {"items": ["a", "b", "c"]}),
        (extractor(tmp_path, ensemble=2), {}),
    ):
        changed(images, **call)
        assert changed.latents.images == 0
        assert changed.viewer.taps.network.calls > 0


def test_other_weights_other_maps(tmp_path):
    images = np.zeros((1, 4, 4, 3), np.uint8)
    before = extractor(tmp_path)(images)
    network = Network()
    with torch.no_grad():
        network.first.bias.add_(1)
    after = extractor(tmp_path, network)(images)
    torch.testing.assert_close(after["first@21"], before["first@21"] + 1)
    assert fingerprint([network]) != fingerprint([Network()])
    assert fingerprint([Network()]) == fingerprint([Network()])


def test_where_a_model_lies_does_not_matter_but_how_it_is_asked_does(tmp_path):
    here, there = Network(), Network()
    here.config, there.config = {"heads": 2, "_name_or_path": "a"}, {"heads": 2, "_name_or_path": "b"}
    assert fingerprint([here]) == fingerprint([there])
    there.config = {"heads": 4}
    assert fingerprint([here]) != fingerprint([there])
    images = np.full((1, 4, 4, 3), 77, np.uint8)
    plain = extractor(tmp_path, mode=AtLevels((21,)))(images)["first"]
    halved = Denoiser(Network(), VPSchedule.from_betas(), input_scale=lambda alpha, sigma: 0.5)
    asked = FeatureExtractor(halved, Counting(), None, [Tap("first")], mode=AtLevels((21,)), cache=tmp_path)
    assert not torch.allclose(asked(images)["first"], plain)


def test_tiled_latents_are_not_taken_for_whole_ones(tmp_path):
    images = np.zeros((1, 4, 4, 3), np.uint8)
    for tiled, encoded in ((False, 1), (True, 1), (True, 0)):
        space = Counting()
        space.vae = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(space.vae.weight)
        torch.nn.init.zeros_(space.vae.bias)
        space.vae.use_tiling = tiled
        denoiser = Denoiser(Network(), VPSchedule.from_betas())
        FeatureExtractor(denoiser, space, None, [Tap("first")], mode=AtLevels((21,)), cache=tmp_path)(images)
        assert space.images == encoded


class Standardised(PatchSpace):
    """Like remote sensing's space of reflectance: what it gives depends on numbers that its class does not tell."""

    def __init__(self, mean):
        super().__init__(1)
        self.mean = mean

    def encode(self, image, posterior="mode", noise=None):
        return image - self.mean

    def describe(self):
        return {**super().describe(), "mean": self.mean}


def test_latents_of_other_statistics_are_not_taken(tmp_path):
    images = np.zeros((1, 4, 4, 3), np.uint8)
    found = {}
    for mean in (0.0, 0.5):
        denoiser = Denoiser(Network(), VPSchedule.from_betas())
        settings = {"mode": AtLevels((21,)), "cache": tmp_path}
        found[mean] = FeatureExtractor(denoiser, Standardised(mean), None, [Tap("first")], **settings).encode(images)
    torch.testing.assert_close(found[0.0].mean - found[0.5].mean, torch.full((1, 3, 4, 4), 0.5))


def test_nothing_wrong_is_kept(tmp_path):
    """Values beyond the cache's dtype, maps with NaN, a full disk: an error, and no file."""
    with pytest.raises(InputError, match=r"cache of torch.int8"):
        TensorFolder(tmp_path, {}, dtype=torch.int8)
    with pytest.raises(InputError, match=r"x holds values too large for torch.float16"):
        TensorFolder(tmp_path, {}, dtype=torch.float16).put("photo", {"x": torch.tensor([7e4])})
    network = Network()
    torch.nn.init.constant_(network.first.bias, torch.nan)
    with pytest.raises(InputError, match="NaN or infinite values at first"):
        extractor(tmp_path, network)(np.zeros((1, 4, 4, 3), np.uint8))
    assert not list((tmp_path / "maps").rglob("*.safetensors"))


def test_a_full_disk(tmp_path, fork):
    def work():
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(InputError, match="cannot be written"):
            TensorFolder(tmp_path, {}).put("photo", {"x": torch.zeros(10_000)})
        return 0

    assert fork(work) == 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_damaged_file_under_the_extractor(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    expected = extractor(tmp_path)(images)
    for path in tmp_path.rglob("*.safetensors"):
        truncate(path)
    again = extractor(tmp_path)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        maps = again(images)
    assert all(torch.equal(maps[name], value) for name, value in expected.items())
    assert all(torch.equal(extractor(tmp_path)(images)[name], value) for name, value in expected.items())


def test_half_precision_rounds_the_same_at_first_and_later(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (1, 6, 5, 3), dtype=np.uint8)
    exact = extractor(None)(images)
    first = extractor(tmp_path, cache_dtype=torch.float16)(images)
    second = extractor(tmp_path, cache_dtype=torch.float16)(images)
    for name, value in exact.items():
        assert torch.equal(first[name], second[name])
        assert first[name].dtype == torch.float32
        torch.testing.assert_close(first[name], value, atol=1e-3, rtol=1e-3)
        assert not torch.equal(first[name], value)


def test_a_cache_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, a folder for the cache"):
        TensorFolder(tmp_path / "file", {})


def test_hashes_see_shape_and_dtype():
    zeros = np.zeros((2, 3), np.uint8)
    hashes = [content_hash(x) for x in (zeros, zeros.T, zeros.astype(np.int8), zeros + 1, zeros[:, ::-1])]
    assert len(set(hashes)) == 4
    assert content_hash(torch.from_numpy(zeros)) == hashes[0]

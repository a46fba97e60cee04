"""SatUNet and the metadata it is told: published values, units, unknown entries, saving and loading."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from priorscope.backbones import load_component
from priorscope.errors import InputError
from priorscope_remote_sensing.metadata import METADATA_NAMES, Metadata, denormalise, normalise
from priorscope_remote_sensing.satunet import SatUNet

TINY = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": (2, 2),
    "use_linear_projection": True,
}


@pytest.fixture(scope="module")
def unet():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SatUNet(**TINY).eval().requires_grad_(False)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(3, 4, 8, 8, generator=generator)
    return sample, torch.tensor([1, 500, 999]), torch.randn(3, 5, 12, generator=generator)


def test_golden_satunet(golden_files, read_json):
    files = {path.name: path for path in golden_files("features", "satunet_*")}
    for path in (path for name, path in files.items() if name.endswith(".json") and "metadata_embedding" not in name):
        embedding = path.with_name("satunet_tiny_metadata_embedding.json")
        unet = SatUNet(**read_json(embedding)["config"])
        weights = load_file(path.with_name("unet_tiny_sd2.safetensors"))
        weights |= load_file(embedding.with_suffix(".safetensors"))
        unet.load_state_dict({key.removeprefix("w."): value for key, value in weights.items()})
        unet.eval()
        case = load_file(path.with_suffix(".safetensors"))
        raw = case["raw"].tolist()
        known = [
            Metadata(lon - 180, lat - 90, gsd, cloud, int(year) + 1980, int(month) or None, int(day) or None)
            for lon, lat, gsd, cloud, year, month, day in raw
        ]
        normalised = torch.from_numpy(normalise(known))
        torch.testing.assert_close(normalised, case["normalized"], atol=2e-5, rtol=0)
        natural = torch.from_numpy(denormalise(normalised.numpy()))
        torch.testing.assert_close(natural, case["unnormalized_print"].double(), atol=1e-3, rtol=0)
        with torch.no_grad():
            for rows in (slice(0, 3), slice(0, 1), slice(2, 3)):
                given = [case[name][rows] for name in ("sample", "timestep", "context")]
                out = unet(*given, metadata=normalised[rows]).sample
                torch.testing.assert_close(out, case["out"][rows], atol=2e-5, rtol=0)
                for unknown in (None, torch.from_numpy(normalise([None]))):
                    out = unet(*given, metadata=unknown).sample
                    torch.testing.assert_close(out, case["out_metadata_zero"][rows], atol=2e-5, rtol=0)


def test_normalisation_of_the_published_example():
    """The vector of DiffusionSat's notebook is a day of 2017 in Queensland."""
    published = [925.8798, 345.2111, 411.4541, 0, 308.3333, 166.6667, 354.8387]
    natural = denormalise(np.array(published))
    np.testing.assert_allclose(natural, [153.3167, -27.8620, 0.4115, 0, 2017, 2, 11], atol=1e-4, rtol=0)
    longitude, latitude, gsd, cloud, *date = natural
    known = Metadata(longitude, latitude, gsd, cloud, *(round(number) for number in date))
    np.testing.assert_allclose(known.normalised(), published, atol=1e-3, rtol=0)
    assert known.normalised().dtype == np.float32


def test_unknown_entries_are_zero_each():
    full = dict(zip(METADATA_NAMES, (10.0, 20.0, 0.3, 0.2, 2020, 5, 6), strict=True))
    whole = Metadata(**full).normalised()
    assert np.all(whole > 0)
    for index, name in enumerate(METADATA_NAMES):
        part = Metadata(**{**full, name: None}).normalised()
        assert part[index] == 0
        np.testing.assert_array_equal(np.delete(part, index), np.delete(whole, index))
    assert normalise([None, Metadata(**full)]).shape == (2, 7)
    assert not normalise([None]).any()


def test_resized_image_has_other_pixels():
    assert Metadata(gsd=10.0).resized(64, 256).gsd == pytest.approx(2.5)
    assert Metadata(year=2000).resized(64, 256) == Metadata(year=2000)
    with pytest.raises(InputError, match="widths"):
        Metadata(gsd=1.0).resized(0, 256)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("longitude", 334.0),  # what the official helper wants: a trap
        ("latitude", 91),
        ("latitude", float("nan")),
        ("gsd", 0),
        ("gsd", -1),
        ("gsd", float("inf")),
        ("cloud_cover", 30),
        ("year", 37),
        ("month", 0),
        ("day", 32),
        ("day", "1"),
    ],
)
def test_senseless_metadata(name, value):
    with pytest.raises(InputError, match=f"{name} = "):
        Metadata(**{name: value})


def test_empty_batch_and_wrong_width():
    with pytest.raises(InputError, match="empty"):
        normalise([])
    with pytest.raises(InputError, match="7 entries"):
        denormalise(np.zeros(6))


def test_metadata_of_wrong_shape(unet, inputs):
    for shape in ((3, 6), (2, 7), (7,)):
        with pytest.raises(InputError, match="expected"):
            unet(*inputs, metadata=torch.zeros(shape))


def test_shared_metadata_and_every_entry_matters(unet, inputs):
    one = torch.from_numpy(normalise([Metadata(10, 20, 0.3, 0.2, 2020, 5, 6)]))
    shared = unet(*inputs, metadata=one).sample
    torch.testing.assert_close(shared, unet(*inputs, metadata=one.expand(3, 7)).sample)
    for entry in range(7):
        other = one.clone()
        other[0, entry] = 0
        assert not torch.allclose(unet(*inputs, metadata=other).sample, shared, atol=1e-6)


def test_without_metadata_it_is_the_plain_network(unet, inputs):
    from diffusers import UNet2DConditionModel

    plain = UNet2DConditionModel(**TINY).eval()
    weights = unet.state_dict()
    plain.load_state_dict({key: value for key, value in weights.items() if "metadata" not in key})
    bare = SatUNet(**TINY)
    bare.load_state_dict(weights)
    bare.eval().drop_metadata()
    assert not bare.config.use_metadata
    with torch.no_grad():
        torch.testing.assert_close(bare(*inputs).sample, plain(*inputs).sample, atol=0, rtol=0)
    assert bare.state_dict().keys() == plain.state_dict().keys()
    with pytest.raises(InputError, match="without metadata embeddings"):
        bare(*inputs, metadata=torch.zeros(3, 7))


def test_saved_and_loaded_is_the_same(unet, inputs, tmp_path):
    unet.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["_class_name"] == "SatUNet"
    assert (config["use_metadata"], config["num_metadata"]) == (True, 7)
    again = load_component(SatUNet, tmp_path)
    metadata = torch.full((3, 7), 300.0)
    torch.testing.assert_close(
        again(*inputs, metadata=metadata).sample, unet(*inputs, metadata=metadata).sample, atol=0, rtol=0
    )


def test_missing_embedding_is_named(unet, tmp_path):
    unet.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights.pop("metadata_embedding.4.linear_2.bias")
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"metadata_embedding.4.linear_2.bias"):
        load_component(SatUNet, tmp_path)


def test_plain_stable_diffusion_weights_are_refused(unet, tmp_path):
    from diffusers import UNet2DConditionModel

    UNet2DConditionModel(**TINY).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="missing keys"):
        load_component(SatUNet, tmp_path)

"""Strict loading: every way in which a model folder can be wrong is one line that names it."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from priorscope.backbones import (
    AutoencoderSpace,
    load_component,
    load_latent_space,
    locate,
    prompt_state,
    save_component,
)
from priorscope.backbones.loading import read_config
from priorscope.backbones.stable_diffusion import load_schedule
from priorscope.backbones.table import PublishedModel, find_published, unknown_model
from priorscope.errors import InputError

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def make_vae():
    from diffusers import AutoencoderKL

    def make():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return AutoencoderKL(
                latent_channels=4,
                block_out_channels=(8, 16),
                layers_per_block=1,
                norm_num_groups=4,
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                scaling_factor=0.18215,
            )

    return make


@pytest.fixture
def vae_folder(tmp_path, make_vae):
    make_vae().save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def load(folder, **options):
    from diffusers import AutoencoderKL

    return load_component(AutoencoderKL, folder, **options)


def change_weights(folder, change):
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def refused(folder, *words, **options):
    with pytest.raises(InputError) as caught:
        load(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 900
    assert str(folder) in message
    for word in words:
        assert word in message
    return message


def test_a_good_folder_gives_its_weights_frozen_and_in_evaluation_mode(vae_folder):
    module = load(vae_folder)
    stored = load_file(vae_folder / WEIGHTS)
    loaded = module.state_dict()
    assert set(loaded) == set(stored)
    assert all(torch.equal(loaded[key], stored[key]) for key in stored)
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_dtype(vae_folder):
    assert load(vae_folder, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_other_containers_give_the_same_weights(tmp_path, make_vae):
    """Shards, a torch file, and the half-precision variant where there is nothing else."""
    module = make_vae()
    module.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*-of-*.safetensors"))) > 1
    module.save_pretrained(tmp_path / "torch", safe_serialization=False)
    module.half().save_pretrained(tmp_path / "half", variant="fp16")
    assert (tmp_path / "half" / "diffusion_pytorch_model.fp16.safetensors").exists()
    expected = make_vae().state_dict()
    for kind, atol in (("shards", 0), ("torch", 0), ("half", 1e-3)):
        loaded = load(tmp_path / kind).state_dict()
        assert set(loaded) == set(expected)
        for key, value in expected.items():
            assert loaded[key].dtype == torch.float32
            torch.testing.assert_close(loaded[key], value, atol=atol, rtol=0)


def test_saved_and_loaded_again(vae_folder, tmp_path):
    """Also from channels_last, as networks lie on a GPU; the folder does not tell where the weights were before."""
    from diffusers import AutoencoderKL

    module = load_component(AutoencoderKL, vae_folder).to(memory_format=torch.channels_last)
    save_component(module, tmp_path / "new/vae")
    again = load_component(AutoencoderKL, tmp_path / "new/vae")
    for key, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    assert str(vae_folder) not in (tmp_path / "new/vae/config.json").read_text()
    save_component(module, tmp_path / "half", dtype=torch.float16)
    assert {value.dtype for value in load_file(tmp_path / "half" / WEIGHTS).values()} == {torch.float16}
    with pytest.raises(FileExistsError):
        save_component(module, tmp_path / "half")


def test_full_precision_is_preferred_to_the_half_precision_variant(vae_folder, make_vae):
    torch.nn.init.zeros_((half := make_vae().half()).decoder.conv_out.weight)
    half.save_pretrained(vae_folder, variant="fp16")
    assert load(vae_folder).decoder.conv_out.weight.abs().sum() > 0


def test_attention_keys_of_old_autoencoders(vae_folder):
    """Stable Diffusion's own folders were saved when diffusers called the projections query, key, value."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    expected = load_file(vae_folder / WEIGHTS)

    def rename(weights):
        for key in list(weights):
            for new, old in names.items():
                if f".{new}." in key:
                    weights[key.replace(f".{new}.", f".{old}.")] = weights.pop(key)

    change_weights(vae_folder, rename)
    assert any(".proj_attn." in key for key in load_file(vae_folder / WEIGHTS))
    loaded = load(vae_folder).state_dict()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


def test_missing_key(vae_folder):
    change_weights(vae_folder, lambda weights: weights.pop("quant_conv.weight"))
    refused(vae_folder, "1 missing keys", "quant_conv.weight")


def test_unexpected_key(vae_folder):
    change_weights(vae_folder, lambda weights: weights.update({"extra.weight": torch.zeros(3)}))
    refused(vae_folder, "1 unexpected keys", "extra.weight")


def test_many_keys_are_counted_and_not_all_listed(vae_folder):
    def drop(weights):
        for key in [key for key in weights if key.startswith("decoder.")]:
            del weights[key]

    change_weights(vae_folder, drop)
    assert "more)" in refused(vae_folder, "missing keys")


def test_wrong_shape(vae_folder):
    change_weights(vae_folder, lambda weights: weights.update({"quant_conv.weight": torch.zeros(8, 4, 1, 1)}))
    refused(vae_folder, "quant_conv.weight")


@pytest.mark.parametrize("length", [0, 5, 200, -100])
def test_truncated_weights(vae_folder, length):
    path = vae_folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:length])
    refused(vae_folder)


def test_text_instead_of_weights(vae_folder):
    (vae_folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 334643268\n")
    refused(vae_folder)


class Payload:
    """Unpickling this makes a file: what a hostile checkpoint could do."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_a_pickle_with_a_payload_is_refused_and_not_run(vae_folder, tmp_path, kind):
    (vae_folder / WEIGHTS).unlink()
    content = {"quant_conv.weight": torch.zeros(8, 8, 1, 1), "payload": Payload(tmp_path / "it-ran")}
    target = vae_folder / "diffusion_pytorch_model.bin"
    if kind == "torch":
        torch.save(content, target)
    else:
        target.write_bytes(pickle.dumps({"payload": content["payload"]}))
    refused(vae_folder)
    assert not (tmp_path / "it-ran").exists()


def test_no_weights(vae_folder):
    (vae_folder / WEIGHTS).unlink()
    refused(vae_folder, "no weights")


def test_expected_configuration_is_checked_before_the_weights_are_read(vae_folder):
    (vae_folder / WEIGHTS).write_bytes(b"")
    refused(vae_folder, "latent_channels = 4", "8", expect={"latent_channels": 8})


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"{", "valid JSON"), (b"", "valid JSON"), (b"[1]", "JSON object"), (b"\xff\xfe\x00{", "JSON")],
)
def test_broken_configuration(vae_folder, content, word):
    (vae_folder / "config.json").write_bytes(content)
    refused(vae_folder, word, "config.json")


def test_missing_configuration(tmp_path):
    with pytest.raises(InputError, match=r"config\.json: is missing"):
        read_config(tmp_path)


def test_a_configuration_that_builds_another_network(vae_folder):
    config = json.loads((vae_folder / "config.json").read_text())
    config["block_out_channels"] = [8, 12]
    (vae_folder / "config.json").write_text(json.dumps(config))
    refused(vae_folder)
    config["block_out_channels"] = "wide"
    (vae_folder / "config.json").write_text(json.dumps(config))
    refused(vae_folder)


def test_latent_space_of_another_class(vae_folder):
    config = json.loads((vae_folder / "config.json").read_text())
    (vae_folder / "config.json").write_text(json.dumps({**config, "_class_name": "VQModel"}))
    with pytest.raises(InputError, match="a VQModel, not an AutoencoderKL"):
        load_latent_space(vae_folder)


def test_latent_space_without_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "PatchSpace", "patch": 4}')
    space = load_latent_space(tmp_path)
    assert (space.factor, space.channels) == (4, 48)
    image = torch.rand(1, 3, 8, 12)
    assert torch.equal(space.decode(space.encode(image)), image)


def test_autoencoder_refuses_an_image_smaller_than_one_latent_pixel(vae_folder):
    space = load_latent_space(vae_folder)
    assert isinstance(space, AutoencoderSpace)
    with pytest.raises(InputError, match="1 x 8"):
        space.encode(torch.zeros(1, 3, 1, 8))


def test_locate_local_folders(tmp_path):
    assert locate(tmp_path, ["unet"]) == tmp_path
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, not a model folder"):
        locate(tmp_path / "file", ["unet"])
    for name in (str(tmp_path / "none"), "./none", "a/b/c", "none"):
        with pytest.raises(InputError, match="no such model folder"):
            locate(name, ["unet"])


@pytest.mark.parametrize("offline", [True, False])
def test_hub_name_without_network_says_how_to_get_it(tmp_path, monkeypatch, offline):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    # nobody listens there: a machine without network, without waiting for one
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}")
    with pytest.raises(InputError, match="hf download jingheya/lotus-depth-d-v1-0") as caught:
        locate("jingheya/lotus-depth-d-v1-0", ["unet"])
    assert "\n" not in str(caught.value)


def test_malformed_hub_name(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as caught:
        locate("what is/this?", ["unet"])
    assert "what is/this?" in str(caught.value)


def test_model_table():
    rows = [PublishedModel("lotus-d", "depth", "depth", "lotus-d", "owner/lotus-d", "Apache-2.0", "3.9 GB")]
    assert find_published("lotus-d", rows) is rows[0]
    assert find_published("owner/lotus-d", rows) is rows[0]
    assert find_published("lotus", rows) is None
    assert "Did you mean lotus-d?" in str(unknown_model("lotusd", rows))
    assert "Known names: lotus-d." in str(unknown_model("zebra", rows))


def test_stored_prompt_state_is_used_as_it_is(tmp_path):
    state = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 2, 6), dtype=np.float32))
    save_file({"state": state}, tmp_path / "empty_prompt.safetensors")
    assert torch.equal(prompt_state(tmp_path), state)


def test_broken_prompt_state(tmp_path):
    path = tmp_path / "empty_prompt.safetensors"
    path.write_bytes(b"not safetensors")
    with pytest.raises(InputError, match=r"empty_prompt\.safetensors"):
        prompt_state(tmp_path)
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not a stored prompt state"):
        prompt_state(tmp_path)
    save_file({"state": torch.zeros(2, 6)}, path)
    with pytest.raises(InputError, match=r"shape \(2, 6\)"):
        prompt_state(tmp_path)
    with pytest.raises(InputError, match="has no text_encoder folder"):
        prompt_state(tmp_path, "a photograph")
    path.unlink()
    with pytest.raises(InputError, match="neither a text_encoder folder nor"):
        prompt_state(tmp_path)


def test_a_schedule_and_what_its_network_predicts(tmp_path):
    path = tmp_path / "scheduler_config.json"
    config = {"num_train_timesteps": 4, "beta_start": 0.1, "beta_end": 0.1, "beta_schedule": "linear"}
    config |= {"_class_name": "DDIMScheduler", "set_alpha_to_one": False}
    for stated, expected in ({}, "epsilon"), ({"prediction_type": "v_prediction"}, "v"):
        path.write_text(json.dumps(config | stated))
        schedule, predicts = load_schedule(tmp_path)
        assert predicts == expected
        assert schedule.last == "first"
        np.testing.assert_allclose(schedule.alphas_cumprod, 0.9 ** np.arange(1, 5), rtol=1e-12)
    path.write_text(json.dumps(config | {"prediction_type": "flow_prediction"}))
    with pytest.raises(InputError, match="states prediction_type 'flow_prediction'"):
        load_schedule(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"scheduler_config\.json"):
        load_schedule(tmp_path)

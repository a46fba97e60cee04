"""GalaxySD on a tiny model in the published layouts: folder and HCP files, prompts, starts, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from priorscope.caching import DeepCache
from priorscope.cli import main
from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope_astro.conditions.condition import Condition
from priorscope_astro.configs import TrainConfig
from priorscope_astro.data.catalogue import read_catalogue
from priorscope_astro.data.pairs import read_pairs
from priorscope_astro.galaxysd import GalaxySD, ReferencePool, load_galaxysd, noise_levels, weighted_states
from priorscope_astro.galaxysd.loading import hcp_file
from priorscope_astro.galaxysd.names import from_hcp, to_hcp
from priorscope_astro.galaxysd.pool import LatentMoments, encode, start_from_moments
from priorscope_astro.galaxysd.training import prepare
from priorscope_astro.model_files import digest_of
from priorscope_astro.plan import Plan, PlanRow, row_seed

PROMPT = "sdss, in-between round galaxy, {dust lane:1.3}"
SIDE = 104  # 13 latents: no multiple of 8, as the published 53


TEXT = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "hidden_act": "quick_gelu",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
    "projection_dim": 16,
    "vocab_size": 514,
    "bos_token_id": 512,
    "eos_token_id": 513,
    "pad_token_id": 513,
}


@pytest.fixture(scope="module")
def networks(small_unet):
    """State dictionaries of the three networks, and how diffusers and transformers write their configurations."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = CLIPTextModel(CLIPTextConfig(**TEXT))
        # else every mean is 0 but for rounding, and prompt weights as published divide by it
        text.final_layer_norm.bias.data += 0.1
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            norm_num_groups=4,
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            scaling_factor=0.18215,
        )
    unet = small_unet(
        cross_attention_dim=16,
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )
    return {"unet": unet, "vae": vae, "text_encoder": text}


@pytest.fixture(scope="module")
def diffusers_folder(tmp_path_factory, networks, write_tokenizer):
    root = tmp_path_factory.mktemp("models") / "galaxysd"
    for name in ("unet", "vae"):
        networks[name].save_config(root / name)
        state = networks[name].state_dict()
        save_file(state, root / name / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    (root / "text_encoder").mkdir()
    (root / "text_encoder/config.json").write_text(json.dumps(TEXT))
    state = {f"text_model.{key}": value for key, value in networks["text_encoder"].state_dict().items()}
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(state, root / "text_encoder/model.safetensors", {"format": "pt"})
    write_tokenizer(root / "tokenizer", first_end=512)
    return root


@pytest.fixture
def hcp_folder(tmp_path, networks):
    root = tmp_path / "ckpts"
    root.mkdir()
    save_file(to_hcp(networks["unet"].state_dict()), root / "unet-10000.safetensors")
    text = to_hcp(networks["text_encoder"].state_dict(), text_encoder=True)
    text["base:text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(text, root / "text_encoder-10000.safetensors")
    return root


@pytest.fixture(scope="module")
def model(diffusers_folder):
    return GalaxySD.from_pretrained(diffusers_folder, device="cpu")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    for index in range(10):
        values = np.random.default_rng(index).integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{1000 + index}.png")
    return ReferencePool.read_names(folder, barred=["1003"])


def test_hcp_files_are_the_same_model_as_the_folder(diffusers_folder, hcp_folder, model, pool, networks):
    # of the base only what HCP files lack may matter
    other = hcp_folder.parent / "sd15"
    shutil.copytree(diffusers_folder, other)
    for part in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        (other / part).unlink()
    save_file(
        to_hcp({key: value + 1 for key, value in networks["unet"].state_dict().items()}),
        hcp_folder / "unet-9000.safetensors",
    )
    assert hcp_file(hcp_folder, "unet").name == "unet-10000.safetensors"
    hcp = GalaxySD.from_pretrained(hcp_folder.parent / "ckpts", base=other, device="cpu")
    options = {"pool": pool, "side": SIDE, "steps": 2}
    picture = model.generate([PROMPT], [3], **options)
    assert picture.shape == (1, SIDE, SIDE, 3)
    assert picture.std() > 0
    np.testing.assert_array_equal(hcp.generate([PROMPT], [3], **options), picture)
    acting = {path.name: path.parent for path in hcp.parts.files.values() if path.suffix == ".safetensors"}
    assert {"unet-10000.safetensors", "text_encoder-10000.safetensors"} <= acting.keys()
    # of the base the autoencoder alone has weights that act
    assert [folder.name for name, folder in acting.items() if "-10000" not in name] == ["vae"]
    # the average is another set of weights, asked for by name
    save_file(
        to_hcp({key: 1.1 * value for key, value in networks["unet"].state_dict().items()}, "base_ema")
        | to_hcp(networks["unet"].state_dict()),
        hcp_folder / "unet-10000.safetensors",
    )
    save_file(
        to_hcp(networks["text_encoder"].state_dict(), "base_ema", text_encoder=True),
        hcp_folder / "text_encoder-10000.safetensors",
    )
    parts = load_galaxysd(hcp_folder, base=other, kind="base_ema")
    torch.testing.assert_close(parts.unet.conv_in.weight, 1.1 * networks["unet"].conv_in.weight)


def damaged(path, change):
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop("base:conv_in.weight"), "1 missing (conv_in.weight)"),
        (lambda weights: weights.update({"base:other": torch.ones(1)}), "1 unexpected (other)"),
        (lambda weights: weights.update({"base:conv_in.bias": torch.ones(3)}), "1 wrongly shaped (conv_in.bias (3,)"),
        (lambda weights: weights["base:conv_in.bias"].fill_(torch.nan), "1 not finite (conv_in.bias)"),
        (lambda weights: weights.update({"lora:down.W_down": torch.ones(1)}), "holds lora weights"),
        (lambda weights: weights.update({"conv_in.weight": torch.ones(1)}), "holds conv_in.weight, without"),
    ],
)
def test_damaged_hcp_file(diffusers_folder, hcp_folder, change, words):
    damaged(hcp_folder / "unet-10000.safetensors", change)
    with pytest.raises(InputError) as caught:
        load_galaxysd(hcp_folder, base=diffusers_folder)
    assert words in str(caught.value)
    assert "unet-10000.safetensors" in str(caught.value)


def test_incomplete_folders(diffusers_folder, hcp_folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"neither unet/config.json nor unet-STEP.safetensors"):
        load_galaxysd(empty)
    with pytest.raises(InputError, match=r"is a whole model, and another one .* Leave --base out"):
        load_galaxysd(diffusers_folder, base=diffusers_folder)
    (hcp_folder / "text_encoder-10000.safetensors").unlink()
    with pytest.raises(InputError, match="nor text_encoder-STEP"):
        load_galaxysd(hcp_folder, base=diffusers_folder)
    shutil.copy(hcp_folder / "unet-10000.safetensors", hcp_folder / "text_encoder-1.safetensors")
    with pytest.raises(InputError, match="hf download stable-diffusion-v1-5/stable-diffusion-v1-5"):
        load_galaxysd(hcp_folder)
    (hcp_folder / "unet-10000.safetensors").write_bytes(b"\0" * 100)
    (hcp_folder / "text_encoder-10000.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"text_encoder-10000.safetensors: cannot be read"):
        load_galaxysd(hcp_folder, base=diffusers_folder)
    with pytest.raises(InputError, match="holds no base_ema"):
        from_hcp({"base:a": 1}, "base_ema")
    with pytest.raises(InputError, match="a, without HCP-Diffusion's prefix"):
        from_hcp({"a": 1})


def test_weights_are_those_of_the_words(model):
    """Without merges a token is a letter: 'dust lane' is the last eight of them."""
    ids, weights = model.prompts.tokens(PROMPT)
    plain, ones = model.prompts.tokens("sdss, in-between round galaxy, dust lane")
    assert torch.equal(ids, plain)
    assert ids.shape == (1, 77)
    assert set(ones) == {1.0}
    assert weights == [1.0] * (len(ones) - 8) + [1.3] * 8
    states = model.prompts([PROMPT, "sdss, in-between round galaxy, dust lane"])
    torch.testing.assert_close(weighted_states(states[1:], [weights]), states[:1])
    assert (states[0] - states[1]).abs().max() > 0.1
    assert states[0].mean().item() == pytest.approx(states[1].mean().item(), rel=1e-3)
    size = weighted_states(states[1:], [weights], rescale="rms").square().mean().item()
    assert size == pytest.approx(states[1].square().mean().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("sdss, {dust lane:1.3", "without its '}'"),
        ("sdss, dust lane}", "without its '{'"),
        ("sdss, {dust lane:-2}", "weight -2"),
        ("sdss, " + "spiral galaxy, " * 8, "the text encoder takes 75"),
    ],
)
def test_bad_prompts(model, prompt, words):
    with pytest.raises(InputError) as caught:
        model.prompts([prompt])
    assert words in str(caught.value)


def test_mean_that_changes_its_sign_is_refused():
    states = torch.tensor([[[0.0], [1.0], [-0.9]]])
    with pytest.raises(InputError, match="rms"):
        weighted_states(states, [[0.5, 1.0]])
    assert torch.isfinite(weighted_states(states, [[0.5, 1.0]], rescale="rms")).all()


def test_a_picture_is_that_of_its_seed(model, pool):
    options = {"pool": pool, "side": SIDE, "steps": 3}
    together = model.generate([PROMPT, "sdss, spiral galaxy"], [3, 4], **options)
    alone = model.generate(["sdss, spiral galaxy"], [4], **options)
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1
    assert (together[0] != together[1]).any()
    assert (model.generate(["sdss, spiral galaxy"], [5], **options) != alone).any()


def test_guidance_and_cache_change_the_picture(model, pool):
    options = {"pool": pool, "side": SIDE, "steps": 4}
    first = model.generate([PROMPT], [3], **options)
    assert (model.generate([PROMPT], [3], guidance=1.0, **options) != first).any()
    assert (model.generate([PROMPT], [3], negative="smooth", **options) != first).any()
    cached = model.generate([PROMPT], [3], cache=DeepCache(2), **options)
    assert cached.shape == first.shape
    assert (cached != first).any()
    assert (model.generate([PROMPT], [3], **options) == first).all()


def test_published_start_is_the_reference_under_noise(model, pool):
    sigma = noise_levels()[0][0]
    seeds = [7, 8]
    x = model.start("reference", seeds, Noise.per_item(seeds), sigma, pool=pool, references=["1001", "1002"], side=SIDE)
    latents = encode(model.parts.latents, [pool.read("1001"), pool.read("1002")], torch.device("cpu"))
    noise = Noise.per_item(seeds).like(latents)
    torch.testing.assert_close(x, latents + 14.614647 * noise, atol=1e-4, rtol=1e-5)


def test_start_from_moments_has_the_published_starts_mean_and_variance():
    mean, std = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([1.0, 3.0])
    x = start_from_moments(LatentMoments(mean, std), 20_000, 4.0, Noise.shared(0))
    torch.testing.assert_close(x.mean(0), mean, atol=0.15, rtol=0)
    torch.testing.assert_close(x.var((0, 2, 3)), std**2 + 16 + mean.var((1, 2), unbiased=False), atol=0.5, rtol=0.02)


def test_moments_of_the_pool(model, pool):
    sigma, seeds = 2.0, [1, 2]
    x = model.start("moments", seeds, Noise.per_item(seeds), sigma, pool=pool, side=SIDE)
    latents = torch.cat([encode(model.parts.latents, [pool.read(n)], torch.device("cpu")) for n in pool.names])
    mean = latents.mean(0)
    std = (latents - mean).square().mean((0, 2, 3), keepdim=True).sqrt()
    noise = Noise.per_item(seeds).like(x)
    torch.testing.assert_close(x, mean + (std**2 + 4).sqrt() * noise, atol=1e-4, rtol=1e-4)
    few = ReferencePool(pool.members, {name: pool.files[name] for name in pool.names[:7]})
    with pytest.raises(InputError, match="would show them"):
        model.start("moments", seeds, Noise.per_item(seeds), sigma, pool=few, side=SIDE)


def test_pool_bars_the_test_split(pool, tmp_path):
    assert len(pool.names) == 9
    assert "1003" not in {pool.choose(seed) for seed in range(200)}
    assert len({pool.choose(seed) for seed in range(200)}) == 9
    with pytest.raises(InputError, match="1003 is barred"):
        pool.read("1003")
    with pytest.raises(InputError, match="no reference 77"):
        pool.read("77")
    with pytest.raises(InputError, match="1 are barred"):
        ReferencePool(pool.members, {"a": "a.png"}, ["a"])
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    assert ReferencePool.read_names(tmp_path).names == ["1"]  # sorted into two folders, as real samples are
    Image.new("RGB", (8, 8), "white").save(tmp_path / "x/1.png")
    with pytest.raises(InputError, match=r"y/1.png and x/1.png have the same name"):
        ReferencePool.read_names(tmp_path)
    assert pool.read("1001", 32).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pool": None}, "needs a pool"),
        ({"start": "sky"}, "start 'sky'"),
        ({"seeds": [1, 2]}, "1 prompts and 2 seeds"),
        ({"references": ["1001", "1002"]}, "2 references for 1 prompts"),
        ({"references": ["1003"]}, "1003 is barred"),
        ({"solver": "magic"}, "solver 'magic'"),
        ({"side": 100}, "multiple of 8"),
        ({"steps": 1}, "1 steps"),
        ({"guidance": float("nan")}, "guidance nan"),
    ],
)
def test_senseless_requests(model, pool, change, words):
    options = {"prompts": [PROMPT], "seeds": [1], "pool": pool, "side": SIDE, "steps": 2} | change
    with pytest.raises(InputError) as caught:
        model.generate(**options)
    assert words in str(caught.value)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Ten pictures with captions of one to three tags, in GalaxySD's layout."""
    folder = tmp_path_factory.mktemp("pairs")
    for index in range(10):
        values = np.random.default_rng(index).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{index}.jpg")
        (folder / f"{index}.txt").write_text(("sdss, spiral galaxy", "sdss, merger", "sdss")[index % 3])
    return folder


def train(pairs, model, out, *options):
    words = ["astro", "train", str(pairs), "--method", "galaxysd", "--start", str(model), "--side", "64"]
    words += ["--out", str(out), "--batch-size", "2", "--warmup", "1", "--log-every", "1", "--device", "cpu"]
    return main([*words, "--steps", "3", "--ema", "0", "--lr", "1e-3", *options])


def test_training_changes_unet_and_text_encoder_alone(pairs, diffusers_folder, networks, model, pool, tmp_path):
    assert train(pairs, diffusers_folder, tmp_path / "run", "--save-float32", "--gradient-checkpointing") == 0
    parts = load_galaxysd(tmp_path / "run/model")
    before = networks["text_encoder"].state_dict()
    for name, network in (("unet", parts.unet), ("vae", parts.latents.vae), ("text_encoder", parts.text_encoder)):
        changed = [
            key for key, value in network.state_dict().items() if not value.equal(networks[name].state_dict()[key])
        ]
        assert bool(changed) == (name != "vae")
    assert parts.text_encoder.state_dict().keys() == before.keys()
    trained = GalaxySD(parts)
    assert trained.prompts.tokens(PROMPT)[1] == model.prompts.tokens(PROMPT)[1]
    options = {"pool": pool, "side": SIDE, "steps": 2}
    assert (trained.generate([PROMPT], [3], **options) != model.generate([PROMPT], [3], **options)).any()
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert sum("held_out_loss" in row for row in rows) == 2


def test_loss_is_that_of_the_noise(pairs, diffusers_folder):
    """At the network's own prediction it vanishes; dropped captions are the empty one."""
    config = TrainConfig(
        pairs,
        method="galaxysd",
        mode="display",
        start=str(diffusers_folder),
        side=64,
        condition_dropout=1.0,
        turn=False,
    )
    galaxies = read_pairs(pairs)
    task, feed = prepare(config, galaxies, None, torch.device("cpu"))
    batch = feed.batch(0, range(4))
    assert batch["image"].shape == (4, 3, 64, 64)
    assert batch["eps"].shape == (4, 4, 8, 8)
    assert batch["image"].min() >= -1
    assert batch["image"].max() <= 1
    ends = task._fixed[1]("", padding="max_length", max_length=77).input_ids
    assert batch["tokens"].tolist() == [ends] * 4
    with torch.no_grad():
        x0 = task._fixed[0].encode(batch["image"])
        alpha = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).sqrt()
        alpha = alpha[batch["t"].long()].float()[:, None, None, None]
        x = alpha * x0 + (1 - alpha**2).sqrt() * batch["eps"]
        text = task.model.text_encoder(batch["tokens"])[0]
        out = task.model.unet(x, batch["t"], encoder_hidden_states=text, return_dict=False)[0]
        expected = (out - batch["eps"]).square().mean()
        torch.testing.assert_close(task(batch)["loss"], expected, atol=1e-5, rtol=1e-4)


def test_bad_captions(pairs, diffusers_folder, tmp_path, capsys):
    folder = tmp_path / "pairs"
    shutil.copytree(pairs, folder)
    for caption, words in (
        ("sdss, {merger:1.3}", "object 0: the caption"),
        ("spiral galaxy " * 9, "object 0: the prompt"),
    ):
        (folder / "0.txt").write_text(caption)
        assert train(folder, diffusers_folder, tmp_path / "run") == 2
        assert words in capsys.readouterr().err
    assert train(pairs, diffusers_folder, tmp_path / "run", "--side", "60") == 2
    assert "multiple of 8" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_plan_is_drawn_with_its_references(diffusers_folder, pool, tmp_path, capsys):
    """The command draws 424 x 424, and tells which galaxy each picture started from, and by which weights."""
    plan_id = "00000000000000aa"
    rows = tuple(
        PlanRow(row, "dust_lane", PROMPT, Condition(), row_seed(plan_id, row), "", f"object-{row}", f"{1000 + row}.png")
        for row in range(2)
    )
    Plan(plan_id, rows, "none").write(tmp_path / "plan.ecsv")
    words = ["astro", "generate", str(tmp_path / "plan.ecsv"), "--model", str(diffusers_folder), "--device", "cpu"]
    words += ["--pool", str(pool.members.path), "--steps", "2", "--cache", "2", "--batch-size", "1"]
    assert main([*words, "--out", str(tmp_path / "one"), "--steps", "1"]) == 2
    assert "1 steps. Use 2 to 1000" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    table = read_catalogue(tmp_path / "out/catalogue.ecsv")
    assert [str(name) for name in table["reference_id"]] == ["object-0", "object-1"]
    assert {str(name) for name in table["sampler"]} == {"euler-ancestral, DeepCache 2"}
    assert {float(value) for value in table["guidance"]} == {6.5}
    assert {str(value) for value in table["start"]} == {"reference"}
    acting = ("*/config.json", "*/*.safetensors", "tokenizer/*")  # the autoencoder and the tokenizer too
    paths = {path for pattern in acting for path in diffusers_folder.glob(pattern)}
    assert {"vae", "unet", "text_encoder", "tokenizer"} <= {path.parent.name for path in paths}
    digest = digest_of({str(path.relative_to(diffusers_folder)): path for path in paths})
    assert {str(value) for value in table["model_sha256"]} == {digest}
    model = GalaxySD.from_pretrained(diffusers_folder, device="cpu")
    for row in rows:
        name = f"{plan_id}-{row.row:06d}.png"
        with Image.open(tmp_path / "out/images" / name) as image:
            assert image.size == (424, 424)
            drawn = np.asarray(image)
        same = {"steps": 2, "cache": DeepCache(2), "pool": pool, "references": [Path(row.reference_image).stem]}
        np.testing.assert_array_equal(drawn, model.generate([PROMPT], [row.seed], **same)[0])


def test_real_pictures_are_references(shared_data, model):
    real = ReferencePool.read_names(shared_data("astro") / "gz2_real")
    assert len(real.names) >= 20
    x = model.start("reference", [1], Noise.per_item([1]), 14.6, pool=real)
    assert x.shape == (1, 4, 53, 53)

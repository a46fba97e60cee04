"""Published model folders: every family loads and says what it is, and a wrong folder is one line.

The slow tests do it at full width, with random weights in the true published layout, by the real command.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from priorscope.backbones import SD2_UNET, SD_VAE
from priorscope.cli import main
from priorscope.errors import InputError
from priorscope_depth.families import FAMILIES
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.results import DepthResult, NormalsResult

UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)

#: A published name of each family (what the folder is called after a download), and what it must turn out to be.
PUBLISHED = [
    ("lotus-g", "lotus-depth-g-v1-0", "depth", "depth"),
    ("lotus-g", "lotus-depth-g-v2-1-disparity", "depth", "disparity"),
    ("lotus-d", "lotus-depth-d-v2-0-disparity", "depth", "disparity"),
    ("lotus-d", "lotus-normal-d-v1-1", "normals", "depth"),
    ("marigold", "marigold-depth-v1-1", "depth", "depth"),
    ("marigold", "marigold-normals-v1-1", "normals", "depth"),
    ("e2e-ft", "marigold-e2e-ft-depth", "depth", "depth"),
    ("e2e-ft", "marigold-e2e-ft-normals", "normals", "depth"),
    ("e2e-ft-sd", "stable-diffusion-e2e-ft-depth", "depth", "depth"),
    ("e2e-ft-sd", "stable-diffusion-e2e-ft-normals", "normals", "depth"),
    ("genpercept", "genpercept-models", "depth", "depth"),
]


def load(folder, **options):
    return DepthPredictor.from_pretrained(folder, resolution=64, device="cpu", **options)


def refused(folder, *words, **options):
    with pytest.raises(InputError) as caught:
        load(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def test_every_family_is_tried():
    assert {family for family, *_ in PUBLISHED} == set(FAMILIES)


@pytest.mark.parametrize(("family", "name", "task", "space"), PUBLISHED)
def test_published_folder_gives_a_result_that_says_what_it_is(tiny_model, family, name, task, space):
    predictor = load(tiny_model(family, name))
    assert (predictor.recipe.family.name, predictor.task, predictor.space) == (family, task, space)
    assert predictor.latent.stochastic == FAMILIES[family].generative
    result = predictor(PHOTO)
    assert result.values.dtype == np.float32
    assert np.isfinite(result.values).all()
    assert result.values.std() > 0
    if task == "normals":
        assert isinstance(result, NormalsResult)
        assert result.values.shape == (40, 56, 3)
        np.testing.assert_allclose(np.linalg.norm(result.values, axis=-1), 1, atol=1e-5)
        assert "x right" in result.frame
    else:
        assert isinstance(result, DepthResult)
        assert result.values.shape == (40, 56)
        assert 0 <= result.values.min() < result.values.max() <= 1
        assert (result.space, result.scale) == (space, "affine-invariant")


def test_normals_point_to_the_right_whatever_the_family(tiny_model):
    """The same decoded picture: Lotus has x to the left, the others to the right; results are alike."""
    decoded = torch.tensor([0.6, 0.0, 0.8]).reshape(1, 3, 1, 1)
    left = load(tiny_model("lotus-d", "lotus-normal-d-v1-1")).read(decoded)
    right = load(tiny_model("marigold", "marigold-normals-v1-1")).read(decoded)
    torch.testing.assert_close(left.flatten(), torch.tensor([-0.6, 0.0, 0.8]))
    torch.testing.assert_close(right.flatten(), torch.tensor([0.6, 0.0, 0.8]))


def test_pipeline_class_tells_the_family_where_the_name_does_not(tiny_model):
    for family in ("lotus-g", "lotus-d", "marigold"):
        predictor = load(tiny_model(family), task="depth", space="depth")
        assert predictor.recipe.family.name == family
    with pytest.raises(InputError, match="State --task --space"):
        load(tiny_model("lotus-d"))
    with pytest.raises(InputError, match="State --family"):
        load(tiny_model("e2e-ft-sd"), task="depth", space="depth")
    with pytest.raises(InputError, match=r"family 'lotus'. Known: lotus-g"):
        load(tiny_model("lotus-d"), task="depth", space="depth", family="lotus")


def test_prompt_has_the_tokens_of_the_family(tiny_model):
    assert load(tiny_model("lotus-d", "lotus-depth-d-v1-0")).latent.condition["text"].shape == (1, 2, 16)
    assert load(tiny_model("e2e-ft", "marigold-e2e-ft-depth")).latent.condition["text"].shape == (1, 77, 16)


def test_marigold_steps(tiny_model, tmp_path):
    folder = tiny_model("marigold", "marigold-depth-v1-1", copy=tmp_path / "marigold-depth-v1-1")
    assert len(load(folder).latent.times) == 5
    assert len(load(folder, steps=2).latent.times) == 3
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"default_denoising_steps": 3, "default_processing_resolution": 96}
    (folder / "model_index.json").write_text(json.dumps(index))
    predictor = DepthPredictor.from_pretrained(folder, device="cpu")
    assert len(predictor.latent.times) == 4
    assert predictor.geometry.resolution == 96
    with pytest.raises(InputError, match="one-step model"):
        load(tiny_model("lotus-d", "lotus-depth-d-v1-0"), steps=4)


@pytest.mark.parametrize("steps", [0, -1, 100_000])
def test_senseless_steps(tiny_model, steps):
    refused(tiny_model("marigold", "marigold-depth-v1-1"), "steps", steps=steps)


def test_text_encoder_is_read_once(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("PRIORSCOPE_CACHE", str(tmp_path / "cache"))
    folder = tiny_model("lotus-d", copy=tmp_path / "lotus-depth-d-v1-0")
    first = load(folder).latent.condition["text"]
    weights = folder / "text_encoder" / "model.safetensors"
    stamp = weights.stat()
    weights.write_bytes(b"\0" * stamp.st_size)
    os.utime(weights, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert torch.equal(load(folder).latent.condition["text"], first)
    # another file is another text encoder
    weights.touch()
    refused(folder, "text_encoder")


def test_position_ids_of_old_text_encoders(tiny_model, tmp_path):
    """Text encoders saved by older transformers carry an integer buffer, which is no weight."""
    folder = tiny_model("lotus-d", copy=tmp_path / "lotus-depth-d-v1-0")
    expected = load(folder).latent.condition["text"]
    weights = load_file(folder / "text_encoder" / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(weights, folder / "text_encoder" / "model.safetensors", {"format": "pt"})
    assert torch.equal(load(folder).latent.condition["text"], expected)


def test_half_precision_variant_throughout(tiny_model, tmp_path):
    folder = tiny_model("lotus-d", copy=tmp_path / "lotus-depth-d-v1-0")
    expected = load(folder)(PHOTO).values
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        path = folder / part / f"{stem}.safetensors"
        half = {key: value.half() for key, value in load_file(path).items()}
        save_file(half, folder / part / f"{stem}.fp16.safetensors", {"format": "pt"})
        path.unlink()
    np.testing.assert_allclose(load(folder)(PHOTO).values, expected, atol=5e-3)


def test_weights_of_another_family(tiny_model):
    options = {"task": "depth", "space": "depth"}
    refused(tiny_model("marigold"), "unet", "in_channels = 8", "needs 4", family="lotus-d", **options)
    refused(tiny_model("lotus-g"), "unet", "in_channels = 8", "needs 4", family="lotus-d", **options)
    refused(tiny_model("lotus-d"), "unet", "in_channels = 4", "needs 8", family="lotus-g", **options)
    refused(tiny_model("marigold"), "class_embed_type = None", "'projection'", family="lotus-g", **options)
    refused(tiny_model("lotus-g"), "class_embed_type = 'projection'", "None", family="marigold", **options)


def test_unet_of_another_width_than_its_text_encoder(tiny_model, tmp_path):
    folder = tiny_model("lotus-d", copy=tmp_path / "lotus-depth-d-v1-0")
    save_file({"state": torch.zeros(1, 2, 24)}, folder / "empty_prompt.safetensors")
    refused(folder, "24", "16")


def change_unet(folder, change):
    weights = load_file(folder / UNET_WEIGHTS)
    change(weights)
    save_file(weights, folder / UNET_WEIGHTS, {"format": "pt"})


def remove(*names):
    def apply(folder):
        for name in names:
            (folder / name).unlink()

    return apply


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def truncate(name, length):
    def apply(folder):
        os.truncate(folder / name, length)

    return apply


DAMAGES = {
    "missing key": (
        lambda folder: change_unet(folder, lambda weights: weights.pop("class_embedding.linear_1.weight")),
        "class_embedding.linear_1.weight",
    ),
    "unexpected key": (
        lambda folder: change_unet(folder, lambda weights: weights.update(other=torch.zeros(1))),
        "1 unexpected keys (other)",
    ),
    "wrong shape": (
        lambda folder: change_unet(
            folder, lambda weights: weights.update({"conv_in.weight": torch.zeros(16, 8, 3, 3)})
        ),
        "conv_in.weight",
    ),
    "truncated unet": (truncate(UNET_WEIGHTS, 1000), "unet"),
    "truncated vae": (truncate("vae/diffusion_pytorch_model.safetensors", 5000), "vae"),
    "truncated text encoder": (truncate("text_encoder/model.safetensors", 5000), "text_encoder"),
    "no unet weights": (remove(UNET_WEIGHTS), "holds no weights"),
    "no unet configuration": (remove("unet/config.json"), "unet/config.json: is missing"),
    "broken unet configuration": (write("unet/config.json", b"{"), "unet/config.json: is not valid JSON"),
    "no vae": (remove("vae/config.json", "vae/diffusion_pytorch_model.safetensors"), "vae/config.json: is missing"),
    "no text encoder": (remove("text_encoder/config.json"), "text_encoder"),
    "no tokenizer": (
        remove(*(f"tokenizer/{name}" for name in ("vocab.json", "merges.txt", "tokenizer_config.json"))),
        "tokenizer",
    ),
    "broken tokenizer": (write("tokenizer/vocab.json", b"{"), "tokenizer"),
    "broken model index": (write("model_index.json", b'{"_class_name": '), "model_index.json: is not valid JSON"),
    "model index is a list": (write("model_index.json", b"[]"), "model_index.json: does not hold a JSON object"),
    "broken own settings": (write("priorscope.json", b"\xff"), "priorscope.json: is not valid JSON"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folder_is_one_line(tiny_model, tmp_path, capsys, damage):
    folder = tiny_model("lotus-d", copy=tmp_path / "lotus-depth-d-v1-0")
    apply, word = DAMAGES[damage]
    apply(folder)
    assert str(folder) in refused(folder, word)
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    arguments = [
        "depth",
        "predict",
        str(tmp_path / "photo.png"),
        "--model",
        str(folder),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert word in error[0]
    assert not (tmp_path / "out").exists()


def test_broken_scheduler(tiny_model, tmp_path):
    folder = tiny_model("marigold", copy=tmp_path / "marigold-depth-v1-1")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text("{")
    refused(folder, "scheduler_config.json: is not valid JSON")
    path.unlink()
    refused(folder, "scheduler_config.json: is missing")


def test_empty_folder(tmp_path):
    refused(tmp_path, str(tmp_path), "family and task and space")
    refused(tmp_path, "config.json: is missing", family="lotus-d", task="depth", space="depth")


def test_unknown_name():
    assert "Did you mean lotus-depth-d-v2-0-disparity" in refused("lotus-depth-d-v2-disparity")
    refused("zebra", "'zebra'", "priorscope models")
    refused("./zebra", "no such model folder")


def test_name_of_the_table_that_is_not_here(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    refused("lotus-depth-d-v2-0-disparity", "hf download jingheya/lotus-depth-d-v2-0-disparity")
    refused("somebody/some-model", "hf download somebody/some-model")


def test_device_and_precision(tiny_model):
    folder = tiny_model("lotus-d", "lotus-depth-d-v1-0")
    with pytest.raises(InputError, match="device 'gpu'"):
        DepthPredictor.from_pretrained(folder, device="gpu")
    with pytest.raises(InputError, match="precision 'int8'"):
        DepthPredictor.from_pretrained(folder, device="cpu", precision="int8")
    half = load(folder, precision="bfloat16")
    assert half.latent.condition["text"].dtype == torch.bfloat16
    np.testing.assert_allclose(half(PHOTO).values, load(folder)(PHOTO).values, atol=5e-2)


# ---- full width -------------------------------------------------------------------------------------------------

#: The text encoder of Stable Diffusion 2: width, layers, heads, inner width, projection (specs/depth.md 1a).
TEXT_ENCODER = (1024, 23, 16, 4096, 512)
#: Peak resident memory of a whole command over the bytes of U-Net and autoencoder, at most.
PEAK_BOUND = 2.0  # measured 1.75: torch itself, and weights that are mapped while they are copied
COMMAND = """
import sys
from priorscope.cli import main
status = main(sys.argv[1:])
print("peak", int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) * 1024)
sys.exit(status)
"""


@pytest.fixture(scope="session")
def shared_parts(
    tmp_path_factory, golden_files, read_manifest, write_tokenizer, write_random_weights, text_encoder_files
):
    """Autoencoder, text encoder and tokenizer at full size, written once for the folders to link to."""
    folder = tmp_path_factory.mktemp("full")
    vae = {"_class_name": "AutoencoderKL", **SD_VAE}
    shapes = read_manifest(golden_files("depth", "manifest-sd-vae.tsv")[0])
    write_random_weights(folder / "vae" / "diffusion_pytorch_model.safetensors", shapes)
    (folder / "vae" / "config.json").write_text(json.dumps(vae))
    config, shapes = text_encoder_files(*TEXT_ENCODER)
    write_random_weights(folder / "text_encoder" / "model.safetensors", shapes)
    (folder / "text_encoder" / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder / "tokenizer")
    yield folder
    _delete_files(folder)


@pytest.fixture
def full_size_folder(
    tmp_path, shared_parts, golden_files, read_json, read_manifest, write_pipeline_files, write_random_weights
):
    folders = []

    def make(family, name, dtype=np.float32):
        folder = tmp_path / name
        folders.append(folder)
        write_pipeline_files(folder, family)
        for path in sorted(shared_parts.rglob("*.*")):
            target = folder / path.relative_to(shared_parts)
            target.parent.mkdir(exist_ok=True)
            os.link(path, target)
        shapes = read_manifest(golden_files("depth", f"manifest-{family}-unet.tsv")[0])
        variant = ".fp16" if dtype == np.float16 else ""
        path = folder / "unet" / f"diffusion_pytorch_model{variant}.safetensors"
        write_random_weights(path, shapes, dtype)
        config = read_json(golden_files("depth", "unet-configs-full.json")[0])[family]
        (folder / "unet" / "config.json").write_text(
            json.dumps({"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.28.0.dev0", **config})
        )
        return folder

    yield make
    for folder in folders:
        _delete_files(folder)


def _delete_files(folder):
    """Gigabytes do not stay in pytest's kept folders."""
    for path in folder.rglob("*.safetensors"):
        path.unlink()


def run_command(folder, photo, out, *options):
    """The real command in a process of its own; returns its peak memory in bytes."""
    words = ["depth", "predict", str(photo), "--model", str(folder), "--resolution", "64", "--out", str(out), *options]
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        env={**os.environ, "OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    match = re.search(r"^peak (\d+)$", done.stdout, re.MULTILINE)
    assert match is not None
    return int(match[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "name", "space"),
    [
        ("lotus-d", "lotus-depth-d-v2-0-disparity", "disparity"),
        ("lotus-g", "lotus-depth-g-v1-0", "depth"),
        ("marigold", "marigold-depth-v1-1", "depth"),
    ],
)
def test_full_size_container(full_size_folder, tmp_path, monkeypatch, family, name, space):
    monkeypatch.setenv("PRIORSCOPE_CACHE", str(tmp_path / "cache"))
    folder = full_size_folder(family, name)
    assert SD2_UNET["cross_attention_dim"] == TEXT_ENCODER[0]
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    weights = sum(path.stat().st_size for part in ("unet", "vae") for path in (folder / part).glob("*.safetensors"))
    first = run_command(folder, tmp_path / "photo.png", tmp_path / "first")
    # the text encoder is not read again: with its content gone, size and date as before, all works as before
    encoder = folder / "text_encoder" / "model.safetensors"
    stamp = encoder.stat()
    encoder.unlink()
    encoder.touch()
    os.truncate(encoder, stamp.st_size)
    os.utime(encoder, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    second = run_command(folder, tmp_path / "photo.png", tmp_path / "second")
    print(f"{name}: weights {weights / 1e9:.2f} GB, peak {first / 1e9:.2f} GB, second run {second / 1e9:.2f} GB")
    results = [np.load(tmp_path / run / f"photo_{space}.npy") for run in ("first", "second")]
    assert results[0].shape == (40, 56)
    assert np.isfinite(results[0]).all()
    assert results[0].std() > 0
    np.testing.assert_array_equal(results[0], results[1])
    side = json.loads((tmp_path / "first" / f"photo_{space}.json").read_text())
    assert (side["space"], side["scale"]) == (space, "affine-invariant")
    assert weights == pytest.approx(3.80e9, rel=0.01)
    assert max(first, second) < PEAK_BOUND * weights


@pytest.mark.slow
def test_full_size_half_precision_variant(full_size_folder, tmp_path):
    """The half-precision file of the U-Net alone, as low-bandwidth users download it."""
    folder = full_size_folder("lotus-d", "lotus-depth-d-v2-0-disparity", np.float16)
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    peak = run_command(folder, tmp_path / "photo.png", tmp_path / "out", "--formats", "npy")
    print(f"fp16 variant: peak {peak / 1e9:.2f} GB")
    assert np.load(tmp_path / "out" / "photo_disparity.npy").std() > 0

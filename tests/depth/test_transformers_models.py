"""Depth-Anything and DepthPro on tiny random folders in transformers' layout, against transformers itself."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from priorscope.backbones.table import published_models
from priorscope.cli import main
from priorscope.errors import InputError
from priorscope_depth.configs import ModelConfig
from priorscope_depth.families import recognise
from priorscope_depth.predict import load_other, load_predictor
from priorscope_depth.transformers_models import DepthPro, is_transformers_model, load_transformers_model


def photo(height=45, width=61, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((-(-height // 5), -(-width // 7), 1), np.uint8))[:height, :width]


@pytest.fixture(scope="module")
def write_depth_anything(tmp_path_factory):
    """A tiny Depth-Anything V2 folder as transformers saves it: relative, or metric up to 20 m."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    def write(kind="relative"):
        backbone = {
            "model_type": "dinov2",
            "hidden_size": 8,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
            "image_size": 70,
            "out_indices": [1, 2, 3, 4],
            "reshape_hidden_states": False,
            "apply_layernorm": True,
        }
        config = DepthAnythingConfig(
            backbone_config=backbone,
            reassemble_hidden_size=8,
            neck_hidden_sizes=[4, 4, 8, 8],
            fusion_hidden_size=8,
            head_hidden_size=4,
            depth_estimation_type=kind,
            max_depth=20 if kind == "metric" else 1,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = DepthAnythingForDepthEstimation(config).eval()
            with torch.no_grad():
                for weight in network.parameters():
                    weight.add_(0.2 * torch.randn_like(weight))
                network.head.conv3.bias.fill_(0.5)
        folder = tmp_path_factory.mktemp(kind) / "Depth-Anything-V2-Tiny-hf"
        network.save_pretrained(folder)
        DPTImageProcessorPil(
            size={"height": 70, "width": 70}, ensure_multiple_of=14, keep_aspect_ratio=True
        ).save_pretrained(folder)
        # published folders name the class without its backend
        path = folder / "preprocessor_config.json"
        settings = json.loads(path.read_text()) | {"image_processor_type": "DPTImageProcessor"}
        path.write_text(json.dumps(settings))
        return folder

    return write


@pytest.fixture(scope="module")
def relative(write_depth_anything):
    return write_depth_anything()


@pytest.fixture(scope="module")
def depthpro():
    return Path(__file__).parents[1] / "golden/depth/depthpro_tiny"


# ---- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["relative", "metric"])
@pytest.mark.parametrize("size", [(45, 61), (30, 24), (200, 150)])
def test_depth_anything_equals_the_pipeline_of_transformers(write_depth_anything, kind, size):
    from transformers import pipeline

    folder = write_depth_anything(kind)
    image = photo(*size)
    expected = pipeline("depth-estimation", model=str(folder), device="cpu")(Image.fromarray(image))["predicted_depth"]
    predictor = load_transformers_model(folder, device="cpu")
    raw = predictor.predict(torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255)[0].values[0]
    assert raw.std() > 1e-3
    torch.testing.assert_close(raw, expected, atol=1e-5, rtol=1e-5)
    result = predictor(image)
    assert result.values.shape == size
    if kind == "metric":
        assert (result.space, result.scale) == ("depth", "metric")
        torch.testing.assert_close(torch.from_numpy(result.values), expected, atol=1e-5, rtol=1e-5)
        assert 0 <= result.values.min() < result.values.max() <= 20
    else:
        assert (result.space, result.scale) == ("disparity", "affine-invariant")
        stretched = (expected - expected.min()) / (expected.max() - expected.min())
        torch.testing.assert_close(torch.from_numpy(result.values), stretched, atol=1e-5, rtol=0)


def golden():
    return Path(__file__).parents[1] / "golden/depth/depthpro_tiny.safetensors"


@pytest.mark.parametrize("case", [0, 1])
def test_golden_depthpro_equals_the_processor_of_transformers(depthpro, case):
    """Stored: that processor needs torchvision (tests/golden/depth/depthpro_tiny.json tells the versions)."""
    stored = load_file(golden())
    image = stored[f"{case}.image"].numpy()
    result = load_transformers_model(depthpro, device="cpu")(image)
    assert (result.space, result.scale) == ("depth", "metric")
    expected = stored[f"{case}.depth"].numpy()
    assert expected.std() > 1e-2
    np.testing.assert_allclose(result.values, expected, rtol=1e-5, atol=1e-5)
    assert result.notes["focal_length_px"] == pytest.approx(float(stored[f"{case}.focal"]), rel=1e-5)
    assert result.notes["focal_length"] == "estimated by the model"


def test_a_known_focal_length_scales_the_depth(depthpro):
    predictor = load_transformers_model(depthpro, device="cpu")
    assert isinstance(predictor, DepthPro)
    image = photo(40, 56)
    estimated = predictor(image)
    predictor.focal_length = 2 * estimated.notes["focal_length_px"]
    given = predictor(image)
    np.testing.assert_allclose(given.values, 2 * estimated.values, rtol=1e-4)
    assert given.notes == {"focal_length_px": predictor.focal_length, "focal_length": "given"}


def test_batches_give_what_single_pictures_give(relative, depthpro):
    for folder in (relative, depthpro):
        predictor = load_transformers_model(folder, device="cpu")
        images = [photo(45, 61, 0), photo(30, 40, 1), photo(45, 61, 2)]
        together = predictor(images, batch_size=3)
        for image, result in zip(images, together, strict=True):
            alone = predictor(image).values
            np.testing.assert_allclose(result.values, alone, atol=1e-5 * np.abs(alone).max(), rtol=1e-4)


# ---- the commands -----------------------------------------------------------------------------------------------


def test_predict_evaluate_and_average(relative, depthpro, tmp_path, capsys):
    Image.fromarray(photo()).save(tmp_path / "photo.png")
    words = ["depth", "predict", str(tmp_path / "photo.png"), "--device", "cpu"]
    assert main([*words, "--model", str(relative), "--out", str(tmp_path / "a")]) == 0
    side = json.loads((tmp_path / "a/photo_disparity.json").read_text())
    assert (side["space"], side["scale"], side["model"]) == ("disparity", "affine-invariant", str(relative))
    camera = ["--intrinsics", "50", "50", "30", "22", "--formats", "npy", "png", "ply"]
    assert main([*words, "--model", str(depthpro), "--out", str(tmp_path / "b"), *camera]) == 0
    side = json.loads((tmp_path / "b/photo_metric_depth.json").read_text())
    assert (side["unit"], side["focal_length_px"], side["focal_length"]) == ("m", 50, "given")
    averaged = ["--model", str(relative), "--ensemble-with", str(depthpro), "--formats", "npz"]
    assert main([*words, *averaged, "--out", str(tmp_path / "c")]) == 0
    side = json.loads((tmp_path / "c/photo_disparity.json").read_text())
    assert side["ensemble"]["models"] == [str(relative), str(depthpro)]
    assert side["ensemble"]["aligned_in"] == "disparity"
    # the camera is told whichever of the two asks for it
    for order in ([depthpro, relative], [relative, depthpro]):
        averaged = ["--model", str(order[0]), "--ensemble-with", str(order[1]), "--formats", "npy"]
        assert main([*words, *averaged, *camera[:5], "--out", str(tmp_path / order[0].name)]) == 0
        (file,) = (tmp_path / order[0].name).glob("*.json")
        side = json.loads(file.read_text())
        assert (side["focal_length_px"], side["focal_length"]) == (50, "given")
    capsys.readouterr()
    both = ["--ensemble-with", str(depthpro), "--distances", "1,1,2", "50,40,5"]
    for model, options, word in (
        (depthpro, ["--intrinsics", "0", "50", "30", "22", "--formats", "npy"], "positive focal lengths"),
        (depthpro, ["--fov", "90", "--formats", "ply"], "which estimates it"),
        (relative, [*both, "--fov", "90", "--formats", "ply"], "which estimates it"),
        (depthpro, ["--near", "2", "--formats", "ply"], "--near of a prediction in metres"),
    ):
        assert main([*words, "--model", str(model), "--out", str(tmp_path / "refused"), *options]) == 2
        (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert word in error
    assert not (tmp_path / "refused").exists()
    twice = ["depth", "evaluate", "scenes", "--limit", "1", "--device", "cpu", "--out", str(tmp_path / "twice")]
    assert main([*twice, "--compare", str(relative), f"{relative}/."]) == 2
    assert "is compared twice" in capsys.readouterr().err
    assert not (tmp_path / "twice").exists()
    depthpro = shutil.copytree(depthpro, tmp_path / "DepthPro-hf")
    measured = ["depth", "evaluate", "scenes", "--limit", "1", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main([*measured, "--model", str(relative), "--compare", str(depthpro)]) == 0
    printed = capsys.readouterr().out
    tables = dict(re.findall(r"images, aligned in (\w+):\n(.*?)(?=\n\n|\Z)", printed, re.DOTALL))
    for space in ("depth", "disparity"):  # metres have both
        assert "DepthPro" in tables[space]
        assert ("Tiny-hf" in tables[space]) == (space == "disparity")
    assert "DepthPro" not in printed.partition("Not aligned")[2]
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert set(metrics["compared"]) == {str(depthpro)}
    assert {"prediction/depth", "prediction/disparity"} <= metrics["compared"][str(depthpro)]["means"].keys()
    alone = ["depth", "evaluate", "scenes", "--limit", "1", "--device", "cpu", "--out", str(tmp_path / "alone")]
    assert main([*alone, "--model", str(depthpro), "--alignments", "disparity", "--no-baselines"]) == 0
    # a space that only a compared model has is shown without baselines, too
    capsys.readouterr()
    plain = [*alone[:-1], str(tmp_path / "plain"), "--model", str(relative), "--compare", str(depthpro)]
    assert main([*plain, "--no-baselines"]) == 0
    assert re.search(r"aligned in depth:\n.*\n *\S*DepthPro", capsys.readouterr().out)
    assert "Aligned in depth" in (tmp_path / "plain/report.html").read_text()
    assert "DepthPro-hf" in (tmp_path / "run/report.html").read_text()


def test_the_model_table_lists_them():
    rows = {row.name: row for row in published_models()}
    assert rows["depth-anything-v2-small"].source == "depth-anything/Depth-Anything-V2-Small-hf"
    assert rows["depthpro"].source == "apple/DepthPro-hf"
    for name in ("depth-anything-v2-small", "depth-anything-v2-base", "depth-anything-v2-large", "depthpro"):
        assert is_transformers_model(name)
        assert rows[name].licence == "see its page"
    assert is_transformers_model("depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf")
    assert not is_transformers_model("tiny-depth")
    assert not is_transformers_model("jingheya/lotus-depth-d-v2-0-disparity")


# ---- what goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["depth-anything-v2-small", "depthpro", "depth-anything/Depth-Anything-V2-Any-hf"])
def test_offline_one_line_says_how_to_get_it(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    Image.fromarray(photo()).save(tmp_path / "photo.png")
    words = ["depth", "predict", str(tmp_path / "photo.png"), "--model", name, "--out", str(tmp_path / "out")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "hf download" in error
    assert not (tmp_path / "out").exists()


def damaged(folder, tmp_path, kind):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    if kind == "key":
        weights = load_file(copy / "model.safetensors")
        weights.pop(sorted(weights)[0])
        save_file(weights, copy / "model.safetensors", {"format": "pt"})
    elif kind == "no weights":
        (copy / "model.safetensors").unlink()
    elif kind == "no processor":
        (copy / "preprocessor_config.json").unlink()
    else:
        config = json.loads((copy / "config.json").read_text())
        config.update({"other": {"model_type": "zoedepth"}, "no fov": {"use_fov_model": False}}[kind])
        (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize(
    ("model", "kind", "word"),
    [
        ("relative", "key", "1 missing keys"),
        ("relative", "no weights", "holds no weights"),
        ("relative", "no processor", "preprocessor_config.json: is missing"),
        ("relative", "other", "'zoedepth'"),
        ("depthpro", "no fov", "field of view"),
        ("depthpro", "no processor", "preprocessor_config.json: is missing"),
    ],
)
def test_damaged_folders(request, tmp_path, model, kind, word):
    folder = damaged(request.getfixturevalue(model), tmp_path, kind)
    with pytest.raises(InputError, match=word) as error:
        load_transformers_model(folder, device="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("model", ["relative", "depthpro"])
def test_compile(request, model, monkeypatch):
    """With a backend that runs what was traced, and with one that fails."""
    from torch._dynamo.utils import counters

    def none(graph, inputs):
        raise ValueError("no working C++ compiler")

    folder, image = request.getfixturevalue(model), photo()
    plain = load_predictor(ModelConfig(str(folder), device="cpu"))(image).values
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend="eager"))
    compiled = load_predictor(ModelConfig(str(folder), device="cpu", compile=True))
    before = counters["stats"]["unique_graphs"]
    np.testing.assert_allclose(compiled(image).values, plain, atol=1e-5 * np.abs(plain).max(), rtol=1e-4)
    assert counters["stats"]["unique_graphs"] > before
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend=none))
    with pytest.raises(InputError, match="cannot be compiled here"):
        load_predictor(ModelConfig(str(folder), device="cpu", compile=True))(image)


def test_options_of_the_first_model_that_cannot_act_on_another_are_left_out_of_it(relative, tiny_model):
    first = str(tiny_model("lotus-d", "lotus-depth-d-v2-0-disparity"))
    settings = ModelConfig(first, device="cpu", posterior="sample", tiled_vae=True)
    assert load_other(settings, str(relative), posterior="sample").name == str(relative)
    average = load_predictor(replace(settings, ensemble_with=str(relative)))
    assert average.second.name == str(relative)


def test_senseless_requests(relative, depthpro):
    with pytest.raises(InputError, match="--steps means nothing"):
        load_predictor(ModelConfig(str(relative), steps=4))
    for option, value in (("posterior", "sample"), ("tiled_vae", True), ("official_geometry", True)):
        with pytest.raises(InputError, match=f"--{option.replace('_', '-')} means nothing"):
            load_predictor(ModelConfig(str(relative), **{option: value}))
    with pytest.raises(InputError, match="works at 128"):
        load_predictor(ModelConfig(str(depthpro), resolution=64, device="cpu"))
    predictor = load_predictor(ModelConfig(str(relative), device="cpu"))
    with pytest.raises(InputError, match="does not depend on noise"):
        predictor(photo(), ensemble=2)
    with pytest.raises(InputError, match="whole pictures"):
        predictor(photo(), tile=64)
    with pytest.raises(InputError, match="cannot be brought to"):
        predictor(photo(4, 2000))
    with pytest.raises(InputError, match="--ensemble-space without"):
        load_predictor(ModelConfig(str(relative), ensemble_space="depth"))
    with pytest.raises(InputError, match="no diffusion model"):
        recognise(relative, name="depth-anything-v2-small")  # what a training begins with

"""Model folders as they are published, written with random weights: tiny ones for most tests, any size on request."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"

#: model_index.json's class, and the scheduler's, in the published folders of each family.
_PUBLISHED_AS = {
    "lotus-g": ("DirectDiffusionY0Pipeline", "DDIMScheduler"),
    "lotus-d": ("DirectRegressionPipeline", "PNDMScheduler"),
    "marigold": ("MarigoldDepthPipeline", "DDIMScheduler"),
    "e2e-ft": ("MarigoldPipeline", "DDIMScheduler"),
    "e2e-ft-sd": ("StableDiffusionPipeline", "DDIMScheduler"),
    "genpercept": ("GenPerceptPipeline", "DDIMScheduler"),
}


@pytest.fixture(scope="session")
def write_tokenizer() -> Callable[[Path], None]:
    """Write a CLIP tokenizer folder whose vocabulary knows the two ends of a text only: "" is [49406, 49407]."""

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        ends = {
            f"{side}_token": {
                "content": token,
                "lstrip": False,
                "normalized": True,
                "rstrip": False,
                "single_word": False,
            }
            for side, token in (("bos", _BOS), ("eos", _EOS), ("unk", _EOS))
        }
        config = {
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": 77,
            "pad_token": "!",
            "tokenizer_class": "CLIPTokenizer",
            **{name: {"__type": "AddedToken", **token} for name, token in ends.items()},
        }
        _write_json(folder / "vocab.json", {"!": 0, _BOS: 49406, _EOS: 49407})
        (folder / "merges.txt").write_text("#version: 0.2\n")
        _write_json(folder / "special_tokens_map.json", {**ends, "pad_token": "!"})
        _write_json(folder / "tokenizer_config.json", config)

    return write


@pytest.fixture(scope="session")
def write_pipeline_files() -> Callable[[Path, str], None]:
    """Write what lies around the networks of a family's folder: model_index.json and scheduler/."""

    def write(folder: Path, family: str) -> None:
        pipeline, scheduler = _PUBLISHED_AS[family]
        index = {
            "_class_name": pipeline,
            "_diffusers_version": "0.28.0.dev0",
            "scheduler": ["diffusers", scheduler],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }
        schedule = {
            "_class_name": scheduler,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "clip_sample": False,
            "num_train_timesteps": 1000,
            "prediction_type": "epsilon" if family.startswith("lotus") else "v_prediction",
            "set_alpha_to_one": False,
            "steps_offset": 1,
            "timestep_spacing": "leading" if family.startswith("lotus") else "trailing",
        }
        (folder / "scheduler").mkdir(parents=True)
        _write_json(folder / "model_index.json", index)
        _write_json(folder / "scheduler" / "scheduler_config.json", schedule)

    return write


@pytest.fixture(scope="session")
def text_encoder_files() -> Callable[..., tuple[dict[str, Any], dict[str, list[int]]]]:
    """Configuration and published keys (with their old prefix) of a CLIP text encoder of a given size."""

    def describe(width: int, layers: int, heads: int, inner: int, projection: int) -> tuple[dict, dict]:
        config = {
            "architectures": ["CLIPTextModel"],
            "attention_dropout": 0.0,
            "bos_token_id": 0,
            "dropout": 0.0,
            "eos_token_id": 2,
            "hidden_act": "gelu",
            "hidden_size": width,
            "intermediate_size": inner,
            "layer_norm_eps": 1e-05,
            "max_position_embeddings": 77,
            "model_type": "clip_text_model",
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "pad_token_id": 1,
            "projection_dim": projection,
            "vocab_size": 49408,
        }
        shapes = {
            "embeddings.token_embedding.weight": [49408, width],
            "embeddings.position_embedding.weight": [77, width],
            "final_layer_norm.weight": [width],
            "final_layer_norm.bias": [width],
        }
        linear = {"mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
        linear |= {f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")}
        for layer in range(layers):
            for name, shape in linear.items():
                shapes[f"encoder.layers.{layer}.{name}.weight"] = list(shape)
                shapes[f"encoder.layers.{layer}.{name}.bias"] = [shape[0]]
            for name in ("layer_norm1", "layer_norm2"):
                shapes |= {f"encoder.layers.{layer}.{name}.{part}": [width] for part in ("weight", "bias")}
        return config, {f"text_model.{key}": shape for key, shape in shapes.items()}

    return describe


@pytest.fixture(scope="session")
def tiny_model(
    tmp_path_factory: pytest.TempPathFactory,
    write_tokenizer: Callable[[Path], None],
    write_pipeline_files: Callable[[Path, str], None],
    write_random_weights: Callable[..., int],
    text_encoder_files: Callable[..., tuple[dict, dict]],
) -> Callable[..., Path]:
    """``tiny_model(family, name)``: a complete folder with a small network, written once; do not change it.

    ``copy=path`` gives a copy that may be damaged.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from priorscope_depth.families import FAMILIES

    made: dict[tuple[str, str], Path] = {}

    def make(family: str, name: str = "model", *, copy: Path | None = None) -> Path:
        if (family, name) not in made:
            folder = tmp_path_factory.mktemp(family) / name
            settings = FAMILIES[family]
            write_pipeline_files(folder, family)
            write_tokenizer(folder / "tokenizer")
            config, shapes = text_encoder_files(16, 2, 2, 32, 8)
            write_random_weights(folder / "text_encoder" / "model.safetensors", shapes)
            _write_json(folder / "text_encoder" / "config.json", config)
            with torch.random.fork_rng():
                torch.manual_seed(0)
                switcher = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
                UNet2DConditionModel(
                    in_channels=4 * len(settings.inputs),
                    out_channels=4,
                    layers_per_block=1,
                    block_out_channels=(16, 32),
                    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
                    norm_num_groups=8,
                    cross_attention_dim=16,
                    attention_head_dim=(2, 4),
                    use_linear_projection=True,
                    **(switcher if settings.task_switcher else {}),
                ).save_pretrained(folder / "unet")
                AutoencoderKL(
                    latent_channels=4,
                    block_out_channels=(8, 16, 16, 16),
                    layers_per_block=1,
                    norm_num_groups=4,
                    down_block_types=("DownEncoderBlock2D",) * 4,
                    up_block_types=("UpDecoderBlock2D",) * 4,
                    scaling_factor=0.18215,
                ).save_pretrained(folder / "vae")
            made[family, name] = folder
        if copy is None:
            return made[family, name]
        return Path(shutil.copytree(made[family, name], copy, dirs_exist_ok=True))

    return make


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")

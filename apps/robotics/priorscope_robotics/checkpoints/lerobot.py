"""LeRobot's diffusion policies: folders with config.json and model.safetensors, of the older and the newer layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from priorscope.backbones.loading import read_config
from priorscope.backbones.state_dict import read_safetensors
from priorscope.errors import InputError
from priorscope_robotics.checkpoints.folder import WEIGHTS, filled
from priorscope_robotics.checkpoints.lerobot_keys import from_lerobot
from priorscope_robotics.lerobot_normalizer import needed_statistics
from priorscope_robotics.model import ACTION, PolicyModel
from priorscope_robotics.normalizer import field_key
from priorscope_robotics.spec import Diffusion, ImageSettings, Observation, PolicySpec

STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
PROCESSOR = "policy_preprocessor.json"
_NORMALIZER_STEP = "normalizer_processor"


def load_lerobot(folder: str | Path) -> PolicyModel:
    """Read a folder that LeRobot wrote. What its config.json says counts; defaults have changed over the years.

    Raises
    ------
    InputError
        Files are missing or damaged, the policy is another one than diffusion's, uses something that is not supported,
        lacks statistics, or its weights do not fit to the last key.
    """
    folder = Path(folder).expanduser()
    config = read_config(folder)
    tensors = read_safetensors(folder / WEIGHTS)
    try:
        spec = spec_of(config)
        old = any(key.startswith("normalize_inputs.") for key in tensors)
        statistics = _old_statistics(spec, tensors) if old else _new_statistics(spec, folder)
    except InputError as error:
        raise InputError(error.fact, path=error.path or folder, remedy=error.remedy) from None
    spec = replace(spec, normalizer="lerobot-old" if old else "lerobot")
    return filled(spec, from_lerobot(spec, tensors) | statistics, folder)


def spec_of(config: Mapping[str, Any]) -> PolicySpec:
    """What a config.json says.

    Raises
    ------
    InputError
        It lacks something, or asks for what is not supported.
    """
    if config.get("type", "diffusion") != "diffusion":
        raise InputError(f"is a policy of type {config['type']!r}, not 'diffusion'")
    shapes, modes = _features(config)
    if ACTION not in shapes:
        raise InputError("its config.json names no action")
    backbone = str(config.get("vision_backbone", "resnet18"))
    if config.get("resize_shape") is not None:
        raise InputError("its config.json resizes images (resize_shape), which is not supported")
    if config.get("noise_scheduler_type", "DDPM") not in ("DDPM", "DDIM"):
        raise InputError(f"its config.json has the noise_scheduler_type {config['noise_scheduler_type']!r}")
    images = [name for name in shapes if len(shapes[name]) == 3]
    if images and backbone != "resnet18":
        raise InputError(f"its image encoder is {backbone!r}", remedy="resnet18 can be read.")
    known = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}
    prediction = str(config.get("prediction_type", "epsilon"))
    if prediction not in known:
        raise InputError(f"its network predicts {prediction!r}")
    keypoints = int(config.get("spatial_softmax_num_keypoints", 32))
    crop = config.get("crop_shape", (84, 84))
    # the order in which LeRobot joins features
    order = [name for name in (STATE,) if name in shapes] + images + [name for name in (ENVIRONMENT,) if name in shapes]
    other = sorted(set(shapes) - {*order, ACTION})
    if other:
        raise InputError(
            f"its config.json names observations that its diffusion policy does not use: {', '.join(other)}"
        )
    n_obs_steps = int(_needed(config, "n_obs_steps"))
    return PolicySpec(
        observations=tuple(
            Observation(name, shapes[name], "image" if len(shapes[name]) == 3 else "vector") for name in order
        ),
        action_dim=shapes[ACTION][0],
        horizon=int(_needed(config, "horizon")),
        n_obs_steps=n_obs_steps,
        n_action_steps=int(_needed(config, "n_action_steps")),
        first_action=n_obs_steps - 1,
        network_settings={
            **{
                name: config[name]
                for name in ("diffusion_step_embed_dim", "down_dims", "kernel_size", "n_groups")
                if name in config
            },
            "cond_predict_scale": bool(config.get("use_film_scale_modulation", True)),
        },
        diffusion=Diffusion(
            steps=int(config.get("num_train_timesteps", 100)),
            beta_schedule=str(config.get("beta_schedule", "squaredcos_cap_v2")),
            beta_start=float(config.get("beta_start", 0.0001)),
            beta_end=float(config.get("beta_end", 0.02)),
            prediction_type=known[prediction],  # type: ignore[arg-type]
            clip=float(config.get("clip_sample_range", 1.0)) if config.get("clip_sample", True) else 0.0,
        ),
        image=ImageSettings(
            crop=tuple(crop) if images and crop else None,
            features=2 * keypoints,
            keypoints=keypoints,
            shared=not config.get("use_separate_rgb_encoder_per_camera", False),
            random_crop=bool(config.get("crop_is_random", True)),
            norm="group" if config.get("use_group_norm", True) else "batch",
            centre="round",
        ),
        normalizer="lerobot",
        normalizer_modes=modes,
        family="lerobot",
    ).check()


def _needed(config: Mapping[str, Any], name: str) -> Any:
    if name not in config:
        raise InputError(f"its config.json has no {name!r}")
    return config[name]


def _features(config: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes and normalisation modes by name."""
    if "input_features" in config:
        features = {**config["input_features"], **config.get("output_features", {})}
        mapping = config.get("normalization_mapping", {})
        shapes = {name: tuple(feature["shape"]) for name, feature in features.items()}
        modes = {name: str(mapping.get(feature["type"], "IDENTITY")).upper() for name, feature in features.items()}
    elif "input_shapes" in config:
        listed = {**config["input_shapes"], **config.get("output_shapes", {})}
        shapes = {name: tuple(shape) for name, shape in listed.items()}
        told = {**config.get("input_normalization_modes", {}), **config.get("output_normalization_modes", {})}
        modes = {name: str(told.get(name, "IDENTITY")).upper() for name in shapes}
    else:
        raise InputError("its config.json has neither 'input_features' nor 'input_shapes'")
    for mode in modes.values():
        needed_statistics(mode)
    return shapes, modes


def _old_statistics(spec: PolicySpec, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Statistics that lie among the weights."""
    found = {}
    for name, mode in spec.normalizer_modes.items():
        group = "normalize_targets" if name == ACTION else "normalize_inputs"
        for stat in needed_statistics(mode):
            key = f"{group}.buffer_{field_key(name)}.{stat}"
            if key not in tensors:
                raise InputError(f"its weights have no {key!r}")
            if not bool(torch.isfinite(tensors[key]).all()):
                raise InputError(f"{key!r} is not finite: the policy was saved before it saw statistics")
            found[f"normalizer.fields.{field_key(name)}.{stat}"] = tensors[key]
    return found


def _new_statistics(spec: PolicySpec, folder: Path) -> dict[str, torch.Tensor]:
    """Statistics of the preprocessor's normalisation step."""
    needed = {name: needed_statistics(mode) for name, mode in spec.normalizer_modes.items()}
    if not any(needed.values()):
        return {}
    steps = read_config(folder, PROCESSOR).get("steps", [])
    step = next((step for step in steps if str(step.get("registry_name", "")) == _NORMALIZER_STEP), None)
    if step is None or not isinstance(step.get("state_file"), str):
        raise InputError(f"names no {_NORMALIZER_STEP!r} with a state file", path=folder / PROCESSOR)
    path = folder / step["state_file"]
    if path.parent != folder:
        raise InputError(f"its state file {step['state_file']!r} is not in the folder", path=folder / PROCESSOR)
    tensors = read_safetensors(path)
    found = {}
    for name, stats in needed.items():
        shape = {entry.name: entry.shape for entry in spec.observations}.get(name, (spec.action_dim,))
        for stat in stats:
            if f"{name}.{stat}" not in tensors:
                raise InputError(f"has no {name}.{stat}", path=path)
            value = tensors[f"{name}.{stat}"]
            found[f"normalizer.fields.{field_key(name)}.{stat}"] = (
                value.reshape(-1, 1, 1) if len(shape) == 3 else value.reshape(-1)
            )
    return found

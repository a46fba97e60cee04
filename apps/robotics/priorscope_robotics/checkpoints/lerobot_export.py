"""Writing a policy as a folder that LeRobot reads (its newer layout)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from priorscope.data.files import refuse_overwrite, writing
from priorscope.data.weights_file import save_file
from priorscope.errors import InputError
from priorscope_robotics.checkpoints.folder import WEIGHTS
from priorscope_robotics.checkpoints.lerobot import ENVIRONMENT, PROCESSOR, STATE
from priorscope_robotics.checkpoints.lerobot_keys import to_lerobot
from priorscope_robotics.lerobot_normalizer import LeRobotNormalizer, needed_statistics
from priorscope_robotics.model import ACTION, PolicyModel
from priorscope_robotics.normalizer import field_key
from priorscope_robotics.spec import PolicySpec

_TYPES = {STATE: "STATE", ENVIRONMENT: "ENV", ACTION: "ACTION"}


def export_lerobot(model: PolicyModel, folder: str | Path) -> Path:
    """Write config.json, model.safetensors and the two processors with their statistics.

    A linear normaliser becomes minima and maxima (of images: mean and deviation) that mean the same; observations are
    renamed to LeRobot's keys. The scale of discrete dimensions goes into the statistics of the action; that they take
    few values is lost, since LeRobot has no word for it.

    Raises
    ------
    InputError
        For what LeRobot's diffusion policy cannot be: other objectives, networks and conditionings, other orders of
        observations, or an existing folder.
    """
    folder = refuse_overwrite(Path(folder).expanduser())
    spec = model.spec
    names = lerobot_names(spec)
    modes, statistics = _statistics(model, names)
    config = _config(spec, names, modes)
    with writing(folder):
        folder.mkdir(parents=True)
        renamed = _renamed_cameras(spec, to_lerobot(spec, model.state_dict()))
        save_file({key: value.detach().cpu().contiguous() for key, value in renamed.items()}, folder / WEIGHTS)
        _write(folder / "config.json", config)
        features = {**config["input_features"], **config["output_features"]}
        for name, registry in (("policy_preprocessor", "normalizer"), ("policy_postprocessor", "unnormalizer")):
            file = f"{name}_step_0_{registry}_processor.safetensors"
            kept = features if registry == "normalizer" else config["output_features"]
            step = {
                "registry_name": f"{registry}_processor",
                "config": {"eps": 1e-8, "features": kept, "norm_map": config["normalization_mapping"]},
                "state_file": file,
            }
            _write(folder / f"{name}.json", {"name": name, "steps": [step]})
            save_file(statistics, folder / file)
    assert (folder / PROCESSOR).is_file()
    return folder


def lerobot_names(spec: PolicySpec) -> dict[str, str]:
    """Our names of observations and LeRobot's.

    Raises
    ------
    InputError
        The policy is none that LeRobot has.
    """
    if spec.objective != "diffusion":
        raise InputError(f"LeRobot has no policy that was trained for {spec.objective}")
    if spec.network != "unet" or spec.conditioning != "global" or spec.first_action != spec.n_obs_steps - 1:
        raise InputError(
            f"LeRobot has no {spec.network} with the conditioning {spec.conditioning!r} that acts from step "
            f"{spec.first_action} on"
        )
    if spec.diffusion.variance != "small":
        raise InputError("LeRobot has no noise of the larger variance")
    vectors = [entry.name for entry in spec.observations if entry.kind == "vector"]
    images = [entry.name for entry in spec.images]
    if not vectors or len(vectors) > 2:
        raise InputError(f"LeRobot takes one or two vectors, not {len(vectors)}")
    order = [vectors[0], *images, *vectors[1:]]
    if [entry.name for entry in spec.observations] != order:
        raise InputError("LeRobot joins a state, images and the environment's state, in this order")
    names = {vectors[0]: STATE, **({vectors[1]: ENVIRONMENT} if len(vectors) == 2 else {})}
    for name in images:
        alone = "observation.image" if len(images) == 1 else f"observation.images.{field_key(name)}"
        names[name] = name if name.startswith("observation.image") else alone
    return names


def _renamed_cameras(spec: PolicySpec, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One camera needs no number: LeRobot's default shares the encoder."""
    if spec.image.shared or len(spec.images) != 1:
        return tensors
    return {key.replace("diffusion.rgb_encoder.0.", "diffusion.rgb_encoder."): value for key, value in tensors.items()}


def _statistics(model: PolicyModel, names: dict[str, str]) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    spec = model.spec
    kinds = {entry.name: entry.kind for entry in spec.observations}
    modes: dict[str, str] = {}
    found: dict[str, torch.Tensor] = {}
    for name in [*kinds, ACTION]:
        theirs = names.get(name, name)
        image = kinds.get(name) == "image"
        if isinstance(model.normalizer, LeRobotNormalizer):
            field = model.normalizer.field(name)
            modes[theirs] = field.mode
            stats = {stat: getattr(field, stat) for stat in needed_statistics(field.mode)}
        else:
            linear = model.normalizer.field(name)
            scale, offset = linear.scale.double(), linear.offset.double()
            if image:
                modes[theirs] = "MEAN_STD"
                stats = {"mean": -offset / scale, "std": 1 / scale}
                stats = {stat: value.expand(3) for stat, value in stats.items()}
            else:
                modes[theirs] = "MIN_MAX"
                stats = {"min": (-1 - offset) / scale, "max": (1 - offset) / scale}
        if name == ACTION and any(dim.scale != 1 for dim in spec.discrete):
            if not stats:
                raise InputError("LeRobot cannot scale discrete dimensions of actions that are not normalised")
            factor = torch.ones(spec.action_dim, dtype=torch.float64)
            for dim in spec.discrete:
                factor[dim.index] = dim.scale
            stats = {stat: value.cpu() * factor for stat, value in stats.items()}
        for stat, value in stats.items():
            shaped = value.reshape(-1, 1, 1) if image else value.reshape(-1)
            found[f"{theirs}.{stat}"] = shaped.float().cpu().contiguous()
    return modes, found


def _config(spec: PolicySpec, names: dict[str, str], modes: dict[str, str]) -> dict[str, Any]:
    inputs = {
        names[entry.name]: {"type": _TYPES.get(names[entry.name], "VISUAL"), "shape": list(entry.shape)}
        for entry in spec.observations
    }
    outputs = {ACTION: {"type": "ACTION", "shape": [spec.action_dim]}}
    mapping: dict[str, str] = {}
    for name, feature in {**inputs, **outputs}.items():
        kind = str(feature["type"])
        if mapping.setdefault(kind, modes[name]) != modes[name]:
            both = f"{mapping[kind]} and {modes[name]}"
            raise InputError(f"LeRobot normalises all {kind} features alike, not as {both}")
    noise = spec.diffusion
    settings = {"diffusion_step_embed_dim": 256, "down_dims": [256, 512, 1024], "kernel_size": 5, "n_groups": 8}
    settings |= {name: value for name, value in spec.network_settings.items() if name in settings}
    return {
        "type": "diffusion",
        "n_obs_steps": spec.n_obs_steps,
        "normalization_mapping": mapping,
        "input_features": inputs,
        "output_features": outputs,
        "horizon": spec.horizon,
        "n_action_steps": spec.n_action_steps,
        "vision_backbone": "resnet18",
        "crop_shape": list(spec.image.crop) if spec.image.crop else None,
        "crop_is_random": spec.image.random_crop,
        "pretrained_backbone_weights": None,
        "use_group_norm": spec.image.norm == "group",
        "spatial_softmax_num_keypoints": spec.image.keypoints,
        "use_separate_rgb_encoder_per_camera": not spec.image.shared and len(spec.images) > 1,
        **settings,
        "use_film_scale_modulation": bool(spec.network_settings.get("cond_predict_scale", True)),
        "noise_scheduler_type": "DDPM",
        "num_train_timesteps": noise.steps,
        "beta_schedule": noise.beta_schedule,
        "beta_start": noise.beta_start,
        "beta_end": noise.beta_end,
        "prediction_type": {"v": "v_prediction"}.get(noise.prediction_type, noise.prediction_type),
        "clip_sample": noise.clip > 0,
        "clip_sample_range": noise.clip or 1.0,
        "num_inference_steps": None,
        "do_mask_loss_for_padding": False,
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")

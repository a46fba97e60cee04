"""Diffusion Policy's .ckpt files, and those of RTI-DP, which are of the same kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from priorscope.errors import InputError
from priorscope_robotics.checkpoints.folder import filled
from priorscope_robotics.checkpoints.hydra import Settings
from priorscope_robotics.checkpoints.pickles import plain_settings, read_pickled
from priorscope_robotics.model import ACTION, PolicyModel
from priorscope_robotics.networks.image_encoder import encoder_keys
from priorscope_robotics.normalizer import published_sizes
from priorscope_robotics.spec import Diffusion, ImageSettings, Observation, PolicySpec

_NORMALIZER = "normalizer."
_UNET_SETTINGS = ("diffusion_step_embed_dim", "down_dims", "kernel_size", "n_groups", "cond_predict_scale")
_TRANSFORMER_SETTINGS = (
    *("n_layer", "n_head", "n_emb", "p_drop_emb", "p_drop_attn"),
    *("causal_attn", "time_as_cond", "obs_as_cond", "n_cond_layers"),
)


def load_diffusion_policy(path: str | Path) -> PolicyModel:
    """Read a checkpoint: its settings, and its averaged weights where it was trained with an average.

    Supported are the low-dimensional and the hybrid image policies, with the U-Net or the transformer.

    Raises
    ------
    InputError
        A damaged file, a pickle that asks for a class it does not need, settings that are not supported, or weights
        that do not fit to the last key.
    """
    path = Path(path).expanduser()
    content = read_pickled(path)
    settings = plain_settings(content.get("cfg"))
    if not isinstance(settings, dict):
        raise InputError("has no settings under 'cfg'", path=path, remedy="Is it one of Diffusion Policy's files?")
    found = Settings(settings)
    weights = _weights(content, bool(found.get("training.use_ema", True)), path)
    try:
        spec = spec_of(found, weights)
    except InputError as error:
        raise InputError(error.fact, path=path, remedy=error.remedy) from None
    return filled(spec, our_keys(spec, weights), path)


def _weights(content: Mapping[str, Any], averaged: bool, path: Path) -> dict[str, torch.Tensor]:
    states = content.get("state_dicts")
    states = states if isinstance(states, Mapping) else {}
    name = "ema_model" if averaged and "ema_model" in states else "model"
    state = states.get(name)
    if not isinstance(state, Mapping) or not state or not all(torch.is_tensor(value) for value in state.values()):
        raise InputError(f"has no weights under 'state_dicts' and {name!r}", path=path)
    # copied: the file is mapped, and may be replaced while we live
    return {
        str(key): value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
        for key, value in state.items()
    }


def spec_of(settings: Settings, weights: Mapping[str, torch.Tensor]) -> PolicySpec:
    """What the settings say; sizes of actions and observations are those of the weights.

    Raises
    ------
    InputError
        For policies that are not supported.
    """
    target = str(settings.get("policy._target_", ""))
    transformer = "transformer" in target
    images = "image" in target
    if not target.endswith("Policy") or not any(name in target for name in ("lowdim", "hybrid_image")):
        raise InputError(
            f"its policy is {target or 'not told'}", remedy="Low-dimensional and hybrid image policies can be read."
        )
    if settings.get("policy.pred_action_steps_only", False):
        raise InputError("its policy predicts only the executed actions, which is not supported")
    shapes = {
        key.removeprefix(_NORMALIZER): tuple(value.shape)
        for key, value in weights.items()
        if key.startswith(_NORMALIZER)
    }
    sizes = published_sizes(shapes, shapes)
    if ACTION not in sizes:
        raise InputError("its weights have no normaliser of actions")
    n_obs_steps = int(_needed(settings, "n_obs_steps"))
    if images:
        observations, image = _image_observations(settings, weights)
    else:
        image = ImageSettings()
        observations = (Observation("obs", (sizes["obs"],), first_half=True),) if "obs" in sizes else ()
    return PolicySpec(
        observations=observations,
        action_dim=sizes[ACTION],
        horizon=int(_needed(settings, "horizon")),
        n_obs_steps=n_obs_steps,
        # n_latency_steps more are predicted, and dropped
        n_action_steps=int(_needed(settings, "n_action_steps")),
        first_action=n_obs_steps
        - (1 if images or settings.get("policy.oa_step_convention", False) else 0)
        + int(settings.get("n_latency_steps", 0)),
        conditioning=_conditioning(settings, transformer, images),  # type: ignore[arg-type]
        network="transformer" if transformer else "unet",
        network_settings=_network_settings(settings, _TRANSFORMER_SETTINGS if transformer else _UNET_SETTINGS),
        diffusion=_diffusion(settings),
        image=image,
        family="diffusion-policy",
        trained_on=str(settings.get("task_name", settings.get("task.name", ""))),
    ).check()


def _needed(settings: Settings, name: str) -> Any:
    value = settings.get(name, settings.get(f"policy.{name}"))
    if value is None:
        raise InputError(f"its settings have no {name!r}")
    return value


def _conditioning(settings: Settings, transformer: bool, images: bool) -> str:
    def told(name: str) -> bool:
        return bool(settings.get(f"policy.{name}", settings.get(name, images)))

    if transformer:
        return "memory" if told("obs_as_cond") else "inpaint"
    if told("obs_as_global_cond"):
        return "global"
    return "local" if not images and told("obs_as_local_cond") else "inpaint"


def _network_settings(settings: Settings, names: tuple[str, ...]) -> dict[str, Any]:
    found = {name: settings.get(f"policy.model.{name}", settings.get(f"policy.{name}")) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _diffusion(settings: Settings) -> Diffusion:
    start = "policy.noise_scheduler."
    kind = str(settings.get(f"{start}variance_type", "fixed_small"))
    if kind not in ("fixed_small", "fixed_large"):
        raise InputError(f"its noise has the variance {kind!r}", remedy="fixed_small and fixed_large can be read.")
    prediction = str(settings.get(f"{start}prediction_type", "epsilon"))
    known = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}
    if prediction not in known:
        raise InputError(f"its network predicts {prediction!r}")
    return Diffusion(
        steps=int(settings.get(f"{start}num_train_timesteps", 1000)),
        beta_schedule=str(settings.get(f"{start}beta_schedule", "linear")),
        beta_start=float(settings.get(f"{start}beta_start", 0.0001)),
        beta_end=float(settings.get(f"{start}beta_end", 0.02)),
        prediction_type=known[prediction],  # type: ignore[arg-type]
        clip=1.0 if settings.get(f"{start}clip_sample", True) else 0.0,
        variance="small" if kind == "fixed_small" else "large",
    )


def _image_observations(
    settings: Settings, weights: Mapping[str, torch.Tensor]
) -> tuple[tuple[Observation, ...], ImageSettings]:
    meta = settings.get("policy.shape_meta.obs", settings.get("shape_meta.obs"))
    if not isinstance(meta, dict):
        raise InputError("its settings have no 'shape_meta.obs'")
    observations = []
    for name in meta:

        def told(what: str, name: str = name) -> Any:
            where = f"shape_meta.obs.{name}.{what}"
            return settings.get(f"policy.{where}", settings.get(where))

        shape, kind = told("shape"), told("type")
        if not isinstance(shape, list):
            raise InputError(f"its settings do not tell the shape of {name!r}")
        observations.append(Observation(name, tuple(shape), "image" if kind == "rgb" else "vector"))
    images = [entry.name for entry in observations if entry.kind == "image"]
    if not images:
        raise InputError("its settings name no camera")
    if not settings.get("policy.obs_encoder_group_norm", False):
        raise InputError("its image encoder has batch norms", remedy="Those with group norms can be read.")
    start = f"obs_encoder.obs_nets.{images[0]}."
    needed = (f"{start}nets.3.weight", f"{start}pool.nets.weight")
    if any(key not in weights for key in needed):
        raise InputError(f"its weights have no encoder of {images[0]!r}", remedy="Is it a hybrid image policy?")
    crop = settings.get("policy.crop_shape")
    image = ImageSettings(
        crop=tuple(crop) if isinstance(crop, list) else None,
        features=len(weights[needed[0]]),
        keypoints=len(weights[needed[1]]),
    )
    return tuple(observations), image


def our_keys(spec: PolicySpec, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under our names. A name that fits nothing keeps its own, so that loading refuses it.

    Each camera's encoder is in the file twice: as named parts, and as a list of the same tensors.
    """
    prefixes = [("network.", "model."), (_NORMALIZER, _NORMALIZER)]
    twice = []
    for entry in spec.images:
        prefixes += encoder_keys(entry.name)
        twice += [f"obs_encoder.obs_nets.{entry.name}.nets.{number}." for number in (0, 1)]
    found = {}
    for key, value in weights.items():
        if key in ("_dummy_variable", "mask_generator._dummy_variable") or key.startswith(tuple(twice)):
            continue
        ours = next((ours + key[len(theirs) :] for ours, theirs in prefixes if key.startswith(theirs)), key)
        found[ours] = value
    return found


def published_keys(spec: PolicySpec, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our weights under the names of a .ckpt, also those that it has twice."""
    prefixes = [("network.", "model."), (_NORMALIZER, _NORMALIZER)]
    for entry in spec.images:
        prefixes += encoder_keys(entry.name)
    found = {"_dummy_variable": torch.zeros(0), "mask_generator._dummy_variable": torch.zeros(0)}
    for key, value in state.items():
        theirs = next(theirs + key[len(ours) :] for ours, theirs in prefixes if key.startswith(ours))
        found[theirs] = value
        for entry in spec.images:
            start = f"obs_encoder.obs_nets.{entry.name}."
            for name, number in (("backbone.", 0), ("pool.", 1)):
                if theirs.startswith(start + name):
                    found[f"{start}nets.{number}.{theirs[len(start + name) :]}"] = value
    return found

"""From demonstrations and settings to an untrained policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from priorscope.errors import InputError
from priorscope_robotics.checkpoints.load import load_policy
from priorscope_robotics.configs import TrainConfig
from priorscope_robotics.data.episodes import Episodes
from priorscope_robotics.model import ACTION, PolicyModel
from priorscope_robotics.normalizer import (
    FieldScale,
    LinearNormalizer,
    absolute_action_field,
    fit_field,
    identity_field,
    image_field,
    largest_field,
    statistics,
)
from priorscope_robotics.policies.consistency import student_of
from priorscope_robotics.policies.named import discrete_dimensions
from priorscope_robotics.policies.rti import move_size
from priorscope_robotics.policies.streaming import chunk_count
from priorscope_robotics.spec import Diffusion, DiscreteAction, ImageSettings, Observation, PolicySpec

_UNET = {
    "tiny": {"down_dims": [64, 128], "diffusion_step_embed_dim": 64},
    "small": {"down_dims": [64, 128, 256], "diffusion_step_embed_dim": 64},
    "medium": {"down_dims": [128, 256, 512], "diffusion_step_embed_dim": 128},
    "published": {"down_dims": [256, 512, 1024], "diffusion_step_embed_dim": 256},
}
_TRANSFORMER = {"tiny": (64, 2), "small": (128, 4), "medium": (192, 6), "published": (256, 8)}


def chosen_observations(episodes: Episodes, names: Sequence[str]) -> Episodes:
    """Those that a policy shall see: the named ones, else ``obs``, else all vectors."""
    if names:
        return episodes.only(names)
    if "obs" in episodes.observations:
        return episodes.only(["obs"])
    vectors = [name for name, value in episodes.observations.items() if value.ndim == 2]
    if not vectors:
        raise InputError("the demonstrations have no vectors to see", remedy="Name images with --observe.")
    return episodes.only(vectors)


def new_spec(config: TrainConfig, episodes: Episodes) -> PolicySpec:
    """What ``config`` asks for on these demonstrations; their statistics are not in it."""
    observations = tuple(
        Observation(name, tuple(value.shape[1:]), "image" if value.ndim == 4 else "vector")
        for name, value in episodes.observations.items()
    )
    action_dim = episodes.actions.shape[1]
    transformer = config.network == "transformer"
    settings: dict[str, Any]
    if transformer:
        width, layers = _TRANSFORMER[config.size]
        settings = {"n_emb": width, "n_layer": layers, "n_head": 4, "causal_attn": True}
        settings |= {"p_drop_emb": 0.0, "p_drop_attn": 0.01}
    else:
        settings = {**_UNET[config.size], "kernel_size": 5, "n_groups": 8, "cond_predict_scale": True}
    images = [entry for entry in observations if entry.kind == "image"]
    crop = None
    if images:
        crop = (config.crop, config.crop) if config.crop else (images[0].shape[1] * 7 // 8, images[0].shape[2] * 7 // 8)
    return PolicySpec(
        observations=observations,
        action_dim=action_dim,
        horizon=config.horizon,
        n_obs_steps=config.n_obs_steps,
        n_action_steps=config.n_action_steps,
        first_action=config.n_obs_steps - 1,
        conditioning="memory" if transformer else config.conditioning,
        network=config.network,
        network_settings=settings,
        diffusion=Diffusion(steps=config.noise_steps),
        image=ImageSettings(crop=crop),
        objective=config.objective,
        discrete=trained_dimensions(config, action_dim),
        trained_on=episodes.title,
    ).check()


def trained_dimensions(config: TrainConfig, action_dim: int) -> tuple[DiscreteAction, ...]:
    """The discrete dimensions that ``config`` names, with the scale that it tells for each or for all.

    Raises
    ------
    InputError
        Two scales for one, or values that a sample cannot reach: they are not normalised, but clipped like the rest.
    """
    found = []
    for dim in discrete_dimensions(config.discrete, action_dim) or ():
        scales = {dim.scale, config.discrete_scale} - {1.0}
        if len(scales) > 1:
            raise InputError(
                f"the discrete dimension {dim.index} is divided by {dim.scale:g} in --discrete, and by "
                f"--discrete-scale {config.discrete_scale:g}",
                remedy="Tell one of them.",
            )
        dim = replace(dim, scale=scales.pop() if scales else 1.0)
        largest, limit = max(abs(value) for value in dim.values), Diffusion().clip
        if largest > limit * dim.scale:
            raise InputError(
                f"the discrete dimension {dim.index} has values up to {largest:g}, beyond what samples are clipped to",
                remedy=f"Use a --discrete-scale of {largest / limit:g} or more.",
            )
        found.append(dim)
    return tuple(found)


def scaled_actions(actions: np.ndarray, dims: Sequence[DiscreteAction]) -> np.ndarray:
    """Actions as the network sees them before normalisation: discrete dimensions divided by their scale."""
    if not dims:
        return actions
    actions = actions.copy()
    for dim in dims:
        actions[:, dim.index] /= dim.scale
    return actions


def fitted_normalizer(spec: PolicySpec, episodes: Episodes, kind: str = "limits") -> LinearNormalizer:
    """Vectors to [-1, 1] by their range, or as robomimic's; images too. Discrete dimensions of the action stay."""
    robomimic = kind == "robomimic"
    fields: dict[str, FieldScale] = {}
    for entry in spec.observations:
        if entry.kind == "image":
            fields[entry.name] = image_field()
        else:
            found = statistics(torch.from_numpy(episodes.observations[entry.name]))
            fields[entry.name] = largest_field(found) if robomimic else fit_field(found)
    stats = statistics(torch.from_numpy(episodes.actions))
    field = absolute_action_field(stats) if robomimic else fit_field(stats)
    same = identity_field(stats)
    for dim in spec.discrete:
        field.scale[dim.index], field.offset[dim.index] = same.scale[dim.index], same.offset[dim.index]
    fields[ACTION] = field
    return LinearNormalizer(fields)


def largest_moves(model: PolicyModel, episodes: Episodes) -> tuple[float, ...]:
    """The farthest that observations move in 1, 2, ... ``n_action_steps`` steps of an episode."""
    vectors = {}
    for entry in model.spec.observations:
        if entry.kind == "vector":
            values = torch.from_numpy(np.asarray(episodes.observations[entry.name]))
            vectors[entry.name] = model.normalizer.normalize(entry.name, values)
    if not vectors:
        return ()
    number = torch.from_numpy(np.searchsorted(episodes.ends, np.arange(episodes.steps), side="right"))
    found: list[float] = []
    for lag in range(1, model.spec.n_action_steps + 1):
        same = number[lag:] == number[:-lag]
        if not bool(same.any()):
            break
        later = {name: value[lag:][same] for name, value in vectors.items()}
        found.append(float(move_size(later, {name: value[:-lag][same] for name, value in vectors.items()}).max()))
    return tuple(found)


def start_model(
    config: TrainConfig, episodes: Episodes, device: torch.device
) -> tuple[PolicyModel, PolicyModel | None]:
    """The model that is trained, and the teacher of a student.

    Returns
    -------
    PolicyModel, PolicyModel or None

    Raises
    ------
    InputError
        Data and checkpoint do not fit, or settings do not fit together.
    """
    if (config.objective == "consistency") != bool(config.teacher):
        raise InputError("--objective consistency and --teacher go together")
    source = config.teacher or config.start
    if source:
        model = load_policy(source, device=device)
        check_data(model.spec, episodes)
        if config.teacher:
            if model.spec.objective != "diffusion":
                raise InputError(f"the teacher was trained for {model.spec.objective}", path=config.teacher)
            student = student_of(model)
            student.spec = replace(model.spec, objective="consistency")
            return student, model
        model.spec = replace(model.spec, objective=config.objective)
        _check_streaming(model.spec)
        return model.train().requires_grad_(True), None
    spec = new_spec(config, episodes)
    _check_streaming(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.loop.seed)
        model = PolicyModel(spec, fitted_normalizer(spec, episodes, config.normalizer))
    model.spec = replace(spec, largest_moves=largest_moves(model, episodes))
    return model.to(device), None


def _check_streaming(spec: PolicySpec) -> None:
    """InputError where the policy shall be a streaming one and cannot."""
    chunks = chunk_count(spec.horizon, spec.first_action, spec.n_action_steps)
    if spec.objective == "streaming" and (spec.network != "unet" or spec.diffusion.steps % chunks):
        raise InputError(
            f"a streaming policy needs a U-Net, and {spec.diffusion.steps} levels for {chunks} chunks of a plan",
            remedy="Use --network unet, and --n-action-steps whose chunks divide --noise-steps.",
        )


def check_data(spec: PolicySpec, episodes: Episodes) -> None:
    """InputError where demonstrations do not fit a checkpoint."""
    if episodes.actions.shape[1] != spec.action_dim:
        found = f"the actions of {episodes.title or 'the data'} have {episodes.actions.shape[1]} numbers"
        raise InputError(f"{found}, those of the policy {spec.action_dim}")
    for entry in spec.observations:
        if entry.name not in episodes.observations:
            raise InputError(
                f"the data have no observation {entry.name!r}, which the policy sees",
                remedy=f"They have {', '.join(episodes.observations)}.",
            )
        shape = tuple(episodes.observations[entry.name].shape[1:])
        if shape != entry.shape:
            raise InputError(f"{entry.name!r} has shape {shape} in the data, {entry.shape} in the policy")

"""A policy's network, image encoders and normaliser in one module, and the three ways observations condition a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.schedule import VPSchedule
from priorscope.errors import InputError
from priorscope_robotics.lerobot_normalizer import LeRobotNormalizer
from priorscope_robotics.mask import lowdim_mask
from priorscope_robotics.networks.image_encoder import ImageEncoder
from priorscope_robotics.networks.transformer import TransformerForDiffusion
from priorscope_robotics.networks.unet1d import ConditionalUnet1D
from priorscope_robotics.noise_schedule import training_schedule
from priorscope_robotics.normalizer import LinearNormalizer, field_key
from priorscope_robotics.spec import Observation, PolicySpec

ACTION = "action"


class NotFinite(InputError):
    """An observation has NaN or infinite numbers.

    Attributes
    ----------
    environments : list of int
        Where in the batch.
    """

    def __init__(self, name: str, environments: list[int]) -> None:
        super().__init__(f"the observation {name!r} is not finite (environments {environments[:8]})")
        self.environments = environments


@dataclass(frozen=True)
class Given:
    """What observations say about plans of shape (B, T, D)."""

    condition: Condition
    """For the network."""
    values: torch.Tensor | None = None
    """Known entries, where ``mask``; (B, T, D)."""
    mask: torch.Tensor | None = None

    def known(self, x: torch.Tensor, _level: float = 0.0) -> torch.Tensor:
        """``x`` with what is known written over it, free of noise at every level, as the networks were trained."""
        if self.values is None or self.mask is None:
            return x
        return torch.where(self.mask, self.values, x)

    def select(self, index: torch.Tensor) -> Given:
        """For some of the plans."""
        values, mask = (None if part is None else part[index] for part in (self.values, self.mask))
        return Given(self.condition.select(index), values, mask)


class PolicyModel(nn.Module):
    """Everything with weights.

    Parameters
    ----------
    spec : PolicySpec
    normalizer : Module, optional
        A :class:`~priorscope_robotics.normalizer.LinearNormalizer` or
        :class:`~priorscope_robotics.lerobot_normalizer.LeRobotNormalizer`; one to be filled by default.
    """

    def __init__(self, spec: PolicySpec, normalizer: nn.Module | None = None) -> None:
        super().__init__()
        self.spec = spec.check()
        self.network = _network(spec)
        self.encoders = nn.ModuleDict()
        for entry in spec.images[:1] if spec.image.shared else spec.images:
            name = "shared" if spec.image.shared else field_key(entry.name)
            self.encoders[name] = _encoder(spec, entry)
        self.normalizer: Any = _empty_normalizer(spec) if normalizer is None else normalizer

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The network's."""
        return self.network(*args, **kwargs)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def schedule(self) -> VPSchedule:
        """The noise it was trained with; -1 is free of noise."""
        return training_schedule(self.spec.diffusion)

    def denoiser(self, schedule: VPSchedule | None = None) -> Denoiser:
        """The network as the solvers ask it; another schedule than its own only to reproduce what was published."""
        return Denoiser(self.network, schedule or self.schedule(), self.spec.diffusion.prediction_type)

    def normalized(self, observations: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Observations (B, >= n_obs_steps, ...) by name, checked, cut to the first ``n_obs_steps`` and normalised.

        Images are (B, T, C, H, W) in [0, 1], or uint8.

        Raises
        ------
        InputError
            One is missing, has another shape, or is not finite; the key is named.
        """
        found = {}
        for entry in self.spec.observations:
            if entry.name not in observations:
                raise InputError(
                    f"the observation {entry.name!r} is missing",
                    remedy=f"There are {', '.join(sorted(observations)) or 'none'}.",
                )
            value = observations[entry.name]
            if entry.first_half and value.shape[-1] == 2 * entry.shape[0]:
                value = value[..., : entry.shape[0]]
            if value.ndim != 2 + len(entry.shape) or tuple(value.shape[2:]) != entry.shape:
                raise InputError(
                    f"the observation {entry.name!r} has shape {tuple(value.shape[2:])}, the policy takes {entry.shape}"
                )
            if value.shape[1] < self.spec.n_obs_steps:
                raise InputError(
                    f"{value.shape[1]} steps of {entry.name!r}, but the policy sees {self.spec.n_obs_steps}"
                )
            value = value[:, : self.spec.n_obs_steps].to(self.device)
            value = value / 255 if entry.kind == "image" and value.dtype == torch.uint8 else value.float()
            if not bool(torch.isfinite(value).all()):
                bad = (~torch.isfinite(value)).flatten(1).any(1).nonzero().flatten().tolist()
                raise NotFinite(entry.name, bad)
            found[entry.name] = self.normalizer.normalize(entry.name, value)
        return found

    def features(self, normalized: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What :meth:`normalized` gave as (B, n_obs_steps, F), images encoded."""
        parts = []
        for entry in self.spec.observations:
            value = normalized[entry.name]
            if entry.kind == "image":
                encoder = self.encoders["shared" if self.spec.image.shared else field_key(entry.name)]
                value = encoder(value.flatten(0, 1)).unflatten(0, value.shape[:2])
            parts.append(value)
        return torch.cat(parts, -1)

    def given(self, features: torch.Tensor) -> Given:
        """How features (B, n_obs_steps, F) condition a plan."""
        spec = self.spec
        batch = len(features)
        if spec.conditioning == "global":
            return Given(Condition({"global_cond": features.flatten(1)}))
        if spec.conditioning == "memory":
            return Given(Condition({"cond": features}))
        padded = features.new_zeros(batch, spec.horizon, spec.feature_dim)
        padded[:, : spec.n_obs_steps] = features
        if spec.conditioning == "local":
            return Given(Condition({"local_cond": padded}))
        values = torch.cat([features.new_zeros(batch, spec.horizon, spec.action_dim), padded], -1)
        mask = lowdim_mask(tuple(values.shape), spec.action_dim, spec.feature_dim, spec.n_obs_steps)
        return Given(Condition(), values, mask.to(values.device))

    def actions(self, trajectory: torch.Tensor) -> torch.Tensor:
        """Actions (B, T, action_dim) in their unit, of a normalised trajectory."""
        return self.normalizer.unnormalize(ACTION, trajectory[..., : self.spec.action_dim])


def _network(spec: PolicySpec) -> nn.Module:
    settings: dict[str, Any] = dict(spec.network_settings)
    if spec.network == "transformer":
        return TransformerForDiffusion(
            spec.trajectory_dim,
            spec.trajectory_dim,
            spec.horizon,
            spec.n_obs_steps,
            spec.feature_dim if spec.conditioning == "memory" else 0,
            **settings,
        )
    return ConditionalUnet1D(
        spec.trajectory_dim,
        spec.n_obs_steps * spec.feature_dim if spec.conditioning == "global" else 0,
        spec.feature_dim if spec.conditioning == "local" else 0,
        **settings,
    )


def _encoder(spec: PolicySpec, entry: Observation) -> ImageEncoder:
    image = spec.image
    return ImageEncoder(
        entry.shape,  # type: ignore[arg-type]
        image.crop,
        features=image.features,
        keypoints=image.keypoints,
        random_crop=image.random_crop,
        norm=image.norm,
        centre=image.centre,
    )


def _empty_normalizer(spec: PolicySpec) -> nn.Module:
    if spec.normalizer == "linear":
        sizes = {entry.name: 1 if entry.kind == "image" else entry.shape[0] for entry in spec.observations}
        return LinearNormalizer.empty({**sizes, ACTION: spec.action_dim})
    shapes: dict[str, tuple[int, ...]] = {
        entry.name: (entry.shape[0], 1, 1) if entry.kind == "image" else entry.shape for entry in spec.observations
    }
    shapes[ACTION] = (spec.action_dim,)
    modes = {name: spec.normalizer_modes.get(name, "IDENTITY") for name in shapes}
    return LeRobotNormalizer.empty(modes, shapes, shifted=spec.normalizer == "lerobot-old")


def with_sizes(spec: PolicySpec, **changes: Any) -> PolicySpec:
    """``spec`` with other values, checked."""
    return replace(spec, **changes).check()

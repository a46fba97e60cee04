"""Learned mixtures of many taps at many noise levels: Diffusion Hyperfeatures and Readout Guidance."""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from priorscope.errors import InputError
from priorscope.features.bottleneck import Bottleneck


def stack_features(features: Sequence[Mapping[str, torch.Tensor]], size: tuple[int, int]) -> torch.Tensor:
    """What an :class:`AggregationNetwork` takes: all maps at one size, the taps of one step before the next's.

    Parameters
    ----------
    features : sequence of dict of str to Tensor (B, C_l, h_l, w_l)
        One dict a noise level, in the order of the network's steps; equal names in equal order.
    size : (height, width)
        Maps are resized to it bilinearly, pixel edges aligned.

    Returns
    -------
    Tensor (B, T sum(C_l), height, width)
    """
    if not features or any(list(step) != list(features[0]) for step in features):
        raise InputError("no features, or steps whose taps differ", remedy="Give one dict a step, of the same taps.")
    maps = [
        functional.interpolate(tap.float(), size, mode="bilinear", align_corners=False)
        for step in features
        for tap in step.values()
    ]
    return torch.cat(maps, dim=1)


class AggregationNetwork(nn.Module):
    """Project every tap to one width and sum them, with softmaxed weights over all noise levels and taps.

    Parameters
    ----------
    feature_dims : sequence of int
        Channels of each tap.
    steps : int
        Noise levels T; a tap's bottleneck is shared by all of them.
    projection_dim : int
        Width of the result.
    norm_groups : int
        Groups of every group norm.
    embedding : int, optional
        Width of the denoiser's time embedding (Readout: 1280), of which every bottleneck then takes its part.
    nested : bool
        Keys ``bottleneck_layers.3.0.conv1`` as Hyperfeatures has them; False: ``bottleneck_layers.3.conv1`` as
        Readout. As officially, the embedding reaches the bottlenecks only where they are not nested.
    outputs : int, optional
        Channels of a read-out head on top (conv3, SiLU, conv3, SiLU, conv1); None: the features themselves.
    bounded : bool
        The head ends in a tanh.

    Source: Luo et al. 2023 (Diffusion Hyperfeatures), Luo et al. 2024 (Readout Guidance); state-dict names are
    those of g-luo/diffusion-hyperfeatures and google-research/readout_guidance.
    """

    def __init__(
        self,
        feature_dims: Sequence[int],
        steps: int = 1,
        *,
        projection_dim: int = 384,
        norm_groups: int = 32,
        embedding: int | None = None,
        nested: bool = True,
        outputs: int | None = None,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        if not feature_dims or steps < 1 or min(feature_dims) < 1:
            raise InputError(f"taps of {list(feature_dims)} channels at {steps} noise levels")
        self.feature_dims = tuple(feature_dims)
        self.steps = steps
        self.nested = nested
        layers = [Bottleneck(width, projection_dim, norm_groups, embedding) for width in feature_dims]
        self.bottleneck_layers = nn.ModuleList([nn.Sequential(layer) for layer in layers] if nested else layers)
        self.mixing_weights = nn.Parameter(torch.ones(steps * len(feature_dims)))
        self.output_head: nn.Sequential | None = None
        if outputs is not None:
            head: list[nn.Module] = [nn.Conv2d(projection_dim, 128, 3, padding=1), nn.SiLU()]
            head += [nn.Conv2d(128, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, outputs, 1)]
            self.output_head = nn.Sequential(*head, *([nn.Tanh()] if bounded else []))

    def shares(self) -> torch.Tensor:
        """How much each tap at each noise level counts: (T, L), sum 1."""
        return self.mixing_weights.softmax(0).unflatten(0, (self.steps, -1))

    def forward(self, x: torch.Tensor, embedding: torch.Tensor | None = None) -> torch.Tensor:
        """Aggregate ``x`` (B, T sum(C_l), h, w) from :func:`stack_features` to (B, projection_dim or outputs, h, w).

        ``embedding`` (B, E) is the denoiser's time embedding, for networks that take one.
        """
        if x.ndim != 4 or x.shape[1] != self.steps * sum(self.feature_dims):
            raise InputError(
                f"features of shape {tuple(x.shape)}, where {self.steps} steps of {sum(self.feature_dims)} channels"
                " are mixed"
            )
        # all steps through a tap's bottleneck at once: group norms are per image, so this changes nothing
        by_step = x.unflatten(1, (self.steps, -1)).transpose(0, 1).flatten(0, 1)
        repeated = None if embedding is None or self.nested else embedding.repeat(self.steps, 1)
        shares = self.shares()
        mixed: torch.Tensor | None = None
        for index, tap in enumerate(by_step.split(self.feature_dims, dim=1)):
            layer = self.bottleneck_layers[index]
            projected = layer(tap) if self.nested else layer(tap, repeated)
            part = torch.tensordot(shares[:, index], projected.unflatten(0, (self.steps, -1)), dims=1)
            mixed = part if mixed is None else mixed + part
        assert mixed is not None
        return mixed if self.output_head is None else self.output_head(mixed)


def symmetric_match_loss(
    first: torch.Tensor,
    second: torch.Tensor,
    first_index: torch.Tensor,
    second_index: torch.Tensor,
    logit_scale: float | torch.Tensor = 1 / 0.07,
) -> torch.Tensor:
    """Hyperfeatures' training loss: each key point must find its partner among all positions, both ways.

    Parameters
    ----------
    first, second : Tensor (C, h, w)
        Aggregated features of the two images.
    first_index, second_index : Tensor (N,), int64
        Row-major positions of the key points in either map.
    logit_scale : float or Tensor
        Factor on cosines before the softmax; officially learned, from 1 / 0.07.

    Returns
    -------
    Tensor ()
        Mean cross entropy of both directions.
    """
    rows = [functional.normalize(maps.flatten(1).T, dim=1) for maps in (first, second)]
    logits = logit_scale * rows[0] @ rows[1].T
    there = functional.cross_entropy(logits[first_index], second_index)
    back = functional.cross_entropy(logits.T[second_index], first_index)
    return (there + back) / 2


def load_aggregation(
    path: str | Path, *, norm_groups: int = 32, bounded: bool = True
) -> tuple[AggregationNetwork, dict[str, Any]]:
    """Load a published aggregation network or read-out head, whose shape is read off its tensors.

    Parameters
    ----------
    path : path
        A ``torch.save`` file, either of a dict with ``aggregation_network`` (and ``config``) or of a state dict.
        It is read with ``weights_only=True``.
    norm_groups : int
        Where the file's config does not state ``num_norm_groups``.
    bounded : bool
        Whether a read-out head ends in a tanh, where the config does not state ``output_head_act``.

    Returns
    -------
    network : AggregationNetwork
        In evaluation mode, float32, on the CPU.
    config : dict
        The file's config as it stands, else empty: ``save_timestep`` names the noise levels, for instance.
    """
    path = Path(path)
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", path=path, remedy="Check the path.") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InputError(
            f"is not a checkpoint of tensors ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            path=path,
            remedy="Use a file that torch.load(weights_only=True) reads.",
        ) from error
    config = dict(stored.get("config") or {}) if isinstance(stored, Mapping) else {}
    state = stored.get("aggregation_network", stored) if isinstance(stored, Mapping) else None
    settings = {**config, **(config.get("aggregation_kwargs") or {})}
    try:
        assert isinstance(state, Mapping)
        network = _empty_like(
            state,
            norm_groups=int(settings.get("num_norm_groups", norm_groups)),
            bounded=bool(settings.get("output_head_act", bounded)),
        )
        network.load_state_dict(dict(state))
    except (AssertionError, KeyError, AttributeError, RuntimeError, ValueError) as error:
        raise InputError(
            f"holds no aggregation network: {' '.join(str(error).split())[:300] or 'no state dict'}", path=path
        ) from error
    return network.eval(), config


def _empty_like(state: Mapping[str, torch.Tensor], *, norm_groups: int, bounded: bool) -> AggregationNetwork:
    nested = "bottleneck_layers.0.0.conv1.weight" in state
    middle = ".0." if nested else "."
    pattern = re.compile(r"bottleneck_layers\.(\d+)\." + ("0" + r"\." if nested else "") + r"conv1\.weight")
    found = {int(match[1]): value.shape[1] for key, value in state.items() if (match := pattern.fullmatch(key))}
    widths = [found[index] for index in range(len(found))]
    steps = state["mixing_weights"].numel() / max(len(widths), 1)
    if not widths or not math.isclose(steps, round(steps)):
        raise ValueError(f"{state['mixing_weights'].numel()} mixing weights for {len(widths)} taps")
    first = f"bottleneck_layers.0{middle}"
    embedding = state.get(f"{first}emb_layers.weight")
    head = state.get("output_head.4.weight")
    return AggregationNetwork(
        widths,
        round(steps),
        projection_dim=state[f"{first}conv3.weight"].shape[0],
        norm_groups=norm_groups,
        embedding=None if embedding is None else embedding.shape[1],
        nested=nested,
        outputs=None if head is None else head.shape[0],
        bounded=bounded,
    )

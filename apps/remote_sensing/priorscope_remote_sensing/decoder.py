"""What every SatDiFuser decoder shares: its settings, the features it takes, and fuse-then-decode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from priorscope.errors import InputError

FuserName = Literal["gw", "lw", "moe"]
HeadName = Literal["classification", "segmentation"]

#: Feature maps by save step, each a list of scales (B, C_s, h_s, w_s), the widest first.
Features = Mapping[int, Sequence[torch.Tensor]]

#: Channels of SatDiFuser's 21 taps in a Stable-Diffusion-sized U-Net, by scale: 1/8, 1/16, 1/32 and 1/64.
SD_TAPS = ((320,) * 6, (640,) * 6, (1280,) * 6, (1280,) * 3)


@dataclass(frozen=True)
class DecoderConfig:
    """Settings of a decoder.

    Parameters
    ----------
    fuser : {"gw", "lw", "moe"}
        One weight a tap for all positions, weights that differ by position, or experts chosen by image.
    head : {"classification", "segmentation"}
        Multi-label classification has the head of classification.
    num_classes : int
    taps : tuple of tuple of int
        Channels of each tap, by scale, the widest map first.
    save_steps : tuple of int
        Keys of the features: the step of the inversion at which they were taken, 49 the cleanest of 50.
    projection_dim : int
        Width of the fused maps.
    norm_groups, res_blocks : int
        Of the bottlenecks.
    temperature : float
        Of the gates of "lw".
    first_tap_only : bool
        Of "lw", for parity and for weights trained by the official code: it shows the channels of a scale's first
        tap to all bottlenecks of that scale, and never the other taps.
    experts, top_k : int
        Of "moe": experts a scale, and how many an image goes through after the warm-up.
    warmup_steps : int
        Of "moe": updates during which every image goes through all experts.
    channels, pool_scales, dropout
        Of the segmentation head.
    """

    fuser: FuserName
    head: HeadName
    num_classes: int
    taps: tuple[tuple[int, ...], ...] = SD_TAPS
    save_steps: tuple[int, ...] = (47, 45, 40)
    projection_dim: int = 384
    norm_groups: int = 32
    res_blocks: int = 1
    temperature: float = 1.0
    first_tap_only: bool = False
    experts: int = 8
    top_k: int = 2
    warmup_steps: int = 100
    channels: int = 512
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.fuser not in ("gw", "lw", "moe"):
            raise InputError(f"fuser {self.fuser!r}", remedy="Use 'gw', 'lw' or 'moe'.")
        if self.head not in ("classification", "segmentation"):
            raise InputError(f"head {self.head!r}", remedy="Use 'classification' or 'segmentation'.")
        if self.num_classes < 1 or not self.save_steps or not self.taps or not all(self.taps):
            raise InputError("a decoder needs classes, save steps and at least one tap a scale")
        if len(set(self.save_steps)) != len(self.save_steps):
            raise InputError(f"save steps {self.save_steps} repeat themselves")
        counts = ("norm_groups", "res_blocks", "channels", "projection_dim")
        if wrong := [name for name in counts if getattr(self, name) < 1]:
            raise InputError(f"{wrong[0]} {getattr(self, wrong[0])} is not positive")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout {self.dropout} is not in [0, 1)")
        if min(self.pool_scales, default=1) < 1:
            raise InputError(f"pool_scales {self.pool_scales} are not positive")
        if self.projection_dim % (4 * self.norm_groups):
            raise InputError(
                f"projection_dim {self.projection_dim} is no multiple of 4 x {self.norm_groups} norm groups"
            )
        if not 1 <= self.top_k <= self.experts:
            raise InputError(f"top_k {self.top_k} of {self.experts} experts")
        if self.first_tap_only and (self.fuser != "lw" or any(len(set(scale)) > 1 for scale in self.taps)):
            raise InputError("first_tap_only is for 'lw', and for scales whose taps are equally wide")
        if not self.temperature > 0:
            raise InputError(f"temperature {self.temperature} is not positive")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> DecoderConfig:
        """From JSON; unknown or ill-typed entries are an InputError."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(content) - known):
            raise InputError(f"unknown settings of a decoder: {', '.join(unknown)}")
        try:
            values = dict(content)
            for name in ("save_steps", "pool_scales"):
                if name in values:
                    values[name] = tuple(int(value) for value in values[name])
            if "taps" in values:
                values["taps"] = tuple(tuple(int(width) for width in scale) for scale in values["taps"])
            return cls(**values)
        except TypeError as error:
            raise InputError(f"settings of a decoder: {error}") from None


class Fused(NamedTuple):
    """What a fuser gives."""

    maps: list[torch.Tensor]
    """One map a scale, (B, projection_dim, h_s, w_s), the widest first."""
    gates: list[torch.Tensor]
    """How the taps were mixed: "gw" one vector (T * taps), softmaxed; "lw" a map (B, T * taps, h_s, w_s) a scale;
    "moe" probabilities (T, B, experts) a scale, before any expert is dropped."""


class Decoder(nn.Module):
    """Features of a frozen diffusion model in, class logits out.

    Parameters
    ----------
    config : DecoderConfig

    Notes
    -----
    Fusers and heads derive from it and are combined in :mod:`priorscope_remote_sensing.models`, since the keys
    of published weights have no prefix that tells them apart.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        #: Cleanest first: this order is part of the meaning of published weights.
        self.steps = sorted(config.save_steps, reverse=True)

    def fuse(self, features: Features) -> Fused:
        """Fused maps and how they were mixed."""
        raise NotImplementedError

    def decode(self, maps: Sequence[torch.Tensor], size: tuple[int, int] | None = None) -> torch.Tensor:
        """Logits of fused maps: (B, classes), or (B, classes, \\*size) for segmentation."""
        raise NotImplementedError

    def forward(self, features: Features, size: tuple[int, int] | None = None) -> torch.Tensor:
        """Logits.

        Parameters
        ----------
        features : dict of save step to list of Tensor (B, C_s, h_s, w_s)
            Scales widest first, the taps of a scale concatenated along channels. Any sizes, square or not.
        size : (int, int), optional
            Height and width of a segmentation's logits; default: the widest feature map's.

        Returns
        -------
        Tensor (B, classes) or (B, classes, H, W)
        """
        return self.decode(self.fuse(features).maps, size)

    def stacked(self, features: Features) -> list[torch.Tensor]:
        """Features of each scale, (T * B, C_s, h_s, w_s) float32, the cleanest step first; checked."""
        missing = [step for step in self.steps if step not in features]
        if missing:
            raise InputError(f"no features of save steps {missing}", remedy=f"There are {sorted(features)}.")
        widths = [sum(scale) for scale in self.config.taps]
        first = features[self.steps[0]]
        for step in self.steps:
            scales = features[step]
            if [map.shape[1] if map.ndim == 4 else -1 for map in scales] != widths:
                raise InputError(
                    f"features of step {step} have shapes {[tuple(map.shape) for map in scales]}; "
                    f"expected (B, C, h, w) with C = {widths}",
                    remedy="Are they of the backbone that this decoder was made for?",
                )
            if any(map.shape != other.shape for map, other in zip(scales, first, strict=True)):
                raise InputError(f"features of steps {self.steps[0]} and {step} differ in shape")
        # taps of a frozen backbone come in half precision; group norms want more
        return [torch.cat([features[step][scale].float() for step in self.steps]) for scale in range(len(widths))]

"""What a DiffPose model is: everything that its weights do not say. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from priorscope.errors import InputError
from priorscope_pose.skeletons import skeleton

Backbone = Literal["conv", "vitpose", "vit"]
CodecName = Literal["msra", "dark", "udp"]
ScheduleName = Literal["cosine", "linear"]
Interaction = Literal["lookup", "concat"]

#: A cell of the feature map, in pixels of the crop: the paper's features have a quarter of the heatmap's side.
STRIDE = 16


@dataclass(frozen=True)
class DiffPoseSpec:
    """Settings of a model; numbers that the paper does not give are ours.

    The paper (as far as known) fixes: 2d + 1 frames with the same box, features of a fourth of the heatmap's side,
    L pre-norm layers of constant width, three scales, x0 prediction, squared error of heatmaps.
    """

    skeleton: str = "posetrack"
    """Name of the keypoints and their order (:mod:`priorscope_pose.skeletons`)."""
    distance: int = 2
    """d: frames before and after the key frame. 0 is the single-frame version of the same network."""
    input_size: tuple[int, int] = (192, 256)
    """Width and height of a crop, in pixels; multiples of 16."""
    padding: float = 1.25
    """Factor on the box; one box crops all frames."""
    codec: CodecName = "msra"
    """Heatmaps of the DCPose lineage (whole-pixel centres, quarter offset); dark and udp have sub-pixel centres."""
    sigma: float = 2.0
    """Of the Gaussians, in heatmap pixels."""
    backbone: Backbone = "vitpose"
    """Frame encoder: conv (small, ours), or transformers' VitPoseBackbone or ViTModel."""
    backbone_settings: dict[str, Any] = field(default_factory=dict)
    """For conv: ``widths``; else the changes to transformers' configuration."""
    width: int = 384
    """Of the tokens of the spatio-temporal layers (ours)."""
    layers: int = 4
    """L, spatio-temporal layers (ours)."""
    heads: int = 6
    """Attention heads (ours)."""
    decoder_width: int = 128
    """Channels of the pose decoder (ours)."""
    decoder_heads: int = 4
    """Attention heads of the decoder's coarsest scale (ours)."""
    interaction: Interaction = "lookup"
    """How noisy heatmaps meet features; concat is the plain way, which the paper reports to work badly."""
    schedule: ScheduleName = "cosine"
    """Noise schedule: cosine, or DDPM's linear 1e-4 ... 0.02 (ours: the paper says "as DDPM")."""
    noise_steps: int = 1000
    """T (ours)."""
    scale: float = 1.0
    """s: heatmaps h in [0, 1] are diffused as (2 h - 1) s (ours, as DiffusionDet).

    A joint's Gaussian covers many pixels that all tell of it, so at s = 1 it shows through the noise of most levels,
    and the network can learn to clean heatmaps without looking at the frames; a smaller s leaves fewer such levels.
    """
    clamp_input: bool = True
    """Cut noisy heatmaps to [-s, s] before the network sees them (ours, as DiffusionDet)."""
    clamp_output: bool = True
    """Cut the estimate of x0 to [-s, s] while sampling (ours, as DiffusionDet)."""

    @property
    def keypoints(self) -> int:
        """K, heatmaps a person."""
        return len(skeleton(self.skeleton))

    @property
    def frames(self) -> int:
        """2 d + 1."""
        return 2 * self.distance + 1

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """Width and height of a heatmap: a quarter of the crop."""
        return self.input_size[0] // 4, self.input_size[1] // 4

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the feature map."""
        return self.input_size[1] // STRIDE, self.input_size[0] // STRIDE

    def single_frame(self) -> DiffPoseSpec:
        """The same network for one frame."""
        return replace(self, distance=0)

    def check(self) -> DiffPoseSpec:
        """Refuse settings that make no sense (InputError)."""
        choices = {
            "codec": ("msra", "dark", "udp"),
            "backbone": ("conv", "vitpose", "vit"),
            "interaction": ("lookup", "concat"),
            "schedule": ("cosine", "linear"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} {getattr(self, name)!r}", remedy=f"Use one of {', '.join(allowed)}.")
        skeleton(self.skeleton)
        for name in ("width", "heads", "decoder_width", "decoder_heads", "noise_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}", remedy="Use 1 or more.")
        for name in ("distance", "layers"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} {getattr(self, name)}", remedy="Use 0 or more.")
        for name in ("padding", "sigma", "scale"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} {getattr(self, name)}", remedy="Use a number above 0.")
        if any(side < STRIDE or side % STRIDE for side in self.input_size):
            raise InputError(f"crops of {self.input_size} pixels", remedy=f"Use multiples of {STRIDE}.")
        if self.width % self.heads or self.decoder_width % self.decoder_heads:
            raise InputError(
                f"widths {self.width} and {self.decoder_width} for {self.heads} and {self.decoder_heads} heads",
                remedy="Use widths that the heads divide.",
            )
        return self


#: ``mini`` is trained here on a CPU; ``base`` and ``large`` are the paper's sizes on a pretrained ViT.
PRESETS: dict[str, DiffPoseSpec] = {
    "mini": DiffPoseSpec(
        input_size=(96, 128),
        codec="udp",
        sigma=1.5,
        backbone="conv",
        backbone_settings={"widths": [16, 32, 80, 128]},
        width=128,
        layers=3,
        heads=4,
        decoder_width=48,
        scale=0.3,
    ),
    "base": DiffPoseSpec(),
    "large": DiffPoseSpec(
        input_size=(288, 384),
        sigma=3.0,
        backbone="vit",
        backbone_settings={
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
        width=512,
        layers=4,
        heads=8,
        decoder_width=192,
    ),
}

"""What a detector is: everything that its weights do not say. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import prod
from operator import mul
from typing import Literal

from priorscope.errors import InputError

FusionName = Literal["none", "late", "early", "max", "attention", "v2x", "codiff"]
FUSIONS: tuple[FusionName, ...] = ("none", "late", "early", "max", "attention", "v2x", "codiff")
Start = Literal["noise", "coarse"]
Stage = Literal["detector", "codec", "diffusion", "finetune", "joint"]
#: More blocks of a stage and the like, or wider layers, are taken for a mistake.
_MOST, _WIDEST = 1024, 1 << 16
#: Those that learn, by the boxes too, from whole runs of CoDiff's own.
RUN_STAGES: tuple[Stage, ...] = ("finetune", "joint")


@dataclass(frozen=True)
class CoDiffSpec:
    """The codec of bird's-eye-view features and the diffusion in its latent; all sizes are free."""

    latent: int = 8
    """Channels of the latent."""
    width: int = 64
    """Channels of the denoiser's first level."""
    multiples: tuple[int, ...] = (1, 2, 2)
    """Width of each level over ``width``; each level after the first halves the map."""
    blocks: int = 1
    """Residual blocks of a level."""
    heads: int = 4
    """Of the attention over agents."""
    prediction: Literal["sample", "v", "epsilon", "flow"] = "sample"
    """What the denoiser puts out."""
    noise_steps: int = 1000
    """Steps of the cosine noise schedule."""
    start: Start = "coarse"
    """Where a run starts unless told otherwise: from noise, or late, from the coarse fused feature."""
    start_level: float = 0.5
    """Of a run that starts from the coarse feature: its first level, as a part of the way from clean (0) to noise."""
    steps: int = 4
    """Solver steps unless told otherwise."""
    blend: float = 0.5
    """Share of the coarse feature in what the heads see (0.5 as published; the rest is the decoded latent)."""
    drop_agent: float = 0.2
    """Chance that another agent than the ego vehicle is left out of the condition in training."""
    drop_coarse: float = 0.1
    """Chance that the coarse feature is left out of the condition in training."""


@dataclass(frozen=True)
class DetectorSpec:
    """Sizes, range and fusion of a detector. The defaults are CoAlign's for OPV2V."""

    extent: tuple[float, float, float, float, float, float] = (-140.8, -40.0, -3.0, 140.8, 40.0, 1.0)
    """x, y, z of the lower and the upper corner of the range, in metres, in the ego vehicle's LiDAR frame."""
    cell: tuple[float, float, float] = (0.4, 0.4, 4.0)
    """Size of a pillar, in metres."""
    max_points: int = 32
    """Points of a pillar that count."""
    max_pillars: int = 70_000
    """Pillars of a sweep that count."""
    pillar_filters: tuple[int, ...] = (64,)
    """Widths of the pillar feature network."""
    use_norm: bool = True
    """Whether that network has batch norms."""
    use_absolute_xyz: bool = True
    """Whether it is given x, y, z themselves."""
    with_distance: bool = False
    """Whether it is given the distance from the sensor."""
    layers: tuple[int, ...] = (3, 5, 8)
    """Residual blocks of each stage."""
    strides: tuple[int, ...] = (2, 2, 2)
    """Stride of each stage's first block."""
    filters: tuple[int, ...] = (64, 128, 256)
    """Width of each stage."""
    up_strides: tuple[int, ...] = (1, 2, 4)
    """Factor by which each stage is brought back to the common size."""
    up_filters: tuple[int, ...] = (128, 128, 128)
    """Width of each stage there."""
    shrink: int = 256
    """Width of what the heads see; 0 leaves out the two convolutions before them."""
    anchors: int = 2
    """Anchors of a cell of the heads' map."""
    direction_bins: int = 2
    """Bins of the heading; 0 leaves out that head."""
    fusion: FusionName = "attention"
    """How agents are brought together."""
    attend: Literal["covered", "published"] = "covered"
    """Attention over agents: only over those whose map covers the cell, or, as published, over all."""
    v2x_heads: int = 4
    """Attention heads of the V2X-style fusion."""
    v2x_windows: tuple[int, ...] = (2, 4)
    """Sides of its windows, in cells."""
    codiff: CoDiffSpec = field(default_factory=CoDiffSpec)
    """Of the fusion ``codiff``."""
    classes: tuple[str, ...] = ("vehicle",)
    """Names of what is found."""

    @property
    def size(self) -> tuple[int, int]:
        """Cells of the pillars' map along x and y."""
        return tuple(round((self.extent[a + 3] - self.extent[a]) / self.cell[a]) for a in (0, 1))  # type: ignore[return-value]

    @property
    def total_stride(self) -> int:
        """Cells of the pillars' map in a cell of the last stage."""
        return prod(self.strides)

    @property
    def head_stride(self) -> int:
        """Cells of the pillars' map in a cell of the heads' map."""
        return self.strides[0] // self.up_strides[0]

    @property
    def head_size(self) -> tuple[int, int]:
        """Cells of the heads' map along x and y."""
        return self.size[0] // self.head_stride, self.size[1] // self.head_stride

    @property
    def message_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Maps (C, H, W) that an agent sends; none where it sends points or boxes, or nothing.

        At the widths of the network; an encoder between agents (``bandwidth``'s compression) is not counted.
        """
        width, height = self.size
        feature = (self.feature_width, self.head_size[1], self.head_size[0])
        if self.fusion == "v2x":
            return (feature,)
        if self.fusion not in ("max", "attention", "codiff"):
            return ()
        totals = accumulate(self.strides, mul)
        shapes = [(channels, height // by, width // by) for channels, by in zip(self.filters, totals, strict=True)]
        if self.fusion == "codiff":
            shapes.append((self.codiff.latent, *feature[1:]))
        return tuple(shapes)

    @property
    def feature_width(self) -> int:
        """Channels of what the heads see."""
        return self.shrink or sum(self.up_filters)

    def check(self) -> DetectorSpec:
        """Refuse settings that make no sense (InputError); the range is checked by its grid."""
        stages, codiff = len(self.layers), self.codiff
        if not stages or any(len(v) != stages for v in (self.strides, self.filters, self.up_strides, self.up_filters)):
            raise InputError(
                f"stages of {self.layers} blocks with strides {self.strides}, filters {self.filters}, "
                f"up strides {self.up_strides}, up filters {self.up_filters}",
                remedy="Give one number a stage.",
            )
        counts = (*self.layers, *self.strides, *self.up_strides, self.anchors, self.v2x_heads, *self.v2x_windows)
        counts += (codiff.blocks, codiff.heads, *codiff.multiples)
        widths = (*self.filters, *self.up_filters, *self.pillar_filters, codiff.latent, codiff.width)
        numbers = (*counts, *widths, self.max_points, self.max_pillars, codiff.noise_steps, codiff.steps)
        smallest = min(*numbers, self.shrink + 1, self.direction_bins + 1, len(self.pillar_filters))
        if smallest < 1:
            raise InputError(f"a network with a size of {smallest}", remedy="Use sizes of 1 or more.")
        for sizes, most in (((*counts, self.direction_bins), _MOST), ((*widths, self.shrink), _WIDEST)):
            if max(sizes) > most:
                raise InputError(f"a network with a size of {max(sizes)}", remedy=f"Use at most {most} there.")
        if codiff.noise_steps > _WIDEST:
            raise InputError(f"a diffusion of {codiff.noise_steps} noise steps", remedy=f"Use at most {_WIDEST}.")
        for total, up in zip(accumulate(self.strides, mul), self.up_strides, strict=True):
            if total != up * self.head_stride or self.strides[0] % self.up_strides[0]:
                raise InputError(
                    f"strides {self.strides} brought up by {self.up_strides} do not give maps of one size",
                    remedy="With strides 2, 2, 2 use up strides 1, 2, 4.",
                )
        if self.fusion not in FUSIONS:
            raise InputError(f"fusion {self.fusion!r}", remedy=f"Use one of {', '.join(FUSIONS)}.")
        if self.attend not in ("covered", "published"):
            raise InputError(f"attend {self.attend!r}", remedy="Use 'covered' or 'published'.")
        if self.fusion == "v2x" and (not self.v2x_windows or self.feature_width % self.v2x_heads):
            raise InputError(
                f"{self.v2x_heads} heads on {self.feature_width} channels in windows of {self.v2x_windows} cells",
                remedy="Use heads that divide the channels, and a window at least.",
            )
        if codiff.width % codiff.heads or not codiff.multiples:
            raise InputError(
                f"width {codiff.width} for {codiff.heads} heads and levels {codiff.multiples}",
                remedy="Use a width that the heads divide, and at least one level.",
            )
        if codiff.start not in ("noise", "coarse") or not 0 < codiff.start_level <= 1 or not 0 <= codiff.blend <= 1:
            raise InputError(f"a run from {codiff.start!r} at level {codiff.start_level} with blend {codiff.blend}")
        if not (0 <= codiff.drop_agent < 1 and 0 <= codiff.drop_coarse < 1):
            raise InputError(f"chances {codiff.drop_agent} and {codiff.drop_coarse}", remedy="Use 0 ... 1.")
        return self


_MINI = DetectorSpec(
    extent=(-51.2, -25.6, -3.0, 51.2, 25.6, 1.0),
    cell=(0.8, 0.8, 4.0),
    max_points=16,
    max_pillars=8192,
    pillar_filters=(24,),
    layers=(1, 1, 1),
    filters=(24, 40, 64),
    up_filters=(24, 24, 24),
    shrink=40,
    codiff=CoDiffSpec(latent=8, width=24, multiples=(1, 1, 2), heads=4),
)

#: Detectors by name. ``tiny`` is for tests; ``micro`` (the bundled model's) learns on a CPU in a quarter of an hour;
#: ``mini`` and ``small`` can be trained on a CPU, ``medium`` wants a GPU;
#: ``opv2v`` and ``dair`` have the sizes of CoAlign's and CoDiff's published configurations.
SIZES: dict[str, DetectorSpec] = {
    "tiny": replace(
        _MINI,
        extent=(-12.8, -6.4, -3.0, 12.8, 6.4, 1.0),
        pillar_filters=(8,),
        filters=(8, 8, 8),
        up_filters=(8, 8, 8),
        shrink=16,
        codiff=CoDiffSpec(latent=4, width=8, multiples=(1, 2), heads=2),
    ),
    "micro": replace(
        _MINI,
        extent=(-25.6, -25.6, -3.0, 25.6, 25.6, 1.0),
        cell=(0.64, 0.64, 4.0),
        max_points=8,
        max_pillars=4096,
        pillar_filters=(16,),
        filters=(16, 32, 48),
        up_filters=(16, 16, 16),
        shrink=32,
    ),
    "mini": _MINI,
    "small": replace(
        _MINI,
        cell=(0.4, 0.4, 4.0),
        max_pillars=20_000,
        pillar_filters=(32,),
        layers=(1, 2, 2),
        filters=(32, 48, 64),
        up_filters=(32, 32, 32),
        shrink=48,
        codiff=CoDiffSpec(latent=8, width=32, multiples=(1, 1, 2), heads=4),
    ),
    "medium": replace(
        _MINI,
        extent=(-102.4, -38.4, -3.0, 102.4, 38.4, 1.0),
        cell=(0.4, 0.4, 4.0),
        max_points=32,
        max_pillars=40_000,
        pillar_filters=(64,),
        layers=(2, 3, 3),
        filters=(64, 96, 128),
        up_filters=(64, 64, 64),
        shrink=128,
        codiff=CoDiffSpec(latent=16, width=64, multiples=(1, 2, 3), heads=4, blocks=2),
    ),
    "opv2v": DetectorSpec(codiff=CoDiffSpec(width=96, multiples=(1, 2, 4), blocks=2)),
    "dair": DetectorSpec(
        extent=(-100.8, -40.0, -3.5, 100.8, 40.0, 1.5),
        cell=(0.4, 0.4, 5.0),
        codiff=CoDiffSpec(width=96, multiples=(1, 2, 4), blocks=2),
    ),
}

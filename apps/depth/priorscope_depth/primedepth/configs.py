"""What the training of a PrimeDepth-like model can be told. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from priorscope.training.settings import LoopConfig


@dataclass(frozen=True)
class TrainPrimeDepthConfig:
    """Train PrimeDepth's decoder and head on a frozen network: first to rebuild pictures, then to paint depth.

    That order is the paper's; the losses, the steps and what is cached are ours: its training code is not published.
    """

    out: Path = Path("runs/primedepth")
    """Run folder; the model is out/model."""
    backbone: str = "tiny-depth"
    """What is frozen and looked into: Stable Diffusion 2 in diffusers' layout (hub id or folder), or a depth model
    whose U-Net takes one latent (tiny-depth, Lotus-D). tiny-depth has been shown depth before."""
    pairs: Path | None = None
    """Folder of images with depth, as of `train`; default: drawn scenes."""
    depth_scale: float = 0.001
    """Metres a unit of 16-bit PNG depth in --pairs."""
    scenes: int = 400
    """Drawn scenes, where there are no --pairs."""
    labelled: int = 0
    """Pictures whose depth is used; the others only help to rebuild. 0: all."""
    pretrain: int = 500
    """Steps of the rebuilding that come first; --steps counts them too."""
    height: int = 96
    """Of the pictures while training, pixels."""
    width: int = 128
    """Likewise."""
    views: int = 2
    """Random views of each picture; they stay the same, so that their preimages can be kept."""
    cache_mb: int = 4000
    """Memory for preimages (float16); those beyond it are computed each time."""
    ratio: float = 0.5
    """Width of the decoder against the frozen network's."""
    held_out: int = 16
    """Pictures to look at only."""
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopConfig(steps=2500, batch_size=8, lr=1e-3)
    )

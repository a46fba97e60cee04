"""What the edge commands can be told. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from priorscope.training.settings import LoopConfig

EdgeFormat = Literal["png", "npy"]


@dataclass(frozen=True)
class EdgesConfig:
    """Crisp edges of images and folders of images, by latent diffusion in a few steps (DiffusionEdge)."""

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """Images and folders (searched with their sub-folders)."""
    model: Path = Path("runs/edges/diffusion/model")
    """Model folder, as `train-edges` leaves it in OUT/diffusion. DiffusionEdge's published checkpoints are not read."""
    out: Path = Path("out")
    """Folder for the results; made where missing."""
    formats: tuple[EdgeFormat, ...] = ("png", "npy")
    """What to write: png (8 bit, white edges on black), npy (float32 in [0, 1])."""
    steps: int = 5
    """Steps of the diffusion; a last short one is added, as published."""
    tile: int = 320
    """Images larger than this are predicted in tiles of this many pixels; 0: whole."""
    overlap: int = 80
    """Least overlap of the tiles, in pixels."""
    blend: Literal["feather", "count"] = "feather"
    """Blend tiles gradually, or by their plain mean as published."""
    ensemble: int = 1
    """Predictions an image, averaged: less noise, lines that are less crisp."""
    crest: bool = False
    """Write non-maximum-suppressed maps: lines of one pixel."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto is bfloat16 on a GPU and float32 on the CPU."""
    seed: int = 0
    """Fixes every result; an image's noise derives from it and the image's name."""
    batch_size: int = 4
    """Tiles a call."""
    overwrite: bool = False
    """Replace results that are there already."""


@dataclass(frozen=True)
class TrainEdgesConfig:
    """Train an edge model on drawn scenes with exact edges, or on your own images with edge maps."""

    out: Path = Path("runs/edges")
    """Run folder: autoencoder/ and diffusion/ are the two trainings, diffusion/model is what `edges` takes."""
    pairs: Path | None = None
    """Folder with images/NAME.jpg and edges/NAME.png (white on black) of equal names; default: drawn scenes."""
    scenes: int = 1000
    """Drawn scenes to learn from."""
    held_out: int = 16
    """Scenes or pairs to look at only."""
    data: Path | None = None
    """Folder of the drawn scenes, kept for other runs; default: out/data."""
    height: int = 192
    """Of drawn scenes, pixels."""
    width: int = 256
    """Of drawn scenes, pixels."""
    crop: int = 96
    """Side of the squares that are trained on, pixels; a multiple of 16."""
    channels: int = 3
    """Of the latent; the published autoencoder has 3."""
    autoencoder_steps: int = 1000
    """Optimiser steps of the autoencoder, which comes first and otherwise trains as the loop says."""
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopConfig(steps=4000, batch_size=16, lr=1e-3)
    )

"""What the sensor commands can be told. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from priorscope.training.settings import LoopConfig

SensorFormat = Literal["png", "npy", "npz", "colour"]
Method = Literal["sampled", "one-step", "one-step-mean"]


@dataclass(frozen=True)
class SensorConfig:
    """What a depth sensor would report for exact depth maps: its noise, its steps, its holes."""

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """Exact depth maps (npy, npz, exr, tiff in metres; 16-bit png) and folders of them."""
    model: Path | None = None
    """Model folder of `train-sensor`. Default: the hand-made model of a structured-light sensor, which needs no
    weights. Stable-Sim2Real's published weights are not read."""
    out: Path = Path("out")
    """Folder for the results; made where missing."""
    formats: tuple[SensorFormat, ...] = ("png", "npy")
    """What to write: png (16 bit, millimetres, 0 = nothing measured), npy (metres, NaN there), npz, colour."""
    count: int = 1
    """Scans of each map, which differ by their noise."""
    depth_scale: float = 0.001
    """Metres a unit of integer maps."""
    steps: int | None = None
    """Of a sampled model; default: 50."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N; the hand-made model knows the CPU only."""
    seed: int = 0
    """Fixes every result; a scan's noise derives from it, the map's name and the scan's number."""
    overwrite: bool = False
    """Replace results that are there already."""


@dataclass(frozen=True)
class TrainSensorConfig:
    """Train a sensor simulator on pairs of exact and scanned depth, or on drawn scenes and the hand-made sensor."""

    out: Path = Path("runs/sensor")
    """Run folder; the model is out/model."""
    method: Method = "sampled"
    """sampled: residual diffusion by DDIM. one-step: noise to scan in one call, trained by an energy score, which keeps
    the spread. one-step-mean: Lotus' one-step loss, whose best answer is the mean scan."""
    pairs: Path | None = None
    """Folder with clean/NAME and scan/NAME depth maps of equal names; default: drawn scenes."""
    depth_scale: float = 0.001
    """Metres a unit of integer maps."""
    scenes: int = 1000
    """Drawn scenes to learn from."""
    held_out: int = 16
    """Scenes or pairs to look at only."""
    data: Path | None = None
    """Folder of the drawn scenes, kept for other runs; default: beside out, OUT-data."""
    height: int = 192
    """Of drawn scenes, pixels."""
    width: int = 256
    """Of drawn scenes, pixels."""
    crop: int = 64
    """Side of the squares that are trained on, pixels; a multiple of 16."""
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopConfig(steps=4000, batch_size=16, lr=1e-3)
    )

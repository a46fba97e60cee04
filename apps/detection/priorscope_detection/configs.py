"""What each command can be told. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from priorscope.training.settings import LoopConfig

Device = str
Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class ModelConfig:
    """Which model, and how it is asked."""

    model: str = "tiny-detection"
    """Name in the model table (`priorscope models detection`), or a folder: ours, or one of CoAlign's (config.yaml and
    net_epoch*.pth)."""
    steps: int = 4
    """CoDiff: solver steps; any number without retraining."""
    score_threshold: float = 0.2
    """Boxes with a lower score are left out."""
    nms: float = 0.15
    """Of two boxes that overlap more (rotated IoU in bird's-eye view) than this, only the better stays."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N."""
    precision: Precision = "auto"
    """auto is bfloat16 on a GPU and float32 on the CPU."""
    seed: int = 0
    """Of what is random: CoDiff's noise, pose noise, agents that drop out."""


@dataclass(frozen=True)
class SimulateConfig:
    """Drive several cars and a road-side unit through drawn streets; their LiDAR sweeps in OPV2V's layout."""

    out: Path = Path("runs/streets")
    """Folder."""


@dataclass(frozen=True)
class PredictConfig:
    """Boxes around vehicles, from the sweeps of one agent or of several."""

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """Sweeps (.pcd, .bin), scenarios, or data sets."""
    out: Path = Path("out")
    """Folder for the results; made where missing."""
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)


@dataclass(frozen=True)
class TrainConfig:
    """Train a detector, its fusion, or CoDiff's diffusion."""

    data: tyro.conf.Positional[Path]
    """Folder in OPV2V's layout, or in another that --layout names."""
    out: Path = Path("runs/train")
    """Run folder; the model is out/model, what to look at is out/report.html."""
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(default_factory=LoopConfig)


@dataclass(frozen=True)
class EvaluateConfig:
    """Average precision under pose noise and delay."""

    data: tyro.conf.Positional[Path]
    """Folder in OPV2V's layout, or in another that --layout names."""
    out: Path = Path("runs/evaluate")
    """Run folder: predictions, metrics.json, report.html."""
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)


@dataclass(frozen=True)
class DemoConfig:
    """A simulated junction with noisy poses: boxes before and after fusion, and the robustness curve."""

    out: Path = Path("runs/demo")
    """Run folder; replaced if a demo made it."""
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)

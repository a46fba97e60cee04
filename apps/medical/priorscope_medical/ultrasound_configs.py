"""What the ultrasound commands can be told. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from priorscope.training.settings import LoopConfig


@dataclass(frozen=True)
class SimulateUltrasoundConfig:
    """Simulate a hazy cine of a beating ventricle, tissue and haze known apart. For research use only."""

    out: Path = Path("cine.h5")
    """HDF5 file: data/{hazy,tissue,haze,noise} RF [frames, samples, beams], data/regions, scan/*."""
    method: Literal["convolution", "simus"] = "convolution"
    """convolution: fast, a point-spread function. simus: pymust, element by element, and our beamformer."""
    frames: int = 30
    """Frames of the cine."""
    frame_rate: float = 50.0
    """In Hz."""
    strength: float = 1.0
    """Of the haze in what is stored as hazy."""
    noise: float = -50.0
    """RMS of the electronic noise in dB relative to the wall."""
    seed: int = 0
    """Fixes everything that is drawn."""


@dataclass(frozen=True)
class TrainUltrasoundConfig:
    """Train a prior of RF for dehazing, of tissue or of haze, on simulated cines. For research use only."""

    part: Literal["tissue", "haze"] = "tissue"
    """Which of the two; a dehazing needs both."""
    out: Path = Path("runs/rf-prior")
    """Run folder; the prior is out/model."""
    data: Path | None = None
    """Folder of simulated cines, made there if missing, which both parts can share; default: out/data."""
    cines: int = 300
    """Simulated cines to learn from."""
    frames: int = 6
    """Frames that the network sees together."""
    mu: float = 0.0
    """Above 0: the diffusion runs on RF companded by this mu-law, as published (255); 0: on plain RF."""
    held_out: int = 12
    """Cines that are looked at only."""
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopConfig(steps=6000, batch_size=16, lr=1.5e-3, warmup=200)
    )


@dataclass(frozen=True)
class EvaluateUltrasoundConfig:
    """Measure how well a cine was dehazed: contrast, distributions, sharpness, and rest. For research use only."""

    before: tyro.conf.Positional[Path]
    """A cine that `simulate-ultrasound` wrote, or any RF before: .npy or .npz [frames, samples, beams], or .h5. Or a
    folder of them; then AFTER, TRUTH and REGIONS are folders too, and files of equal names belong together."""
    after: tyro.conf.Positional[Path | None] = None
    """The RF after, of the same shape; of the rf.npz that `dehaze` wrote its tissue is taken, in a folder of results
    NAME-report/rf.npz for NAME. Without it BEFORE alone is measured."""
    regions: Path | None = None
    """Integer map [frames, samples, beams] or [samples, beams]: 1 wall, 2 blood, 3 weak wall; default: that in
    BEFORE. One file may serve a whole folder."""
    truth: Path | None = None
    """RF without haze; default: that in BEFORE, if any."""
    bins: int = 256
    """Of gCNR's histograms."""
    out: Path = Path("runs/evaluate-ultrasound")
    """Run folder: metrics.json, report.html."""

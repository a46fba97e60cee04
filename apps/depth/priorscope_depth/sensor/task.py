"""What a sensor simulator is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.losses import denoising_loss, masked_mean
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.task import Task
from priorscope_depth.sensor.codec import is_residual
from priorscope_depth.sensor.data import SensorPair
from priorscope_depth.sensor.judge import NothingMeasured, compare_scans
from priorscope_depth.sensor.simulator import SCAN, SensorSimulator
from priorscope_depth.training.task import item_noise


class SensorTask(Task):
    """v at random levels ("sampled"), x0 at the noisiest ("one-step-mean"), or an energy score there ("one-step").

    Parameters
    ----------
    simulator : SensorSimulator
        Its method says which.
    held_out : sequence of SensorPair
        To look at while training.
    """

    def __init__(self, simulator: SensorSimulator, held_out: Sequence[SensorPair] = ()) -> None:
        super().__init__(simulator.unet)
        self.model.requires_grad_(True)
        self.simulator = simulator
        self.held_out = list(held_out)

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        sensor, clean, scan = self.simulator, batch["clean"], batch["scan"]
        x0, counts = sensor.target(scan, clean), counting(sensor, scan, clean)
        condition = sensor.condition(clean)
        copies = 2 if sensor.method == "one-step" else 1
        noise = item_noise(batch["seed"], copies=copies)
        if sensor.method == "one-step":
            return {"loss": energy_loss(sensor, x0, counts, condition, noise.draw((2 * len(x0), *x0.shape[1:])))}
        level = batch["level"] if sensor.method == "sampled" else torch.full_like(batch["level"], 999)
        return {"loss": denoising_loss(sensor.denoiser, x0, noise.like(x0), level, condition, mask=counts)}

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        if not self.held_out:
            return {}
        scans = self.simulator([pair.clean for pair in self.held_out], steps=10)
        try:
            found = compare_scans(scans, [pair.scan for pair in self.held_out], [pair.clean for pair in self.held_out])
        except NothingMeasured:  # a sensor of another range, or a network that sees holes only: training goes on
            return {}
        return {"held_out_wasserstein_mm": found.wasserstein_mm, "held_out_hole_rate_error": found.hole_rate_error}

    def save(self, folder: Path) -> None:
        self.simulator.save(folder)


def counting(sensor: SensorSimulator, scan: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Which numbers of :meth:`SensorSimulator.target` count: bool, of its shape.

    Whether anything is measured counts wherever there is exact depth, the residual where something was, unless it is
    off by :data:`~priorscope_depth.sensor.codec.OUTLIER` or more.
    """
    known = sensor.codec.is_valid(clean)
    return SCAN.encode(torch.cat([is_residual(sensor.codec, scan, clean), known], dim=1).float()) > 0


def energy_loss(
    sensor: SensorSimulator, x0: torch.Tensor, counts: torch.Tensor, condition: Condition, noise: torch.Tensor
) -> torch.Tensor:
    """Energy score of two scans generated in one call each: mean distance to the truth less half their own distance.

    It is least where generated scans are spread as true ones (Gneiting and Raftery 2007), here those of blocks of
    4 x 4 pixels; a squared error would be least at their mean, and the noise would be ignored.

    Parameters
    ----------
    sensor : SensorSimulator
    x0 : Tensor (B, C, h, w)
    counts : bool Tensor (B, C, h, w)
    condition : Condition
    noise : Tensor (2 B, C, h, w)
        Standard normal.
    """
    rows = x0.shape[0]
    twice = Condition.cat([(condition, rows), (condition, rows)])
    level = sensor.denoiser.schedule.start
    one, other = sensor.denoiser.raw(noise.to(x0), level, twice).float().chunk(2)

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        # the root's slope is infinite at 0
        return (torch.where(counts, a - b, 0.0).square().sum(1) + 1e-8).sqrt()

    score = (distance(one, x0) + distance(other, x0) - distance(one, other)) / 2
    return masked_mean(score, counts.any(1))

"""What makes a run of the sampling loop cheaper, and what it costs in accuracy.

    OMP_NUM_THREADS=1 python benchmarks/acceleration.py [--only front|helper|loop] [--repeats 15] [--small]

One process, one U-Net with random weights (109 million; ``--small``: a toy), one noise. Evidence on a network that
has learned something is in evidence_acceleration.py. With one thread times are the processor's, on which other
programs have less influence; with more, the clock's.

front: DDIM, DPM-Solver++(2M) and GHVB at 5, 10, 20 and 50 steps, each without a cache and with DeepCache, encoder
propagation and TaylorSeer at every third step in full; time (of one run each), network passes, and the distance of the
result to DDIM's of 100 steps, relative to its norm. Draws figures/acceleration.png (``--small``: no figure). A network
with random weights is no model of images: the distances say how well the same trajectory is followed, not how samples
look.

helper: our DeepCache against the PyPI package DeepCache 0.1.1 (``pip install --no-deps DeepCache``), same network,
levels, interval and branch, and whether the results have equal bits. Both run in every repeat, the one that begins
changing from repeat to repeat; given are the median of a repeat's ratio of times, and its quartiles. Ours counts
entering and leaving the cache, theirs does not.

loop: a network that returns its input: what a step of ours costs beside diffusers' ``scheduler.step``, in the
processor's time, measured alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from priorscope.caching import DeepCache, EncoderPropagation, Every, TaylorSeer
from priorscope.diffusion import Denoiser, VPSchedule, ddim, dpmpp_2m, ghvb, sample, spaced_times
from priorscope.evaluation.tables import print_table

FIGURE = Path(__file__).parent / "figures/acceleration.png"
SOLVERS: dict[str, Any] = {"DDIM": ddim, "DPM++ 2M": dpmpp_2m, "GHVB 1.8": partial(ghvb, order=1.8)}
STEPS, REFERENCE, INTERVAL = (5, 10, 20, 50), 100, 3
DEEP = ("down_blocks.2", "down_blocks.3", "mid_block", "up_blocks.0", "up_blocks.1")
CACHES: dict[str, Callable[[], Any] | None] = {
    "none": None,
    "DeepCache": lambda: DeepCache(INTERVAL),
    "encoder propagation": lambda: EncoderPropagation(Every(INTERVAL)),
    "TaylorSeer": lambda: TaylorSeer(INTERVAL, order=1, modules=[f"{part}.resnets.*" for part in DEEP]),
}


class Told(nn.Module):
    """A U-Net with its text."""

    def __init__(self, unet: UNet2DConditionModel, text: torch.Tensor) -> None:
        super().__init__()
        self.unet, self.text = unet, text

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return self.unet(x, label, self.text.expand(len(x), -1, -1), return_dict=False)[0]


@dataclass
class Setting:
    """What every part runs on."""

    unet: UNet2DConditionModel
    text: torch.Tensor
    schedule: VPSchedule
    noise: torch.Tensor

    @classmethod
    def of(cls, small: bool) -> Setting:
        torch.manual_seed(0)
        widths = (16, 32, 32, 32) if small else (128, 256, 384, 512)
        unet = UNet2DConditionModel(
            sample_size=8 if small else 32,
            block_out_channels=widths,
            norm_num_groups=8,
            attention_head_dim=8,
            cross_attention_dim=16 if small else 256,
        )
        text = torch.randn(1, 8, 16 if small else 256)
        side = 8 if small else 32
        schedule = VPSchedule.from_betas()
        return cls(unet.eval().requires_grad_(False), text, schedule, torch.randn(1, 4, side, side))

    @property
    def denoiser(self) -> Denoiser:
        return Denoiser(Told(self.unet, self.text), self.schedule, prediction_type="epsilon")

    def run(self, solver: Any, steps: int, cache: Any = None) -> tuple[torch.Tensor, float, Any]:
        """The result, seconds, and the cache's counts."""
        denoiser = self.denoiser
        times = spaced_times(self.schedule, steps)
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        begin = clock()
        with nullcontext() if cache is None else cache.on(denoiser) as counts:
            found = sample(denoiser, self.noise, times, step=solver)
        return found, clock() - begin, counts


def apart(found: torch.Tensor, reference: torch.Tensor) -> float:
    return float((found - reference).norm() / reference.norm())


def in_turn(repeats: int, sides: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Seconds of each side by repeat, after one that is thrown away; who begins changes every time."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name in list(sides)[:: 1 if repeat % 2 else -1]:
            taken[name].append(sides[name]())
    return {name: seconds[1:] for name, seconds in taken.items()}


def quartiles(values: Any) -> str:
    """Median, and the quartiles in brackets."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def front(setting: Setting, figure: Path | None) -> None:
    weights = sum(weight.numel() for weight in setting.unet.parameters())
    setting.run(ddim, 2)
    reference, whole, _ = setting.run(ddim, REFERENCE)
    print(
        f"U-Net of {weights / 1e6:.0f} million weights, {tuple(setting.noise.shape)}, {torch.get_num_threads()} "
        f"thread(s); every {INTERVAL} steps in full. Time relative to DDIM of {REFERENCE} steps."
    )
    rows = []
    for name, solver in SOLVERS.items():
        for steps in STEPS:
            for kind, made in CACHES.items():
                found, seconds, counts = setting.run(solver, steps, None if made is None else made())
                full = steps if counts is None else counts.full
                rows.append(
                    {
                        "solver": name,
                        "steps": steps,
                        "cache": kind,
                        "full passes": full,
                        "time": seconds / whole,
                        "distance": apart(found, reference),
                    }
                )
    print_table(rows, ".3g")
    if figure is not None:
        draw(rows, figure)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    marks = dict(zip(SOLVERS, "os^", strict=True))
    colours = dict(zip(CACHES, ("k", "tab:orange", "tab:green", "tab:blue"), strict=True))
    for solver in SOLVERS:
        for cache in CACHES:
            own = [row for row in rows if (row["solver"], row["cache"]) == (solver, cache)]
            axes.plot(
                [row["time"] for row in own],
                [row["distance"] for row in own],
                marker=marks[solver],
                color=colours[cache],
                label=f"{solver}, {cache}",
                linewidth=0.8,
                markersize=5,
            )
    axes.set(xscale="log", yscale="log", xlabel=f"time, DDIM of {REFERENCE} steps = 1", ylabel="distance to its result")
    axes.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
    axes.set_xticks([], minor=True)
    axes.legend(fontsize=7, ncol=2)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    print(f"figure: {path}")


def helper(setting: Setting, repeats: int) -> None:
    try:
        from DeepCache import DeepCacheSDHelper
    except ImportError:
        print("helper: the package DeepCache is not installed (pip install --no-deps DeepCache): left out")
        return
    steps = 10
    times = spaced_times(setting.schedule, steps)
    levels = torch.tensor([round(t) for t in times[:steps]])
    pipe = SimpleNamespace(unet=setting.unet, scheduler=SimpleNamespace(timesteps=levels))
    rows = []
    for interval in (1, 2, 3, 5):
        found: dict[str, torch.Tensor] = {}

        def ours(interval: int = interval, found: dict[str, torch.Tensor] = found) -> float:
            found["ours"], used, _ = setting.run(ddim, steps, DeepCache(interval))
            return used

        def theirs(interval: int = interval, found: dict[str, torch.Tensor] = found) -> float:
            wrapped = DeepCacheSDHelper(pipe=pipe)
            wrapped.set_params(cache_interval=interval, cache_branch_id=0)
            wrapped.enable()
            try:
                found["theirs"], used, _ = setting.run(ddim, steps)
            finally:
                wrapped.disable()
                for module in setting.unet.modules():  # it leaves its bound methods behind
                    vars(module).pop("forward", None)
            return used

        taken = in_turn(repeats, {"ours": ours, "theirs": theirs})
        rows.append(
            {
                "interval": interval,
                "ours, s": quartiles(taken["ours"]),
                "theirs, s": quartiles(taken["theirs"]),
                "theirs / ours": quartiles(np.divide(taken["theirs"], taken["ours"])),
                "equal bits": str(bool((found["ours"] == found["theirs"]).all())),
            }
        )
    print(f"DeepCache, {steps} steps of DDIM, branch 0, {repeats} repeats:")
    print_table(rows, ".3f")


def loop(setting: Setting, repeats: int) -> None:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    steps, noise = 50, setting.noise
    denoiser = Denoiser(SameShape(), setting.schedule, prediction_type="epsilon")
    betas: dict[str, Any] = {"num_train_timesteps": 1000, "beta_schedule": "linear"}
    official: dict[str, Any] = {
        "DDIM": DDIMScheduler(**betas, clip_sample=False),
        "DPM++ 2M": DPMSolverMultistepScheduler(**betas, algorithm_type="dpmsolver++", solver_order=2),
    }
    times = spaced_times(setting.schedule, steps)
    rows = []
    for name, scheduler in official.items():

        def ours(name: str = name) -> float:
            begin = time.process_time()
            sample(denoiser, noise, times, step=SOLVERS[name])
            return (time.process_time() - begin) / steps * 1e6

        def theirs(scheduler: Any = scheduler) -> float:
            begin = time.process_time()
            scheduler.set_timesteps(steps)
            x = noise
            for t in scheduler.timesteps:
                x = scheduler.step(x, t, x, return_dict=False)[0]
            return (time.process_time() - begin) / steps * 1e6

        taken = in_turn(repeats, {"ours": ours, "theirs": theirs})
        ratio = quartiles(np.divide(taken["ours"], taken["theirs"]))
        medians = {f"{side}, us a step": float(np.median(values)) for side, values in taken.items()}
        rows.append({"solver": name, **medians, "ours / theirs": ratio})
    print(f"A network that returns its input, {steps} steps, {repeats} repeats:")
    print_table(rows, ".3g")


class SameShape(nn.Module):
    """Returns its input."""

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["front", "helper", "loop"])
    parser.add_argument("--small", action="store_true", help="a toy network, to try the script")
    parser.add_argument("--repeats", type=int, default=15, help="of helper; of loop, four times as many")
    given = parser.parse_args()
    setting = Setting.of(given.small)
    if given.only in (None, "front"):
        front(setting, None if given.small else FIGURE)
    if given.only in (None, "helper"):
        helper(setting, given.repeats)
    if given.only in (None, "loop"):
        loop(setting, 4 * given.repeats)


if __name__ == "__main__":
    main()

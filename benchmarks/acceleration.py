"""What makes a run of the sampling loop cheaper, and what it costs in accuracy.

    python benchmarks/acceleration.py [--only front|helper|loop] [--small]

One process, one U-Net with random weights (about 80 million; ``--small``: a toy), one noise.

front: DDIM, DPM-Solver++(2M) and GHVB at 5, 10, 20 and 50 steps, each without a cache and with DeepCache, encoder
propagation and TaylorSeer at every third step in full; time, network passes, and the distance of the result to DDIM's
of 100 steps, relative to its norm. Draws figures/acceleration.png. A network with random weights is no model of images:
the distances say how well the same trajectory is followed, not how samples look.

helper: our DeepCache against the PyPI package DeepCache 0.1.1 (``pip install --no-deps DeepCache``), same network,
levels, interval and branch, alternating; and whether the results have equal bits.

loop: a network that returns its input: what a step of ours costs beside diffusers' ``scheduler.step``, in the
processor's time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
        begin = time.perf_counter()
        with nullcontext() if cache is None else cache.on(denoiser) as counts:
            found = sample(denoiser, self.noise, times, step=solver)
        return found, time.perf_counter() - begin, counts


def apart(found: torch.Tensor, reference: torch.Tensor) -> float:
    return float((found - reference).norm() / reference.norm())


def front(setting: Setting) -> None:
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
    draw(rows)


def draw(rows: list[dict[str, Any]]) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 5))
    marks, colours = dict(zip(SOLVERS, "os^", strict=True)), dict(zip(CACHES, plt.cm.tab10.colors, strict=False))
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
    axes.legend(fontsize=7, ncol=2)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(FIGURE, dpi=120)
    print(f"figure: {FIGURE}")


def helper(setting: Setting, repeats: int) -> None:
    try:
        from DeepCache import DeepCacheSDHelper
    except ImportError:
        print("helper: the package DeepCache is not installed (pip install --no-deps DeepCache): left out")
        return
    steps = 20
    times = spaced_times(setting.schedule, steps)
    levels = torch.tensor([round(t) for t in times[:steps]])
    pipe = SimpleNamespace(unet=setting.unet, scheduler=SimpleNamespace(timesteps=levels))
    rows = []
    for interval in (1, 2, 3, 5):
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        found: dict[str, torch.Tensor] = {}
        for _ in range(repeats):
            found["ours"], used, _ = setting.run(ddim, steps, DeepCache(interval))
            seconds["ours"].append(used)
            wrapped = DeepCacheSDHelper(pipe=pipe)
            wrapped.set_params(cache_interval=interval, cache_branch_id=0)
            wrapped.enable()
            try:
                found["theirs"], used, _ = setting.run(ddim, steps)
            finally:
                wrapped.disable()
                for module in setting.unet.modules():  # it leaves its bound methods behind
                    vars(module).pop("forward", None)
            seconds["theirs"].append(used)
        ours, theirs = (statistics.median(seconds[name]) for name in ("ours", "theirs"))
        equal = bool((found["ours"] == found["theirs"]).all())
        rows.append({"interval": interval, "theirs / ours, time": theirs / ours, "equal bits": str(equal)})
    print(f"DeepCache, {steps} steps of DDIM, branch 0, medians of {repeats}:")
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
        taken: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(repeats):
            begin = time.process_time()
            sample(denoiser, noise, times, step=SOLVERS[name])
            taken["ours"].append(time.process_time() - begin)
            begin = time.process_time()
            scheduler.set_timesteps(steps)
            x = noise
            for t in scheduler.timesteps:
                x = scheduler.step(x, t, x, return_dict=False)[0]
            taken["theirs"].append(time.process_time() - begin)
        ours, theirs = (statistics.median(taken[side]) / steps * 1e6 for side in ("ours", "theirs"))
        rows.append({"solver": name, "ours, us a step": ours, "diffusers, us a step": theirs, "ratio": ours / theirs})
    print(f"A network that returns its input, {steps} steps, medians of {repeats}:")
    print_table(rows, ".3g")


class SameShape(nn.Module):
    """Returns its input."""

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["front", "helper", "loop"])
    parser.add_argument("--small", action="store_true", help="a toy network, to try the script")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    setting = Setting.of(given.small)
    if given.only in (None, "front"):
        front(setting)
    if given.only in (None, "helper"):
        helper(setting, given.repeats)
    if given.only in (None, "loop"):
        loop(setting, 4 * given.repeats)


if __name__ == "__main__":
    main()

"""What a reconstruction with a prior costs: ``dds`` against ``mbir`` (``benchmarks/tomography.py --only solvers``).

Both solve the same problem with the same prior and noise of the same seed, in one process: 24 slices of 64 pixels. Each
is run at several numbers of steps, so that they can be compared where they are equally good (mean PSNR of the three
planes within 0.5 dB), not at a number of steps that suits us. Weights are the app's defaults.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from priorscope.evaluation.tables import print_table
from priorscope_medical.configs import AcquisitionConfig, Method, SolverConfig, VolumeConfig
from priorscope_medical.demo import brain
from priorscope_medical.evaluate import acquisition
from priorscope_medical.methods import diffusion
from priorscope_medical.problem import DATA_RANGE
from priorscope_medical.score_prior import load_prior
from priorscope_medical.scores import mean_psnr, plane_scores
from priorscope_medical.tasks import open_volume, simulated_problem

STEPS: dict[Method, tuple[int, ...]] = {"dds": (10, 20, 40, 80), "mbir": (50, 100, 200, 500, 1000, 2000)}
SLICES, SIZE, EQUAL = 24, 64, 0.5


def compare_solvers(volume: Path | None, task: str, first: int, prior: str | None, small: bool) -> None:
    """Print PSNR, network calls and seconds of both at every number of steps, and the ratios where they are equal."""
    opened = open_volume(volume or brain(), VolumeConfig(unit="intensity" if volume is None else None))
    kind, acquire = acquisition(task, AcquisitionConfig())
    problem = simulated_problem(opened, kind, acquire, size=SIZE, slices=(first, first + (4 if small else SLICES)))
    assert problem.truth is not None
    solver = SolverConfig(prior=prior, device="cpu")
    network = load_prior(solver, "intensity" if problem.modality == "MRI" else "attenuation")
    truth, data_range = problem.on_grid(problem.truth), DATA_RANGE[problem.modality]
    rows: list[dict[str, Any]] = []
    for method, all_steps in STEPS.items():
        for steps in all_steps[:2] if small else all_steps:
            begin = time.perf_counter()
            x = diffusion(problem, method, network, replace(solver, steps=steps))
            seconds = time.perf_counter() - begin
            psnr = mean_psnr(plane_scores(problem.on_grid(x), truth, data_range))
            calls = steps if method == "dds" else 2 * steps - 1
            rows.append({"method": method, "steps": steps, "calls a slice": calls, "PSNR": psnr, "seconds": seconds})
            print(f"{method}, {steps} steps: {psnr:.2f} dB, {seconds:.1f} s", flush=True)
    print(f"\n{opened.source}: {task}, slices {first} to {first + len(problem.y) - 1}, {SIZE} px; one sample each")
    print_table(rows, ".2f")
    for row in (row for row in rows if row["method"] == "dds"):
        equal = [r for r in rows if r["method"] == "mbir" and r["PSNR"] >= row["PSNR"] - EQUAL]
        if not equal:
            print(f"dds, {row['steps']} steps: mbir stays more than {EQUAL} dB below it at every number of steps tried")
            continue
        cheapest = min(equal, key=lambda r: r["steps"])
        print(
            f"dds, {row['steps']} steps, {row['PSNR']:.2f} dB: the fewest steps of mbir within {EQUAL} dB below it or "
            f"better are {cheapest['steps']} ({cheapest['PSNR']:.2f} dB): "
            f"{cheapest['calls a slice'] / row['calls a slice']:.1f} times the calls, "
            f"{cheapest['seconds'] / row['seconds']:.1f} times the time"
        )

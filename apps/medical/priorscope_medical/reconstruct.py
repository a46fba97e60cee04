"""``priorscope medical reconstruct``: a volume from measurements, resumable, with a report. For research use only."""

from __future__ import annotations

import math
import resource
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from priorscope.device import resolve_device
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.tables import print_table
from priorscope_medical.configs import Method, ReconstructConfig, SolverConfig
from priorscope_medical.from_file import check_file, measured_problem, modality_of
from priorscope_medical.grid import side_in_mm
from priorscope_medical.methods import DIFFUSION, Curve, check_method, classical, diffusion, steps_note, steps_of
from priorscope_medical.prior import Unit
from priorscope_medical.problem import DATA_RANGE, Modality, Problem
from priorscope_medical.score_prior import Prior, describe, load_prior
from priorscope_medical.scores import plane_scores
from priorscope_medical.state_file import load_state, load_tensors, save_state, save_tensors
from priorscope_medical.tasks import open_volume, simulated_problem
from priorscope_medical.volume_state import VolumeState
from priorscope_medical.volumes import RESEARCH_ONLY, Volume, write_nifti

_MAY_DIFFER = ("resume", "out", "checkpoint_every", "solver.device", "solver.batch_size")
#: Rows of a convergence curve, about.
_ROWS = 50


@dataclass(frozen=True)
class Result:
    """What came out, in the methods' unit."""

    volume: Volume
    residuals: torch.Tensor
    std: Volume | None = None
    curve: Curve | None = None


def reconstruct(config: ReconstructConfig) -> int:
    """Run ``priorscope medical reconstruct``; returns the exit status."""
    _check(config)
    begin = time.monotonic()
    prior, problem = open_problem(config)
    # made only now, so that a mistake above leaves nothing behind
    run = RunFolder.create(config.out, config, resume=config.resume, may_differ=_MAY_DIFFER)
    notes = _told(config, problem, prior)
    if config.method in DIFFUSION:
        assert prior is not None
        try:
            result = _by_samples(config, problem, prior, run)
        except KeyboardInterrupt:
            print(f"{run.path} is not finished; the same command with --resume goes on", file=sys.stderr)
            raise
    else:
        x, curve = classical(problem, config.method, config.solver)
        result = Result(problem.on_grid(x), problem.residuals(x), curve=curve)
    _write(run, problem, result)
    metrics = _metrics(config, problem, result, prior, notes, time.monotonic() - begin)
    run.write_metrics(metrics)
    figures = [name for name, value in metrics.items() if name.startswith(("psnr", "ssim", "residual"))]
    print_table([{"figure": name, "value": metrics[name]} for name in figures if name != "residual_per_slice"])
    from priorscope_medical.report import reconstruction_report

    reconstruction_report(run, config, problem, result, metrics)
    print(f"volume: {run.path / 'volume.nii.gz'}\nreport: {run.report_path}\n{RESEARCH_ONLY}")
    return 0


def open_problem(config: ReconstructConfig) -> tuple[Prior | None, Problem]:
    """The prior, where the method has one, and what is to be solved, on the prior's device."""
    solver = config.solver
    modality: Modality = "MRI" if config.task == "cs-mri" else "CT"
    if config.task == "measured":
        check_file(config.file)
        modality = modality_of(config.input, config.file.dataset)
    check_method(config.method, modality)
    unit: Unit = "intensity" if modality == "MRI" else "attenuation"
    prior = load_prior(solver, unit) if config.method in DIFFUSION else None
    size = solver.size or (prior.values.size if prior is not None else None)
    if config.task == "measured":
        problem = measured_problem(
            config.input, config.file, config.acquire, config.volume, size=size, noise=solver.noise
        )
    else:
        volume = open_volume(config.input, config.volume)
        size = size or round(side_in_mm(volume) / min(volume.spacing[1:]))
        problem = simulated_problem(
            volume,
            config.task,
            config.acquire,
            size=size,
            slices=config.volume.slab,
            seed=solver.seed,
            noise=solver.noise,
        )
    return prior, problem.to(prior.device if prior is not None else resolve_device(solver.device))


def scale_note(problem: Problem, prior: Prior | None) -> str | None:
    """What to say where pixels are of another size than the prior's."""
    if prior is None or not getattr(prior, "pixel_known", True):
        return None
    pixel = problem.grid.spacing[2]
    if abs(math.log(pixel / prior.values.pixel)) < math.log(1.15):
        return None
    better = round(problem.operator.domain[-1] * pixel / prior.values.pixel)
    return (
        f"pixels are {pixel:.3g} mm, those of the prior's training {prior.values.pixel:.3g}: shapes look larger or "
        f"smaller to it than they are; --size {better} would be its scale"
    )


def _told(config: ReconstructConfig, problem: Problem, prior: Prior | None) -> list[str]:
    """Print what is done to what; return the notes."""
    settings, grid = problem.settings, problem.grid
    if config.task != "measured":
        print(f"SIMULATED MEASUREMENTS of {config.input}: not what a scanner measured.")
    count = len(settings.get("angles", ()))
    views = f"{count} view{'s' if count > 1 else ''} of " if count else "k-space of "
    where = " x ".join(f"{count}" for count in grid.data.shape)
    print(
        f"{config.method} from {views}{len(problem.y)} slices onto {where} voxels of "
        f"{' x '.join(f'{step:.3g}' for step in grid.spacing)} mm; noise {problem.noise:.3g}; {RESEARCH_ONLY}."
    )
    notes = [*problem.notes, *filter(None, [scale_note(problem, prior), steps_note(config.method, config.solver)])]
    for note in notes:
        print(f"note: {note}")
    return notes


def _by_samples(config: ReconstructConfig, problem: Problem, prior: Prior, run: RunFolder) -> Result:
    """Draw the samples that are not there yet; their mean and standard deviation."""
    total = square = None
    for number in range(config.samples):
        x = _sample(config, problem, prior, run, number).double().cpu()
        total = x if total is None else total + x
        square = x.square() if square is None else square + x.square()
    assert total is not None
    assert square is not None
    mean = total / config.samples
    std = None
    if config.samples > 1:
        variance = (square - config.samples * mean.square()) / (config.samples - 1)
        std = problem.on_grid(variance.clamp(min=0).sqrt().float())
    return Result(problem.on_grid(mean.float()), problem.residuals(mean.float()), std)


def _sample(config: ReconstructConfig, problem: Problem, prior: Prior, run: RunFolder, number: int) -> torch.Tensor:
    done, state_path = (run.checkpoints / f"{kind}-{number}.safetensors" for kind in ("sample", "state"))
    if done.is_file():
        return load_tensors(done)[0]["x"]
    method, steps = config.method, steps_of(config.method, config.solver)
    state = load_state(state_path)
    if config.resume:
        run.drop_history_after(number * steps + (0 if state is None else state.step))
    if state is not None:
        print(f"going on after step {state.step} of {steps}")
    rows = max(1, steps // _ROWS)
    begin, noted = time.perf_counter(), 0 if state is None else state.step

    def watch(state: VolumeState, estimate: torch.Tensor) -> None:
        nonlocal begin, noted
        if state.step % rows == 0 or state.step == steps:
            if estimate.is_cuda:
                torch.cuda.synchronize(estimate.device)
            row: dict[str, Any] = {"step": number * steps + state.step, "sample": number, "sample_step": state.step}
            row["seconds_per_step"] = (time.perf_counter() - begin) / (state.step - noted)
            row["residual"] = float(problem.residuals(estimate).mean())
            if problem.truth is not None:
                error = float((estimate.cpu() - problem.truth).double().square().mean())
                row["psnr"] = 10 * math.log10(DATA_RANGE[problem.modality] ** 2 / max(error, 1e-30))
            run.log(row)
            begin, noted = time.perf_counter(), state.step
        if state.step % config.checkpoint_every == 0 and state.step < steps:
            save_state(state_path, state)

    x = diffusion(
        problem,
        method,
        prior,
        config.solver,
        sample=number,
        resume=state,
        watch=watch,
        progress=sys.stderr.isatty(),
    )
    if not bool(torch.isfinite(x).all()):
        raise InputError(
            f"{method} diverged: its result has values that are not finite",
            remedy="Use a larger --noise-factor (dds), a smaller --weight, or another prior.",
        )
    save_tensors(done, {"x": x})
    state_path.unlink(missing_ok=True)
    return x


def _write(run: RunFolder, problem: Problem, result: Result) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nibabel's, about units of our own header
        write_nifti(problem.written(result.volume), run.path / "volume.nii.gz", overwrite=True)
        if result.std is not None:
            write_nifti(problem.spread(result.std), run.path / "std.nii.gz", overwrite=True)
        if problem.truth is not None:
            write_nifti(problem.written(problem.on_grid(problem.truth)), run.path / "truth.nii.gz", overwrite=True)


def _metrics(
    config: ReconstructConfig, problem: Problem, result: Result, prior: Prior | None, notes: list[str], seconds: float
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "for": RESEARCH_ONLY,
        "simulated": config.task != "measured",
        "method": config.method,
        "task": config.task,
    }
    if problem.truth is not None:
        data_range = DATA_RANGE[problem.modality]
        found["data_range"] = data_range
        found |= plane_scores(result.volume, problem.on_grid(problem.truth), data_range)
    residuals = result.residuals.tolist()
    found["residual_mean"] = float(np.mean(residuals))
    found["residual_largest"] = float(np.max(residuals))
    found["residual_per_slice"] = residuals
    if config.method in DIFFUSION:
        steps = steps_of(config.method, config.solver)
        each = 2 * steps - 1 if config.method == "mbir" else steps
        found |= {"samples": config.samples, "network_calls_per_slice": each * config.samples}
    if result.std is not None:
        found["std_mean"] = float(result.std.data.mean())
    if prior is not None:
        found["prior"] = describe(prior)
    found |= {"noise": problem.noise, "measurement": problem.settings, "notes": notes}
    # ru_maxrss is in kB on Linux, in bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return found | {"seconds": seconds, "peak_memory_gigabytes": peak / 1e9}


def check_solver(config: SolverConfig, method: Method) -> None:
    """Refuse numbers that make no sense, before anything is read."""
    for name in ("batch_size", "cg_iterations"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy="Use 1 or more.")
    for name in ("noise", "noise_factor", "prior_scale", "rho", "size", "tv_weight", "iterations"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"--{name.replace('_', '-')} {value}", remedy="Use a number above 0.")
    if config.seed < 0:
        raise InputError(f"--seed {config.seed}", remedy="Use 0 or more.")
    if not 0 <= config.eta <= 1:
        raise InputError(f"--eta {config.eta}", remedy="Use 0 to 1.")
    for name, value in (("weight", config.weight), ("in-plane", config.in_plane)):
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"--{name} {value}", remedy="Use 0 or more.")
    if method in DIFFUSION:
        steps_of(method, config)


def _check(config: ReconstructConfig) -> None:
    check_solver(config.solver, config.method)
    for name in ("samples", "checkpoint_every"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy="Use 1 or more.")
    if config.samples > 1 and config.method not in DIFFUSION:
        raise InputError(f"--samples {config.samples} of {config.method}", remedy="Only dds and mbir draw samples.")
    if not Path(config.input).exists():
        raise InputError("no such file or folder", path=config.input, remedy="Check the path.")

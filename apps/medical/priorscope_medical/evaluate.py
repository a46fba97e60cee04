"""``priorscope medical evaluate``: methods on known volumes, PSNR and SSIM in three planes. For research use only."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from priorscope.device import resolve_device
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.suite import run_items
from priorscope.evaluation.tables import print_table
from priorscope_medical.configs import AcquisitionConfig, Compared, EvaluateConfig, Task
from priorscope_medical.evaluation_report import summary, write_report
from priorscope_medical.grid import side_in_mm
from priorscope_medical.methods import DIFFUSION, classical, diffusion, steps_note, steps_of, tv_weight
from priorscope_medical.problem import DATA_RANGE, Modality, Problem
from priorscope_medical.reconstruct import check_solver, scale_note
from priorscope_medical.score_prior import Prior, describe, load_prior
from priorscope_medical.scores import HOW, mean_psnr, plane_scores
from priorscope_medical.tasks import open_volume, simulated_problem
from priorscope_medical.volumes import RESEARCH_ONLY, Volume, write_nifti

_MAY_DIFFER = ("resume", "out", "solver.device", "solver.batch_size")
_CT_ONLY, _MRI_ONLY = ("fbp", "sirt"), ("zero-filled",)


@dataclass(frozen=True)
class Item:
    """One method on one task of one volume."""

    volume: Path
    name: str
    task: str
    method: Compared

    @property
    def key(self) -> str:
        return f"{self.name}/{self.task}/{self.method}"

    @property
    def modality(self) -> Modality:
        return "MRI" if self.task.startswith("cs-mri") else "CT"


def evaluate(config: EvaluateConfig, open_run: Callable[[EvaluateConfig], RunFolder] | None = None) -> int:
    """Run ``priorscope medical evaluate``; 1 where something failed.

    Parameters
    ----------
    config : EvaluateConfig
    open_run : callable, optional
        Makes the run folder, once all is checked; by default ``config.out``, resumed if ``config.resume``.
    """
    items = list_items(config)
    _check(config, items)
    suite = _Suite(config, {item.modality for item in items if item.method.startswith(DIFFUSION)})
    run = (open_run or _open_run)(config)
    suite.run = run
    print(f"{len(items)} reconstructions; {HOW} {RESEARCH_ONLY.capitalize()}.")
    if "mbir" in config.methods and (note := steps_note("mbir", config.solver)):
        print(f"note: {note}")
    outcome = run_items(items, suite.evaluate, key=lambda item: item.key, run=run, progress="reconstructions")
    if not outcome.rows:
        raise InputError(f"nothing could be evaluated; the first says: {outcome.failures[0].error}")
    priors = {modality: describe(prior) for modality, prior in suite.priors.items()}
    tasks = summary(outcome.rows)
    metrics: dict[str, Any] = {
        "for": RESEARCH_ONLY,
        "data_range": {modality: suite.data_range(modality) for modality in sorted({item.modality for item in items})},
        "clipping": HOW,
        "priors": priors,
        "tasks": tasks,
        "failed": [failure._asdict() for failure in outcome.failures],
    }
    run.write_metrics(metrics)
    for task, rows in tasks.items():
        print(f"\n{task} (range of values {rows[0]['data_range']:g}):")
        print_table([{name: row[name] for name in row if name != "data_range"} for row in rows], ".3f")
    _print_sweeps(outcome.rows)
    for failure in outcome.failures:
        print(f"failed: {failure.key}: {failure.error}")
    write_report(run, config, outcome, metrics)
    print(f"\nreport: {run.report_path}\n{RESEARCH_ONLY}")
    return 1 if outcome.failures else 0


def _open_run(config: EvaluateConfig) -> RunFolder:
    return RunFolder.create(config.out, config, resume=config.resume, may_differ=_MAY_DIFFER)


def parse_task(text: str) -> tuple[Task, float]:
    """``sv-ct-8`` -> ("sv-ct", 8.0).

    Raises
    ------
    InputError
        For another word, or a number that is not above 0.
    """
    found = re.fullmatch(r"(sv-ct|la-ct|cs-mri)-(\d+(?:\.\d+)?)", text)
    if found is None or not float(found[2]) > 0 or (found[1] == "sv-ct" and not float(found[2]).is_integer()):
        raise InputError(
            f"a task named {text!r}", remedy="Use sv-ct-VIEWS, la-ct-DEGREES or cs-mri-ACCELERATION, as sv-ct-8."
        )
    return found[1], float(found[2])  # type: ignore[return-value]


def list_items(config: EvaluateConfig) -> list[Item]:
    """What is to be reconstructed, the methods of one problem one after the other."""
    names = [path.name.removesuffix(".gz").removesuffix(".nii") or str(path) for path in config.volumes]
    if len(set(names)) < len(names):
        names = [str(path).strip("/").replace("/", "_") for path in config.volumes]
    items = []
    for path, name in zip(config.volumes, names, strict=True):
        for task in config.tasks:
            kind, _ = parse_task(task)
            unusable = _CT_ONLY if kind == "cs-mri" else _MRI_ONLY
            items += [Item(path, name, task, method) for method in config.methods if method not in unusable]
    return items


def acquisition(task: str, acquire: AcquisitionConfig) -> tuple[Task, AcquisitionConfig]:
    """The kind of a task and its acquisition: the options of the command with the task's number put in."""
    kind, number = parse_task(task)
    if kind == "sv-ct":
        return kind, replace(acquire, views=int(number), angles=None)
    if kind == "la-ct":
        return kind, replace(acquire, span=number, angles=None)
    return kind, replace(acquire, acceleration=number)


class _Suite:
    """Keeps the priors, the latest volume and the latest problem."""

    run: RunFolder

    def __init__(self, config: EvaluateConfig, with_prior: set[Modality]) -> None:
        self.config = config
        self.priors: dict[Modality, Prior] = {
            modality: load_prior(config.solver, "intensity" if modality == "MRI" else "attenuation")
            for modality in with_prior
        }
        self._volume: tuple[Path, Volume] | None = None
        self._problem: tuple[tuple[Path, str], Problem] | None = None

    def data_range(self, modality: Modality) -> float:
        return self.config.data_range or DATA_RANGE[modality]

    def problem(self, item: Item) -> Problem:
        if self._problem is not None and self._problem[0] == (item.volume, item.task):
            return self._problem[1]
        if self._volume is None or self._volume[0] != item.volume:
            self._volume = (item.volume, open_volume(item.volume, self.config.volume))
        volume, solver = self._volume[1], self.config.solver
        kind, acquire = acquisition(item.task, self.config.acquire)
        prior = self.priors.get(item.modality)
        size = solver.size or (prior.values.size if prior is not None else None)
        size = size or round(side_in_mm(volume) / min(volume.spacing[1:]))
        slices, seed, noise = self.config.volume.slab, solver.seed, solver.noise
        problem = simulated_problem(volume, kind, acquire, size=size, slices=slices, seed=seed, noise=noise)
        problem = problem.to(prior.device if prior is not None else resolve_device(solver.device))
        self._problem = ((item.volume, item.task), problem)
        assert problem.truth is not None
        path = volume_path(self.run, item.name, item.task, "truth")
        write_nifti(problem.on_grid(problem.truth), path, overwrite=True)
        return problem

    def evaluate(self, items: list[Item]) -> list[dict[str, Any]]:
        return [self._row(item) for item in items]

    def _row(self, item: Item) -> dict[str, Any]:
        problem, begin = self.problem(item), time.monotonic()
        assert problem.truth is not None
        truth, data_range = problem.on_grid(problem.truth), self.data_range(item.modality)
        row: dict[str, Any] = {"volume": item.name, "task": item.task, "method": item.method, "data_range": data_range}
        row |= {"slices": len(problem.y), "size": problem.grid.data.shape[1], "pixel": problem.grid.spacing[2]}
        row["plane"] = problem.grid.slice_plane
        if item.method == "tv":
            x, found = self._swept(problem, truth, data_range)
        elif item.method.startswith(DIFFUSION):
            x, found = self._sampled(problem, truth, data_range, item)
        else:
            x, found = classical(problem, item.method, self.config.solver)[0], {}  # type: ignore[arg-type]
        result = problem.on_grid(x)
        write_nifti(result, volume_path(self.run, item.name, item.task, item.method), overwrite=True)
        row |= found | plane_scores(result, truth, data_range)
        notes = [*problem.notes, *filter(None, [scale_note(problem, self.priors.get(item.modality))])]
        residual = float(problem.residuals(x).mean())
        measurement = {**problem.settings, "noise_of_all": problem.noise}
        return row | {
            "residual": residual,
            "seconds": time.monotonic() - begin,
            "measurement": measurement,
            "notes": notes,
        }

    def _swept(self, problem: Problem, truth: Volume, data_range: float) -> tuple[torch.Tensor, dict[str, Any]]:
        """Total variation at its best weight on this very volume."""
        best, sweep = None, []
        for factor in self.config.tv_sweep:
            weight = factor * tv_weight(problem, self.config.solver)
            x, _ = classical(problem, "tv", replace(self.config.solver, tv_weight=weight))
            scores = plane_scores(problem.on_grid(x), truth, data_range)
            score = mean_psnr(scores)
            sweep.append({"weight": weight, "mean_psnr": score, "psnr_volume": scores["psnr_volume"]})
            if best is None or score > best[0]:
                best = score, x, weight
        assert best is not None
        return best[1], {"tv_weight": best[2], "tv_sweep": sweep}

    def _sampled(
        self, problem: Problem, truth: Volume, data_range: float, item: Item
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """The mean of the samples, and how good their first is."""
        solver = replace(self.config.solver, weight=0.0) if item.method == "dds-2d" else self.config.solver
        method, prior = ("mbir" if item.method == "mbir" else "dds"), self.priors[item.modality]
        total, first = torch.zeros((), dtype=torch.float64), {}
        for number in range(self.config.samples):
            x = diffusion(problem, method, prior, solver, sample=number)  # type: ignore[arg-type]
            if not bool(torch.isfinite(x).all()):
                raise InputError(f"{item.method} diverged: values that are not finite")
            if number == 0:
                scores = plane_scores(problem.on_grid(x), truth, data_range)
                first = {f"one_sample_{name}": value for name, value in scores.items()}
            total = total.to(x.device) + x.double()
        each = steps_of(method, solver)  # type: ignore[arg-type]
        calls = self.config.samples * (2 * each - 1 if method == "mbir" else each)
        mean = (total / self.config.samples).float()
        return mean, {"samples": self.config.samples, "network_calls_per_slice": calls, **first}


def volume_path(run: RunFolder, name: str, task: str, method: str) -> Path:
    """Where a reconstruction is kept: ``volumes/NAME/TASK-METHOD.nii.gz``."""
    return run.path / "volumes" / name / f"{task}-{method}.nii.gz"


def _print_sweeps(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if "tv_sweep" in row:
            shown = ", ".join(f"{one['weight']:g}: {one['mean_psnr']:.2f} dB" for one in row["tv_sweep"])
            print(f"{row['key']}: weight {row['tv_weight']:g} is the best for this volume of {shown}")


def _check(config: EvaluateConfig, items: list[Item]) -> None:
    if not items:
        raise InputError("nothing to evaluate", remedy="Name volumes, tasks, and methods that the tasks can use.")
    for word in ("volumes", "tasks", "methods"):
        values = list(map(str, getattr(config, word)))
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise InputError(f"--{word} names {twice} twice")
    for path in config.volumes:
        if not path.exists():
            raise InputError("no such file or folder", path=path, remedy="Check the path.")
    if config.samples < 1:
        raise InputError(f"--samples {config.samples}", remedy="Use 1 or more.")
    if "tv" in config.methods and not (config.tv_sweep and all(0 < one < math.inf for one in config.tv_sweep)):
        raise InputError(f"--tv-sweep {config.tv_sweep}", remedy="Give weights above 0.")
    if config.data_range is not None and not 0 < config.data_range < math.inf:
        raise InputError(f"--data-range {config.data_range}", remedy="Use a number above 0.")
    for method in dict.fromkeys(config.methods):
        plain = "dds" if method == "dds-2d" else method
        check_solver(config.solver, plain)

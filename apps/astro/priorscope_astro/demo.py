"""The demo: a small survey, a plan for its rarest class, galaxies drawn from it, and how good they are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from priorscope.errors import InputError
from priorscope.evaluation.demo_folder import demo_folder
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope_astro.accept_config import AcceptConfig
from priorscope_astro.configs import DemoConfig, EvaluateConfig, GenerateConfig, PlanConfig, SimulateConfig
from priorscope_astro.demo_config import BUNDLED
from priorscope_astro.diffusion.spec import ModelSpec, model_folder
from priorscope_astro.simulator.config import CLASSES, PREVALENCES

#: Share of the demo's survey that is of the rare class; figures are weighted back to nature's.
_SHARE = 0.125
#: The demo's galaxies are none that a bundled model was trained on.
_FIRST = 50_000_000


def demo(config: DemoConfig) -> int:
    """Run ``priorscope astro demo``; returns the exit status.

    Raises
    ------
    InputError
        Without a model, for a model of pictures or of another survey, and for numbers that make no sense.
    """
    _check(config)
    folder = _model_folder(config.model)
    spec = _spec(folder)
    begun = time.monotonic()
    run = demo_folder(config.out, config, "priorscope astro demo")
    took: list[dict[str, Any]] = []

    def step(name: str) -> None:
        took.append({"step": name, "seconds": time.monotonic() - begun - sum(row["seconds"] for row in took)})

    survey = _survey(run, config, spec)
    step("simulate a survey")
    plan = _plan(run, config, survey)
    step("plan")
    generated = run.path / "generated"
    _generate(config, plan, folder, survey, generated)
    step("draw, and state what is acceptable")
    checked = open_fits(generated)
    step("open the FITS files")
    status = _evaluate(run, config, survey, plan.parent / "splits.ecsv", generated, took, step, checked)
    print(f"\n{time.monotonic() - begun:.0f} s\nreport: {run.report_path}")
    return status


def _model_folder(name: str) -> Path:
    """The bundled model, or a run or model folder (InputError: there is none)."""
    folder = model_folder(name)
    if not folder.is_dir():
        raise InputError(
            "no model is bundled here yet" if name == BUNDLED else "no such model folder",
            path=folder,
            remedy="Give --model: what `priorscope astro train SURVEY --mode flux` left.",
        )
    return folder


def open_fits(folder: Path) -> int:
    """Open every FITS file of a run with astropy and verify its checksums; how many there were.

    Raises
    ------
    InputError
        One is damaged (:func:`priorscope_astro.imaging.fits.read_stamp_fits`), or does not say that it is generated.
    """
    from priorscope_astro.imaging.fits import read_stamp_fits

    files = sorted((folder / "images").glob("*.fits"))
    for file in files:
        if read_stamp_fits(file).provenance is None:
            raise InputError("does not say where it comes from", path=file)
    return len(files)


def _check(config: DemoConfig) -> None:
    if config.rare not in CLASSES:
        raise InputError(f"--rare {config.rare}", remedy=f"There are {', '.join(CLASSES)}.")
    for name, least in (("images", 8), ("galaxies", 100), ("classifier_steps", 1), ("steps", 1), ("seed", 0)):
        if getattr(config, name) < least:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy=f"Use {least} or more.")


def _spec(folder: Path) -> ModelSpec:
    from priorscope_astro.simulator.config import BANDS

    spec = ModelSpec.read(folder)
    if spec.mode != "flux" or tuple(spec.bands) != BANDS or spec.unit != "nmgy":
        raise InputError(
            f"is a model of {spec.mode} in {', '.join(spec.bands)}",
            path=folder,
            remedy=f"The demo simulates flux in {', '.join(BANDS)}, nmgy.",
        )
    return spec


def _survey(run: RunFolder, config: DemoConfig, spec: ModelSpec) -> Path:
    """Galaxies as large and as sharp as those that the model has learnt."""
    from priorscope_astro.simulator.survey import run as simulate

    return simulate(
        SimulateConfig(
            run.path / "survey",
            count=config.galaxies,
            size=spec.side,
            pixel_scale=spec.pixel_scale or SimulateConfig.pixel_scale,
            seed=config.seed,
            first=_FIRST,
            prevalence=(f"{config.rare}={_SHARE}",),
            jpeg=False,
        )
    )


def _plan(run: RunFolder, config: DemoConfig, survey: Path) -> Path:
    from priorscope_astro.planning import plan

    path = run.path / "plan" / "plan.ecsv"
    path.parent.mkdir()
    plan(
        PlanConfig(
            survey / "stamps.npz",
            path,
            validation=0.2,
            test=0.3,
            draw="counts",
            counts=(f"{config.rare}={config.images}",),
            reference="none",
            seed=config.seed,
        )
    )
    return path


def _generate(config: DemoConfig, plan: Path, model: Path, survey: Path, out: Path) -> None:
    from priorscope_astro.data.learnt import learnt_by
    from priorscope_astro.generate import generate

    told = learnt_by(model) is not None  # then it is known that it has not learnt these galaxies
    generate(
        GenerateConfig(
            plan,
            out,
            model=str(model),
            steps=config.steps,
            catalogue=("ecsv", "votable", "fits"),
            batch_size=16,
            accept=AcceptConfig(training=None if told else survey / "stamps.npz"),
            device=config.device,
        )
    )


def _evaluate(
    run: RunFolder,
    config: DemoConfig,
    survey: Path,
    splits: Path,
    generated: Path,
    took: list[dict[str, Any]],
    step: Any,
    checked: int,
) -> int:
    from priorscope_astro.data.splits import Splits
    from priorscope_astro.evaluate import evaluate, read_learnt
    from priorscope_astro.evaluation.sample import read_generated, read_real
    from priorscope_astro.evaluation_report import add_findings

    asked = EvaluateConfig(
        generated,
        survey / "stamps.npz",
        splits=splits,
        train_classifiers=True,
        classifier_steps=config.classifier_steps,
        rare=config.rare,
        prevalence=(f"{config.rare}={PREVALENCES[config.rare]}",),
        best=(10,),
        per_class=max(config.images, 60),
        repeats=30,
        seed=config.seed,
        device=config.device,
    )
    drawn, catalogue = read_generated(asked)
    findings = evaluate(asked, run, drawn, read_real(asked, drawn), Splits.read(splits), read_learnt(asked))
    findings.catalogue = catalogue
    step("train three classifiers, compare")
    report = Report(
        f"Galaxies on demand: {config.rare}",
        f"{len(drawn)} drawn, beside a simulated survey of {config.galaxies} galaxies; no data, no network",
    )
    add_findings(report, run, findings, asked)
    report.heading("What is where").paragraph(
        f"The images are FITS in {generated / 'images'}: {checked} files, all opened with astropy, checksums "
        "verified; flux in nanomaggies, an HDU a band, the point spread function, and where each comes from (SYNTH = "
        "T, MODELSHA, SEED, SAMPLER, PROMPT, ...). The catalogue is there as ECSV, VOTable and FITS. There are no "
        "positions on the sky: these galaxies are nowhere."
    )
    report.table(took, "Seconds of each step.", digits=3)
    report.environment(run).write(run.report_path)
    run.write_metrics({**findings.metrics(), "seconds": {row["step"]: row["seconds"] for row in took}, "fits": checked})
    accepted = int(np.sum(catalogue["accepted"])) if catalogue is not None else 0
    print(f"{len(drawn)} galaxies, {accepted} accepted, {checked} FITS files with valid checksums")
    return 0

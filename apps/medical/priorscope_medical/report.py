"""Reports of reconstructions. For research use only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from priorscope.evaluation.figures import figure_to_image
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope_medical.configs import ReconstructConfig
from priorscope_medical.planes import PLANES, curves, shown_slices, spread_planes, three_planes
from priorscope_medical.problem import Modality, Problem
from priorscope_medical.scores import HOW
from priorscope_medical.volumes import RESEARCH_ONLY, Volume

if TYPE_CHECKING:
    from priorscope_medical.reconstruct import Result

LABEL: dict[Modality, str] = {"CT": "attenuation (water 1)", "MRI": "intensity (99.9 % quantile 1)"}
#: Values from black to white, and the difference that is fully coloured.
WINDOW: dict[Modality, tuple[tuple[float, float], float]] = {"CT": ((0.0, 2.0), 0.4), "MRI": ((0.0, 1.0), 0.2)}
METHODS = {
    "dds": "diffusion prior on slices, decomposed diffusion sampling",
    "dds-2d": "the same without coupling of slices",
    "mbir": "diffusion prior on slices, DiffusionMBIR",
    "tv": "total variation in 3D (ADMM)",
    "cgls": "least squares, stopped early",
    "sirt": "simultaneous iterative reconstruction",
    "fbp": "filtered back-projection",
    "zero-filled": "what was not measured is zero",
}


def reconstruction_report(
    run: RunFolder, config: ReconstructConfig, problem: Problem, result: Result, metrics: dict[str, Any]
) -> None:
    """Write ``report.html`` and the figures of a reconstruction; earlier ones of this run are replaced."""
    report = Report(
        f"{config.input.name}: {config.task}, {config.method}",
        f"{len(problem.y)} slices by {METHODS[config.method]}; {RESEARCH_ONLY}.",
    )
    if config.task != "measured":
        report.heading("SIMULATED MEASUREMENTS")
        report.paragraph(
            f"{_how_measured(problem)} This is no scanner's measurement: the volume was known, and was measured on a "
            "grid finer than the one it is reconstructed on."
        )
    else:
        report.heading("Measurement").paragraph(_how_measured(problem))
    for note in metrics["notes"]:
        report.paragraph(f"Note: {note}.")
    report.heading("Result")
    truth = None if problem.truth is None else problem.on_grid(problem.truth)
    at = shown_slices(truth or result.volume)
    _add_planes(report, run, problem, result.volume, truth, at)
    if result.std is not None:
        figure = spread_planes(result.std, LABEL[problem.modality], at, problem.first)
        figure.savefig(run.figures / "std.png", dpi=120)
        report.figure(
            figure_to_image(figure),
            f"Standard deviation of {config.samples} posterior samples, {LABEL[problem.modality]}: where the "
            "measurement and the prior leave it open. A prior that is wrong everywhere alike does not show here.",
        )
    report.heading("Figures")
    if truth is not None:
        scored = [_plane_row(metrics, plane) for plane in PLANES]
        report.table(scored, f"Range of values {metrics['data_range']:g}. {HOW}")
    rest = {"relative residual, mean over slices": "residual_mean", "largest of a slice": "residual_largest"}
    rows = [{"figure": title, "value": metrics[name]} for title, name in rest.items()]
    named = ("network_calls_per_slice", "std_mean", "noise", "seconds", "peak_memory_gigabytes")
    rows += [{"figure": name.replace("_", " "), "value": metrics[name]} for name in named if name in metrics]
    report.table(rows)
    _add_convergence(report, run, config, problem, result)
    residuals = metrics["residual_per_slice"]
    if len(residuals) > 1:
        figure = curves([("|A x - y| / |y|", list(problem.names), residuals)], xlabel="slice", logarithmic=False)
        report.heading("Residual of every slice").figure(
            figure_to_image(figure),
            "How far the result, measured again, is from the measurement, relative to that. A slice that stands out "
            "does not fit its measurement.",
        )
    if "prior" in metrics:
        report.heading("The prior").table([{"what": name, "value": value} for name, value in metrics["prior"].items()])
    report.environment(run).write(run.report_path, overwrite=True)


def _add_planes(
    report: Report,
    run: RunFolder,
    problem: Problem,
    result: Volume,
    truth: Volume | None,
    at: dict[Any, int],
) -> None:
    limits, reach = WINDOW[problem.modality]
    label = LABEL[problem.modality]
    rows, differences = {"result": result}, {}
    if truth is not None:
        rows = {"truth": truth, **rows}
        differences = {"result - truth": result.with_data(result.data - truth.data)}
    figure = three_planes(rows, differences, limits=limits, reach=reach, label=label, at=at, first=problem.first)
    figure.savefig(run.figures / "planes.png", dpi=120)
    report.figure(
        figure_to_image(figure),
        f"From {limits[0]:g} (black) to {limits[1]:g} (white). "
        + (
            "Radiological view: the patient's right is on the left."
            if result.space
            else "The file does not say how the patient lies: which side is right, front and head is a guess."
        ),
    )


def _plane_row(metrics: dict[str, Any], plane: str) -> dict[str, Any]:
    return {"plane": plane, "PSNR (dB)": metrics.get(f"psnr_{plane}"), "SSIM": metrics.get(f"ssim_{plane}")}


def _add_convergence(
    report: Report, run: RunFolder, config: ReconstructConfig, problem: Problem, result: Result
) -> None:
    rows = run.history()
    if result.curve is not None:
        values = result.curve.values
        figure = curves([(result.curve.name, range(len(values)), values)], xlabel="iteration", logarithmic=True)
        report.heading("Convergence").figure(figure_to_image(figure), "Mean over the slices.")
        return
    if len(rows) < 2:
        return
    report.heading("Convergence")
    what = "the network's estimate before the measurement corrects it" if config.method == "dds" else "the noisy volume"
    for name, title, logarithmic in (("residual", "relative residual", True), ("psnr", "PSNR (dB)", False)):
        series = []
        for number in range(config.samples):
            own = [row for row in rows if row["sample"] == number and name in row]
            if own:
                label = title if config.samples == 1 else f"{title}, sample {number}"
                series.append((label, [row["sample_step"] for row in own], [row[name] for row in own]))
        if series:
            figure = curves(series, xlabel="step", logarithmic=logarithmic)
            report.figure(figure_to_image(figure), f"{title.capitalize() if logarithmic else title} of {what}.")


def _how_measured(problem: Problem) -> str:
    s = problem.settings
    if problem.modality == "CT":
        angles = s["angles"]
        views = f"{len(angles)} view{'s' if len(angles) > 1 else ''}"
        views += f" from {min(angles):.4g} to {max(angles):.4g} degrees"
        text = (
            f"{s['geometry'].capitalize()} beam, {views}, {s['detectors']} detectors of {s['pitch']:.3g} mm, "
            f"pixels of {s['pixel']:.3g} mm."
        )
        if "photons" in s:
            photons = f"{s['photons']:,.0f} photons a ray" if s["photons"] else "No noise"
            text += f" {photons}, {s['water_per_mm']:g} per mm of water."
        return text
    lines = s.get("measured_acceleration") or (1 / s["measured_lines"] if s.get("measured_lines") else None)
    text = f"Cartesian k-space of {s['coils']} coil{'s' if s['coils'] > 1 else ''}, one value in {lines:.3g} measured."
    if "snr" in s:
        text += f" Mask {s['mask']}, signal-to-noise ratio {s['snr'] or 'infinite'}."
    return text

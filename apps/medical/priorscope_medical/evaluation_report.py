"""The report of an evaluation: a table a task, pictures of every method, the weights tried for total variation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from priorscope.evaluation.figures import Panel, colourise, figure_to_image, side_by_side
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.suite import SuiteResult
from priorscope_medical.configs import EvaluateConfig
from priorscope_medical.planes import PLANES, picture, shown_slices, slice_title
from priorscope_medical.problem import Modality
from priorscope_medical.report import LABEL, METHODS, WINDOW
from priorscope_medical.scores import HOW
from priorscope_medical.volumes import RESEARCH_ONLY, Plane, Volume, read_volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCORES = [*(f"psnr_{plane}" for plane in PLANES), "psnr_volume", *(f"ssim_{plane}" for plane in PLANES)]


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """A row a method for every task: means over the volumes.

    Returns
    -------
    dict
        Task -> rows of ``method``, ``psnr axial`` ... ``psnr volume`` ... ``ssim sagittal``, ``residual``, ``calls``,
        ``seconds``, ``data_range``. A diffusion method has a second row, of one sample, where it drew several.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        shown = []
        for method in dict.fromkeys(row["method"] for row in own):
            of_method = [row for row in own if row["method"] == method]
            shown.append(_mean_row(method, of_method, ""))
            if of_method[0].get("samples", 1) > 1:
                shown[-1]["method"] = f"{method}, mean of {of_method[0]['samples']}"
                shown.append(_mean_row(f"{method}, one sample", of_method, "one_sample_"))
        found[task] = shown
    return found


def _mean_row(title: str, rows: Sequence[dict[str, Any]], prefix: str) -> dict[str, Any]:
    def mean(name: str) -> float | None:
        values = [row[name] for row in rows if row.get(name) is not None]
        return float(np.mean(values)) if values else None

    found: dict[str, Any] = {"method": title}
    found |= {name.replace("_", " "): mean(prefix + name) for name in _SCORES}
    one = prefix and rows[0]["samples"]
    calls = rows[0].get("network_calls_per_slice")
    found["calls a slice"] = calls // one if one and calls else calls
    found |= {"residual": None if prefix else mean("residual"), "seconds": None if prefix else mean("seconds")}
    return found | {"data_range": rows[0]["data_range"]}


def write_report(run: RunFolder, config: EvaluateConfig, outcome: SuiteResult, metrics: dict[str, Any]) -> None:
    """Write ``report.html`` and the figures."""
    volumes = list(dict.fromkeys(row["volume"] for row in outcome.rows))
    report = Report(
        f"Tomography and MRI: {', '.join(volumes)}",
        f"{len(config.tasks)} tasks, {len(config.methods)} methods; {RESEARCH_ONLY}.",
    )
    report.heading("SIMULATED MEASUREMENTS").paragraph(
        "The volumes are known; each was measured, with noise, on a grid finer than the one it is reconstructed on, "
        "never by the matrix that the reconstruction uses. The truth are means over the reconstruction's pixels."
    )
    report.table([{"method": name, "is": METHODS[name]} for name in config.methods])
    for task, rows in metrics["tasks"].items():
        report.heading(task)
        report.table(
            [{name: row[name] for name in row if name != "data_range"} for row in rows],
            f"PSNR in dB. Range of values {rows[0]['data_range']:g}. {HOW}"
            + (f" Means over {len(volumes)} volumes." if len(volumes) > 1 else ""),
            best={name.replace("_", " "): "greatest" for name in _SCORES},
        )
        own = [row for row in outcome.rows if row["task"] == task]
        _add_sweeps(report, own)
        for name in volumes:
            _add_pictures(report, run, [row for row in own if row["volume"] == name])
    notes = list(dict.fromkeys(f"{row['volume']}: {note}" for row in outcome.rows for note in row["notes"]))
    if notes:
        report.heading("Notes")
        for note in notes:
            report.paragraph(f"{note}.")
    for modality, prior in metrics["priors"].items():
        report.heading(f"The prior, {modality}").table(
            [{"what": name, "value": value} for name, value in prior.items()]
        )
    if outcome.failures:
        report.heading("Failed").table([{"what": f.key, "error": f.error} for f in outcome.failures])
    report.environment(run).write(run.report_path, overwrite=True)


def _add_sweeps(report: Report, rows: Sequence[dict[str, Any]]) -> None:
    swept = [row for row in rows if "tv_sweep" in row]
    if swept:
        report.table(
            [
                {"volume": row["volume"]}
                | {f"weight {one['weight']:g}": one["mean_psnr"] for one in row["tv_sweep"]}
                | {"taken": row["tv_weight"]}
                for row in swept
            ],
            "Total variation: mean PSNR of the three planes in dB, by the weight; the best on each volume is taken, in "
            "its favour.",
        )


def _add_pictures(report: Report, run: RunFolder, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    folder, task = run.path / "volumes" / rows[0]["volume"], rows[0]["task"]
    plane = rows[0]["plane"]
    truth = _read(folder / f"{task}-truth.nii.gz", plane)
    results = {row["method"]: _read(folder / f"{task}-{row['method']}.nii.gz", plane) for row in rows}
    modality: Modality = "MRI" if task.startswith("cs-mri") else "CT"
    figure = _compared(truth, results, modality, rows[0]["measurement"]["first_slice"])
    name = f"{rows[0]['volume']}-{task}"
    figure.savefig(run.figures / f"{name}.png", dpi=110)
    limits, reach = WINDOW[modality]
    report.figure(
        figure_to_image(figure, dpi=100),
        f"{name}: from {limits[0]:g} (black) to {limits[1]:g} (white), and differences from the truth from {-reach:g} "
        f"(blue) to {reach:g} (red); {LABEL[modality]}. The patient's right is on the left.",
    )


def _compared(truth: Volume, results: dict[str, Volume], modality: Modality, first: int = 0) -> Figure:
    """Rows of truth and methods: three planes, then three differences."""
    limits, reach = WINDOW[modality]
    at = shown_slices(truth)
    planes = [plane for plane in PLANES if plane in truth.planes]
    panels = []
    for name, volume in {"truth": truth, **results}.items():
        grey = [colourise(picture(volume, plane, at[plane]), "gray", *limits) for plane in planes]
        titles = [f"{name}, {slice_title(truth, plane, at[plane], first)}" for plane in planes]
        panels += [Panel(image, title) for image, title in zip(grey, titles, strict=True)]
        change = volume.with_data(volume.data - truth.data)
        coloured = [colourise(picture(change, plane, at[plane]), "RdBu_r", -reach, reach) for plane in planes]
        panels += [Panel(image, "" if name == "truth" else f"{name} - truth") for image in coloured]
    return side_by_side(panels, columns=2 * len(planes), width=13.0)


def _read(path: Any, plane: Plane) -> Volume:
    """A volume that this run wrote, with its slices in the plane that it was measured in."""
    return read_volume(path, unit="attenuation", slices=plane)

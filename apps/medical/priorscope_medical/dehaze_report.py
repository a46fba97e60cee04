"""The report of a dehazed cine: before, after, what was taken off, figures. For research use only."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.video import write_video
from priorscope.errors import InputError
from priorscope.evaluation.figures import Panel, colourise, figure_to_image, side_by_side
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope_medical.configs import DehazeConfig
from priorscope_medical.ultrasound.bmode_figures import HOW, Regions, find_regions
from priorscope_medical.ultrasound.bmode_pipeline import Dehazed
from priorscope_medical.ultrasound.burnt_in_text import Screen
from priorscope_medical.ultrasound.cine import Cine
from priorscope_medical.ultrasound.write_cine import USUAL_RATE, as_rgb
from priorscope_medical.volumes import RESEARCH_ONLY

VIDEO = "before-after.mp4"
_COLOURS = {"wall": (230, 120, 40), "chamber": (60, 140, 230), "haze": (90, 200, 90)}
#: Name of a figure -> title, unit and whether it should rise, fall, or is only told.
_FIGURES = {
    "contrast_wall_haze": "contrast of wall and haze region (grey values)",
    "gcnr_wall_haze": "gCNR of wall and haze region",
    "cnr_wall_haze": "CNR of wall and haze region",
    "contrast_wall_chamber": "contrast of wall and chamber (grey values)",
    "gcnr_wall_chamber": "gCNR of wall and chamber",
    "cnr_wall_chamber": "CNR of wall and chamber",
    "haze_grey": "mean of the haze region (grey values)",
    "wall_grey": "mean of the wall (grey values)",
    "edge_steepness": "steepness of edges (grey values a pixel)",
    "wall_width": "width of walls at half maximum (pixels)",
    "frame_difference": "mean change from frame to frame (grey values)",
}


def dehaze_report(
    folder: Path,
    config: DehazeConfig,
    cine: Cine,
    cleaned: Cine,
    screen: Screen,
    found: Dehazed,
    metrics: dict[str, Any],
) -> Path:
    """Write the run folder with ``report.html``, ``metrics.json``, figures and the video; returns the report's path."""
    run = report_run(folder, config, metrics)
    report = Report(
        f"{config.input.name}: dehazed by {config.method}",
        f"{len(cine.frames)} frames, strength {config.strength:g}; {RESEARCH_ONLY}.",
    )
    report.heading("Before, after, and what was taken off")
    report.paragraph(
        "The prior says how much haze lies where, and that is spread smoothly; what is taken off follows the picture's "
        "own detail under it, and no pixel becomes brighter. Whether a grey region is haze or weakly echoing tissue is "
        "the prior's guess, and thin leaflets and walls lose brightness too, so compare with the original before any "
        "conclusion."
    )
    _add_pictures(report, run, cine, cleaned, screen, found)
    if len(cine.frames) > 1:
        write_pairs(run, cine.frames, cleaned.frames, cine.frame_rate or USUAL_RATE)
        report.paragraph(f"{VIDEO}, beside this report, shows the whole sequence before (left) and after (right).")
    for note in metrics["notes"]:
        report.paragraph(f"Note: {note}.")
    _add_figures(report, cine, screen, metrics)
    report.heading("The prior and the run")
    named = ("method", "steps", "start", "omega", "seed", "seconds")
    rows = [{"what": name, "value": metrics[name]} for name in named]
    report.table(rows + [{"what": name, "value": value} for name, value in metrics["prior"].items()])
    report.environment(run).write(run.report_path, overwrite=True)
    return run.report_path


def _add_pictures(report: Report, run: RunFolder, cine: Cine, cleaned: Cine, screen: Screen, found: Dehazed) -> None:
    rows, columns = (np.flatnonzero(screen.sector.any(axis)) for axis in (1, 0))
    at = slice(max(0, rows[0] - 8), rows[-1] + 9), slice(max(0, columns[0] - 8), columns[-1] + 9)
    chosen = np.unique(np.linspace(0, len(cine.frames) - 1, 3).round().astype(int))
    top = max(0.02, float(np.percentile(found.haze[:, screen.sector], 99.5)))
    title = f"taken off, 0 to {255 * top:.0f} and more"
    panels = []
    for index in chosen:
        panels += [
            Panel(as_rgb(cine.frames[index])[at], f"frame {index}: before"),
            Panel(as_rgb(cleaned.frames[index])[at], "after"),
            Panel(colourise(255 * found.haze[index][at], "magma", 0, 255 * top), title),
        ]
    figure = side_by_side(panels, columns=3, width=12.0)
    figure.savefig(run.figures / "before-after.png", dpi=110)
    report.figure(
        figure_to_image(figure, dpi=110),
        f"The sector before, after, and what was taken off in grey values (black 0, white {255 * top:.0f} and more; "
        f"{255 * found.haze.max():.0f} at most, in any frame).",
    )


def _add_figures(report: Report, cine: Cine, screen: Screen, metrics: dict[str, Any]) -> None:
    report.heading("Figures")
    rows = [
        {"figure": title, "before": metrics.get(f"{name}_before"), "after": metrics.get(f"{name}_after")}
        for name, title in _FIGURES.items()
        if metrics.get(f"{name}_before") is not None
    ]
    report.table(rows, HOW)
    rest = []
    if metrics.get("edge_steepness_ratio") is not None:
        rest.append({"figure": "steepness of edges, after / before", "value": metrics["edge_steepness_ratio"]})
    if metrics.get("change_beyond_the_input") is not None:
        what = "change from frame to frame beyond the input's, in parts of that"
        rest.append({"figure": what, "value": metrics["change_beyond_the_input"]})
    rest.append(
        {
            "figure": "pixels outside of the sector, and of what was found to be written in it, that changed",
            "value": metrics["kept_pixels_changed"],
        }
    )
    report.table(rest)
    editable = screen.sector & ~screen.kept
    try:
        regions = find_regions(cine.grey, editable)
    except InputError:
        return
    report.figure(
        _painted(cine, screen, regions),
        "Regions of the figures: wall orange, chamber blue, haze green; "
        "the sector's border white, what is written over it red.",
    )


def _painted(cine: Cine, screen: Screen, regions: Regions) -> NDArray[np.uint8]:
    from scipy.ndimage import binary_erosion

    picture = as_rgb(cine.frames[0]).astype(np.float64)
    for name, colour in _COLOURS.items():
        mask = getattr(regions, name)
        picture[mask] = 0.6 * picture[mask] + 0.4 * np.array(colour)
    picture[screen.sector & ~binary_erosion(screen.sector)] = 255
    picture[screen.sector & screen.kept] = (255, 0, 0)
    return np.clip(picture, 0, 255).astype(np.uint8)


def report_run(folder: Path, config: DehazeConfig, metrics: dict[str, Any]) -> RunFolder:
    """The run folder of a report with its metrics; with ``--overwrite`` an earlier one is replaced."""
    if config.overwrite and (folder / "config.yaml").is_file():
        shutil.rmtree(folder)
    run = RunFolder.create(folder, config)
    run.write_metrics(metrics)
    return run


def write_pairs(run: RunFolder, before: NDArray[np.uint8], after: NDArray[np.uint8], rate: float) -> None:
    """The video of frames [T, H, W] or [T, H, W, 3] before (left) and after (right)."""
    pairs = (np.concatenate([as_rgb(a), as_rgb(b)], axis=1) for a, b in zip(before, after, strict=True))
    write_video(run.path / VIDEO, pairs, rate, overwrite=True)

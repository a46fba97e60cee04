"""``priorscope medical evaluate-ultrasound``: RF before and after dehazing, in numbers. For research use only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.evaluation.figures import Panel, colourise, figure_to_image, side_by_side
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.tables import print_table
from priorscope_medical.ultrasound.cine_file import read_regions, read_rf
from priorscope_medical.ultrasound.cine_scores import RANGE, contrast_scores, decibels, envelope, truth_scores
from priorscope_medical.ultrasound.heart_scatterers import BLOOD, WALL
from priorscope_medical.ultrasound.metrics import flicker
from priorscope_medical.ultrasound.rf_pairs import RfPair, rf_pairs
from priorscope_medical.ultrasound_configs import EvaluateUltrasoundConfig
from priorscope_medical.volumes import RESEARCH_ONLY

_HOW = {
    "gcnr": "wall against blood pool: 1 minus the overlap of the histograms of decibels",
    "cnr": "difference of the means over the root of the sum of the variances, of decibels",
    "cnr_db": "20 log10 of that, the other convention",
    "ks": "largest distance of the cumulative distributions of wall and blood pool",
    "fwhm_beams": "width of the envelope's autocorrelation across the beams",
    "fwhm_samples": "and along them",
    "psnr": "dB, against the RF without haze, whose largest size is the peak",
    "weak_error": "norm of the error over the truth's in the weakly echoing wall",
    "wall_error": "in the wall",
    "blood_error": "in the blood pool",
    "flicker": "change of the envelope from frame to frame beyond the truth's, in parts of that",
    "flicker_of_input": "the same against the input",
}


def evaluate_ultrasound(config: EvaluateUltrasoundConfig) -> int:
    """Run ``priorscope medical evaluate-ultrasound``; returns the exit status."""
    if config.bins < 2:
        raise InputError(f"--bins {config.bins}", remedy="Use 256.")
    pairs = rf_pairs(config.before, config.after, config.truth, config.regions)
    first = _read(pairs[0])
    rows = _measured(pairs[0], first, config.bins)
    for pair in pairs[1:]:
        rows += _measured(pair, _read(pair), config.bins)
    run = RunFolder.create(config.out, config)
    means = [
        {"rf": state} | _means([row for row in rows if row["rf"] == state])
        for state in dict.fromkeys(row["rf"] for row in rows)
    ]
    metrics: dict[str, Any] = {row["rf"]: _figures(row) for row in means}
    if len(pairs) > 1:
        metrics["cines"] = len(pairs)
        metrics["each"] = {
            pair.name: {row["rf"]: _figures(row) for row in rows if row["cine"] == pair.name} for pair in pairs
        }
    run.write_metrics(metrics)
    _report(run, config, means, rows, first)
    print_table(_even(means), ".3f")
    print(f"report: {run.report_path}  ({RESEARCH_ONLY})")
    return 0


@dataclass(frozen=True)
class _Cine:
    """RF of one cine before and after, and what is known of it; all [frames, samples, beams]."""

    before: NDArray[Any]
    after: NDArray[Any] | None
    clean: NDArray[Any] | None
    regions: NDArray[Any] | None


def _read(pair: RfPair) -> _Cine:
    before = read_rf(pair.before, dehazed=pair.after is None)
    after = None if pair.after is None else read_rf(pair.after, dehazed=True).rf
    if after is not None and after.shape != before.rf.shape:
        raise InputError(
            f"RF of shape {list(after.shape)}", path=pair.after, remedy=f"{list(before.rf.shape)} was expected."
        )
    clean = read_rf(pair.truth).rf if pair.truth else before.clean
    if clean is not None and clean.shape != before.rf.shape:
        raise InputError(
            f"RF of shape {list(clean.shape)}", path=pair.truth, remedy=f"{list(before.rf.shape)} was expected."
        )
    regions = read_regions(pair.regions, before.rf.shape) if pair.regions else before.regions
    for rf, path in ((before.rf, pair.before), (after, pair.after), (clean, pair.truth or pair.before)):
        if rf is not None and not np.ptp(rf, axis=1).any():
            raise InputError("RF without a signal: every line is constant", path=path, remedy="Check the file.")
    contrast = regions is not None and _has_contrast(regions)
    if clean is None and not contrast and (after is None or not _moves(before.rf)):
        raise InputError(
            "neither truth, regions of wall (1) and blood (2) nor frames that change before and after: nothing can be "
            "measured",
            path=pair.before,
            remedy="Give --regions or --truth.",
        )
    return _Cine(before.rf, after, clean, regions)


def _has_contrast(regions: NDArray[Any]) -> bool:
    return bool((regions == WALL).any() and (regions == BLOOD).any())


def _moves(rf: NDArray[Any]) -> bool:
    return bool(np.diff(rf, axis=0).any())


def _measured(pair: RfPair, cine: _Cine, bins: int) -> list[dict[str, Any]]:
    states = {"measured": cine.before} if cine.after is None else {"before": cine.before, "after": cine.after}
    return [{"cine": pair.name, "rf": state} | _scores(rf, cine, bins) for state, rf in states.items()]


def _figures(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in ("cine", "rf")}


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of each figure over the cines that have it."""
    names = dict.fromkeys(name for row in rows for name in _figures(row))
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def _even(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the same columns; None where a figure is missing."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def _scores(rf: NDArray[Any], cine: _Cine, bins: int) -> dict[str, float]:
    found: dict[str, float] = {}
    if cine.clean is not None:
        found |= truth_scores(rf, cine.clean, cine.regions)
    if cine.regions is not None and _has_contrast(cine.regions):
        found |= contrast_scores(rf, cine.regions, bins=bins)
    if cine.after is not None and _moves(cine.before):
        found["flicker_of_input"] = flicker(envelope(rf), envelope(cine.before))
    return found


def _report(
    run: RunFolder,
    config: EvaluateUltrasoundConfig,
    means: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    first: _Cine,
) -> None:
    cines = dict.fromkeys(row["cine"] for row in rows)
    report = Report(f"Dehazing of {config.before.name}", f"RF before and after; {RESEARCH_ONLY}.")
    best = {"gcnr": "greatest", "psnr": "greatest", "weak_error": "least", "wall_error": "least", "flicker": "least"}
    over = f" Means over {len(cines)} cines, of those that have the figure." if len(cines) > 1 else ""
    report.heading("Figures").table(means, f"Histograms of {config.bins} bins.{over}", best=best)
    known = dict.fromkeys(name for row in means for name in row)
    report.table([{"figure": name, "is": how} for name, how in _HOW.items() if name in known])
    if len(cines) > 1:
        report.table(rows, "Each cine.")
    before, after, clean = first.before, first.after, first.clean
    top = float(envelope(clean if clean is not None else before[:1]).max())
    shown = {"measured": before} if after is None else {"before": before, "after": after, "removed": before - after}
    shown |= {} if clean is None else {"truth": clean}
    panels = [
        Panel(colourise(_shown(decibels(envelope(rf[:1])[0], top)), "gray", -RANGE, 0.0), name)
        for name, rf in shown.items()
    ]
    figure = side_by_side(panels, columns=len(panels), width=13.0)
    figure.savefig(run.figures / "frame.png", dpi=110)
    report.figure(
        figure_to_image(figure, dpi=100),
        f"Envelope of the first frame of {next(iter(cines))}, beams from left to right, down to -{RANGE:g} dB; one "
        "scale for all.",
    )
    report.environment(run).write(run.report_path)


def _shown(image: NDArray[Any]) -> NDArray[Any]:
    """Means of samples and repeated beams, so that the picture is about 400 by 320."""
    every = max(1, image.shape[0] // 400)
    rows = image[: image.shape[0] // every * every].reshape(-1, every, image.shape[1]).mean(1)
    return np.repeat(rows, max(1, round(320 / image.shape[1])), axis=1)

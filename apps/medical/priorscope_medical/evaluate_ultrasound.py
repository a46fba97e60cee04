"""``priorscope medical evaluate-ultrasound``: RF before and after dehazing, in numbers. For research use only."""

from __future__ import annotations

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
from priorscope_medical.ultrasound.metrics import flicker
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
    before, after = read_rf(config.before), read_rf(config.after, dehazed=True).rf
    if before.rf.shape != after.shape:
        raise InputError(
            f"RF of shape {list(after.shape)}", path=config.after, remedy=f"{list(before.rf.shape)} was expected."
        )
    clean = read_rf(config.truth).rf if config.truth else before.clean
    regions = read_regions(config.regions, after.shape) if config.regions else before.regions
    if clean is None and regions is None and len(after) < 2:
        raise InputError(
            "neither truth, regions nor a second frame: nothing can be measured",
            path=config.before,
            remedy="Give --regions or --truth.",
        )
    run = RunFolder.create(config.out, config)
    rows: list[dict[str, Any]] = [
        {"rf": name} | _scores(rf, before.rf, clean, regions, config.bins)
        for name, rf in (("before", before.rf), ("after", after))
    ]
    run.write_metrics({row["rf"]: {name: row[name] for name in row if name != "rf"} for row in rows})
    _report(run, config, rows, before.rf, after, clean)
    print_table(rows, ".3f")
    print(f"report: {run.report_path}  ({RESEARCH_ONLY})")
    return 0


def _scores(
    rf: NDArray[Any], source: NDArray[Any], clean: NDArray[Any] | None, regions: NDArray[Any] | None, bins: int
) -> dict[str, float]:
    found: dict[str, float] = {}
    if clean is not None:
        found |= truth_scores(rf, clean, regions)
    if regions is not None and {1, 2} <= set(np.unique(regions).tolist()):
        found |= contrast_scores(rf, regions, bins=bins)
    if len(rf) > 1 and np.ptp(np.diff(source, axis=0)) > 0:
        found["flicker_of_input"] = flicker(envelope(rf), envelope(source))
    return found


def _report(
    run: RunFolder,
    config: EvaluateUltrasoundConfig,
    rows: list[dict[str, Any]],
    before: NDArray[Any],
    after: NDArray[Any],
    clean: NDArray[Any] | None,
) -> None:
    report = Report(f"Dehazing of {config.before.name}", f"RF before and after; {RESEARCH_ONLY}.")
    best = {"gcnr": "greatest", "psnr": "greatest", "weak_error": "least", "wall_error": "least", "flicker": "least"}
    report.heading("Figures").table(rows, f"Histograms of {config.bins} bins.", best=best)
    report.table([{"figure": name, "is": how} for name, how in _HOW.items() if name in rows[1]])
    top = float(envelope(clean if clean is not None else before[:1]).max())
    shown = {"before": before, "after": after, "removed": before - after}
    shown |= {} if clean is None else {"truth": clean}
    panels = [
        Panel(colourise(_shown(decibels(envelope(rf[:1])[0], top)), "gray", -RANGE, 0.0), name)
        for name, rf in shown.items()
    ]
    figure = side_by_side(panels, columns=len(panels), width=13.0)
    figure.savefig(run.figures / "frame.png", dpi=110)
    report.figure(
        figure_to_image(figure, dpi=100),
        f"Envelope of the first frame, beams from left to right, down to -{RANGE:g} dB; one scale for all.",
    )
    report.environment(run).write(run.report_path)


def _shown(image: NDArray[Any]) -> NDArray[Any]:
    """Means of samples and repeated beams, so that the picture is about 400 by 320."""
    every = max(1, image.shape[0] // 400)
    rows = image[: image.shape[0] // every * every].reshape(-1, every, image.shape[1]).mean(1)
    return np.repeat(rows, max(1, round(320 / image.shape[1])), axis=1)

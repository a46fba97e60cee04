"""The report of a training: curves, slices drawn from the prior, how to use it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.diffusion.noise import Noise
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.schedule import VPSchedule
from priorscope.diffusion.spacing import spaced_times
from priorscope.evaluation.figures import Panel, colourise, figure_to_image, side_by_side
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.curves import add_curves
from priorscope.training.loop import FitResult
from priorscope_medical.configs import TrainConfig
from priorscope_medical.prior import SlicePrior
from priorscope_medical.report import LABEL, WINDOW
from priorscope_medical.score_prior import Prior, ScorePrior, describe
from priorscope_medical.training.data import Slices
from priorscope_medical.volumes import RESEARCH_ONLY

_DRAWN, _COLUMNS = 8, 8


def draw_slices(prior: Prior, count: int, *, steps: int = 30, seed: int = 0) -> torch.Tensor:
    """Slices that the prior makes up: (count, 1, size, size) in its unit, by deterministic sampling."""
    schedule = prior.denoiser.schedule
    times = spaced_times(schedule, steps, "trailing" if isinstance(schedule, VPSchedule) else "linspace")
    shape = (count, 1, prior.values.size, prior.values.size)
    start = schedule(times[0])[1] * Noise.for_items(seed, range(count)).draw(shape, device=prior.device)
    with torch.no_grad():
        return prior.values.from_network(sample(prior.denoiser, start, times))


def write_report(run: RunFolder, config: TrainConfig, result: FitResult, slices: Slices) -> None:
    """Write ``report.html`` from metrics.jsonl and the model; an earlier one of this run is replaced."""
    prior: Prior
    if config.network == "ncsnpp":
        prior = ScorePrior.from_pretrained(result.model, device=config.loop.device)
    else:
        prior = SlicePrior.from_pretrained(result.model, device=config.loop.device)
    prior.network.eval()
    modality = "CT" if slices.unit == "attenuation" else "MRI"
    report = Report(
        f"A prior on slices: {slices.title}",
        f"{len(slices.read())} slices of {config.size} x {config.size} pixels of {slices.pixel:.3g} mm, "
        f"{result.step} steps; {RESEARCH_ONLY}.",
    )
    if not result.finished:
        report.paragraph("The run is not finished; the same command with --resume goes on.")
    add_curves(report, run.history())
    report.heading("Slices")
    limits, _ = WINDOW[modality]  # type: ignore[index]
    drawn = draw_slices(prior, _DRAWN, seed=config.loop.seed)[:, 0].cpu().numpy()
    learnt = _spread(np.asarray(slices.read()[:: max(1, len(slices.read()) // _DRAWN)], np.float32))
    figure = side_by_side(
        [*_panels("drawn from the prior", drawn, limits), *_panels("learnt from", learnt, limits)],
        columns=_COLUMNS,
        width=13.0,
    )
    figure.savefig(run.figures / "slices.png", dpi=110)
    report.figure(
        figure_to_image(figure, dpi=100),
        f"Above: slices that the prior makes up. Below: some it was trained on. From {limits[0]:g} (black) to "
        f"{limits[1]:g} (white); {LABEL[modality]}. They lie as their files count: a head may be upside down.",  # type: ignore[index]
    )
    report.heading("The prior")
    report.table([{"what": name, "value": value} for name, value in describe(prior).items()])
    report.paragraph(f"It is used with `priorscope medical reconstruct VOLUME --prior {result.model}`.")
    report.environment(run).write(run.report_path, overwrite=True)


def _spread(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return images[np.linspace(0, len(images) - 1, min(_DRAWN, len(images))).round().astype(int)]


def _panels(title: str, images: NDArray[np.float32], limits: tuple[float, float]) -> list[Panel]:
    panels = [
        Panel(colourise(image, "gray", *limits), title if not place else "") for place, image in enumerate(images)
    ]
    blank = Panel(np.full((*images.shape[1:], 3), 255, np.uint8))
    return panels + [blank] * (_COLUMNS - len(panels))

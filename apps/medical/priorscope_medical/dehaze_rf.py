"""``priorscope medical dehaze`` of channel data and RF: lines, two priors, pictures. For research use only."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.evaluation.figures import Panel, figure_to_image, side_by_side
from priorscope.evaluation.report import Report
from priorscope.evaluation.tables import print_table
from priorscope_medical.configs import DehazeConfig
from priorscope_medical.dehaze_options import check_for_rf
from priorscope_medical.dehaze_report import VIDEO, report_run, write_pairs
from priorscope_medical.ultrasound.beamforming import sector_grid
from priorscope_medical.ultrasound.channel_data import clipping_notes
from priorscope_medical.ultrasound.cine import Cine
from priorscope_medical.ultrasound.cine_scores import envelope
from priorscope_medical.ultrasound.display import time_gain
from priorscope_medical.ultrasound.hdf5 import item, number, open_hdf5
from priorscope_medical.ultrasound.metrics import flicker
from priorscope_medical.ultrasound.read import read_channel_data
from priorscope_medical.ultrasound.rf_dehaze import LAST, Separated, dehaze_rf
from priorscope_medical.ultrasound.rf_lines import RfLines, rf_lines
from priorscope_medical.ultrasound.rf_pictures import rf_pictures
from priorscope_medical.ultrasound.rf_prior import RfPrior
from priorscope_medical.ultrasound.write_cine import USUAL_RATE, as_rgb, check_out, write_cine
from priorscope_medical.volumes import RESEARCH_ONLY

#: Hz above which nobody can watch.
_FASTEST = 120.0


@dataclass(frozen=True)
class Recording:
    """Lines of RF, and what their file says of them."""

    lines: RfLines
    frequency: float
    """Of the carrier in Hz."""
    speed: float
    frame_rate: float | None
    notes: tuple[str, ...]

    @property
    def played(self) -> float:
        """Frames a second of a video: the recording's, or fewer than anybody could watch."""
        return self.frame_rate if self.frame_rate is not None and self.frame_rate <= _FASTEST else USUAL_RATE


def dehaze_recording(config: DehazeConfig, folder: Path) -> int:
    """Dehaze channel data or lines of RF; the report goes to ``folder``. Returns the exit status."""
    check_for_rf(config)
    begin = time.monotonic()
    recording = read_recording(config)
    lines = recording.lines
    check_out(config.out, len(lines.rf))
    tissue, haze = (RfPrior.from_pretrained(name, device=config.device) for name in config.rf_priors)
    frames, samples, beams = lines.rf.shape
    print(f"{config.input}: {frames} frames of {beams} lines of {samples} samples; {RESEARCH_ONLY}.")
    if recording.frame_rate is not None and recording.frame_rate > _FASTEST:
        slower = (
            f"videos play {recording.frame_rate / USUAL_RATE:.0f} times slower than the {recording.frame_rate:g} Hz"
        )
        recording = replace(recording, notes=(*recording.notes, slower))
    if frames == 1:
        still = "one frame does not tell what moves, and much tissue may be taken for haze"
        recording = replace(recording, notes=(*recording.notes, still))
    for note in recording.notes:
        print(f"note: {note}")
    found = dehaze_rf(
        lines.rf,
        tissue,
        haze,
        gamma=config.strength,
        steps=config.steps,
        start=1.0 if config.start is None else config.start,
        last=LAST if config.last is None else config.last,
        carrier=lines.carrier,
        samples=config.samples,
        seed=config.seed,
        batch_size=config.batch_size or 8,
        device=config.device,
    )
    white = float(envelope(lines.rf).max())
    shown = {"before": lines.rf, "after": found.tissue, "removed haze": lines.rf - found.tissue}
    # all at once: between which lines a pixel lies is found a single time
    every, pixel = rf_pictures(
        np.concatenate(list(shown.values())), lines.points, reference=white, dynamic_range=config.dynamic_range
    )
    pictures = dict(zip(shown, np.split(every, len(shown)), strict=True))
    cine = Cine(
        pictures["after"],
        recording.played if config.out.suffix.lower() == ".mp4" else recording.frame_rate,
        pixel,
        config.input,
        "array",
        recording.notes,
    )
    how = f"RF dehazed under the priors {' and '.join(config.rf_priors)}, strength {config.strength:g}"
    write_cine(cine, config.out, how=how, overwrite=config.overwrite)
    print(f"cleaned: {config.out}")
    if config.report:
        metrics = _metrics(config, recording, found, time.monotonic() - begin)
        path = _report(config, folder, recording, found, pictures, metrics)
        print_table([{"figure": name, "value": metrics[name]} for name in metrics if name in _FIGURES])
        print(f"report: {path}")
    print(f"{time.monotonic() - begin:.0f} s for {frames} frames; {RESEARCH_ONLY}.")
    return 0


def read_recording(config: DehazeConfig) -> Recording:
    """Lines of a file: those of `simulate-ultrasound` as they are, channel data beamformed; then time-gain."""
    recording = _simulated(config)
    if recording is None:
        data = read_channel_data(
            config.input, frames=_chosen(config.frames), carrier=config.carrier, bandwidth=config.bandwidth
        )
        _check_count(config, len(data.samples))
        made = rf_lines(data)
        assert data.carrier is not None, "rf_lines refuses data without one"
        recording = Recording(made, data.carrier, data.speed, data.frame_rate, data.notes)
    if not config.attenuation:
        return recording
    lines = recording.lines
    gained = time_gain(
        torch.from_numpy(lines.rf).swapaxes(1, 2),
        torch.from_numpy(np.median(2 * line_depths(lines.points) / recording.speed, axis=1)),
        frequency=recording.frequency,
        attenuation=config.attenuation,
        speed=recording.speed,
    )
    return replace(recording, lines=replace(lines, rf=gained.swapaxes(1, 2).contiguous().numpy()))


def _simulated(config: DehazeConfig) -> Recording | None:
    """The hazy lines of a file of `simulate-ultrasound`; None: another file."""
    path = config.input
    if path.suffix.lower() not in (".h5", ".hdf5"):
        return None
    from priorscope_medical.ultrasound.cine_file import checked_rf

    with open_hdf5(path) as file:
        if "data/hazy" not in file:
            return None
        for name in ("carrier", "bandwidth"):
            if getattr(config, name) is not None:
                raise InputError(
                    f"--{name} with {path.name}: its lines are made already", remedy="Leave it out: it is in the file."
                )
        hazy, scan = file["data/hazy"], item(file, "scan", path)
        if hazy.ndim == 3:
            hazy = hazy[_chosen(config.frames)]
            _check_count(config, len(hazy))
        rf = checked_rf(np.asarray(hazy), path)
        angles, depths = (np.asarray(item(scan, name, path)[()]).ravel() for name in ("angles", "depths"))
        carrier, sampling, speed, rate = (
            number(scan, name, path) for name in ("carrier", "sampling", "sound_speed", "frame_rate")
        )
    if rf.shape[1:] != (len(depths), len(angles)):
        raise InputError(
            f"RF of shape {list(rf.shape)} for {len(depths)} depths and {len(angles)} beams",
            path=path,
            remedy="[frames, samples, beams] was expected: are axes in another order?",
        )
    if not min(carrier, sampling, speed, rate) > 0:
        raise InputError("scan holds a number that is not positive", path=path)
    return Recording(
        RfLines(rf, sector_grid(angles, depths), carrier / sampling), carrier, speed, rate, clipping_notes(rf, path)
    )


def line_depths(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """How far along its line, from the probe's surface z = 0, each of ``points`` (samples, beams, 3) lies, in m."""
    reach = points[-1] - points[0]
    steepness = reach[:, 2] / np.linalg.norm(reach, axis=-1)
    before = points[0, :, 2] / np.maximum(steepness, 1e-3)
    return np.asarray(before + np.linalg.norm(points - points[0], axis=-1), dtype=np.float64)


def _chosen(frames: tuple[int, int] | None) -> slice:
    if frames is None:
        return slice(None)
    if not 0 <= frames[0] < frames[1]:
        raise InputError(f"frames {frames[0]} to {frames[1]}", remedy="Give the first, and one after the last.")
    return slice(*frames)


def _check_count(config: DehazeConfig, count: int) -> None:
    if config.frames is not None and count != config.frames[1] - config.frames[0]:
        first, end = config.frames
        raise InputError(
            f"frames {first} to {end} of {first + count if count else 'fewer'}",
            path=config.input,
            remedy="Give the first, and one after the last.",
        )


_FIGURES = {
    "removed_db": "power that was taken off, of all, in dB",
    "removed_near_db": "the same in the nearest third of the lines",
    "flicker": "change from frame to frame beyond the input's, in parts of that",
}


def _metrics(config: DehazeConfig, recording: Recording, found: Separated, seconds: float) -> dict[str, Any]:
    before, after = recording.lines.rf, found.tissue
    removed = before - after

    def share(rows: slice) -> float:
        power = float(np.square(before[:, rows], dtype=np.float64).sum())
        return 10 * float(np.log10(max(np.square(removed[:, rows], dtype=np.float64).sum() / power, 1e-12)))

    near = slice(0, before.shape[1] // 3)
    metrics: dict[str, Any] = {"for": RESEARCH_ONLY, "frames": len(before), "priors": list(config.rf_priors)}
    metrics |= {"removed_db": share(slice(None)), "removed_near_db": share(near)}
    if len(before) > 1 and np.ptp(np.diff(before, axis=0)) > 0:
        metrics["flicker"] = flicker(envelope(after), envelope(before))
    metrics |= {
        "strength": config.strength,
        "steps": config.steps,
        "samples": config.samples,
        "seed": config.seed,
        "seconds": seconds,
    }
    return metrics | {"frequency": recording.frequency, "frame_rate": recording.frame_rate, "notes": recording.notes}


def _report(
    config: DehazeConfig,
    folder: Path,
    recording: Recording,
    found: Separated,
    pictures: dict[str, NDArray[np.uint8]],
    metrics: dict[str, Any],
) -> Path:
    run = report_run(folder, config, metrics)
    lines = recording.lines
    np.savez_compressed(run.path / "rf.npz", tissue=found.tissue, haze=found.haze, points=lines.points, rf=lines.rf)
    report = Report(f"{config.input.name}: RF dehazed", f"{len(lines.rf)} frames; {RESEARCH_ONLY}.")
    report.heading("Before, after, and what was taken off")
    report.paragraph(
        "Haze was subtracted from the RF itself. What is haze and what is tissue is the priors' guess: they have seen "
        f"simulated hearts only, so compare with the original before any conclusion. All pictures: one white, "
        f"{config.dynamic_range:g} dB to black. rf.npz beside this report holds the lines: rf = tissue + strength haze."
    )
    chosen = np.unique(np.linspace(0, len(lines.rf) - 1, 3).round().astype(int))
    panels = [
        Panel(as_rgb(shots[index]), f"frame {index}: {name}") for index in chosen for name, shots in pictures.items()
    ]
    figure = side_by_side(panels, columns=len(pictures), width=12.0)
    figure.savefig(run.figures / "before-after.png", dpi=110)
    report.figure(figure_to_image(figure, dpi=110), "Log-compressed envelopes on square pixels.")
    if len(lines.rf) > 1:
        write_pairs(run, pictures["before"], pictures["after"], recording.played)
        report.paragraph(
            f"{VIDEO} shows the whole sequence before (left) and after (right), {recording.played:g} frames a second."
        )
    for note in recording.notes:
        report.paragraph(f"Note: {note}.")
    report.heading("Figures")
    report.table([{"figure": title, "value": metrics[name]} for name, title in _FIGURES.items() if name in metrics])
    report.environment(run).write(run.report_path, overwrite=True)
    return run.report_path

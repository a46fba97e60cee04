"""``priorscope medical dehaze``: an echocardiogram without its haze, and a report. For research use only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.evaluation.tables import print_table
from priorscope_medical.configs import DehazeConfig
from priorscope_medical.dehaze_options import check_for_pictures, check_options
from priorscope_medical.ultrasound.bmode_dehaze import DEFAULTS, BmodeSampling
from priorscope_medical.ultrasound.bmode_gain import HazeLevel
from priorscope_medical.ultrasound.bmode_pipeline import BmodeSettings, dehaze_frames
from priorscope_medical.ultrasound.bmode_prior import EchoPrior, load_echo_prior
from priorscope_medical.ultrasound.burnt_in_text import Screen, find_screen
from priorscope_medical.ultrasound.cine import CHANNEL_DATA, Cine, read_cine
from priorscope_medical.ultrasound.write_cine import check_out, write_cine
from priorscope_medical.volumes import RESEARCH_ONLY

#: Pixels of the prior's square in a network call, unless the user says otherwise: 10 frames of 128 x 128.
_AT_ONCE = 10 * 128 * 128


def dehaze(config: DehazeConfig) -> int:
    """Run ``priorscope medical dehaze``; returns the exit status."""
    check_options(config, report_folder(config.out))
    if config.input.suffix.lower() in CHANNEL_DATA and config.input.is_file():
        from priorscope_medical.dehaze_rf import dehaze_recording

        return dehaze_recording(config, report_folder(config.out))
    check_for_pictures(config)
    begin = time.monotonic()
    cine = read_cine(config.input)
    if config.frames is not None:
        cine = cine.cut(config.frames)
    check_out(config.out, len(cine.frames))
    screen = find_screen(cine)
    tissue = None if config.mask is None else _mask(config.mask, screen.sector.shape)
    prior = load_echo_prior(config.prior, device=config.device, precision=config.precision)
    settings = settings_of(config, prior)
    notes = [*cine.notes, *_notes(cine, screen)]
    _told(config, cine, screen, settings, notes)
    with _progress(len(cine.frames)) as told:
        found = dehaze_frames(cine.grey, screen.sector, prior, settings, kept=screen.kept, tissue=tissue, told=told)
    cleaned = cine.with_frames(taken_off(cine.frames, found.haze))
    seconds = time.monotonic() - begin
    how = f"dehazed by {config.method} under the prior {config.prior}, strength {config.strength:g}"
    first = config.frames[0] if config.frames else 0
    write_cine(cleaned, config.out, how=how, first=first, overwrite=config.overwrite)
    print(f"cleaned: {config.out}")
    if config.report:
        from priorscope_medical.dehaze_report import dehaze_report

        metrics = _metrics(config, cine, cleaned, screen, prior, settings, notes, seconds)
        path = dehaze_report(report_folder(config.out), config, cine, cleaned, screen, found, metrics)
        _print_figures(metrics)
        print(f"report: {path}")
    print(f"{seconds:.0f} s for {len(cine.frames)} frames; {RESEARCH_ONLY}.")
    return 0


def report_folder(out: Path) -> Path:
    """The run folder beside a result."""
    return out.with_name(f"{out.stem if out.suffix else out.name}-report")


def settings_of(config: DehazeConfig, prior: EchoPrior) -> BmodeSettings:
    """What the command asks for, with the method's defaults."""
    size = config.size or prior.values.size
    default: BmodeSampling = DEFAULTS[config.method]
    sampling = replace(
        default,
        steps=config.steps,
        start=default.start if config.start is None else config.start,
        omega=default.omega if config.omega is None else config.omega,
        batch_size=config.batch_size or max(1, _AT_ONCE // size**2),
        seed=config.seed,
    )
    return BmodeSettings(
        sampling,
        strength=config.strength,
        size=config.size,
        level=HazeLevel(dynamic_range=config.dynamic_range),
    )


def taken_off(frames: NDArray[np.uint8], haze: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Frames less haze (0 to 1), all channels alike; where that is 0 they stay as they are, bit for bit."""
    less = np.rint(255 * haze).astype(np.int16)
    if frames.ndim == 4:
        less = less[..., None]
    return np.clip(frames - less, 0, 255).astype(np.uint8)


def _metrics(
    config: DehazeConfig,
    cine: Cine,
    cleaned: Cine,
    screen: Screen,
    prior: EchoPrior,
    settings: BmodeSettings,
    notes: list[str],
    seconds: float,
) -> dict[str, Any]:
    from priorscope_medical.ultrasound.bmode_figures import figures_of, find_regions

    editable = screen.sector & ~screen.kept
    before, after = cine.grey, cleaned.grey
    found: dict[str, Any] = {"for": RESEARCH_ONLY, "method": config.method, "frames": len(cine.frames)}
    found |= figures_of(before, after, editable, find_regions(before, editable))
    found["kept_pixels_changed"] = int((cine.frames != cleaned.frames)[:, screen.kept].sum())
    found |= {"sector": screen.how, "frame_rate": cine.frame_rate, "pixel_mm": cine.pixel}
    sampling = settings.sampling
    found |= {"steps": sampling.steps, "start": sampling.start, "omega": sampling.omega, "seed": sampling.seed}
    return found | {"prior": prior.describe(), "notes": notes, "seconds": seconds}


def _print_figures(metrics: dict[str, Any]) -> None:
    rows = []
    for name in [key.removesuffix("_before") for key in metrics if key.endswith("_before")]:
        rows.append({"figure": name, "before": metrics[f"{name}_before"], "after": metrics.get(f"{name}_after")})
    print_table(rows)


def _notes(cine: Cine, screen: Screen) -> list[str]:
    written = int((screen.kept & screen.sector).sum())
    notes = [f"the sector is {screen.how}; all outside of it and {written} written pixels in it stay as they are"]
    if len(cine.frames) == 1:
        notes.append("one picture does not tell what stands still: grey text over the sector is not recognised")
    return notes


def _told(config: DehazeConfig, cine: Cine, screen: Screen, settings: BmodeSettings, notes: list[str]) -> None:
    height, width = cine.frames.shape[1:3]
    print(
        f"{config.input}: {len(cine.frames)} frames of {width} x {height}, sector {100 * screen.sector.mean():.0f} %; "
        f"{config.method}, {settings.sampling.steps} network calls a frame; {RESEARCH_ONLY}."
    )
    for note in notes:
        print(f"note: {note}")


def _mask(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    from priorscope.data.images import read_image

    image = read_image(path)
    if image.shape[:2] != tuple(shape):
        raise InputError(
            f"is {image.shape[1]} x {image.shape[0]} pixels, the frames are {shape[1]} x {shape[0]}", path=path
        )
    return np.asarray(image.max(-1) > 127)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, int], None] | None]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("dehazing", total=total)
        yield lambda done, _: progress.update(task, completed=done)

"""``priorscope detection predict``: boxes of sweeps, scenarios and data sets, on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from priorscope.data.files import atomic_path, refuse_existing
from priorscope.errors import InputError
from priorscope.evaluation.suite import conclude, run_items
from priorscope_detection.configs import PredictConfig
from priorscope_detection.data.frame import Agent, Frame, Frames, Truth, delay_steps
from priorscope_detection.data.kitti import Kitti, read_calibration
from priorscope_detection.data.kitti_camera import Camera
from priorscope_detection.data.open import open_frames
from priorscope_detection.data.points import read_points
from priorscope_detection.data.rigid import Array
from priorscope_detection.messages import vehicles_only
from priorscope_detection.noise import Disturbance, read_disturbed
from priorscope_detection.picture import bird_view
from priorscope_detection.predictor import Predictor
from priorscope_detection.results import AT_THE_LIDAR, write_json, write_kitti
from priorscope_detection.view import load_rerun, write_page, write_recording

_SUFFIXES = {"json": ".json", "kitti": ".txt", "picture": ".png", "view": ".html", "rerun": ".rrd"}


@dataclass(frozen=True)
class _Item:
    """A sweep, or a frame of a data set."""

    key: str
    stem: str
    path: Path
    frames: Frames | None = None
    index: int = 0

    def read(self, how: Disturbance, seed: int, reach: float) -> Frame:
        if self.frames is None:
            sweep = read_points(self.path, full_scale=None)
            agent = Agent(self.path.stem, sweep.points, np.eye(4), np.eye(4), dropped=sweep.dropped)
            return Frame(self.stem, (agent,), Truth.of({}))
        return read_disturbed(self.frames, self.index, how, seed=seed).within(reach)

    def to_camera(self) -> Array:
        if isinstance(self.frames, Kitti):
            return read_calibration(self.frames.path / "calib" / f"{self.frames.name(self.index)}.txt")
        return AT_THE_LIDAR

    def camera(self) -> Camera | None:
        return self.frames.camera(self.index) if isinstance(self.frames, Kitti) else None


def predict(config: PredictConfig) -> int:
    """Run ``priorscope detection predict``; 1 when some frames failed.

    Raises
    ------
    InputError
        Unknown models, no inputs, results that are there already, options out of range.
    """
    if config.limit < 0:
        raise InputError(f"--limit {config.limit}", remedy="Use 0 or more.")
    if not config.reach > 0:
        raise InputError(f"--reach {config.reach}", remedy="Use a distance above 0.")
    if not config.formats:
        raise InputError("no --formats", remedy=f"Name some of {', '.join(_SUFFIXES)}.")
    how = Disturbance(config.pose_noise, config.yaw_noise, delay=config.delay)
    items = list(_items(config))
    _refuse_unheard(config, items)
    stems = [item.stem for item in items]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise InputError(f"two inputs would both be written to {config.out / twice}.*", remedy="Use two --out folders.")
    if not config.overwrite:
        refuse_existing(_path(config.out, item, form) for item in items for form in config.formats)
    if "rerun" in config.formats:
        load_rerun()
    predictor = Predictor.load(config.settings)
    extent = predictor.detector.spec.extent

    def one(batch: list[_Item]) -> list[dict[str, int]]:
        rows = []
        for item in batch:
            frame = item.read(how, config.settings.seed, config.reach)
            found = predictor(frame).boxes
            shown = vehicles_only(frame)  # nothing else is looked for
            for form in config.formats:
                path = _path(config.out, item, form)
                if form == "json":
                    write_json(path, frame, found, overwrite=config.overwrite)
                elif form == "kitti":
                    write_kitti(path, found, item.to_camera(), item.camera(), overwrite=config.overwrite)
                elif form == "view":
                    write_page(path, shown, found.boxes.numpy(), extent, overwrite=config.overwrite)
                elif form == "rerun":
                    write_recording(path, shown, found.boxes.numpy(), extent, overwrite=config.overwrite)
                else:
                    picture = bird_view(shown, found.boxes.numpy(), extent)
                    with atomic_path(path, overwrite=config.overwrite) as temporary:
                        Image.fromarray(picture).save(temporary)
            rows.append({"boxes": len(found)})
        return rows

    result = run_items(items, one, key=lambda item: item.key, progress="frames")
    return conclude(result.failures, len(items), config.out)


def _items(config: PredictConfig) -> Iterator[_Item]:
    if not config.inputs:
        raise InputError("no inputs", remedy="Name sweeps (.pcd, .bin), scenarios or data sets.")
    for path in config.inputs:
        if path.suffix.lower() in (".pcd", ".bin"):
            if not path.exists():
                raise InputError("no such file", path=path, remedy="Check the path.")
            yield _Item(str(path), path.stem, path)
            continue
        frames = open_frames(path, layout=config.layout)
        delay_steps(config.delay, frames.period)
        for index in range(min(config.limit or len(frames), len(frames))):
            name = frames.name(index)
            yield _Item(f"{path}:{name}", name.replace("/", "_"), path, frames, index)


def _refuse_unheard(config: PredictConfig, items: list[_Item]) -> None:
    """Refuse options that are of several agents, or of data sets, where there are none (InputError)."""
    of_several = {
        "--pose-noise": config.pose_noise,
        "--yaw-noise": config.yaw_noise,
        "--delay": config.delay,
        "--correct-poses": config.settings.correct_poses,
    }
    of_data_sets = {"--limit": config.limit, "--layout": config.layout != PredictConfig.layout}
    for options, unheard, fact in (
        (of_several, all(item.frames is None or item.frames.single for item in items), "each frame has one agent"),
        (of_data_sets, all(item.frames is None for item in items), "there are single sweeps only"),
    ):
        for option, given in options.items():
            if given and unheard:
                raise InputError(f"{option}, but {fact}", path=config.inputs[0], remedy="Leave it out.")


def _path(out: Path, item: _Item, form: str) -> Path:
    return out / f"{item.stem}{_SUFFIXES[form]}"

"""``priorscope depth sensor``: scans of exact depth maps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, get_args

import numpy as np

from priorscope.data.files import refuse_existing
from priorscope.data.images import ImageFile, find_images
from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope.evaluation.suite import conclude, run_items
from priorscope_depth.configs import check_depth_scale, refuse_idle
from priorscope_depth.output import Meaning, result_names, write_result
from priorscope_depth.pairs.maps import MAP_SUFFIXES, read_depth
from priorscope_depth.sensor.configs import SensorConfig, SensorFormat
from priorscope_depth.sensor.structured_light import StructuredLight

#: The name that results bear where no learned model made them.
HAND_MADE = "structured-light"


def simulate_scans(config: SensorConfig) -> int:
    """Run ``priorscope depth sensor``.

    Returns
    -------
    int
        0; 1 when some inputs failed, which are listed and do not stop the others.
    """
    if not config.inputs:
        raise InputError("no input", remedy="Give depth maps or folders: priorscope depth sensor depth.npy")
    for name in ("count", "steps"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}", remedy="Use 1 or more.")
    check_depth_scale(config.depth_scale)
    unknown = [name for name in config.formats if name not in get_args(SensorFormat)]
    if unknown or not config.formats:
        raise InputError(f"formats {list(config.formats)}", remedy=f"Known: {', '.join(get_args(SensorFormat))}.")
    maps = find_images(config.inputs, suffixes=frozenset(MAP_SUFFIXES))
    scan, name = _sensor(config)
    stems = {file.path: [config.out / f"{file.stem}_scan{number}" for number in range(config.count)] for file in maps}
    if not config.overwrite:
        names = result_names("", "depth", config.formats).values()
        refuse_existing(
            [stem.with_name(stem.name + end) for file in maps for stem in stems[file.path] for end in names]
        )

    def evaluate(batch: list[ImageFile]) -> list[dict[str, Any]]:
        for file in batch:
            depth = read_depth(file.path, scale=config.depth_scale)
            for number, stem in enumerate(stems[file.path]):
                values = scan(depth, item_seed(item_seed(config.seed, file.stem), number))
                if not values.any():
                    there = depth[depth > 0]
                    print(
                        f"{file.path}: nothing is measured of depths from {there.min():.3g} to {there.max():.3g} m; "
                        "is the file in metres?",
                        file=sys.stderr,
                    )
                write_result(
                    stem,
                    values,
                    Meaning("depth", "metric", model=name),
                    formats=config.formats,
                    valid=values > 0,
                    overwrite=True,  # what was there was checked for all inputs before the first was read
                )
        return [{} for _ in batch]

    outcome = run_items(maps, evaluate, key=lambda file: str(file.path), progress=True if len(maps) > 1 else None)
    return conclude(list(outcome.failures), len(maps), config.out)


def _sensor(config: SensorConfig) -> tuple[Callable[[np.ndarray, int], np.ndarray], str]:
    """A function of exact depth and a seed, and its name."""
    if config.model is None:
        refuse_idle(config, ("steps",), "of the hand-made sensor, which takes none")
        if config.device not in ("auto", "cpu"):
            raise InputError(f"--device {config.device} of the hand-made sensor", remedy="It knows the CPU only.")
        return StructuredLight().scan, HAND_MADE
    from priorscope_depth.sensor.simulator import DEFAULT_STEPS, SensorSimulator

    simulator = SensorSimulator.from_pretrained(config.model, device=config.device)
    if simulator.method != "sampled":
        refuse_idle(config, ("steps",), f"of {simulator.name}, a {simulator.method} model: it takes one")
    steps = DEFAULT_STEPS if config.steps is None else config.steps

    def scan(depth: np.ndarray, seed: int) -> np.ndarray:
        return simulator(depth, seed=seed, steps=steps)[0]

    return scan, simulator.name

"""Pairs of exact and scanned depth: drawn scenes through the hand-made sensor, or a folder of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.data.arrays import read_array, write_npy
from priorscope.data.images import find_images
from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope_depth.pairs.maps import MAP_SUFFIXES, read_depth
from priorscope_depth.scenes import Scene
from priorscope_depth.scenes.kept import kept_scenes
from priorscope_depth.sensor.structured_light import StructuredLight
from priorscope_depth.training.crops import CropFeed


@dataclass(frozen=True)
class SensorPair:
    """Exact and scanned depth, float32 (H, W) in metres; 0 where there is none."""

    clean: NDArray[np.float32]
    scan: NDArray[np.float32]
    key: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""
        return self.clean.shape


def drawn_scans(
    folder: Path, seeds: Sequence[int], sensor: StructuredLight, *, height: int = 192, width: int = 256, scan: int = 0
) -> list[SensorPair]:
    """Drawn scenes and what ``sensor`` reports of them; scenes that ``folder`` lacks are drawn and kept there.

    Parameters
    ----------
    folder : Path
        Gets the exact depth, a file a scene; scans are made anew.
    seeds : sequence of int
        From ``HELD_OUT_SEED`` on for scenes that are not trained on.
    scan : int
        Number of the scan: others have other noise.
    """

    def write(path: Path, scene: Scene) -> None:
        write_npy(path, scene.depth, overwrite=True)

    pairs = []
    for seed, path in zip(seeds, kept_scenes(folder, seeds, ".npy", write, height=height, width=width), strict=True):
        clean = read_array(path)
        pairs.append(SensorPair(clean, sensor.scan(clean, item_seed(seed, scan)), f"scene-{seed}"))
    return pairs


def folder_scans(folder: Path, *, scale: float = 0.001) -> list[SensorPair]:
    """``clean/NAME.*`` with ``scan/NAME.*``, as :func:`~priorscope_depth.pairs.maps.read_depth` reads them.

    Raises
    ------
    InputError
        For a map without its partner, or of another size.
    """
    pairs = []
    for file in find_images(folder / "clean", suffixes=frozenset(MAP_SUFFIXES)):
        places = [folder / "scan" / f"{file.stem}{suffix}" for suffix in MAP_SUFFIXES]
        path = next((place for place in places if place.exists()), None)
        if path is None:
            raise InputError("is missing", path=places[0], remedy=f"It should hold the scan of {file.path}.")
        clean, scan = read_depth(file.path, scale=scale), read_depth(path, scale=scale)
        if clean.shape != scan.shape:
            raise InputError(f"has {scan.shape} pixels, the exact map {clean.shape}", path=path)
        pairs.append(SensorPair(clean, scan, file.stem))
    return pairs


class SensorFeed(CropFeed[SensorPair]):
    """A :class:`priorscope.training.Feed` of random squares, half of them upside down.

    Never mirrored: shadows fall to one side. A batch holds ``clean`` and ``scan`` (B, 1, s, s) in metres, ``level``
    (B,) from 0 to 999, ``seed`` (B,) for noise, and ``key``.
    """

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        cleans, scans, levels, seeds, keys = [], [], [], [], []
        for pair, window, turn, draw, seed in self.crops(step, rows):
            cleans.append(torch.from_numpy(pair.clean[window][::turn].copy())[None])
            scans.append(torch.from_numpy(pair.scan[window][::turn].copy())[None])
            levels.append(float(draw.integers(1000)))
            seeds.append(seed)
            keys.append(pair.key)
        return {
            "clean": torch.stack(cleans),
            "scan": torch.stack(scans),
            "level": torch.tensor(levels),
            "seed": torch.tensor(seeds),
            "key": keys,
        }

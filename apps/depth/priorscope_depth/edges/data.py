"""Images with edge maps: drawn scenes with exact edges, or a folder of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.data.arrays import read_array, write_npz
from priorscope.data.images import find_images, read_image
from priorscope.diffusion.decoupled import LEAST_TIME
from priorscope.errors import InputError
from priorscope_depth.edges.truth import scene_edges
from priorscope_depth.scenes import Scene
from priorscope_depth.scenes.kept import kept_scenes
from priorscope_depth.training.crops import CropFeed


@dataclass(frozen=True)
class EdgePair:
    """An image, uint8 (H, W, 3), and its edges, bool (H, W)."""

    rgb: NDArray[np.uint8]
    edges: NDArray[np.bool_]
    key: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""
        return self.edges.shape


def drawn_pairs(folder: Path, seeds: Sequence[int], *, height: int = 192, width: int = 256) -> list[EdgePair]:
    """Drawn scenes with their edges; those that ``folder`` lacks are drawn and kept there.

    Parameters
    ----------
    folder : Path
        Gets a file a scene, so that what is cut off goes on.
    seeds : sequence of int
        From ``HELD_OUT_SEED`` on for scenes that are not trained on.
    """

    def write(path: Path, scene: Scene) -> None:
        write_npz(path, {"rgb": scene.rgb, "edges": scene_edges(scene)}, overwrite=True)

    paths = kept_scenes(folder, seeds, ".npz", write, height=height, width=width, supersample=2)
    return [
        EdgePair(read_array(path, key="rgb"), read_array(path, key="edges"), f"scene-{path.stem}") for path in paths
    ]


def folder_pairs(folder: Path) -> list[EdgePair]:
    """``images/NAME.*`` with ``edges/NAME.png``: white edges on black, from half of full white on.

    Raises
    ------
    InputError
        For an image without edges, or of another size than its edges; for a map whose white is 1, not 255.
    """
    pairs = []
    for file in find_images(folder / "images"):
        path = folder / "edges" / f"{file.stem}.png"
        if not path.exists():
            raise InputError(
                "is missing", path=path, remedy=f"It should hold the edges of {file.path}; name both alike."
            )
        rgb, edges = read_image(file.path), read_array(path)
        # of two or four channels the last one is opacity
        grey = edges if edges.ndim == 2 else edges[..., : 1 if edges.shape[-1] == 2 else 3].max(-1)
        if grey.shape != rgb.shape[:2]:
            raise InputError(f"has {grey.shape} pixels, its image {rgb.shape[:2]}", path=path)
        full = np.iinfo(grey.dtype).max if grey.dtype.kind in "iu" else 1
        if full > 1 and grey.max() == 1:
            raise InputError(f"marks edges by 1; white is {full}", path=path, remedy=f"Multiply the map by {full}.")
        pairs.append(EdgePair(rgb, grey >= full / 2, file.stem))
    return pairs


class EdgeFeed(CropFeed[EdgePair]):
    """A :class:`priorscope.training.Feed` of random squares, half of them mirrored.

    A batch holds ``image`` (B, 3, s, s) and ``edges`` (B, 1, s, s) in [-1, 1], ``time`` (B,) uniform in (0, 1],
    ``seed`` (B,) for noise, and ``key``.
    """

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        images, edges, times, seeds, keys = [], [], [], [], []
        for pair, window, turn, draw, seed in self.crops(step, rows):
            images.append(torch.from_numpy(pair.rgb[window][:, ::turn].copy()).permute(2, 0, 1))
            edges.append(torch.from_numpy(pair.edges[window][:, ::turn].copy())[None])
            times.append(1 - draw.random())
            seeds.append(seed)
            keys.append(pair.key)
        return {
            "image": torch.stack(images).float() / 127.5 - 1,
            "edges": torch.stack(edges).float() * 2 - 1,
            "time": torch.tensor(times, dtype=torch.float64).clamp(min=LEAST_TIME),
            "seed": torch.tensor(seeds),
            "key": keys,
        }

"""Held-out procedural scenes as a data set: exact depth, no download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from priorscope_depth.archives import DepthSample
from priorscope_depth.protocols import DepthProtocol
from priorscope_depth.scenes import HELD_OUT_SEED, render_scene

#: Figures on scenes are comparable among themselves only.
SCENES_PROTOCOL = DepthProtocol(
    "scenes",
    "held-out procedural scenes",
    tar="",
    list_file="",
    images=200,
    min_depth=1e-3,
    max_depth=300.0,
)


@dataclass(frozen=True)
class SceneItem:
    """One scene, rendered when it is loaded."""

    seed: int

    @property
    def key(self) -> str:
        return f"scene-{self.seed}"

    def load(self) -> DepthSample:
        """Render it at 192 x 256, borders smoothed as in training."""
        scene = render_scene(self.seed, supersample=2)
        return DepthSample(self.key, scene.rgb, scene.depth, SCENES_PROTOCOL.valid(scene.depth, scene.valid))


class HeldOutScenes(Sequence[SceneItem]):
    """The first ``count`` held-out scenes."""

    def __init__(self, count: int = 200, first: int = HELD_OUT_SEED) -> None:
        self.items = [SceneItem(seed) for seed in range(first, first + count)]

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> SceneItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[SceneItem]: ...
    def __getitem__(self, index: int | slice) -> SceneItem | list[SceneItem]:
        return self.items[index]

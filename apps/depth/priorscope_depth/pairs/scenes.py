"""Procedural scenes as a training set: rendered before, or when they are needed."""

from __future__ import annotations

from pathlib import Path

from priorscope.errors import InputError
from priorscope_depth.pairs.pair import TrainingPair
from priorscope_depth.scenes import HELD_OUT_SEED, Scene, StoredScenes, render_scene


class ScenePairs:
    """Scenes that `priorscope depth scenes` rendered.

    Raises
    ------
    InputError
        If the folder holds none, or holds held-out ones.
    """

    name = "scenes"

    def __init__(self, folder: Path) -> None:
        self.scenes = StoredScenes(folder)
        if any(seed >= HELD_OUT_SEED for seed in self.scenes.seeds):
            raise InputError("holds held-out scenes", path=folder, remedy="Train on scenes with smaller seeds.")

    def __len__(self) -> int:
        return len(self.scenes)

    def read(self, index: int) -> TrainingPair:
        return scene_pair(self.scenes[index])


class StreamedScenes:
    """``count`` scenes from ``first_seed`` on, rendered at each reading: no disk, some CPU.

    Parameters
    ----------
    count, first_seed : int
    height, width : int

    Raises
    ------
    InputError
        For no scene, or seeds that are held out.
    """

    name = "streamed scenes"

    def __init__(self, count: int, first_seed: int = 0, *, height: int = 192, width: int = 256) -> None:
        if count < 1 or first_seed < 0 or first_seed + count > HELD_OUT_SEED:
            raise InputError(
                f"{count} scenes from seed {first_seed} on", remedy=f"Use seeds from 0 to {HELD_OUT_SEED - 1}."
            )
        self.count = count
        self.first_seed = first_seed
        self.shape = height, width

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> TrainingPair:
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        height, width = self.shape
        return scene_pair(render_scene(self.first_seed + index, height=height, width=width, supersample=2))


def scene_pair(scene: Scene) -> TrainingPair:
    """A rendered scene as a training pair; what has no depth is sky."""
    return TrainingPair(scene.rgb, scene.depth, scene.valid, ~scene.valid, scene.normals, str(scene.seed))

"""Drawn scenes kept as files of one's own, one a scene, so that what is cut off goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from priorscope.errors import InputError
from priorscope.evaluation.suite import run_items

from .generate import GENERATOR_VERSION, Scene, render_scene

#: Kinds of scenes, in turn: within a depth sensor's range, and without leaves and grass, which are edges all over.
INDOORS = ("clutter", "room")


def kept_scenes(
    folder: Path,
    seeds: Sequence[int],
    suffix: str,
    write: Callable[[Path, Scene], Any],
    *,
    height: int,
    width: int,
    supersample: int = 1,
) -> list[Path]:
    """Files of scenes of :data:`INDOORS`; those that ``folder`` lacks are drawn, with a progress bar.

    Of several processes each draws its share, up to the first that fails, and all wait for the rest.

    Parameters
    ----------
    folder : Path
    seeds : sequence of int
        From ``HELD_OUT_SEED`` on for scenes that are not trained on.
    suffix : str
        Of the files, with its dot.
    write : callable
        ``write(path, scene)`` makes the file, as a whole or not at all.
    height, width, supersample : int
        As in :func:`render_scene`.

    Raises
    ------
    InputError
        A folder that cannot be written; sizes that no scene is drawn in.
    """
    paths = {seed: folder / f"v{GENERATOR_VERSION}-{height}x{width}" / f"{seed}{suffix}" for seed in seeds}

    wrong: list[Exception] = []

    def draw(batch: list[int]) -> list[dict[str, Any]]:
        if wrong:  # a full disk is full for all: nobody waits for a thousand scenes to be told so
            raise wrong[0]
        for seed in batch:
            if not paths[seed].exists():
                kind = INDOORS[seed % len(INDOORS)]
                try:
                    scene = render_scene(seed, height=height, width=width, kind=kind, supersample=supersample)
                    write(paths[seed], scene)
                except Exception as error:
                    wrong.append(error)
                    raise
        return [{} for _ in batch]

    # all seeds, not those that lack: processes must agree on them while others draw already
    title = "drawing scenes" if any(not path.exists() for path in paths.values()) else False
    failures = run_items(list(paths), draw, key=str, progress=title).failures
    if failures:
        raise InputError(f"scene {failures[0].key} cannot be drawn: {failures[0].error}", path=folder)
    return list(paths.values())

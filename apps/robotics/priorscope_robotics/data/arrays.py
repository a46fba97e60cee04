"""Episodes in a .npz file: observations, actions, episode_ends."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from priorscope.data.files import atomic_path
from priorscope.errors import InputError
from priorscope_robotics.data.episodes import Episodes


def read_arrays(path: Path) -> Episodes:
    """Read ``observations`` (N, D) and/or ``observation.NAME``, ``actions`` (N, A) and ``episode_ends`` (E,).

    Images are ``observation.NAME`` of (N, C, H, W), uint8.

    Raises
    ------
    InputError
        It cannot be read, lacks one of them, or holds objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise InputError("no such file", path=path) from None
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"is no .npz of plain numbers ({str(error)[:100]})", path=path) from None
    observations: dict[str, Any] = {}
    if "observations" in arrays:
        observations["obs"] = arrays["observations"]
    for name, value in arrays.items():
        if name.startswith("observation."):
            observations[name.removeprefix("observation.")] = value
    missing = [name for name in ("actions", "episode_ends") if name not in arrays]
    if missing or not observations:
        raise InputError(
            f"has no {', '.join(missing or ['observations'])}",
            path=path,
            remedy=f"It has {', '.join(arrays) or 'nothing'}.",
        )
    # only images are kept as bytes: a vector is normalised by its range, whatever it was stored as
    found = {
        name: value if value.ndim == 4 and value.dtype == np.uint8 else value.astype(np.float32)
        for name, value in observations.items()
    }
    fps = float(arrays["fps"]) if "fps" in arrays and arrays["fps"].ndim == 0 else 0.0
    actions = np.asarray(arrays["actions"], np.float32)
    ends = np.asarray(arrays["episode_ends"]).reshape(-1)
    if not np.array_equal(ends, ends.astype(np.int64)):
        raise InputError("its episode_ends are no whole numbers", path=path)
    ends = ends.astype(np.int64)
    return Episodes(found, actions, ends, fps=fps, title=path.name).check(path)


def write_arrays(path: Path, episodes: Episodes, *, notes: Mapping[str, Any] | None = None) -> Path:
    """Write what :func:`read_arrays` reads; ``notes`` are further arrays."""
    content: dict[str, Any] = {f"observation.{name}": value for name, value in episodes.observations.items()}
    content |= {"actions": episodes.actions, "episode_ends": episodes.ends, "fps": np.float64(episodes.fps)}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **content, **dict(notes or {}))
    return path

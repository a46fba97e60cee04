"""Where measured slices lie in the patient, as attributes of a file of measurements. For research use only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_medical.volumes import Volume

UNKNOWN = "measurements that do not say how the patient lies: rows are shown to run to the back, columns to the left"
_SHAPES = {"middle_mm": (3,), "directions": (3, 3), "file_axes": (3,), "space": ()}


def placement(volume: Volume) -> dict[str, NDArray[Any]]:
    """What to write beside measurements of a volume's slices.

    Returns
    -------
    dict
        ``middle_mm`` (3,): the middle of the first slice, right, anterior, superior. ``directions`` (3, 3): what a mm
        along slices, rows and columns is there. ``file_axes`` (3,) and ``space``: as :class:`Volume` has them.
    """
    directions = np.stack(
        [volume.affine[:3, axis] / step for axis, step in zip(volume.axes, volume.spacing, strict=True)]
    )
    voxel = np.ones(4)
    voxel[list(volume.axes)] = 0, *((side - 1) / 2 for side in volume.data.shape[1:])
    return {
        "middle_mm": (volume.affine @ voxel)[:3],
        "directions": directions,
        "file_axes": np.array(volume.axes),
        "space": np.array(volume.space),
    }


def read_placement(attributes: Mapping[str, Any], path: Path) -> dict[str, NDArray[Any]] | None:
    """What :func:`placement` wrote; None where a file says nothing.

    Raises
    ------
    InputError
        Numbers that are broken.
    """
    if "directions" not in attributes:
        return None
    try:
        found = {name: np.asarray(attributes[name], np.float64).reshape(shape) for name, shape in _SHAPES.items()}
        sound = all(np.isfinite(value).all() for value in found.values())
        sound = sound and sorted(found["file_axes"]) == [0, 1, 2] and abs(np.linalg.det(found["directions"])) > 1e-6
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise InputError(
            f"has broken attributes {', '.join(_SHAPES)}", path=path, remedy="Remove them, or simulate it again."
        )
    return found


def placed(volume: Volume, place: Mapping[str, NDArray[Any]], first: int = 0) -> Volume:
    """The volume where the measurement was made: around the same middle, from slice ``first`` on."""
    axes = tuple(int(axis) for axis in place["file_axes"])
    z, y, x = (step * direction for step, direction in zip(volume.spacing, place["directions"], strict=True))
    _, height, width = volume.data.shape
    affine = np.eye(4)
    for axis, step in zip(axes, (z, y, x), strict=True):
        affine[:3, axis] = step
    affine[:3, 3] = place["middle_mm"] + first * z - (height - 1) / 2 * y - (width - 1) / 2 * x
    return replace(volume, affine=affine, axes=axes, space=int(place["space"]))  # type: ignore[arg-type]

"""One agent's YAML file of one moment, in OPV2V's form: its pose and the vehicles it lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from priorscope.errors import InputError
from priorscope_detection.data.rigid import Array, is_rigid, pose_matrix
from priorscope_detection.data.safe_yaml import read_yaml

_FIELDS = ("location", "center", "angle", "extent")


@dataclass(frozen=True)
class Annotation:
    """What a file says.

    Attributes
    ----------
    pose : ndarray, (4, 4)
        LiDAR to world.
    as_matrix : bool
        Whether the file had the pose as a matrix, which is V2V4Real's form.
    ids : tuple of str, length N
    classes : tuple of str, length N
        Lower case; ``vehicle`` where the file names none.
    places : ndarray, (N, 4, 4)
        Of the boxes' centres, in the world or in the LiDAR's frame, as the data set has it.
    sizes : ndarray, (N, 3)
        l, w, h, metres.
    """

    pose: Array
    as_matrix: bool
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    places: Array
    sizes: Array


def read_annotation(path: Path, agent: str) -> Annotation:
    """Read a file of an agent.

    Raises
    ------
    InputError
        No such file, no pose, or a vehicle whose numbers are missing or not finite.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise _wrong(path, "holds no table")
    if "lidar_pose" not in content:
        raise InputError(
            "has no 'lidar_pose': an agent without a pose cannot be placed",
            path=path,
            remedy="Add it ([x, y, z, roll, yaw, pitch] or a 4x4 matrix), or remove the agent's folder.",
        )
    vehicles = content.get("vehicles") or {}
    if not isinstance(vehicles, Mapping):
        raise _wrong(path, "its 'vehicles' is no table by id")
    rows = [_numbers_of(key, entry, path) for key, entry in vehicles.items()]
    table = np.array(rows).reshape(-1, 4, 3)
    value = content["lidar_pose"]
    return Annotation(
        _pose(value, path),
        _is_matrix(value),
        tuple(_identity(agent, key, entry) for key, entry in vehicles.items()),
        tuple(str(entry.get("obj_type", "vehicle")).lower() for entry in vehicles.values()),
        pose_matrix(np.concatenate([table[:, 0] + table[:, 1], table[:, 2]], axis=1)),
        2 * table[:, 3],
    )


def _wrong(path: Path, fact: str) -> InputError:
    return InputError(fact, path=path, remedy="Is it one of OPV2V's files?")


def _is_matrix(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and isinstance(value[0], list)


def _numbers(value: Any, count: int) -> Array | None:
    try:
        numbers = np.array([float(part) for part in value], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _pose(value: Any, path: Path) -> Array:
    if _is_matrix(value):
        rows = [_numbers(row, 4) for row in value]
        matrix = np.array([row for row in rows if row is not None])
        if is_rigid(matrix):
            return matrix
        raise _wrong(path, "its 'lidar_pose' is no rigid 4x4 matrix")
    pose = _numbers(value, 6)
    if pose is None:
        raise _wrong(path, "its 'lidar_pose' is not six finite numbers x, y, z, roll, yaw, pitch")
    return pose_matrix(pose)


def _identity(agent: str, key: Any, entry: Mapping[str, Any]) -> str:
    """V2V4Real numbers the objects of each agent anew; `ass_id` (where it is not negative) is common to all."""
    if "ass_id" not in entry:
        return str(key)
    try:
        common = int(entry["ass_id"])
    except (TypeError, ValueError, OverflowError):
        common = -1
    return str(common) if common >= 0 else f"{agent}:{key}"


def _numbers_of(key: Any, entry: Any, path: Path) -> list[Array]:
    """`location` + `center` is the middle, `angle` roll, yaw, pitch in degrees, `extent` half of l, w, h."""
    parts = []
    for field in _FIELDS:
        value = entry.get(field) if isinstance(entry, Mapping) else None
        numbers = np.zeros(3) if value is None and field == "center" else _numbers(value, 3)
        if numbers is None:
            raise _wrong(path, f"vehicles {key}: its '{field}' is not three finite numbers")
        parts.append(numbers)
    if (parts[3] <= 0).any():
        raise _wrong(path, f"vehicles {key}: its 'extent' {parts[3].tolist()} is not positive")
    return parts

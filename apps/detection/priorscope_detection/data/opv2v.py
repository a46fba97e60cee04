"""OPV2V, V2XSet and V2V4Real: SPLIT/SCENARIO/AGENT/TIMESTAMP.{pcd,yaml}."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from priorscope.errors import InputError
from priorscope_detection.data.frame import Agent, Frame, Truth, delay_steps
from priorscope_detection.data.points import read_points
from priorscope_detection.data.rigid import Array, box_of_matrix, inverse, is_rigid, pose_matrix
from priorscope_detection.data.safe_yaml import read_yaml

#: Where the boxes of a file stand: in the world, or in the LiDAR frame of the agent whose file it is.
BoxFrame = Literal["world", "lidar"]


class OPV2V:
    """Frames of a folder in OPV2V's layout.

    Parameters
    ----------
    path : path-like
        A split (its folders are scenarios), a scenario (its folders are agents), or a data set of several splits.
    boxes_in : {"world", "lidar"}, optional
        Default: "lidar" where the file's lidar_pose is a matrix, which is V2V4Real's form, else "world".
    classes : sequence of str, optional
        Only these, in lower case. OPV2V names none; its objects are called ``vehicle``.
    period : float
        Milliseconds between two files.

    Raises
    ------
    InputError
        No scenario is there, or two files of an agent have the same timestamp.

    Notes
    -----
    The ego is the agent whose folder sorts first as text; those with negative numbers, which are V2XSet's road-side
    units, come last. A frame is there for each timestamp of the ego; another agent without it is left out of that
    frame. The truth is the union over the agents' files by object id, without the ego itself: its own LiDAR does
    not see it, and OPV2V does not list it. `read` with a delay takes the first frame of a scenario where there is
    no earlier one.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        boxes_in: BoxFrame | None = None,
        classes: Sequence[str] | None = None,
        period: float = 100.0,
    ) -> None:
        self.path = Path(path)
        self.title = self.path.name
        self.period = period
        self.boxes_in = boxes_in
        self.classes = None if classes is None else {name.lower() for name in classes}
        scenarios = list(find_scenarios(self.path))
        if not scenarios:
            raise InputError(
                "holds no scenario in OPV2V's layout",
                path=path,
                remedy="Give a folder of SCENARIO/AGENT/TIMESTAMP.yaml and .pcd.",
            )
        #: by scenario: by agent: by timestamp: the file without its suffix
        self._files: list[dict[str, dict[int, Path]]] = []
        self._names: list[str] = []
        self._index: list[tuple[int, int]] = []
        for scenario in scenarios:
            agents = {folder.name: _timestamps(folder) for folder in _agents(scenario)}
            ego = next(iter(agents))
            self._index += [(len(self._files), timestamp) for timestamp in sorted(agents[ego])]
            self._files.append(agents)
            inner = scenario.relative_to(self.path)
            self._names.append(str(inner) if inner.parts else scenario.name)

    def __len__(self) -> int:
        return len(self._index)

    def name(self, index: int) -> str:
        scenario, timestamp = self._index[index]
        files = self._files[scenario]
        return f"{self._names[scenario]}/{files[next(iter(files))][timestamp].name}"

    def sequence(self, index: int) -> str:
        return self._names[self._index[index][0]]

    def read(self, index: int, *, delay: float = 0.0) -> Frame:
        """See `Frames.read`.

        Raises
        ------
        InputError
            A sweep or a YAML file is missing or broken, or an agent has no pose.
        """
        steps = delay_steps(delay, self.period)
        scenario, timestamp = self._index[index]
        files = self._files[scenario]
        times = sorted(files[next(iter(files))])
        position = times.index(timestamp)
        earlier = times[max(position - steps, 0)]
        agents: list[Agent] = []
        seen: list[tuple[str, Any, Path]] = []
        for name, stems in files.items():
            if timestamp not in stems:
                continue
            now = stems[timestamp]
            content = _content(now)
            seen.append((name, content, now))
            when = timestamp if not agents else earlier
            if when not in stems:
                continue
            stem = stems[when]
            pose = _pose(content if when == timestamp else _content(stem), stem)
            sweep = read_points(stem.with_name(f"{stem.name}.pcd"))
            age = 0.0 if when == timestamp else (position - times.index(when)) * self.period
            kind: Literal["vehicle", "infrastructure"] = "infrastructure" if name.startswith("-") else "vehicle"
            agents.append(Agent(name, sweep.points, pose, pose, kind, age, sweep.dropped))
        return Frame(self.name(index), tuple(agents), self._truth(seen, agents[0]))

    def _truth(self, seen: list[tuple[str, Any, Path]], ego: Agent) -> Truth:
        rows: dict[str, tuple[Array, str]] = {}
        to_ego = inverse(ego.clean_pose)
        for name, content, stem in seen:
            lidar = self.boxes_in == "lidar" or (self.boxes_in is None and _is_matrix(content["lidar_pose"]))
            base = to_ego @ _pose(content, stem) if lidar else to_ego
            vehicles = content.get("vehicles") or {}
            if not isinstance(vehicles, Mapping):
                raise _wrong(stem, "its 'vehicles' is no table by id")
            for key, entry in vehicles.items():
                identity = _identity(name, key, entry)
                if identity == ego.name or identity in rows:
                    continue
                label = str(entry.get("obj_type", "vehicle") if isinstance(entry, Mapping) else "").lower()
                if self.classes is None or label in self.classes:
                    rows[identity] = (_box(base, key, entry, stem), label)
        return Truth.of(rows)


def find_scenarios(path: Path) -> list[Path]:
    """The scenario folders at or below a path: folders whose folders hold TIMESTAMP.yaml; two levels are looked at."""
    if not path.is_dir():
        raise InputError("no such folder", path=path, remedy="Check the path.")
    if _agents(path):
        return [path]
    below = sorted(folder for folder in path.iterdir() if folder.is_dir())
    found = [folder for folder in below if _agents(folder)]
    if found:
        return found
    return [inner for folder in below for inner in sorted(folder.iterdir()) if inner.is_dir() and _agents(inner)]


def _agents(scenario: Path) -> list[Path]:
    folders = [f for f in scenario.iterdir() if f.is_dir() and any(_is_timestamp(p) for p in f.glob("*.yaml"))]
    return sorted(folders, key=lambda folder: (folder.name.startswith("-"), folder.name))


def _is_timestamp(path: Path) -> bool:
    return re.fullmatch(r"\d+", path.stem) is not None


def _timestamps(folder: Path) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*.yaml")):
        if _is_timestamp(path):
            stamp = int(path.stem)
            if stamp in found:
                raise InputError(
                    f"the timestamp {stamp} comes twice: {found[stamp].name}.yaml and {path.name}",
                    path=folder,
                    remedy="Remove one of them.",
                )
            found[stamp] = path.with_suffix("")
    return found


def _wrong(stem: Path, fact: str) -> InputError:
    return InputError(fact, path=f"{stem}.yaml", remedy="Is it one of OPV2V's files?")


def _content(stem: Path) -> dict[str, Any]:
    content = read_yaml(stem.with_name(f"{stem.name}.yaml"))
    if not isinstance(content, dict):
        raise _wrong(stem, "holds no table")
    if "lidar_pose" not in content:
        raise InputError(
            "has no 'lidar_pose': an agent without a pose cannot be placed",
            path=f"{stem}.yaml",
            remedy="Add it ([x, y, z, roll, yaw, pitch] or a 4x4 matrix), or remove the agent's folder.",
        )
    return content


def _is_matrix(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and isinstance(value[0], list)


def _numbers(value: Any, count: int) -> Array | None:
    try:
        numbers = np.array([float(part) for part in value], dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _pose(content: Mapping[str, Any], stem: Path) -> Array:
    value = content["lidar_pose"]
    if _is_matrix(value):
        rows = [_numbers(row, 4) for row in value]
        matrix = np.array([row for row in rows if row is not None])
        if is_rigid(matrix):
            return matrix
        raise _wrong(stem, "its 'lidar_pose' is no rigid 4x4 matrix")
    pose = _numbers(value, 6)
    if pose is None:
        raise _wrong(stem, "its 'lidar_pose' is not six finite numbers x, y, z, roll, yaw, pitch")
    return pose_matrix(pose)


def _identity(agent: str, key: Any, entry: Any) -> str:
    """V2V4Real numbers the objects of each agent anew; `ass_id` (where it is not negative) is common to all."""
    if isinstance(entry, Mapping) and "ass_id" in entry:
        try:
            common = int(entry["ass_id"])
        except (TypeError, ValueError):
            common = -1
        return str(common) if common >= 0 else f"{agent}:{key}"
    return str(key)


def _box(base: Array, key: Any, entry: Any, stem: Path) -> Array:
    """`location` + `center` is the middle, `angle` roll, yaw, pitch in degrees, `extent` half of l, w, h."""
    parts = {}
    for field in ("location", "center", "angle", "extent"):
        value = entry.get(field) if isinstance(entry, Mapping) else None
        numbers = np.zeros(3) if value is None and field == "center" else _numbers(value, 3)
        if numbers is None:
            raise _wrong(stem, f"vehicles {key}: its '{field}' is not three finite numbers")
        parts[field] = numbers
    if (parts["extent"] <= 0).any():
        raise _wrong(stem, f"vehicles {key}: its 'extent' {parts['extent'].tolist()} is not positive")
    pose = np.concatenate([parts["location"] + parts["center"], parts["angle"]])
    return box_of_matrix(base @ pose_matrix(pose), 2 * parts["extent"])

"""DAIR-V2X-C: one car and one road-side unit, ``cooperative-vehicle-infrastructure``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from priorscope.data.json_file import read_json
from priorscope.errors import InputError
from priorscope_detection.data.frame import Agent, Frame, Truth, delay_steps
from priorscope_detection.data.json_numbers import numbers_of
from priorscope_detection.data.points import read_points
from priorscope_detection.data.rigid import Array, inverse, is_rigid, move_boxes

VEHICLES = ("car", "truck", "van", "bus")
_FULL_SCALE = 255.0


class DairV2X:
    """Frames of DAIR-V2X-C; the ego is the vehicle.

    Parameters
    ----------
    path : path-like
        The folder that holds ``cooperative/``, ``vehicle-side/`` and ``infrastructure-side/``.
    split : str or path-like, optional
        Which frames: ``train``, ``val`` or ``test`` of a ``cooperative-split-data.json`` beside them, or the path of
        a list of vehicle frame ids (CoAlign's train.json, val.json). Default: all.
    labels : str
        Folder of the labels below ``cooperative/``, where data_info.json names another; the complemented labels of
        CoAlign can be put there.
    classes : sequence of str
        Only these, in lower case.

    Raises
    ------
    InputError
        No such layout; a frame is listed twice; a split names no frame of these.

    Notes
    -----
    Labels hold no identity over time; ids are the places in a frame's list. A delay takes the road-side sweep of
    that many frame numbers before, within the same recording (``batch_start_id`` of infrastructure-side/
    data_info.json); where one is missing, the nearest before it, and the agent's `delay` is what it came to.
    The clocks of car and unit differ by up to some tens of milliseconds already; that is part of the data.
    """

    period = 100.0
    single = False

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        split: str | PathLike[str] | None = None,
        labels: str | None = None,
        classes: Sequence[str] = VEHICLES,
    ) -> None:
        self.path = Path(path)
        self.title = self.path.name
        self.labels = labels
        self.classes = {name.lower() for name in classes}
        info = self.path / "cooperative/data_info.json"
        if not info.is_file():
            raise InputError(
                "holds no cooperative/data_info.json",
                path=path,
                remedy="Give DAIR-V2X-C's folder cooperative-vehicle-infrastructure.",
            )
        rows = _rows(info)
        for row in rows:
            _strings(row, ("vehicle_pointcloud_path", "infrastructure_pointcloud_path", "cooperative_label_path"), info)
        identities = [Path(row["vehicle_pointcloud_path"]).stem for row in rows]
        double = sorted(one for one, count in Counter(identities).items() if count > 1)
        if double:
            raise InputError(f"the vehicle frame {double[0]} is listed twice", path=info, remedy="Remove one of them.")
        if split is not None:
            self.title += f"/{Path(split).name}"
        #: where frames of several splits are read as one data set
        self.splits = self._listed_splits() if split is None else (str(split),)
        chosen = set(identities) if split is None else self._split(split)
        self._rows = [row for row, one in zip(rows, identities, strict=True) if one in chosen]
        if not self._rows:
            raise InputError(f"the split {split} names none of its {len(rows)} frames", path=info)
        self._road = {
            Path(str(row.get("pointcloud_path", ""))).stem: row
            for row in _rows(self.path / "infrastructure-side/data_info.json")
        }
        self._car = {
            Path(str(row.get("pointcloud_path", ""))).stem: row
            for row in _rows(self.path / "vehicle-side/data_info.json")
        }

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        return Path(self._rows[index]["vehicle_pointcloud_path"]).stem

    def sequence(self, index: int) -> str:
        name = self.name(index)
        return str(self._car.get(name, {}).get("batch_id", name))

    def read(self, index: int, *, delay: float = 0.0) -> Frame:
        """See `Frames.read`.

        Raises
        ------
        InputError
            A file is missing or broken, or a calibration is no rigid motion.
        """
        row = self._rows[index]
        steps = delay_steps(delay, self.period)
        car_pose = self.vehicle_pose(self.name(index))
        car = read_points(self.path / row["vehicle_pointcloud_path"], full_scale=_FULL_SCALE)
        current = Path(row["infrastructure_pointcloud_path"]).stem
        stem, age = self._earlier(current, steps)
        offset = row.get("system_error_offset") or {}
        if not isinstance(offset, Mapping):
            raise InputError("a 'system_error_offset' is no table", path=self.path / "cooperative/data_info.json")
        road_pose = self.infrastructure_pose(stem, offset)
        cloud = Path(row["infrastructure_pointcloud_path"]).with_name(f"{stem}.pcd")
        road = read_points(self.path / cloud, full_scale=_FULL_SCALE)
        agents = (
            Agent("vehicle", car.points, car_pose, car_pose, "vehicle", 0.0, car.dropped),
            Agent("infrastructure", road.points, road_pose, road_pose, "infrastructure", age, road.dropped),
        )
        label = self.path / row["cooperative_label_path"]
        if self.labels is not None:
            label = self.path / "cooperative" / self.labels / label.name
        return Frame(self.name(index), agents, self._truth(label, car_pose))

    def vehicle_pose(self, stem: str) -> Array:
        """LiDAR to world of a vehicle frame: its two calibration files, one after the other."""
        calib = self.path / "vehicle-side/calib"
        mount = calib / "lidar_to_novatel" / f"{stem}.json"
        place = calib / "novatel_to_world" / f"{stem}.json"
        inner = read_json(mount)
        return _motion(read_json(place), place) @ _motion(inner.get("transform", inner), mount)

    def infrastructure_pose(self, stem: str, offset: Mapping[str, Any] | None = None) -> Array:
        """LiDAR to world of a road-side frame, moved by the pair's ``system_error_offset`` (metres)."""
        path = self.path / "infrastructure-side/calib/virtuallidar_to_world" / f"{stem}.json"
        pose = _motion(read_json(path), path)
        if offset:
            shift = numbers_of([offset.get("delta_x") or 0, offset.get("delta_y") or 0], (2,), "delta_x", path)
            pose[:2, 3] += shift
        return pose

    def _earlier(self, stem: str, steps: int) -> tuple[str, float]:
        if not steps:
            return stem, 0.0
        if stem not in self._road or not stem.isdigit():
            raise InputError(
                f"does not list the frame {stem}, so no earlier one is known",
                path=self.path / "infrastructure-side/data_info.json",
                remedy="Evaluate without a delay, or complete the file.",
            )
        own = self._road[stem]
        start = str(own.get("batch_start_id", stem))
        first = min(int(start) if start.isdigit() else int(stem), int(stem))
        for number in range(max(int(stem) - steps, first), first - 1, -1):
            earlier = f"{number:0{len(stem)}d}"
            if earlier in self._road:
                return earlier, (int(stem) - number) * self.period
        after = range(max(int(stem) - steps, first), int(stem) + 1)
        nearest = next(number for number in after if f"{number:0{len(stem)}d}" in self._road)
        return f"{nearest:0{len(stem)}d}", (int(stem) - nearest) * self.period

    def _listed_splits(self) -> tuple[str, ...]:
        """The splits that a ``cooperative-split-data.json`` beside the data names, if there is one."""
        path = self._split_file()
        return () if path is None else tuple(sorted(_splits_of(path)))

    def _split_file(self) -> Path | None:
        for folder in (self.path, self.path.parent, self.path / "cooperative"):
            if (folder / "cooperative-split-data.json").is_file():
                return folder / "cooperative-split-data.json"
        return None

    def _split(self, split: str | PathLike[str]) -> set[str]:
        path = Path(split)
        if path.suffix == ".json":
            content = read_json(path)
        else:
            found = self._split_file()
            if found is None:
                raise InputError(
                    f"has no cooperative-split-data.json to look up {split!s} in",
                    path=self.path,
                    remedy="Copy it there, or give the path of a list of vehicle frame ids.",
                )
            path = found
            content = _splits_of(path).get(str(split))
        if not isinstance(content, list):
            raise InputError(f"holds no list of frame ids for {split}", path=path)
        return {str(one) for one in content}

    def _truth(self, path: Path, car_pose: Array) -> Truth:
        rows: dict[str, tuple[Array, str]] = {}
        to_ego = inverse(car_pose)
        for number, entry in enumerate(_rows(path)):
            label = str(entry.get("type", "")).lower()
            if label in self.classes:
                corners = numbers_of(entry.get("world_8_points"), (8, 3), f"[{number}] world_8_points", path)
                box = box_of_corners(corners)
                if not (box[3:6] > 0).all():
                    raise InputError(f"[{number}] world_8_points is a box of size {box[3:6].tolist()}", path=path)
                rows[str(number)] = (move_boxes(to_ego, box[None])[0], label)
        return Truth.of(rows)


def box_of_corners(corners: Array) -> Array:
    """The box, (7,), of eight corners (8, 3): four of the underside, then the four above them.

    The first two of each four are at the front. Sizes are means over the edges, so that rounded corners do.
    """
    rear_to_front = corners[[0, 1, 4, 5]] - corners[[3, 2, 7, 6]]
    across = corners[[0, 3, 4, 7]] - corners[[1, 2, 5, 6]]
    size = [
        np.linalg.norm(rear_to_front, axis=1).mean(),
        np.linalg.norm(across, axis=1).mean(),
        np.abs(corners[4:, 2] - corners[:4, 2]).mean(),
    ]
    heading = rear_to_front.sum(axis=0)
    return np.concatenate([corners.mean(axis=0), size, [np.arctan2(heading[1], heading[0])]])


def _splits_of(path: Path) -> dict[str, Any]:
    content = read_json(path)
    splits = content.get("cooperative_split", content) if isinstance(content, dict) else None
    if not isinstance(splits, dict):
        raise InputError("holds no table of splits", path=path, remedy="Is it one of DAIR-V2X's files?")
    return splits


def _rows(path: Path) -> list[dict[str, Any]]:
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise InputError("is no list of tables", path=path, remedy="Is it one of DAIR-V2X's files?")
    return content


def _strings(row: Mapping[str, Any], keys: tuple[str, ...], path: Path) -> None:
    for key in keys:
        if not isinstance(row.get(key), str):
            raise InputError(f"one of its rows has no {key!r}", path=path)


def _motion(content: Any, path: Path) -> Array:
    matrix = np.eye(4)
    if not isinstance(content, Mapping) or "rotation" not in content or "translation" not in content:
        raise InputError("has no 'rotation' and 'translation': the agent has no pose", path=path)
    matrix[:3, :3] = numbers_of(content["rotation"], (3, 3), "rotation", path)
    matrix[:3, 3] = numbers_of(content["translation"], (3,), "translation", path)
    if not is_rigid(matrix):
        raise InputError("its 'rotation' is no rotation", path=path)
    return matrix

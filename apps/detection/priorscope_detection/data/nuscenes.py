"""nuScenes as a data set of single agents: its tables, or the info files that mmdetection3d makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from priorscope.data.json_file import read_json
from priorscope.data.safe_pickle import safe_loads
from priorscope.errors import InputError
from priorscope_detection.data.frame import Agent, Frame, Truth, delay_steps
from priorscope_detection.data.json_numbers import numbers_of
from priorscope_detection.data.points import read_points
from priorscope_detection.data.rigid import Array, box_of_matrix, inverse, is_rigid

_TABLES = ("sample", "sample_data", "calibrated_sensor", "sensor", "ego_pose", "sample_annotation")
#: What every row of a table is asked for, and of what type it is.
_COLUMNS: dict[str, dict[str, type]] = {
    "sample": {"scene_token": str},
    "sample_data": {
        "sample_token": str,
        "ego_pose_token": str,
        "calibrated_sensor_token": str,
        "timestamp": int,
        "filename": str,
    },
    "calibrated_sensor": {"sensor_token": str},
    "sample_annotation": {"sample_token": str, "instance_token": str, "size": list},
    "category": {"name": str},
    "instance": {"category_token": str},
}
_WORDS = {str: "text", int: "whole number", list: "list"}
_FULL_SCALE = 255.0


class NuScenes:
    """Key frames of nuScenes' top LiDAR, from the published tables.

    Parameters
    ----------
    path : path-like
        The folder that holds ``samples/`` and ``v1.0-mini/``, ``v1.0-trainval/`` or ``v1.0-test/``.
    version : str, optional
        Which tables; needed where there are several.
    classes : sequence of str, optional
        First parts of nuScenes' category names to keep, such as ``vehicle`` or ``vehicle.car``. Default: all.

    Raises
    ------
    InputError
        No such layout, or a table names a row that another lacks.

    Notes
    -----
    The tables of the whole data set take some gigabytes once read. Classes are the full category names.
    """

    period = 500.0
    single = True

    def __init__(
        self, path: str | PathLike[str], *, version: str | None = None, classes: Sequence[str] | None = None
    ) -> None:
        self.path = Path(path)
        found = sorted(folder.parent.name for folder in self.path.glob("v*/sample_data.json"))
        if not found or (version is not None and version not in found):
            raise InputError(
                f"holds no {version or 'v1.0-*'}/sample_data.json",
                path=path,
                remedy=f"There are {', '.join(found)}." if found else "Give nuScenes' folder.",
            )
        if version is None and len(found) > 1:
            raise InputError(f"holds several versions: {', '.join(found)}", path=path, remedy="Name one.")
        self.title = version or found[0]
        self.classes = classes
        self._tables = {name: self._table(name) for name in _TABLES}
        self._category = self._categories()
        lidar = {token for token, row in self._tables["sensor"].items() if row.get("channel") == "LIDAR_TOP"}
        mounted = {t for t, row in self._tables["calibrated_sensor"].items() if row.get("sensor_token") in lidar}
        self._frames = [
            row
            for row in self._tables["sample_data"].values()
            if row.get("is_key_frame") and row.get("calibrated_sensor_token") in mounted
        ]
        self._frames.sort(
            key=lambda row: (str(self._of("sample", row["sample_token"])["scene_token"]), row["timestamp"])
        )
        self._boxes: dict[str, list[dict[str, Any]]] = {}
        for row in self._tables["sample_annotation"].values():
            self._boxes.setdefault(row["sample_token"], []).append(row)

    def __len__(self) -> int:
        return len(self._frames)

    def name(self, index: int) -> str:
        return str(self._frames[index]["sample_token"])

    def sequence(self, index: int) -> str:
        return str(self._of("sample", self._frames[index]["sample_token"])["scene_token"])

    def read(self, index: int, *, delay: float = 0.0) -> Frame:
        """See `Frames.read`; there is no other agent, so a delay changes nothing."""
        delay_steps(delay, self.period)
        row = self._frames[index]
        ego = self._motion(self._of("ego_pose", row["ego_pose_token"]), "ego_pose")
        mount = self._motion(self._of("calibrated_sensor", row["calibrated_sensor_token"]), "calibrated_sensor")
        pose = ego @ mount
        sweep = read_points(self.path / row["filename"], columns=5, full_scale=_FULL_SCALE)
        back = inverse(pose)
        rows: dict[str, tuple[Array, str]] = {}
        for entry in self._boxes.get(row["sample_token"], []):
            label = self._category.get(str(entry["instance_token"]), "")
            if self.classes is None or any(label == c or label.startswith(f"{c}.") for c in self.classes):
                w, length, h = numbers_of(entry["size"], (3,), "size", self.path)
                at = back @ self._motion(entry, "sample_annotation")
                if min(w, length, h) <= 0:
                    raise InputError(
                        f"row {entry['token']}: its size {[w, length, h]} is not positive",
                        path=self.path / self.title / "sample_annotation.json",
                    )
                rows[str(entry["instance_token"])] = (box_of_matrix(at, [length, w, h]), label)
        agent = Agent("LIDAR_TOP", sweep.points, pose, pose, dropped=sweep.dropped)
        return Frame(self.name(index), (agent,), Truth.of(rows))

    def _table(self, name: str) -> dict[str, dict[str, Any]]:
        path = self.path / self.title / f"{name}.json"
        rows = read_json(path)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and "token" in row for row in rows):
            raise InputError("is no list of rows with a 'token'", path=path)
        for column, kind in _COLUMNS.get(name, {}).items():
            for row in rows:
                if not isinstance(row.get(column), kind):
                    fact = f"has no {column!r}" if column not in row else f"has a {column!r} that is no {_WORDS[kind]}"
                    raise InputError(f"row {row['token']} {fact}", path=path, remedy="Download it again.")
        return {str(row["token"]): row for row in rows}

    def _categories(self) -> dict[str, str]:
        """The category of each instance."""
        category = {token: str(row["name"]) for token, row in self._table("category").items()}
        return {token: category.get(str(row["category_token"]), "") for token, row in self._table("instance").items()}

    def _of(self, table: str, token: str) -> dict[str, Any]:
        try:
            return self._tables[table][token]
        except KeyError:
            raise InputError(f"has no row {token}", path=self.path / self.title / f"{table}.json") from None

    def _motion(self, row: Mapping[str, Any], table: str) -> Array:
        path = self.path / self.title / f"{table}.json"
        matrix = np.eye(4)
        matrix[:3, :3] = quaternion_matrix(numbers_of(row.get("rotation"), (4,), "rotation", path))
        matrix[:3, 3] = numbers_of(row.get("translation"), (3,), "translation", path)
        return matrix


class NuScenesInfo:
    """Key frames of an ``*_infos_*.pkl`` of mmdetection3d, version 1.1.

    Parameters
    ----------
    path : path-like
        The file. Sweeps lie in ``samples/LIDAR_TOP`` beside it, or directly beside it.

    Raises
    ------
    InputError
        Another content, or a pickle that asks for more than numbers and arrays.
    """

    period = 500.0
    single = True

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError("no such file", path=path, remedy="Check the path.")
        content = safe_loads(self.path.read_bytes(), path=path)
        if not isinstance(content, dict) or not isinstance(content.get("data_list"), list):
            raise InputError("is no info file of mmdetection3d 1.1 (no 'data_list')", path=path)
        about = self._table(content.get("metainfo", {}), "metainfo")
        self.title = str(about.get("version", self.path.stem))
        categories = self._table(about.get("categories", {}), "categories")
        self._classes = {self._whole(number, f"categories {name}"): str(name) for name, number in categories.items()}
        self._rows = [self._table(row, f"data_list[{k}]") for k, row in enumerate(content["data_list"])]
        if not self._rows:
            raise InputError("its 'data_list' names no frame", path=path)

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        return str(self._rows[index].get("token", self._rows[index].get("sample_idx", index)))

    def sequence(self, index: int) -> str:
        return self.name(index)

    def read(self, index: int, *, delay: float = 0.0) -> Frame:
        """See `Frames.read`; there is no other agent, so a delay changes nothing."""
        delay_steps(delay, self.period)
        row = self._rows[index]
        lidar = self._table(row.get("lidar_points", {}), f"lidar_points of frame {index}")
        file = Path(str(lidar.get("lidar_path", ""))).name
        places = [self.path.parent / "samples/LIDAR_TOP" / file, self.path.parent / file]
        cloud = next((place for place in places if file and place.is_file()), places[0])
        columns = self._whole(lidar.get("num_pts_feats", 5), f"num_pts_feats of frame {index}")
        sweep = read_points(cloud, columns=columns, full_scale=_FULL_SCALE)
        pose = np.eye(4)
        for key, source in (("ego2global", row), ("lidar2ego", lidar)):
            step = numbers_of(source.get(key), (4, 4), key, self.path)
            if not is_rigid(step):
                raise InputError(f"its {key!r} of frame {index} is no rigid motion", path=self.path)
            pose = pose @ step
        rows: dict[str, tuple[Array, str]] = {}
        instances = row.get("instances", [])
        if not isinstance(instances, list):
            raise InputError(f"its 'instances' of frame {index} is no list", path=self.path)
        for number, entry in enumerate(instances):
            where = f"instances[{number}] of frame {index}"
            found = self._table(entry, where)
            box = numbers_of(found.get("bbox_3d"), (7,), f"bbox_3d of {where}", self.path)
            if not (box[3:6] > 0).all():
                raise InputError(f"{where}: its size {box[3:6].tolist()} is not positive", path=self.path)
            label = self._whole(found.get("bbox_label_3d", -1), f"bbox_label_3d of {where}")
            rows[str(number)] = (box, self._classes.get(label, ""))
        agent = Agent("LIDAR_TOP", sweep.points, pose, pose, dropped=sweep.dropped)
        return Frame(self.name(index), (agent,), Truth.of(rows))

    def _table(self, value: Any, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise InputError(f"its {key!r} is no table", path=self.path, remedy="Was it made by mmdetection3d 1.1?")
        return value

    def _whole(self, value: Any, key: str) -> int:
        return int(numbers_of(value, (1,), key, self.path)[0])


def quaternion_matrix(quaternion: Array) -> Array:
    """The rotation, (3, 3), of a quaternion w, x, y, z, which need not be of unit length.

    Raises
    ------
    InputError
        It is zero.
    """
    length = np.linalg.norm(quaternion)
    if length < 1e-9:
        raise InputError("a rotation is the zero quaternion", remedy="Mend that row of the data set.")
    w, x, y, z = quaternion / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )

"""KITTI's object benchmark: ``training/{velodyne,label_2,calib}``, one agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from priorscope.errors import InputError
from priorscope_detection.data.frame import Agent, Frame, Truth, delay_steps
from priorscope_detection.data.kitti_camera import USUAL_SIZE, Camera
from priorscope_detection.data.points import read_points
from priorscope_detection.data.rigid import Array, inverse, is_rigid

#: The labels whose boxes are real objects; DontCare marks parts of the image.
CLASSES = ("car", "van", "truck", "pedestrian", "person_sitting", "cyclist", "tram", "misc")


@dataclass(frozen=True)
class KittiLabel:
    """A row of label_2.

    Attributes
    ----------
    kind : str
        As in the file.
    size : ndarray, (3,)
        h, w, l, metres.
    bottom : ndarray, (3,)
        Middle of the underside, rectified camera frame (x right, y down, z forward), metres.
    turn : float
        rotation_y: from camera x towards -z, radians.
    truncated : float
    occluded : int
    """

    kind: str
    size: Array
    bottom: Array
    turn: float
    truncated: float
    occluded: int


class Kitti:
    """Frames of KITTI's object benchmark: single sweeps without neighbours in time.

    Parameters
    ----------
    path : path-like
        ``training`` or ``testing``, or the folder that holds them (``training`` is taken).
    classes : sequence of str
        Lower case.
    in_view : bool
        Only points that the camera sees. A sweep goes all round, but labels are of the picture only: to learn or to
        measure by the whole sweep is to call the cars beside and behind background.

    Raises
    ------
    InputError
        No sweeps are there.
    """

    period = 100.0
    single = True

    def __init__(self, path: str | PathLike[str], *, classes: Sequence[str] = CLASSES, in_view: bool = False) -> None:
        self.path = Path(path)
        self.in_view = in_view
        if not (self.path / "velodyne").is_dir() and (self.path / "training/velodyne").is_dir():
            self.path = self.path / "training"
        self.title = self.path.name
        self.classes = {name.lower() for name in classes}
        self._stems = sorted(file.stem for file in (self.path / "velodyne").glob("*.bin"))
        if not self._stems:
            raise InputError("holds no velodyne/*.bin", path=path, remedy="Give KITTI's folder training.")

    def __len__(self) -> int:
        return len(self._stems)

    def name(self, index: int) -> str:
        return self._stems[index]

    def sequence(self, index: int) -> str:
        return self._stems[index]

    def read(self, index: int, *, delay: float = 0.0) -> Frame:
        """See `Frames.read`; there is no other agent, so a delay changes nothing."""
        delay_steps(delay, self.period)
        stem = self._stems[index]
        sweep = read_points(self.path / "velodyne" / f"{stem}.bin")
        to_camera = read_calibration(self.path / "calib" / f"{stem}.txt")
        labels = self.path / "label_2" / f"{stem}.txt"
        found = read_labels(labels) if labels.is_file() or self.path.name != "testing" else []
        rows = {
            str(number): (lidar_box(label, to_camera), label.kind.lower())
            for number, label in enumerate(found)
            if label.kind.lower() in self.classes
        }
        points = sweep.points
        if self.in_view:
            points = points[self.camera(index).sees(points, to_camera)]
        agent = Agent("kitti", points, np.eye(4), np.eye(4), dropped=sweep.dropped)
        return Frame(stem, (agent,), Truth.of(rows))

    def camera(self, index: int) -> Camera:
        """The camera of a frame; of the usual size where its picture is not there.

        Raises
        ------
        InputError
            The calibration has no P2, or the picture is broken.
        """
        stem, size = self._stems[index], USUAL_SIZE
        picture = self.path / "image_2" / f"{stem}.png"
        if picture.is_file():
            try:
                with Image.open(picture) as image:
                    size = image.size
            except OSError as error:
                raise InputError(f"is no picture that can be read ({error})", path=picture) from None
        return Camera(read_projection(self.path / "calib" / f"{stem}.txt"), *size)


def read_projection(path: str | PathLike[str]) -> Array:
    """P2, (3, 4): rectified camera frame to the left colour camera's pixels.

    Raises
    ------
    InputError
        No such file, or no P2 in it.
    """
    path = Path(path)
    entries = {key: value for key, _, value in (line.partition(":") for line in _lines(path))}
    try:
        matrix = np.array(entries["P2"].split(), dtype=np.float64).reshape(3, 4)
    except (KeyError, ValueError):
        matrix = np.full((3, 4), np.nan)
    if not np.isfinite(matrix).all():
        raise InputError("has no P2 of 12 numbers", path=path, remedy="Is it a file of KITTI's object benchmark?")
    return matrix


def read_calibration(path: str | PathLike[str]) -> Array:
    """LiDAR to rectified camera, (4, 4): R0_rect after Tr_velo_to_cam.

    Raises
    ------
    InputError
        No such file, or a matrix is missing or no rigid motion.
    """
    path = Path(path)
    entries = {key: value for key, _, value in (line.partition(":") for line in _lines(path))}
    matrix = np.eye(4)
    for key, columns in (("Tr_velo_to_cam", 4), ("R0_rect", 3)):
        try:
            numbers = np.array(entries[key].split(), dtype=np.float64).reshape(3, columns)
        except (KeyError, ValueError):
            raise InputError(f"has no {key} of {3 * columns} numbers", path=path) from None
        step = np.eye(4)
        step[:3, :columns] = numbers
        if not is_rigid(step):
            raise InputError(f"its {key} is no rigid motion", path=path, remedy="Is it a file of KITTI's benchmark?")
        matrix = step @ matrix
    return matrix


def read_labels(path: str | PathLike[str]) -> list[KittiLabel]:
    """The objects of a label file, without DontCare.

    Raises
    ------
    InputError
        No such file, or a row without 15 columns (16 with a score) of numbers, or with a size of 0 or less.
    """
    path = Path(path)
    labels = []
    for number, line in enumerate(_lines(path), 1):
        words = line.split()
        if not words or words[0] == "DontCare":
            continue
        try:
            values = np.array(words[1:], dtype=np.float64)
        except ValueError:
            values = np.zeros(0)
        if len(values) not in (14, 15) or not np.isfinite(values).all():
            raise InputError(f"line {number} is not a word and 14 (with a score 15) numbers", path=path)
        if (values[7:10] <= 0).any():
            raise InputError(
                f"line {number}: its height, width, length {values[7:10].tolist()} are not positive",
                path=path,
                remedy="Remove the row, or call it DontCare.",
            )
        labels.append(KittiLabel(words[0], values[7:10], values[10:13], values[13], values[0], int(values[1])))
    return labels


def lidar_box(label: KittiLabel, to_camera: Array) -> Array:
    """A label as x, y, z of the centre, l, w, h, yaw in the LiDAR frame.

    The camera's axes are tilted against the LiDAR's by about a degree; the box here stands upright in the LiDAR's.
    """
    h, w, length = label.size
    back = inverse(to_camera)
    centre = back[:3, :3] @ (label.bottom - [0, h / 2, 0]) + back[:3, 3]
    heading = back[:3, :3] @ [np.cos(label.turn), 0, -np.sin(label.turn)]
    return np.array([*centre, length, w, h, np.arctan2(heading[1], heading[0])])


def camera_label(box: Array, to_camera: Array, kind: str) -> KittiLabel:
    """The inverse of `lidar_box`: what KITTI's text form wants."""
    length, w, h = box[3:6]
    bottom = to_camera[:3, :3] @ box[:3] + to_camera[:3, 3] + [0, h / 2, 0]
    heading = to_camera[:3, :3] @ [np.cos(box[6]), np.sin(box[6]), 0]
    return KittiLabel(kind, np.array([h, w, length]), bottom, float(np.arctan2(-heading[2], heading[0])), -1.0, -1)


def count_in_label(points: NDArray[np.floating], label: KittiLabel, to_camera: Array, *, below: float = 0.0) -> int:
    """How many points, (N, 3 or more) in the LiDAR frame, lie in a label's box as it stands in the camera frame.

    Parameters
    ----------
    points, label, to_camera
    below : float
        Metres by which the box reaches further down.
    """
    away = points[:, :3].astype(np.float64) @ to_camera[:3, :3].T + to_camera[:3, 3] - label.bottom
    c, s = np.cos(label.turn), np.sin(label.turn)
    along, across = away[:, 0] * c - away[:, 2] * s, away[:, 0] * s + away[:, 2] * c
    h, w, length = label.size
    inside = (np.abs(along) <= length / 2) & (np.abs(across) <= w / 2) & (away[:, 1] <= below) & (away[:, 1] >= -h)
    return int(np.count_nonzero(inside))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise InputError("no such file", path=path, remedy="Is the data set whole?") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as text ({error})", path=path) from None

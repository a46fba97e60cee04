"""Boxes on disk: JSON in the ego's LiDAR frame, and KITTI's text form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from priorscope.data.files import write_text
from priorscope_detection.data.frame import Frame
from priorscope_detection.data.kitti import camera_label
from priorscope_detection.data.kitti_camera import Camera
from priorscope_detection.data.rigid import Array, half_open
from priorscope_detection.post_processing import Detections

#: From a LiDAR frame (x forward, y left, z up) to a camera's at the same place (x right, y down, z forward).
AT_THE_LIDAR = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def write_json(path: Path, frame: Frame, found: Detections, *, overwrite: bool = False) -> Path:
    """Write the boxes of a frame.

    The file has ``frame``; ``agents`` (names, the ego first), the ``ages`` of what they sent in milliseconds, how many
    ``points`` each has and how many more were left out since they were ``not_finite``; and ``boxes``: each with
    ``centre`` x, y, z and ``size`` l, w, h in metres, ``yaw`` in radians, ``score`` 0 to 1.
    """
    boxes = [
        {"centre": box[:3], "size": box[3:6], "yaw": box[6], "score": score}
        for box, score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True)
    ]
    content = {
        "frame": frame.name,
        "agents": [agent.name for agent in frame.agents],
        "ages": [agent.delay for agent in frame.agents],
        "points": [len(agent.points) for agent in frame.agents],
        "not_finite": [agent.dropped for agent in frame.agents],
        "boxes": boxes,
    }
    return write_text(path, json.dumps(content, indent=1) + "\n", overwrite=overwrite)


def kitti_lines(
    found: Detections, to_camera: Array = AT_THE_LIDAR, camera: Camera | None = None, *, kind: str = "Car"
) -> list[str]:
    """A row of KITTI's results for each box.

    Parameters
    ----------
    found : Detections
    to_camera : ndarray, (4, 4)
        From the LiDAR frame to the rectified camera frame.
    camera : Camera, optional
        That the rectangles are for. KITTI's own evaluation passes over boxes without one.
    kind : str
        KITTI's word.

    Returns
    -------
    list of str
        ``kind truncated occluded alpha left top right bottom h w l x y z rotation_y score``. Truncation and occlusion
        are -1, and so is the rectangle without a camera, or of a box that it does not see.
    """
    rows: list[str] = []
    for box, score in zip(found.boxes.numpy(), found.scores.tolist(), strict=True):
        label = camera_label(box, to_camera, kind)
        x, y, z = (float(value) for value in label.bottom)
        alpha = half_open(label.turn - np.arctan2(x, z))
        h, w, length = (float(value) for value in label.size)
        numbers: Sequence[float] = (h, w, length, x, y, z, label.turn, score)
        place = None if camera is None else camera.rectangle(label.size, label.bottom, label.turn)
        seen = "-1 -1 -1 -1" if place is None else " ".join(f"{value:.2f}" for value in place)
        rows.append(f"{kind} -1 -1 {alpha:.4f} {seen} " + " ".join(f"{value:.4f}" for value in numbers))
    return rows


def write_kitti(
    path: Path,
    found: Detections,
    to_camera: Array = AT_THE_LIDAR,
    camera: Camera | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write :func:`kitti_lines`; a frame without boxes is an empty file, as KITTI's own tools expect."""
    lines = kitti_lines(found, to_camera, camera)
    return write_text(path, "".join(line + "\n" for line in lines), overwrite=overwrite)

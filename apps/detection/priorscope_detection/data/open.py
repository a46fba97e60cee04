"""A data set of any known layout, by its path."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Literal

from priorscope.errors import InputError
from priorscope_detection.data.frame import Frames

#: Of DAIR-V2X-C, whose frames lie in one folder.
_SPLITS = ("train", "val", "test")

Layout = Literal["auto", "opv2v", "v2xset", "v2v4real", "dair-v2x-c", "kitti", "nuscenes"]


def open_frames(path: str | PathLike[str], *, layout: Layout = "auto", labelled: bool = False) -> Frames:
    """Open a data set; its sweeps are read frame by frame.

    Parameters
    ----------
    path : path-like
        OPV2V, V2XSet, V2V4Real: a split, a scenario or the whole. DAIR-V2X-C: ``cooperative-vehicle-infrastructure``
        or the folder above it; with ``/train``, ``/val`` or ``/test`` behind it only that split's frames (of
        ``cooperative-split-data.json``), with ``/NAME.json`` those of a list of vehicle frames that lies there.
        KITTI: ``training``. nuScenes: the folder of ``samples`` and ``v1.0-*``, or a ``*.pkl`` of mmdetection3d.
    layout : str
        ``auto`` tells them by their files.
    labelled : bool
        Only points where boxes are labelled, to learn and to measure by: of KITTI's sweeps those in the camera's view.

    Raises
    ------
    InputError
        None of these is there, or what its reader refuses.
    """
    path = Path(path).expanduser()
    if layout in ("auto", "dair-v2x-c") and (path.name in _SPLITS or path.suffix == ".json") and not path.is_dir():
        whole = _dair_folder(path.parent)
        if whole is not None:
            from priorscope_detection.data.dair import DairV2X

            return DairV2X(whole, split=path if path.suffix == ".json" else path.name)
    if not path.exists():
        raise InputError("no such file or folder", path=path, remedy="Check the path.")
    kind = _recognised(path) if layout == "auto" else layout
    if kind == "dair-v2x-c":
        from priorscope_detection.data.dair import DairV2X

        return DairV2X(_dair_folder(path) or path)
    if kind == "kitti":
        from priorscope_detection.data.kitti import Kitti

        return Kitti(path, in_view=labelled)
    if kind == "nuscenes":
        from priorscope_detection.data.nuscenes import NuScenes, NuScenesInfo

        return NuScenesInfo(path) if path.suffix == ".pkl" else NuScenes(path)
    if kind in ("opv2v", "v2xset", "v2v4real"):
        from priorscope_detection.data.opv2v import OPV2V

        return OPV2V(path, boxes_in="lidar" if kind == "v2v4real" else None)
    raise InputError(
        "is none of the layouts that can be read",
        path=path,
        remedy="Give a folder of OPV2V, V2XSet, V2V4Real, DAIR-V2X-C, KITTI or nuScenes, or an info file (.pkl).",
    )


def _dair_folder(path: Path) -> Path | None:
    for folder in (path, path / "cooperative-vehicle-infrastructure"):
        if (folder / "cooperative/data_info.json").is_file():
            return folder
    return None


def _recognised(path: Path) -> str:
    if path.suffix == ".pkl":
        return "nuscenes"
    if not path.is_dir():
        return ""
    if _dair_folder(path) is not None:
        return "dair-v2x-c"
    if (path / "velodyne").is_dir() or (path / "training/velodyne").is_dir():
        return "kitti"
    if any(path.glob("v*/sample_data.json")):
        return "nuscenes"
    from priorscope_detection.data.opv2v import find_scenarios

    return "opv2v" if find_scenarios(path) else ""

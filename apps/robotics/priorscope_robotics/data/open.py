"""Demonstrations of any known layout, by their path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from priorscope.errors import InputError
from priorscope_robotics.data.episodes import Episodes


def open_episodes(path: str | Path, names: Sequence[str] = ()) -> Episodes:
    """Read demonstrations.

    Parameters
    ----------
    path : str or Path
        Push-T's ``*.zarr`` or ``*.zarr.zip``, a LeRobotDataset's folder, robomimic's ``*.hdf5``, or a ``*.npz`` (which
        ``collect`` writes too).
    names : sequence of str
        Which observations; each reader has its default.

    Raises
    ------
    InputError
        None of these, or what its reader refuses.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError("no such file or folder", path=path)
    if path.suffix == ".zarr" or path.name.endswith(".zarr.zip"):
        from priorscope_robotics.data.pusht_zarr import read_pusht

        return read_pusht(path, names)
    if path.is_dir() and (path / "meta/info.json").is_file():
        from priorscope_robotics.data.lerobot_dataset import read_lerobot_dataset

        return read_lerobot_dataset(path, names)
    if path.suffix in (".hdf5", ".h5"):
        from priorscope_robotics.data.robomimic import read_robomimic

        return read_robomimic(path, names)
    if path.suffix == ".npz":
        from priorscope_robotics.data.arrays import read_arrays

        found = read_arrays(path)
        return found.only(names) if names else found
    raise InputError(
        "is none of the layouts that can be read",
        path=path,
        remedy="Give a *.zarr, *.zarr.zip, *.hdf5, *.npz, or the folder of a LeRobotDataset (it has meta/info.json).",
    )

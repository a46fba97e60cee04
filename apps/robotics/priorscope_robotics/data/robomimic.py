"""robomimic's HDF5 files, with Diffusion Policy's form of absolute actions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_robotics.data.episodes import Episodes, as_images

#: What low-dimensional policies see, in their order; the second gripper's keys where there are two arms.
OBJECT_KEYS = ("object", "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
SECOND_ARM = ("robot1_eef_pos", "robot1_eef_quat", "robot1_gripper_qpos")


def read_robomimic(
    path: Path, names: Sequence[str] = (), *, absolute: bool | None = None, subset: str = ""
) -> Episodes:
    """Read ``low_dim*.hdf5`` or ``image*.hdf5``.

    Parameters
    ----------
    path : Path
    names : sequence of str
        Keys of data/demo_*/obs. Default: ``obs``, the joined vector of low-dimensional policies.
    absolute : bool, optional
        Actions are targets whose rotation vectors become six numbers: 7 -> 10 an arm. Default: where the name of the
        file ends in ``_abs``.
    subset : str
        A list of demonstrations below mask/, such as ``train``.

    Raises
    ------
    InputError
        No such layout, or broken episodes.
    """
    import h5py

    absolute = path.stem.endswith("_abs") if absolute is None else absolute
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise InputError("no such file", path=path) from None
    except OSError as error:
        raise InputError(f"is no HDF5 file that can be read ({str(error)[:100]})", path=path) from None
    with file:
        if "data" not in file:
            raise InputError("has no group 'data'", path=path, remedy="Is it one of robomimic's files?")
        demos = _demos(file, subset, path)
        first = file["data"][demos[0]]
        if "obs" not in first or "actions" not in first:
            raise InputError(f"data/{demos[0]} has no 'obs' and 'actions'", path=path)
        wanted = list(names) or ["obs"]
        parts = list(OBJECT_KEYS)
        if "robot1_eef_pos" in first["obs"]:
            parts += SECOND_ARM
        found: dict[str, list[Any]] = {name: [] for name in wanted}
        actions, ends = [], []
        for demo in demos:
            group = file["data"][demo]
            actions.append(_dataset(group, "actions", demo, path))
            for name in wanted:
                if name == "obs":
                    values = [_dataset(group, f"obs/{key}", demo, path) for key in parts]
                    found[name].append(np.concatenate([value.reshape(len(value), -1) for value in values], 1))
                    continue
                value = _dataset(group, f"obs/{name}", demo, path)
                found[name].append(as_images(value, name) if value.ndim == 4 else value.reshape(len(value), -1))
            ends.append(len(actions[-1]))
    joined = np.concatenate(actions).astype(np.float32)
    observations: dict[str, Any] = {}
    for name, values in found.items():
        whole = np.concatenate(values)
        observations[name] = whole if whole.ndim == 4 else whole.astype(np.float32)
    if absolute:
        joined = six_number_actions(joined, path)
    return Episodes(observations, joined, np.cumsum(ends).astype(np.int64), fps=20.0, title=path.name).check(path)


def _demos(file: Any, subset: str, path: Path) -> list[str]:
    names = [name for name in file["data"] if name.startswith("demo_")]
    if subset:
        if f"mask/{subset}" not in file:
            have = ", ".join(file["mask"]) if "mask" in file else "none"
            raise InputError(f"has no subset {subset!r}", path=path, remedy=f"There are: {have}.")
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in file[f"mask/{subset}"][:]]
    names = sorted(names, key=lambda name: int(name.removeprefix("demo_")))
    if not names:
        raise InputError("holds no demonstration", path=path)
    return names


def _dataset(group: Any, name: str, demo: str, path: Path) -> NDArray[Any]:
    if name not in group:
        have = ", ".join(group["obs"]) if "obs" in group else "none"
        raise InputError(f"data/{demo} has no {name}", path=path, remedy=f"Its observations: {have}.")
    return group[name][:]


def six_number_actions(actions: NDArray[np.float32], path: Path | None = None) -> NDArray[np.float32]:
    """Absolute actions (N, 7 an arm: position, rotation vector, gripper) as (N, 10 an arm).

    A rotation's six numbers are the first two rows of its matrix (Zhou et al. 2019; pytorch3d's order).
    """
    from scipy.spatial.transform import Rotation

    if actions.shape[1] % 7:
        raise InputError(f"absolute actions of {actions.shape[1]} numbers, not 7 an arm", path=path)
    arms = actions.reshape(len(actions), -1, 7)
    flat = arms[..., 3:6].reshape(-1, 3)
    matrix = Rotation.from_rotvec(flat).as_matrix().reshape(*arms.shape[:2], 3, 3)
    six = matrix[..., :2, :].reshape(*arms.shape[:2], 6)
    return np.concatenate([arms[..., :3], six, arms[..., 6:]], -1).reshape(len(actions), -1).astype(np.float32)


def rotation_vectors(actions: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inverse of :func:`six_number_actions`, for six numbers that need not be orthonormal (Gram-Schmidt)."""
    from scipy.spatial.transform import Rotation

    arms = actions.reshape(len(actions), -1, 10)
    first = arms[..., 3:6] / np.linalg.norm(arms[..., 3:6], axis=-1, keepdims=True)
    second = arms[..., 6:9] - (first * arms[..., 6:9]).sum(-1, keepdims=True) * first
    second = second / np.linalg.norm(second, axis=-1, keepdims=True)
    matrix = np.stack([first, second, np.cross(first, second)], -2)
    vectors = Rotation.from_matrix(matrix.reshape(-1, 3, 3)).as_rotvec().reshape(*arms.shape[:2], 3)
    return np.concatenate([arms[..., :3], vectors, arms[..., 9:]], -1).reshape(len(actions), -1).astype(np.float32)

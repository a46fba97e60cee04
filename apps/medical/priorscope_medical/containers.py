"""Files with several arrays in them: HDF5, .npz and .npy seen alike."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from priorscope.data.arrays import read_array
from priorscope.errors import InputError

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs")


@contextmanager
def open_arrays(
    path: Path, name: str, max_gigabytes: float
) -> Iterator[tuple[Mapping[str, Any], dict[str, dict[str, Any]]]]:
    """Datasets of an HDF5 file, not yet read, or arrays of an .npz or .npy (called ``name``); attributes by dataset.

    Those of the file itself are under "".
    """
    if not path.exists():
        raise InputError("no such file", path=path, remedy="Check the path.")
    if path.suffix.lower() not in HDF5_SUFFIXES:
        if path.suffix.lower() == ".npz":
            yield {key: read_array(path, key=key, max_gigabytes=max_gigabytes) for key in _members(path)}, {}
            return
        if path.suffix.lower() != ".npy":
            raise InputError(
                f"{path.suffix or 'a file without suffix'} is not read here",
                path=path,
                remedy="Give .h5, .npz or .npy.",
            )
        yield {name: read_array(path, max_gigabytes=max_gigabytes)}, {}
        return
    try:
        import h5py
    except ImportError as error:
        raise InputError("reading HDF5 needs h5py", path=path, remedy="pip install 'priorscope[medical]'") from error
    try:
        with h5py.File(path, "r") as file:
            found: dict[str, Any] = {}
            file.visititems(lambda key, item: found.update({key: item}) if isinstance(item, h5py.Dataset) else None)
            attributes = {key: dict(item.attrs) for key, item in found.items()}
            attributes[""] = dict(file.attrs)
            yield found, attributes
    except InputError:
        raise
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"is truncated or no HDF5 file ({reason})", path=path, remedy="Copy it again.") from error


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"is truncated or no .npz archive ({error})", path=path) from error


def named(arrays: Mapping[str, Any], name: str | None, usual: tuple[str, ...], path: Path, what: str) -> str:
    """The dataset asked for, or the first of the usual names that exists; InputError lists what there is."""
    candidates = usual if name is None else (name.strip("/"),)
    for candidate in candidates:
        if candidate in arrays:
            return candidate
    listed = ", ".join(f"{key} {list(array.shape)}" for key, array in sorted(arrays.items())) or "none"
    raise InputError(
        f"has no dataset {' or '.join(candidates)} for the {what}; it holds {listed}", path=path, remedy="Name it."
    )

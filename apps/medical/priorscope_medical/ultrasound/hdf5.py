"""What the readers of HDF5 share: opening a file, finding what must be there, and sizes before reading."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """The file, for reading; whatever h5py cannot read, now or within the block, is an InputError."""
    try:
        import h5py
    except ImportError as error:
        raise InputError("reading HDF5 needs h5py", path=path, remedy="pip install 'priorscope[medical]'") from error
    with suppress(ImportError):
        importlib.import_module("hdf5plugin")  # registers the compressions that zea's files have
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:150]
        if "filter" in reason or "plugin" in reason:
            raise InputError(
                f"has a compression that h5py does not know ({reason})", path=path, remedy="pip install hdf5plugin"
            ) from error
        raise InputError(f"is truncated or no HDF5 file ({reason})", path=path, remedy="Copy it again.") from error


def item(group: Any, names: str | Sequence[str], path: Path) -> Any:
    """The first of ``names`` that ``group`` has; InputError says what it has instead."""
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name in group:
            return group[name]
    raise InputError(
        f"{group.name} has no {' or '.join(names)}; it has {', '.join(sorted(group)) or 'nothing'}",
        path=path,
        remedy="Is the file complete, and of this format?",
    )


def number(group: Any, names: str | Sequence[str], path: Path) -> float:
    """One number; several that are all equal count as one."""
    values = np.unique(np.asarray(item(group, names, path)[()], dtype=np.float64))
    if values.size != 1 or not np.isfinite(values[0]):
        name = names if isinstance(names, str) else names[0]
        raise InputError(
            f"{group.name}/{name} holds {values.size} different numbers, one finite one was expected", path=path
        )
    return float(values[0])


def optional_number(group: Any, names: str | Sequence[str], path: Path) -> float | None:
    """One number, or None where it is missing or 0, which these formats write for "not stated"."""
    names = [names] if isinstance(names, str) else list(names)
    if not any(name in group for name in names):
        return None
    return number(group, names, path) or None


def check_size(dataset: Any, path: Path, max_gigabytes: float, *, share: float = 1.0) -> None:
    """Refuse a dataset of which more than ``max_gigabytes`` would be read."""
    gigabytes = float(np.prod(dataset.shape, dtype=np.float64)) * dataset.dtype.itemsize * share / 1e9
    if gigabytes > max_gigabytes:
        raise InputError(
            f"{dataset.name} has {gigabytes:.1f} GB, the limit is {max_gigabytes:g} GB",
            path=path,
            remedy="Read fewer frames, or raise the limit.",
        )


def complex_or_real(real: NDArray[Any], imag: NDArray[Any] | None) -> NDArray[Any]:
    """float32, or complex64 where there is an imaginary part that is not all 0."""
    if imag is None or not np.any(imag):
        return np.asarray(real, dtype=np.float32)
    if real.shape != imag.shape:
        raise InputError(f"real part of shape {list(real.shape)}, imaginary part of {list(imag.shape)}")
    return (np.asarray(real, dtype=np.float32) + 1j * np.asarray(imag, dtype=np.float32)).astype(np.complex64)

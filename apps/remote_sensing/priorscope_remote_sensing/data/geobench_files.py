"""The files of a GEO-Bench v1.0 task: specification and records as pickles, partitions as JSON, samples as HDF5."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from priorscope.data.safe_pickle import Stub, safe_loads
from priorscope.errors import InputError

Kind = Literal["classification", "multi-label", "segmentation"]
_STUBS = ("geobench", "ccb", "rasterio", "affine")


@dataclass(frozen=True)
class TaskSpecification:
    """What ``task_specs.pkl`` says."""

    name: str
    kind: Kind
    class_names: tuple[str, ...]
    band_names: tuple[str, ...]
    patch_size: tuple[int, ...]
    resolution: float | None
    """Metres a pixel."""


def read_task_specification(folder: str | PathLike[str]) -> TaskSpecification:
    """Read ``task_specs.pkl`` of a task's folder; its classes are replaced by stubs, nothing in it runs.

    Raises
    ------
    InputError
        It is missing, holds a forbidden class, or no task.
    """
    path = Path(folder) / "task_specs.pkl"
    if not path.is_file():
        raise InputError("no such file", path=path, remedy="It is part of every GEO-Bench task: download it again.")
    record = safe_loads(path.read_bytes(), stubs=_STUBS, path=path)
    label = getattr(record, "label_type", None)
    if not isinstance(record, Stub) or not isinstance(label, Stub):
        raise InputError("is not a GEO-Bench task", path=path)
    kind = _kind(label, path)
    count = int(getattr(label, "n_classes", 0))
    names = getattr(label, "_class_names", None) or getattr(label, "class_name", None)
    class_names = tuple(map(str, names)) if names else tuple(f"class {index}" for index in range(count))
    if not count or len(class_names) != count:
        raise InputError(f"has {count} classes and {len(class_names)} names for them", path=path)
    bands = tuple(str(band.name) for band in getattr(record, "bands_info", None) or ())
    size = tuple(int(side) for side in getattr(record, "patch_size", None) or ())
    resolution = getattr(record, "spatial_resolution", None)
    named = str(getattr(record, "dataset_name", None) or path.parent.name)
    return TaskSpecification(named, kind, class_names, bands, size, None if resolution is None else float(resolution))


def _kind(label: Stub, path: Path) -> Kind:
    name = label.stub_class.rpartition(".")[2]
    kinds: dict[str, Kind] = {
        "Classification": "classification",
        "MultiLabelClassification": "multi-label",
        "SegmentationClasses": "segmentation",
        "SemanticSegmentation": "segmentation",
    }
    if name not in kinds:
        raise InputError(f"has labels of the type {name}, which is not known here", path=path)
    return kinds[name]


def read_partition(folder: str | PathLike[str], partition: str, split: str) -> list[str]:
    """Names of the samples of a split, in the order of ``PARTITION_partition.json``.

    Raises
    ------
    InputError
        No such partition or split, an empty split, a sample in two splits, or one whose file is missing.
    """
    folder = Path(folder)
    path = folder / f"{partition}_partition.json"
    if not path.is_file():
        known = sorted(file.name.removesuffix("_partition.json") for file in folder.glob("*_partition.json"))
        raise InputError("no such partition", path=path, remedy=f"There are: {', '.join(known) or 'none'}.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        splits = {str(key): [str(name) for name in names] for key, names in record.items()}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError, TypeError) as error:
        raise InputError(f"is not a table of splits ({error})", path=path) from error
    if split not in splits:
        raise InputError(f"has no split {split!r}; it has {', '.join(splits) or 'none'}", path=path)
    names = splits[split]
    if not names:
        raise InputError(f"its split {split!r} is empty", path=path)
    seen: dict[str, str] = {}
    for key, members in splits.items():
        for name in members:
            if seen.setdefault(name, key) != key:
                raise InputError(f"{name} is in {seen[name]} and in {key}", path=path)
    if any(Path(name).name != name for name in names):
        raise InputError("a sample's name leads outside the folder", path=path)
    present = {file.stem for file in folder.glob("*.hdf5")}
    missing = [name for name in names if name not in present]
    if missing:
        raise InputError(
            f"{len(missing)} of its {len(names)} samples are not there, the first is {missing[0]}.hdf5",
            path=path,
            remedy="Download the task again.",
        )
    return names


def read_sample(path: str | PathLike[str], *, date: int = 0) -> tuple[dict[str, NDArray[Any]], Any]:
    """Read a sample's file.

    Parameters
    ----------
    path : path-like
    date : int
        Which date of a band that has several, in order of time.

    Returns
    -------
    bands : dict
        Name of the band (without its date) -> array [H, W], in the file's order. The channels of a band with
        several (hyperspectral) are named ``NAME 000``, ``NAME 001``, ...
    label : object
        An array from the dataset "label", or what the record holds under that name.

    Raises
    ------
    InputError
        Not an HDF5 file of this layout, cut short, or with a forbidden class in its pickle.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", path=path)
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("pickle")
            record = _record(text, path)
            order = [str(name) for name in record.get("bands_order", list(file))]
            order += [name for name in file if _is_label(name) and name not in order]
            arrays = {name: np.asarray(file[name]) for name in order}
    except (OSError, KeyError, RuntimeError, ValueError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"is not a GEO-Bench sample that can be read ({' '.join(str(error).split())[:150]})",
            path=path,
            remedy="Download it again.",
        ) from error
    label = next((array for name, array in arrays.items() if _is_label(name)), None)
    if label is None:
        if "label" not in record:
            raise InputError("holds no label, neither as a dataset nor in its record", path=path)
        label = record["label"]
    dated: dict[str, list[tuple[Any, NDArray[Any]]]] = {}
    for name, array in arrays.items():
        if not _is_label(name):
            moment = _moment(record.get(name))
            dated.setdefault(_without_date(name, moment, record.get(name)), []).append((moment, array))
    bands: dict[str, NDArray[Any]] = {}
    for name, takes in dated.items():
        takes.sort(key=lambda take: str(take[0] or ""))
        if not -len(takes) <= date < len(takes):
            raise InputError(f"has {len(takes)} dates of {name}, number {date} was asked for", path=path)
        array = takes[date][1]
        if array.ndim == 3 and array.shape[2] > 1:
            bands |= {f"{name} {channel:03d}": array[..., channel] for channel in range(array.shape[2])}
        elif array.ndim in (2, 3):
            bands[name] = array.reshape(array.shape[:2])
        else:
            raise InputError(f"its band {name} has shape {list(array.shape)}", path=path)
    if not bands:
        raise InputError("holds no bands", path=path)
    return bands, label


def _record(text: Any, path: Path) -> dict[str, Any]:
    """The dictionary in the attribute "pickle": the text of a bytes literal, as ``str(pickle.dumps(...))`` gives it."""
    if not isinstance(text, str | bytes):
        raise InputError("has no attribute 'pickle'", path=path, remedy="It is not a GEO-Bench sample.")
    try:
        data = ast.literal_eval(text if isinstance(text, str) else text.decode("ascii"))
    except (ValueError, SyntaxError, UnicodeDecodeError, MemoryError, RecursionError) as error:
        raise InputError("its attribute 'pickle' is no bytes literal", path=path) from error
    record = safe_loads(data, stubs=_STUBS, path=path) if isinstance(data, bytes) else None
    if not isinstance(record, dict):
        raise InputError("its attribute 'pickle' holds no dictionary", path=path)
    return record


def _is_label(name: str) -> bool:
    return name == "label" or name.startswith("label_")


def _moment(attributes: Any) -> Any:
    return attributes.get("date") if isinstance(attributes, dict) else None


def _without_date(name: str, moment: Any, attributes: Any) -> str:
    """A dataset is called NAME or NAME_DATE; the record's band_info knows the name alone."""
    info = attributes.get("band_info") if isinstance(attributes, dict) else None
    known = getattr(info, "name", None)
    if isinstance(known, str) and name.startswith(known):
        return known
    return name.rpartition("_")[0] if moment is not None and "_" in name else name

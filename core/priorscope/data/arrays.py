"""Reading and writing numeric arrays: .npy, .npz, 16-bit .png, .exr. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import atomic_path
from priorscope.errors import InputError

MAX_GIGABYTES = 16.0
ARRAY_SUFFIXES = (".npy", ".npz", ".png", ".exr")


def read_array(
    path: str | PathLike[str],
    *,
    key: str | None = None,
    ndim: int | Collection[int] | None = None,
    allow_nonfinite: bool = True,
    max_gigabytes: float = MAX_GIGABYTES,
) -> NDArray[Any]:
    """Read a numeric array, with the values and the dtype that the file holds.

    Parameters
    ----------
    path : path-like
        ``.npy``; ``.npz``; ``.png`` (8 or 16 bits grey, unscaled: [H, W]; 8-bit colour: [H, W, 3 or 4]);
        ``.exr`` (half or float: [H, W] for one channel, else [H, W, C] in the order R, G, B, A; a file with
        layers needs `key`).
    key : str, optional
        Array of an .npz, or channel or layer of an .exr ("R", "Z", "RGB", "depth"). Needed where there are
        several.
    ndim : int or collection of int, optional
        Numbers of dimensions that are accepted.
    allow_nonfinite : bool
        Whether NaN and infinite values may be there.
    max_gigabytes : float
        Larger arrays are refused before their memory is taken.

    Returns
    -------
    ndarray
        bool, integer, real or complex.

    Raises
    ------
    InputError
        If the file is missing, empty, truncated, of another format, holds Python objects or text, or fails
        one of the checks asked for.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such file", path=path, remedy="Check the path.")
    if path.is_dir():
        raise InputError("is a folder, a file was expected", path=path)
    if path.stat().st_size == 0:
        raise InputError("is empty (0 bytes)", path=path, remedy="Copy or write it again.")
    readers = {".npy": _read_npy, ".npz": _read_npz, ".png": _read_png, ".exr": _read_exr}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path.suffix or 'a file without suffix'} is not an array format that is read here",
            path=path,
            remedy=f"Convert it to one of {', '.join(ARRAY_SUFFIXES)}.",
        )
    array = reader(path, key, max_gigabytes)
    if array.dtype.kind not in "biufc":
        raise InputError(f"holds {array.dtype} values, numbers were expected", path=path)
    wanted = (ndim,) if isinstance(ndim, int) else ndim
    if wanted is not None and array.ndim not in wanted:
        raise InputError(
            f"has shape {list(array.shape)}, {' or '.join(map(str, wanted))} dimensions were expected", path=path
        )
    if not array.size:
        raise InputError(f"holds no values (shape {list(array.shape)})", path=path)
    if not allow_nonfinite and array.dtype.kind in "fc" and not np.isfinite(array).all():
        raise InputError(
            f"holds {int((~np.isfinite(array)).sum())} NaN or infinite values",
            path=path,
            remedy="Mask them first.",
        )
    return array


def _check_bytes(count: int, path: Path, max_gigabytes: float) -> None:
    if count > max_gigabytes * 1e9:
        raise InputError(
            f"would take {count / 1e9:.1f} GB of memory; at most {max_gigabytes:g} are accepted",
            path=path,
            remedy="Cut it into smaller files.",
        )


def _refuse_pickle(error: ValueError, path: Path) -> InputError:
    if "pickle" in str(error).lower():
        return InputError(
            "holds Python objects, which are never loaded (they can run code)",
            path=path,
            remedy="Save plain numbers.",
        )
    return InputError(f"is truncated or broken ({' '.join(str(error).split())[:150]})", path=path)


def _read_npy(path: Path, key: str | None, max_gigabytes: float) -> NDArray[Any]:
    if key is not None:
        raise InputError(f"a .npy file holds one array without a name; {key!r} was asked for", path=path)
    try:
        # Mapped first: the header may promise more than the file holds, or than the memory does.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise _refuse_pickle(ValueError(str(error)), path) from error
    if not isinstance(mapped, np.ndarray):
        raise InputError("is an .npz archive, not an .npy file", path=path, remedy="Rename it to .npz.")
    _check_bytes(mapped.nbytes, path, max_gigabytes)
    return np.array(mapped)


def _read_npz(path: Path, key: str | None, max_gigabytes: float) -> NDArray[Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
        if key is None and len(sizes) != 1:
            raise InputError(
                f"holds {len(sizes)} arrays: {', '.join(sorted(sizes)) or 'none'}",
                path=path,
                remedy="Say which one is meant.",
            )
        name = key if key is not None else next(iter(sizes))
        if name not in sizes:
            raise InputError(f"has no array {name!r}; it holds {', '.join(sorted(sizes))}", path=path)
        _check_bytes(sizes[name], path, max_gigabytes)
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name]
    except InputError:
        raise
    except (ValueError, OSError, EOFError, SyntaxError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise _refuse_pickle(ValueError(str(error)), path) from error


def _read_png(path: Path, key: str | None, max_gigabytes: float) -> NDArray[Any]:
    from PIL import Image

    if key is not None:
        raise InputError(f"a .png file holds one array without a name; {key!r} was asked for", path=path)
    try:
        with Image.open(path) as image:
            _check_bytes(image.width * image.height * 4, path, max_gigabytes)
            values = np.array(image.convert("RGB") if image.mode == "P" else image)
            return values.astype(np.uint16) if image.mode in ("I", "I;16B") else values
    except InputError:
        raise
    except Exception as error:  # a decoder given broken bytes raises whatever it likes
        raise InputError(f"is truncated or no PNG file ({' '.join(str(error).split())[:150]})", path=path) from error


def _read_exr(path: Path, key: str | None, max_gigabytes: float) -> NDArray[Any]:
    try:
        import OpenEXR
    except ImportError as error:
        raise InputError("reading .exr needs OpenEXR", path=path, remedy="pip install 'priorscope[depth]'") from error
    try:
        header = OpenEXR.File(str(path), header_only=True).header()
        low, high = header["dataWindow"]
        count = int(np.prod(np.asarray(high, np.int64) - np.asarray(low, np.int64) + 1))
        _check_bytes(count * 4 * max(1, len(header["channels"])), path, max_gigabytes)
        channels = {name: channel.pixels for name, channel in OpenEXR.File(str(path)).channels().items()}
    except InputError:
        raise
    except Exception as error:  # the binding raises RuntimeError, ValueError and others for broken files
        raise InputError(f"is truncated or no EXR file ({' '.join(str(error).split())[:150]})", path=path) from error
    letters = {  # "RGB" is one array of three channels; a single "R" may be asked for
        letter: pixels[..., index]
        for name, pixels in channels.items()
        if pixels.ndim == 3 and len(name) == pixels.shape[2]
        for index, letter in enumerate(name)
    }
    known = letters | channels
    if key is None and len(channels) != 1:
        raise InputError(
            f"holds the channels {', '.join(sorted(channels))}", path=path, remedy="Say which one is meant."
        )
    if key is not None and key not in known:
        raise InputError(f"has no channel {key!r}; it holds {', '.join(sorted(channels))}", path=path)
    return np.ascontiguousarray(known[key] if key is not None else next(iter(channels.values())))


def write_npy(path: str | PathLike[str], array: NDArray[Any], *, overwrite: bool = False) -> Path:
    """Write one array as .npy, atomically, and return the path.

    Raises
    ------
    InputError
        If the file exists, the name does not end in .npy, or the array holds Python objects.
    """
    path = _checked_name(path, ".npy", {"array": array})
    with atomic_path(path, overwrite=overwrite) as temporary:
        np.save(temporary, np.asarray(array), allow_pickle=False)
    return path


def write_npz(
    path: str | PathLike[str], arrays: Mapping[str, Any], *, overwrite: bool = False, compress: bool = True
) -> Path:
    """Write named arrays as .npz, atomically, and return the path.

    Parameters
    ----------
    path : path-like
        Ends in ``.npz``.
    arrays : mapping
        Name -> array, number or str; a str becomes a 0-dimensional unicode array, which numpy reads back
        without pickle.
    overwrite : bool
        Whether an existing file may be replaced.
    compress : bool
        Deflate the arrays.

    Raises
    ------
    InputError
        If the file exists, the name does not end in .npz, or an array holds Python objects.
    """
    path = _checked_name(path, ".npz", arrays)
    save = np.savez_compressed if compress else np.savez
    with atomic_path(path, overwrite=overwrite) as temporary:
        save(temporary, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
    return path


def _checked_name(path: str | PathLike[str], suffix: str, arrays: Mapping[str, Any]) -> Path:
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise InputError(f"the name should end in {suffix}", path=path)
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise InputError(f"{name} holds Python objects; only numbers and text are written", path=path)
    return path

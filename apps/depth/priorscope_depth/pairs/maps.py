"""One depth or normals map from a file, whatever its format, in the library's units and conventions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from priorscope.data.arrays import read_array
from priorscope.errors import InputError
from priorscope_depth.pairs.normals import flip_x, unit_or_zero

#: The most exact first: where a map lies there in several formats, the first is read.
MAP_SUFFIXES = (".npy", ".npz", ".exr", ".tiff", ".tif", ".png")
#: Arrays of an .npz that are looked for where it holds several.
_NAMES = {"depth": ("values", "depth"), "normals": ("values", "normals", "normal")}


def read_depth(path: Path, *, scale: float = 0.001, disparity: bool = False) -> NDArray[np.float32]:
    """Depth in metres.

    Parameters
    ----------
    path : Path
        ``.npy``, ``.npz``, ``.exr``, ``.tiff`` or ``.png``. Floating-point values are metres (disparity: 1 / metre);
        integers are multiplied by ``scale``.
    scale : float
        Metres a unit of integer files; 0.001 is usual, KITTI's is 1 / 256.
    disparity : bool
        The file holds 1 / depth, up to a factor.

    Returns
    -------
    ndarray, float32, (H, W)
        0 where there is none: where the file holds NaN, infinity, 0 or less, or its own mask says so.

    Raises
    ------
    InputError
        For a file that cannot be read, holds no map or no valid pixel, or is a prediction without a scale.

    Notes
    -----
    A side file or note of :func:`priorscope_depth.output.write_result` (NAME.json; in an .npz) decides over
    ``scale`` and ``disparity``.
    """
    about = _side_file(path)
    values, valid, note = _read(path, "depth")
    about = about or note
    if about is not None:
        scale, disparity = _stated(path, about, scale)
    values = _one_channel(values, path)
    if values.dtype == np.uint8 and not disparity:
        raise InputError(
            "has 8 bits: too coarse for depth, and often a picture made for the eye",
            path=path,
            remedy="Save depth as 16-bit PNG, or as .npy in metres.",
        )
    numbers = values.astype(np.float64) * (scale if values.dtype.kind in "iu" else 1.0)
    known = np.isfinite(numbers) & (numbers > 0)
    if valid is not None:
        known &= valid
    if disparity:
        numbers = 1 / np.where(known, numbers, 1)
    with np.errstate(over="ignore"):  # beyond float32 is as good as infinite
        depth = np.where(known, numbers, 0).astype(np.float32)
    depth[~np.isfinite(depth)] = 0
    if not depth.any():
        raise InputError("has no pixel with depth: all are NaN, infinite, 0 or less", path=path)
    return depth


def read_normals(path: Path, *, x: Literal["right", "left"] = "right") -> NDArray[np.float32]:
    """Normals.

    Parameters
    ----------
    path : Path
        8-bit colour: (n + 1) / 2 * 255, black where there is none; floating point: (H, W, 3) or (3, H, W) in
        [-1, 1], 0 or NaN where there is none.
    x : {"right", "left"}
        Where the file's first axis points; y is up, z towards the viewer. Lotus' normals have x to the left.

    Returns
    -------
    ndarray, float32, (H, W, 3)
        Unit, x right, y up, z towards the viewer; 0 where there is none.

    Raises
    ------
    InputError
        For a file that cannot be read, or whose vectors are not unit ones.
    """
    values, valid, _ = _read(path, "normals")
    if values.ndim == 3 and values.shape[0] == 3 and values.shape[2] != 3:
        values = np.moveaxis(values, 0, -1)
    if values.ndim != 3 or values.shape[2] != 3 or not (values.dtype.kind == "f" or values.dtype == np.uint8):
        raise InputError(
            f"normals are 8-bit colour or floating point [H, W, 3]; this is {values.dtype} {list(values.shape)}",
            path=path,
        )
    if values.dtype == np.uint8:
        vectors = np.where(values.any(-1, keepdims=True), values.astype(np.float32) / 127.5 - 1, 0)
    else:
        vectors = values.astype(np.float32)
    if valid is not None:
        vectors = np.where(valid[..., None], vectors, 0)
    length = np.linalg.norm(vectors, axis=-1)
    length = length[np.isfinite(length) & (length > 1e-3)]
    if not length.size:
        raise InputError("has no pixel with a normal", path=path)
    middle = float(np.median(length))
    if not 0.95 < middle < 1.05:
        raise InputError(
            f"half of the vectors are longer than {middle:.2f}, normals have length 1",
            path=path,
            remedy="Save them in [-1, 1]; if they lie in [0, 1], as Lotus writes them, that is 2 n - 1.",
        )
    vectors = unit_or_zero(vectors)
    return flip_x(vectors) if x == "left" else vectors


def _stated(path: Path, about: dict[str, Any], scale: float) -> tuple[float, bool]:
    """Scale of integers and whether it is disparity, by what the writer noted."""
    if about["space"] not in ("depth", "disparity"):
        raise InputError(f"holds {about['space']}, as its description says; depth was expected", path=path)
    if about["scale"] != "metric":
        raise InputError(
            f"is a prediction whose {about['space']} is known up to a factor and an offset only",
            path=path,
            remedy="Train on true depth, or fit the prediction to known distances first.",
        )
    if path.suffix.lower() == ".png":
        decoding = about.get("files", {}).get("png", {}).get("decoding", "")
        steps = re.search(r"pixel / (\d+)", str(decoding))
        if steps is None:
            raise InputError("its description does not say how many steps make a metre", path=path.with_suffix(".json"))
        scale = 1 / int(steps[1])
    return scale, about["space"] == "disparity"


def _side_file(path: Path) -> dict[str, Any] | None:
    side = path.with_suffix(".json")
    if not side.is_file():
        return None
    try:
        found = json.loads(side.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"is no readable JSON ({type(error).__name__}), so that the meaning of the map beside it is unknown",
            path=side,
            remedy="Write it again, or remove it if it has nothing to do with the map.",
        ) from error
    return _meaning(found)


def _meaning(found: Any) -> dict[str, Any] | None:
    """What priorscope writes beside a map; None for somebody else's description."""
    return found if isinstance(found, dict) and {"space", "scale"} <= found.keys() else None


def _read(
    path: Path, kind: Literal["depth", "normals"]
) -> tuple[NDArray[Any], NDArray[np.bool_] | None, dict[str, Any] | None]:
    """The stored array, a mask and a description where there are some."""
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff"):
        return _read_tiff(path), None, None
    if suffix == ".npz":
        return _read_npz(path, kind)
    array = read_array(path) if suffix != ".exr" else _read_exr(path)
    if array.dtype.kind not in "iuf":
        raise InputError(f"holds {array.dtype} values, real numbers were expected", path=path)
    return array, None, None


def _read_exr(path: Path) -> NDArray[Any]:
    try:
        return read_array(path)
    except InputError as error:
        if "holds the channels" not in error.fact:
            raise
    return read_array(path, key="Z")  # the customary channel of depth in a file that holds more


def _read_npz(
    path: Path, kind: Literal["depth", "normals"]
) -> tuple[NDArray[Any], NDArray[np.bool_] | None, dict[str, Any] | None]:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
        about = None
        if "meaning" in names:
            with np.load(path, allow_pickle=False) as arrays:
                about = _meaning(json.loads(str(arrays["meaning"])))
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"is truncated or no .npz file ({error})", path=path) from error
    key = next((name for name in _NAMES[kind] if name in names), None)
    if key is None and kind == "depth" and "disparity" in names and about is None:
        raise InputError(
            "calls its array disparity and does not say in what unit",
            path=path,
            remedy="Rename the array to values and say --pairs-disparity, or to depth if it is metres.",
        )
    array = read_array(path, key=key)
    if array.dtype.kind not in "iuf":
        raise InputError(f"holds {array.dtype} values, real numbers were expected", path=path)
    valid = None
    if "valid" in names and key is not None:
        valid = read_array(path, key="valid")
        if valid.dtype != bool or valid.shape != array.shape[:2]:
            raise InputError(
                f"its mask `valid` is {valid.dtype} {list(valid.shape)}, expected bool {list(array.shape[:2])}",
                path=path,
            )
    return array, valid, about


def _read_tiff(path: Path) -> NDArray[Any]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in ("F", "I", "I;16", "I;16B", "L", "RGB"):
                raise InputError(f"is a TIFF of mode {image.mode}, which holds no map", path=path)
            return np.asarray(image.convert("I") if image.mode == "I;16B" else image)
    except InputError:
        raise
    except Exception as error:  # a decoder given broken bytes raises whatever it likes
        raise InputError(f"is truncated or no TIFF file ({' '.join(str(error).split())[:150]})", path=path) from error


def _one_channel(values: NDArray[Any], path: Path) -> NDArray[Any]:
    if values.ndim == 3 and values.shape[2] == 1:
        return values[..., 0]
    if values.ndim == 3 and values.dtype != np.uint8 and values.shape[2] == 3 and (values == values[..., :1]).all():
        return values[..., 0]  # grey saved as colour, as some renderers do
    if values.ndim != 2:
        raise InputError(
            f"has shape {list(values.shape)}, depth has [H, W]",
            path=path,
            remedy="If it is a picture of depth in colours, save the numbers themselves.",
        )
    return values

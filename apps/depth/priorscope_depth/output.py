"""Depth, disparity and normals as files that say what their numbers mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from priorscope.data.arrays import write_npy, write_npz
from priorscope.data.files import refuse_overwrite, write_text
from priorscope.data.images import write_png
from priorscope.errors import InputError
from priorscope.evaluation.figures import colourise
from priorscope_depth.point_cloud import DepthRange, intrinsics_from_fov, point_cloud, to_depth, write_ply

Space = Literal["depth", "disparity", "normals"]
Scale = Literal["affine-invariant", "metric"]
Format = Literal["png", "npy", "npz", "colour", "ply"]

CAMERA_FRAME = "x right, y up, z towards the viewer"


@dataclass(frozen=True)
class Meaning:
    """What the numbers of a map are; goes into the side file of every result."""

    space: Space
    """"depth" (planar z, larger = farther), "disparity" (inverse depth, larger = nearer) or "normals"."""
    scale: Scale = "affine-invariant"
    """"affine-invariant": depth or disparity up to an unknown factor and offset, in [0, 1]; "metric": metres
    (disparity: 1/metre). Without meaning for normals."""
    model: str | None = None
    """Name of the model that predicted it."""
    frame: str = CAMERA_FRAME
    """Axes of the normals."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """How the map came about beyond that, JSON-able; stands at the end of the description."""

    def __post_init__(self) -> None:
        if self.space not in get_args(Space):
            raise InputError(f"space is {self.space!r}", remedy=f"One of {', '.join(get_args(Space))}.")
        if self.scale not in get_args(Scale):
            raise InputError(f"scale is {self.scale!r}", remedy=f"One of {', '.join(get_args(Scale))}.")

    @property
    def unit(self) -> str | None:
        """Unit of the values; None where they have none."""
        if self.space == "normals" or self.scale == "affine-invariant":
            return None
        return "m" if self.space == "depth" else "1/m"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able description."""
        if self.space == "normals":
            return {
                "space": "normals",
                "scale": None,
                "unit": None,
                "convention": f"unit vectors in the camera's frame: {self.frame}",
                "model": self.model,
                **self.notes,
            }
        larger = "farther" if self.space == "depth" else "nearer"
        known = f"in {self.unit}" if self.scale == "metric" else "up to an unknown factor and offset, not metric"
        kind = "planar depth (z)" if self.space == "depth" else "disparity (inverse of planar depth)"
        return {
            "space": self.space,
            "scale": self.scale,
            "unit": self.unit,
            "convention": f"{kind}, larger = {larger}, {known}",
            "model": self.model,
            **self.notes,
        }


def to_png_values(
    values: NDArray[Any],
    meaning: Meaning,
    *,
    valid: NDArray[np.bool_] | None = None,
    steps_per_metre: int = 1000,
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The pixel values of a result's PNG.

    Affine-invariant maps: uint16 round(65535 * value), so that value = pixel / 65535; invalid pixels become
    0, which is a value too (the mask is in the .npz). Metric depth: uint16 round(steps_per_metre * depth), 0 =
    no depth: 1000 (millimetres, to 65.5 m, as in NYUv2) or 256 (to 256 m, as in KITTI). Normals: uint8 RGB
    round(255 * (n + 1) / 2), black = none.

    Raises
    ------
    InputError
        If values do not fit: outside [0, 1], or beyond the greatest depth; for metric disparity, which has
        no customary PNG.
    """
    values, shown = checked(values, meaning, valid)
    if meaning.space == "normals":
        encoded = np.rint((values + 1) * 127.5)
        return np.where(shown[..., None], np.clip(encoded, 0, 255), 0).astype(np.uint8)
    if meaning.scale == "affine-invariant":
        return np.where(shown, np.rint(np.clip(values, 0, 1) * 65535), 0).astype(np.uint16)
    if meaning.space == "disparity":
        raise InputError("metric disparity has no customary PNG", remedy="Write .npy or .npz, or metric depth.")
    if steps_per_metre < 1:
        raise InputError(f"steps_per_metre is {steps_per_metre}, 1000 (millimetres) or 256 are usual")
    pixels = np.rint(values * steps_per_metre)
    greatest = float(values[shown].max(initial=0.0))
    if np.rint(greatest * steps_per_metre) > 65535:
        raise InputError(
            f"the greatest depth is {greatest:.1f} m; 16 bits at {steps_per_metre} steps a metre end at "
            f"{65535 / steps_per_metre:.1f} m",
            remedy="Use 256 steps a metre, mark far pixels as invalid, or write .npy.",
        )
    # a depth of half a step must not turn into 0, which means "none"
    return np.where(shown, np.maximum(pixels, 1), 0).astype(np.uint16)


def to_colours(
    values: NDArray[Any],
    meaning: Meaning,
    *,
    valid: NDArray[np.bool_] | None = None,
    span: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """A picture to look at, uint8 [H, W, 3]: near is warm (red), far is cold, for depth and disparity alike.

    The colours span the least to the greatest valid value of this one map, or ``span``.
    """
    if meaning.space == "normals":
        return to_png_values(values, meaning, valid=valid).astype(np.uint8)
    values, shown = checked(values, meaning, valid)
    low, high = (None, None) if span is None else span
    return colourise(values, "Spectral" if meaning.space == "depth" else "Spectral_r", lo=low, hi=high, valid=shown)


def result_names(stem: str, space: str, formats: Sequence[str]) -> dict[str, str]:
    """File names of a result: format -> name, and "json" -> the side file's."""
    base = f"{stem}_{space}"
    names = {name: f"{base}_colour.png" if name == "colour" else f"{base}.{name}" for name in formats}
    if space == "normals" and "png" in names:
        names.pop("colour", None)  # the png is a picture already
    return {**names, "json": f"{base}.json"}


def write_result(
    stem: str | PathLike[str],
    values: NDArray[Any],
    meaning: Meaning,
    *,
    formats: Sequence[Format] = ("png", "npy", "colour"),
    valid: NDArray[np.bool_] | None = None,
    uncertainty: NDArray[Any] | None = None,
    rgb: NDArray[np.uint8] | None = None,
    intrinsics: NDArray[Any] | None = None,
    fov: float = 60.0,
    depth_range: DepthRange | None = None,
    steps_per_metre: int = 1000,
    half_precision: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write a map in the formats asked for, and a JSON side file that says what the numbers mean.

    Files are STEM_SPACE.png, .npy, .npz, .ply, .json and STEM_SPACE_colour.png. All names are checked before
    the first file is written.

    Parameters
    ----------
    stem : path-like
        Folder and name without suffix; missing folders are made.
    values : ndarray
        Depth or disparity [H, W], or normals [H, W, 3] in [-1, 1].
    meaning : Meaning
        Space, scale and model.
    formats : sequence of str
        "png" (see :func:`to_png_values`), "npy" (float32), "npz" (values, valid mask, meaning), "colour" (a
        picture; for normals the png is one already), "ply" (coloured points; not for normals).
    valid : ndarray of bool, [H, W], optional
        Where there is a value. In the .npy the others become NaN.
    uncertainty : ndarray, [H, W], optional
        Spread of an ensemble; goes into the .npz.
    rgb : ndarray of uint8, [H, W, 3], optional
        Colours of the points.
    intrinsics : ndarray, [3, 3], optional
        In pixels, pixel centres at +0.5; else `fov` holds.
    fov : float
        Horizontal field of view in degrees, assumed where there are no intrinsics.
    depth_range : DepthRange, optional
        Distances that an affine-invariant map is stretched over for the point cloud. Default 1 to 10.
    steps_per_metre : int
        Of the 16-bit PNG of metric depth.
    half_precision : bool
        float16 in the .npz: 11 significant bits, a relative error of at most 1/2048.
    overwrite : bool
        Whether existing files may be replaced.

    Returns
    -------
    list of Path
        The files, the side file last.
    """
    stem = Path(stem)
    unknown = [name for name in formats if name not in get_args(Format)]
    if unknown or not formats:
        raise InputError(
            f"unknown format {unknown[0]!r}" if unknown else "no format was named",
            remedy=f"Known: {', '.join(get_args(Format))}.",
        )
    if meaning.space == "normals" and "ply" in formats:
        raise InputError("normals alone make no point cloud", remedy="Ask for it with depth or disparity.")
    values, shown = checked(values, meaning, valid)
    names = result_names(stem.name, meaning.space, formats)
    side_file = stem.parent / names.pop("json")
    if not overwrite:
        for name in (*names.values(), side_file.name):
            refuse_overwrite(stem.parent / name)

    # what can fail for its values fails before the first file is there
    pixels = to_png_values(values, meaning, valid=shown, steps_per_metre=steps_per_metre) if "png" in names else None
    if half_precision and np.abs(values[shown]).max(initial=0.0) > np.finfo(np.float16).max:
        raise InputError("values are beyond the range of float16", remedy="Use float32.")

    notes: dict[str, dict[str, Any]] = {}
    written = []
    for kind, name in names.items():
        path, note = stem.parent / name, {"name": name}
        if kind == "png":
            assert pixels is not None
            write_png(path, pixels, overwrite=overwrite)
            note["decoding"] = _png_decoding(meaning, steps_per_metre)
        elif kind == "colour":
            write_png(path, to_colours(values, meaning, valid=shown), overwrite=overwrite)
            note["decoding"] = "for the eye only: near is red, far is violet, stretched for this one picture"
        elif kind == "npy":
            mask = shown[..., None] if values.ndim == 3 else shown
            write_npy(path, np.where(mask, values, np.nan).astype(np.float32), overwrite=overwrite)
            note["decoding"] = "float32 values, NaN where invalid"
        elif kind == "npz":
            dtype = np.float16 if half_precision else np.float32
            text = json.dumps(meaning.as_dict())
            arrays = {"values": values.astype(dtype), "valid": shown, "meaning": text}
            if uncertainty is not None:
                arrays["uncertainty"] = np.asarray(uncertainty, dtype)
            write_npz(path, arrays, overwrite=overwrite)
            spread = ", uncertainty (spread of the ensemble)" if uncertainty is not None else ""
            note["decoding"] = f"values ({np.dtype(dtype).name}), valid (bool), meaning (JSON text){spread}"
        else:
            comments = _write_points(path, values, meaning, shown, rgb, intrinsics, fov, depth_range, overwrite)
            note["decoding"] = "; ".join(comments)
        notes[kind] = note
        written.append(path)
    description = {
        **meaning.as_dict(),
        "size": {"height": values.shape[0], "width": values.shape[1]},
        "valid_pixels": int(shown.sum()),
        "files": notes,
    }
    write_text(side_file, json.dumps(description, indent=2, ensure_ascii=False) + "\n", overwrite=overwrite)
    return [*written, side_file]


def checked(
    values: NDArray[Any], meaning: Meaning, valid: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The map as float32 with 0 in invalid pixels, and the mask of valid ones, or an InputError."""
    values = np.asarray(values)
    layout = "[H, W, 3]" if meaning.space == "normals" else "[H, W]"
    right = values.ndim == 3 and values.shape[2] == 3 if meaning.space == "normals" else values.ndim == 2
    if not right or not values.size or values.dtype.kind != "f":
        raise InputError(f"{meaning.space} is a floating-point array {layout}, not {values.dtype} {list(values.shape)}")
    if valid is None:
        shown = np.ones(values.shape[:2], bool)
    else:
        shown = np.asarray(valid)
        if shown.shape != values.shape[:2] or shown.dtype != bool:
            raise InputError(f"the mask is {shown.dtype} {list(shown.shape)}, the map {list(values.shape)}")
    inside = values[shown]
    if not np.isfinite(inside).all():
        raise InputError(
            f"{meaning.space} holds {int((~np.isfinite(inside)).sum())} NaN or infinite values",
            remedy="Mark those pixels as invalid.",
        )
    low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 0.0)
    # 1e-3: half-precision networks and interpolation leave the range by so much
    if meaning.space == "normals" and (low < -1.001 or high > 1.001):
        raise InputError(f"normals lie in [-1, 1]; these in [{low:g}, {high:g}]")
    if meaning.space != "normals" and meaning.scale == "affine-invariant" and (low < -1e-3 or high > 1.001):
        raise InputError(
            f"affine-invariant {meaning.space} lies in [0, 1]; this in [{low:g}, {high:g}]",
            remedy="Rescale it, or declare it metric if it is.",
        )
    if meaning.space != "normals" and meaning.scale == "metric" and low < 0:
        raise InputError(f"metric {meaning.space} is not negative; the least is {low:g} {meaning.unit}")
    mask = shown[..., None] if values.ndim == 3 else shown
    return np.where(mask, values, 0).astype(np.float32), shown


def _png_decoding(meaning: Meaning, steps_per_metre: int) -> str:
    if meaning.space == "normals":
        return "8-bit RGB, normal = pixel / 127.5 - 1, black = none"
    if meaning.scale == "affine-invariant":
        return "16-bit, value = pixel / 65535"
    return f"16-bit, depth in metres = pixel / {steps_per_metre}, 0 = none"


def _write_points(
    path: Path,
    values: NDArray[np.float32],
    meaning: Meaning,
    shown: NDArray[np.bool_],
    rgb: NDArray[np.uint8] | None,
    intrinsics: NDArray[Any] | None,
    fov: float,
    depth_range: DepthRange | None,
    overwrite: bool,
) -> list[str]:
    """Write the point cloud; returns what its header says about it."""
    comments = [f"axes: {CAMERA_FRAME}"]
    if meaning.scale == "metric":
        with np.errstate(divide="ignore"):
            depth = values if meaning.space == "depth" else 1 / values
        comments.append("metric: metres")
    else:
        span = depth_range or DepthRange()
        depth = to_depth(values, disparity=meaning.space == "disparity", depth_range=span)
        comments.append(f"affine-invariant: not metric, stretched over distances {span.near:g} to {span.far:g}")
    if intrinsics is None:
        intrinsics = intrinsics_from_fov(values.shape[0], values.shape[1], fov)
        comments.append(f"assumed horizontal field of view: {fov:g} degrees")
    if meaning.model:
        comments.append(f"model: {meaning.model}")
    points, colours = point_cloud(depth, intrinsics, rgb, shown)
    write_ply(path, points, colours, comments=comments, overwrite=overwrite)
    return comments

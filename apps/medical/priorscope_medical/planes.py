"""Volumes as pictures: the three planes, differences, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorscope.evaluation.figures import Panel, side_by_side
from priorscope_medical.volumes import Plane, Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
#: Height of a picture, in widths.
_TALLEST = 1.5


def shown_slices(volume: Volume) -> dict[Plane, int]:
    """The slice of each plane through the middle of what is in the volume."""
    weights = np.abs(volume.data - np.median(volume.data[:, :2, :2]))
    found = {}
    for plane, axis in volume.planes.items():
        profile = weights.sum(tuple(other for other in range(3) if other != axis), dtype=np.float64)
        total = profile.sum()
        middle = (profile * np.arange(len(profile))).sum() / total if total > 0 else (len(profile) - 1) / 2
        found[plane] = int(np.clip(round(middle), 0, len(profile) - 1))
    return found


def slice_title(volume: Volume, plane: Plane, index: int, first: int = 0) -> str:
    """``axial 54``: the number of a slice in the whole volume, of which ``volume`` may be a slab from ``first`` on."""
    return f"{plane} {index + (first if volume.planes[plane] == 0 else 0)}"


def picture(volume: Volume, plane: Plane, index: int) -> NDArray[np.float32]:
    """A slice with square pixels: rows or columns are repeated as their spacing asks.

    A tall one, of a slab of few slices, has a frame of NaN at both sides: its neighbours in a figure would be dwarfed.
    """
    image, (high, wide) = volume.picture(plane, index)
    side = min(high, wide)
    for axis, spacing in ((0, high), (1, wide)):
        count = image.shape[axis]
        places = np.minimum(np.arange(max(1, round(count * spacing / side))) * side / spacing, count - 1)
        image = np.take(image, places.astype(int), axis=axis)
    missing = round(len(image) / _TALLEST) - image.shape[1]
    return (
        np.pad(image, ((0, 0), (missing // 2, missing - missing // 2)), constant_values=np.nan)
        if missing > 0
        else image
    )


def three_planes(
    rows: Mapping[str, Volume],
    differences: Mapping[str, Volume] | None = None,
    *,
    limits: tuple[float, float],
    reach: float,
    label: str,
    at: Mapping[Plane, int] | None = None,
    first: int = 0,
) -> Figure:
    """Volumes row by row, the three planes of each side by side; then differences, in colour.

    Parameters
    ----------
    rows : mapping of str to Volume
        On one grid.
    differences : mapping of str to Volume, optional
    limits : (float, float)
        Values that are black and white.
    reach : float
        Differences from ``-reach`` (blue) to ``reach`` (red).
    label : str
        Of the values.
    at : mapping, optional
        The slice of each plane; default :func:`shown_slices` of the first volume.
    first : int
        Number of the first slice in its volume.
    """
    shown = next(iter(rows.values()))
    at = shown_slices(shown) if at is None else at
    planes = [plane for plane in PLANES if plane in shown.planes]
    titles = {plane: slice_title(shown, plane, at[plane], first) for plane in planes}
    panels = [
        Panel(picture(volume, plane, at[plane]), f"{name}, {titles[plane]}", "gray", *limits, label)
        for name, volume in rows.items()
        for plane in planes
    ]
    panels += [
        Panel(picture(volume, plane, at[plane]), f"{name}, {plane}", "RdBu_r", -reach, reach, label)
        for name, volume in (differences or {}).items()
        for plane in planes
    ]
    return side_by_side(panels, columns=len(planes), width=11.0)


def spread_planes(std: Volume, label: str, at: Mapping[Plane, int], first: int = 0) -> Figure:
    """A map of standard deviations in the three planes."""
    high = float(np.quantile(std.data, 0.998)) or 1.0
    panels = [
        Panel(picture(std, plane, at[plane]), slice_title(std, plane, at[plane], first), "magma", 0.0, high, label)
        for plane in PLANES
        if plane in std.planes
    ]
    return side_by_side(panels, columns=len(panels), width=11.0)


def curves(series: Sequence[tuple[str, Sequence[float], Sequence[float]]], *, xlabel: str, logarithmic: bool) -> Figure:
    """Lines ``(name, x, y)`` in one panel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    for name, x, y in series:
        axes.plot(x, y, marker="o" if len(x) < 12 else "", markersize=3, linewidth=1.2, label=name)
    axes.set_xlabel(xlabel)
    axes.grid(alpha=0.25)
    if logarithmic:
        axes.set_yscale("log")
    if len(series) > 1:
        axes.legend(fontsize=8)
    else:
        axes.set_ylabel(series[0][0])
    return figure

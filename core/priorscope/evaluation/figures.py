"""Arrays as pictures: colour maps, error maps, labelled panels with colour bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INVALID_COLOUR = (112, 112, 112)


def colourise(
    array: NDArray[Any],
    cmap: str = "Spectral",
    lo: float | None = None,
    hi: float | None = None,
    *,
    valid: NDArray[np.bool_] | None = None,
    invalid_colour: tuple[int, int, int] = INVALID_COLOUR,
) -> NDArray[np.uint8]:
    """Colour an array by its values.

    Parameters
    ----------
    array : ndarray, [H, W]
        Real values; NaN and infinite ones count as invalid.
    cmap : str
        A matplotlib colour map. "Spectral" runs from red (at `lo`) to violet (at `hi`).
    lo, hi : float, optional
        Values of the first and the last colour; default the least and greatest valid value. Values beyond
        them take the end colours.
    valid : ndarray of bool, [H, W], optional
        Pixels to colour.
    invalid_colour : tuple of int
        RGB of the others, 0..255.

    Returns
    -------
    ndarray of uint8, [H, W, 3]
        A constant array gets the middle colour.
    """
    import matplotlib

    values = np.asarray(array)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "biuf":
        raise InputError(f"a real array [H, W] can be coloured, not {values.dtype} {list(values.shape)}")
    if cmap not in matplotlib.colormaps:
        raise InputError(f"matplotlib has no colour map {cmap!r}", remedy="Try Spectral, magma, viridis or gray.")
    values = values.astype(np.float64)
    shown = _shown(values, valid)
    lo, hi = _limits(values, shown, lo, hi)
    values = np.where(shown, values, lo)
    unit = np.clip((values - lo) / (hi - lo), 0, 1) if hi > lo else np.full(values.shape, 0.5)
    colours = matplotlib.colormaps[cmap](unit, bytes=True)[..., :3]
    return np.where(shown[..., None], colours, np.array(invalid_colour, np.uint8)).astype(np.uint8)


def error_map(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    *,
    valid: NDArray[np.bool_] | None = None,
    hi: float | None = None,
    cmap: str = "magma",
) -> NDArray[np.uint8]:
    """Colour the absolute error, from 0 to `hi` (default its greatest valid value): uint8 [H, W, 3]."""
    prediction, truth = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    if prediction.shape != truth.shape:
        raise InputError(f"the prediction has shape {list(prediction.shape)}, the truth {list(truth.shape)}")
    with np.errstate(invalid="ignore"):  # inf - inf: a hole in both
        return colourise(np.abs(prediction - truth), cmap, 0.0, hi, valid=valid)


@dataclass(frozen=True)
class Panel:
    """One picture of a figure."""

    image: NDArray[Any]
    """uint8 [H, W, 3], shown as it is; or real [H, W], coloured with a colour bar."""
    title: str = ""
    cmap: str = "Spectral"
    lo: float | None = None
    hi: float | None = None
    label: str = ""
    """What the colour bar measures, with its unit."""
    valid: NDArray[np.bool_] | None = None


def side_by_side(panels: Sequence[Panel], *, columns: int | None = None, width: float = 12.0) -> Figure:
    """Lay panels out in a grid, each with its title and, for [H, W] arrays, a colour bar.

    Parameters
    ----------
    panels : sequence of Panel
    columns : int, optional
        Default: all in one row up to four.
    width : float
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        Not known to pyplot, so nothing needs closing; ``figure.savefig(path)`` writes it.
    """
    if not panels:
        raise InputError("a figure needs at least one panel")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    columns = columns or min(len(panels), 4)
    rows = math.ceil(len(panels) / columns)
    aspect = max(panel.image.shape[0] / panel.image.shape[1] for panel in panels)
    bars = any(panel.image.ndim == 2 for panel in panels)
    beside = 0.95 if bars else 0.55  # inches of title and colour bar
    figure = Figure(figsize=(width, rows * (width / columns * min(aspect, 3.0) + beside)), layout="constrained")
    FigureCanvasAgg(figure)
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.set_title(panel.title, fontsize=10)
        axes.set_axis_off()
        picture = panel.image.ndim == 3
        if picture:
            lo, hi = 0.0, 1.0
            axes.imshow(panel.image, interpolation="nearest")
            if not bars:
                continue
        else:
            values = np.asarray(panel.image, np.float64)
            lo, hi = _limits(values, _shown(values, panel.valid), panel.lo, panel.hi)
            axes.imshow(colourise(values, panel.cmap, lo, hi, valid=panel.valid), interpolation="nearest")
        bar = figure.colorbar(
            ScalarMappable(Normalize(lo, hi), panel.cmap), ax=axes, location="bottom", fraction=0.06, pad=0.03
        )
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
        bar.set_label(panel.label or " ", fontsize=8)
        if picture:  # the bar is not seen and keeps its room, so that pictures stand as high as maps
            for colours in bar.ax.collections:
                colours.set_visible(False)
            bar.ax.tick_params(colors="none")
            bar.set_label(" ", fontsize=8)
    return figure


def figure_to_image(figure: Figure, *, dpi: int = 120) -> NDArray[np.uint8]:
    """Draw a matplotlib figure into uint8 [H, W, 3], on white."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    before = figure.get_dpi()
    figure.set_dpi(dpi)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    figure.set_dpi(before)
    return pixels


def _shown(values: NDArray[np.float64], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    shown = np.isfinite(values)
    if valid is not None:
        valid = np.asarray(valid)
        if valid.shape != values.shape or valid.dtype != bool:
            raise InputError(
                f"the mask is {valid.dtype} {list(valid.shape)}, the array {list(values.shape)}",
                remedy="Give a bool mask of the same shape.",
            )
        shown &= valid
    return shown


def _limits(
    values: NDArray[np.float64], shown: NDArray[np.bool_], lo: float | None, hi: float | None
) -> tuple[float, float]:
    inside = values[shown]
    least, greatest = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 1.0)
    return least if lo is None else float(lo), greatest if hi is None else float(hi)

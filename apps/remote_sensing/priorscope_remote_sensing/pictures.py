"""Images of any bands as pictures, confusion matrices as figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorscope_remote_sensing.data.bands import BandRecipe, same_band

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("Red", "Green", "Blue")


def as_picture(image: NDArray[Any], recipe: BandRecipe, valid: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Colours of an image, stretched between its 2nd and 98th percentile.

    Parameters
    ----------
    image : ndarray, [C, H, W]
        As the recipe scales it.
    recipe : BandRecipe
        Red, green and blue are found by name; without them the first three bands are shown, or the first as grey.
    valid : ndarray of bool, [H, W], optional
        Other pixels become grey.

    Returns
    -------
    ndarray of uint8, [H, W, 3]
    """
    found = [[n for n, band in enumerate(recipe.bands) if same_band(band, colour)] for colour in _COLOURS]
    places = [some[0] for some in found if some]
    if len(places) < 3:
        places = [0, 1, 2] if len(image) >= 3 else [0, 0, 0]
    values = np.asarray(image, np.float32)[places]
    known = values[:, valid] if valid is not None and valid.any() else values.reshape(3, -1)
    low, high = np.quantile(known, [0.02, 0.98])
    stretched = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1) ** 0.8
    picture = np.moveaxis(np.rint(255 * stretched).astype(np.uint8), 0, -1)
    if valid is not None:
        picture[~valid] = 112
    return np.ascontiguousarray(picture)


def confusion_figure(counts: NDArray[np.int64], names: Sequence[str], *, width: float = 7.0) -> Figure:
    """A confusion matrix as shares of each label: rows are labels, columns predictions; numbers in per cent.

    Parameters
    ----------
    counts : ndarray of int, [K, K]
        ``counts[label, prediction]``.
    names : sequence of str
    width : float
        Inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    figure = Figure(figsize=(width, width * 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = max(4.0, min(9.0, 110 / max(len(names), 1)))
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set_xlabel("prediction", fontsize=9)
    axes.set_ylabel("label", fontsize=9)
    if len(names) <= 20:
        for row, column in np.argwhere(counts > 0):
            share = shares[row, column]
            colour = "white" if share > 0.55 else "black"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=size, color=colour)
    return figure

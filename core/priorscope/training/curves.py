"""A training's metrics.jsonl as a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from priorscope.evaluation.report import Report

#: Drawn in one panel each; held-out figures get panels of their own, other columns share the loss's.
_OWN_PANEL = ("lr", "grad_norm", "examples_per_second")


def draw_curves(rows: Sequence[Mapping[str, Any]], *, width: float = 10.0) -> Figure:
    """Losses, held-out figures, learning rate, gradient norm and throughput over the steps.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of metrics.jsonl: ``step`` and numbers by name; a name may be missing in some rows.
    width : float
        Inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for row in rows for name in row if name != "step"))
    held_out = [name for name in names if name.startswith("held_out_")]
    losses = [name for name in names if name not in held_out and name not in _OWN_PANEL]
    panels = [("losses", losses)] + [(name.replace("_", " "), [name]) for name in (*held_out, *_OWN_PANEL)]
    panels = [(title, [name for name in shown if name in names]) for title, shown in panels]
    panels = [(title, shown) for title, shown in panels if shown]
    columns = 3
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(width, 2.6 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, shown) in enumerate(panels, start=1):
        axes = figure.add_subplot(lines, columns, place)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        for name in shown:
            points = [(row["step"], row[name]) for row in rows if name in row]
            # few points are marked, so that a single one can be seen
            marker = "o" if len(points) < 12 else ""
            axes.plot(*zip(*points, strict=True), marker=marker, markersize=3, linewidth=1.2, label=name)
        if len(shown) > 1:
            axes.legend(fontsize=7)
    return figure


def add_curves(report: Report, rows: Sequence[Mapping[str, Any]]) -> None:
    """A section of a report with the curves of ``rows``, see :func:`draw_curves`; words where there are too few."""
    from priorscope.evaluation.figures import figure_to_image

    report.heading("Curves")
    if len(rows) > 1:
        said = "Losses and held-out figures over the optimiser's steps."
        report.figure(figure_to_image(draw_curves(rows)), said, alt="training curves")
    else:
        report.paragraph("Too few rows for a curve.")

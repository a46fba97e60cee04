"""Figures of evidence_depth_extras.py: edge maps, and errors of scans, beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.images import write_png
from priorscope.evaluation.figures import Panel, figure_to_image, side_by_side
from priorscope_depth.edges.data import EdgePair

#: Millimetres at which an error has the last colour.
ERROR = 60.0


def draw_edges(pairs: Sequence[EdgePair], maps: Mapping[str, Sequence[NDArray[Any]]], path: Path) -> None:
    """A row a scene: image, exact edges, and each method's map (H, W) in [0, 1]."""
    panels = []
    for index, pair in enumerate(pairs):
        shown = {"exact": pair.edges.astype(np.float32)} | {name: found[index] for name, found in maps.items()}
        panels.append(Panel(pair.rgb, pair.key))
        panels += [Panel(grey_picture(values), name) for name, values in shown.items()]
    write(panels, 2 + len(maps), path)


def draw_scans(exact: Sequence[NDArray[Any]], scans: Mapping[str, Sequence[NDArray[Any]]], path: Path) -> None:
    """A row a scene: exact depth (H, W) in metres, and each scan's error in millimetres; grey: nothing is measured."""
    panels = []
    for index, depth in enumerate(exact):
        panels.append(Panel(depth, "exact depth", "viridis", label="m"))
        for name, found in scans.items():
            scan = found[index]
            panels.append(
                Panel(
                    1000 * (scan - depth),
                    name,
                    "RdBu",
                    -ERROR,
                    ERROR,
                    label="error, mm",
                    valid=(scan > 0) & (depth > 0),
                )
            )
    write(panels, 1 + len(scans), path)


def grey_picture(values: NDArray[Any]) -> NDArray[np.uint8]:
    return (np.clip(values, 0, 1)[..., None].repeat(3, -1) * 255).astype(np.uint8)


def write(panels: Sequence[Panel], columns: int, path: Path) -> None:
    figure = side_by_side(panels, columns=columns, width=2.2 * columns)
    write_png(path, figure_to_image(figure, dpi=80), overwrite=True)

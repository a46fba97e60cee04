"""A frame in three dimensions: a page that any browser shows, and a recording for Rerun."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.data.files import atomic_path
from priorscope.errors import InputError
from priorscope.evaluation.report import MAX_CLOUD_POINTS, Report
from priorscope_detection.data.frame import Frame
from priorscope_detection.data.rigid import Array, move_points
from priorscope_detection.geometry.boxes import corners
from priorscope_detection.picture import AGENT_COLOURS, FOUND_COLOUR, TRUE_COLOUR

#: Points on an edge of a box, on a page.
_ON_AN_EDGE = 24
#: Edges of a box as pairs of its corners: floor, roof, posts.
_EDGES = tuple(edge for k in range(4) for edge in ((k, (k + 1) % 4), (k + 4, (k + 1) % 4 + 4), (k, k + 4)))


def sweeps_in_ego(
    frame: Frame, extent: tuple[float, ...]
) -> Iterator[tuple[str, NDArray[np.floating], tuple[int, int, int]]]:
    """Each agent's name, its points (N, 3) in the ego's frame within the range seen from above, and its colour."""
    x0, y0, _, x1, y1, _ = extent
    for number, (agent, move) in enumerate(zip(frame.agents, frame.to_ego(), strict=True)):
        points = move_points(move, agent.points)[:, :3]
        inside = (points[:, 0] >= x0) & (points[:, 0] < x1) & (points[:, 1] >= y0) & (points[:, 1] < y1)
        yield agent.name, points[inside], AGENT_COLOURS[number % len(AGENT_COLOURS)]


def write_page(path: Path, frame: Frame, boxes: Array, extent: tuple[float, ...], *, overwrite: bool) -> None:
    """Write a page with the points of all agents, true boxes in green and found ones (N, 7) in red.

    Raises
    ------
    InputError
        The file is there already, or no point is in range.
    """
    edges, edge_colours = [], []
    for found, colour in ((frame.truth.boxes, TRUE_COLOUR), (boxes, FOUND_COLOUR)):
        along = np.linspace(0, 1, _ON_AN_EDGE)[:, None]
        ends = corners(torch.as_tensor(found, dtype=torch.float64).reshape(-1, 7)).numpy()
        lines = [ends[:, None, a] * (1 - along) + ends[:, None, b] * along for a, b in _EDGES]
        edges.append(np.concatenate(lines, 1).reshape(-1, 3))
        edge_colours.append(np.tile(np.array(colour, np.uint8), (len(edges[-1]), 1)))
    named = list(sweeps_in_ego(frame, extent))
    points = np.concatenate([part for _, part, _ in named])
    colours = np.concatenate([np.tile(np.array(colour, np.uint8), (len(part), 1)) for _, part, colour in named])
    if not len(points):
        raise InputError(f"frame {frame.name} has no point within {extent} m", remedy="There is nothing to show.")
    most = max(MAX_CLOUD_POINTS - sum(map(len, edges)), 1000)
    if len(points) > most:  # boxes stay whole
        chosen = np.random.default_rng(0).choice(len(points), most, replace=False)
        points, colours = points[chosen], colours[chosen]
    # the page has y up and z towards the viewer
    shown = np.concatenate([points, *edges])[:, [0, 2, 1]] * [1, 1, -1]
    told = ", ".join(f"{agent.name} ({agent.kind})" for agent in frame.agents)
    report = Report(frame.name, f"Agents: {told}. Green: true boxes. Red: {len(boxes)} found boxes.")
    report.point_cloud(
        shown, np.concatenate([colours, *edge_colours]), "Points by agent.", max_points=len(shown)
    ).write(path, overwrite=overwrite)


def write_recording(path: Path, frame: Frame, boxes: Array, extent: tuple[float, ...], *, overwrite: bool) -> None:
    """Write a recording that ``rerun FILE`` shows: ``agents/NAME``, ``true`` and ``found``.

    Raises
    ------
    InputError
        Rerun is not installed, or the file is there already.
    """
    rerun = load_rerun()
    stream = rerun.RecordingStream("priorscope-detection")
    with atomic_path(path, overwrite=overwrite) as temporary:
        stream.save(temporary)
        stream.log("/", rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        for name, points, colour in sweeps_in_ego(frame, extent):
            stream.log(f"agents/{name}", rerun.Points3D(points, colors=[colour], radii=[0.04]), static=True)
        for name, found, colour in (("true", frame.truth.boxes, TRUE_COLOUR), ("found", boxes, FOUND_COLOUR)):
            found = np.asarray(found, np.float64).reshape(-1, 7)
            half = found[:, 6:] / 2
            turns: NDArray[np.float64] = np.concatenate([0 * half, 0 * half, np.sin(half), np.cos(half)], 1)
            stream.log(
                name,
                rerun.Boxes3D(centers=found[:, :3], half_sizes=found[:, 3:6] / 2, quaternions=turns, colors=[colour]),
                static=True,
            )
        stream.disconnect()


def load_rerun() -> Any:
    """The module (InputError: not installed)."""
    try:
        return import_module("rerun")  # optional, and without stubs
    except ImportError:
        raise InputError(
            "the format rerun needs Rerun, which is not installed",
            remedy="pip install rerun-sdk, or ask for --formats view, a page for the browser.",
        ) from None

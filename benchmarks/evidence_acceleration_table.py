"""The rows of evidence_acceleration.py as markdown, and its two figures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

FIGURES = Path(__file__).parent / "figures"
Row = dict[str, Any]
SOLVERS, CACHES = ("DDIM", "DPM++ 2M", "GHVB 1.8"), ("none", "DeepCache", "encoder propagation", "TaylorSeer")
SHOWN = [("DDIM", 100), ("DDIM", 50), ("DDIM", 10), ("DPM++ 2M", 10), ("DDIM", 5), ("DPM++ 2M", 5), ("GHVB 1.8", 5)]


def show(rows: list[Row], out: Path, figures: Path = FIGURES) -> None:
    """Print everything that is there, and draw it."""
    floor = [row for row in rows if row["kind"] == "floor"]
    made = [row for row in rows if row["kind"] == "sample"]
    for row in made:
        row["time"] = row["ms_per_image"] / made[0]["ms_per_image"]  # the reference is the first
    helped = [row for row in rows if row["kind"] == "aid"]
    for space in ("encoder", "pixels"):
        values = [1e3 * row[space] for row in floor]
        print(f"floor, {space}: {np.mean(values):.2f}, deviation of {len(values)} draws {np.std(values, ddof=1):.2f}")
    print_trainings([row for row in rows if row["kind"] == "training"])
    if made:
        print_samples(made)
    if helped:
        print_aids(helped)
    if made or helped:
        draw(floor, made, helped, figures / "evidence_acceleration.png")
    draw_galaxies(out, figures / "evidence_acceleration_galaxies.png")


def print_table(titles: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    titles = list(titles)
    print("\n| " + " | ".join(titles) + " |\n|" + " --- |" * len(titles))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")


def print_trainings(rows: list[Row]) -> None:
    titles = ("training", "steps", "images/s", "groups of levels joined")
    names = ("name", "steps", "images_per_second", "levels_joined")
    print_table(titles, [[f"{row[n]:.4g}" if isinstance(row[n], float) else row[n] for n in names] for row in rows])


def print_samples(rows: list[Row]) -> None:
    best = front(rows)
    titles = ("solver", "steps", "cache", "full passes", "time", "encoder", "pixels", "right kind", "distance")
    cells = []
    for row in sorted(rows, key=lambda row: (row["solver"], row["steps"], CACHES.index(row["cache"]), row["levels"])):
        name = row["solver"] + (", searched levels" if row["levels"] == "searched" else "")
        quality = [_with_error(row, space) for space in ("encoder", "pixels")]
        quality[0] = f"**{quality[0]}**" if row in best else quality[0]
        rest = [f"{row['right_kind']:.3f}", f"{row['distance']:.3f}"]
        cells.append([name, row["steps"], row["cache"], row["full_passes"], f"{row['time']:.3f}", *quality, *rest])
    print_table(titles, cells)
    print("\nTime: DDIM of 100 steps = 1. MMD x 1000; bold: no faster row is better in `encoder`.")


def front(rows: list[Row]) -> list[Row]:
    """Rows that no faster row beats."""
    return [
        row
        for row in rows
        if not any(other["ms_per_image"] < row["ms_per_image"] and other["encoder"] <= row["encoder"] for other in rows)
    ]


def print_aids(rows: list[Row]) -> None:
    plain = {row["seed"]: row for row in rows if row["aid"] == "plain"}
    cells = []
    for name in dict.fromkeys(row["aid"] for row in rows):
        own = [row for row in rows if row["aid"] == name and row["seed"] in plain]
        line: list[Any] = [name, len(own)]
        for space in ("encoder", "pixels"):
            values = [1e3 * row[space] for row in own]
            apart = [1e3 * (row[space] - plain[row["seed"]][space]) for row in own]
            line.append(f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
            line.append("" if name == "plain" else ", ".join(f"{value:+.1f}" for value in apart))
        cells.append([*line, f"{np.mean([row['right_kind'] for row in own]):.3f}"])
    print_table(
        ("aid", "seeds", "encoder", "less plain, by seed", "pixels", "less plain, by seed", "right kind"), cells
    )


def _with_error(row: Row, space: str) -> str:
    return f"{1e3 * row[space]:.1f} ± {1e3 * row[f'{space}_error']:.1f}"


def draw(floor: list[Row], made: list[Row], helped: list[Row], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    even = [row for row in made if row["levels"] == "even" and row["steps"] < 100]
    for solver, mark in zip(SOLVERS, "os^", strict=True):
        for cache, colour in zip(CACHES, ("k", "tab:orange", "tab:green", "tab:blue"), strict=True):
            own = [row for row in even if (row["solver"], row["cache"]) == (solver, cache)]
            _line(left, own, marker=mark, color=colour, label=f"{solver}, {cache}", linewidth=0.8, markersize=5)
    for solver, mark in zip(SOLVERS, "os^", strict=True):
        own = [row for row in made if row["levels"] == "searched" and row["solver"] == solver]
        _line(left, own, marker=mark, color="tab:red", label=f"{solver}, searched levels", linestyle="none")
    left.axhline(1e3 * max(row["encoder"] for row in floor), color="0.6", linewidth=0.8, linestyle=":")
    left.set(
        xscale="log", yscale="log", xlabel="processor time, DDIM of 100 steps = 1", ylabel="MMD to held-out, x 1000"
    )
    left.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
    left.set_xticks([], minor=True)
    left.legend(fontsize=6, ncol=2)
    names = list(dict.fromkeys(row["aid"] for row in helped))
    for place, name in enumerate(names):
        values = [1e3 * row["encoder"] for row in helped if row["aid"] == name]
        right.plot([place] * len(values), values, "o", color="k" if name == "plain" else "tab:blue", alpha=0.6)
        right.plot(place, np.mean(values), "_", color="k", markersize=18)
    right.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    right.set(yscale="log", ylabel="MMD to held-out, x 1000", title="aids at equal steps, a dot a seed")
    right.set_yticks([400, 600, 1000, 2000, 4000], ["400", "600", "1000", "2000", "4000"])
    right.set_yticks([], minor=True)
    figure.savefig(path, dpi=120)
    print(f"\nfigure: {path}")


def _line(axis: Any, rows: list[Row], **style: Any) -> None:
    rows = sorted(rows, key=lambda row: row["steps"])
    if rows:
        axis.plot([row["time"] for row in rows], [1e3 * row["encoder"] for row in rows], **style)


def draw_galaxies(out: Path, path: Path) -> None:
    """The first galaxies of some runs, from the same noise."""
    from matplotlib.figure import Figure

    kept = [(f"{name}, {steps} steps", out / f"samples {name} {steps} none.npy") for name, steps in SHOWN]
    real = sorted(out.glob("held out-*.npz"))
    lines = [(title, np.load(file)) for title, file in kept if file.exists()]
    if not real or not lines:
        return
    with np.load(real[-1]) as galaxies:
        lines.insert(0, ("drawn, held out", galaxies["images"][:16]))
    figure = Figure(figsize=(11, 0.66 * len(lines)), layout="constrained")
    axes = figure.subplots(len(lines), 1)
    for axis, (title, images) in zip(axes, lines, strict=True):
        axis.imshow(np.concatenate(list(images), 1), cmap="gray", vmin=-0.67, vmax=4.9)
        axis.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
        axis.set(xticks=[], yticks=[], anchor="E")
    figure.savefig(path, dpi=120)
    print(f"figure: {path}")

"""Tables and figure of evidence_pose.py, from its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

Rows = Sequence[dict[str, Any]]


def values(rows: Rows, value: str, **wanted: Any) -> dict[int, float]:
    """A figure of the matching rows by seed."""
    return {row["seed"]: row[value] for row in rows if all(row.get(name) == v for name, v in wanted.items())}


def _ordered(rows: Rows, name: str, kind: str) -> list[Any]:
    return list(dict.fromkeys(row[name] for row in rows if row["kind"] == kind))


def shown(found: Iterable[float], scale: float = 100.0) -> str:
    """Mean and, in brackets, the least and the greatest."""
    array = np.array(list(found)) * scale
    return f"{array.mean():.1f} [{array.min():.1f}, {array.max():.1f}]" if len(array) else ""


def difference(one: dict[int, float], other: dict[int, float]) -> str:
    """Mean of the paired differences and its 95 % interval by Student's t."""
    seeds = sorted(set(one) & set(other))
    array = 100 * np.array([one[seed] - other[seed] for seed in seeds])
    if len(array) < 2:
        return f"{array.mean():+.1f} (one seed)" if len(array) else ""
    half = float(student.ppf(0.975, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5)
    return f"{array.mean():+.1f} +- {half:.1f}"


def print_markdown(columns: Sequence[str], lines: Iterable[Iterable[Any]]) -> None:
    """A Markdown table."""
    for cells in (columns, ["---"] * len(columns), *lines):
        print("| " + " | ".join(str(cell) for cell in cells) + " |")


def print_tables(rows: Rows) -> None:
    """Markdown tables of what there is."""
    sets, arms = _ordered(rows, "set", "still"), _ordered(rows, "arm", "still")
    if arms:
        print("\nOKS AP x 100, mean [least, greatest] over seeds\n")
        lines = []
        for arm in arms:
            found = [values(rows, "AP", kind="still", arm=arm, set=name) for name in sets]
            lines.append([arm, len(found[0]), *(shown(by_seed.values()) for by_seed in found)])
        print_markdown(["arm", "seeds", *sets], lines)
        print("\nDifference of AP x 100, paired by seed, with the 95 % interval of its mean\n")
        lines = []
        for one, other in (("prior", "scratch"), ("prior", "conv")):
            if one in arms and other in arms:
                cells = [
                    difference(*(values(rows, "AP", kind="still", arm=arm, set=name) for arm in (one, other)))
                    for name in sets
                ]
                lines.append([one, other, *cells])
        print_markdown(["arm", "over", *sets], lines)
    cells_of = sorted({(row["steps"], row["ensemble"]) for row in rows if row["kind"] == "clip"})
    if cells_of:
        print("\nPoseTrack mAP x 100 of clips, mean [least, greatest] over seeds\n")
        lines = []
        for steps, ensemble in cells_of:
            pair = [
                values(rows, "mAP", kind="clip", arm=arm, steps=steps, ensemble=ensemble) for arm in ("video", "single")
            ]
            lines.append([steps, ensemble, *(shown(one.values()) for one in pair), difference(*pair)])
        print_markdown(["solver steps", "ensemble", "video", "single", "video - single"], lines)
    trained = [row for row in rows if row["kind"] == "training"]
    if trained:
        print("\nCPU seconds a step, by kind of network\n")
        kinds: dict[str, list[float]] = {}
        for row in trained:
            kinds.setdefault(row["name"].split("-0.")[0].rpartition("-")[0] or row["name"], []).append(
                row["seconds_a_step"]
            )
        for kind, found in kinds.items():
            print(f"- {kind}: {np.median(found):.3f}")


def draw(rows: Rows, path: Path) -> None:
    """AP of the arms by set, every seed a dot; mAP of clips over solver steps, a line an ensemble size."""
    from matplotlib.figure import Figure

    sets, arms = _ordered(rows, "set", "still"), _ordered(rows, "arm", "still")
    clip_arms = _ordered(rows, "arm", "clip")
    panels = bool(arms) + bool(clip_arms)
    if not panels:
        return
    figure = Figure(figsize=(5.2 * panels, 3.8), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    if arms:
        axis = axes.pop(0)
        for number, arm in enumerate(arms):
            for place, name in enumerate(sets):
                found = 100 * np.array(list(values(rows, "AP", kind="still", arm=arm, set=name).values()))
                x = place + (number - (len(arms) - 1) / 2) * 0.15
                axis.plot(np.full(len(found), x), found, "o", color=f"C{number}", alpha=0.5, markersize=4)
                label = arm if place == 0 else None
                axis.plot([x - 0.06, x + 0.06], [found.mean()] * 2, color=f"C{number}", linewidth=2.5, label=label)
        axis.set(title="single pictures", ylabel="OKS AP", xticks=range(len(sets)), xticklabels=sets)
        axis.legend(fontsize=7)
        axis.grid(axis="y", alpha=0.3)
    if clip_arms:
        axis = axes.pop(0)
        steps = sorted(set(_ordered(rows, "steps", "clip")))
        for number, arm in enumerate(clip_arms):
            for line, ensemble in enumerate(sorted(set(_ordered(rows, "ensemble", "clip")))):
                found = [
                    list(values(rows, "mAP", kind="clip", arm=arm, steps=one, ensemble=ensemble).values())
                    for one in steps
                ]
                means = [100 * np.mean(its) if its else np.nan for its in found]
                style = ("-", "--", ":")[line % 3]
                axis.plot(steps, means, f"o{style}", color=f"C{number}", markersize=3, label=f"{arm}, {ensemble} draws")
        axis.set(title="clips", xlabel="solver steps", ylabel="PoseTrack mAP")
        axis.set_xscale("log", base=2)
        axis.set_xticks(steps, [str(one) for one in steps])
        axis.legend(fontsize=7, handlelength=4)
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)

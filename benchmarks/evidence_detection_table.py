"""Tables and figure of evidence_detection.py, from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence_pose_table import difference, print_markdown, shown, values

Rows = Sequence[dict[str, Any]]
AP = "ap_bev_0.5"


def print_tables(rows: Rows) -> None:
    """Markdown tables of what there is."""
    results = [row for row in rows if row["kind"] == "result"]
    if results:
        curves, chosen = _curves(results)
        settings = list(dict.fromkeys((row["sigma"], row["delay"]) for row in results))
        names = [f"{sigma:g} m, {delay:g} ms" for sigma, delay in settings]
        print("\nAP at 0.5 in bird's-eye view x 100, mean [least, greatest] over seeds\n")
        by_arm = {
            arm: [values(its, AP, sigma=sigma, delay=delay) for sigma, delay in settings] for arm, its in curves.items()
        }
        print_markdown(
            ["arm", "seeds", *names],
            [[arm, len(its[0]), *(shown(one.values()) for one in its)] for arm, its in by_arm.items()],
        )
        if "codiff" in by_arm:
            print("\nDifference of AP x 100, paired by seed, with the 95 % interval of its mean\n")
            others = [arm for arm in by_arm if arm != "codiff"]
            lines = [
                ["codiff", arm, *(difference(*pair) for pair in zip(by_arm["codiff"], by_arm[arm], strict=True))]
                for arm in others
            ]
            print_markdown(["arm", "over", *names], lines)
            print("\nCoDiff by solver steps and start\n")
            asked = sorted({(row["start"] or "as trained", row["steps"]) for row in results if row["arm"] == "codiff"})
            lines = []
            for start, steps in asked:
                key = {"arm": "codiff", "steps": steps, "start": "" if start == "as trained" else start}
                pair = [values(results, AP, **key, sigma=s, delay=d) for s, d in ((0.0, 0.0), (0.4, 200.0))]
                mark = " (chosen)" if steps == chosen and not key["start"] else ""
                lines.append([start, f"{steps}{mark}", *(shown(one.values()) for one in pair)])
            print_markdown(["start", "steps", "undisturbed", "0.4 m, 0.4 degrees, 200 ms"], lines)
        print("\nAt 0.4 m, 0.4 degrees, 200 ms: other figures, means over seeds\n")
        names = ["ap_bev_0.3", "ap_bev_0.7", "ap_3d_0.5", "bytes_per_agent", "seconds_per_frame"]
        lines = []
        for arm, its in curves.items():
            hard = [row for row in its if (row["sigma"], row["delay"]) == (0.4, 200.0)]
            if hard:
                lines.append([arm, *(f"{np.mean([row[name] or 0.0 for row in hard]):.4g}" for name in names)])
        print_markdown(["arm", *names], lines)
    tuning = [row for row in rows if row["kind"] == "tuning"]
    if tuning:
        print("\nValidation AP x 100 with half of the steps, by learning rate\n")
        lines = [[row["arm"], row["rate"], row["steps"] or "", f"{100 * (row[AP] or 0.0):.1f}"] for row in tuning]
        print_markdown(["arm", "rate", "solver steps", "AP"], lines)
    spent: dict[str, float] = {}
    for row in rows:
        if row["kind"] == "training":
            spent[row["name"]] = spent.get(row["name"], 0.0) + row["cpu_seconds"]
    if spent:
        print("\nMinutes of one core\n")
        for name, seconds in spent.items():
            print(f"- {name}: {seconds / 60:.1f}")


def _curves(results: Rows) -> tuple[dict[str, list[dict[str, Any]]], int]:
    """Rows of each arm's curves, and CoDiff's chosen steps: those with more than two settings."""
    chosen = 0
    for steps in {row["steps"] for row in results if row["arm"] == "codiff"}:
        if len({(r["sigma"], r["delay"]) for r in results if (r["arm"], r["steps"]) == ("codiff", steps)}) > 2:
            chosen = steps
    arms = list(dict.fromkeys(row["arm"] for row in results))
    return {
        arm: [r for r in results if r["arm"] == arm and not r["start"] and (arm != "codiff" or r["steps"] == chosen)]
        for arm in arms
    }, chosen


def draw(rows: Rows, path: Path) -> None:
    """AP over pose noise and over delay, a line an arm with the range of its seeds."""
    from matplotlib.figure import Figure

    results = [row for row in rows if row["kind"] == "result"]
    if not results:
        return
    curves, _ = _curves(results)
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    panels = (("sigma", "delay", 200.0, "pose noise (m, degrees), at 200 ms"), ("delay", "sigma", 0.4, "delay (ms)"))
    for axis, (over, fixed, value, title) in zip(axes, panels, strict=True):
        for number, (arm, its) in enumerate(curves.items()):
            along = sorted({row[over] for row in its if row[fixed] == value})
            found = [list(values(its, AP, **{over: x, fixed: value}).values()) for x in along]
            if found:
                axis.plot(
                    along, [100 * np.mean(one) for one in found], "o-", color=f"C{number}", markersize=3, label=arm
                )
                low, high = ([100 * edge(one) for one in found] for edge in (min, max))
                axis.fill_between(along, low, high, color=f"C{number}", alpha=0.15)
        axis.set_xlabel(title)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("AP at 0.5, bird's-eye view")
    axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)

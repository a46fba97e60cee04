"""Tables and figures of evidence_astro.py, from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence_pose_table import difference, print_markdown, values

from priorscope_astro.metrics import mean_interval
from priorscope_astro.simulator.config import CLASSES
from priorscope_astro.simulator.survey import picture

Rows = Sequence[dict[str, Any]]
#: What generation is compared with: the goal names these.
COMPARED = ("plain", "geometric", "balanced", "focal")
SHAPES = ("concentration", "asymmetry", "smoothness", "gini", "m20")
#: Of an arm's table, after the first ones.
COLUMNS = ("at_test_threshold", "ap", "purity_at_100", "validation")
#: Classes with a share of at least this are the main ones.
MAIN = 0.05


def arms_of(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["arm"] for row in rows if row["kind"] == "arm"))


def guidances(rows: Rows) -> list[float]:
    """Of the galaxies that were judged, in that order."""
    return list(dict.fromkeys(row["guidance"] for row in rows if row["kind"] in ("agreement", "morphology", "memory")))


def _interval(found: Sequence[float]) -> str:
    """Mean of the seeds times 100, and the 95 % interval of the mean."""
    one = mean_interval(list(found))
    spread = f" [{100 * one.low:.1f}, {100 * one.high:.1f}]" if len(found) > 1 else " (one seed)"
    return f"{100 * one.estimate:.1f}{spread}"


def print_tables(rows: Rows) -> None:
    """Markdown tables of what there is."""
    _print_data(rows)
    _print_arms(rows)
    _print_guidance(rows)
    for guidance in guidances(rows):
        print(f"\nGalaxies drawn with guidance {guidance:g}:")
        own = [row for row in rows if row.get("guidance") == guidance]
        _print_judgement(own)
        _print_morphology(own)
        for row in (one for one in own if one["kind"] == "memory"):
            print(
                f"\n{row['class']}: {100 * row['copies']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}] of "
                f"the generated ones are nearer to one of {row['training']} training galaxies than "
                f"{100 * row['of_held_out']:.0f} % of held-out ones are; median distance {row['generated_distance']} "
                f"(held out: {row['held_out_distance']})"
            )


def _print_data(rows: Rows) -> None:
    sets = [row for row in rows if row["kind"] == "data"]
    if sets:
        print()
        columns = ["set", "galaxies", *CLASSES]
        print_markdown(columns, [[row[name] for name in columns] for row in sets])


def _print_arms(rows: Rows) -> None:
    arms = arms_of(rows)
    if not arms:
        return
    print("\nDust lanes found at a purity of 90 % on validation: x 100, mean of seeds [95 % interval of the mean]\n")
    names = ("completeness", "purity in test", "at test's threshold", "average precision", "purity of the best 100")
    names += ("on validation", "rate", "validation by rate, half of the steps")
    lines = []
    for arm in arms:
        own = [row for row in rows if row["kind"] == "arm" and row["arm"] == arm]
        cells = [_interval([row["completeness"] for row in own])]
        purities = [row["purity"] for row in own if row["purity"] is not None]
        cells.append(f"{100 * np.mean(purities):.1f}" if purities else "nothing selected")
        cells += [f"{100 * np.mean([row[key] for row in own]):.1f}" for key in COLUMNS]
        tried = {row["rate"]: row["completeness"] for row in rows if row["kind"] == "tuning" and row["arm"] == arm}
        cells.append(str(own[0].get("rate", "")))
        cells.append(", ".join(f"{rate:g}: {100 * value:.1f}" for rate, value in sorted(tried.items())))
        lines.append([arm, len(own), *cells])
    print_markdown(["arm", "seeds", *names], lines)
    one = next(row for row in rows if row["kind"] == "arm")
    steps = sorted({row["steps"] for row in rows if row["kind"] == "arm" and "steps" in row})
    print(
        f"\nTest: {one['positives']} dust lanes, {one['negatives']} others, weighted to 0.5 %. Steps of every arm: "
        f"{', '.join(map(str, steps))}."
    )
    added = [arm for arm in arms if arm.endswith(("+generated", "+simulated", "+noise"))]
    if added:
        print("\nCompleteness x 100, differences paired by seed with the 95 % interval of their mean\n")
        compared = [*(arm for arm in COMPARED if arm in arms), *(arm for arm in arms if f"{arm}+generated" in added)]
        compared = list(dict.fromkeys(compared))
        found = {arm: values(rows, "completeness", kind="arm", arm=arm) for arm in arms}
        lines = [[arm, *(difference(found[arm], found[other]) for other in compared)] for arm in added]
        print_markdown(["arm", *(f"- {arm}" for arm in compared)], lines)


def _print_guidance(rows: Rows) -> None:
    own = [row for row in rows if row["kind"] == "guidance"]
    if own:
        print("\nGalaxies that a baseline takes for what was asked, x 100, by guidance\n")
        columns = [name for name in own[0] if name not in ("kind", "generator", "guidance")]
        cells = [[row["generator"], row["guidance"], *(f"{100 * row[name]:.1f}" for name in columns)] for row in own]
        print_markdown(["generator", "guidance", *columns], cells)


def _print_judgement(rows: Rows) -> None:
    own = [row for row in rows if row["kind"] == "agreement"]
    if not own:
        return
    print("\nGalaxies that the judge takes for what was asked, x 100; kernel distance in its features, x 1000\n")
    lines = []
    for row in own:
        cells = [f"{100 * row[key]:.1f}" for key in ("share", "generated", "simulated")]
        cells += [f"{1000 * row[key]:.2f}" for key in ("kid", "kid_simulated")]
        lines.append([row["class"], *cells])
    main = [row for row in own if row["share"] >= MAIN]
    each = [f"{100 * np.mean([row[key] for row in main]):.1f}" for key in ("generated", "simulated")]
    lines.append(["main classes, mean", "", *each, "", ""])
    print_markdown(["class", "share in nature", "generated", "simulated", "distance", "between simulated"], lines)


def _print_morphology(rows: Rows) -> None:
    own = [row for row in rows if row["kind"] == "morphology"]
    if not own:
        return
    print(
        "\nWasserstein distance of generated galaxies from simulated ones of the class, over that between simulated "
        "ones; in brackets: over that of shuffled labels (below 1 is wanted)\n"
    )
    lines, below = [], 0
    for row in own:
        cells = []
        for shape in SHAPES:
            far = row[shape]
            over = [far["generated"] / far[key] for key in ("simulated", "shuffled")]
            cells.append(f"{over[0]:.1f} ({over[1]:.2f})")
            below += over[1] < 1
        lines.append([row["class"], row["count"], *cells])
    print_markdown(["class", "count", *SHAPES], lines)
    least = [min(row[shape][key] for row in own for shape in SHAPES) for key in ("measured", "measured_simulated")]
    print(
        f"\n{below} of {len(own) * len(SHAPES)} below shuffled labels. Of each class at least {100 * least[0]:.1f} % "
        f"could be measured (of simulated ones {100 * least[1]:.1f} %)."
    )


def draw(rows: Rows, path: Path) -> None:
    """Completeness of the arms, every seed a dot; morphology's distances by class, of the guidance judged last."""
    from matplotlib.figure import Figure

    arms = arms_of(rows)
    last = guidances(rows)[-1:]
    shaped = [row for row in rows if row["kind"] == "morphology" and row["guidance"] in last]
    panels = bool(arms) + bool(shaped)
    if not panels:
        return
    figure = Figure(figsize=(6.2 * panels, 4.2), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    if arms:
        axis = axes.pop(0)
        for place, arm in enumerate(reversed(arms)):
            found = 100 * np.array(list(values(rows, "completeness", kind="arm", arm=arm).values()))
            colour = "C1" if arm.endswith("+generated") else "C2" if arm.endswith("+simulated") else "C0"
            axis.barh(place, found.mean(), color=colour, alpha=0.35)
            axis.plot(found, np.full(len(found), place), "o", color=colour, markersize=4)
        axis.set_yticks(range(len(arms)), list(reversed(arms)), fontsize=8)
        axis.set(xlabel="dust lanes found at a purity of 90 %, %", xlim=(0, 100))
        axis.grid(axis="x", alpha=0.3)
    if shaped:
        axis = axes.pop(0)
        for number, shape in enumerate(SHAPES):
            for key, mark in (("simulated", "o"), ("shuffled", "x")):
                over = [row[shape]["generated"] / row[shape][key] for row in shaped]
                label = f"{shape}, over {'other simulated ones' if key == 'simulated' else 'shuffled labels'}"
                axis.plot(np.arange(len(shaped)) + 0.12 * (number - 2), over, mark, color=f"C{number}", label=label)
        axis.axhline(1, color="k", linewidth=0.8)
        axis.set(yscale="log", ylabel="distance of generated galaxies, ratio")
        axis.set_xticks(range(len(shaped)), [row["class"] for row in shaped], rotation=30, fontsize=8)
        axis.legend(fontsize=6, ncol=2, loc="upper center", bbox_to_anchor=(0.5, -0.22))
        axis.grid(axis="y", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def gallery(real: Any, drawn: Any, path: Path, columns: int = 8) -> None:
    """A picture: for each class a line of simulated galaxies above one of generated ones, none of them chosen."""
    from PIL import Image

    lines = []
    for label in range(len(CLASSES)):
        for galaxies in (real, drawn):
            chosen = galaxies.of_class(label)[:columns]
            line = np.concatenate(list(picture(galaxies.flux[chosen])), 1)
            width = columns * line.shape[0]
            lines.append(np.pad(line, ((0, 2), (0, width - line.shape[1]), (0, 0)), constant_values=255))
        lines[-1] = np.pad(lines[-1], ((0, 6), (0, 0), (0, 0)), constant_values=255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(lines)).save(path, quality=88)

"""Does a small diffusion prior help to map land cover from few labels?

    OMP_NUM_THREADS=1 python benchmarks/evidence_remote_sensing_prior.py      # the priors, twice 20 minutes of one core
    OMP_NUM_THREADS=1 python benchmarks/evidence_remote_sensing.py [--max-seconds 1200] [--table]

A real Sentinel-2 scene (three clear dates, 1 km x 1 km, forest / grassland / shrub and built-up) is cut into blocks of
200 m; half of them train, the others test, drawn anew ten times; training pixels nearer than 20 m to a test block are
left out. Methods differ in what a pixel is described by:

- ``raw``: the 13 bands of the three dates, as logarithms; ``raw+5x5``: and their mean and deviation over 5 x 5 pixels;
- ``random``: taps of the prior's network with the weights its training began from;
- ``terrain``: of the prior trained on synthetic patches, which has seen no pixel of the scene;
- ``longer``: of the same after 5000 more steps on synthetic patches;
- ``both``: of the prior that has, after ``terrain``, also seen the scene, test blocks included, without any label;
- ``scene``: the same after ``longer``, with as many steps as ``longer`` added.

(``raw+terrain``: both side by side, and so on) and in the head: ``linear`` (ridge regression of the classes), and
SatDiFuser's fusers ``gw``, ``lw``, ``moe`` with a linear layer a pixel. Every head weighs classes equally, and every
(description, head) has its own settings from one grid, chosen on validation blocks inside the training blocks (linear:
of every split; the others: of the first), never on test blocks. Taps, level, members and the grids were chosen on other
draws of splits of the same scene (DEV_SEED), so what is reported is not of a place that nobody has looked at. More
validation draws (which made the bands, not the priors, better) and the training of ``longer`` were decided after a
first look at the reported splits; that of ``scene``, after the results of ``longer``.

Every result is a row of evidence_remote_sensing.jsonl; the same command goes on with what is missing. --table prints
the rows as markdown and draws figures/evidence_remote_sensing.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from evidence_remote_sensing_heads import CLASSES, HEADS, SETTINGS, Maps, predict
from evidence_remote_sensing_prior import SCENE, clear_scenes, space_of, terrain
from safetensors.torch import load_file, save_file
from scipy.ndimage import uniform_filter
from scipy.stats import t as student
from torch.nn import functional

from priorscope_remote_sensing.data.eopatch import read_eopatch
from priorscope_remote_sensing.data.legend import UNLABELLED
from priorscope_remote_sensing.data.patches import Split, block_split
from priorscope_remote_sensing.prior import TerrainPrior

HERE = Path(__file__).parent
ROWS = HERE / "evidence_remote_sensing.jsonl"
FIGURE = HERE / "figures/evidence_remote_sensing.png"

MERGED = {"forest": 0, "grassland": 1, "shrubland": 2, "artificial surface": 2}
SIDE, BLOCK, GAP = 100, 20, 2
SPLITS, SEED, DEV_SEED = 10, 0, 777
#: Draws of validation blocks inside the training blocks, and the share of blocks that validates.
INNER, INNER_FUSERS, INNER_SHARE = 8, 3, 0.3

PRIORS = ("terrain", "longer", "both", "scene")
#: Parts that are put side by side.
FEATURES = (
    *("raw", "raw+5x5", "random", "terrain", "longer", "both", "scene"),
    *("raw+random", "raw+terrain", "raw+longer", "raw+both", "raw+scene"),
    *("raw+5x5+random", "raw+5x5+terrain", "raw+5x5+longer", "raw+5x5+both", "raw+5x5+scene"),
)
#: What the gains in the table are of, and over what.
COMPARED = {
    before + prior: ("raw", "raw+5x5", "random", *([before + "random"] if before else []))
    for before in ("", "raw+", "raw+5x5+")
    for prior in PRIORS
}
TAPS = ("up_blocks.1.resnets.1", "up_blocks.2.resnets.1")
LEVEL = 60.0
MEMBERS = 16


@dataclass(frozen=True)
class Table:
    """The scene, and its labelled pixels as a list."""

    scene: np.ndarray
    """Reflectance [3, 13, SIDE, SIDE]."""
    target: np.ndarray
    """Class or 255, [SIDE, SIDE]."""

    @property
    def items(self) -> np.ndarray:
        return np.flatnonzero(self.target.ravel() != UNLABELLED)

    def splits(self, count: int, seed: int = SEED, *, within: np.ndarray | None = None) -> Iterator[Split]:
        """Indices into ``items``; ``within`` splits only some of them."""
        chosen = np.arange(len(self.items)) if within is None else within
        row, column = np.divmod(self.items[chosen], SIDE)
        bounds = np.stack([column, row, column + 1, row + 1], 1)
        labels = self.target.ravel()[self.items[chosen]]
        share = 0.5 if within is None else INNER_SHARE
        given: dict[str, Any] = {"gap": GAP, "origin": (0, 0), "labels": labels, "test_share": share}
        for index in range(count):
            split = block_split(bounds, BLOCK, seed=seed, index=index, **given)
            yield Split(chosen[split.train], chosen[split.test])


def read_table() -> Table:
    patch = read_eopatch(SCENE)
    target = np.full(patch.labels.shape, UNLABELLED, np.uint8)
    for index, name in enumerate(patch.names):
        if name in MERGED:  # cultivated land has 11 pixels
            target[patch.labels == index] = MERGED[name]
    return Table(clear_scenes(patch)[:, :, :SIDE, :SIDE], target[:SIDE, :SIDE])


def band_maps(scene: np.ndarray, part: str) -> Maps:
    """Logarithms of all bands of all dates (``raw``), or their mean and deviation over 5 x 5 pixels (``5x5``)."""
    logs = np.log(scene + 0.01).reshape(-1, SIDE, SIDE)
    if part == "raw":
        return {"bands": torch.from_numpy(logs.astype(np.float32))}
    mean = uniform_filter(logs, (0, 5, 5), mode="nearest")
    square = uniform_filter(logs**2, (0, 5, 5), mode="nearest")
    found = {"mean": mean, "deviation": np.sqrt(np.maximum(square - mean**2, 0))}
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in found.items()}


def prior_maps(prior: TerrainPrior, scene: np.ndarray) -> Maps:
    """Taps of all dates at every pixel: the mean over shifts, turns and noise of maps 2 to 8 pixels coarse."""
    rng = np.random.default_rng(SEED)
    total: Maps = {}
    side = SIDE + 12  # a multiple of the coarsest map's 8 pixels, with room for every shift
    for member in range(MEMBERS):
        (top, left), turns, mirrored = rng.integers(0, 8, 2), int(rng.integers(4)), rng.random() < 0.5
        pads = ((0, 0), (0, 0), (top, side - SIDE - top), (left, side - SIDE - left))
        images = np.rot90(np.pad(scene, pads, mode="reflect"), turns, (2, 3))
        images = np.ascontiguousarray(images[..., ::-1] if mirrored else images)
        names = [f"{member}/{date}" for date in range(len(scene))]
        taken = prior.features(torch.from_numpy(images), TAPS, levels=(LEVEL,), items=names)[LEVEL]
        for tap, value in taken.items():
            value = functional.interpolate(value, (side, side), mode="nearest")
            value = torch.rot90(value.flip(-1) if mirrored else value, -turns, (2, 3))
            value = value[:, :, top : top + SIDE, left : left + SIDE].flatten(0, 1) / MEMBERS
            total[tap] = total[tap] + value if member else value
    return total


def marked(table: Table, chosen: np.ndarray) -> np.ndarray:
    """The target at some of the items, 255 elsewhere."""
    target = np.full(table.target.size, UNLABELLED, np.uint8)
    pixels = table.items[chosen]
    target[pixels] = table.target.ravel()[pixels]
    return target.reshape(SIDE, SIDE)


def balanced(predicted: np.ndarray, target: np.ndarray) -> float:
    """Mean recall of the classes."""
    return float(np.mean([(predicted[target == index] == index).mean() for index in range(len(CLASSES))]))


class Evidence:
    """All results, in order, until the time is used up."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.deadline = time.monotonic() + options.max_seconds
        self.rows = read_rows()
        self.table = read_table()
        self.kept: dict[str, Maps] = {}

    def write(self, row: dict[str, Any]) -> None:
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        print(json.dumps(row), flush=True)

    def find(self, **wanted: Any) -> dict[str, Any] | None:
        return next((row for row in self.rows if all(row.get(k) == v for k, v in wanted.items())), None)

    def maps(self, features: str) -> Maps:
        """What a pixel is described by; parts are joined with ``+``."""
        maps: Maps = {}
        for part in features.split("+"):
            if part not in self.kept:
                self.kept[part] = self.part(part)
            maps |= self.kept[part]
        return maps

    def part(self, name: str) -> Maps:
        """Maps of one part; those of a prior are kept beside it: delete them when it is trained anew."""
        if name in ("raw", "5x5"):
            return band_maps(self.table.scene, name)
        path = self.options.out / f"maps-{name}.safetensors"
        if not path.exists():
            taken = prior_maps(self.prior(name), self.table.scene)
            save_file({tap: value.contiguous() for tap, value in taken.items()}, path)
        kept = load_file(path)
        return {name: kept[name] for name in sorted(kept)}

    def prior(self, name: str) -> TerrainPrior:
        if name == "random":
            return TerrainPrior.new(space_of(terrain(self.options.out)), seed=0)
        return TerrainPrior.from_pretrained(self.options.out / name / "model", device="cpu")

    def tuned(self, features: str, head: str, train: np.ndarray) -> tuple[float, ...]:
        """The setting that is best on validation blocks inside the training blocks."""
        settings = SETTINGS[head]
        if head != "linear":  # once, inside the training blocks of the first split
            row = self.find(kind="tuning", features=features, head=head)
            if row is not None:
                return tuple(row["setting"])
        scores = np.zeros(len(settings))
        draws = INNER if head == "linear" else INNER_FUSERS
        for split in self.table.splits(draws, SEED + 1, within=train):
            found = predict(head, self.maps(features), marked(self.table, split.train), settings)
            scores += [balanced(predicted, marked(self.table, split.test)) / draws for predicted in found]
        best = settings[int(scores.argmax())]
        if head != "linear":
            grid = {str(setting): round(float(score), 4) for setting, score in zip(settings, scores, strict=True)}
            self.write({"kind": "tuning", "features": features, "head": head, "setting": best, "grid": grid})
        return best

    def run(self) -> None:
        for head, features in itertools.product(HEADS, FEATURES):
            if head != "linear" and "5x5+" in features:
                continue  # the fusers see neighbours themselves
            for index, split in enumerate(self.table.splits(SPLITS)):
                key = {"kind": "score", "features": features, "head": head, "split": index}
                if self.find(**key):
                    continue
                if time.monotonic() > self.deadline:
                    return
                setting = self.tuned(features, head, split.train)
                (predicted,) = predict(head, self.maps(features), marked(self.table, split.train), [setting])
                score = balanced(predicted, marked(self.table, split.test))
                self.write(key | {"setting": setting, "balanced_accuracy": round(score, 4)})


def read_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def scores_of(rows: list[dict[str, Any]]) -> dict[tuple[str, str], np.ndarray]:
    """Balanced accuracy by split for every (features, head) that is complete."""
    found = {}
    for features, head in itertools.product(FEATURES, HEADS):
        chosen = {
            row["split"]: row["balanced_accuracy"]
            for row in rows
            if row["kind"] == "score" and row["features"] == features and row["head"] == head
        }
        if len(chosen) == SPLITS:
            found[features, head] = np.array([chosen[index] for index in range(SPLITS)])
    return found


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and the ends of its 95 % interval by Student's t."""
    half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return float(values.mean()), float(values.mean()) - half, float(values.mean()) + half


def print_table(scores: dict[tuple[str, str], np.ndarray]) -> None:
    print(f"\nBalanced accuracy, mean of {SPLITS} block splits\n")
    print("| a pixel is | " + " | ".join(HEADS) + " |\n| --- |" + " --- |" * len(HEADS))
    for features in FEATURES:
        values = [scores.get((features, head)) for head in HEADS]
        print(f"| {features} | " + " | ".join("" if v is None else f"{v.mean():.3f}" for v in values) + " |")
    print("\nGain, paired by split: mean [95 % interval]; baselines with the same head, and with their best head\n")
    print("| head | features | over | same head | its best head |\n| --- | --- | --- | --- | --- |")
    for head, (features, bases) in itertools.product(HEADS, COMPARED.items()):
        if (features, head) not in scores:
            continue
        for base in bases:
            others = {other: scores[base, other] for other in HEADS if (base, other) in scores}
            best = max(others, key=lambda other: others[other].mean(), default=None)
            cells = [
                "{:+.3f} [{:+.3f}, {:+.3f}]".format(*interval(scores[features, head] - others[other]))
                if other in others
                else ""
                for other in (head, best)
            ]
            print(f"| {head} | {features} | {base} | {cells[0]} | {cells[1]} ({best}) |")


def draw(scores: dict[tuple[str, str], np.ndarray], path: Path = FIGURE) -> None:
    """Every split as a dot, means as bars."""
    from matplotlib.figure import Figure

    shown = [head for head in HEADS if any(key[1] == head for key in scores)]
    figure = Figure(figsize=(2.6 * len(shown) + 1.2, 3.8), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, head in zip(axes, shown, strict=True):
        for place, features in enumerate(FEATURES):
            values = scores.get((features, head))
            if values is None:
                continue
            colour = "tab:blue" if features.split("+")[-1] in PRIORS else "0.55"
            axis.plot(np.full(SPLITS, place), values, "o", color=colour, alpha=0.4, markersize=4)
            axis.plot([place - 0.3, place + 0.3], [values.mean()] * 2, color=colour, linewidth=2.5)
        axis.set(title=head, xticks=range(len(FEATURES)))
        axis.set_xticklabels(FEATURES, rotation=60, ha="right", fontsize=8)
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("balanced accuracy, test blocks")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("/tmp/evidence_rs"), help="folder of the trained priors")
    parser.add_argument("--max-seconds", type=float, default=1200)
    parser.add_argument("--table", action="store_true", help="only print the table and draw the figure")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.table:
        Evidence(options).run()
    scores = scores_of(read_rows())
    print_table(scores)
    if scores:
        draw(scores)


if __name__ == "__main__":
    main()

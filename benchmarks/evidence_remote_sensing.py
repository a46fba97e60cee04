"""Does a small diffusion prior help to map land cover from few labels?

    OMP_NUM_THREADS=1 python benchmarks/evidence_remote_sensing_prior.py      # the priors, twice 20 minutes of one core
    OMP_NUM_THREADS=1 python benchmarks/evidence_remote_sensing.py [--max-seconds 1200] [--table]

A real Sentinel-2 scene (three clear dates, 1 km x 1 km, forest / grassland / shrub and built-up) is cut into blocks of
200 m; half of them train, the others test, drawn anew ten times; training pixels nearer than 20 m to a test block are
left out. Methods differ in what a pixel is described by:

- ``raw``: the 13 bands of the three dates, as logarithms; ``raw+5x5``: and their mean and deviation over 5 x 5 pixels;
- ``random``: taps of the prior's network with the weights its training began from;
- ``terrain``: of the prior trained on synthetic patches, which has seen no pixel of the scene;
- ``both``: of the prior that has also seen the scene, test blocks included, without any label.

and in the head: ``linear`` (logistic regression), and SatDiFuser's fusers ``gw``, ``lw``, ``moe`` with a linear layer a
pixel. Every head weighs classes equally, and every (description, head) has its own settings from one grid, chosen on
validation blocks inside the training blocks of the first splits, never on test blocks. Taps, levels and the rest were
chosen on other draws of splits of the same scene (DEV_SEED), which the text of the result must say.

Every result is a row of evidence_remote_sensing.jsonl; the same command goes on with what is missing. --table prints
the rows as markdown and draws figures/evidence_remote_sensing.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from evidence_remote_sensing_prior import SCENE, clear_scenes, space_of, terrain
from scipy.ndimage import uniform_filter
from scipy.stats import t as student
from torch import nn
from torch.nn import functional

from priorscope_remote_sensing.data.eopatch import read_eopatch
from priorscope_remote_sensing.data.legend import UNLABELLED
from priorscope_remote_sensing.data.patches import Split, block_split
from priorscope_remote_sensing.decoder import Decoder, DecoderConfig, FuserName
from priorscope_remote_sensing.fusers import ExpertFuser, GlobalFuser, LocalFuser, load_balance
from priorscope_remote_sensing.prior import TerrainPrior

HERE = Path(__file__).parent
ROWS = HERE / "evidence_remote_sensing.jsonl"
FIGURE = HERE / "figures/evidence_remote_sensing.png"

CLASSES = ("forest", "grassland", "shrub and built-up")
MERGED = {"forest": 0, "grassland": 1, "shrubland": 2, "artificial surface": 2}
SIDE, BLOCK, GAP = 100, 20, 2
SPLITS, INNER, SEED, DEV_SEED = 10, 4, 0, 777

#: Parts that are put side by side.
FEATURES = (
    *("raw", "raw+5x5", "random", "terrain", "both"),
    *("raw+random", "raw+terrain", "raw+both", "raw+5x5+random", "raw+5x5+terrain", "raw+5x5+both"),
)
HEADS = ("linear", "gw", "lw", "moe")
#: What the gains in the table are of, and over what.
COMPARED = {
    "terrain": ("raw", "raw+5x5", "random"),
    "both": ("raw", "raw+5x5", "random"),
    "raw+terrain": ("raw", "raw+5x5", "random", "raw+random"),
    "raw+both": ("raw", "raw+5x5", "random", "raw+random"),
    "raw+5x5+terrain": ("raw", "raw+5x5", "random", "raw+5x5+random"),
    "raw+5x5+both": ("raw", "raw+5x5", "random", "raw+5x5+random"),
}
TAPS = ("up_blocks.1.resnets.1", "up_blocks.2.resnets.1")
LEVEL = 60.0
MEMBERS = 16

#: Penalty of the linear head, and by how much the bands are scaled up against all else (39 good numbers want a
#: smaller penalty than hundreds of redundant ones); learning rate of the others.
SETTINGS: dict[str, list[tuple[float, ...]]] = {
    "linear": list(itertools.product((10.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0), (1.0, 10.0))),
    **{head: [(3e-4,), (1e-3,), (3e-3,)] for head in HEADS[1:]},
}
DECAY, STEPS = 0.1, 60


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
        for index in range(count):
            split = block_split(bounds, BLOCK, seed=seed, index=index, gap=GAP, origin=(0, 0), labels=labels)
            yield Split(chosen[split.train], chosen[split.test])


Maps = dict[str, torch.Tensor]
"""By name (a part of the bands, or a tap): (C, SIDE, SIDE)."""


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


class Pixels(Decoder):
    """A linear layer on the sum of the fused maps of all scales."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.classes = nn.Conv2d(config.projection_dim, config.num_classes, 1)

    def decode(self, maps: Sequence[torch.Tensor], size: tuple[int, int] | None = None) -> torch.Tensor:
        return self.classes(torch.stack(list(maps)).sum(0))


class GlobalPixels(GlobalFuser, Pixels):
    """Global weights."""


class LocalPixels(LocalFuser, Pixels):
    """Localised weights."""


class ExpertPixels(ExpertFuser, Pixels):
    """Mixture of experts."""


FUSERS: dict[str, type[Decoder]] = {"gw": GlobalPixels, "lw": LocalPixels, "moe": ExpertPixels}


def new_decoder(head: FuserName, maps: Maps) -> Decoder:
    config = DecoderConfig(
        *(head, "segmentation", len(CLASSES)),
        taps=(tuple(len(value) for value in maps.values()),),
        save_steps=(0,),
        projection_dim=32,
        norm_groups=4,
        experts=4,
        top_k=2,
        warmup_steps=STEPS // 2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return FUSERS[head](config)


def marked(table: Table, chosen: np.ndarray) -> np.ndarray:
    """The target at some of the items, 255 elsewhere."""
    target = np.full(table.target.size, UNLABELLED, np.uint8)
    pixels = table.items[chosen]
    target[pixels] = table.target.ravel()[pixels]
    return target.reshape(SIDE, SIDE)


def standardised(maps: Maps, target: np.ndarray) -> Maps:
    """By mean and deviation over the training pixels."""
    inside = torch.from_numpy(target != UNLABELLED)
    result: Maps = {}
    for name, value in maps.items():
        pixels = value[:, inside]
        result[name] = (value - pixels.mean(1)[:, None, None]) / (pixels.std(1)[:, None, None] + 1e-6)
    return result


def fit_decoder(head: FuserName, maps: Maps, target: np.ndarray, rate: float) -> np.ndarray:
    """Train on the pixels with a target, the whole scene at every step; predicted classes, [SIDE, SIDE]."""
    ready = {0: [torch.cat(list(standardised(maps, target).values()))[None]]}
    labels = torch.from_numpy(target.astype(np.int64))[None]
    labels[labels == UNLABELLED] = -1
    counts = torch.bincount(labels[labels >= 0], minlength=len(CLASSES)).float()
    decoder = new_decoder(head, maps)
    optimizer = torch.optim.AdamW(decoder.parameters(), rate, weight_decay=DECAY)
    course = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, STEPS, pct_start=0.1)
    for _ in range(STEPS):
        fused = decoder.fuse(ready)
        logits = decoder.decode(fused.maps)
        loss = functional.cross_entropy(logits, labels, counts.sum() / counts, ignore_index=-1)
        if head == "moe":
            loss = loss + 0.01 * load_balance(fused.gates)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        course.step()
        if isinstance(decoder, ExpertFuser):
            decoder.update_done()
    decoder.eval()
    with torch.no_grad():
        return decoder(ready)[0].argmax(0).numpy()


def fit_linear(maps: Maps, target: np.ndarray, settings: Sequence[tuple[float, ...]]) -> list[np.ndarray]:
    """Ridge regression of one-hot classes, all classes weighing alike: predictions for each (penalty, scale).

    Closed form, so that no description loses because an optimiser stopped early.
    """
    inside = torch.from_numpy(np.flatnonzero(target.ravel() != UNLABELLED))
    labels = torch.from_numpy(target.ravel().astype(np.int64))[inside]
    counts = torch.bincount(labels, minlength=len(CLASSES))
    weight = (len(labels) / (len(CLASSES) * counts))[labels][:, None].double()
    one_hot = functional.one_hot(labels, len(CLASSES)).double() - 1 / len(CLASSES)
    ready = standardised(maps, target)
    found: dict[tuple[float, ...], np.ndarray] = {}
    for scale in {scale for _, scale in settings}:
        parts = [value * scale if name == "bands" else value for name, value in ready.items()]
        table = torch.cat(parts).flatten(1).T.double()
        table = table - (weight * table[inside]).sum(0) / weight.sum()
        x = table[inside]
        values, vectors = torch.linalg.eigh((weight * x).T @ x)
        rotated, answer = table @ vectors, vectors.T @ ((weight * x).T @ one_hot)
        for penalty in {penalty for penalty, other in settings if other == scale}:
            scores = rotated @ (answer / (values + penalty)[:, None])
            found[penalty, scale] = scores.argmax(1).reshape(SIDE, SIDE).numpy()
    return [found[setting[0], setting[1]] for setting in settings]


def balanced(predicted: np.ndarray, target: np.ndarray) -> float:
    """Mean recall of the classes."""
    return float(np.mean([(predicted[target == index] == index).mean() for index in range(len(CLASSES))]))


def predict(head: str, maps: Maps, target: np.ndarray, settings: Sequence[tuple[float, ...]]) -> list[np.ndarray]:
    """Maps of classes for each of the settings."""
    if head == "linear":
        return fit_linear(maps, target, settings)
    return [fit_decoder(head, maps, target, setting[0]) for setting in settings]  # type: ignore[arg-type]


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
                bands = part in ("raw", "5x5")
                scene = self.table.scene
                self.kept[part] = band_maps(scene, part) if bands else prior_maps(self.prior(part), scene)
            maps |= self.kept[part]
        return maps

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
        for split in self.table.splits(INNER, SEED + 1, within=train):
            found = predict(head, self.maps(features), marked(self.table, split.train), settings)
            scores += [balanced(predicted, marked(self.table, split.test)) / INNER for predicted in found]
        best = settings[int(scores.argmax())]
        if head != "linear":
            grid = {str(setting): round(float(score), 4) for setting, score in zip(settings, scores, strict=True)}
            self.write({"kind": "tuning", "features": features, "head": head, "setting": best, "grid": grid})
        return best

    def run(self) -> None:
        for head, features in itertools.product(HEADS, FEATURES):
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
            colour = "tab:blue" if features.split("+")[-1] in ("terrain", "both") else "0.55"
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

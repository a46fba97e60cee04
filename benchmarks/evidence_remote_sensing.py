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
SPLITS, TUNING_SPLITS, SEED, DEV_SEED = 10, 3, 0, 777

FEATURES = ("raw", "raw+5x5", "random", "terrain", "both")
HEADS = ("linear", "gw", "lw", "moe")
TAPS = ("up_blocks.1.resnets.1", "up_blocks.2.resnets.0", "up_blocks.2.resnets.1")
LEVELS = (10.0, 100.0)
MEMBERS = 16

INVERSE_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
RATES, DECAYS = (1e-3, 3e-3, 1e-2), (1e-2, 1e-1, 1.0)
STEPS, TILES = 120, 6


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


Maps = dict[int, list[torch.Tensor]]
"""By level, the maps of the taps, each (1, C, SIDE, SIDE)."""


def read_table() -> Table:
    patch = read_eopatch(SCENE)
    target = np.full(patch.labels.shape, UNLABELLED, np.uint8)
    for index, name in enumerate(patch.names):
        if name in MERGED:  # cultivated land has 11 pixels
            target[patch.labels == index] = MERGED[name]
    return Table(clear_scenes(patch)[:, :, :SIDE, :SIDE], target[:SIDE, :SIDE])


def raw_maps(scene: np.ndarray, *, context: bool) -> Maps:
    """Logarithms of all bands of all dates, and their statistics over 5 x 5 pixels."""
    logs = np.log(scene + 0.01).reshape(-1, SIDE, SIDE)
    parts = [logs]
    if context:
        mean = uniform_filter(logs, (0, 5, 5), mode="nearest")
        square = uniform_filter(logs**2, (0, 5, 5), mode="nearest")
        parts += [mean, np.sqrt(np.maximum(square - mean**2, 0))]
    return {0: [torch.from_numpy(part.astype(np.float32))[None] for part in parts]}


def prior_maps(prior: TerrainPrior, scene: np.ndarray, levels: Sequence[float] = LEVELS) -> Maps:
    """Taps of all dates at every pixel: the mean over shifts, turns and noise of maps 2 to 8 pixels coarse."""
    rng, total = np.random.default_rng(SEED), {}
    side = SIDE + 12  # a multiple of the coarsest map's 8 pixels, with room for every shift
    for member in range(MEMBERS):
        (top, left), turns, mirrored = rng.integers(0, 8, 2), int(rng.integers(4)), rng.random() < 0.5
        pads = ((0, 0), (0, 0), (top, side - SIDE - top), (left, side - SIDE - left))
        images = np.rot90(np.pad(scene, pads, mode="reflect"), turns, (2, 3))
        images = np.ascontiguousarray(images[..., ::-1] if mirrored else images)
        names = [f"{member}/{date}" for date in range(len(scene))]
        taken = prior.features(torch.from_numpy(images), TAPS, levels=levels, items=names)
        for level, maps in taken.items():
            for tap, value in maps.items():
                value = functional.interpolate(value, (side, side), mode="nearest")
                value = torch.rot90(value.flip(-1) if mirrored else value, -turns, (2, 3))
                value = value[:, :, top : top + SIDE, left : left + SIDE] / MEMBERS
                total[level, tap] = total[level, tap] + value if member else value
    order = sorted(levels)
    return {int(level): [total[level, tap].flatten(0, 1)[None] for tap in TAPS] for level in order}


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
    widths = tuple(value.shape[1] for value in next(iter(maps.values())))
    config = DecoderConfig(
        *(head, "segmentation", len(CLASSES)),
        taps=(widths,),
        save_steps=tuple(maps),
        projection_dim=64,
        norm_groups=8,
        experts=4,
        top_k=2,
        warmup_steps=STEPS // 2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return FUSERS[head](config)


def tiles(values: torch.Tensor) -> torch.Tensor:
    """Blocks of (1, C, SIDE, SIDE) as a batch (N, C, BLOCK, BLOCK), row by row."""
    cut = values.unflatten(2, (-1, BLOCK)).unflatten(4, (-1, BLOCK))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2).contiguous()


def whole(values: torch.Tensor) -> torch.Tensor:
    """The reverse of :func:`tiles`."""
    count = SIDE // BLOCK
    return values.unflatten(0, (1, count, count)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


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
    for level, values in maps.items():
        result[level] = []
        for value in values:
            pixels = value[0][:, inside]
            mean, std = pixels.mean(1)[None, :, None, None], pixels.std(1)[None, :, None, None]
            result[level].append((value - mean) / (std + 1e-6))
    return result


def fit_decoder(head: FuserName, maps: Maps, target: np.ndarray, lr: float, decay: float) -> np.ndarray:
    """Train on the pixels with a target; predicted classes of all, [SIDE, SIDE]."""
    ready = {level: tiles(torch.cat(values, 1)) for level, values in standardised(maps, target).items()}
    labels = tiles(torch.from_numpy(target.astype(np.int64))[None, None])[:, 0]
    labels[labels == UNLABELLED] = -1
    counts = torch.bincount(labels[labels >= 0], minlength=len(CLASSES)).float()
    weights = counts.sum() / (len(CLASSES) * counts)
    usable = torch.nonzero((labels >= 0).flatten(1).any(1))[:, 0].numpy()
    decoder = new_decoder(head, maps)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr, weight_decay=decay)
    course = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, STEPS, pct_start=0.1)
    rng = np.random.default_rng(SEED)
    order = np.concatenate([rng.permutation(usable) for _ in range(STEPS * TILES // len(usable) + 1)])
    for step in range(STEPS):
        rows = torch.from_numpy(order[step * TILES : (step + 1) * TILES])
        fused = decoder.fuse({level: [value[rows]] for level, value in ready.items()})
        logits = decoder.decode(fused.maps)
        # a sum over the mean number of pixels: batches have unequal numbers of each class
        loss = functional.cross_entropy(logits, labels[rows], weights, ignore_index=-1, reduction="sum")
        loss = loss / (counts.sum() * len(rows) / len(usable))
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
        logits = decoder({level: [value] for level, value in ready.items()})
    return whole(logits)[0].argmax(0).numpy()


def fit_linear(maps: Maps, target: np.ndarray, penalty: float) -> np.ndarray:
    """Logistic regression; ``penalty`` is scikit-learn's inverse C."""
    from sklearn.linear_model import LogisticRegression

    ready = standardised(maps, target)
    table = torch.cat([torch.cat(values, 1)[0] for values in ready.values()]).flatten(1).T.numpy()
    inside = np.flatnonzero(target.ravel() != UNLABELLED)
    model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=100)
    model.fit(table[inside], target.ravel()[inside])
    return model.predict(table).reshape(SIDE, SIDE)


def balanced(predicted: np.ndarray, target: np.ndarray) -> float:
    """Mean recall of the classes."""
    return float(np.mean([(predicted[target == index] == index).mean() for index in range(len(CLASSES))]))


def predict(head: str, maps: Maps, target: np.ndarray, setting: Sequence[float]) -> np.ndarray:
    if head == "linear":
        return fit_linear(maps, target, setting[0])
    return fit_decoder(head, maps, target, *setting)  # type: ignore[arg-type]


def grid(head: str) -> list[tuple[float, ...]]:
    return [(c,) for c in INVERSE_PENALTIES] if head == "linear" else list(itertools.product(RATES, DECAYS))

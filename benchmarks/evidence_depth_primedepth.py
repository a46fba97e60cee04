"""PrimeDepth's way with labels, at the scale of evidence_depth.py: the prior stays frozen and is looked into.

    OMP_NUM_THREADS=1 python benchmarks/evidence_depth_primedepth.py [--scenes runs/scenes] [--max-seconds 1200]
        [--table]

Scenes, autoencoder and prior are evidence_depth.py's, trained again where they are not there. A decoder and a head
beside the frozen prior learn from its preimages: 0 or 300 steps of rebuilding pictures without labels, then 600
labelled steps of 16 pictures. Lotus-D from the prior and the network from random weights had as many steps and rows of
network input there, but half of the rows were the detail preserver's: they saw 8 labelled pictures a step, of the same
labelled scenes and mirrored by the same rule, in another order. Learning rate and rebuilding come from one grid with 10
% of the labels and the first seed, on validation scenes. The loss is the mean absolute error of the normalised
disparity. Rows of kind "primedepth" in evidence_depth.jsonl; the same command goes on with what is missing.

The two rivals of the first seed with all labels are trained again on this prior, and all three look at the real frames
of ../shared/data/depth (rows of kind "real": AbsRel after a fit in disparity of scale and shift).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from evidence_depth import (
    LABELS,
    ONE_STEP,
    RATES,
    SEEDS,
    SHARES,
    STEPS,
    Context,
    Evidence,
    Methods,
    chosen_settings,
    draw_methods,
    evidence_depth_parser,
    predict_and_score,
    print_methods,
)
from evidence_depth import results as rival_results
from evidence_depth_prior import FARTHEST, LABELLED, NEAREST, SIZE, OutOfTimeError, SaveWeights, TableFeed, mirror
from evidence_depth_prior import read_rows as read_all_rows
from numpy.typing import NDArray
from PIL import Image

from priorscope.backbones.latents import AutoencoderSpace, LatentSpace, PixelSpace
from priorscope.predictors.geometry import Geometry
from priorscope.training.settings import LoopConfig
from priorscope_depth.alignment import fit_affine
from priorscope_depth.metrics import depth_metrics
from priorscope_depth.primedepth.backbone import Backbone
from priorscope_depth.primedepth.labeller import Labeller
from priorscope_depth.primedepth.model import PrimeDepthModel
from priorscope_depth.primedepth.predictor import PrimeDepthPredictor
from priorscope_depth.primedepth.training import PreimageCache

HERE = Path(__file__).parent
FIGURE = HERE / "figures" / "evidence_depth_primedepth.png"
REAL = HERE.parents[1] / "shared/data/depth"
BATCH = 16
PRETRAIN = (0, 300)
CACHE_BYTES = 5_000_000_000


class Painter(SaveWeights):
    """Pictures first, then disparity; the frozen network is asked once a picture and side."""

    def __init__(self, model: PrimeDepthModel, cache: PreimageCache, pretrain: int) -> None:
        super().__init__(model.labeller)
        self.model.requires_grad_(True)
        self.whole, self.cache, self.pretrain = model, cache, pretrain

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        preimage = self.cache(batch["image"], batch["view"].tolist())
        text = self.whole.text.expand(len(batch["image"]), -1, -1)
        with torch.no_grad():
            embedding = self.whole.embedding(batch["image"])
        painted = self.model(preimage, text, embedding)
        if self.step >= self.pretrain:
            painted = painted.mean(1, keepdim=True)
        return {"loss": (painted - batch["target"]).abs().mean()}


@dataclass(frozen=True)
class TwoFeeds:
    """One feed for so many steps, another after them."""

    first: TableFeed
    second: TableFeed
    steps: int

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        return self.first.batch(step, rows) if step < self.steps else self.second.batch(step - self.steps, rows)


def new_model(context: Context, seed: int) -> tuple[PrimeDepthModel, PrimeDepthModel]:
    """A trained part beside the prior, on cached latents to train, and on images to predict with."""
    text, task = torch.zeros(1, 2, 16), torch.zeros(1, 4)
    whole: LatentSpace = AutoencoderSpace(context.vae)
    prior = context.prior.eval().requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        labeller = Labeller(Backbone(prior, whole, text, task=task).architecture())
    training, predicting = (Backbone(prior, space, text, task=task).model(labeller) for space in (PixelSpace(), whole))
    return training, predicting


class PrimeDepthEvidence(Evidence):
    """The rows of kind primedepth and real, in order, until the time is used up."""

    def prime(self, share: str, seed: int, rate: float, pretrain: int, context: Context) -> None:
        """One training, unless its row is there."""
        key = {"kind": "primedepth", "share": share, "seed": seed, "lr": rate, "pretrain": pretrain}
        if self.find(**key) is not None:
            return
        predictor, seconds = self.trained_prime(share, seed, rate, pretrain, context)
        row = key | {"steps": STEPS, "cpu_seconds": round(seconds, 1)}
        row |= {"parameters": sum(weight.numel() for weight in predictor.model.labeller.parameters())}
        row |= {f"validation_{k}": v for k, v in predict_and_score(predictor, self.validation).items()}
        row |= predict_and_score(predictor, self.held_out)
        self.write(row)

    def trained_prime(
        self, share: str, seed: int, rate: float, pretrain: int, context: Context
    ) -> tuple[PrimeDepthPredictor, float]:
        """A predictor, and the processor seconds of its training."""
        self.left()
        training, predicting = new_model(context, seed)
        cache = PreimageCache(training, seed=seed, limit=CACHE_BYTES)
        chosen = np.random.default_rng([seed, 5]).permutation(LABELLED)[: SHARES[share]].tolist()

        def labelled(items: torch.Tensor, generator: np.random.Generator) -> dict[str, torch.Tensor]:
            return self.views(context, items, mirror(items, generator), self.data.painted)

        def pictures(items: torch.Tensor, generator: np.random.Generator) -> dict[str, torch.Tensor]:
            return self.views(context, items, mirror(items, generator), self.data.images)

        feed = TwoFeeds(
            TableFeed(self.unlabelled, BATCH, seed, pictures), TableFeed(chosen, BATCH, seed, labelled), pretrain
        )
        steps = pretrain + STEPS
        config = LoopConfig(steps=steps, batch_size=BATCH, lr=rate, warmup=20, ema=0, log_every=100, seed=seed)
        config = LoopConfig(**(vars(config) | {"checkpoint_every": steps, "validate_every": steps}))
        seconds = self.train("run", Painter(training, cache, pretrain), feed, config)  # type: ignore[arg-type]
        geometry = Geometry(max(SIZE), upscale=True, multiple=16)
        return PrimeDepthPredictor(predicting, geometry=geometry, name="primedepth"), seconds

    def views(
        self, context: Context, items: torch.Tensor, side: torch.Tensor, wanted: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Latents, what is to be painted (mirrored alike), and a number for each picture and side."""
        target = wanted[items].float()
        if wanted.dtype == torch.uint8:
            target = target / 127.5 - 1
        target = torch.where(side[:, None, None, None] == 1, target.flip(-1), target)
        return {"image": context.cached.images[side, items], "target": target, "view": 2 * items + side}

    def setting(self, context: Context) -> tuple[float, int]:
        """Best of the grid on validation scenes."""
        scores = {}
        for pretrain in PRETRAIN:
            for rate in RATES:
                self.prime("10 %", SEEDS[0], rate, pretrain, context)
                key = {"share": "10 %", "seed": SEEDS[0], "lr": rate, "pretrain": pretrain}
                found = self.find(kind="primedepth", **key)
                assert found is not None
                scores[rate, pretrain] = found["validation_abs_rel"]
        return min(scores, key=lambda choice: scores[choice])

    def all(self) -> None:
        self.load()
        vae = self.autoencoder()
        cached = self.latents(vae)
        context = Context(vae, cached, self.prior(cached))
        rate, pretrain = self.setting(context)
        for seed in SEEDS:
            for share in SHARES:
                self.prime(share, seed, rate, pretrain, context)
        self.real(rate, pretrain, context)

    def real(self, rate: float, pretrain: int, context: Context) -> None:
        """All three, of the first seed and all labels, on real frames; each is trained for it."""
        settings, share, seed = chosen_settings(self.rows), "100 %", SEEDS[0]
        for method in ("primedepth", *ONE_STEP):
            missing = [each for each in real_frames() if not self.find(kind="real", method=method, frame=each[0])]
            if not missing:
                continue
            if method == "primedepth":
                predictor = self.trained_prime(share, seed, rate, pretrain, context)[0]
            else:
                predictor = self.tuned(method, share, seed, settings[method], context)[0]  # type: ignore[assignment]
            for name, image, depth in missing:
                values = predictor([image], items=[name])[0].values
                valid = depth > 0
                fitted = fit_affine(values, depth, valid, "disparity").depth(values, NEAREST, FARTHEST)
                found = depth_metrics(fitted, depth, valid)
                figures = {figure: round(float(found[figure]), 4) for figure in ("abs_rel", "delta1")}
                self.write({"kind": "real", "method": method, "frame": name, **figures})


def prime_results(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of the chosen setting, by share."""
    prime = [row for row in rows if row["kind"] == "primedepth"]
    grid = [row for row in prime if row["share"] == "10 %" and row["seed"] == SEEDS[0]]
    if not grid:
        return {}
    best = min(grid, key=lambda row: row["validation_abs_rel"])
    mine = [row for row in prime if (row["lr"], row["pretrain"]) == (best["lr"], best["pretrain"])]
    return {share: [row for row in mine if row["share"] == share] for share in SHARES}


def real_frames() -> list[tuple[str, NDArray[np.uint8], NDArray[np.float32]]]:
    """Name, RGB and metres (0: none) of two frames of NYUv2 and two of KITTI; none where they are not there."""
    found = []
    for kind, unit, names in (("nyu", 1000, ("00000", "00050")), ("kitti", 256, ("0000000005", "0000000100"))):
        for name in names:
            folder = REAL / f"{kind}_raw"
            pair = (
                (folder / f"rgb_{name}.jpg", folder / f"sync_depth_{name}.png")
                if kind == "nyu"
                else (folder / f"rgb/{name}.png", folder / f"depth/{name}.png")
            )
            if all(path.exists() for path in pair):
                image, depth = (np.asarray(Image.open(path)) for path in pair)
                found.append((f"{kind}/{name}", image[..., :3].copy(), (depth / unit).astype(np.float32)))
    return found


def methods_of(rows: list[dict[str, Any]]) -> Methods:
    """PrimeDepth's way, and its two rivals."""
    rivals = rival_results(rows)
    return {"PrimeDepth on the frozen prior": prime_results(rows)} | {
        LABELS[method]: rivals[method] for method in ONE_STEP
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    print_methods(methods_of(rows))
    print(f"\n| grid (10 % of the labels, seed {SEEDS[0]}): steps of rebuilding | learning rate | validation AbsRel |")
    print("| --- | --- | --- |")
    for row in rows:
        if row["kind"] == "primedepth" and row["share"] == "10 %" and row["seed"] == SEEDS[0]:
            print(f"| {row['pretrain']} | {row['lr']:g} | {row['validation_abs_rel']:.4f} |")
    real = [row for row in rows if row["kind"] == "real"]
    frames = list(dict.fromkeys(row["frame"] for row in real))
    print(f"\n| real frame, AbsRel | {' | '.join(frames)} |\n| --- |{' --- |' * len(frames)}")
    for method in dict.fromkeys(row["method"] for row in real):
        values = {row["frame"]: row["abs_rel"] for row in real if row["method"] == method}
        print(f"| {method} | {' | '.join(f'{values[frame]:.3f}' for frame in frames)} |")


def main() -> None:
    options = evidence_depth_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    if not options.table:
        try:
            PrimeDepthEvidence(options).all()
        except OutOfTimeError:
            print("Out of time; the same command goes on.")
    rows = read_all_rows(options.rows)
    print_table(rows)
    draw_methods(methods_of(rows), FIGURE)


if __name__ == "__main__":
    main()

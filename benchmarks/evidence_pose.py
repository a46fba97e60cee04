"""Does a diffusion prior help to find joints, in its own domain and out of it? Do more frames help in video?

    OMP_NUM_THREADS=1 python benchmarks/evidence_pose.py [--max-seconds 1200] [--only stills|clips] [--arm ARM]
        [--table] [--small]

Stills. Networks learn from labelled drawn people who walk. ``prior``: a small SDPose, its U-Net pretrained as a
diffusion model on more pictures of the same renderer, without keypoints; ``scratch``: the same network, new weights;
``conv``: a plain convolutional network on pixels with the same head, codec and crops, and about as many weights. None
has the auxiliary reconstruction loss, which doubles the time of a step. All see the same people, changed in the same
ways, for the same number of steps; learning rate (and for the prior the level that the U-Net is told) come from one
grid, chosen on validation people with half of the steps and a seed of its own. Measured is OKS AP (mmpose's scores and
OKS-NMS, flip test) on held-out people as they were drawn and in three styles that no network has seen
(priorscope_pose.styles), for three seeds.

Clips. ``video``: DiffPose-mini on five frames; ``single``: the same network on the key frame alone. Both begin with one
single-frame training (as the paper begins with a pretrained backbone) and learn on from clips with motion blur and
things that pass in front, with equal steps and settings. Measured is PoseTrack's mAP on held-out clips, for solver
steps x ensemble; the weights are those of one training.

Every result is a row of evidence_pose.jsonl; the same command goes on with what is missing, and refuses rows that were
made with another plan. Two calls with --only may
run side by side. --table prints the rows and draws figures/evidence_pose.png. --small is a rehearsal of everything in a
few minutes, in files of its own: its figures say nothing.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from evidence_pose_data import STYLES, Data, Sizes
from evidence_pose_table import draw, print_tables
from evidence_rows import EvidenceRows, evidence_parser, run_evidence

from priorscope.training.checkpoint import checkpoint_step
from priorscope.training.settings import LoopConfig
from priorscope_pose.configs import EvaluateConfig, ModelConfig, TrainConfig
from priorscope_pose.data.annotations import Annotations
from priorscope_pose.data.boxes import annotated_boxes
from priorscope_pose.data.coco import read_coco
from priorscope_pose.estimators import load_estimator
from priorscope_pose.evaluate import figures_of, predict_all, predictions_of
from priorscope_pose.train import train

SEEDS = (0, 1, 2)
TUNING_SEED = 77
CROP = (64, 80)
SIGMA = 1.5
ARMS = ("prior", "scratch", "conv")
#: Of people as they are cut out, in all trainings: less than published, for as few steps as these.
AUGMENTATION: dict[str, Any] = {"rotation": 20.0, "scale": 0.2, "half_body": 0.0}
HOLE = 0.3
RATES = (1e-3, 2e-3)
LABELS = (999.0, 50.0)
CLIP_ARMS = ("video", "single")
SOLVER_STEPS, ENSEMBLES = (1, 2, 4, 8), (1, 3, 5)


@dataclass(frozen=True)
class Plan:
    """How long everything is trained; sized for about 10 minutes of one core an arm and seed."""

    sizes: Sizes = field(default_factory=Sizes)
    steps: int = 4000
    batch: int = 16
    prior_steps: int = 6000
    single_steps: int = 6000
    """Of the training that both kinds of clip models begin with."""
    clip_steps: int = 4000
    clip_batch: int = 8
    seeds: tuple[int, ...] = SEEDS


SMALL = Plan(
    Sizes(40, 20, 10, 10, 3, 2), steps=6, batch=4, prior_steps=6, single_steps=2, clip_steps=2, clip_batch=2, seeds=(0,)
)


class Evidence(EvidenceRows):
    """All results, in order, until the time is used up."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options.rows, options.max_seconds)
        self.out: Path = options.out
        self.plan: Plan = SMALL if options.small else Plan()
        self.arms: tuple[str, ...] = (options.arm,) if options.arm else ARMS
        self.data = Data(self.out, self.plan.sizes, self.seconds_left)

    def trained(self, name: str, config: TrainConfig) -> Path:
        """The model of a run that is finished; trains, or goes on training, within the time."""
        run = self.out / "runs" / name
        if (run / "finished").exists():
            if checkpoint_step(run / "checkpoints/last.pt") != config.loop.steps:
                raise SystemExit(f"{run} was not trained for {config.loop.steps} steps, as the plan has it: remove it")
            return run / "model"
        loop = replace(config.loop, max_seconds=self.seconds_left(), resume=True, device="cpu", ema=0.0, warmup=50)
        begin, before = time.process_time(), checkpoint_step(run / "checkpoints/last.pt")
        result = train(replace(config, out=run, loop=loop, held_out=0))
        seconds = time.process_time() - begin
        self.write(
            {
                "kind": "training",
                "name": name,
                "step": result.step,
                "cpu_seconds": round(seconds),
                "seconds_a_step": round(seconds / max(result.step - before, 1), 4),
            }
        )
        if not result.finished:
            raise SystemExit("the time is used up; the same command goes on")
        (run / "finished").touch()
        return result.model

    def check_plan(self, kind: str) -> None:
        """End the program where the rows of a kind are those of another plan, which would pass for this one's.

        The plan is a row of its own. Of rows that are older than this the trainings' steps tell.
        """
        # more seeds are more rows beside the same ones
        plan = {name: value for name, value in asdict(self.plan).items() if name != "seeds"}
        first = self.lacks(kind="plan", of=kind)
        if self._other_steps(kind) if first else self.row(kind="plan", of=kind)["plan"] != plan:
            raise SystemExit(f"{self.rows_at} has {kind} rows of another plan: take them, their plan and trainings out")
        if first:
            self.write({"kind": "plan", "of": kind, "plan": plan})

    def _other_steps(self, kind: str) -> bool:
        """Whether a training behind rows of a kind had other steps than the plan."""
        measured = {(row["arm"], row["seed"]) for row in self.rows if row["kind"] == kind}
        if kind == "clip":
            wanted = {f"{arm}-{seed}": self.plan.clip_steps for arm, seed in measured}
            wanted |= {"clips-start": self.plan.single_steps} if measured else {}
        else:
            wanted = {f"{arm}-{seed}-*": self.plan.steps for arm, seed in measured}
            wanted |= {"prior": self.plan.prior_steps} if any(arm == "prior" for arm, _ in measured) else {}
        trainings = [row for row in self.rows if row["kind"] == "training"]
        return any(
            max((row["step"] for row in trainings if fnmatch(row["name"], name)), default=0) != steps
            for name, steps in wanted.items()
        )

    def prior(self) -> Path:
        path, folder = self.data.stills("unlabelled")
        loop = LoopConfig(
            steps=self.plan.prior_steps, batch_size=self.plan.batch, lr=1e-3, log_every=100, checkpoint_every=200
        )
        return self.trained(
            "prior",
            TrainConfig(str(path), images=folder, method="prior", input_size=CROP, loop=loop, **AUGMENTATION),
        )

    def still_model(self, arm: str, seed: int, rate: float, label: float, steps: int) -> Path:
        path, folder = self.data.stills("labelled")
        config = TrainConfig(
            str(path),
            images=folder,
            method="conv" if arm == "conv" else "sdpose",
            input_size=CROP,
            sigma=SIGMA,
            hole=HOLE,
            loop=LoopConfig(
                steps=steps, batch_size=self.plan.batch, lr=rate, log_every=50, checkpoint_every=100, seed=seed
            ),
        )
        if arm != "conv":
            config = replace(config, reconstruction=0.0)
        if arm == "prior":
            config = replace(config, start=str(self.prior()), label=label)
        return self.trained(f"{arm}-{seed}-{rate:g}-{label:g}-{steps}", config)

    def figures(self, model: Path, annotations: Annotations, metric: str, **settings: Any) -> dict[str, float]:
        estimator = load_estimator(ModelConfig(model=str(model), device="cpu", batch_size=16, **settings))
        result = predict_all(estimator, annotations, annotated_boxes(annotations), batch_size=16)
        assert not result.failures, result.failures[:3]
        config = EvaluateConfig("", metric=metric)  # type: ignore[arg-type]
        return figures_of(annotations, predictions_of(result.rows, annotations.skeleton), config)[0]

    def chosen(self, arm: str) -> tuple[float, float]:
        """Learning rate and label that are best on validation people."""
        path, folder = self.data.stills("validation")
        annotations = read_coco(path, folder)
        scores: dict[tuple[float, float], float] = {}
        for label in LABELS if arm == "prior" else LABELS[:1]:
            for rate in RATES:
                key = {"kind": "tuning", "arm": arm, "rate": rate, "label": label}
                if self.lacks(**key):
                    model = self.still_model(arm, TUNING_SEED, rate, label, max(self.plan.steps // 2, 2))
                    self.write(key | {"AP": round(self.figures(model, annotations, "coco")["AP"], 4)})
                scores[rate, label] = self.row(**key)["AP"]
        return max(scores, key=lambda setting: scores[setting])

    def stills(self) -> None:
        self.check_plan("still")
        for arm in self.arms:
            for seed in self.plan.seeds:
                if self._lacks_sets(arm, seed):
                    rate, label = self.chosen(arm)
                    self._measure(arm, seed, self.still_model(arm, seed, rate, label, self.plan.steps))

    def _lacks_sets(self, arm: str, seed: int) -> bool:
        return any(self.lacks(kind="still", arm=arm, seed=seed, set=name) for name in ("drawn", *STYLES))

    def _measure(self, arm: str, seed: int, model: Path) -> None:
        for name, people in self.data.test_sets().items():
            if self.lacks(kind="still", arm=arm, seed=seed, set=name):
                self.seconds_left()
                self._write_set(arm, seed, name, self.figures(model, people, "coco"))

    def _write_set(self, arm: str, seed: int, name: str, found: dict[str, float]) -> None:
        figures = {key: round(found[key], 4) for key in ("AP", "AP .5", "AR")}
        self.write({"kind": "still", "arm": arm, "seed": seed, "set": name, **figures})

    def single(self) -> Path:
        """What the clip models begin with."""
        return self.clip_training("clips-start", self.plan.single_steps, TUNING_SEED)

    def clip_model(self, arm: str, seed: int) -> Path:
        distance = 2 if arm == "video" else 0
        return self.clip_training(f"{arm}-{seed}", self.plan.clip_steps, seed, str(self.single()), distance)

    def clip_training(self, name: str, steps: int, seed: int, start: str = "new", distance: int = 0) -> Path:
        path, _ = self.data.clips("train")
        return self.trained(
            name,
            TrainConfig(
                str(path),
                method="diffpose",
                distance=distance,
                start=start,
                input_size=CROP,
                rotation=15.0,
                scale=0.25,
                loop=LoopConfig(
                    steps=steps,
                    batch_size=self.plan.clip_batch,
                    lr=1e-3,
                    log_every=50,
                    checkpoint_every=100,
                    seed=seed,
                ),
            ),
        )

    def clips(self) -> None:
        self.check_plan("clip")
        for seed in self.plan.seeds:
            for arm in CLIP_ARMS:
                for steps in SOLVER_STEPS:
                    for ensemble in ENSEMBLES:
                        key = {"kind": "clip", "arm": arm, "seed": seed, "steps": steps, "ensemble": ensemble}
                        if not self.lacks(**key):
                            continue
                        model = self.clip_model(arm, seed)
                        _, annotations = self.data.clips("test")
                        self.seconds_left()
                        found = self.figures(model, annotations, "posetrack", steps=steps, ensemble=ensemble)
                        self.write(key | {"mAP": round(found["Total"], 4)})


def main() -> None:
    parser = evidence_parser(__doc__, "evidence_pose", ("stills", "clips"))
    parser.add_argument("--arm", choices=ARMS, help="of the stills, that no other call is at")
    torch.set_num_threads(1)
    run_evidence(parser.parse_args(), Evidence, print_tables, draw)


if __name__ == "__main__":
    main()

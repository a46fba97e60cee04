"""Warm-started policies against full ones, on tasks that were learnt here.

    OMP_NUM_THREADS=1 python benchmarks/policies.py [--only collect|train|evaluate|adroit] [--name NAME]
    python benchmarks/policies.py --table                     # the rows as markdown

collect: demonstrations: 500 of Push-T by the planner; 200 of Meta-World's pick-place (with a gripper that opens and
shuts) and of door-open (without) by their scripted experts. What experts do is disturbed by noise, while their own
actions are recorded. Only successes are kept.

train: from states, a U-Net of 4.2 million weights for each Meta-World task, of 1.0 million for Push-T (the app bundles
it); pick-place's with the gripper divided by 10, as published for RTI, and once more with it as it is, both also for a
quarter of the steps, where success is not sure (-short). For Push-T a streaming policy and a one-step student too.

evaluate: `priorscope robotics evaluate --compare` on the same 200 episodes for every policy, with the 8 actions of a
plan that the networks were trained for; on Push-T and pick-place some also with a new plan at every step (do=1), as
RTI's publication does; -each-step has all of them so, DDPM too. The comparison counts where DDPM with 100 steps reaches
a score of 0.7 (Push-T) or 80 % success. Judged are rti:2,1,0, Push-T's published levels, and rti:auto, which tries the
model in four other episodes. What was chosen here (do=1 on Push-T, rti:20,10,0, the rule of rti:auto) was chosen on 40
episodes with other seeds.

adroit: a policy of the 25 human demonstrations of Adroit's door in ../shared/data; its error on five of them that it
did not see, beside plain guesses, and whether the normaliser's range holds them.

Every result is a row of policies.jsonl; the same command goes on with what is missing, from what lies in --out. --small
tries all of it in a minute or two of one core and leaves its rows in --out.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from evidence_rows import EvidenceRows
from policies_adroit import DATA, held_out_errors

from priorscope.evaluation.run_folder import read_jsonl
from priorscope.training.settings import LoopConfig
from priorscope_robotics.collect import collect
from priorscope_robotics.configs import CollectConfig, EvaluateConfig, TrainConfig
from priorscope_robotics.data.open import open_episodes
from priorscope_robotics.data.pusht_zarr import PushTRecorder
from priorscope_robotics.evaluate import evaluate
from priorscope_robotics.train import train

ROWS = Path(__file__).with_suffix(".jsonl")
PARTS = ("collect", "train", "evaluate", "adroit")
#: Of the first demonstration; evaluations begin at 100000.
FIRST_SEED = 0
DEMONSTRATIONS, EVALUATED = {"pusht": 500, "pick-place": 200, "door-open": 200}, 200
#: What disturbs the experts: pixels of 512, and Meta-World's own unit.
EXPERT_NOISE = {"pusht": 8.0, "pick-place": 0.1, "door-open": 0.1}
ENVIRONMENTS = {"pusht": "pusht", "pick-place": "metaworld:pick-place", "door-open": "metaworld:door-open"}
GRIPPER = ("-1:0,1",)
LOOP: dict[str, Any] = {
    "batch_size": 256,
    "lr": 1e-3,
    "warmup": 200,
    "weight_decay": 1e-6,
    "ema": 0.999,
    "validate_every": 1000,
    "checkpoint_every": 100,
    "precision": "bfloat16",
    "device": "cpu",
    "resume": True,
}


@dataclass(frozen=True)
class Training:
    """What is learnt, for how long, and what differs from `train`'s defaults."""

    task: str
    steps: int
    options: dict[str, Any] = field(default_factory=dict)
    loop: dict[str, Any] = field(default_factory=dict)
    teacher: str = ""


TRAININGS = {
    "pusht": Training("pusht", 6000, {"size": "tiny"}),
    "pick-place": Training("pick-place", 4000, {"discrete": GRIPPER, "discrete_scale": 10.0}),
    "pick-place-unscaled": Training("pick-place", 4000, {"discrete": GRIPPER}),
    # where success is not yet 1, so that the gripper's scale can show
    "pick-place-short": Training("pick-place", 1000, {"discrete": GRIPPER, "discrete_scale": 10.0}),
    "pick-place-unscaled-short": Training("pick-place", 1000, {"discrete": GRIPPER}),
    "door-open": Training("door-open", 4000),
    # chunks of three actions: five in a plan, of 20 levels each
    "pusht-streaming": Training("pusht", 6000, {"size": "tiny", "objective": "streaming", "n_action_steps": 3}),
    "pusht-student": Training("pusht", 2000, {"objective": "consistency"}, {"lr": 3e-4}, teacher="pusht"),
    "adroit": Training("adroit", 3000, {"held_out": 0.2}),
}
#: Adroit's has a part of its own.
LEARNT = tuple(name for name in TRAININGS if name != "adroit")
#: A new plan at every step for those that can afford it, as RTI's publication does.
EACH_STEP = ("ddim:3:do=1", "ddim:3:trailing:do=1", "rti:2,1,0:do=1", "rti:auto:do=1", "rti:20,10,0:do=1")
FULL = ("ddpm", "ddim:3", "ddim:3:trailing", "rti:2,1,0", "rti:auto")
SHORT = ("ddpm", "ddim:3", "rti:2,1,0", "rti:2,1,0:do=1")


@dataclass(frozen=True)
class Comparison:
    """Policies on the same episodes; the first is what the others are compared with."""

    model: str
    policies: tuple[str, ...] = FULL
    n_action_steps: int = 0


COMPARISONS = {
    "pusht": Comparison("pusht", (*FULL, *EACH_STEP)),
    "pusht-others": Comparison(
        "pusht", ("ddpm", "streaming@pusht-streaming", "streaming:7@pusht-streaming", "consistency@pusht-student")
    ),
    "pick-place": Comparison("pick-place", (*FULL, "rti:2,1,0:do=1", "rti:auto:do=1")),
    "pick-place-unscaled": Comparison("pick-place-unscaled", (*FULL, "rti:2,1,0:do=1", "rti:auto:do=1")),
    "pick-place-short": Comparison("pick-place-short", SHORT),
    "pick-place-unscaled-short": Comparison("pick-place-unscaled-short", SHORT),
    "door-open": Comparison("door-open"),
    "pick-place-each-step": Comparison("pick-place", n_action_steps=1),
    "pick-place-unscaled-each-step": Comparison("pick-place-unscaled", n_action_steps=1),
    "door-open-each-step": Comparison("door-open", n_action_steps=1),
    "pusht-each-step": Comparison("pusht", (*FULL, "consistency@pusht-student"), n_action_steps=1),
}
#: Of an evaluation's table, what a row keeps.
KEPT = (
    *("episodes", "levels", "calls", "success", "score", "failed", "max_coverage", "mean_coverage", "contraction"),
    *("p50_ms_1", "p95_ms_1", "p50_ms_20", "speedup_1", "difference", "lower_95", "upper_95"),
    *("success_difference", "success_lower_95"),
)


class Evidence(EvidenceRows):
    """All results, in order, until the time is used up."""

    def __init__(self, options: argparse.Namespace) -> None:
        rows_at = options.out / "rows.jsonl" if options.small else ROWS
        super().__init__(rows_at, options.max_seconds, not_printed=("scores", "successes"))
        self.out: Path = options.out
        self.small: bool = options.small
        self.name: str = options.name
        self.out.mkdir(parents=True, exist_ok=True)

    def asked(self, names: Any) -> list[str]:
        return [name for name in names if self.name in ("", name)]

    def data(self, task: str) -> Path:
        return DATA if task == "adroit" else self.out / f"{task}.{'zarr' if task == 'pusht' else 'npz'}"

    def collect(self) -> None:
        for task in self.asked(ENVIRONMENTS):
            path, wanted = self.data(task), 2 if self.small else DEMONSTRATIONS[task]
            told = not self.lacks(kind="demonstrations", task=task)
            if told and path.exists() and task != "pusht":  # Push-T's may be half done
                continue
            noise = EXPERT_NOISE[task]
            config = CollectConfig(ENVIRONMENTS[task], path, episodes=wanted, seed=FIRST_SEED, noise=noise)
            if task == "pusht":
                tries = self._by_planner(config)
            else:
                self.seconds_left()
                if not path.exists():  # 200 take two minutes
                    collect(config)
                with np.load(path) as file:
                    tries = int(file["tries"])
            if told:  # on another machine
                continue
            found = open_episodes(path)
            row = {"kind": "demonstrations", "task": task, "episodes": len(found), "steps": len(found.actions)}
            self.write(row | {"tries": tries})

    def _by_planner(self, config: CollectConfig) -> int:
        """Collect one episode after the other; the number of tries."""
        while True:
            recorder = PushTRecorder(config.out, resume=True)
            if recorder.episodes >= config.episodes:
                return recorder.next_seed - FIRST_SEED
            self.seconds_left()
            collect(replace(config, episodes=recorder.episodes + 1, attempts=40, resume=True))

    def train(self) -> None:
        for name in self.asked(LEARNT):
            self._train(name)

    def _train(self, name: str) -> None:
        if not self.lacks(kind="training", name=name):
            return
        given = TRAININGS[name]
        if not self.data(given.task).exists():
            raise SystemExit(f"{name} needs the demonstrations of --only collect")
        steps = 4 if self.small else given.steps
        settings = LOOP | given.loop | {"steps": steps, "max_seconds": self.seconds_left()}
        options: dict[str, Any] = {"size": "tiny" if self.small else "small", **given.options}
        if given.teacher:
            options["teacher"] = str(self.out / given.teacher)
        if self.small:
            options |= {} if given.teacher else {"noise_steps": 20}
            settings |= {"batch_size": 16, "warmup": 1, "validate_every": 4, "log_every": 2}
        result = train(TrainConfig(str(self.data(given.task)), self.out / name, loop=LoopConfig(**settings), **options))
        if not result.finished:
            raise SystemExit("the same command goes on")
        history = read_jsonl(self.out / name / "metrics.jsonl")
        rates = [row["examples_per_second"] for row in history if "examples_per_second" in row]
        told = {key: value for row in history for key, value in row.items()}  # the last of each
        losses = {key: told[key] for key in ("loss", "held_out_loss", "held_out_action_error") if key in told}
        row = {"kind": "training", "name": name, "steps": steps, "batch_size": settings["batch_size"]}
        self.write(row | losses | {"examples_per_second": float(np.median(rates))})

    def evaluate(self) -> None:
        for name in self.asked(COMPARISONS):
            given = COMPARISONS[name]
            if not any(self.lacks(kind="policy", comparison=name, policy=text) for text in given.policies):
                continue
            self._compare(name, given)
            run = self.out / f"evaluate-{name}"
            episodes = read_jsonl(run / "metrics.jsonl")
            table = json.loads((run / "metrics.json").read_text())["rows"]
            for text, found in zip(given.policies, table, strict=True):
                key = {"kind": "policy", "comparison": name, "policy": text}
                if self.lacks(**key):
                    own = sorted(
                        (one for one in episodes if one["policy"] == found["policy"]), key=lambda one: one["seed"]
                    )
                    kept = {column: found[column] for column in KEPT if column in found}
                    scores = {"scores": [round(one["score"], 4) for one in own]}
                    self.write(key | kept | scores | {"successes": [int(one["success"]) for one in own]})

    def _compare(self, name: str, given: Comparison) -> None:
        """`evaluate --compare`, as far as the time goes."""
        run = self.out / f"evaluate-{name}"
        policies = [self._told(text) for text in given.policies]
        needed = {given.model, *(text.partition("@")[2] or given.model for text in given.policies)}
        if missing := [one for one in sorted(needed) if not (self.out / one / "model/config.json").exists()]:
            raise SystemExit(f"{name} needs {', '.join(missing)} of --only train")
        config = EvaluateConfig(
            str(self.out / given.model),
            ENVIRONMENTS[TRAININGS[given.model].task],
            run,
            compare=tuple(policies),
            episodes=2 if self.small else EVALUATED,
            batch_size=2 if self.small else 20,
            n_action_steps=given.n_action_steps,
            max_steps=9 if self.small else 0,
            latency_calls=1 if self.small else 10,
            films=0 if self.small or given.n_action_steps else 2,
            device="cpu",
            max_seconds=self.seconds_left(),
            resume=True,
        )
        (run / "metrics.json").unlink(missing_ok=True)  # of fewer policies
        evaluate(config)
        if not (run / "metrics.json").exists():
            raise SystemExit("the same command goes on")

    def _told(self, text: str) -> str:
        policy, _, model = text.partition("@")
        return f"{policy}@{self.out / model}" if model else policy

    def adroit(self) -> None:
        if not DATA.exists():
            raise SystemExit(f"no such file: {DATA}")
        self._train("adroit")
        if self.lacks(kind="adroit"):
            self.seconds_left()
            steps = 3 if self.small else 0
            for row in held_out_errors(self.out / "adroit", TRAININGS["adroit"].options["held_out"], steps):
                self.write({"kind": "adroit"} | row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--name", default="", help="one task, training or comparison of that part")
    parser.add_argument("--out", type=Path, default=Path("runs/policies"), help="demonstrations, models, episodes")
    parser.add_argument("--max-seconds", type=float, default=1080, help="no new piece of work begins after")
    parser.add_argument("--small", action="store_true", help="try the script; rows go to --out")
    parser.add_argument("--table", action="store_true", help="print the rows as markdown")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.table:
        from policies_table import show

        show(read_jsonl(options.out / "rows.jsonl" if options.small else ROWS))
        return
    evidence = Evidence(options)
    names: dict[str, Any] = {"collect": ENVIRONMENTS, "train": LEARNT, "evaluate": COMPARISONS}
    if options.name and options.name not in names.get(options.only, {}):
        parser.error(f"--name {options.name}: with --only, one of {', '.join(names.get(options.only, ())) or 'none'}")
    for part in PARTS:
        if options.only in (None, part):
            getattr(evidence, part)()


if __name__ == "__main__":
    main()

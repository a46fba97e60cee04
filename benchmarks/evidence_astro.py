"""Do generated galaxies help to find a rare class? Are conditions obeyed, and are shapes distributed as they should be?

    OMP_NUM_THREADS=1 python benchmarks/evidence_astro.py [--max-seconds 1200] [--only PART] [--arm ARM] [--table]
        [--scarce] [--small]

Simulated galaxies of 48 pixels in g, r, i, nine classes, in the field of the simulator's usual 64 pixels; of the 12 000
that train 0.5 % have a dust lane. Validation and test hold 30 000 others, and 400 of that class, each; weights restore
0.5 %.

baselines: the app's classifier of nine classes learns from the training galaxies as they are (``plain``), with
``geometric`` augmentation (turns, mirroring, shifts of up to 2 pixels), with ``balanced`` classes, with a ``focal``
loss, and with the first two of these.

generator: a conditional diffusion model learns the same galaxies, without any other; half of what it sees is drawn from
classes equally often; and then learns as long again at half the rate. guidance: how strongly conditions are told is
chosen by what the last of these baselines takes 80 galaxies of each main class (5 % of nature and more) for, drawn for
conditions of validation galaxies: the least of which nine of ten are what was asked. generate: the generator draws 6000
galaxies, a third of them with dust lanes, for conditions of training galaxies. generated: the best baseline (mean
completeness on validation) learns from these as well (``+generated``), and, to know what could be had, from as many
freshly simulated ones instead (``+simulated``), and, to know what mere numbers do, from as many pictures of the sky's
noise with the same labels (``+noise``). Where classes are balanced, half of a class's turns are the added galaxies';
otherwise they are mixed in.

Every arm has the same network, batch and steps, and the same grid of learning rates, from which a training of half the
steps with a seed of its own chooses, on validation. Measured is the completeness of dust lanes at a purity of 90 %, of
the log odds of the class; the threshold is set on validation. There are three seeds of the classifier, one training
set, one generator: intervals say nothing of other training sets. ``random`` scores and the share of the class
(``trivial``) say what nothing learnt gives.

judge: a classifier that has learnt 18 000 other simulated galaxies, equally many a class, and none that was generated,
says how often generated galaxies are what was asked, and how often simulated ones are. morphology: Wasserstein
distances of concentration, asymmetry, smoothness, Gini, M20 (r band) between generated and simulated galaxies of a
class, 500 each, beside those between simulated galaxies of the class, and between simulated ones with shuffled labels
and those of the class. memory: how near generated dust lanes come to those of the training set.

--scarce is a survey of its own, in files of its own: of the training galaxies only the first 3000, 13 of them with a
dust lane, for the baselines and for its generator alike. (In the larger one balance and turns find every dust lane, so
that there is nothing left to gain.) There 3000 galaxies are generated, and also added to ``plain``; trainings are of
half the steps, the generator's of two thirds. (Its least learning rate, 3e-4, was added to every arm's grid after the
first figures, since most had chosen the least of the two others.)

Sizes, seeds and settings were fixed before any of this was run; only ``guidance`` came after the first figures of the
large survey, which were of 1.5 and too often not what was asked, and the generator's second training after it; then,
with the guidance of most right answers (2.5), 94 % of galaxies were as asked and shapes less like the simulated ones',
so that the least is taken that is enough. Every result is a row of evidence_astro.jsonl; the same command goes on with
what is missing. Calls with other --only or --arm may run side by side once ``data`` is done: ``guidance`` needs the
generator and the baselines, and what follows only what was generated. --table prints the rows and draws
figures/evidence_astro.png; --small is a rehearsal of everything in half a minute of one core, in files of its own: its
figures say nothing.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from evidence_astro_data import RARE, SEEDS, SIDE, Data, Galaxies, GroupFeed, Repeated, Sizes, stretched
from evidence_astro_table import MAIN, SHAPES, draw, gallery, print_tables
from evidence_rows import HERE, EvidenceRows, evidence_parser, run_evidence

from priorscope.data.files import atomic_path
from priorscope.evaluation.distributions import kid, wasserstein
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.checkpoint import checkpoint_step
from priorscope.training.loop import FitResult, fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER, LoopConfig
from priorscope_astro.classifier.config import ClassifierConfig
from priorscope_astro.classifier.network import GalaxyClassifier
from priorscope_astro.classifier.predict import features, predict
from priorscope_astro.classifier.train import ClassifierTask, new_classifier
from priorscope_astro.configs import TrainConfig
from priorscope_astro.data.galaxies import GalaxySet
from priorscope_astro.data.stamps import read_stamps
from priorscope_astro.diffusion.feed import GalaxyFeed, TrainingImages
from priorscope_astro.diffusion.model import GalaxyModel, load_galaxy_model, new_model
from priorscope_astro.diffusion.task import GalaxyTask
from priorscope_astro.memorisation import memorisation
from priorscope_astro.metrics import (
    completeness_at_purity,
    prevalence_weights,
    purity_at,
    purity_curve,
    share_interval,
)
from priorscope_astro.morphology import measure
from priorscope_astro.simulator.config import CLASSES, shares_of
from priorscope_astro.simulator.observation import SKY_SIGMA
from priorscope_astro.train import mean_psf, measured_spec

PARTS = ("data", "baselines", "generator", "guidance", "generate", "generated", "judge", "morphology", "memory")
TECHNIQUES: dict[str, dict[str, Any]] = {
    "geometric": {"turns": True, "shift": 2},
    "balanced": {"sampling": "balanced"},
    "focal": {"loss": "focal", "gamma": 2.0},
}
BASELINES = ("plain", *TECHNIQUES, "geometric+balanced")
ADDED = ("generated", "simulated", "noise")
SEEDS_OF_ARMS = (0, 1, 2)
TUNING_SEED = 77
RATES = (1e-3, 3e-3)
PURITY = 0.9
RARE_LABEL = CLASSES.index(RARE)
#: Random halves and shuffles that distances of simulated galaxies are averaged over.
SHUFFLES = 20
GENERATE: dict[str, Any] = {"steps": 20, "solver": "dpmpp-2m"}
GUIDANCE = (1.0, 1.5, 2.5, 4.0, 6.0)
#: Of the main classes' validation galaxies that are wanted as they were asked for.
OBEYED = 0.9
#: The trainings of the generator, each on from the one before, and their learning rates.
ROUNDS = {"generator": 1e-3, "generator-longer": 5e-4}


@dataclass(frozen=True)
class Plan:
    """How long everything is trained; a round of the generator's for 28 minutes of one core, an arm and seed for 2."""

    sizes: Sizes = field(default_factory=Sizes)
    steps: int = 2000
    batch: int = 64
    judge_steps: int = 2500
    size: str = "mini"
    generator_steps: int = 6000
    generator_batch: int = 32
    drawn_at_once: int = 40
    tried: int = 80
    """Galaxies of a main class that guidance is chosen with."""
    rates: tuple[float, ...] = RATES
    seeds: tuple[int, ...] = SEEDS_OF_ARMS


#: Dust lanes are frequent here, or there would be none to learn.
SMALL = Plan(
    Sizes(300, 300, 60, 200, 540, 240, 20, (f"{RARE}=0.1",)),
    steps=6,
    batch=16,
    judge_steps=6,
    size="tiny",
    generator_steps=4,
    generator_batch=4,
    drawn_at_once=30,
    tried=2,
    seeds=(0, 1),
)
#: A quarter of the galaxies, and about half of the work.
SCARCE = Plan(Sizes(train=3000, added=3000, compared=250), steps=1000, generator_steps=4000, rates=(3e-4, *RATES))


class Evidence(EvidenceRows):
    """All results, in order, until the time is used up."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options.rows, options.max_seconds)
        self.scarce: bool = options.scarce
        self.small: bool = options.small
        self.out: Path = options.out
        self.arm: str = options.arm
        self.plan: Plan = SMALL if options.small else SCARCE if self.scarce else Plan()
        self.data_ = Data(self.out, self.plan.sizes, self.seconds_left)

    def data(self) -> None:
        for name in SEEDS:
            if self.lacks(kind="data", set=name):
                begin = time.process_time()
                galaxies = self.data_.simulated(name)
                drawn = {one: int((galaxies.labels == label).sum()) for label, one in enumerate(CLASSES)}
                seconds = round(time.process_time() - begin)
                key = {"kind": "data", "set": name, "side": SIDE, "galaxies": len(galaxies), "cpu_seconds": seconds}
                self.write(key | drawn)

    # Classifiers

    def settings(self, arm: str) -> dict[str, Any]:
        found: dict[str, Any] = {"turns": False, "shift": 0, "sampling": "natural", "loss": "cross-entropy"}
        for name in arm.split("+"):
            found |= TECHNIQUES.get(name, {})
        return found

    def classifier(self, name: str, arm: str, config: ClassifierConfig, galaxies: tuple[Galaxies, ...]) -> Path:
        """The classifier of a run that is finished; trains, or goes on training, within the time."""
        run_at = self.out / "classifiers" / name
        if (run_at / "finished").exists():
            return run_at / "model"
        examples = galaxies[0].examples
        network = new_classifier(examples, config)
        origins = np.repeat(np.arange(len(galaxies)), [len(one) for one in galaxies])
        for more in galaxies[1:]:
            examples = examples.joined(more.examples)
        assert examples.labels is not None
        groups = origins * len(CLASSES) + examples.labels
        loop = config.loop
        balanced = config.sampling == "balanced"
        feed = GroupFeed(examples, loop.batch_size, loop.seed, balanced, config.turns, config.shift, groups)
        result = self._fit(run_at, config, ClassifierTask(network, config), feed, loop, {"arm": arm, "name": name})
        return result.model

    def _fit(self, run_at: Path, config: Any, task: Any, feed: Any, loop: LoopConfig, key: dict[str, Any]) -> FitResult:
        loop = replace(loop, max_seconds=self.seconds_left(), resume=True, device="cpu")
        may_differ = ("out", *(f"loop.{name}" for name in MAY_DIFFER))
        accelerator = make_accelerator(loop)
        folder = RunFolder.create(run_at, replace(config, loop=loop), resume=True, may_differ=may_differ)
        begin, before = time.process_time(), checkpoint_step(run_at / "checkpoints/last.pt")
        result = fit(task, feed, loop, folder, accelerator)
        seconds = time.process_time() - begin
        a_step = round(seconds / max(result.step - before, 1), 4)
        row = {"kind": "training", **key, "step": result.step, "cpu_seconds": round(seconds), "seconds_a_step": a_step}
        self.write(row)
        if not result.finished:
            raise SystemExit("the time is used up; the same command goes on")
        (run_at / "finished").touch()
        return result

    def config(self, arm: str, seed: int, rate: float, steps: int) -> ClassifierConfig:
        loop = LoopConfig(
            precision="bfloat16",
            steps=steps,
            batch_size=self.plan.batch,
            lr=rate,
            warmup=min(50, steps // 2),
            ema=0.99,
            weight_decay=0.05,
            log_every=100,
            validate_every=steps,
            checkpoint_every=500,
            seed=seed,
        )
        return ClassifierConfig(**self.settings(arm), loop=loop)

    def galaxies(self, arm: str) -> tuple[Galaxies, ...]:
        """What an arm learns from: the training galaxies first."""
        added = arm.split("+")[-1]
        if added == "generated":
            return self.data_.train, self.drawn
        if added == "simulated":
            return self.data_.train, self.data_.more
        if added == "noise":
            return self.data_.train, self.data_.noise
        return (self.data_.train,)

    def scores(self, model: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log odds of the rare class, whether it is that class, and weights, of a held-out set."""
        return log_odds(GalaxyClassifier.load(model), self.data_.held_out[name][0]), *self.truth(name)

    def truth(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Whether each galaxy of a held-out set is of the rare class, and its weight."""
        labels = self.data_.held_out[name][1]
        return labels == RARE_LABEL, prevalence_weights(labels, dict(enumerate(shares_of(()).values())))

    def chosen(self, arm: str) -> float:
        """Learning rate that is best on validation."""
        found: dict[float, tuple[float, float]] = {}
        for rate in self.plan.rates:
            key = {"kind": "tuning", "arm": arm, "rate": rate}
            if self.lacks(**key):
                steps = max(self.plan.steps // 2, 2)
                config = self.config(arm, TUNING_SEED, rate, steps)
                model = self.classifier(f"{arm}-tuning-{rate:g}", arm, config, self.galaxies(arm))
                self.seconds_left()
                one = self.scores(model, "validation")
                found_ = completeness_at_purity(one, one, PURITY)
                row = {"completeness": round(found_.completeness, 4), "precision": round(average_precision(*one), 4)}
                self.write(key | {"steps": steps} | row)
            row = self.row(**key)
            found[rate] = row["completeness"], row["precision"]
        return max(found, key=lambda rate: found[rate])

    def measured(self, arm: str, seed: int) -> None:
        """Train an arm and write its row."""
        key = {"kind": "arm", "arm": arm, "seed": seed}
        if not self.lacks(**key):
            return
        rate = self.chosen(arm)
        config = self.config(arm, seed, rate, self.plan.steps)
        model = self.classifier(f"{arm}-{seed}", arm, config, self.galaxies(arm))
        self.seconds_left()
        validation, test = self.scores(model, "validation"), self.scores(model, "test")
        self.write(key | {"rate": rate, "steps": self.plan.steps} | figures_of(validation, test))

    def baselines(self) -> None:
        for arm in BASELINES:
            if self.arm in ("", arm):
                for seed in self.plan.seeds:
                    self.measured(arm, seed)
        if self.arm in ("", "plain") and self.lacks(kind="arm", arm="random", seed=self.plan.seeds[-1]):
            self.trivial()

    def trivial(self) -> None:
        """Random scores: purity is the share of the class whatever is selected."""
        for seed in self.plan.seeds:
            if not self.lacks(kind="arm", arm="random", seed=seed):
                continue
            random = np.random.default_rng(seed)
            sets = []
            for name in ("validation", "test"):
                truth, weights = self.truth(name)
                sets.append((random.random(len(truth)), truth, weights))
            self.write({"kind": "arm", "arm": "random", "seed": seed} | figures_of(*sets))

    def best(self) -> str:
        """The baseline whose mean completeness on validation is greatest."""
        found = {}
        for arm in BASELINES:
            rows = [self.row(kind="arm", arm=arm, seed=seed) for seed in self.plan.seeds]
            found[arm] = tuple(float(np.mean([row[key] for row in rows])) for key in ("validation", "validation_ap"))
        return max(found, key=lambda arm: found[arm])

    def generated(self) -> None:
        for added in [one for one in ADDED if self.arm in ("", one)]:
            bases = (self.best(), "plain") if self.scarce and added != "noise" else (self.best(),)
            for base in dict.fromkeys(bases):
                for seed in self.plan.seeds:
                    self.measured(f"{base}+{added}", seed)

    # The generator

    def generator(self) -> None:
        before = ""
        for number, name in enumerate(ROUNDS):
            if not (self.out / name / "finished").exists():
                self.round(name, number, before)
            before = name

    def round(self, name: str, seed: int, before: str) -> None:
        """One training of the generator, on from that of another name."""
        run_at = self.out / name
        plan, train = self.plan, self.data_.train
        loop = LoopConfig(
            precision="bfloat16",
            steps=plan.generator_steps,
            batch_size=plan.generator_batch,
            lr=ROUNDS[name],
            warmup=min(200, plan.generator_steps // 2),
            log_every=100,
            validate_every=1000,
            checkpoint_every=200,
            seed=seed,
        )
        words = f"{len(train)} simulated galaxies of {SIDE} pixels, benchmarks/evidence_astro.py"
        config = TrainConfig(
            self.data_.pieces("train")[0], out=run_at, side=SIDE, size=plan.size, trained_on=words, loop=loop
        )
        stamps = read_stamps(self.data_.pieces("train")[0] / "stamps.npz")
        galaxies = GalaxySet(train.ids, train.flux, "flux")
        if before:
            model = load_galaxy_model(self.out / before / "model", device="cpu", precision="float32")
        else:
            spec = measured_spec(config, galaxies, stamps)
            model = new_model(spec, plan.size, psf=mean_psf(stamps), seed=loop.seed)
        images = Repeated(TrainingImages(galaxies, model.spec, train.conditions), train.labels)
        feed = GalaxyFeed(images, loop.batch_size, loop.seed)  # type: ignore[arg-type]
        held = self.data_.simulated("reference")
        some = GalaxySet(held.ids, held.flux, "flux").select(range(64))
        look_at = TrainingImages(some, model.spec, held.conditions[:64])
        look = GalaxyFeed(look_at, 64, 0, question=0.0, everything=0.0, turn=False).batch(0, range(64))
        self._fit(run_at, config, GalaxyTask(model, look), feed, loop, {"name": name})

    @cached_property
    def model(self) -> GalaxyModel:
        run_at = self.out / list(ROUNDS)[-1]
        if not (run_at / "finished").exists():
            raise SystemExit("the generator has to be trained first")
        return load_galaxy_model(run_at / "model", device="cpu", precision="float32")

    def guidance(self) -> None:
        self.chosen_guidance()

    def chosen_guidance(self) -> float:
        """The least guidance with which galaxies are what was asked, to the last baseline's first classifier.

        The more guidance, the less alike are their distributions. Where none has ``OBEYED``, the one with most.
        """
        found = {}
        for guidance in GUIDANCE:
            key = {"kind": "guidance", "generator": list(ROUNDS)[-1], "guidance": guidance}
            if self.lacks(**key):
                self.seconds_left()
                self.write(key | self.obeyed(guidance))
            found[guidance] = self.row(**key)["mean"]
            if found[guidance] >= OBEYED:
                return guidance
        return max(found, key=lambda guidance: found[guidance])

    @cached_property
    def drawn(self) -> Galaxies:
        """What was generated with the chosen guidance."""
        return self.data_.generated(self.chosen_guidance())

    @cached_property
    def _trial(self) -> tuple[GalaxyClassifier, dict[int, np.ndarray]]:
        """Who says whether conditions are obeyed, and conditions of validation galaxies by main class."""
        arm, seed = BASELINES[-1], self.plan.seeds[0]
        config = self.config(arm, seed, self.row(kind="arm", arm=arm, seed=seed)["rate"], self.plan.steps)
        judge = GalaxyClassifier.load(self.classifier(f"{arm}-{seed}", arm, config, self.galaxies(arm)))
        held = self.data_.simulated("validation")
        main = [label for label, name in enumerate(CLASSES) if shares_of(())[name] >= MAIN]
        return judge, {label: held.conditions[held.of_class(label)[: self.plan.tried]] for label in main}

    def obeyed(self, guidance: float) -> dict[str, float]:
        """Share of galaxies that are taken for what was asked, by main class and in the mean."""
        judge, asked = self._trial
        shares: dict[str, float] = {}
        for label, conditions in asked.items():
            flux = []
            for first in range(0, len(conditions), self.plan.drawn_at_once):
                part = conditions[first : first + self.plan.drawn_at_once]
                seeds = 2_000_000 + 1000 * label + first + np.arange(len(part))
                flux.append(self.model.generate(part, seeds.tolist(), guidance=guidance, **GENERATE))
            answers = predict(judge, stretched(np.concatenate(flux))).argmax(1)
            shares[CLASSES[label]] = round(float((answers == label).mean()), 4)
        return shares | {"mean": round(float(np.mean(list(shares.values()))), 4)}

    def generate(self) -> None:
        settings = GENERATE | {"guidance": self.chosen_guidance()}
        if not self.lacks(kind="generated", guidance=settings["guidance"]):
            return
        begin, clock = time.process_time(), time.monotonic()
        for done in self.data_.draw(lambda: self.model, settings, self.plan.drawn_at_once):
            if time.monotonic() - clock > 30:
                clock = time.monotonic()
                print(f"{done} of {self.plan.sizes.added} galaxies", flush=True)
        seconds = time.process_time() - begin
        self.write({"kind": "generated", "galaxies": done, "cpu_seconds_of_this_call": round(seconds), **settings})

    # Judgement

    def judging(self) -> GalaxyClassifier:
        """A classifier that has seen no generated galaxy, and none of the others' galaxies."""
        rate, steps = 2e-3, self.plan.judge_steps
        config = self.config("geometric", 0, rate, steps)
        return GalaxyClassifier.load(self.classifier("judge", "judge", config, (self.data_.simulated("judge"),)))

    def judge(self) -> None:
        asked = {"kind": "agreement", "guidance": self.chosen_guidance()}
        if not any(self.lacks(**asked, **{"class": name}) for name in CLASSES):
            return
        judge = self.judging()
        drawn, real = self.drawn, self._reference
        for label, name in enumerate(CLASSES):
            if not self.lacks(**asked, **{"class": name}):
                continue
            shares: dict[str, Any] = {}
            for origin, galaxies in (("generated", drawn), ("simulated", real)):
                images = stretched(galaxies.flux[galaxies.of_class(label)[: self.plan.sizes.compared]])
                answers = predict(judge, images).argmax(1)
                shares[origin] = round(float((answers == label).mean()), 4)
                shares[f"{origin}_count"] = len(images)
                if origin == "generated":
                    seen = features(judge, images)
                    confused = np.bincount(answers, minlength=len(CLASSES))
            one, two = (features(judge, stretched(real.flux[part])) for part in self.real_halves(label, 0))
            kids = {"kid": kid(one, seen), "kid_simulated": kid(one, two)}
            row = asked | {"class": name, "share": shares_of(())[name]} | shares
            row |= {key: round(value, 5) for key, value in kids.items()}
            self.write(row | {"taken_for": dict(zip(CLASSES, confused.tolist(), strict=True))})
        own = self.small or self.scarce
        gallery(real, drawn, self.out / "gallery.png" if own else HERE.parent / "docs/astro_gallery.jpg")

    def real_halves(self, label: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Two disjoint random sets of simulated galaxies of a class."""
        members = np.random.default_rng([seed, label]).permutation(self._reference.of_class(label))
        count = min(self.plan.sizes.compared, len(members) // 2)
        return members[:count], members[count : 2 * count]

    @cached_property
    def _reference(self) -> Galaxies:
        return self.data_.simulated("reference")

    def morphology(self) -> None:
        asked = {"kind": "morphology", "guidance": self.chosen_guidance()}
        if not any(self.lacks(**asked, **{"class": name}) for name in CLASSES):
            return
        shapes = {
            "simulated": self.shapes("simulated", self._reference),
            "generated": self.shapes(f"generated-{asked['guidance']:g}", self.drawn),
        }
        drawn = self.drawn
        for label, name in enumerate(CLASSES):
            if not self.lacks(**asked, **{"class": name}):
                continue
            own = drawn.of_class(label)[: self.plan.sizes.compared]
            row: dict[str, Any] = asked | {"class": name, "count": len(own)}
            for place, shape in enumerate(SHAPES):
                real, other = shapes["simulated"][:, place], shapes["generated"][own, place]
                far: dict[str, list[float]] = {"generated": [], "simulated": [], "shuffled": []}
                for seed in range(SHUFFLES):
                    one, two = self.real_halves(label, seed)
                    anything = np.random.default_rng([seed, label, 1]).choice(len(real), len(one), replace=False)
                    far["generated"].append(distance(real[one], other))
                    far["simulated"].append(distance(real[one], real[two]))
                    far["shuffled"].append(distance(real[one], real[anything]))
                row[shape] = {key: round(float(np.mean(values)), 5) for key, values in far.items()}
                known = np.isfinite(real[self._reference.of_class(label)])
                row[shape]["measured"] = round(float(np.isfinite(other).mean()), 4)
                row[shape]["measured_simulated"] = round(float(known.mean()), 4)
            self.write(row)

    def shapes(self, name: str, galaxies: Galaxies) -> np.ndarray:
        """Shapes (N, 5) in the r band, NaN where they cannot be measured; kept in pieces."""
        folder = self.out / "shapes"
        folder.mkdir(exist_ok=True)
        parts = []
        for first in range(0, len(galaxies), 1000):
            path = folder / f"{name}-{first:06d}.npy"
            if not path.exists():
                self.seconds_left()
                found = measure(galaxies.flux[first : first + 1000, 1], sigma=SKY_SIGMA[1])
                with atomic_path(path) as temporary, open(temporary, "wb") as file:
                    np.save(file, np.stack([found[shape] for shape in SHAPES], 1))
            parts.append(np.load(path))
        return np.concatenate(parts)

    def memory(self) -> None:
        asked = {"kind": "memory", "guidance": self.chosen_guidance()}
        if not self.lacks(**asked):
            return
        drawn, real, train = self.drawn, self._reference, self.data_.train
        count = self.plan.sizes.compared
        sets = [one.flux[one.of_class(RARE_LABEL)] for one in (drawn, train, real)]
        found = memorisation(stretched(sets[0][:count]), stretched(sets[1]), stretched(sets[2][:count]))
        low, high = found.interval
        row = asked | {"class": RARE, "training": len(sets[1]), "copies": round(found.copies, 4)}
        row |= {"low": round(low, 4), "high": round(high, 4), "of_held_out": found.quantile}
        for name, nearest in (("generated", found.generated), ("held_out", found.held_out)):
            row[f"{name}_distance"] = round(float(np.median(nearest.distance)), 4)
        self.write(row)


def log_odds(model: GalaxyClassifier, images: np.ndarray) -> np.ndarray:
    """Of the rare class: probabilities near 1 would not be told apart."""
    found = []
    with torch.no_grad():
        for first in range(0, len(images), 256):
            logits = model(torch.from_numpy(images[first : first + 256])).double()
            others = torch.cat([logits[:, :RARE_LABEL], logits[:, RARE_LABEL + 1 :]], 1)
            found.append((logits[:, RARE_LABEL] - others.logsumexp(1)).numpy())
    return np.concatenate(found)


def average_precision(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> float:
    """Area below the purity-completeness curve, as steps."""
    curve = purity_curve(scores, truth, weights)
    return float((np.diff(curve.completeness, prepend=0.0) * curve.purity).sum())


def figures_of(validation: Any, test: Any) -> dict[str, Any]:
    """What a row says of a classifier, from scores, truth and weights."""
    found = completeness_at_purity(validation, test, PURITY)
    own = completeness_at_purity(test, test, PURITY)
    seen = completeness_at_purity(validation, validation, PURITY)
    # of this network on other dust lanes, its threshold kept
    interval = share_interval(int((test[0][test[1]] >= found.threshold).sum()), int(test[1].sum()))
    figures = {
        "completeness": found.completeness,
        "low": interval.low,
        "high": interval.high,
        "purity": found.purity,
        "f1": found.f1,
        "at_test_threshold": own.completeness,
        "ap": average_precision(*test),
        "purity_at_100": purity_at(test[0], test[1], 100, test[2]),
        "validation": seen.completeness,
        "validation_ap": average_precision(*validation),
    }
    rounded = {name: None if np.isnan(value) else round(float(value), 4) for name, value in figures.items()}
    return rounded | {"positives": int(test[1].sum()), "negatives": int((~test[1]).sum())}


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Wasserstein distance of what could be measured."""
    one, other = one[np.isfinite(one)], other[np.isfinite(other)]
    return float(wasserstein(one[:, None], other[:, None])[0]) if len(one) and len(other) else float("nan")


def main() -> None:
    parser = evidence_parser(__doc__, "evidence_astro", PARTS)
    parser.add_argument(
        "--arm",
        choices=(*BASELINES, *ADDED),
        default="",
        help="of baselines or of generated, that no other call is at",
    )
    parser.add_argument("--scarce", action="store_true", help="the survey of 3000 galaxies, in files of its own")
    torch.set_num_threads(1)
    options = parser.parse_args()
    if options.scarce:
        options.name += "_scarce"
    run_evidence(options, Evidence, print_tables, draw)


if __name__ == "__main__":
    main()

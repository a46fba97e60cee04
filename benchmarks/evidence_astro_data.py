"""The galaxies of evidence_astro.py: simulated sets, generated ones, and what each network sees of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from priorscope.data.files import atomic_path
from priorscope.training.order import Order
from priorscope_astro.classifier.examples import Examples
from priorscope_astro.classifier.feed import BalancedOrder, ExampleFeed
from priorscope_astro.diffusion.feed import TrainingImages
from priorscope_astro.diffusion.model import GalaxyModel
from priorscope_astro.imaging.stretch import AsinhStretch
from priorscope_astro.simulator.config import CLASSES, SimulateConfig
from priorscope_astro.simulator.observation import SKY_SIGMA
from priorscope_astro.simulator.survey import read_survey, run

RARE = "dust_lane"
SIDE = 48
#: Arcsec: the field of the simulator's usual 64 pixels of 0.396, so that seeing blurs the same part of a galaxy.
PIXEL_SCALE = 0.528
#: Galaxies of a piece: what a call that is cut off loses.
PIECE = 2000
#: Seed of the simulator for each set: no galaxy is in two of them.
SEEDS = {"train": 101, "validation": 102, "test": 103, "judge": 104, "reference": 105, "more": 106}
#: What the classifiers see: asinh of the flux in units of the sky's noise, 1 at a hundred times that.
STRETCH = AsinhStretch(SKY_SIGMA, tuple(100 * sigma for sigma in SKY_SIGMA))
EQUAL = tuple(f"{name}={1 / len(CLASSES):.6f}" for name in CLASSES[1:])
#: Of what is added to the training galaxies.
SHARE_OF_RARE = 1 / 3


@dataclass(frozen=True)
class Sizes:
    """How many galaxies, and of them how many of the rare class on average."""

    train: int = 12_000
    """At natural prevalence, 0.5 %."""
    held_out: int = 30_400
    """Of validation and of test, each; 400 of them of the rare class, the others as in nature."""
    rare_held_out: int = 400
    judge: int = 18_000
    """Equally many of each class, for the network that judges generated galaxies."""
    reference: int = 10_800
    """The same, to compare distributions with."""
    added: int = 6000
    """Generated galaxies, and the real ones that take their place for comparison; a third of the rare class."""
    compared: int = 500
    """Galaxies of each class whose morphology is compared."""
    train_prevalence: tuple[str, ...] = ()

    def drawn(self, name: str) -> tuple[int, tuple[str, ...]]:
        """How many galaxies of a set, and its prevalences."""
        rare = (f"{RARE}={self.rare_held_out / self.held_out:.6f}",)
        others = (1 - SHARE_OF_RARE) / (len(CLASSES) - 1)
        return {
            "train": (self.train, self.train_prevalence),
            "validation": (self.held_out, rare),
            "test": (self.held_out, rare),
            "judge": (self.judge, EQUAL),
            "reference": (self.reference, EQUAL),
            "more": (self.added, tuple(f"{name}={others:.6f}" for name in CLASSES[:-1])),
        }[name]


@dataclass(frozen=True)
class Galaxies:
    """Flux (N, 3, SIDE, SIDE) in g, r, i, nanomaggies; labels (N,); exact conditions (N, 74); ids."""

    flux: np.ndarray
    labels: np.ndarray
    conditions: np.ndarray
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def of_class(self, label: int) -> np.ndarray:
        return np.flatnonzero(self.labels == label)

    @cached_property
    def examples(self) -> Examples:
        """What a classifier learns from."""
        return Examples(stretched(self.flux), self.ids, self.labels, CLASSES)


def stretched(flux: np.ndarray) -> np.ndarray:
    """What classifiers see, float32; in parts, since the stretch computes in float64."""
    found = np.empty(flux.shape, np.float32)
    for first in range(0, len(flux), PIECE):
        found[first : first + PIECE] = STRETCH.apply(flux[first : first + PIECE])
    return found


def read_pieces(folders: Sequence[Path]) -> Galaxies:
    """Simulated surveys as one set."""
    surveys = [read_survey(folder) for folder in folders]
    return Galaxies(
        np.concatenate([one.flux for one in surveys]),
        np.concatenate([one.labels for one in surveys]),
        np.concatenate([one.conditions for one in surveys]),
        tuple(str(number) for one in surveys for number in one.ids),
    )


class Data:
    """Draws what is missing, piece by piece.

    Parameters
    ----------
    out : Path
    sizes : Sizes
    check_time : callable
        Called before each piece; may end the program.
    """

    def __init__(self, out: Path, sizes: Sizes, check_time: Callable[[], object]) -> None:
        self.out, self.sizes, self._check_time = out, sizes, check_time

    def pieces(self, name: str) -> list[Path]:
        """Folders of the simulated surveys that make a set; what is missing is drawn."""
        count, prevalence = self.sizes.drawn(name)
        found = []
        for first in range(0, count, PIECE):
            folder = self.out / "surveys" / f"{name}-{first:06d}"
            if not (folder / "gz2_hart16.csv").exists():
                self._check_time()
                part = min(PIECE, count - first)
                given: dict[str, Any] = {"size": SIDE, "pixel_scale": PIXEL_SCALE, "jpeg": False}
                run(SimulateConfig(folder, part, seed=SEEDS[name], first=first, prevalence=prevalence, **given))
            found.append(folder)
        return found

    def simulated(self, name: str) -> Galaxies:
        """One of the sets of SEEDS."""
        return read_pieces(self.pieces(name))

    @cached_property
    def train(self) -> Galaxies:
        return self.simulated("train")

    @cached_property
    def more(self) -> Galaxies:
        return self.simulated("more")

    @cached_property
    def held_out(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Validation and test: stretched images and labels."""
        found = {}
        for name in ("validation", "test"):
            galaxies = self.simulated(name)
            found[name] = stretched(galaxies.flux), galaxies.labels
        return found

    def asked(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels, conditions and seeds of the galaxies to generate, in an order in which classes alternate.

        Conditions are those of training galaxies of the class.
        """
        count = self.sizes.added
        rare = round(count * SHARE_OF_RARE)
        common, left = divmod(count - rare, len(CLASSES) - 1)
        each = [common + (label < left) for label in range(len(CLASSES) - 1)] + [rare]
        random = np.random.default_rng(7)
        labels = random.permutation(np.repeat(np.arange(len(CLASSES)), each))
        places = np.array([random.choice(self.train.of_class(int(label))) for label in labels])
        return labels, self.train.conditions[places], 1_000_000 + np.arange(count)

    def draw(self, model: Callable[[], GalaxyModel], settings: dict[str, Any], piece: int) -> Iterator[int]:
        """Generate what is missing; gives how many there are after each piece."""
        labels, conditions, seeds = self.asked()
        for first in range(0, len(labels), piece):
            path = self._folder(settings["guidance"]) / f"{first:06d}.npy"
            if not path.exists():
                self._check_time()
                part = slice(first, first + piece)
                flux = model().generate(conditions[part], seeds[part].tolist(), **settings)
                with atomic_path(path) as temporary, open(temporary, "wb") as file:
                    np.save(file, flux)
            yield min(first + piece, len(labels))

    def _folder(self, guidance: float) -> Path:
        folder = self.out / f"generated-{guidance:g}"
        folder.mkdir(exist_ok=True)
        return folder

    def generated(self, guidance: float) -> Galaxies:
        """What was drawn, which has to be all."""
        labels, conditions, seeds = self.asked()
        flux = np.concatenate([np.load(path) for path in sorted(self._folder(guidance).glob("*.npy"))])
        if len(flux) != len(labels):
            raise SystemExit(f"{len(flux)} of {len(labels)} galaxies are generated: first --only generate")
        return Galaxies(flux, labels, conditions, tuple(f"generated-{seed}" for seed in seeds))

    @cached_property
    def noise(self) -> Galaxies:
        """As many pictures of nothing but the sky's noise, labelled as the generated galaxies are."""
        labels, conditions, seeds = self.asked()
        random = np.random.default_rng(8)
        sigma = np.array(SKY_SIGMA, np.float32)[:, None, None]
        flux = random.standard_normal((len(labels), len(SKY_SIGMA), SIDE, SIDE), np.float32) * sigma
        return Galaxies(flux, labels, conditions, tuple(f"noise-{seed}" for seed in seeds))


class Repeated:
    """Training images of the generator, once as found in nature and once with all classes equally often.

    Stands for :class:`priorscope_astro.diffusion.feed.TrainingImages`; a repeated galaxy is turned anew.
    """

    def __init__(self, images: TrainingImages, labels: np.ndarray) -> None:
        members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        equal = [np.resize(one, len(labels) // len(members)) for one in members]
        self.images, self.places = images, np.concatenate([np.arange(len(labels)), *equal])
        self.vectors, self.shape = images.vectors[self.places], images.shape
        self.galaxies = SimpleNamespace(ids=[images.galaxies.ids[place] for place in self.places])

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> np.ndarray:
        return self.images[int(self.places[place])]


@dataclass(frozen=True)
class GroupFeed(ExampleFeed):
    """Balanced: all groups (class and, where some are generated, origin) come equally often."""

    groups: np.ndarray | None = None

    @cached_property
    def order(self) -> Order | BalancedOrder:
        if not self.balanced:
            return Order(len(self.examples), self.seed)
        assert self.groups is not None
        _, groups = np.unique(self.groups, return_inverse=True)
        return BalancedOrder(groups, int(groups.max()) + 1, self.seed)

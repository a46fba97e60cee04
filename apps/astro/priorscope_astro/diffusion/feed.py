"""Training images of a model, and batches of them fixed by (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope.training.order import Order
from priorscope_astro.data.galaxies import GalaxySet
from priorscope_astro.diffusion.dropout import ALL, QUESTION, drop_questions
from priorscope_astro.diffusion.scaling import Scaling
from priorscope_astro.diffusion.spec import ModelSpec
from priorscope_astro.diffusion.symmetry import COUNT, turned

#: Values of all images are kept in memory where they take less than this, bytes.
_IN_MEMORY = 4 << 30


class TrainingImages:
    """The network's values of a set of galaxies, and their conditions.

    Parameters
    ----------
    galaxies : GalaxySet
        With images.
    spec : ModelSpec
    vectors : float32 array (N, 74)
        Conditions.

    Raises
    ------
    InputError
        No galaxy, another mode, or a bad image where all are read at once.
    """

    def __init__(self, galaxies: GalaxySet, spec: ModelSpec, vectors: NDArray[np.float32]) -> None:
        if not len(galaxies):
            raise InputError("there is no galaxy to train on")
        if galaxies.mode != spec.mode:
            raise InputError(f"images of mode {galaxies.mode} for a model of mode {spec.mode}")
        if len(vectors) != len(galaxies):
            raise InputError(f"{len(galaxies)} galaxies have {len(vectors)} conditions")
        self.galaxies, self.vectors = galaxies, np.asarray(vectors, np.float32)
        self.shape = (len(spec.bands), spec.side, spec.side)
        self._scaling = Scaling(spec)
        self._values: NDArray[np.float32] | None = None
        if len(galaxies) * 4 * int(np.prod(self.shape)) <= _IN_MEMORY:
            self._values = np.stack([self._read(place) for place in range(len(galaxies))])

    def __len__(self) -> int:
        return len(self.galaxies)

    def __getitem__(self, place: int) -> NDArray[np.float32]:
        """Values (bands, side, side) of one galaxy."""
        return self._values[place] if self._values is not None else self._read(place)

    def _read(self, place: int) -> NDArray[np.float32]:
        what = f"object {self.galaxies.ids[place]}"
        return self._scaling.values(np.asarray(self.galaxies.image(place)), what=what)


@dataclass(frozen=True, eq=False)
class GalaxyFeed:
    """A :class:`priorscope.training.Feed`: galaxies in random order, turned and mirrored at random.

    A batch holds ``image`` (B, bands, side, side), ``answers`` (B, 74), ``t`` (B,) in 0 ... 999, ``eps`` of the images'
    shape, and ``key``. Everything about an example follows from (seed, pass, galaxy).

    Parameters
    ----------
    images : TrainingImages
    batch_size, seed : int
    question, everything : float
        See :func:`priorscope_astro.diffusion.dropout.drop_questions`.
    turn : bool
        Turn and mirror.
    """

    images: TrainingImages
    batch_size: int
    seed: int = 0
    question: float = QUESTION
    everything: float = ALL
    turn: bool = True

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        places = Order(len(self.images), self.seed).batch(step, self.batch_size)
        chosen = [places[row] for row in rows]
        values, answers, levels = [], [], []
        for place in chosen:
            random = place.generator(self.seed)
            which = int(random.integers(COUNT)) if self.turn else 0
            values.append(turned(self.images[place.item], which))
            levels.append(int(random.integers(1000)))
            vector = self.images.vectors[place.item]
            answers.append(drop_questions(vector, random, question=self.question, everything=self.everything))
        noise = Noise.per_item(place.noise_seed(self.seed) for place in chosen)
        return {
            "image": torch.from_numpy(np.stack(values)),
            "answers": torch.from_numpy(np.stack(answers)),
            "t": torch.tensor(levels, dtype=torch.float32),
            "eps": noise.draw((len(chosen), *self.images.shape)),
            "key": [self.images.galaxies.ids[place.item] for place in chosen],
        }

"""Images in equal time by sampler, steps and cache, and whether they are as near to held-out galaxies: astro.py's part.

Works on what evidence_astro.py has left: its generator, its judge (a classifier that has seen neither generated
galaxies nor those of the generator), and its simulated galaxies that nothing has learnt.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from evidence_astro_data import SIDE, read_pieces, stretched

from priorscope.caching import DeepCache
from priorscope.data.files import atomic_path
from priorscope.errors import InputError
from priorscope.evaluation.distributions import bootstrap, kid
from priorscope.evaluation.tables import print_table
from priorscope_astro.classifier.network import GalaxyClassifier
from priorscope_astro.classifier.predict import features, predict
from priorscope_astro.diffusion.model import GalaxyModel, load_galaxy_model
from priorscope_astro.simulator.config import CLASSES

#: Galaxies that every sampler draws at once: 56 of each of the nine classes in all.
PIECE = 36
REAL = 2000


@dataclass(frozen=True)
class Sampler:
    """One way to draw."""

    solver: str
    steps: int
    cache: int = 0

    def __str__(self) -> str:
        return f"{self.solver}-{self.steps}" + (f"-cache{self.cache}" if self.cache else "")


REFERENCE = Sampler("euler-ancestral", 40)
SAMPLERS = (
    REFERENCE,
    Sampler("euler-ancestral", 20),
    *(Sampler("ddim", steps) for steps in (20, 10)),
    *(Sampler("dpmpp-2m", steps) for steps in (20, 10, 8, 6)),
    *(Sampler("unipc", steps) for steps in (10, 8)),
    Sampler("ghvb", 10),
    *(Sampler("dpmpp-2m", 20, cache) for cache in (2, 3)),
    Sampler("dpmpp-2m", 10, 2),
)


def compare(out: Path, count: int, guidance: float, max_seconds: float) -> None:
    """Draw with all samplers in turn, and print the table.

    Parameters
    ----------
    out : Path
        Folder of evidence_astro.py (``--out``).
    count : int
        Galaxies a sampler.
    guidance : float
        How strongly conditions are told, by every sampler.
    max_seconds : float
        After which no new piece begins; what is drawn is kept in ``out/samplers-GUIDANCE``; figures wait for the rest.
    """
    for part in ("generator-longer/model", "classifiers/judge/model"):
        if not (out / part).is_dir():
            raise InputError("is not there", path=out / part, remedy="First run evidence_astro.py.")
    model = load_galaxy_model(out / "generator-longer/model", device="cpu", precision="float32")
    judge = GalaxyClassifier.load(out / "classifiers/judge/model")
    galaxies = read_pieces(sorted((out / "surveys").glob("reference-*")))
    order = np.random.default_rng(3).permutation(len(galaxies))
    each = -(-count // len(CLASSES))
    members = [order[galaxies.labels[order] == label][:each] for label in range(len(CLASSES))]
    asked = np.stack(members, 1).ravel()[:count]  # classes alternate
    real = np.setdiff1d(order, asked)[:REAL]
    folder = out / f"samplers-{guidance:g}"
    deadline = time.monotonic() + max_seconds
    drawn = [
        _piece(folder, model, judge, galaxies.conditions[rows], galaxies.labels[rows], first, guidance)
        for first in range(0, count, PIECE)
        if time.monotonic() < deadline
        for rows in [asked[first : first + PIECE]]
    ]
    pieces = -(-count // PIECE)
    if len(drawn) < pieces:
        print(f"{len(drawn)} of {pieces} pieces are drawn, no figures of a part: the same command goes on")
        return
    seen = features(judge, stretched(galaxies.flux[real]))
    scale = seen.mean(0), seen.std(0) + 1e-6
    print(f"guidance {guidance:g}:")
    _print(drawn, (seen - scale[0]) / scale[1], scale)


def _piece(
    folder: Path,
    model: GalaxyModel,
    judge: GalaxyClassifier,
    conditions: Any,
    labels: Any,
    first: int,
    guidance: float,
) -> dict[Sampler, dict[str, Any]]:
    """Seconds an image, features and agreement of each sampler, for the same galaxies and noise."""
    folder.mkdir(exist_ok=True)
    found = {}
    for sampler in SAMPLERS:
        path = folder / f"{sampler}-{first:05d}.npz"
        if not path.exists():
            cache = DeepCache(sampler.cache) if sampler.cache else None
            begin = time.process_time()
            seeds = range(2_000_000 + first, 2_000_000 + first + len(labels))
            given = {"steps": sampler.steps, "solver": sampler.solver, "guidance": guidance, "cache": cache}
            images = stretched(model.generate(conditions, seeds, **given))
            seconds = (time.process_time() - begin) / len(labels)
            right = predict(judge, images).argmax(1) == labels
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, seconds=seconds, features=features(judge, images), right=right)
        with np.load(path) as stored:
            found[sampler] = {name: stored[name] for name in stored.files}
    return found


def _print(drawn: list[dict[Sampler, dict[str, Any]]], real: np.ndarray, scale: tuple[Any, Any]) -> None:
    """A line a sampler: how many images in the reference's time for one, and how much further from real galaxies."""
    points = {
        sampler: (np.concatenate([one[sampler]["features"] for one in drawn]) - scale[0]) / scale[1]
        for sampler in SAMPLERS
    }
    rows, equal = [], {}
    for sampler in SAMPLERS:
        ratios = [float(one[REFERENCE]["seconds"] / one[sampler]["seconds"]) for one in drawn]
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        more = bootstrap(
            lambda own, reference: kid(real, own) - kid(real, reference),
            points[sampler],
            points[REFERENCE],
            repeats=100,
            paired=True,
            replace=False,
        )
        if more.low <= 0:
            equal[sampler] = middle
        right = np.concatenate([one[sampler]["right"] for one in drawn])
        rows.append(
            {
                "solver": sampler.solver,
                "steps": sampler.steps,
                "DeepCache": sampler.cache or "-",
                "images in equal time": f"{middle:.2f} [{low:.2f}, {high:.2f}]",
                "KID x 1000": 1000 * kid(real, points[sampler]),
                "more than the reference [95 %]": f"{1000 * more.estimate:.2f} "
                f"[{1000 * more.low:.2f}, {1000 * more.high:.2f}]",
                "as asked, %": 100 * right.mean(),
            }
        )
    print(
        f"\n{len(points[REFERENCE])} galaxies of {SIDE} pixels of {len(CLASSES)} classes a sampler; reference: "
        f"{REFERENCE}. Features: the judge's, standardised; {len(real)} held-out galaxies."
    )
    print_table(rows, ".3g")
    best = max(equal, key=lambda sampler: equal[sampler])
    print(f"not measurably further than the reference, and fastest: {best}, {equal[best]:.1f} times as many images")

"""What the astro app's speed is worth: morphology against statmorph, and samplers against the published one.

    OMP_NUM_THREADS=1 python benchmarks/astro.py [--count 48] [--repeats 3]
    OMP_NUM_THREADS=1 python benchmarks/astro.py --only samplers [--galaxies 504] [--guidance 1.5] [--max-seconds 600]

One process, one thread, in the processor's time, on which other programs have less influence than on the clock's.

morphology: of many galaxies at once against statmorph, galaxy by galaxy: time and values on the same stamps. Stamps of
96 x 96 pixels: profiles convolved with a Moffat PSF, with the noise and the segmentation of the golden cases, each
galaxy and each noise different. statmorph always fits a Sersic profile and cannot be asked not to, so three ratios are
printed: all that both do; ours without the fit against what statmorph takes as it is called; and ours without the fit
against statmorph less its own account of its fit (``sersic_runtime``, scaled to the processor's time by the ratio of
processor's and clock's time of the whole call). Both sides run in every repeat; given are medians and quartiles. Values
count as equal within the golden tolerance: 1e-5 of the value, 1e-3 for the fit.

samplers: with the generator and the judge that evidence_astro.py has trained (in --evidence), how many images other
solvers, fewer steps and DeepCache give in the time of one image of Euler ancestral with 40 steps (the published
sampler of GalaxySD), all for the same galaxies and noise, in turn; and how much further they are from held-out
galaxies (kernel distance in the judge's features, the difference with its 95 % interval by halves). Equal is what is
not measurably further. What is drawn is kept; the same command goes on.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import fftconvolve

from priorscope.evaluation.tables import print_table
from priorscope_astro.morphology import QUANTITIES, measure, middle_source, segment
from priorscope_astro.morphology.sersic import profile

SIDE, NOISE, FLUX = 96, 5.0, 60_000.0
#: Galaxies that statmorph measures in a repeat: it takes as long for each.
ITS_SHARE = 6
FITTED = ("sersic_amplitude", "sersic_rhalf", "sersic_n", "sersic_xc", "sersic_yc", "sersic_ellip")


def moffat() -> np.ndarray:
    """Beta 3.5, 1.3 arcsec FWHM at 0.396 arcsec a pixel."""
    y, x = np.mgrid[-12:13, -12:13]
    width = 1.3 / 0.396 / (2 * np.sqrt(2 ** (1 / 3.5) - 1))
    kernel = (1 + (x**2 + y**2) / width**2) ** -3.5
    return kernel / kernel.sum()


def galaxies(count: int, psf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stamps and their sources: a profile each, every other with clumps on it."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    images = []
    for number in range(count):
        shape = [0.0, np.log(rng.uniform(4, 11)), np.log(rng.uniform(0.8, 4)), *rng.uniform(46, 49, 2)]
        image = profile(np.array([[*shape, rng.uniform(0, 0.8), rng.uniform(0, np.pi)]]), (SIDE, SIDE))[0]
        image *= FLUX / image.sum()
        for _ in range(5 * (number % 2)):
            at = rng.normal(48, 7, 2)
            image += rng.uniform(30, 200) * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 3)
        images.append(fftconvolve(image, psf, mode="same") + rng.normal(0, NOISE, image.shape))
    stack = np.stack(images)
    labels = segment(stack, np.full((1, 1, 1), NOISE))
    return stack, (labels == middle_source(labels)[:, None, None]).astype(np.int32)


def seconds(work: Callable[[], Any], count: int) -> tuple[float, float, Any]:
    """Processor's and clock's time per galaxy, and what came out."""
    begin, clock = time.process_time(), time.perf_counter()
    found = work()
    return (time.process_time() - begin) / count, (time.perf_counter() - clock) / count, found


def quartiles(values: list[float]) -> str:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=48, help="galaxies that are measured at once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("morphology", "samplers"), default="morphology")
    parser.add_argument("--galaxies", type=int, default=504, help="that every sampler draws")
    parser.add_argument("--guidance", type=float, default=1.5, help="of every sampler")
    parser.add_argument("--evidence", type=Path, default=Path("/tmp/evidence_astro"), help="evidence_astro.py's --out")
    parser.add_argument("--max-seconds", type=float, default=600, help="of the samplers")
    given = parser.parse_args()
    if given.only == "samplers":
        import torch
        from astro_samplers import compare

        torch.set_num_threads(1)
        compare(given.evidence, given.galaxies, given.guidance, given.max_seconds)
    else:
        morphology(given)


def morphology(given: argparse.Namespace) -> None:
    import statmorph

    warnings.simplefilter("ignore")
    psf = moffat()
    images, labels = galaxies(given.count, psf)
    sigma = np.full((SIDE, SIDE), NOISE)

    def ours(fit: bool) -> Callable[[], Any]:
        return lambda: measure(images, labels, sigma=NOISE, psf=psf, fit=fit)

    def theirs(rows: range) -> Callable[[], list[Any]]:
        return lambda: [
            statmorph.source_morphology(images[row], labels[row], weightmap=sigma, psf=psf)[0] for row in rows
        ]

    measure(images[:2], labels[:2], sigma=NOISE, psf=psf, fit=True)  # what is loaded once
    theirs(range(1))()
    taken: dict[str, list[float]] = {name: [] for name in ("ours", "ours, no fit", "statmorph", "statmorph, no fit")}
    equal = dict.fromkeys((*QUANTITIES, *FITTED), 0)
    compared = 0
    for repeat in range(given.repeats):
        first = (repeat * ITS_SHARE) % max(given.count - ITS_SHARE + 1, 1)
        rows = range(first, min(first + ITS_SHARE, given.count))
        whole, clock, sources = seconds(theirs(rows), len(rows))
        taken["statmorph"].append(whole)
        fitting = float(np.mean([source.sersic_runtime for source in sources]))
        taken["statmorph, no fit"].append(whole * (1 - fitting / clock))
        taken["ours, no fit"].append(seconds(ours(False), given.count)[0])
        with_fit, _, found = seconds(ours(True), given.count)
        taken["ours"].append(with_fit)
        for row, source in zip(rows, sources, strict=True):
            compared += 1
            for name in equal:
                value = np.nan if source[name] == -99.0 else source[name]
                close = 1e-3 if name in FITTED else 1e-5
                equal[name] += bool(np.isclose(found[name][row], value, rtol=close, atol=0, equal_nan=True))

    print(f"{platform.machine()}, one thread, {given.count} stamps of {SIDE} x {SIDE}, {given.repeats} repeats:")
    print_table([{"side": side, "ms a galaxy": quartiles([1e3 * one for one in taken[side]])} for side in taken], ".3g")
    pairs = (("statmorph", "ours"), ("statmorph", "ours, no fit"), ("statmorph, no fit", "ours, no fit"))
    print_table(
        [
            {"ratio": f"{over} / {under}", "median": quartiles(list(np.divide(taken[over], taken[under])))}
            for over, under in pairs
        ],
        ".3g",
    )
    print(f"of {compared} galaxies equal within tolerance:")
    whole_set = [name for name in equal if equal[name] == compared]
    print(f"  all: {len(whole_set)} of {len(equal)} quantities")
    for name in equal:
        if equal[name] < compared:
            print(f"  {name}: {equal[name]}")


if __name__ == "__main__":
    main()

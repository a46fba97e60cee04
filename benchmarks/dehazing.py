"""Is haze taken out of ultrasound RF by two priors and joint posterior sampling better than by classical filters?

    OMP_NUM_THREADS=1 python benchmarks/dehazing_cines.py --out /tmp/dehazing    # 24 SIMUS cines, 15 minutes of a core
    OMP_NUM_THREADS=1 python benchmarks/dehazing.py --out /tmp/dehazing          # all parts; what is done stays
    python benchmarks/dehazing.py --table

The cines are simulated by pymust's SIMUS, element by element, with diverging waves, tissue and haze apart, and made
into lines by our beamformer; the priors learnt from the convolution simulator and from sixteen more SIMUS cines
(dehazing_prior.py). Every option, also of the joint posterior, is tuned on four cines, whose grid is in
dehazing_grid.py, and judged on twenty others, none of which a prior has seen. A filter is tuned
three times, for each of PSNR, gCNR and the error in the weak wall, and each figure is compared with the filter's best.
Spectra that filters know are those of the four cines (of three, when the fourth is tuned on).

Figures: PSNR to the RF without haze, whose largest size is the peak; gCNR of wall against blood pool, 256 bins over
decibels from -60 to 0; error in the weak wall, relative; flicker of the envelope beyond the truth's (0 is best).
For research use only.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from dehazing_cines import HELD_OUT, TUNED_ON, cine
from dehazing_grid import GRID, JOINT_GRID, LATE_GRID
from scipy.stats import t

from priorscope.evaluation.run_folder import read_jsonl
from priorscope.evaluation.tables import print_table
from priorscope_medical.ultrasound.baselines import MeanSpectra, high_pass, non_local_means, scaled, svd_filter
from priorscope_medical.ultrasound.cine_scores import all_scores
from priorscope_medical.ultrasound.rf_dehaze import dehaze_rf
from priorscope_medical.ultrasound.rf_prior import RfPrior

HERE = Path(__file__).parent
ROWS = HERE / "dehazing.jsonl"
#: Figures that are compared, and which way is better.
BETTER = {"psnr": max, "gcnr": max, "weak_error": min, "flicker": min}
#: What counts as the quality of the full trajectory of 16 calls: no worse than by this.
EQUAL = {"psnr": 0.1, "gcnr": 0.005, "weak_error": 0.02}
TUNED_FOR = ("psnr", "gcnr", "weak_error")
SAMPLES = 4
Rf = np.ndarray


@cache
def priors(tissue: str, haze: str) -> tuple[RfPrior, RfPrior]:
    return RfPrior.from_pretrained(tissue, device="cpu"), RfPrior.from_pretrained(haze, device="cpu")


@cache
def spectra(folder: Path, without: int | None, by_depth: bool) -> MeanSpectra:
    known = [cine(seed, folder) for seed in TUNED_ON if seed != without]
    return MeanSpectra([one.clean for one in known], [one.haze for one in known], by_depth=by_depth)


def filtered(method: str, options: dict[str, Any], rf: Rf, seed: int, folder: Path, names: tuple[str, str]) -> Rf:
    """What a method makes of the hazy RF of a cine."""
    plain: dict[str, Callable[..., Rf]] = {
        "gain": scaled,
        "high-pass": high_pass,
        "svd": svd_filter,
        "non-local means": non_local_means,
    }
    if method == "hazy":
        return rf
    if method in plain:
        return plain[method](rf, **options)
    if method in ("wiener", "subtraction"):
        known = spectra(folder, seed if seed in TUNED_ON else None, options["by_depth"])
        rest = {name: value for name, value in options.items() if name != "by_depth"}
        return known.wiener(rf, **rest) if method == "wiener" else known.subtracted(rf, **rest)
    if "estimate" in options:
        options = options | {"estimate": guess(options["estimate"], rf, names)}
    return dehaze_rf(rf, *priors(*names), device="cpu", **options).tissue


def guess(name: str, rf: Rf, names: tuple[str, str]) -> Rf:
    """What a late run begins from: the tuned SVD filter's tissue, or what a stream knows of the frames before.

    For the latter the first three frames have had their full trajectory; haze is taken to stand still since then.
    """
    if name == "svd":
        return svd_filter(rf, **chosen("svd", "psnr"))
    half = len(rf) // 2
    found = dehaze_rf(rf[:half], *priors(*names), device="cpu", **chosen("joint", "psnr"))
    return np.concatenate([found.tissue, rf[half:] - found.haze[-1:]])


def measured(method: str, options: dict[str, Any], seed: int, folder: Path, names: tuple[str, str]) -> dict[str, Any]:
    one = cine(seed, folder)
    begin = time.perf_counter()
    found = filtered(method, options, one.hazy(), seed, folder, names)
    seconds = (time.perf_counter() - begin) / len(found)
    return {name: round(value, 4) for name, value in all_scores(found, one.clean, one.regions).items()} | {
        "seconds_a_frame": round(seconds, 3)
    }


def kept(part: str) -> list[dict[str, Any]]:
    return [row for row in (read_jsonl(ROWS) if ROWS.exists() else []) if row["part"] == part]


def once(row: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The row of the table that begins like this; made and written where there is none."""
    row = json.loads(json.dumps(row))
    for other in kept(row["part"]):
        if row.items() <= other.items():
            return other
    row |= make()
    with open(ROWS, "a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row)[:230], flush=True)
    return row


def tune(folder: Path, names: tuple[str, str]) -> None:
    """Mean figures on the four cines for every point of the grid."""
    for method, grid in {**GRID, "joint": JOINT_GRID}.items():
        for options in grid:
            row = {"part": "tuning", "method": method, "options": options}

            once(row, lambda m=method, o=options: mean_over(TUNED_ON, m, o, folder, names))  # type: ignore[misc]


def mean_over(
    seeds: Iterable[int], method: str, options: dict[str, Any], folder: Path, names: tuple[str, str]
) -> dict[str, Any]:
    """Mean figures over cines."""
    found = [measured(method, options, seed, folder, names) for seed in seeds]
    return {name: round(float(np.mean([one[name] for one in found])), 4) for name in found[0]}


def chosen(method: str, wanted: str) -> dict[str, Any]:
    """Options that were best on the four cines."""
    rows = [row for row in kept("tuning") if row["method"] == method]
    if not rows:
        raise SystemExit(f"{method} is not tuned yet")
    return BETTER[wanted](rows, key=lambda row: row[wanted])["options"]


def judge(folder: Path, names: tuple[str, str]) -> None:
    for seed in HELD_OUT:
        for method in GRID:
            for wanted in TUNED_FOR:
                options = chosen(method, wanted)
                row = {"part": "cine", "seed": seed, "method": method, "options": options}
                once(row, lambda m=method, o=options, s=seed: measured(m, o, s, folder, names))  # type: ignore[misc]
        for samples in (1, SAMPLES):
            options = chosen("joint", "psnr") | {"samples": samples}
            row = {"part": "cine", "seed": seed, "method": "joint", "options": options}
            once(row, lambda o=options, s=seed: measured("joint", o, s, folder, names))  # type: ignore[misc]


def sweep(folder: Path, names: tuple[str, str]) -> None:
    """Strength, steps, the level of the start, and guidance, on the first five held-out cines."""
    best = chosen("joint", "psnr")
    points = [("gamma", best | {"gamma": gamma, "samples": 1}) for gamma in (0, 0.25, 0.5, 0.75, 1.0, 1.5, 2)]
    for steps in (4, 8, 16, 32):
        points.append(("full", best | {"start": 1.0, "steps": steps, "samples": 1}))
    for start in (0.3, 0.5):
        points += [("late", best | {"start": start, "steps": steps, "samples": 1}) for steps in (2, 3, 4, 6)]
    for guidance in ("gains", "pigdm", "projection"):
        points.append(("guidance", best | {"guidance": guidance, "samples": 1}))
    for part, options in points:
        for seed in HELD_OUT[:5]:
            row = {"part": part, "seed": seed, "method": "joint", "options": options}
            once(row, lambda o=options, s=seed: measured("joint", o, s, folder, names))  # type: ignore[misc]


def few_calls(folder: Path, names: tuple[str, str]) -> None:
    """Ways to a run of a third of the calls: each tuned on the four cines, its best point judged on the five."""
    for method, grid in LATE_GRID.items():
        for options in grid:
            row = {"part": "few-tuning", "method": method, "options": options}
            once(row, lambda o=options: mean_over(TUNED_ON, "joint", o, folder, names))  # type: ignore[misc]
    for method in LATE_GRID:
        options = nearest_to_full(method)
        for seed in HELD_OUT[:5]:
            row = {"part": "few", "seed": seed, "method": method, "options": options}
            once(row, lambda o=options, s=seed: measured("joint", o, s, folder, names))  # type: ignore[misc]


def shortfall(few: dict[str, Any], full: dict[str, Any]) -> float:
    """0 where figures are equal to the full trajectory's by :data:`EQUAL`; else how far off, in parts of that."""
    signs = {name: 1 if BETTER[name] is max else -1 for name in EQUAL}
    return sum(max(0.0, signs[name] * (full[name] - few[name]) / slack - 1) for name, slack in EQUAL.items())


def nearest_to_full(method: str) -> dict[str, Any]:
    """Options of few calls that came nearest to the full trajectory on the four cines; of several, by PSNR."""
    rows = [row for row in kept("few-tuning") if row["method"] == method]
    best = chosen("joint", "psnr")
    (full,) = (row for row in kept("tuning") if row["method"] == "joint" and row["options"] == best)
    return min(rows, key=lambda row: (shortfall(row, full), -row["psnr"]))["options"]


def speed(folder: Path, names: tuple[str, str]) -> None:
    """Processor time a frame by steps and batch: 24 frames, seven windows of six."""
    rf = np.concatenate([cine(seed, folder).hazy() for seed in HELD_OUT[:4]])
    for steps in (4, 8, 16):
        for batch in (1, 4, 8):

            def timed(steps: int = steps, batch: int = batch) -> dict[str, Any]:
                begin = time.process_time()  # other work may be running
                dehaze_rf(rf, *priors(*names), steps=steps, batch_size=batch, device="cpu")
                seconds = (time.process_time() - begin) / len(rf)
                return {"cpu_seconds_a_frame": round(seconds, 3), "frames": len(rf), "threads": torch.get_num_threads()}

            once({"part": "speed", "device": "cpu", "steps": steps, "batch_size": batch}, timed)


def mean_of(rows: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def apart(mine: list[dict[str, Any]], theirs: list[dict[str, Any]], name: str) -> str:
    """Mean difference over the cines that both have, with its 95 % interval (Student's, of paired differences)."""
    other = {row["seed"]: row[name] for row in theirs}
    differences = np.array([row[name] - other[row["seed"]] for row in mine if row["seed"] in other])
    half = t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    middle = differences.mean()
    return f"{middle:+.3f} [{middle - half:+.3f}, {middle + half:+.3f}] over {len(differences)} cines"


def show() -> None:
    rows = kept("cine")
    if not rows:
        raise SystemExit("nothing is judged yet")
    names = [*BETTER, "wall_error", "blood_error", "cnr", "ks", "seconds_a_frame"]
    best: dict[str, dict[str, list[dict[str, Any]]]] = {}
    table = []
    for method in dict.fromkeys(row["method"] for row in rows):
        for options in {json.dumps(row["options"]): row["options"] for row in rows if row["method"] == method}.values():
            own = [row for row in rows if row["method"] == method and row["options"] == options]
            means = {name: float(np.mean([row[name] for row in own])) for name in names}
            title = method if method != "joint" else f"joint, mean of {options['samples']}"
            table.append({"method": title, "cines": len(own)} | means)
            kind = title if method == "joint" else method
            for name, better in BETTER.items():
                rivals = [own, *filter(None, [best.setdefault(kind, {}).get(name)])]
                best[kind][name] = better(rivals, key=lambda some: mean_of(some, name))  # type: ignore[call-overload]
            table[-1]["options"] = ", ".join(f"{name} {value}" for name, value in options.items())
    print_table(table, ".3f")
    baselines = {name: values for name, values in best.items() if not name.startswith("joint")}
    for kind in (name for name in best if name.startswith("joint")):
        print(f"\n{kind}, against the best of all filters, each at its best tuning for that figure:")
        for name, better in BETTER.items():
            rival = better(baselines, key=lambda one: mean_of(baselines[one][name], name))  # type: ignore[call-overload]
            mine, theirs = best[kind][name], baselines[rival][name]
            print(
                f"  {name}: {mean_of(mine, name):.3f}, {rival} {mean_of(theirs, name):.3f}, {apart(mine, theirs, name)}"
            )
    for part, option in (("gamma", "gamma"), ("full", "steps"), ("late", "start"), ("guidance", "guidance")):
        swept = kept(part)
        points = {json.dumps(row["options"]): row["options"] for row in swept}.values()
        table = []
        for options in points:
            own = [row for row in swept if row["options"] == options]
            means = {name: float(np.mean([row[name] for row in own])) for name in BETTER}
            shown = {"start": options.get("start", 1.0), "calls": options["steps"], "gamma": options.get("gamma", 1.0)}
            shown |= {"guidance": options["guidance"]} if "guidance" in options else {}
            table.append(shown | {"cines": len(own)} | means)
        if table:
            print(f"\n{part}, by {option}; one sample")
            print_table(table, ".3f")
    show_few()
    if kept("speed"):
        print("\nspeed, 64 beams of 1010 samples")
        print_table([{name: row[name] for name in row if name != "part"} for row in kept("speed")], ".3f")


def show_few() -> None:
    """Runs of few calls on the five cines, and whether each is as good as the full 16."""
    best = chosen("joint", "psnr") | {"samples": 1}
    full = [row for row in kept("full") if row["options"] == best]
    if not kept("few") or not full:
        return
    table = [
        {"method": "full", "calls": best["steps"], "as good": "-"} | {name: mean_of(full, name) for name in BETTER}
    ]
    for method in LATE_GRID:
        own = [row for row in kept("few") if row["method"] == method]
        if not own:
            continue
        means = {name: mean_of(own, name) for name in BETTER}
        equal = "yes" if shortfall(means, table[0]) == 0 else "no"
        table.append({"method": method, "calls": own[0]["options"]["steps"], "as good": equal} | means)
    slack = ", ".join(f"{name} {value}" for name, value in EQUAL.items())
    print(f"\nfew calls, one sample, {len(full)} cines; as good: no worse than by {slack}")
    print_table(table, ".3f")


def draw() -> Path:
    """The sweep over gamma as a figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = kept("gamma")
    gammas = sorted({row["options"]["gamma"] for row in rows})
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    titles = ("PSNR to the clean RF (dB)", "gCNR, wall and blood pool", "relative error, weak wall")
    for axis, name, title in zip(axes, ("psnr", "gcnr", "weak_error"), titles, strict=True):
        values = [[row[name] for row in rows if row["options"]["gamma"] == gamma] for gamma in gammas]
        for one in zip(*values, strict=True):
            axis.plot(gammas, one, color="0.8", lw=0.8)
        axis.plot(gammas, [np.mean(one) for one in values], "o-", color="tab:blue", ms=3)
        axis.set(title=title, xlabel="strength gamma")
    figure.suptitle(f"{len(values[0])} held-out SIMUS cines, one posterior sample; gamma 0: as recorded", fontsize=10)
    path = HERE / "figures/dehazing_gamma.png"
    figure.savefig(path, dpi=110)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("/tmp/dehazing"), help="folder of the cines")
    parser.add_argument("--parts", nargs="+", default=("tune", "judge", "sweep", "few", "speed"))
    parser.add_argument("--priors", nargs=2, default=("tiny-rf-tissue", "tiny-rf-haze"))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if not options.table:
        parts: dict[str, Callable[..., None]] = {
            "tune": tune,
            "judge": judge,
            "sweep": sweep,
            "few": few_calls,
            "speed": speed,
        }
        for part in options.parts:
            parts[part](options.out, tuple(options.priors))
    show()
    if kept("gamma"):
        print(f"figure: {draw()}")


if __name__ == "__main__":
    main()

"""Does a prior on slices beat total variation on real volumes that it has never seen?

    OMP_NUM_THREADS=1 python benchmarks/evidence_tomography_prior.py ct       # the priors, an hour of a core each
    OMP_NUM_THREADS=1 python benchmarks/evidence_tomography_prior.py mr
    OMP_NUM_THREADS=1 python benchmarks/evidence_tomography.py head --tasks sv-ct-8 sv-ct-4 la-ct-90
    OMP_NUM_THREADS=1 python benchmarks/evidence_tomography.py mni
    python benchmarks/evidence_tomography.py --table

- ``head``: a real head CT, every second slice (54 of 3 mm), by the bundled ``tiny-ct``, which learnt from drawn bodies
  and from a head that no CT scanner saw.
- ``mni``: the MNI152 average brain taken for an object of that attenuation (brightest tissue 1), by ``tiny-mr``, which
  learnt from another head (Colin27) in all planes; every fourth slice (48 of 4 mm).
- ``mri``: the same brain by k-space lines.

All is ``priorscope medical evaluate``, one task a run, so that a run takes less than 20 minutes; what is done is not
done again. Measurements are simulated on a grid finer than the reconstruction's with photon noise; the weight of total
variation is swept on the tested volume. One posterior sample of 160 network calls a slice. Every result is a row of
evidence_tomography.jsonl.

What was looked at before, one sample each: 90 degrees of slices 18 to 33 and 38 to 47 of the 54 (head) and 16 to 31 of
the 48 (mni), and 8 views of the former: conjugate-gradient iterations, the noise factor, both weights, rho, the share
of fresh noise and 40, 80 and 160 steps. The defaults are what was best for the head; mni, whose edges are
soft, gains from ten times the weight between slices and from some within them.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from priorscope.backbones.loading import model_folder
from priorscope.evaluation.run_folder import read_jsonl
from priorscope.evaluation.tables import print_table
from priorscope_medical.configs import AcquisitionConfig, EvaluateConfig, SolverConfig, VolumeConfig
from priorscope_medical.demo import brain
from priorscope_medical.evaluate import evaluate
from priorscope_medical.prior import SlicePrior
from priorscope_medical.table import MODELS
from priorscope_medical.volumes import read_volume, write_nifti

HERE = Path(__file__).parent
ROWS = HERE / "evidence_tomography.jsonl"
HEAD = HERE.parents[1] / "shared/data/medical/cranium_ct_hu.nii.gz"
_CT = ("sv-ct-8", "sv-ct-4", "la-ct-90")
TASKS = {"head": _CT, "mni": _CT, "mri": ("cs-mri-4", "cs-mri-8")}
METHODS = ("dds", "dds-2d", "tv", "sirt", "cgls", "fbp", "zero-filled")
#: Weights of total variation, in units of its default.
SWEEP = (0.1, 0.3, 1.0, 3.0, 10.0)
STEPS = 160
#: Weights of the variation other than the defaults.
WEIGHTS: dict[str, dict[str, float]] = {"mni": {"weight": 5.0, "rho": 1.0, "in_plane": 0.5}}


def config_of(part: str, task: str, out: Path, methods: Any) -> EvaluateConfig:
    """What ``priorscope medical evaluate`` is told."""
    solver = SolverConfig(size=64, steps=STEPS, precision="float32", device="cpu", **WEIGHTS.get(part, {}))
    unit: Any = {"head": "HU", "mni": "attenuation", "mri": "intensity"}[part]
    if part == "mni":
        solver = replace(solver, prior=str(as_attenuation_prior(out)))
    path = thinned(part, out, unit)
    return EvaluateConfig(
        volumes=(path,),
        tasks=(task,),
        methods=methods,
        samples=1,
        tv_sweep=SWEEP,
        out=out / f"{part}-{task}",
        resume=True,
        solver=solver,
        volume=VolumeConfig(unit=unit, slices="axial"),
        acquire=AcquisitionConfig(),
    )


def thinned(part: str, out: Path, unit: Any) -> Path:
    """A file of every second (head) or fourth slice, so that they are about as far apart as pixels."""
    path, every = out / f"{part}.nii.gz", 2 if part == "head" else 4
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        source, own = (HEAD, "HU") if part == "head" else (brain(), "intensity")
        whole = read_volume(source, unit=own, slices="axial")  # type: ignore[arg-type]
        affine = whole.affine.copy()
        affine[:3, whole.axes[0]] *= every
        data = whole.data[::every]
        if part == "mni":
            data = data / np.quantile(whole.data, 0.999)
        spacing = (every * whole.spacing[0], *whole.spacing[1:])
        write_nifti(replace(whole, data=data, unit=unit, affine=affine, spacing=spacing), path)
    return path


def as_attenuation_prior(out: Path) -> Path:
    """The MR prior, told that its intensities are attenuation: in ``mni`` they are."""
    folder = out / "tiny-mr-as-attenuation"
    if folder.exists():
        return folder
    prior = SlicePrior.from_pretrained(model_folder("tiny-mr", ("values.json",), MODELS), device="cpu")
    prior.values = replace(prior.values, unit="attenuation")
    prior.save_pretrained(folder)
    return folder


def keep(part: str, config: EvaluateConfig) -> None:
    """Put the rows of a run into the table, in place of earlier ones."""
    made = [{"part": part, **row} for row in read_jsonl(config.out / "items.jsonl")]
    for row in made:
        row.pop("measurement", None)
    done = {(row["part"], row["key"]) for row in made}
    others = [row for row in read_rows() if (row["part"], row["key"]) not in done]
    ROWS.write_text("".join(json.dumps(row) + "\n" for row in others + made))


def read_rows() -> list[dict[str, Any]]:
    return read_jsonl(ROWS) if ROWS.exists() else []


def show() -> None:
    """Every method, and how far dds is above the best classical one in each plane."""
    rows, planes = read_rows(), ("axial", "coronal", "sagittal")
    for part, task in dict.fromkeys((row["part"], row["task"]) for row in rows):
        own = [row for row in rows if (row["part"], row["task"]) == (part, task)]
        print(f"\n{part}, {task}: {own[0]['slices']} slices of {own[0]['size']} px, {own[0]['pixel']:.3g} mm")
        shown = ("method", *(f"psnr_{where}" for where in (*planes, "volume")), *(f"ssim_{plane}" for plane in planes))
        print_table([{name.replace("_", " "): row[name] for name in shown} for row in own], ".3f")
        for row in own:
            if "tv_sweep" in row:
                print("tv:", ", ".join(f"{one['weight']:g}: {one['mean_psnr']:.2f} dB" for one in row["tv_sweep"]))
        of = {row["method"]: row for row in own}
        if not {"dds", "dds-2d"} <= set(of):
            continue
        classical = [row for row in own if not row["method"].startswith("dds")]
        for title, others in (("best classical", classical), ("dds-2d", [of["dds-2d"]])):
            gains = {where: of["dds"][where] - max(row[where] for row in others) for where in shown[1:5]}
            print(f"dds above {title} (dB): " + ", ".join(f"{where[5:]} {gain:+.2f}" for where, gain in gains.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=sorted(TASKS))
    parser.add_argument("--tasks", nargs="+", help="default: all of the part")
    parser.add_argument("--out", type=Path, default=Path("/tmp/evidence_tomography"))
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, help="the others keep their rows")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.part:
        for task in options.tasks or TASKS[options.part]:
            config = config_of(options.part, task, options.out, tuple(options.methods))
            evaluate(config)
            keep(options.part, config)
    if options.table:
        show()


if __name__ == "__main__":
    main()

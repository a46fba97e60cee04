"""``priorscope medical simulate``: measurements of a known volume in a file. For research use only."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from priorscope.data.files import write_text
from priorscope.errors import InputError
from priorscope_medical.configs import SimulateConfig
from priorscope_medical.grid import side_in_mm
from priorscope_medical.kspace import write_kspace
from priorscope_medical.measured import write_sinogram
from priorscope_medical.placement import placement
from priorscope_medical.simulate import Measurement
from priorscope_medical.tasks import measured_volume, open_volume
from priorscope_medical.volumes import RESEARCH_ONLY, as_hounsfield, write_nifti


def simulate(config: SimulateConfig) -> int:
    """Run ``priorscope medical simulate``; returns the exit status."""
    out = config.out
    if out.suffix.lower() not in (".h5", ".hdf5"):
        raise InputError("measurements are written as HDF5", path=out, remedy="Let --out end in .h5.")
    if config.size is not None and config.size < 1:
        raise InputError(f"--size {config.size}", remedy="Use 96, say.")
    if config.acquire.geometry == "fan" and config.task != "cs-mri":
        raise InputError(
            "a file of a fan beam", remedy="Use --geometry parallel: `reconstruct` reads parallel rays from files."
        )
    about, truth_path = out.with_suffix(".json"), out.with_name(f"{out.stem}-truth.nii.gz")
    existing = [path for path in (out, about, truth_path) if path.exists()]
    if existing:
        raise InputError("exists already", path=existing[0], remedy="Choose another --out, or remove it.")
    volume = open_volume(config.input, config.volume)
    size = config.size or max(8, round(side_in_mm(volume) / min(volume.spacing[1:]) / 2))
    made = measured_volume(volume, config.task, config.acquire, size=size, slices=config.volume.slab, seed=config.seed)
    if config.task == "cs-mri":
        _write_kspace(out, made)
        truth = made.grid.with_data(made.grid.data * np.float32(made.settings["scale"]))
        options = ""
    else:
        truth = as_hounsfield(made.grid) if volume.unit == "HU" else made.grid
        options = f" --size {size} --pixel {made.settings['pixel']:.10g}"
        _write_sinogram(out, made)
    write_nifti(truth, truth_path)
    write_text(about, json.dumps({"for": RESEARCH_ONLY, "task": config.task, **made.settings}, indent=1) + "\n")
    print(f"measurement: {out}  ({' x '.join(map(str, made.y.shape))}; {RESEARCH_ONLY})")
    print(f"what should come out: {truth_path}\nhow it was made: {about}")
    print(f"reconstruct it: priorscope medical reconstruct {shlex.quote(str(out))} --task measured{options}")
    return 0


def _write_sinogram(path: Path, made: Measurement) -> None:
    settings = made.settings
    lengths: dict[str, Any] = {name: settings[name] for name in ("pitch", "axis_offset", "water_per_mm")}
    integrals = (made.y * settings["water_per_mm"]).numpy()
    lengths |= {"slice_spacing": made.grid.spacing[0], "place": placement(made.grid)}
    write_sinogram(path, integrals, settings["angles"], **lengths)


def _write_kspace(path: Path, made: Measurement) -> None:
    """K-space in the volume's own numbers."""
    mask = made.y.abs().amax((0, 1)).numpy() > 0
    lines = np.asarray(mask.any(0))
    scaled = np.asarray(made.y.numpy() * np.float32(made.settings["scale"]), np.complex64)
    mask = lines if bool((mask == lines).all()) else mask
    write_kspace(path, scaled, mask, spacing=made.grid.spacing, place=placement(made.grid))

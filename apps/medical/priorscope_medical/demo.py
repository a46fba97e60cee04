"""The demo: a real brain, measured at a fraction of its k-space, with the bundled prior. For research use only."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from priorscope.errors import InputError
from priorscope.evaluation.demo_folder import demo_folder
from priorscope_medical.configs import AcquisitionConfig, DemoConfig, EvaluateConfig, SolverConfig, VolumeConfig
from priorscope_medical.evaluate import evaluate
from priorscope_medical.grid import slab
from priorscope_medical.tasks import open_volume

#: Half of the default, for five minutes of two slow cores.
STEPS = 40
_BRAIN = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def brain() -> Path:
    """The MNI152 T1 average brain that comes with nilearn (Fonov et al. 2011): 189 axial slices of 1 mm.

    Raises
    ------
    InputError
        nilearn is not installed, or brings another file.
    """
    found = importlib.util.find_spec("nilearn")
    places = [] if found is None else list(found.submodule_search_locations or [])
    for place in places:
        if (Path(place) / _BRAIN).is_file():
            return Path(place) / _BRAIN
    raise InputError("the demo's volume comes with nilearn", remedy="Install it: pip install 'priorscope[medical]'.")


def demo(config: DemoConfig) -> int:
    """Run ``priorscope medical demo``."""
    volume = VolumeConfig(unit="intensity", slices="axial", slab=config.slab)
    slab(open_volume(brain(), volume), config.slab)  # refused before an earlier demo is replaced
    whole = EvaluateConfig(
        volumes=(brain(),),
        tasks=(f"cs-mri-{config.acceleration:g}",),
        methods=("dds", "tv", "zero-filled"),
        samples=config.samples,
        tv_sweep=(0.3, 1.0, 3.0),
        out=config.out,
        solver=SolverConfig(prior=config.prior, size=config.size, steps=STEPS, device=config.device, seed=config.seed),
        volume=volume,
        acquire=AcquisitionConfig(),
    )
    print(
        f"MNI152, a real brain (mean of 152 people), slices {config.slab[0]} to {config.slab[1] - 1}; one k-space line "
        f"in {config.acceleration:g} is measured."
    )
    return evaluate(whole, open_run=lambda _: demo_folder(config.out, config, "priorscope medical demo"))

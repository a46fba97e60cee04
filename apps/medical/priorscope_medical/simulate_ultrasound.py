"""``priorscope medical simulate-ultrasound``: a hazy cine in a file. For research use only."""

from __future__ import annotations

from priorscope.data.files import refuse_overwrite
from priorscope.errors import InputError
from priorscope_medical.ultrasound.cine_file import write_simulated
from priorscope_medical.ultrasound.rf_simulator import simulate_cine
from priorscope_medical.ultrasound_configs import SimulateUltrasoundConfig
from priorscope_medical.volumes import RESEARCH_ONLY


def simulate_ultrasound(config: SimulateUltrasoundConfig) -> int:
    """Run ``priorscope medical simulate-ultrasound``; returns the exit status."""
    if config.out.suffix.lower() not in (".h5", ".hdf5"):
        raise InputError("cines are written as HDF5", path=config.out, remedy="Let --out end in .h5.")
    refuse_overwrite(config.out, remedy="Choose another --out, or remove it.")
    if not 0 <= config.strength < float("inf") or config.seed < 0:
        raise InputError(f"--strength {config.strength}, --seed {config.seed}", remedy="Use 0 or more.")
    options = {"frames": config.frames, "frame_rate": config.frame_rate, "noise": config.noise}
    if config.method == "simus":
        from priorscope_medical.ultrasound.simus_cines import simus_cine

        cine = simus_cine(config.seed, **options)  # type: ignore[arg-type]
    else:
        cine = simulate_cine(config.seed, **options)  # type: ignore[arg-type]
    write_simulated(config.out, cine, strength=config.strength, seed=config.seed, method=config.method)
    shape = " x ".join(map(str, cine.tissue.shape))
    print(f"cine: {config.out}  ({shape} samples of RF: frames, samples, beams; {RESEARCH_ONLY})")
    return 0

"""What ``priorscope medical dehaze`` may be told: of B-mode pictures, of RF, and of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from priorscope.data.files import refuse_existing
from priorscope.errors import InputError
from priorscope_medical.configs import DehazeConfig
from priorscope_medical.ultrasound.write_cine import check_out

_OF_PICTURES = ("method", "prior", "omega", "mask", "size", "precision")
_OF_RF = ("rf_priors", "samples", "last", "carrier", "bandwidth", "attenuation")


def check_for_pictures(config: DehazeConfig) -> None:
    """Refuse options that only RF has."""
    _refuse(config, _OF_RF, "an option for RF, these are B-mode pictures", "Leave it out.")


def check_for_rf(config: DehazeConfig) -> None:
    """Refuse options that only B-mode pictures have, and RF's own where they make no sense."""
    _refuse(
        config,
        _OF_PICTURES,
        "an option for B-mode pictures, this is RF",
        "Leave it out; --rf-priors, --strength and --steps are for RF.",
    )
    if config.samples < 1:
        raise InputError(f"--samples {config.samples}", remedy="Use 1 or more.")
    if config.last is not None and not 0 < config.last < float("inf"):
        raise InputError(f"--last {config.last:g}", remedy="Use a number above 0: 0.02 to 0.5.")
    if config.carrier is not None and not config.carrier > 0:
        raise InputError(f"--carrier {config.carrier:g}", remedy="Give the pulse's frequency in Hz.")
    if config.bandwidth is not None and not 0 < config.bandwidth < 2:
        raise InputError(
            f"--bandwidth {config.bandwidth:g}", remedy="Give it in parts of the pulse's frequency: 0.6, say."
        )
    if not 0 <= config.attenuation < 10:
        raise InputError(f"--attenuation {config.attenuation:g}", remedy="Soft tissue has 0.5 dB per cm and MHz.")


def _refuse(config: DehazeConfig, names: Sequence[str], why: str, remedy: str) -> None:
    usual = {field.name: field.default for field in fields(DehazeConfig)}
    for name in names:
        if getattr(config, name) != usual[name]:
            raise InputError(f"--{name.replace('_', '-')} with {config.input.name}: {why}", remedy=remedy)


def check_options(config: DehazeConfig, report: Path) -> None:
    """Refuse numbers that make no sense, and results that are there already; ``report`` is the report's folder."""
    if config.steps < 1:
        raise InputError(f"--steps {config.steps}", remedy="Use 1 or more.")
    if not 0 <= config.strength <= 2:
        raise InputError(
            f"--strength {config.strength:g}", remedy="Use 0 (nothing) to 1 (all haze that is found), or 2."
        )
    if config.batch_size is not None and config.batch_size < 1:
        raise InputError(f"--batch-size {config.batch_size}", remedy="Use 1 or more.")
    if config.start is not None and not 0 < config.start <= 1:
        raise InputError(f"--start {config.start:g}", remedy="Use a level above 0, up to 1.")
    if config.omega is not None and not 0 <= config.omega < float("inf"):
        raise InputError(f"--omega {config.omega:g}", remedy="Use 0 or more.")
    if not 10 <= config.dynamic_range <= 200:
        raise InputError(f"--dynamic-range {config.dynamic_range:g}", remedy="Use the scanner's, in dB: 40 to 90.")
    if config.mask is not None and config.method != "semantic":
        raise InputError(f"--mask with {config.method}", remedy="Only semantic uses one.")
    if config.seed < 0:
        raise InputError(f"--seed {config.seed}", remedy="Use 0 or more.")
    check_out(config.out, 1)
    if config.out.resolve() == config.input.resolve():
        raise InputError("is the input itself", path=config.out, remedy="Choose another --out.")
    if not config.overwrite:
        refuse_existing([config.out, *([report] if config.report else [])])

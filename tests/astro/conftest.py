"""Fixtures of the astro app's tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def simulated_survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 80 galaxies of 48 pixels, a tenth of them with a dust lane: read it, do not change it."""
    pytest.importorskip("galsim")
    from priorscope_astro.simulator.config import SimulateConfig
    from priorscope_astro.simulator.survey import run

    folder = tmp_path_factory.mktemp("astro") / "survey"
    return run(SimulateConfig(out=folder, count=80, size=48, seed=11, prevalence=("dust_lane=0.1",)))

"""The bundled models: they find vehicles in streets that they have not seen, all together more than the ego alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from priorscope_detection.configs import EvaluateConfig, ModelConfig
from priorscope_detection.evaluate import measure_all, outcomes
from priorscope_detection.evaluation.conditions import Condition
from priorscope_detection.noise import Disturbance
from priorscope_detection.predictor import Predictor
from priorscope_detection.published import MODELS
from priorscope_detection.simulator.settings import COMPACT
from priorscope_detection.training.sources import HELD_OUT_SEED, simulate

NAMES = ("tiny-detection", "tiny-detection-attention", "tiny-detection-alone")


def test_cards_and_sizes():
    assert {row.name for row in MODELS} == set(NAMES)
    folders = [Path(row.source) for row in MODELS]
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) < 1.3 * 2**20
    assert all((folder / "README.md").is_file() for folder in folders)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("streets"), 12, HELD_OUT_SEED + 800_000, replace(COMPACT, frames=3))


def test_precision_in_streets_not_seen(frames):
    """AP at 0.5 over 12 streets; of a detector that has learnt nothing it is 0."""
    conditions = [Condition(Disturbance(), 0), Condition(Disturbance(0.4, 0.4, ego=True, delay=200.0), 0)]
    predictors = {name: Predictor.load(ModelConfig(name, device="cpu")) for name in NAMES}
    extent = predictors[NAMES[0]].detector.spec.extent
    found = measure_all(predictors, frames, conditions, EvaluateConfig("", skip=2), extent)
    assert not found.failures
    clean, hard = (
        {each.model: each.figures["ap_bev_0.5"] for each in outcomes(found.rows, list(predictors), [condition])}
        for condition in conditions
    )
    assert min(clean.values()) > 0.5
    assert clean["tiny-detection"] > clean["tiny-detection-alone"] + 0.02
    # what others tell is used, and less well where it is wrong; alone there is nothing to be wrong
    assert clean["tiny-detection"] > hard["tiny-detection"] > 0.5
    assert hard["tiny-detection-alone"] == pytest.approx(clean["tiny-detection-alone"], abs=1e-6)
    # which is what diffusion is there for
    assert hard["tiny-detection"] > max(hard["tiny-detection-alone"], hard["tiny-detection-attention"]) + 0.02

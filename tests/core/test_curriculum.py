"""The difficulty curriculum: its groups, when they join, and what it draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from priorscope import InputError
from priorscope.diffusion import VPSchedule
from priorscope.training import CurriculumConfig, DifficultyCurriculum
from priorscope.training.curriculum import cluster_edges

DDPM = VPSchedule.from_betas("linear", beta_start=1e-4, beta_end=0.02)


def test_golden_curriculum(golden_files, read_json):
    for path in golden_files("astro_accel", "formula.json"):
        expected = read_json(path)
        assert cluster_edges(DDPM, CurriculumConfig(20)) == expected["curriculum_uniform_edges"]
        by_snr = cluster_edges(DDPM, CurriculumConfig(20, by="log-snr"))
        assert by_snr == [*expected["curriculum_logsnr_cluster_first_t"], 1000]


def test_groups_join_from_the_noisiest_when_patience_ends():
    curriculum = DifficultyCurriculum(DDPM, CurriculumConfig(3, patience=2))
    joins = [curriculum.told(loss) for loss in (1.0, 0.9, 0.95, 0.8, 0.8, 0.9, 2.0, 2.1, math.nan, 0.1, 0.2, 0.3, 0.4)]
    assert joins == [False] * 5 + [True, False, False, True] + [False] * 4
    assert curriculum.joined == 3


def test_draws_cover_just_what_has_joined():
    curriculum = DifficultyCurriculum(VPSchedule.from_betas(num_steps=12), CurriculumConfig(4, patience=1))
    torch.manual_seed(0)
    for first in (9, 6, 3, 0):
        drawn = curriculum.draw(2000)
        assert drawn.dtype == torch.float32
        steps, counts = drawn.unique(return_counts=True)
        assert steps.tolist() == list(range(first, 12))
        assert counts.min() > 0.6 * 2000 / len(steps)  # equally likely
        curriculum.told(1.0)
        curriculum.told(1.0)


def test_one_group_is_no_curriculum():
    curriculum = DifficultyCurriculum(DDPM, CurriculumConfig())
    assert not any(curriculum.told(1.0) for _ in range(10))
    torch.manual_seed(3)
    drawn = curriculum.draw(50)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.randint(1000, (50,)).float())


def test_its_state_goes_on_exactly():
    losses = np.random.default_rng(0).uniform(size=60)
    config = CurriculumConfig(5, by="log-snr", patience=3)
    whole, first, second = (DifficultyCurriculum(DDPM, config) for _ in range(3))
    expected = [whole.told(loss) for loss in losses]
    found = [first.told(loss) for loss in losses[:23]]
    second.load_state_dict(first.state_dict())
    assert found + [second.told(loss) for loss in losses[23:]] == expected
    assert sum(expected) == 4
    with pytest.raises(ValueError, match="other noise levels"):
        DifficultyCurriculum(DDPM, CurriculumConfig(5)).load_state_dict(first.state_dict())


def test_pure_noise_belongs_to_the_noisiest_group():
    zero = VPSchedule.from_betas("linear", beta_start=1e-4, beta_end=0.02, zero_terminal_snr=True)
    edges = cluster_edges(zero, CurriculumConfig(10, by="log-snr"))
    assert edges[0] == 0
    assert edges[-1] == 1000
    assert edges == sorted(set(edges))


def test_what_is_refused():
    with pytest.raises(InputError, match="leave some without a step") as caught:
        cluster_edges(VPSchedule.from_betas(num_steps=10), CurriculumConfig(20))
    assert "fewer" in caught.value.remedy
    for config in (CurriculumConfig(0), CurriculumConfig(2, patience=0), CurriculumConfig(2, by="loss")):  # type: ignore[arg-type]
        with pytest.raises(InputError):
            DifficultyCurriculum(DDPM, config)

"""Condition-embedding perturbation: the formula, its spread, and where it is off."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from priorscope import InputError
from priorscope.training import Perturbation, PerturbationConfig
from priorscope.training.perturbation import perturbed


def test_golden_condition_perturbation(golden_files, read_json):
    for path in golden_files("astro_accel", "formula.safetensors"):
        data, numbers = load_file(path), read_json(path.with_suffix(".json"))
        zero = torch.zeros_like(data["cep.n"])
        torch.testing.assert_close(perturbed(zero, data["cep.n"]), data["cep.gauss_g1"], atol=1e-7, rtol=1e-6)
        torch.testing.assert_close(perturbed(zero, data["cep.u"]), data["cep.uniform_g1"], atol=1e-7, rtol=1e-6)
        for width in (8, 768):
            expected = numbers[f"cep_d{width}"]
            one = perturbed(torch.zeros(width, dtype=torch.float64), torch.ones(width, dtype=torch.float64))
            torch.testing.assert_close(one, torch.full_like(one, expected["scale"]), atol=0, rtol=1e-12)
            torch.manual_seed(0)
            noise = Perturbation(PerturbationConfig("uniform"))(torch.zeros(2000, width))
            assert noise.std().item() == pytest.approx(expected["uniform_std"], rel=0.02)
            assert noise.abs().max() <= expected["scale"] * (1 + 1e-6)


def test_gaussian_noise_adds_gamma_to_the_norm_whatever_the_width():
    torch.manual_seed(0)
    for width in (64, 1024):
        noise = Perturbation(PerturbationConfig("gaussian", gamma=0.5))(torch.zeros(200, 3, width))
        assert noise.norm(dim=-1).mean().item() == pytest.approx(0.5, rel=0.02)


def test_it_acts_in_training_only_and_follows_the_global_seed():
    embedding = torch.ones(2, 3, 8, dtype=torch.bfloat16)
    layer = Perturbation(PerturbationConfig("gaussian"))
    first, second = (torch.manual_seed(1) and layer(embedding) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == embedding.dtype
    assert not torch.equal(first, embedding)
    assert layer.eval()(embedding) is embedding
    assert Perturbation(PerturbationConfig())(embedding) is embedding


def test_what_is_refused():
    for config in (PerturbationConfig("cauchy"), PerturbationConfig("uniform", -1.0)):  # type: ignore[arg-type]
        with pytest.raises(InputError, match="perturbation"):
            Perturbation(config)
    with pytest.raises(InputError, match="int64"):  # noise would be cut to whole numbers
        Perturbation(PerturbationConfig("gaussian"))(torch.arange(4))

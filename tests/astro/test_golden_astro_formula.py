"""Golden formulas of astronomy and of the core's training aids that the galaxy models use: every key of the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope.diffusion import VPSchedule
from priorscope.training import AlignmentConfig, CurriculumConfig
from priorscope.training.curriculum import cluster_edges
from priorscope.training.perturbation import perturbed
from priorscope_astro.classifier.losses import dirichlet_multinomial_nll
from priorscope_astro.imaging import stamp_wcs
from priorscope_astro.metrics import found

DDPM = VPSchedule.from_betas("linear", beta_start=1e-4, beta_end=0.02)


def world_coordinates(case: dict[str, Any], name: str) -> None:
    size = int(name.removeprefix("wcs_"))
    wcs = stamp_wcs((size, size), case["pixscale"], *case["crval"])
    assert wcs.wcs.crpix.tolist() == [case["crpix"]] * 2
    pixels, world = np.array(case["pix0"]), np.array(case["world"])
    np.testing.assert_allclose(np.stack(wcs.pixel_to_world_values(*pixels.T), 1), world, rtol=0, atol=1e-11)
    np.testing.assert_allclose(np.stack(wcs.world_to_pixel_values(*world.T), 1), pixels, rtol=0, atol=1e-6)


def votes(cases: list[dict[str, Any]], name: str) -> None:
    assert len(cases) == 4
    for case in cases:
        nll = dirichlet_multinomial_nll(torch.tensor(case["counts"]), torch.tensor(case["conc"], dtype=torch.float64))
        assert nll.item() == pytest.approx(case["nll"], rel=1e-10, abs=1e-12)


def selection(case: dict[str, Any], name: str) -> None:
    figures = found(case["y_true"], case["y_pred"])
    assert (figures.completeness, figures.purity) == (case["completeness"], case["purity"])


def perturbation(case: dict[str, Any], name: str) -> None:
    width = int(name.removeprefix("cep_d"))
    ones = torch.ones(width, dtype=torch.float64)
    assert perturbed(0 * ones, ones).tolist() == pytest.approx([case["scale"]] * width, rel=1e-12)
    assert case["uniform_std"] == pytest.approx(case["scale"] / 3**0.5, rel=1e-12)


def uniform_groups(edges: list[int], name: str) -> None:
    assert cluster_edges(DDPM, CurriculumConfig(20)) == edges


def groups_by_noise(firsts: list[int], name: str) -> None:
    assert cluster_edges(DDPM, CurriculumConfig(20, by="log-snr")) == [*firsts, 1000]


def alignment(cases: list[dict[str, Any]], name: str) -> None:
    haste = AlignmentConfig(features=0.5, attention=0.5, stop=250_000)
    weights = [haste.weights(case["step"]) for case in cases]
    assert [(one.features, one.attention) for one in weights] == [(case["proj"], case["attn"]) for case in cases]


CHECKS: dict[str, Callable[[Any, str], None]] = {
    "wcs_": world_coordinates,
    "dirichlet_multinomial_nll": votes,
    "completeness_purity": selection,
    "cep_d": perturbation,
    "curriculum_uniform_edges": uniform_groups,
    "curriculum_logsnr_cluster_first_t": groups_by_noise,
    "curriculum_note": lambda text, name: None,  # words
    "repa_haste_coef": alignment,
}


def test_golden_astro_formula(golden_files, read_json):
    for path in golden_files("astro_accel", "formula*.safetensors"):
        cases = read_json(path.with_suffix(".json"))
        for name, case in cases.items():
            checks = [check for begin, check in CHECKS.items() if name.startswith(begin)]
            assert len(checks) == 1, f"no check, or two, for {name} of {path}"
            checks[0](case, name)
        data = load_file(path)
        for kind, unit in (("gauss_g1", "n"), ("uniform_g1", "u")):
            draw = data.pop(f"cep.{unit}")
            expected = data.pop(f"cep.{kind}")
            torch.testing.assert_close(perturbed(torch.zeros_like(draw), draw), expected, atol=1e-7, rtol=1e-6)
        assert not data

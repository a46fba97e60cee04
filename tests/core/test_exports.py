"""What packages export is there, and no name is a module's too: importing that would hide it."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import priorscope

PACKAGES = [
    "priorscope",
    *(f"priorscope.{part.name}" for part in pkgutil.iter_modules(priorscope.__path__) if part.ispkg),
]


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names(name):
    package = importlib.import_module(name)
    modules = {part.name for part in pkgutil.iter_modules(package.__path__)}
    for public in getattr(package, "__all__", []):
        assert getattr(package, public, None) is not None, public
        assert public not in modules, f"{name}.{public} is a function and a module"


def test_what_medical_needs_is_public():
    from priorscope.backbones import NCSNpp, load_ncsnpp, ncsnpp_denoiser
    from priorscope.diffusion import (
        InBatches,
        langevin,
        predictor_corrector,
        reverse_diffusion,
        score_matching_loss,
        ve_times,
    )
    from priorscope.evaluation import hfen, nrmse, over_slices, psnr, ssim

    for public in (NCSNpp, load_ncsnpp, ncsnpp_denoiser, InBatches, langevin, reverse_diffusion, score_matching_loss):
        assert callable(public)
    for public in (ve_times, predictor_corrector, hfen, nrmse, over_slices, psnr, ssim):
        assert callable(public)

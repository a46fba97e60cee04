"""Tomography: projections against official outputs, scikit-image, analytic chords and dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope.inverse import OfficialParallelBeam, ParallelBeam
from priorscope.inverse.fbp import filter_sinogram

PROJECTORS = ["matrix", "grid"]


def mismatch(operator, dtype, batch=3, adjoint=None):
    """How far <A x, y> and <x, A' y> are apart, relative to |A x| |y|."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((batch, *operator.domain), generator=generator, dtype=dtype)
    y = torch.randn((batch, *operator.range), generator=generator, dtype=dtype)
    measured, back = operator.forward(x).double(), (adjoint or operator.adjoint)(y).double()
    gap = (measured * y.double()).sum() - (x.double() * back).sum()
    return abs(gap.item()) / (measured.norm() * y.double().norm()).item()


def disc(size, radius, centre=(0.0, 0.0), pixel=1.0, fine=8):
    """A disc of value 1, (1, 1, size, size) in float64, its border averaged over ``fine`` x ``fine`` points a pixel."""
    place = ((np.arange(size * fine) + 0.5) / fine - size / 2) * pixel
    inside = (place[None] - centre[0]) ** 2 + (place[:, None] - centre[1]) ** 2 <= radius**2
    image = inside.reshape(size, fine, size, fine).mean((1, 3))
    return torch.from_numpy(image)[None, None]


@pytest.mark.parametrize("projector", PROJECTORS)
def test_golden_mbir_radon(golden_files, read_json, projector):
    for path in golden_files("medical", "mbir_radon.json"):
        stored = load_file(path.with_suffix(".safetensors"))
        for case in read_json(path)["cases"]:
            name = case["name"]
            values = {
                key.removeprefix(f"{name}."): value for key, value in stored.items() if key.startswith(f"{name}.")
            }
            operator = OfficialParallelBeam(case["N"], values["theta_deg"], circle=case["circle"], projector=projector)
            assert operator.range == (1, case["det"], case["views"])
            ones = torch.ones(1, 1, case["N"], case["N"])
            got = {
                "sino": operator(values["x"]),
                "AT": operator.adjoint(values["sino"]),
                "AT_of_randn_y": operator.adjoint(values["randn_y"]),
                "ATA_ones": operator.normal(ones),
                "exact_adjoint_of_randn_y": operator.exact_adjoint(values["randn_y"]),
                "fbp": operator.fbp(values["sino"]),
                "ramp_filtered_sino": 2 * filter_sinogram(values["sino"], "ramp"),
            }
            for part, value in got.items():
                torch.testing.assert_close(
                    value, values[part], atol=1e-4, rtol=1e-4, msg=lambda m, part=part: f"{part}: {m}"
                )
            exact, official = (got[part].ravel() for part in ("exact_adjoint_of_randn_y", "AT_of_randn_y"))
            cosine = torch.cosine_similarity(exact, official, dim=0).item()
            assert cosine == pytest.approx(case["cosine_exact_vs_AT"], abs=1e-5)
            scale = (exact @ official / (official @ official)).item()
            assert scale == pytest.approx(case["bestscale_exact_over_AT"], rel=1e-4)
            if not case["circle"]:
                same = ParallelBeam(
                    case["N"], values["theta_deg"], detectors=case["det"], convention="skimage", projector=projector
                )
                sinogram = same(values["x"][:1].double())[0, 0]
                torch.testing.assert_close(sinogram, values["skimage_sino0"], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("projector", PROJECTORS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {"size": 16},
        {"size": 17},
        {"size": (15, 20)},
        {"size": 16, "detectors": 9},
        {"size": 17, "detectors": 40, "axis_offset": 1.3},
        {"size": 16, "pixel": 0.7, "pitch": 1.9},
        {"size": 15, "convention": "skimage"},
        {"size": 16, "convention": "official"},
    ],
)
def test_parallel_beam_adjoint(settings, batch, projector):
    operator = ParallelBeam(angles=[0, 17.5, 90, 133, 250], projector=projector, **settings)
    assert mismatch(operator, torch.float32, batch) < 1e-6
    assert mismatch(operator, torch.float64, batch) < 1e-12


@pytest.mark.parametrize("size", [16, 17])
def test_projectors_agree(size):
    settings = {"angles": np.linspace(0, 180, 7), "pixel": 0.5, "pitch": 1.2, "axis_offset": 0.3}
    matrix, grid = (ParallelBeam(size, projector=projector, **settings) for projector in PROJECTORS)
    x = torch.randn(40, 1, size, size, dtype=torch.float64)
    y = torch.randn(40, *matrix.range, dtype=torch.float64)
    torch.testing.assert_close(matrix(x), grid(x), atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(matrix.adjoint(y), grid.adjoint(y), atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(matrix(x.float()), matrix(x).float(), atol=2e-5, rtol=2e-6)
    torch.testing.assert_close(grid(x.float()), matrix(x).float(), atol=2e-5, rtol=2e-6)

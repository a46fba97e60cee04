"""Simulated measurements: near what the operator says of the truth but not equal, with the noise that is stated."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope.inverse.fan_beam import FanBeam
from priorscope.inverse.mri import to_kspace
from priorscope.inverse.parallel_beam import ParallelBeam
from priorscope_medical.kspace import read_kspace, write_kspace
from priorscope_medical.measured import read_sinogram, write_sinogram
from priorscope_medical.simulate import (
    coil_maps,
    draw_mask,
    limited_views,
    simulate_ct,
    simulate_mri,
    sparse_views,
)
from priorscope_medical.volumes import Volume


def discs(size: int = 32, slices: int = 3, pixel: float = 2.0, unit: Any = "attenuation", depth: float = 1.0) -> Volume:
    """Water with a denser disc that grows from slice to slice, edges one pixel wide."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    water = np.clip(0.42 * size - np.hypot(y, x), 0, 1)
    dense = [np.clip(0.1 * size + k - np.hypot(y - 3, x + 2), 0, 1) for k in range(slices)]
    values = np.stack([depth * (water + part) for part in dense]).astype(np.float32)
    return Volume(values, (3.0, pixel, pixel), np.diag([pixel, pixel, 3.0, 1.0]), (2, 1, 0), unit, Path("discs"))


def test_view_angles() -> None:
    assert sparse_views(4).tolist() == [0, 45, 90, 135]
    assert limited_views(90).tolist() == list(range(90))
    assert limited_views(1, 0.1).size == 10
    assert limited_views(30, 20, start=5).tolist() == [5, 25]
    for wrong in (lambda: sparse_views(0), lambda: limited_views(10, 0), lambda: sparse_views(3, 400)):
        with pytest.raises(InputError):
            wrong()


@pytest.mark.parametrize("geometry", ["parallel", "fan"])
@pytest.mark.parametrize(("coarsen", "size"), [(1, 32), (2, 64)])
def test_finer_object_agrees_with_the_operator_and_is_no_inverse_crime(geometry: Any, coarsen: int, size: int) -> None:
    volume = discs(size, pixel=2.0 / coarsen)
    result = simulate_ct(volume, sparse_views(9), geometry=geometry, coarsen=coarsen, photons=None)
    assert isinstance(result.operator, FanBeam if geometry == "fan" else ParallelBeam)
    assert result.truth.shape == (3, 1, 32, 32)
    assert result.weights is None
    there = result.operator(result.truth)
    error = float((result.y - there).norm() / there.norm())
    assert 1e-4 < error < 0.02
    # A ray through the middle of the water: 0.84 * 32 pixels of 2 mm.
    assert result.y[0].max() == pytest.approx(0.84 * 32 * 2, rel=0.25)
    if coarsen == 2:
        np.testing.assert_allclose(result.grid.data, result.truth[:, 0])
        assert result.grid.spacing == (3.0, 2.0, 2.0)
        np.testing.assert_allclose(result.grid.affine @ [0, 0, 0, 1], [0.5, 0.5, 0, 1])
    json.dumps(result.settings)


def test_own_grid_is_called_the_inverse_crime() -> None:
    with pytest.warns(UserWarning, match="inverse crime"):
        result = simulate_ct(discs(), sparse_views(3), finer=1, photons=None)
    torch.testing.assert_close(result.y, result.operator(result.truth))


def test_hounsfield_units_become_attenuation() -> None:
    volume = discs()
    hounsfield = volume.with_data((volume.data - 1) * 1000, "HU")
    first, second = (simulate_ct(v, sparse_views(5), photons=None) for v in (volume, hounsfield))
    torch.testing.assert_close(first.y, second.y, atol=1e-3, rtol=1e-5)
    with pytest.raises(InputError, match="unknown intensities"):
        simulate_ct(discs(unit="intensity"), sparse_views(5))


def test_photon_noise_has_the_stated_variance() -> None:
    volume = discs(slices=1)
    many = Volume(np.repeat(volume.data, 300, 0), volume.spacing, volume.affine, (2, 1, 0), "attenuation", Path("m"))
    quiet = simulate_ct(volume, [0.0, 40.0], photons=None)
    noisy = simulate_ct(many, [0.0, 40.0], photons=1e4, electronic=20.0)
    residual = (noisy.y - quiet.y).double()
    counts = 1e4 * torch.exp(-0.02 * quiet.y.double())
    variance = (counts + 20.0**2) / counts**2 / 0.02**2
    # 300 draws a ray, 92 rays and more: their mean ratio is known to about 1 %.
    assert float((residual.var(0) / variance[0]).mean()) == pytest.approx(1, abs=0.03)
    assert noisy.weights is not None
    torch.testing.assert_close(noisy.weights.double().reciprocal().mean(0), variance[0], rtol=0.05, atol=0)
    assert abs(float((residual.mean(0) / variance[0].sqrt()).mean())) < 0.02
    assert noisy.settings["clamped"] == 0


def test_simulated_files_are_read_as_measured_ones(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    ct = simulate_ct(discs(), sparse_views(6), pitch=1.5, axis_offset=0.75)
    settings = ct.settings
    lengths = {name: settings[name] for name in ("pitch", "axis_offset", "water_per_mm")}
    integrals = (ct.y * settings["water_per_mm"]).numpy()
    found = read_sinogram(write_sinogram(tmp_path / "ct.h5", integrals, settings["angles"], **lengths))
    torch.testing.assert_close(found.relative(), ct.y)
    torch.testing.assert_close(found.operator(32, pixel=settings["pixel"])(ct.truth), ct.operator(ct.truth))
    mri = simulate_mri(discs(), coils=2)
    mask = (mri.y.abs().amax((0, 1)) > 0).numpy()
    lines = read_kspace(write_kspace(tmp_path / "mri.h5", mri.y.numpy(), mask, spacing=(3, 2, 2)))
    torch.testing.assert_close(torch.from_numpy(lines.data), mri.y)
    image = mri.truth.to(torch.complex64)
    torch.testing.assert_close(lines.operator(coil_maps(2, (32, 32)))(image), mri.operator(mri.truth))


def test_dark_rays_are_clamped_and_counted() -> None:
    with pytest.warns(UserWarning, match="had less than 0.5 counts"):
        result = simulate_ct(discs(depth=10), sparse_views(4), photons=100, electronic=1)
    assert result.settings["clamped"] > 10
    assert torch.isfinite(result.y).all()
    assert float(result.y.max()) == pytest.approx(math.log(200) / 0.02, rel=1e-5)


def test_noise_belongs_to_the_slice() -> None:
    volume = discs()
    part = Volume(volume.data[1:], volume.spacing, volume.affine, (2, 1, 0), "attenuation", Path("discs"))
    for simulate in (lambda v, **k: simulate_ct(v, sparse_views(4), **k), lambda v, **k: simulate_mri(v, **k)):
        whole: Any = simulate(volume, seed=3)
        torch.testing.assert_close(simulate(volume, seed=3, batch_size=2).y, whole.y)
        assert not torch.equal(simulate(volume, seed=4).y, whole.y)
    ct = simulate_ct(volume, sparse_views(4), seed=3)
    torch.testing.assert_close(simulate_ct(part, sparse_views(4), seed=3, first_slice=1).y, ct.y[1:])


@pytest.mark.parametrize("ratio", [(1, 2), (2, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize("size", [30, 33])
def test_kspace_of_a_finer_object_is_that_of_the_truth(ratio: tuple[int, int], size: int) -> None:
    coarsen, finer = ratio
    volume = discs(size * coarsen, slices=2)
    result = simulate_mri(volume, mask="full", snr=None, coarsen=coarsen, finer=finer)
    assert result.truth.shape == (2, 1, size, size)
    assert result.weights is None
    blocks = volume.data.reshape(2, size, coarsen, size, coarsen).mean((2, 4)) / result.settings["scale"]
    # The place is right to a small part of a pixel: moved by half of one, the discs differ by 0.1 and more.
    assert float(np.sqrt(np.mean((result.truth[:, 0].numpy() - blocks) ** 2))) < 0.03
    there = to_kspace(result.truth.to(torch.complex64))
    error = (result.y - there).abs()
    # At even sizes the line of the highest frequency has no partner and is not that of a real image.
    inner = error[..., 1:, 1:] if size % 2 == 0 else error
    assert float(inner.max()) < 1e-4 * float(there.abs().max())


def test_coils_and_undersampling() -> None:
    volume = discs(unit="intensity", depth=500.0)
    result = simulate_mri(volume, acceleration=3, centre_fraction=0.1, coils=4, snr=None)
    assert result.y.shape == (3, 4, 32, 32)
    assert result.settings["scale"] == pytest.approx(np.quantile(volume.data, 0.999))
    measured = result.y.abs().amax((0, 1, 2)) > 0
    assert int(measured.sum()) == round(32 / 3)
    there = result.operator(result.truth)
    assert 1e-5 < float((result.y - there).norm() / there.norm()) < 0.02
    maps = coil_maps(5, (20, 31))
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(20, 31))
    assert float(maps.abs().amax((1, 2)).min()) > 0.6  # each sees its side


def test_kspace_noise_has_the_stated_level() -> None:
    volume = discs(slices=4, size=48)
    quiet, noisy = (simulate_mri(volume, mask="full", snr=snr, coils=3) for snr in (None, 20.0))
    noise = noisy.y - quiet.y
    signal = float(quiet.truth[quiet.truth > 0.1 * quiet.truth.max()].mean())
    assert noisy.settings["noise"] == pytest.approx(signal / 20)
    for part in (noise.real, noise.imag):
        assert float(part.std()) == pytest.approx(signal / 20, rel=0.02)
    assert noisy.weights is not None
    assert float(noisy.weights.max()) == pytest.approx((20 / signal) ** 2, rel=1e-5)


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "equispaced", "variable", "official", "full"])
def test_masks_by_name(kind: Any) -> None:
    mask = draw_mask(kind, (40, 48), 2, 0.1)
    assert mask.dtype == torch.bool
    assert mask.shape == ((40, 48) if kind == "variable" else (48,))
    middle = mask[20] if kind == "variable" else mask
    assert bool(middle[23:25].all())
    assert bool(mask.all()) == (kind == "full")


def test_wrong_settings() -> None:
    volume = discs()
    for change in ({"photons": 0}, {"photons": math.nan}, {"electronic": -1}, {"water_per_mm": 0}, {"coarsen": 3}):
        with pytest.raises(InputError):
            simulate_ct(volume, sparse_views(4), **change)  # type: ignore[arg-type]
    for change in ({"finer": 0}, {"geometry": "cone"}, {"geometry": "fan", "source_distance": 3.0}):
        with pytest.raises(InputError):
            simulate_ct(volume, sparse_views(4), **change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no view angle"):
        simulate_ct(volume, [])
    with pytest.warns(UserWarning, match="are they radians") as caught:
        simulate_ct(volume, np.linspace(0, 3, 5))
    assert len([warning for warning in caught if "radians" in str(warning.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert simulate_ct(volume, [0.0]).y.shape[-1] == 1  # one view is few, and no mistake
    long = Volume(volume.data, (3.0, 2.0, 1.0), volume.affine, (2, 1, 0), "attenuation", Path("x"))
    with pytest.raises(InputError, match="square"):
        simulate_ct(long, sparse_views(4))
    for change in ({"snr": 0}, {"coils": 0}, {"mask": "spiral"}, {"mask": "equispaced", "acceleration": 2.5}):
        with pytest.raises(InputError):
            simulate_mri(volume, **change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="are 0"):
        simulate_mri(volume.with_data(np.zeros_like(volume.data)))

"""Magnetic resonance: transforms, coils, masks, against dense matrices and the official convention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope.errors import InputError
from priorscope.inverse import (
    AsComplex,
    CartesianMRI,
    ChannelsAsComplex,
    OfficialMRI,
    equispaced_lines,
    espirit,
    estimate_sensitivities,
    from_kspace,
    gaussian_lines,
    mbir_lines,
    measured_acceleration,
    to_kspace,
    uniform_lines,
    variable_density,
)

SIZES = [(8, 8), (7, 9), (6, 7)]


def random(*shape, dtype=torch.complex128, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def coils(height, width, count=4):
    """Smooth complex sensitivities, (count, H, W): Gaussians of half the image around points outside of it."""
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    maps = []
    for index in range(count):
        angle = 2 * np.pi * index / count
        away = (y - 1.2 * np.sin(angle)) ** 2 + (x - 1.2 * np.cos(angle)) ** 2
        maps.append(np.exp(-away / 2) * np.exp(1j * (angle + 0.5 * x)))
    return torch.from_numpy(np.stack(maps))


def operators(size):
    height, width = size
    mask = random(height, width, dtype=torch.float64) > 0
    lines = uniform_lines(width, 2, 0.2)
    yield CartesianMRI(size, lines)
    yield CartesianMRI(size, mask, coils(*size))
    yield CartesianMRI(size, torch.stack([mask, ~mask, mask]), random(3, 4, *size))
    yield CartesianMRI(size, mask, coils(*size)) @ AsComplex((1, *size))
    yield CartesianMRI(size, mask) @ ChannelsAsComplex(size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_adjoint(size, batch):
    for operator in operators(size):
        assert operator.adjoint_error(batch=batch, dtype=torch.float32) < 1e-6
        assert operator.adjoint_error(batch=batch, dtype=torch.float64) < 1e-12


@pytest.mark.parametrize("size", SIZES)
def test_the_transform_is_a_centred_orthonormal_one(size):
    x = random(2, 1, *size)
    k = to_kspace(x)
    torch.testing.assert_close(from_kspace(k), x)
    assert k.norm().item() == pytest.approx(x.norm().item())
    torch.testing.assert_close(k[..., size[0] // 2, size[1] // 2], x.sum((-2, -1)) / np.sqrt(size[0] * size[1]))
    place = torch.zeros(1, 1, *size, dtype=torch.complex128)
    place[..., size[0] // 2, size[1] // 2] = 1
    torch.testing.assert_close(to_kspace(place), torch.full_like(place, 1 / np.sqrt(size[0] * size[1])))


def test_norms():
    size = (6, 7)
    assert CartesianMRI(size, uniform_lines(7, 2)).norm() == pytest.approx(1)
    maps = coils(*size)
    full = CartesianMRI(size, torch.ones(7), maps)
    assert full.norm(tolerance=1e-12) == pytest.approx(maps.abs().square().sum(0).sqrt().max().item(), rel=1e-5)
    two = torch.stack([maps, 3 * maps])
    assert CartesianMRI(size, torch.ones(7), two).norm() == pytest.approx(3 * full.norm(), rel=1e-5)


def test_gradients():
    size = (4, 5)
    operator = CartesianMRI(size, uniform_lines(5, 2), coils(*size, count=2))
    assert torch.autograd.gradcheck(operator.forward, (random(2, 1, *size).requires_grad_(),))
    assert torch.autograd.gradcheck(operator.adjoint, (random(2, 2, *size).requires_grad_(),))
    real = operator @ AsComplex((1, *size))
    x = random(2, 1, *size, dtype=torch.float64).requires_grad_()
    y = random(2, 2, *size)
    loss = (real(x) - y).abs().square().sum()
    (gradient,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(gradient, 2 * real.adjoint(real(x) - y).detach())


def test_slices_with_maps_of_their_own_are_measured_apart():
    size = (6, 7)
    masks = torch.stack([uniform_lines(7, 2, seed=seed).expand(size) for seed in range(3)])
    maps, x = random(3, 2, *size), random(3, 1, *size)
    whole = CartesianMRI(size, masks, maps)
    for item in range(3):
        rows = slice(item, item + 1)
        torch.testing.assert_close(whole.part(rows)(x[rows]), whole(x)[rows])
        torch.testing.assert_close(whole.part(rows)(x[rows]), CartesianMRI(size, masks[item], maps[item])(x[rows]))
    shared = CartesianMRI(size, masks[0], maps[0])
    assert shared.part(slice(1, 2)) is shared
    composed = whole @ AsComplex((1, *size))
    torch.testing.assert_close(composed.part(slice(1, 3))(x[1:].real), composed(x.real)[1:])


def test_official_convention_against_its_outputs(golden_files, read_json):
    for path in golden_files("medical", "mbir_admm_mri.json"):
        stored = load_file(path.with_suffix(".safetensors"))
        for case in read_json(path)["cases"]:
            if "name" not in case:
                continue
            volume, mask, real, imaginary, zero_filled = (
                stored[f"{case['name']}.{key}"] for key in ("vol", "mask", "k_real", "k_imag", "zf_real")
            )
            operator = OfficialMRI(case["N"], mask[:, 0])
            k = operator(volume)
            torch.testing.assert_close(k, mask * torch.complex(real, imaginary), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(operator.adjoint(k), zero_filled, atol=1e-5, rtol=1e-4)
            ours = CartesianMRI(case["N"], mask[:, 0]) @ AsComplex(operator.domain)
            torch.testing.assert_close(operator.normal(volume), ours.normal(volume), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(operator.part(slice(1, 2))(volume[1:2]), k[1:2])
            drawn = mbir_lines(case["N"], seed=case["np_seed_for_mask"])
            assert torch.equal(drawn, mask[0, 0, 0] > 0)
        random_state = np.random.RandomState(0)
        for line in stored["mask240_npseed0_x3"]:
            assert torch.equal(mbir_lines(240, seed=random_state), line > 0)


@pytest.mark.parametrize("draw", [uniform_lines, gaussian_lines])
@pytest.mark.parametrize("width", [64, 65])
def test_line_masks(draw, width):
    mask = draw(width, 4, 0.1, seed=3)
    lines = round(width * 0.1)
    first = width // 2 - lines // 2
    assert mask.shape == (width,)
    assert mask.dtype == torch.bool
    assert mask.sum() == round(width / 4)
    assert mask[first : first + lines].all()
    assert torch.equal(mask, draw(width, 4, 0.1, seed=3))
    assert not torch.equal(mask, draw(width, 4, 0.1, seed=4))
    assert measured_acceleration(mask) == pytest.approx(width / round(width / 4))


def test_gaussian_lines_crowd_in_the_middle():
    away = abs(torch.arange(128) - 64).double()
    near = [away[draw(128, 4, 0, seed=seed)].mean() for draw in (gaussian_lines, uniform_lines) for seed in range(8)]
    assert max(near[:8]) < min(near[8:])


def test_equispaced_lines():
    mask = equispaced_lines(20, 4, 0.2, offset=1)
    assert mask.nonzero().ravel().tolist() == [1, 5, 8, 9, 10, 11, 13, 17]
    assert measured_acceleration(mask) == pytest.approx(20 / 8)


def test_variable_density():
    mask = variable_density((40, 31), 5, seed=1)
    assert mask.sum() == round(40 * 31 / 5)
    assert mask[20 - 2 : 20 + 3, 15 - 2 : 15 + 3].all()
    assert torch.equal(variable_density(40, 5, seed=1), variable_density((40, 40), 5, seed=1))
    y, x = np.nonzero(mask.numpy())
    assert np.hypot((y - 20) / 20, (x - 15) / 15.5).mean() < 0.5
    y, x = np.nonzero(variable_density((40, 40), 1.5).numpy())
    assert np.hypot(y - 20, x - 20).max() > 20  # only the corners themselves are never drawn


@pytest.mark.parametrize("size", [(48, 48), (49, 40)])
def test_sensitivities_from_the_calibration_lines(size):
    """Of a smooth object, they are the true ones up to the object's phase: coil images agree within 3 %."""
    maps = coils(*size)
    maps = maps / maps.abs().square().sum(0).sqrt()
    y, x = np.linspace(-1, 1, size[0])[:, None], np.linspace(-1, 1, size[1])[None]
    image = torch.from_numpy(np.exp(-4 * (y**2 + x**2)) + 0j)[None, None]
    measured = CartesianMRI(size, equispaced_lines(size[1], 4, 0.4), maps)(image)
    estimate = estimate_sensitivities(measured, round(size[1] * 0.4))
    inside = image[0, 0].abs() > 0.3
    total = estimate.abs().square().sum(1).sqrt()
    torch.testing.assert_close(total[0][inside], torch.ones_like(total[0][inside]))
    coil_images = maps * image[0]
    combined = (estimate[0].conj() * coil_images).sum(0)
    error = (estimate[0] * combined - coil_images)[:, inside].norm() / coil_images[:, inside].norm()
    assert error < 0.03
    assert estimate[0, :, 0, 0].abs().max() < 0.2


def test_espirit_needs_fewer_lines():
    """An object with edges, noise, twelve lines: coil images to 1.5 % or better, no sensitivity in the air."""
    size = (40, 48)
    maps = coils(*size)
    maps = maps / maps.abs().square().sum(0).sqrt()
    y, x = np.linspace(-1, 1, size[0])[:, None], np.linspace(-1, 1, size[1])[None]
    inside = torch.from_numpy(y**2 + (x - 0.1) ** 2 < 0.5)
    image = (inside * (1.0 + 0.5 * torch.from_numpy(np.sin(9 * x) > 0)) + 0j)[None, None]
    noise = 1e-3 * random(2, 4, *size)
    measured = CartesianMRI(size, equispaced_lines(48, 4, 0.25), maps)(image) + noise
    coil_images = maps * image[0]

    def error(estimate):
        combined = (estimate.conj() * coil_images).sum(0)
        return (estimate * combined - coil_images)[:, inside].norm() / coil_images[:, inside].norm()

    found, plain = espirit(measured, 12), estimate_sensitivities(measured, 12)
    assert found.shape == (2, 4, *size)
    for item in range(2):
        assert error(found[item]) < 0.015
        assert error(found[item]) < 0.5 * error(plain[item])
        assert error(espirit(measured[item : item + 1], 12, kernel=4, threshold=0.01)[0]) < 0.005
        deep = found[item].abs().square().sum(0)[inside]
        torch.testing.assert_close(deep, torch.ones_like(deep))
    assert found[:, :, 0, 0].abs().max() == 0
    turned = (found[0].conj() * plain[0]).sum(0)[inside]
    assert turned.real.min() > 0
    torch.testing.assert_close(turned.imag, torch.zeros_like(turned.imag), atol=1e-10, rtol=0)
    with pytest.raises(InputError, match="neighbourhoods of 13"):
        espirit(measured, 12, kernel=13)


def test_wrong_input():
    with pytest.raises(InputError, match="other than 0 and 1"):
        CartesianMRI(4, torch.tensor([0, 1, torch.nan, 1]))
    with pytest.raises(InputError, match="measures nothing"):
        CartesianMRI(4, torch.zeros(4))
    with pytest.raises(InputError, match="mask of shape"):
        CartesianMRI(4, torch.ones(5))
    with pytest.raises(InputError, match="Give complex"):
        CartesianMRI(4, torch.ones(4), torch.ones(2, 4, 4))
    with pytest.raises(InputError, match="sensitivities of shape"):
        CartesianMRI(4, torch.ones(4), torch.ones(2, 4, 5) + 0j)
    with pytest.raises(InputError, match="not finite"):
        CartesianMRI(4, torch.ones(4), torch.full((2, 4, 4), torch.nan) + 0j)
    with pytest.raises(InputError, match="different numbers of slices"):
        CartesianMRI(4, torch.ones(2, 4, 4), torch.ones(3, 2, 4, 4) + 0j)
    with pytest.raises(InputError, match="coils on the second axis"):
        CartesianMRI(4, torch.ones(4)).adjoint(random(1, 2, 4, 4))
    with pytest.raises(InputError, match="acceleration 0"):
        uniform_lines(16, 0)
    with pytest.raises(InputError, match="centre alone"):
        uniform_lines(16, 8, 0.5)
    with pytest.raises(InputError, match="whole number"):
        equispaced_lines(16, 4, offset=4)
    kspace = CartesianMRI(16, equispaced_lines(16, 4, 0.25))(random(1, 1, 16, 16))
    with pytest.raises(InputError, match="not all measured"):
        estimate_sensitivities(kspace, 9)
    with pytest.raises(InputError, match="Give complex"):
        estimate_sensitivities(kspace.real, 4)
    with pytest.raises(InputError, match="17 calibration lines"):
        estimate_sensitivities(kspace, 17)


def test_a_batch_of_another_length_is_refused():
    masks = torch.stack([uniform_lines(8, 2, seed=seed).expand(8, 8) for seed in range(3)])
    operator = CartesianMRI(8, masks)
    for count in (1, 2):
        with pytest.raises(InputError, match=f"each of 3 items; got {count}"):
            operator(random(count, 1, 8, 8))
        with pytest.raises(InputError, match=f"each of 3 items; got {count}"):
            (operator @ AsComplex((1, 8, 8))).adjoint(random(count, 1, 8, 8))
        with pytest.raises(InputError, match=f"each of 3 items; got {count}"):
            OfficialMRI(8, masks)(random(count, 1, 8, 8).real)


def test_masks_that_measure_too_little():
    with pytest.raises(InputError, match="centre alone has 9"):
        mbir_lines(64, 8)
    assert int(mbir_lines(64, 64 / 9, 9 / 64).sum()) == 9
    with pytest.raises(InputError, match="measures nothing"):
        measured_acceleration(torch.zeros(4))

"""DiffusionMBIR's sampler: parity, and what its default promises."""

from __future__ import annotations

import io

import pytest
import torch
from safetensors.torch import load_file

from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.schedule import EDMSchedule, VESchedule
from priorscope.errors import InputError
from priorscope.inverse import (
    AsComplex,
    CartesianMRI,
    FanBeam,
    OfficialMRI,
    OfficialParallelBeam,
    ParallelBeam,
)
from priorscope.inverse.operator import Identity
from priorscope_medical import VolumeState, diffusion_mbir
from priorscope_medical.mbir import _data_weight

VIEWS = [0, 45, 90, 135]


def gaussian(variance=0.04, *, calls=None, mean=0.4):
    """The exact score of pixels that are independent and normal."""
    schedule = VESchedule()

    def score(x, sigma):
        if calls is not None:
            calls.append(len(x))
        return -(x - mean) / (variance + sigma.to(x).view(-1, 1, 1, 1) ** 2)

    return Denoiser(score, schedule, "score", time_label=schedule.sigma)


def phantom(slices=6, size=16):
    """A cylinder whose radius changes slowly from slice to slice."""
    side = torch.linspace(-1, 1, size)
    distance = (side[:, None] ** 2 + side[None] ** 2).sqrt()
    radii = torch.linspace(0.5, 0.8, slices)
    return 0.8 * torch.sigmoid((radii[:, None, None] - distance) * size)[:, None]


def psnr(x, truth):
    return -10 * float(torch.log10((x - truth).square().mean()))


def test_golden_mbir_sampler(golden_files, read_json):
    for path in golden_files("medical", "mbir_full_sampler*.safetensors"):
        stored = load_file(path)
        for case in read_json(path.with_suffix(".json"))["cases"]:
            name, views = case["name"], case["views"]
            operator = OfficialParallelBeam(case["N"], [180 * view / views for view in range(views)])
            draws = sorted(key for key in stored if key.startswith(f"{name}.noise_"))
            noise = Noise.recorded([stored[key] for key in draws])
            y = stored[f"{name}.y"]
            torch.testing.assert_close(operator(stored[f"{name}.vol"]), y, rtol=1e-4, atol=1e-4)
            calls = []
            out = diffusion_mbir(gaussian(calls=calls), operator, y, steps=case["steps"], official=True, noise=noise)
            torch.testing.assert_close(out, stored[f"{name}.out"], rtol=1e-3, atol=1e-3)
            assert calls == [size for size in case["batches"] for _ in range(2)] * case["steps"]
            assert noise.drawn == len(draws)


def test_a_slice_does_not_see_its_batch():
    y = ParallelBeam(8, VIEWS)(phantom(5, 8))
    runs = [diffusion_mbir(gaussian(), ParallelBeam(8, VIEWS), y, steps=20, batch_size=size) for size in (1, 3, 12)]
    for run in runs[1:]:
        torch.testing.assert_close(run, runs[0], rtol=0, atol=1e-5 * float(runs[0].abs().max()))


def test_names_of_slices_fix_their_noise():
    operator, truth = ParallelBeam(8, VIEWS), phantom(4, 8)
    # rho so small that slices do not touch: a slice by itself is what it is in the stack
    options = {"steps": 10, "rho": 1e-12, "weight": 0.0, "consistency": False}
    stack = diffusion_mbir(gaussian(), operator, operator(truth), slices=["a", "b", "c", "d"], seed=3, **options)
    again = diffusion_mbir(gaussian(), operator, operator(truth), slices=["a", "b", "c", "d"], seed=3, **options)
    other = diffusion_mbir(gaussian(), operator, operator(truth), slices=["a", "b", "c", "d"], seed=4, **options)
    assert torch.equal(stack, again)
    assert not torch.allclose(stack, other, atol=1e-3)
    twins = diffusion_mbir(gaussian(), operator, operator(truth[[1, 1]]), slices=["b", "b"], seed=3, **options)
    assert torch.equal(twins[0], twins[1])


def test_calls_of_the_network():
    calls = []
    y = ParallelBeam(8, VIEWS)(phantom(5, 8))
    diffusion_mbir(gaussian(calls=calls), ParallelBeam(8, VIEWS), y, steps=4, batch_size=2)
    # two a level and sub-batch, but one at the last level, whose answer is the denoised estimate
    assert calls == [2, 2, 2, 2, 1, 1] * 3 + [2, 2, 1]


@pytest.mark.parametrize("size", [12, 24])
def test_it_fits_the_measurement_whatever_the_side(size):
    truth = phantom(5, size)
    operator = ParallelBeam(size, list(range(0, 180, 15)))
    y = operator(truth)
    x = diffusion_mbir(gaussian(), operator, y, steps=60)
    assert psnr(x, truth) > psnr(torch.full_like(truth, 0.4), truth) + 6
    assert float((operator(x) - y).norm()) < 0.05 * float(y.norm())
    # the published balance itself is made for 256 pixels: rho keeps the noise of the start
    unscaled = diffusion_mbir(gaussian(), operator, y, steps=60, data_weight=operator.mbir_weight)
    assert psnr(unscaled, truth) < 0


def test_slices_are_coupled_by_total_variation():
    truth = phantom()
    operator = ParallelBeam(16, VIEWS)
    y = operator(truth)
    runs = [diffusion_mbir(gaussian(), operator, y, steps=60, weight=weight) for weight in (1e-9, 0.04, 1.0)]
    steps = [float(run.diff(dim=0).abs().mean()) for run in runs]
    assert steps[0] > steps[1] > 1.5 * steps[2]
    assert psnr(runs[2], truth) > psnr(runs[0], truth) + 1


def test_published_weights_keep_their_meaning():
    """The exact adjoint times pi / (2 views) is nearly the official back-projection: nearly the same volume."""
    truth = phantom(5, 17)  # odd: the official centre is the true one
    angles = [180 * view / 12 for view in range(12)]
    exact, official = ParallelBeam(17, angles, detectors=25), OfficialParallelBeam(17, angles)
    y = exact(truth)
    torch.testing.assert_close(y, official(truth), rtol=1e-4, atol=1e-4)
    first, second = (diffusion_mbir(gaussian(), operator, y, steps=50, seed=1) for operator in (exact, official))
    assert float((first - second).abs().mean()) < 0.03
    unscaled = diffusion_mbir(gaussian(), exact, y, steps=50, seed=1, data_weight=1.0)
    assert float((unscaled - second).abs().mean()) > float((first - second).abs().mean())


@pytest.mark.parametrize("views", [4, 8, 90])
def test_a_fan_beam_is_weighed_like_a_parallel_one(views):
    angles = [180 * view / views for view in range(views)] if views < 90 else list(range(90))
    parallel = ParallelBeam(24, angles)
    expected = parallel.norm(tolerance=1e-3) ** 2 * _data_weight(parallel)
    fan = FanBeam(24, [2 * angle for angle in angles], source_distance=100.0, pixel=0.5)
    assert fan.norm(tolerance=1e-3) ** 2 * _data_weight(fan) == pytest.approx(expected, rel=0.04)
    truth = phantom(3, 24)
    if views == 8:
        x = diffusion_mbir(gaussian(), fan, fan(truth), steps=60)
        assert psnr(x, truth) > psnr(torch.full_like(truth, 0.4), truth) + 5


def test_magnetic_resonance_with_real_images():
    truth = phantom(4, 16)
    mask = torch.zeros(16, dtype=torch.bool)
    mask[[1, 3, 6, 7, 8, 9, 12]] = True
    options = {"steps": 60, "weight": 0.005, "rho": 0.01, "consistency": False}
    runs = [
        diffusion_mbir(gaussian(), operator, operator(truth), **options)
        for operator in (OfficialMRI(16, mask), CartesianMRI(16, mask) @ AsComplex((1, 16, 16)))
    ]
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=1e-3)
    assert psnr(runs[1], truth) > psnr(torch.full_like(truth, 0.4), truth) + 4
    with pytest.raises(InputError, match="real images"):
        diffusion_mbir(gaussian(), CartesianMRI(16, mask), CartesianMRI(16, mask)(truth.cfloat()), **options)


@pytest.mark.parametrize("cut", [1, 7, 11])
def test_a_run_that_was_cut_off_goes_on(cut):
    operator = ParallelBeam(8, VIEWS)
    y = operator(phantom(4, 8))
    states: list[VolumeState] = []
    whole = diffusion_mbir(gaussian(), operator, y, steps=12, callback=states.append)
    assert [state.step for state in states] == list(range(1, 13))
    saved = io.BytesIO()
    torch.save(vars(states[cut - 1]), saved)
    saved.seek(0)
    state = VolumeState(**torch.load(saved, weights_only=True))
    later: list[VolumeState] = []
    resumed = diffusion_mbir(gaussian(), operator, y, steps=12, resume=state, callback=later.append, batch_size=3)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))
    assert [state.step for state in later] == list(range(cut + 1, 13))


def test_the_last_step_divides_by_nothing():
    """Few detectors see a strip: pixels outside keep their value, the official formula divides by 0 there."""
    operator = ParallelBeam(16, [0.0], detectors=4)
    x = diffusion_mbir(gaussian(), operator, operator(phantom(3)), steps=20)
    assert bool(x.isfinite().all())
    official = OfficialParallelBeam(16, VIEWS, circle=True)
    assert bool(diffusion_mbir(gaussian(), official, official(phantom(3)), steps=5, official=True).isfinite().all())


def test_one_slice_and_double_precision():
    operator = ParallelBeam(8, VIEWS)
    y = operator(phantom(1, 8).double())
    x = diffusion_mbir(gaussian(), operator, y, steps=5)
    assert (x.shape, x.dtype) == ((1, 1, 8, 8), torch.float64)


def test_wrong_input():
    operator = ParallelBeam(8, VIEWS)
    y = operator(phantom(3, 8))
    bad = y.clone()
    bad[0, 0, 0, 0] = torch.nan
    fine = VolumeState(2, torch.zeros(3, 1, 8, 8), {})
    cases = [
        ({"y": bad}, "1 values"),
        ({"y": y[..., :3]}, "shape"),
        ({"y": y[:0]}, "0 slices"),
        ({"y": y.long()}, "int64"),
        ({"batch_size": 0}, "batch"),
        ({"steps": 1}, "steps"),
        ({"rho": 0.0}, "rho"),
        ({"snr": -1.0}, "snr"),
        ({"slices": [1, 2]}, "2 names"),
        ({"noise": Noise.shared(0)}, "official"),
        ({"official": True, "resume": fine}, "resumed"),
        ({"resume": VolumeState(2, torch.zeros(2, 1, 8, 8), {})}, "2 slices"),
        ({"resume": VolumeState(9, torch.zeros(3, 1, 8, 8), {})}, "9 of 4"),
        ({"resume": VolumeState(2, torch.full((3, 1, 8, 8), torch.inf), {})}, "go on from"),
        ({"denoiser": Denoiser(lambda x, _: x, EDMSchedule(), "score")}, "EDMSchedule"),
    ]
    for changes, message in cases:
        options = {"denoiser": gaussian(), "operator": operator, "y": y, "steps": 4, **changes}
        with pytest.raises(InputError, match=message):
            diffusion_mbir(**options)


def test_operators_without_a_scale_of_their_own():
    """Everything is measured: the volume comes back, whatever the prior."""
    truth = phantom(4, 8)
    x = diffusion_mbir(gaussian(), Identity((1, 8, 8)), truth, steps=30, weight=1e-6, rho=1e-6)
    torch.testing.assert_close(x, truth, rtol=0, atol=1e-3)

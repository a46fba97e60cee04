"""Patches that agree after every step."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.schedule import VESchedule
from priorscope.diffusion.solvers import ddpm_ancestral
from priorscope.errors import InputError
from priorscope.predictors.patch_consistency import Patched, patch_places, stitch_patches, take_patches

VE = VESchedule(0.01, 10.0)
TIMES = torch.linspace(1, 0, 12).tolist()


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_golden_dehaze_processing_patches(golden_files, read_json):
    seen = 0
    for path in golden_files("medical", "dehaze_processing*.safetensors"):
        data = load_file(path)
        images = data["patch.img"].permute(0, 3, 1, 2)
        for case in read_json(path.with_suffix(".json"))["cases"]:
            if "patch" not in case:
                continue
            name, size = f"patch{case['patch']}", tuple(case["patch_shape"])
            places = patch_places(images.shape, size, tuple(case["overlap"] or (0, 0)), official=True)
            expected = data[f"{name}.patches"]  # image, row, column, h, w, channel
            patches = take_patches(images, places, size)
            laid_out = patches.unflatten(0, (*expected.shape[1:3], -1)).permute(2, 0, 1, 4, 5, 3)
            torch.testing.assert_close(laid_out, expected, rtol=0, atol=1e-6)
            for blend in ("average", "hann", "replace"):
                whole = stitch_patches(patches, places, images.shape, blend=blend).permute(0, 2, 3, 1)
                torch.testing.assert_close(whole, data[f"{name}.{blend}"], rtol=0, atol=1e-6)
            seen += 1
    assert seen == 3


@pytest.mark.parametrize("blend", ["feather", "replace", "average", "hann"])
@pytest.mark.parametrize("shape", [(20, 28), (8, 8), (23, 9)])
def test_stitching_gives_back_what_was_taken_apart(blend, shape):
    images = randn(2, 3, *shape)
    places = patch_places(shape, (8, 8), (3, 2))
    back = stitch_patches(take_patches(images, places, (8, 8)), places, images.shape, blend=blend)
    torch.testing.assert_close(back, images)


def test_a_later_patch_wins_and_a_feather_crosses_over():
    places = patch_places((4, 10), (4, 6), (0, 2))
    patches = torch.stack([torch.zeros(1, 4, 6), torch.ones(1, 4, 6)]).double()
    row = stitch_patches(patches, places, (1, 1, 4, 10), blend="replace")[0, 0, 0]
    assert row.tolist() == [0] * 4 + [1] * 6
    row = stitch_patches(patches, places, (1, 1, 4, 10), blend="feather")[0, 0, 0]
    assert row[:4].tolist() == [0] * 4
    assert row[6:].tolist() == [1] * 4
    assert 0 < row[4] < 0.5 < row[5] < 1
    assert row[4] + row[5] == pytest.approx(1.0)


def local():
    """A denoiser that looks at each pixel alone, so that patches cannot matter."""
    return Denoiser(lambda x, label: x / (0.3 + VE.sigma(label).view(-1, 1, 1, 1) ** 2).sqrt(), VE)


def mean_seeker():
    """A denoiser that pulls towards the mean of what it is shown, so that patches matter."""
    return Denoiser(lambda x, label: (x - x.mean((2, 3), keepdim=True)) / VE.sigma(label).view(-1, 1, 1, 1), VE)


@pytest.mark.parametrize("blend", ["feather", "replace"])
def test_what_looks_at_pixels_alone_is_not_changed_by_patches(blend):
    x = randn(2, 1, 20, 17)
    model = local()
    for t in (0.4, torch.tensor([0.4, 0.6])):
        whole = model(x, t)
        patched = Patched(model, (8, 6), (2, 2), blend=blend, batch_size=5)(x, t)
        torch.testing.assert_close(patched.x0, whole.x0)
        torch.testing.assert_close(patched.eps, whole.eps)


def test_replacing_equals_patches_that_run_apart_and_copy_their_overlaps():
    """The published loop, written out: patches as a batch, and the overlaps copied after each step."""
    image, size = (10, 16), (10, 7)
    places = patch_places(image, size, (0, 3))
    model, noises = mean_seeker(), [randn(1, 1, *image, seed=index) for index in range(1, 12)]
    start = randn(1, 1, *image)
    inside = sample(
        Patched(model, size, (0, 3), blend="replace"), start, TIMES, step=ddpm_ancestral, noise=Noise.recorded(noises)
    )

    def agree(patches):
        whole = torch.zeros(1, 1, *image).double()
        for (top, left), patch in zip(places, patches, strict=True):
            whole[0, :, top : top + size[0], left : left + size[1]] = patch
        return take_patches(whole, places, size)

    apart = sample(
        model,
        take_patches(start, places, size),
        TIMES,
        step=ddpm_ancestral,
        noise=Noise.recorded([take_patches(noise, places, size) for noise in noises]),
        correct=lambda x, s: agree(x),
    )
    torch.testing.assert_close(apart, take_patches(inside, places, size))
    assert (sample(model, start, TIMES, step=ddpm_ancestral, noise=Noise.recorded(noises)) - inside).abs().max() > 0.1


def test_gradients_go_through_patches():
    x = randn(1, 1, 9, 12).requires_grad_(True)
    model = Patched(mean_seeker(), (5, 6), (2, 3))
    (gradient,) = torch.autograd.grad(model(x, 0.5).x0.square().sum(), x)
    step = 1e-6
    bumped = x.detach().clone()
    bumped[0, 0, 4, 5] += step
    numeric = (model(bumped, 0.5).x0.square().sum() - model(x.detach(), 0.5).x0.square().sum()) / step
    assert gradient[0, 0, 4, 5] == pytest.approx(float(numeric), rel=1e-4)


def test_each_patch_is_told_its_own_images_condition():
    seen = []

    def network(x, label, shift):
        seen.append((x - shift.view(-1, 1, 1, 1)).abs().max())
        return x

    x = torch.stack([torch.full((1, 6, 6), 1.0), torch.full((1, 6, 6), 2.0)])
    condition = Condition({"shift": torch.tensor([1.0, 2.0])})
    Patched(Denoiser(network, VE), (4, 4), (2, 2), batch_size=3)(x, 0.5, condition)
    assert len(seen) == 3
    assert max(seen) == 0


def test_refusals():
    with pytest.raises(InputError, match="in an image of 6 x 9"):
        patch_places((6, 9), (8, 8))
    with pytest.raises(InputError, match="cannot overlap"):
        patch_places((20, 20), (8, 8), (8, 0))
    with pytest.raises(InputError, match="blend"):
        Patched(local(), (8, 8), (2, 2), blend="glue")
    with pytest.raises(InputError, match="3 patches"):
        stitch_patches(randn(3, 1, 8, 8), [(0, 0)], (1, 1, 8, 8))

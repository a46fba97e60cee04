"""Geometry, tiling, ensembling: each against a case that can be worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from priorscope import InputError
from priorscope.backbones import PatchSpace
from priorscope.diffusion import Condition, Denoiser, Noise, VPSchedule
from priorscope.predictors import (
    Geometry,
    LatentPredictor,
    ensemble_affine,
    ensemble_normals,
    predict_tiled,
    resize,
    tile_starts,
)


@pytest.mark.parametrize(
    ("size", "resolution", "expected"),
    [
        ((480, 640), 768, (576, 768)),
        ((480, 640), 0, (480, 640)),
        ((4032, 6048), 768, (512, 768)),
        ((20000, 10), 768, (768, 1)),
        ((1, 1), 768, (768, 768)),
        ((45, 61), 64, (47, 64)),
    ],
)
def test_processing_sizes(size, resolution, expected):
    geometry = Geometry(resolution)
    assert geometry.processing_size(*size) == expected
    image, frame = geometry.prepare(torch.rand(1, 3, *size))
    assert image.shape[-2] % 8 == image.shape[-1] % 8 == 0
    assert frame.processed == expected
    assert geometry.restore(image, frame).shape[-2:] == size


def test_official_size_is_a_float_product():
    assert Geometry.lotus(768).processing_size(47, 20) == (767, 326)
    assert Geometry(768).processing_size(47, 20) == (768, 326)
    assert Geometry(768, upscale=False).processing_size(47, 20) == (47, 20)


def test_padding_is_replicated_and_taken_off():
    image = torch.rand(2, 3, 13, 17)
    padded, frame = Geometry(0).prepare(image)
    assert padded.shape[-2:] == (16, 24)
    assert torch.equal(padded[..., 13:, :17], image[..., 12:13, :].expand(-1, -1, 3, -1))
    assert torch.equal(padded[..., :13, 17:], image[..., 16:17].expand(-1, -1, -1, 7))
    assert torch.equal(Geometry(0).restore(padded, frame), image)


@pytest.mark.parametrize(("length", "tile", "overlap"), [(100, 40, 8), (100, 100, 10), (41, 40, 8), (1000, 64, 16)])
def test_tiles_cover_evenly(length, tile, overlap):
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] + min(tile, length) == length
    steps = [b - a for a, b in pairwise(starts)]
    assert all(step <= tile - overlap for step in steps)
    assert max(steps, default=0) - min(steps, default=0) <= 1


def test_tiling_is_exact_for_local_functions():
    image = torch.rand(1, 3, 90, 130)
    local = lambda x: x[:, :2] * 2 + 1  # noqa: E731
    for batch_size in (1, 3):
        tiled = predict_tiled(image, local, tile=48, overlap=16, batch_size=batch_size)
        torch.testing.assert_close(tiled, local(image), rtol=1e-5, atol=1e-6)
    small = predict_tiled(image, local, tile=200, overlap=16)
    torch.testing.assert_close(small, local(image))
    with pytest.raises(InputError):
        predict_tiled(image, local, tile=16, overlap=16)


def test_tiles_are_averaged_by_count():
    """Two tiles of 40 on 60 pixels: the 20 they share are the plain mean, where feathering goes over gradually."""
    image = torch.cat([torch.zeros(1, 1, 40, 20), torch.ones(1, 1, 40, 40)], dim=-1)

    def brightest(x):
        return x.amax(dim=(2, 3), keepdim=True) + x.amin(dim=(2, 3), keepdim=True) + torch.zeros_like(x)

    counted = predict_tiled(image, brightest, tile=40, overlap=20, blend="count")
    expected = torch.cat([torch.full((20,), value) for value in (1.0, 1.5, 2.0)])
    torch.testing.assert_close(counted[0, 0, 0], expected)
    feathered = predict_tiled(image, brightest, tile=40, overlap=20)[0, 0, 0]
    assert (feathered.diff()[19:40] > 0).all()
    with pytest.raises(InputError, match="blended"):
        predict_tiled(image, brightest, tile=40, overlap=20, blend="max")


def test_tiles_of_affine_invariant_predictions_are_aligned():
    """Each tile comes with its own scale and shift; with a reference the blend has none left."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 90, 130, generator=generator)

    def predict(x):
        scale, shift = 0.5 + torch.rand(2, generator=generator)
        return scale * x + shift

    tiled = predict_tiled(image, predict, tile=48, overlap=16, reference=image)
    torch.testing.assert_close(tiled, image, rtol=1e-5, atol=1e-5)
    assert (predict_tiled(image, predict, tile=48, overlap=16) - image).abs().max() > 0.1
    # a tile that contradicts the whole is replaced by it
    torch.testing.assert_close(predict_tiled(image, lambda x: -x, tile=48, overlap=16, reference=image), image)


def test_affine_ensemble_undoes_scales_and_shifts():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(1, 1, 24, 32, generator=generator)
    truth = (truth - truth.min()) / (truth.max() - truth.min())
    scale, shift = torch.rand(2, 5, 1, 1, 1, generator=generator)
    members = (0.2 + scale) * truth + shift
    members[4, :, :4] = 1.7  # one member has an outlier region: the median ignores it
    prediction, uncertainty = ensemble_affine(members)
    assert (prediction - truth).abs().max() < 0.02
    assert prediction.min() == 0
    assert prediction.max() == pytest.approx(1.0)
    assert uncertainty.shape == (1, 1, 24, 32)
    single, nothing = ensemble_affine(members[:1])
    torch.testing.assert_close(single, truth, atol=1e-5, rtol=1e-5)
    assert nothing.max() == 0
    for wrong in (members[0], members * float("nan"), members.expand(-1, 2, -1, -1)):
        with pytest.raises(InputError):
            ensemble_affine(wrong)


def test_normals_ensemble():
    z = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
    x = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    members = torch.cat([z, z, x]).expand(3, 3, 2, 2)
    closest, uncertainty = ensemble_normals(members)
    torch.testing.assert_close(closest, z.expand(1, 3, 2, 2))
    mean, _ = ensemble_normals(members, reduction="mean")
    torch.testing.assert_close(mean[0, :, 0, 0], torch.tensor([1.0, 0.0, 2.0]) / 5**0.5)
    angles = torch.tensor([1.0, 1.0, 2.0]) / 5**0.5
    expected = (2 * torch.arccos(angles[2]) + torch.arccos(angles[0])) / 3 / torch.pi
    torch.testing.assert_close(uncertainty[0, 0, 0, 0], expected)


def toy_predictor(*, times, inputs=("image", "x"), posterior="mode"):
    def network(x, label, image):
        return 0.5 * image + (0.1 * x if "x" in inputs else 0.0)

    schedule = VPSchedule.from_betas(zero_terminal_snr=True)
    return LatentPredictor(Denoiser(network, schedule, "sample"), PatchSpace(4), Condition(), times)


def test_latent_predictor_regresses_and_samples():
    image = torch.rand(3, 3, 16, 24) * 2 - 1
    regression = toy_predictor(times=[999.0])
    torch.testing.assert_close(regression(image), 0.5 * image)
    assert not regression.stochastic
    generative = toy_predictor(times=[999.0, -1.0])
    noise = Noise.per_item([1, 2, 3]).draw((3, 48, 4, 6))
    torch.testing.assert_close(
        generative(image, Noise.per_item([1, 2, 3])),
        PatchSpace(4).decode(0.5 * PatchSpace(4).encode(image) + 0.1 * noise),
    )
    members = generative(image, Noise.per_item(range(6)), members=2)
    assert members.shape == (6, 3, 16, 24)
    assert not torch.equal(members[0], members[1])
    with pytest.raises(InputError, match="noise"):
        generative(image)


def test_resize_is_the_identity_at_its_own_size():
    image = torch.rand(1, 3, 5, 7)
    assert resize(image, (5, 7)) is image


@pytest.mark.parametrize("wrong", [lambda: Geometry(-1), lambda: tile_starts(10, 4, 4), lambda: PatchSpace(0)])
def test_wrong_arguments(wrong):
    with pytest.raises(InputError):
        wrong()

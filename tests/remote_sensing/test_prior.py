"""The small prior: its latent space, its folder, its features, and SatDiFuser on top of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import SENTINEL2, BandRecipe
from priorscope_remote_sensing.data.terrain import terrain_patches
from priorscope_remote_sensing.decoder import DecoderConfig
from priorscope_remote_sensing.metadata import Metadata
from priorscope_remote_sensing.models import build_decoder
from priorscope_remote_sensing.prior import ReflectanceSpace, TerrainPrior
from priorscope_remote_sensing.satdifuser import SatDiFuserModel
from priorscope_remote_sensing.settings import SatDiFuserSettings
from priorscope_remote_sensing.table import find_backbone


@pytest.fixture(scope="module")
def space() -> ReflectanceSpace:
    return ReflectanceSpace(np.linspace(-4, -1, 13).tolist(), np.linspace(0.3, 0.7, 13).tolist())


@pytest.fixture(scope="module")
def prior(space: ReflectanceSpace) -> TerrainPrior:
    return TerrainPrior.new(space, seed=3)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.from_numpy(terrain_patches(2, 5, size=24))


def test_latents_are_standardised_logarithms_of_blocks(space: ReflectanceSpace, images: torch.Tensor) -> None:
    latents = space.encode(images)
    assert latents.shape == (2, 52, 12, 12)
    # band 3, second row and first column of the block at (5, 7)
    expected = (np.log(float(images[1, 3, 11, 14]) + 0.01) - space.mean[3]) / space.std[3]
    assert float(latents[1, 4 * 3 + 2, 5, 7]) == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(space.decode(latents), images, atol=1e-6, rtol=1e-4)


def test_reflectance_below_zero_is_black(space: ReflectanceSpace) -> None:
    torch.testing.assert_close(space.encode(torch.full((1, 13, 2, 2), -0.3)), space.encode(torch.zeros(1, 13, 2, 2)))


@pytest.mark.parametrize(
    ("image", "fact"),
    [
        (torch.zeros(1, 12, 8, 8), "expected"),
        (torch.zeros(13, 8, 8), "expected"),
        (torch.zeros(0, 13, 8, 8), "expected"),
        (torch.full((1, 13, 8, 8), float("nan")), "NaN"),
        (torch.zeros(1, 13, 8, 8, dtype=torch.uint8), "floating-point"),
        (torch.zeros(1, 13, 8, 7), "divide"),
    ],
)
def test_wrong_images_are_refused(space: ReflectanceSpace, image: torch.Tensor, fact: str) -> None:
    with pytest.raises(InputError, match=fact):
        space.encode(image)


@pytest.mark.parametrize(
    "changed", [{"mean": [0.0] * 12}, {"std": [0.0] * 13}, {"patch": 0}, {"offset": 0.0}, {"bands": ("B04",)}]
)
def test_wrong_spaces_are_refused(changed: dict[str, object]) -> None:
    with pytest.raises(InputError):
        ReflectanceSpace(**({"mean": [0.0] * 13, "std": [1.0] * 13} | changed))  # type: ignore[arg-type]


def test_features_depend_on_the_image_alone(prior: TerrainPrior, images: torch.Tensor) -> None:
    maps = prior.features(images, levels=(20.0, 100.0), ensemble=2)
    assert list(maps) == [20.0, 100.0]
    assert [tuple(value.shape) for value in maps[20.0].values()] == [
        *((2, 56, 3, 3),) * 2,
        *((2, 56, 6, 6),) * 2,
        *((2, 48, 12, 12),) * 2,
    ]
    alone = prior.features(images[1:], levels=(100.0,), ensemble=2)[100.0]
    for name, value in alone.items():
        torch.testing.assert_close(value[0], maps[100.0][name][1], atol=1e-5, rtol=1e-4)
    assert not torch.equal(maps[20.0]["up_blocks_2_resnets_1"], maps[100.0]["up_blocks_2_resnets_1"])


def test_folder_gives_the_same_prior(prior: TerrainPrior, images: torch.Tensor, tmp_path: Path) -> None:
    prior.save_pretrained(tmp_path / "p")
    again = TerrainPrior.from_pretrained(tmp_path / "p", device="cpu")
    assert again.latents.to_dict() == prior.latents.to_dict()
    names = ["a", "b"]
    for name, value in again.features(images, items=names)[20].items():
        assert torch.equal(value, prior.features(images, items=names)[20][name]), name


def test_damaged_folders_are_refused(prior: TerrainPrior, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    prior.save_pretrained(folder, half=True)
    settings = folder / "vae/config.json"
    good = settings.read_text()
    for changed, fact in [
        ({"_class_name": "AutoencoderKL"}, "no prior of reflectance"),
        ({"tiles": 3}, "unknown"),
        ({"patch": 1}, "in_channels"),
        ({"std": [1.0]}, "deviations"),
    ]:
        settings.write_text(json.dumps(json.loads(good) | changed))
        with pytest.raises(InputError, match=fact):
            TerrainPrior.from_pretrained(folder, device="cpu")
    settings.write_text(good)
    schedule = folder / "scheduler/scheduler_config.json"
    good = schedule.read_text()
    schedule.write_text(json.dumps(json.loads(good) | {"prediction_type": "epsilon"}))
    with pytest.raises(InputError, match="scheduler: predicts epsilon"):
        TerrainPrior.from_pretrained(folder, device="cpu")
    schedule.write_text(good)
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError):
        TerrainPrior.from_pretrained(folder, device="cpu")
    with pytest.raises(InputError, match=r"no model is called 'tiny-ocean'.*Did you mean tiny-terrain"):
        TerrainPrior.from_pretrained("tiny-ocean", device="cpu")


def test_metadata_is_refused(prior: TerrainPrior) -> None:
    with pytest.raises(InputError, match="metadata"):
        prior.condition(metadata=Metadata())


@pytest.mark.parametrize("fuser", ["gw", "lw", "moe"])
def test_satdifuser_stands_on_it(prior: TerrainPrior, images: torch.Tensor, tmp_path: Path, fuser: str) -> None:
    prior.save_pretrained(tmp_path / "p")
    backbone = TerrainPrior.from_pretrained(tmp_path / "p", device="cpu")
    settings = SatDiFuserSettings(
        task="classification",
        classes=("a", "b", "c"),
        bands=BandRecipe(SENTINEL2),
        backbone="tiny-terrain",
        image_size=24,
        mean=0.0,
        std=1.0,
        prompt="",
    )
    extractor = backbone.extractor("satdifuser", levels=(21.0, 61.0))
    widths = tuple(
        tuple(value.shape[1] for value in maps)
        for maps in _grouped(extractor.extract_latents(backbone.latents.posterior(images), items=["a", "b"])[21.0])
    )
    config = DecoderConfig(
        fuser,  # type: ignore[arg-type]
        "classification",
        3,
        taps=widths,
        save_steps=(47, 45),
        projection_dim=16,
        norm_groups=4,
    )
    model = SatDiFuserModel(build_decoder(config), settings)
    taken = model.features(model.extractor(backbone), images)  # type: ignore[arg-type]
    probabilities = model.probabilities(taken)
    assert probabilities.shape == (2, 3)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))


def test_bundled_prior_predicts_better_than_no_prior() -> None:
    prior = TerrainPrior.from_pretrained("tiny-terrain", device="cpu")
    assert prior.latents.bands == SENTINEL2
    x0 = prior.latents.encode(torch.from_numpy(terrain_patches(4, 99, size=32)))
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    for t, share in ((60.0, 0.95), (300.0, 0.7), (700.0, 0.8)):
        with torch.no_grad():
            found = prior.denoiser(prior.denoiser.schedule.add_noise(x0, t, eps), t, prior.condition()).x0
        alpha, sigma = prior.denoiser.schedule(t)
        # the best of a normal prior without neighbours or other bands: its variance is 1 by the standardisation
        linear = (alpha * alpha * x0 + alpha * sigma * eps) / (alpha**2 + sigma**2)
        assert (found - x0).square().mean() < share * (linear - x0).square().mean(), t


def test_bundled_prior_is_small() -> None:
    folder = find_backbone("tiny-terrain")
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 3 * 2**20
    assert "_name_or_path" not in json.loads((folder / "unet/config.json").read_text())
    assert (folder / "README.md").is_file()


def _grouped(maps: dict[str, torch.Tensor]) -> list[list[torch.Tensor]]:
    """Taps by scale, the widest first."""
    sizes = sorted({value.shape[-1] for value in maps.values()}, reverse=True)
    return [[value for value in maps.values() if value.shape[-1] == size] for size in sizes]


def test_a_cache_tells_spaces_of_other_statistics_apart():
    described = [ReflectanceSpace([m] * 13, [s] * 13).describe() for m, s in ((-2.0, 1.0), (-2.5, 1.0), (-2.0, 0.5))]
    assert all(one != other for place, one in enumerate(described) for other in described[:place])
    assert described[0] == ReflectanceSpace([-2.0] * 13, [1.0] * 13).describe()
    assert json.dumps(described)

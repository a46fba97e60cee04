"""Training: exact targets, views fixed by their seed, a run that survives, and a network that learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from priorscope import InputError
from priorscope_depth.augmentation import batch_shape, random_view
from priorscope_depth.configs import TrainConfig
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.scenes import HELD_OUT_SEED, write_scenes
from priorscope_depth.targets import truncated_disparity
from priorscope_depth.train import learning_rate, new_predictor, relative_l1, save_model, train


@pytest.fixture(scope="module")
def scenes_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, range(16), height=48, width=64, supersample=1, progress=False)
    return folder


def small_config(scenes_folder, out, **changes):
    config = TrainConfig(
        out=out,
        scenes=scenes_folder,
        count=0,
        size=64,
        steps=6,
        batch_size=4,
        validation=0,
        log_every=1,
        checkpoint_every=2,
        warmup=2,
        device="cpu",
    )
    return replace(config, **changes)


def losses(out):
    from priorscope.evaluation.run_folder import RunFolder

    return [(row["step"], row["loss"]) for row in RunFolder(out).history()]


def test_truncated_disparity_is_linear_between_the_quantiles():
    depth = 1.0 / torch.linspace(0.1, 1.1, 101).reshape(1, 1, 101)
    target = truncated_disparity(depth)
    assert target.shape == (1, 1, 1, 101)
    # the quantiles 0.02 and 0.98 of 0.1 ... 1.1 are 0.12 and 1.08
    expected = ((torch.linspace(0.1, 1.1, 101) - 0.12) / (0.96 + 1e-5) - 0.5) * 2
    torch.testing.assert_close(target[0, 0, 0], expected.clamp(-1, 1), atol=1e-5, rtol=0)
    sky = depth.clone()
    sky[..., :50] = 0
    assert torch.equal(truncated_disparity(sky)[0, 0, 0, :50], torch.full((50,), -1.0))
    with pytest.raises(InputError):
        truncated_disparity(depth[0])


def test_relative_l1_weighs_far_pixels_more():
    target = torch.tensor([[[-1.0, 1.0, -1.0]]])
    known = torch.tensor([[[True, True, False]]])
    weights = torch.tensor([1 / 0.15, 1 / 1.15, 1.0])
    for place in range(3):
        predicted = target.clone()
        predicted[0, 0, place] += 0.3
        expected = 0.3 * weights[place] / weights.sum()
        torch.testing.assert_close(relative_l1(predicted, target, known), expected)


def test_views_are_fixed_by_their_generator_and_keep_depth():
    rgb = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    depth = np.full((48, 64), 3.0, np.float32)
    depth[:, 32:] = 5.0
    first = random_view(rgb, depth, (32, 32), np.random.default_rng([1, 2, 3]))
    again = random_view(rgb, depth, (32, 32), np.random.default_rng([1, 2, 3]))
    other = random_view(rgb, depth, (32, 32), np.random.default_rng([1, 2, 4]))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (3, 32, 32)
    assert 0 <= first[0].min() <= first[0].max() <= 1
    assert set(first[1].unique().tolist()) <= {3.0, 5.0}
    shapes = {batch_shape(192, 256, np.random.default_rng(i), 16) for i in range(40)}
    assert shapes == {(192, 256), (192, 192), (144, 256), (112, 256)}


def test_learning_rate_warms_up_and_falls():
    config = TrainConfig(steps=100, warmup=10)
    assert learning_rate(0, config) == pytest.approx(0.1)
    assert learning_rate(10, config) == pytest.approx(1.0)
    assert learning_rate(55, config) == pytest.approx(0.505)
    assert learning_rate(100, config) == pytest.approx(0.01)


def test_a_stopped_run_goes_on_with_the_same_losses(scenes_folder, tmp_path):
    whole = tmp_path / "whole"
    train(small_config(scenes_folder, whole))
    parts = tmp_path / "parts"
    # stops after its first step, as a run that is out of time does
    train(small_config(scenes_folder, parts, max_seconds=1e-9))
    assert [step for step, _ in losses(parts)] == [1]
    model = train(small_config(scenes_folder, parts, resume=True))
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=1e-6)
    first = DepthPredictor.from_pretrained(whole / "model", device="cpu")
    second = DepthPredictor.from_pretrained(model, device="cpu")
    picture = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    np.testing.assert_allclose(first(picture).values, second(picture).values, atol=1e-3)
    assert (second.space, second.geometry.resolution, second.name) == ("disparity", 64, str(model))
    with pytest.raises(InputError, match="lr"):
        train(small_config(scenes_folder, parts, resume=True, lr=0.5))
    with pytest.raises(InputError, match="resume"):
        train(small_config(scenes_folder, parts))


def test_a_saved_model_is_the_model(tmp_path):
    predictor = new_predictor(3)
    unet = predictor.latent.denoiser.network.unet.eval()
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    before = predictor(picture)
    folder = save_model(predictor, unet.state_dict(), tmp_path / "model", half=False)
    loaded = DepthPredictor.from_pretrained(folder, device="cpu")
    np.testing.assert_allclose(loaded(picture).values, before.values, atol=1e-6)
    assert sum(p.numel() for p in unet.parameters()) < 1_500_000
    half = save_model(predictor, unet.state_dict(), tmp_path / "half")
    assert sum(f.stat().st_size for f in half.rglob("*") if f.is_file()) < 3_000_000
    np.testing.assert_allclose(predictor(picture).values, before.values, atol=1e-6)  # saving changed nothing


def test_training_learns(scenes_folder, tmp_path):
    train(small_config(scenes_folder, tmp_path / "run", steps=60, batch_size=8, warmup=5, lr=2e-3))
    curve = [loss for _, loss in losses(tmp_path / "run")]
    assert np.mean(curve[-10:]) < 0.8 * np.mean(curve[:5])


@pytest.mark.parametrize(
    "changes",
    [{"log_every": 0}, {"lr": -1.0}, {"steps": 0}, {"size": 5}, {"ema": 1.0}, {"count": -1}, {"model": "no-such"}],
)
def test_a_mistake_leaves_nothing_behind(scenes_folder, tmp_path, changes):
    with pytest.raises(InputError) as error:
        train(small_config(scenes_folder, tmp_path / "run", **changes))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_wrong_requests(scenes_folder, tmp_path):
    with pytest.raises(InputError, match="no scenes"):
        train(small_config(tmp_path / "nothing", tmp_path / "a"))
    with pytest.raises(InputError, match="batch"):
        train(small_config(scenes_folder, tmp_path / "b", batch_size=17))
    held_out = tmp_path / "held_out"
    write_scenes(held_out, [HELD_OUT_SEED], height=48, width=64, supersample=1, progress=False)
    with pytest.raises(InputError, match="held-out"):
        train(small_config(held_out, tmp_path / "c", batch_size=1))

"""Zero-shot classification: the official runs, and a denoiser whose posterior is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope.backbones.stable_diffusion import UNetNetwork
from priorscope.diffusion import Condition, Denoiser, Noise, VPSchedule
from priorscope.errors import InputError
from priorscope.features.classification import Elimination, classify

SCHEDULE = VPSchedule.from_betas("scaled_linear")


def tiny_unet(golden_files, read_json, name="unet_tiny_sd2"):
    from diffusers import UNet2DConditionModel

    path = golden_files("features", f"{name}.safetensors")[0]
    unet = UNet2DConditionModel(**read_json(path.with_suffix(".json"))["config"])
    unet.load_state_dict({key.removeprefix("w."): value for key, value in load_file(path).items()})
    return unet.eval()


def test_golden_diffusion_classifier(golden_files, read_json):
    for path in golden_files("features", "diffusion_classifier*.safetensors"):
        stored, golden = load_file(path), read_json(path.with_suffix(".json"))
        model = Denoiser(UNetNetwork(tiny_unet(golden_files, read_json)), SCHEDULE)
        classes = Condition({"text": stored["text"]})
        cases = {name: case for name, case in golden["expected"].items() if name.startswith("case")}
        assert cases
        for name, case in cases.items():
            plan = Elimination(tuple(case["n_samples"]), tuple(case["to_keep"]), case["n_trials"], case["loss"])
            noise = Noise.recorded([stored[f"{name}.noise"]])
            found = classify(model, stored["latent"], classes, plan, noise=noise, batch_size=case["batch_size"])
            assert found.label == case["pred"]
            assert found.calls == sum(each["n_unet"] for each in case["rounds"])
            for row, errors in enumerate(found.errors):
                official = stored[f"{name}.p{row}.err"].numpy()
                assert np.array_equal(found.levels[: len(errors)], stored[f"{name}.p{row}.t"].numpy())
                np.testing.assert_allclose(errors, official, rtol=1e-4)
                assert found.mean_errors[row] == pytest.approx(case["mean_error"][str(row)], rel=1e-4)
        for counts, rounds in golden["expected"]["t_schedules"].items():
            samples = tuple(int(count) for count in counts.strip("[]").split(","))
            ours = Elimination(samples, (2,) * (len(samples) - 1) + (1,)).levels()
            for levels, official in zip(ours, rounds, strict=True):
                if "..." in official:
                    shown = official.index("...")
                    assert levels[:shown] == official[:shown]
                    assert len(levels) == official[-1]
                else:
                    assert levels == official


class Means:
    """The exact denoiser of Gaussians N(mean_c, I) in any parametrisation: E[eps | x] = sigma (x - alpha mean)."""

    def __init__(self, prediction_type):
        self.prediction_type = prediction_type

    def __call__(self, x, label, mean):
        alpha, sigma = SCHEDULE.coefficients(label.double(), x)
        eps = sigma * (x - alpha * mean)
        x0 = (x - sigma * eps) / alpha
        return {"epsilon": eps, "sample": x0, "v": alpha * eps - sigma * x0}[self.prediction_type]


MEANS = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 2, 4, 4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v", "sample"])
def test_the_nearest_gaussian_wins(prediction_type):
    model = Denoiser(Means(prediction_type), SCHEDULE, prediction_type)
    classes = Condition({"mean": MEANS.double()})
    plan = Elimination((4, 8), (3, 1))
    for row in range(5):
        latent = MEANS[row : row + 1].double() + 0.1
        found = classify(model, latent, classes, plan, batch_size=7)
        assert found.label == row
        assert len(found.errors[row]) == 8
    # every parametrisation is compared as noise
    reference = classify(Denoiser(Means("epsilon"), SCHEDULE), latent, classes, plan)
    np.testing.assert_allclose(found.errors[4], reference.errors[4], rtol=1e-5)


def test_the_batch_changes_nothing_and_the_seed_is_fixed():
    model, classes = Denoiser(Means("epsilon"), SCHEDULE), Condition({"mean": MEANS})
    first, second = (
        classify(model, MEANS[1], classes, Elimination((6,), (1,), trials=2), batch_size=size) for size in (1, 60)
    )
    for ours, theirs in zip(first.errors, second.errors, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_significance_stops_early_without_a_worse_answer():
    model, classes = Denoiser(Means("epsilon"), SCHEDULE), Condition({"mean": MEANS})
    samples, keep = (10, 20, 50, 100), (5, 5, 5, 1)
    stopped = classify(model, MEANS[2], classes, Elimination(samples, keep, significance=0.01))
    full = classify(model, MEANS[2], classes, Elimination(samples, keep))
    assert stopped.label == full.label == 2
    assert full.calls == 500
    assert stopped.calls < 250


def test_significance_keeps_what_cannot_be_told_apart():
    """Two equal classes: both stay to the end, the far one goes."""
    model = Denoiser(Means("epsilon"), SCHEDULE)
    classes = Condition({"mean": torch.stack([MEANS[0], MEANS[0], MEANS[4]])})
    found = classify(model, MEANS[0], classes, Elimination((10, 20, 40), (3, 3, 1), significance=0.01))
    assert [len(errors) for errors in found.errors][:2] == [40, 40]
    assert len(found.errors[2]) < 40


@pytest.mark.parametrize("samples", [(1,), (4, 10, 20), (3, 7, 13, 50), (1, 999), (1000,)])
def test_levels_are_new_each_round_and_spread_over_the_schedule(samples):
    rounds = Elimination(samples, (2,) * (len(samples) - 1) + (1,)).levels()
    every = [level for new in rounds for level in new]
    assert len(set(every)) == len(every) == samples[-1]
    assert 0 <= min(every) <= max(every) < 1000
    assert len(rounds[0]) == samples[0]
    assert abs(sum(rounds[0]) / len(rounds[0]) - 500) <= 500 / samples[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"samples": (), "keep": ()},
        {"samples": (5, 5), "keep": (2, 1)},
        {"samples": (0, 5), "keep": (2, 1)},
        {"samples": (5, 9), "keep": (2, 2)},
        {"samples": (5, 9), "keep": (1,)},
        {"loss": "l3"},
        {"trials": 0},
        {"significance": 1.5},
    ],
)
def test_wrong_plans(settings):
    with pytest.raises(InputError):
        Elimination(**settings)


def test_wrong_input():
    model, classes, plan = Denoiser(Means("epsilon"), SCHEDULE), Condition({"mean": MEANS}), Elimination((2,), (1,))
    with pytest.raises(InputError, match="steps"):
        Elimination((2000,), (1,)).levels(1000)
    for latent in (torch.zeros(2, 2, 4, 4), torch.zeros(4, 4), torch.full((2, 4, 4), torch.nan), MEANS[0].numpy()):
        with pytest.raises(InputError, match="latent"):
            classify(model, latent, classes, plan)
    with pytest.raises(InputError, match="no classes"):
        classify(model, MEANS[0], Condition({"mean": MEANS[:1]}, shared=["mean"]), plan)
    with pytest.raises(InputError, match="network gives NaN"):
        classify(model, MEANS[0], Condition({"mean": MEANS * torch.nan}), plan)
    with pytest.raises(InputError, match="batch size"):
        classify(model, MEANS[0], classes, plan, batch_size=0)

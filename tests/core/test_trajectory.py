"""Trajectory variance: the official toy runs and their scores, and what it watches."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from priorscope import InputError
from priorscope.diffusion import (
    ClassifierFreeGuidance,
    Condition,
    Constrained,
    Denoiser,
    InBatches,
    Noise,
    Prediction,
    StepInfo,
    TrajectoryVariance,
    VPSchedule,
    ddim,
    ddpm_ancestral,
    heun,
    sample,
    spaced_times,
)

TOY = VPSchedule.from_betas("linear", beta_start=1e-3, beta_end=0.2, num_steps=60)


def replayed(pred_x0):
    """A model that gives back stored x0 (B, steps, ...) step by step."""

    class Replay:
        schedule = TOY

        def __call__(self, x, t, condition=None, info=None):
            return Prediction(pred_x0[:, info.index], x)

    return Replay()


def test_golden_hallucination(golden_files):
    for path in golden_files("features", "hallucination_*.safetensors"):
        data = load_file(path)
        stored, count = data["pred_x0"], data["pred_x0"].shape[1]
        stored = stored if stored.ndim == 3 else stored[..., None]
        for last in (5, 10, 30):
            watched = TrajectoryVariance(replayed(stored), last)
            for index in range(count):
                watched(data["sample"], 0.0, None, StepInfo(index, count))
            score = watched.score()
            torch.testing.assert_close(score.float(), data[f"metric.last{last}"], atol=1e-6, rtol=0)
            assert torch.equal(score.argsort(stable=True)[:40].sort().values, data[f"kept40.last{last}"].sort().values)


def test_golden_hallucination_runs(golden_files):
    """The official run itself: the same draws, the same x0 at every step."""
    for path in golden_files("features", "hallucination_*.safetensors"):
        data = load_file(path)

        def network(x, label, data=data):
            return torch.tanh(x @ data["W1"] + label[:, None] / 60) @ data["W2"]

        seen = []

        def note(x, t, prediction, info, seen=seen):
            seen.append(prediction.x0)
            return prediction

        generator = torch.Generator().manual_seed(5)
        x = torch.empty(data["sample"].shape).normal_(generator=generator)
        watched = TrajectoryVariance(Constrained(Denoiser(network, TOY), note), 10)
        step = partial(ddpm_ancestral, variance="large")
        sample(watched, x, spaced_times(TOY, 60), step=step, noise=Noise.shared(generator))
        stored = data["pred_x0"] if data["pred_x0"].ndim == 3 else data["pred_x0"][..., None]
        # values reach 200: of float32 the file's 1e-4 can only be a share
        torch.testing.assert_close(torch.stack(seen, 1), stored, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(watched.score().float(), data["metric.last10"], atol=2e-5, rtol=1e-4)


def drifting(x, label):
    return torch.tanh(x) * label[:, None] / 60


@pytest.mark.parametrize("step", [ddim, heun])
def test_a_watched_run_is_the_same_run(step):
    denoiser = Denoiser(drifting, TOY)
    x, times = torch.randn(6, 3, dtype=torch.float64), spaced_times(TOY, 8)
    seen = []

    def note(x, t, prediction, info):
        if info.call == 0:
            seen.append(prediction.x0)
        return prediction

    plain = sample(denoiser, x, times, step=step, constraint=note)
    watched = TrajectoryVariance(denoiser, 4)
    for _ in range(2):  # a second run starts anew
        assert torch.equal(sample(watched, x, times, step=step), plain)
        expected = torch.stack(seen[-4:]).var(0, correction=0)
        torch.testing.assert_close(watched.variance(), expected, atol=1e-12, rtol=1e-9)
        torch.testing.assert_close(watched.score(), expected.mean(1), atol=1e-12, rtol=1e-9)


def test_a_constrained_model_can_be_watched():
    def still(x, t, prediction, info):
        return Prediction(torch.ones_like(x), prediction.eps)

    x, times = torch.randn(2, 3), spaced_times(TOY, 8)
    watched = TrajectoryVariance(Constrained(Denoiser(drifting, TOY), still), 4)
    sample(watched, x, times)
    assert watched.score().tolist() == [0, 0]


def test_what_is_refused():
    denoiser = Denoiser(drifting, TOY)
    with pytest.raises(InputError, match="2 or more"):
        TrajectoryVariance(denoiser, 1)
    watched = TrajectoryVariance(denoiser)
    with pytest.raises(InputError, match="outside a run"):
        watched(torch.zeros(1, 3), 10.0)
    sample(watched, torch.zeros(1, 3), spaced_times(TOY, 1))
    with pytest.raises(InputError, match="only 1 steps"):
        watched.score()
    for wrong in (InBatches(watched, 2), ClassifierFreeGuidance(watched, Condition({}), 3.0, batched=False)):
        with pytest.raises(InputError, match=r"watched twice.*outside InBatches"):  # the parts are of one shape
            sample(wrong, torch.zeros(4, 3), spaced_times(TOY, 12), condition=Condition({}))
    watched(torch.zeros(2, 3), 10.0, None, StepInfo(0, 3))
    with pytest.raises(InputError, match="went on with"):
        watched(torch.zeros(1, 3), 10.0, None, StepInfo(1, 3))

"""DiffPose's heatmap diffusion against stored cases and against what must hold."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.noise import Noise, item_seed
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.solvers import ddim
from priorscope.diffusion.spacing import spaced_times
from priorscope.errors import InputError
from priorscope_pose.diffpose.heatmap_diffusion import (
    HeatmapDiffusion,
    heatmap_schedule,
    sample_heatmaps,
    to_heatmaps,
    to_signal,
)
from priorscope_pose.diffpose.spec import DiffPoseSpec

SPEC = DiffPoseSpec(skeleton="crowdpose", input_size=(32, 48))
SHAPE = (14, 12, 8)


def test_golden_heatmap_diffusion(golden_files, read_json):
    for path in golden_files("pose", "diffusiondet_style_heatmap_diffusion.safetensors"):
        case, facts = load_file(path), read_json(Path(path).with_suffix(".json"))
        tolerance, close = facts["tolerance"], facts["tolerance"]["others"]
        schedule = heatmap_schedule("cosine", facts["T"])
        bar = case["alphas_cumprod"]
        np.testing.assert_allclose(schedule.alphas_cumprod, bar, atol=tolerance["betas"], rtol=0)
        betas = 1 - schedule.alphas_cumprod / np.concatenate([[1.0], schedule.alphas_cumprod[:-1]])
        np.testing.assert_allclose(betas, case["betas"], atol=tolerance["betas"], rtol=0)

        heatmaps = torch.from_numpy(case["heatmaps"]).double()
        noise = torch.from_numpy(case["noise"])
        seen = 0
        for key, wanted in case.items():
            parts = key.split(".")
            if parts[0] not in ("q_sample", "q_sample_clamped_back", "pred_noise"):
                continue
            scale, level = float(key.split("scale")[1].split(".t")[0]), int(key.rsplit(".t")[1])
            spec = DiffPoseSpec(scale=scale, clamp_output=False)
            diffusion = HeatmapDiffusion(lambda x, t: heatmaps, spec)  # noqa: B023
            t = torch.tensor([level, max(level - 1, 0)])  # the second person stands one level below the name
            noisy = diffusion.noised(heatmaps, t, noise)
            found = {
                "q_sample": lambda: noisy,  # noqa: B023
                "q_sample_clamped_back": lambda: to_heatmaps(diffusion.seen(noisy), 1.0),  # noqa: B023
                "pred_noise": lambda: diffusion(noisy, t).eps,  # noqa: B023
            }[parts[0]]()
            np.testing.assert_allclose(found, wanted, atol=close, rtol=0, err_msg=key)
            seen += 1
        assert seen > 30

        for steps in (1, 2, 4, 10):
            for eta in (0.0, 1.0):
                start = f"ddim.S{steps}.eta{eta}"
                times = spaced_times(schedule, steps, "trailing")
                assert times == case[f"ddim.S{steps}.times"].tolist()
                spec = DiffPoseSpec(scale=2.0, clamp_input=False)
                half = to_signal(heatmaps.float(), 2.0)
                # the stored denoiser, in the units of a decoder: it is shown x / s and gives heatmaps
                diffusion = HeatmapDiffusion(lambda x, t: to_heatmaps(0.3 * 2.0 * x + 0.7 * half, 2.0), spec)  # noqa: B023
                draws = [torch.from_numpy(row) for row in case.get(f"{start}.noises", [])]
                if eta and len(draws) < steps - 1:
                    continue  # the noise of that run was not stored
                found = sample(
                    diffusion,
                    torch.from_numpy(case[f"{start}.init"]),
                    times,
                    step=partial(ddim, eta=eta),
                    noise=Noise.recorded(draws),
                )
                np.testing.assert_allclose(found, case[f"{start}.out"], atol=close, rtol=0, err_msg=start)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_an_oracle_is_what_sampling_returns(kind, steps, scale):
    truth = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    spec = DiffPoseSpec(skeleton="crowdpose", input_size=(32, 48), schedule=kind, scale=scale)
    diffusion = HeatmapDiffusion(lambda x, t, truth: truth, spec)
    found = sample_heatmaps(diffusion, {"truth": truth}, [1, 2, 3], steps=steps, ensemble=2, eta=0.5)
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=0)


def test_own_runs_are_where_sampling_would_be():
    """People of several runs at several calls: the state and level that a run of each alone hands to its network."""
    spec = DiffPoseSpec(skeleton="crowdpose", input_size=(32, 48), scale=0.3)
    diffusion = HeatmapDiffusion(lambda x, t, shift: 0.6 * x + shift * (t / 1000)[:, None, None, None], spec)
    eps = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    shift = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1))
    steps, call = torch.tensor([1, 2, 8, 3, 8]), torch.tensor([0, 1, 5, 0, 7])
    x, t = diffusion.of_own_runs(eps, steps, call, {"shift": shift})
    for row in range(5):
        times = spaced_times(diffusion.schedule, int(steps[row]), "trailing")
        asked = []

        def recorded(x, t, condition=None, info=None, asked=asked):
            asked.append((x.clone(), t))
            return diffusion(x, t, condition)

        recorded.schedule = diffusion.schedule
        start = diffusion.schedule(times[0])[1] * eps[row : row + 1]
        sample(recorded, start, times, condition=Condition({"shift": shift[row : row + 1]}))
        wanted, level = asked[int(call[row])]
        assert float(t[row]) == level
        torch.testing.assert_close(x[row : row + 1], wanted, atol=1e-6, rtol=0)


def test_the_linear_schedule_is_that_of_ddpm():
    betas = np.linspace(1e-4, 0.02, 1000)
    np.testing.assert_allclose(heatmap_schedule("linear").alphas_cumprod, np.cumprod(1 - betas), rtol=1e-12)


def test_heatmaps_and_signals_are_each_other_s_inverse():
    heatmaps = torch.tensor([0.0, 0.25, 1.0])
    assert to_signal(heatmaps, 2.0).tolist() == [-2.0, -1.0, 2.0]
    torch.testing.assert_close(to_heatmaps(to_signal(heatmaps, 1.5), 1.5), heatmaps)


def test_what_the_decoder_is_shown_is_cut_or_not():
    x = torch.tensor([-9.0, -1.0, 0.5, 9.0])
    cut, free = (HeatmapDiffusion(None, DiffPoseSpec(scale=2.0, clamp_input=cut)) for cut in (True, False))
    assert cut.seen(x).tolist() == [-1.0, -0.5, 0.25, 1.0]
    assert free.seen(x).tolist() == [-4.5, -0.5, 0.25, 4.5]


def test_estimates_are_cut_or_not():
    diffusions = [
        HeatmapDiffusion(lambda x, t: torch.full_like(x, 3.0), DiffPoseSpec(scale=2.0, clamp_output=cut))
        for cut in (True, False)
    ]
    x = torch.zeros(1, *SHAPE)
    cut, free = (diffusion(x, 500.0) for diffusion in diffusions)
    assert float(cut.x0.max()) == 2.0
    assert float(free.x0.max()) == 10.0
    alpha, sigma = diffusions[0].schedule(500.0)
    torch.testing.assert_close(alpha * cut.x0 + sigma * cut.eps, x, atol=1e-6, rtol=0)


def linear(x, t, gain):
    """A decoder whose answer depends on the noise, so that draws differ."""
    return 0.5 + gain[:, None, None, None] * x


def test_an_ensemble_is_the_mean_of_its_draws():
    diffusion = HeatmapDiffusion(linear, SPEC)
    gain, seeds = torch.tensor([0.1, 0.3]), [5, 9]
    found = sample_heatmaps(diffusion, {"gain": gain}, seeds, steps=3, ensemble=4)
    draws = []
    for member in range(4):
        noise = Noise.per_item(item_seed(seed, member) for seed in seeds)
        x = sample(
            diffusion, noise.draw((2, *SHAPE)), spaced_times(diffusion.schedule, 3), condition=Condition({"gain": gain})
        )
        draws.append(to_heatmaps(x, SPEC.scale))
    torch.testing.assert_close(found, torch.stack(draws).mean(0))
    assert float((draws[0] - draws[1]).abs().max()) > 0.05


def test_the_variance_of_an_ensemble_falls_as_one_over_its_size():
    diffusion = HeatmapDiffusion(linear, replace(SPEC, clamp_input=False))

    def spread(ensemble):
        gain = torch.full((8,), 0.05)
        return float(sample_heatmaps(diffusion, {"gain": gain}, range(8), steps=1, ensemble=ensemble).var())

    assert spread(1) / spread(16) == pytest.approx(16, rel=0.15)


def test_draws_depend_on_seed_and_member_only():
    diffusion = HeatmapDiffusion(linear, SPEC)
    gain = torch.tensor([0.1, 0.2, 0.3])
    whole = sample_heatmaps(diffusion, {"gain": gain}, [7, 8, 9], steps=2, ensemble=3, eta=1.0)
    again = sample_heatmaps(diffusion, {"gain": gain}, [7, 8, 9], steps=2, ensemble=3, eta=1.0)
    assert torch.equal(whole, again)
    alone = sample_heatmaps(diffusion, {"gain": gain[1:2]}, [8], steps=2, ensemble=3, eta=1.0)
    torch.testing.assert_close(alone[0], whole[1], atol=1e-6, rtol=0)
    for most in (1, 2, 4):
        parts = sample_heatmaps(diffusion, {"gain": gain}, [7, 8, 9], steps=2, ensemble=3, eta=1.0, max_batch=most)
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
    other = sample_heatmaps(diffusion, {"gain": gain}, [7, 8, 10], steps=2, ensemble=3, eta=1.0)
    assert not torch.allclose(other[2], whole[2])


def test_nobody_gives_nothing():
    found = sample_heatmaps(HeatmapDiffusion(linear, SPEC), {"gain": torch.zeros(0)}, [])
    assert found.shape == (0, *SHAPE)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"ensemble": 0}, "ensemble of 0"), ({"steps": 0}, "0 steps"), ({"steps": 2000}, "trained with 1000")],
)
def test_numbers_that_make_no_sense(change, message):
    with pytest.raises(InputError, match=message):
        sample_heatmaps(HeatmapDiffusion(linear, SPEC), {"gain": torch.zeros(1)}, [0], **change)


def test_as_many_seeds_as_persons():
    with pytest.raises(InputError, match="2 seeds for 1"):
        sample_heatmaps(HeatmapDiffusion(linear, SPEC), {"gain": torch.zeros(1)}, [0, 1])

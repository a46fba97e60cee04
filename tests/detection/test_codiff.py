"""CoDiff as the paper means it: what its latent is like, what a run depends on, and that it can learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from priorscope.diffusion.noise import Noise
from priorscope.diffusion.sampling import sample
from priorscope.errors import InputError
from priorscope_detection.codiff.codec import FeatureCodec, reconstruction_loss
from priorscope_detection.codiff.model import AgentSet, CoDiff, balance
from priorscope_detection.network.spec import CoDiffSpec

SPEC = CoDiffSpec(latent=3, width=8, multiples=(1, 2), heads=2)


def told(batch=2, most=3, size=(7, 10), latent=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    seen = torch.rand(batch, most, *size, generator=generator) > 0.3
    seen[:, 0] = True
    agents = torch.randn(batch, most, latent, *size, generator=generator) * seen[:, :, None]
    coarse = torch.randn(batch, latent, *size, generator=generator)
    kinds = torch.arange(batch * most).view(batch, most) % 2
    return AgentSet(coarse, torch.ones(batch, dtype=torch.bool), agents, seen, kinds, torch.rand(batch, most))


def model(seed=0, **changes):
    torch.manual_seed(seed)
    found = CoDiff(6, replace(SPEC, **changes))
    for weight in found.network.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.1)  # some layers begin at zero
    return found.eval()


def test_latent_has_mean_zero_and_variance_one():
    torch.manual_seed(0)
    codec = FeatureCodec(6, 3).train()
    features = torch.relu(7 * torch.randn(4, 6, 20, 30) - 3)
    for _ in range(150):
        with torch.no_grad():
            codec.encode(features)
    latent = codec.eval().encode(features)
    torch.testing.assert_close(latent.mean((0, 2, 3)), torch.zeros(3), atol=0.02, rtol=0)
    torch.testing.assert_close(latent.std((0, 2, 3)), torch.ones(3), atol=0.02, rtol=0)
    codec.decoder[4].weight.data.zero_()
    assert abs(reconstruction_loss(codec, features).item() - reference_loss(features)) < 1e-4


def reference_loss(features):
    """Of a decoder of zeros."""
    power = features.square().mean(1)
    seen = power > power.mean((1, 2), keepdim=True)
    return ((power[seen].mean() + power[~seen].mean()) / 2 / power.mean()).item()


@pytest.mark.parametrize("start", ["noise", "coarse"])
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_runs_are_deterministic_and_frames_apart(start, steps):
    codiff, given = model(), told()
    first = codiff.refine(given, [1, 2], steps=steps, start=start)
    assert first.shape == (2, 3, 7, 10)
    assert torch.equal(first, codiff.refine(given, [1, 2], steps=steps, start=start))
    alone = codiff.refine(AgentSet(*(part[1:] for part in given)), [2], steps=steps, start=start)
    torch.testing.assert_close(alone, first[1:], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first[:1], codiff.refine(AgentSet(*(part[:1] for part in given)), [3], steps=steps))


@pytest.mark.parametrize("prediction", ["sample", "v", "flow"])
def test_predictions_that_can_start_from_noise(prediction):
    out = model(prediction=prediction).refine(told(), [0, 1], steps=2, start="noise")
    assert bool(torch.isfinite(out).all())


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8), (13, 26)])
def test_any_size_and_any_number_of_agents(size):
    codiff = model(multiples=(1, 1, 2))
    for most in (1, 2, 8):
        out = codiff.refine(told(most=most, size=size), [0, 1])
        assert out.shape == (2, 3, *size)
        assert bool(torch.isfinite(out).all())


def test_who_is_not_seen_has_no_say():
    codiff, given = model(), told()
    seen = given.seen.clone()
    seen[:, 1] = False
    masked = given._replace(seen=seen)
    other = given._replace(seen=seen, agents=given.agents.clone(), kinds=given.kinds.clone())
    other.agents[:, 1] = 5.0
    other.kinds[:, 1] = 1 - other.kinds[:, 1]
    expected = codiff.refine(masked, [0, 0])
    torch.testing.assert_close(codiff.refine(other, [0, 0]), expected)
    fewer = AgentSet(*(part[:, [0, 2]] if number in (2, 3, 4, 5) else part for number, part in enumerate(masked)))
    torch.testing.assert_close(codiff.refine(fewer, [0, 0]), expected, rtol=1e-4, atol=1e-5)
    turned = AgentSet(*(p[:, [0, 2, 1]] if number in (2, 3, 4, 5) else p for number, p in enumerate(given)))
    torch.testing.assert_close(codiff.refine(turned, [0, 0]), codiff.refine(given, [0, 0]), rtol=1e-4, atol=1e-5)
    # what is seen does count, and so do a coarse feature, kinds and delays
    for changed in (
        given._replace(agents=given.agents + given.seen[:, :, None]),
        given._replace(coarse=given.coarse + 1),
        given._replace(kinds=1 - given.kinds),
        given._replace(delays=given.delays + 0.3),
    ):
        assert not torch.allclose(codiff.refine(changed, [0, 0], start="noise"), codiff.refine(given, [0, 0]))
    none = given._replace(has_coarse=torch.zeros(2, dtype=torch.bool))
    blind = none._replace(coarse=none.coarse + 1)
    assert torch.equal(codiff.refine(none, [0, 0], start="noise"), codiff.refine(blind, [0, 0], start="noise"))


def test_agents_are_dropped_at_the_rate_told():
    codiff = model(drop_agent=0.3, drop_coarse=0.6)
    given = told(batch=2000, most=4, size=(1, 1))._replace(seen=torch.ones(2000, 4, 1, 1, dtype=torch.bool))
    left = codiff.dropped(given, Noise.shared(0))
    assert bool(left.seen[:, 0].all()), "the ego stays"
    assert abs(left.seen[:, 1:].float().mean() - 0.7) < 0.03
    assert abs(left.has_coarse.float().mean() - 0.4) < 0.04
    kept = model(drop_agent=0.0, drop_coarse=0.0).dropped(given, Noise.shared(0))
    assert bool(kept.seen.all())
    assert bool(kept.has_coarse.all())


def test_what_an_item_learns_from_does_not_depend_on_how_far_its_batch_is_padded():
    codiff, given = model(drop_agent=0.5), told(batch=1, most=2)
    target = torch.randn(1, 3, 7, 10, generator=torch.Generator().manual_seed(5))
    losses = []
    for more in (0, 1, 5):
        padded = [
            torch.cat([part, torch.zeros_like(part[:, :1]).expand(-1, more, *part.shape[2:])], 1) for part in given[2:]
        ]
        noise = Noise.per_item([3])
        losses.append(codiff.estimate(target, codiff.dropped(AgentSet(*given[:2], *padded), noise), noise).loss.item())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_it_begins_as_the_coarse_feature():
    torch.manual_seed(0)
    codiff, given = CoDiff(6, SPEC).eval(), told()
    for steps in (1, 3):
        torch.testing.assert_close(codiff.refine(given, [0, 1], steps=steps), given.coarse)


def test_training_shows_what_a_run_shows():
    """With a network that knows the answer, the states of a run are those that training draws."""
    codiff, given = model(), told()
    target = torch.randn(2, 3, 7, 10, generator=torch.Generator().manual_seed(5))
    for start in ("coarse", "noise"):
        seen = []

        class Knows(nn.Module):
            reader = codiff.network.reader

            def forward(self, x, level, *, seen_states=seen, **condition):
                seen_states.append((x.clone(), level[0].item()))
                return target

        knowing = model()
        knowing.network = Knows()
        out = knowing.refine(given, [3, 4], steps=4, start=start)
        torch.testing.assert_close(out, target)
        eps = Noise.per_item([3, 4]).like(target)
        eps = codiff.effective_noise(target, given.coarse, eps, torch.tensor([start == "coarse"] * 2))
        assert len(seen) == 4
        for number, (x, level) in enumerate(seen):
            expected = codiff.schedule.add_noise(target, level, eps)
            if start == "noise" and number == 0:
                expected = x  # the rest of the target at the noisiest level is left out
                assert (x - codiff.schedule(level)[1] * eps).abs().max() < 1e-6
            torch.testing.assert_close(x, expected, rtol=1e-4, atol=0.02 if start == "noise" else 1e-4)


def test_half_of_training_learns_each_start():
    codiff = model(start="coarse")
    given = told(batch=400, most=1, size=(1, 1))
    levels = {}
    for start in ("coarse", "noise"):
        codiff.spec = replace(codiff.spec, start=start)
        seen = []
        handle = codiff.network.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[1]))
        codiff.estimate(torch.randn(400, 3, 1, 1), given, Noise.shared(0))
        handle.remove()
        levels[start] = seen[0]
    # of each run half at the level where it starts, the others anywhere below
    assert abs((levels["noise"] == 999).float().mean() - 0.5) < 0.08
    assert abs((levels["noise"] < 500).float().mean() - 0.25) < 0.08
    assert abs((levels["coarse"] == 999).float().mean() - 0.25) < 0.08
    assert abs((levels["coarse"] == 500).float().mean() - 0.25) < 0.08
    assert abs((levels["coarse"] < 500).float().mean() - 0.375) < 0.08


def test_own_runs_are_those_of_refine():
    """Each item ends where a run of it alone does, with a gradient; all steps and both starts are trained."""
    codiff, given = model(drop_coarse=0.0), told()
    target = torch.zeros_like(given.coarse)
    with torch.no_grad():
        codiff.network.out.weight.normal_(generator=torch.Generator().manual_seed(0), std=0.05)
    seen = set()
    for seed in range(40):
        seeds = [seed, seed + 100]
        found = codiff.estimate_of_run(target, given, Noise.per_item(seeds))
        for row, mine in enumerate(seeds):
            noise = Noise.per_item([mine])
            draw = 0.5 * (1 + torch.erf(noise.draw((1, 2), device="cpu")[0] / 2**0.5))
            steps, start = (1, 2, 4, 8)[int(4 * draw[1])], "coarse" if draw[0] < 0.75 else "noise"
            seen.add((steps, start))
            alone = AgentSet(*(value[row : row + 1] for value in given))
            times, x, condition = codiff._begin(alone, noise, steps, start)
            wanted = sample(codiff.denoiser, x, times, condition=condition)
            torch.testing.assert_close(found.latent[row : row + 1], wanted, rtol=1e-4, atol=1e-5)
        error = found.latent.square() * balance(target)
        torch.testing.assert_close(found.loss, error.mean())
    assert seen == {(steps, start) for steps in (1, 2, 4, 8) for start in ("coarse", "noise")}
    found.loss.backward()
    assert codiff.network.stem.weight.grad is not None


def test_one_step_from_the_coarse_map_is_a_regression():
    """At the level where such a run starts, x says nothing of the target beyond the coarse map."""
    codiff, given = model(), told()
    late = torch.ones(2, dtype=torch.bool)
    states = []
    for seed in (1, 2):
        target = torch.randn(2, 3, 7, 10, generator=torch.Generator().manual_seed(seed))
        eps = codiff.effective_noise(target, given.coarse, Noise.per_item([3, 4]).like(target), late)
        states.append(codiff.schedule.add_noise(target, codiff.times(1, "coarse")[0], eps))
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(states[0], codiff._begin(given, Noise.per_item([3, 4]), 1, "coarse")[1])


def test_balance_is_half_and_half():
    target = torch.zeros(1, 2, 10, 10)
    target[:, :, :2, :5] = 3.0
    weight = balance(target)
    assert abs(weight.mean().item() - 1) < 1e-5
    assert abs(weight[0, 0, :2, :5].sum().item() - 50) < 1e-3


def test_it_learns_what_only_the_agents_know():
    """The target is an agent's latent two cells further on: neither the coarse map nor a mixture at a cell has it."""
    torch.manual_seed(0)
    spec = CoDiffSpec(latent=2, width=16, multiples=(1, 2), heads=2, drop_agent=0.0, drop_coarse=0.0, start="noise")
    codiff = CoDiff(4, spec)
    generator = torch.Generator().manual_seed(0)

    def draw(batch):
        agents = torch.randn(batch, 2, 2, 6, 8, generator=generator)
        target = agents[:, 1].roll(2, -1)
        coarse = 0.5 * target + 0.5 * torch.randn(batch, 2, 6, 8, generator=generator)
        ones = torch.ones(batch, 2, 6, 8, dtype=torch.bool)
        given = AgentSet(coarse, ones[:, 0, 0, 0], agents, ones, torch.zeros(batch, 2).long(), torch.zeros(batch, 2))
        return target, given

    optimizer = torch.optim.Adam(codiff.network.parameters(), 3e-3)
    for step in range(100):
        target, given = draw(16)
        optimizer.zero_grad()
        codiff.estimate(target, given, Noise.shared(step)).loss.backward()
        optimizer.step()
    target, given = draw(8)
    codiff.eval()
    coarse_error = (given.coarse - target).square().mean()
    for steps in (1, 4):
        error = (codiff.refine(given, list(range(8)), steps=steps) - target).square().mean()
        assert error < 0.5 * min(coarse_error, 0.5), f"{error} after {steps} steps"


def test_runs_that_make_no_sense():
    codiff, given = model(), told()
    for changes, message in (
        ({"seeds": [1]}, "1 seeds for 2 frames"),
        ({"steps": 0}, "0 steps"),
        ({"steps": 1000}, "1000 steps"),
        ({"start": "nowhere"}, "a run from 'nowhere'"),
    ):
        with pytest.raises(InputError, match=message):
            codiff.refine(given, **({"seeds": [1, 2]} | changes))

"""Items of one batch, each in a run of its own, against runs of each alone."""

from __future__ import annotations

import pytest
import torch

from priorscope.diffusion import Condition, Denoiser, VPSchedule, runs_at_calls, sample, spaced_times
from priorscope.errors import InputError

SCHEDULE = VPSchedule.from_betas("cosine", num_steps=1000)


def denoiser(asked=None):
    def network(x, t, shift):
        if asked is not None:
            asked.append(t.tolist())
        return 0.5 * x + shift * (t / 1000)[:, None, None]

    return Denoiser(network, SCHEDULE, "sample")


def test_every_item_is_where_its_own_run_would_be():
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    shift = torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    times = [spaced_times(SCHEDULE, steps, "trailing") for steps in (1, 2, 8, 3)] + [[500.0, 250.0, -1.0]]
    calls = [0, 1, 5, 0, 1]
    asked: list[list[float]] = []
    found, t = runs_at_calls(denoiser(asked), x, times, calls, Condition({"shift": shift}))
    assert not found.requires_grad
    assert t.tolist() == [999.0, 499.0, 374.0, 999.0, 250.0]
    # only those that have not arrived are asked
    assert [len(levels) for levels in asked] == [3, 1, 1, 1, 1]
    for row, (levels, call) in enumerate(zip(times, calls, strict=True)):
        one = x[row : row + 1]
        if call:
            told = Condition({"shift": shift[row : row + 1]})
            one = sample(denoiser(), one, levels[: call + 1], condition=told)
        torch.testing.assert_close(found[row : row + 1], one)


@pytest.mark.parametrize("made", [torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_does_not_change_that_of_the_run(made):
    """Levels keep the precision of x, also where mixed precision rounds what the network says."""
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    said = (0.5 * x).to(made)
    model = Denoiser(lambda x, t: said, SCHEDULE, "sample")
    times = [999.0, 499.0, -1.0]
    found, _ = runs_at_calls(model, x, [times, times], [1, 1])
    (alpha, sigma), (alpha_next, sigma_next) = SCHEDULE(999.0), SCHEDULE(499.0)
    wanted = alpha_next * said.double() + sigma_next * (x.double() - alpha * said.double()) / sigma
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted.float(), rtol=1e-5, atol=1e-6)


def test_the_call_after_a_run_trains_the_weights_in_mixed_precision(monkeypatch):
    cleared = []
    clear = torch.clear_autocast_cache
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: cleared.append(True) or clear())
    network = torch.nn.Linear(4, 4)
    model = Denoiser(lambda x, t: network(x), SCHEDULE, "sample")
    times = [999.0, 499.0, -1.0]
    with torch.autocast("cpu", torch.bfloat16):
        x, t = runs_at_calls(model, torch.ones(2, 3, 4), [times, times], [1, 1])
        assert cleared
        model(x, t).x0.sum().backward()
    assert network.weight.grad is not None
    assert bool(network.weight.grad.any())


def test_nothing_happens_before_the_first_call():
    x = torch.randn(2, 3, 4)
    found, t = runs_at_calls(denoiser(), x, [[999.0, -1.0]] * 2, [0, 0])
    assert torch.equal(found, x)
    assert found.data_ptr() != x.data_ptr()
    assert t.tolist() == [999.0, 999.0]


@pytest.mark.parametrize(
    ("times", "calls", "message"),
    [
        ([[9.0, -1.0]], [0, 0], "1 runs and 2 calls for 2 items"),
        ([[9.0, -1.0]] * 2, [0, 1], "call 1 of a run of 1 steps"),
    ],
)
def test_what_makes_no_sense_is_refused(times, calls, message):
    with pytest.raises(InputError, match=message):
        runs_at_calls(denoiser(), torch.zeros(2, 3, 4), times, calls)

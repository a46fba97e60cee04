"""Timing of steps: what is counted, what a run folder gets, and that it leaves no trace."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from priorscope import InputError
from priorscope.diffusion import (
    ClassifierFreeGuidance,
    Condition,
    Denoiser,
    InBatches,
    StepTiming,
    VPSchedule,
    heun,
    sample,
    spaced_times,
)
from priorscope.evaluation import RunFolder

VP = VPSchedule.from_betas()


class Slow(nn.Module):
    def __init__(self, seconds=0.0):
        super().__init__()
        self.seconds = seconds

    def forward(self, x, label, shift=None):
        time.sleep(self.seconds)
        return x if shift is None else x + shift


def test_calls_and_passes_are_counted(tmp_path):
    network = Slow(0.01)
    x = torch.zeros(5, 2)
    with StepTiming(network) as timing:
        sample(InBatches(Denoiser(network, VP), 2), x, spaced_times(VP, 4), step=heun, callback=timing)
    assert timing.calls == [2, 2, 2, 1]  # the step to the clean level is Euler's
    assert (timing.passes, timing.items) == (7 * 3, 7 * 5)
    assert len(timing.seconds) == 4
    assert all(spent >= 0.01 * 3 * calls for spent, calls in zip(timing.seconds, timing.calls, strict=True))
    run = RunFolder.create(tmp_path / "run", {"seed": 0})
    run.log({"image": 0} | timing.summary())
    (row,) = run.history()
    assert (row["steps"], row["model_calls"], row["network_passes"], row["network_items"]) == (4, 7, 21, 35)
    assert row["seconds"] == pytest.approx(sum(timing.seconds))
    assert min(timing.seconds) <= row["seconds_per_step"] <= max(timing.seconds)


def test_cheaper_passes_are_passes(small_unet):
    """What a cache saves is told by the cache."""
    from priorscope.backbones import UNetNetwork
    from priorscope.caching import DeepCache

    unet = small_unet()
    model, text = Denoiser(UNetNetwork(unet), VP), Condition({"text": torch.zeros(1, 3, 8)}, shared=["text"])
    with StepTiming(unet) as timing, StepTiming(unet.mid_block) as deep, DeepCache(3).on(model) as run:
        sample(model, torch.zeros(1, 4, 8, 8), spaced_times(VP, 6), condition=text, callback=timing)
    assert (timing.passes, deep.passes) == (6, 2) == (run.full + run.partial, run.full)


def test_guidance_in_two_passes_is_one_call():
    network, x, given = Slow(), torch.zeros(2, 2), Condition({"shift": torch.ones(2, 2)})
    free = Condition({"shift": torch.zeros(2, 2)})
    for batched, passes in ((True, 3), (False, 6)):
        model = ClassifierFreeGuidance(Denoiser(network, VP), free, 3.0, batched=batched)
        with StepTiming(network) as timing:
            sample(model, x, spaced_times(VP, 3), condition=given, callback=timing)
        assert (sum(timing.calls), timing.passes, timing.items) == (3, passes, 12)


def test_each_block_starts_anew_and_leaves_no_hook():
    network = Slow()
    timing = StepTiming(network)
    for steps in (3, 2):
        with timing:
            sample(Denoiser(network, VP), torch.zeros(1, 2), spaced_times(VP, steps), callback=timing)
        assert timing.summary()["model_calls"] == timing.passes == steps
    assert not network._forward_hooks
    with pytest.raises(RuntimeError), timing:
        raise RuntimeError
    assert not network._forward_hooks
    assert "network_passes" not in _summary_without_network()


def _summary_without_network():
    with StepTiming() as timing:
        sample(Denoiser(Slow(), VP), torch.zeros(1, 2), spaced_times(VP, 2), callback=timing)
    return timing.summary()


def test_what_is_refused():
    with pytest.raises(InputError, match="does not run"):
        sample(Denoiser(Slow(), VP), torch.zeros(1, 2), spaced_times(VP, 2), callback=StepTiming())
    with StepTiming() as timing, pytest.raises(InputError, match="no step was timed"):
        timing.summary()
    network = Slow()
    with StepTiming(network) as timing:
        sample(Denoiser(network, VP), torch.zeros(1, 2), spaced_times(VP, 2), callback=timing)
        with pytest.raises(InputError, match="runs already"), timing:
            pass
    before = timing.summary()
    with pytest.raises(InputError, match="does not run"):  # after the block: the wait would count as a step
        sample(Denoiser(network, VP), torch.zeros(1, 2), spaced_times(VP, 2), callback=timing)
    assert timing.summary() == before
    assert not network._forward_hooks
    with pytest.raises(InputError, match="works on meta, the clock on cpu"), StepTiming() as timing:
        sample(Denoiser(lambda x, label: x, VP), torch.zeros(1, 2, device="meta"), spaced_times(VP, 2), callback=timing)

"""Means of scalars since the last row of a log."""

from __future__ import annotations

import pytest
import torch

from priorscope.training.tally import Tally


class TwoProcesses:
    """What accelerate's reduce gives where the other process holds ones."""

    num_processes = 2

    def reduce(self, values, reduction):
        assert reduction == "mean"
        return (values + 1) / 2


def tally_of(*rows):
    tally = Tally()
    for row in rows:
        tally.add({name: torch.tensor(value) for name, value in row.items()}, ["a"])
    return tally


def test_a_mean_is_over_the_steps_that_have_the_scalar():
    tally = tally_of({"loss": 1.0, "first": 4.0}, {"loss": 2.0, "second": 5.0}, {"loss": 6.0, "second": 7.0})
    assert tally.means() == {"loss": 3.0, "first": 4.0, "second": 6.0}
    assert tally.first_bad() is None


def test_processes_are_averaged_step_by_step():
    tally = tally_of({"loss": 1.0, "first": 4.0}, {"loss": 2.0, "second": 5.0})
    tally.settle(TwoProcesses())
    assert tally.means() == pytest.approx({"loss": (1.0 + 1.5) / 2, "first": 2.5, "second": 3.0})


def test_the_first_step_that_is_not_finite():
    tally = tally_of({"loss": 1.0}, {"loss": float("nan"), "other": 0.0}, {"loss": float("inf")})
    bad = tally.first_bad()
    assert (bad.ago, bad.name, bad.keys) == (1, "loss", ["a"])

"""The classifier's losses against closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from priorscope.errors import InputError
from priorscope_astro.classifier.losses import dirichlet_multinomial_nll, focal_loss, votes_nll


def test_probabilities_of_all_outcomes_add_up_to_one():
    outcomes = [counts for counts in itertools.product(range(6), repeat=3) if sum(counts) == 5]
    loss = dirichlet_multinomial_nll(torch.tensor(outcomes), torch.tensor([0.7, 2.5, 1.1], dtype=torch.float64))
    assert float((-loss).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_a_flat_prior_makes_all_outcomes_equal():
    # Dirichlet(1, 1, 1): each of the (n + 2 choose 2) outcomes is as likely as another
    counts = torch.tensor([[7, 0, 0], [2, 3, 2], [0, 1, 6]])
    loss = dirichlet_multinomial_nll(counts, torch.ones(3, dtype=torch.float64))
    assert loss.tolist() == pytest.approx([math.log(36)] * 3)


def test_many_concentrations_are_a_multinomial():
    counts = torch.tensor([3.0, 5.0, 2.0], dtype=torch.float64)
    p = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    expected = -torch.distributions.Multinomial(10, p).log_prob(counts)
    assert float(dirichlet_multinomial_nll(counts, p * 1e7)) == pytest.approx(float(expected), rel=1e-5)


def test_unasked_questions_cost_nothing_and_teach_nothing():
    concentrations = torch.tensor([[2.0, 3.0, 1.0, 4.0, 0.5]], requires_grad=True)
    loss = votes_nll(torch.tensor([[1, 0, 0, 0, 0]]), concentrations, (2, 3))
    assert float(loss.detach()) == pytest.approx(-math.log(2 / 5))
    loss.sum().backward()
    assert concentrations.grad is not None
    assert concentrations.grad[0, 2:].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert concentrations.grad[0, 0] < 0 < concentrations.grad[0, 1]
    with pytest.raises(InputError, match="answers"):
        votes_nll(torch.zeros(1, 5), concentrations, (2, 2))


def test_focal_loss_is_the_cross_entropy_at_gamma_zero_and_lin_s_formula_elsewhere():
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.arange(50) % 4
    entropy = F.cross_entropy(logits, target, reduction="none")
    assert torch.allclose(focal_loss(logits, target, 0.0), entropy)
    p = logits.softmax(-1)[torch.arange(50), target]
    alpha = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    assert torch.allclose(focal_loss(logits, target, 2.0, alpha), alpha[target] * (1 - p) ** 2 * entropy)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_has_finite_gradients_where_it_is_certain(gamma):
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    focal_loss(logits, torch.tensor([0, 0]), gamma).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert abs(float(logits.grad[0, 0])) < 1e-6
    assert float(logits.grad[1, 0]) == pytest.approx(-1)

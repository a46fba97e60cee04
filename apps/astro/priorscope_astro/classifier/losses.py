"""Losses of a galaxy classifier: on vote counts, and on classes of which some are rare."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from priorscope.errors import InputError


def dirichlet_multinomial_nll(counts: torch.Tensor, concentrations: torch.Tensor) -> torch.Tensor:
    """Negative log likelihood of vote counts under a Dirichlet-multinomial distribution.

    The probability that ``n`` volunteers give each answer ``counts`` times, where the vote fractions themselves are
    drawn from a Dirichlet distribution; the multinomial coefficient is included. Nobody's votes have probability one.

    Parameters
    ----------
    counts : Tensor, (..., K)
        Votes for each of the answers of one question, 0 or more; any dtype.
    concentrations : Tensor, (..., K)
        Above 0; the expected vote fractions are ``concentrations / concentrations.sum(-1)``.

    Returns
    -------
    Tensor, (...)
        Of the dtype of ``concentrations``.

    References
    ----------
    The loss of Zoobot (M. Walmsley et al., Galaxy Zoo DECaLS, MNRAS 509, 2022).
    """
    counts = counts.to(concentrations)
    total, weight = counts.sum(-1), concentrations.sum(-1)
    ways = torch.lgamma(total + 1) - torch.lgamma(counts + 1).sum(-1)
    urn = torch.lgamma(counts + concentrations).sum(-1) - torch.lgamma(concentrations).sum(-1)
    return torch.lgamma(total + weight) - torch.lgamma(weight) - ways - urn


def votes_nll(counts: torch.Tensor, concentrations: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Sum of :func:`dirichlet_multinomial_nll` over the questions of a decision tree.

    Parameters
    ----------
    counts, concentrations : Tensor, (B, A)
        Of the answers of all questions, one question after the other.
    sizes : sequence of int
        Answers of each question; they add up to A.

    Returns
    -------
    Tensor, (B,)
        A question that nobody was asked adds nothing.

    Raises
    ------
    InputError
        If the answers do not add up.
    """
    if counts.shape != concentrations.shape or counts.shape[-1] != sum(sizes):
        raise InputError(
            f"{tuple(counts.shape)} vote counts, {tuple(concentrations.shape)} concentrations, questions of "
            f"{sum(sizes)} answers",
            remedy="Give one count and one concentration an answer.",
        )
    parts = zip(counts.split(list(sizes), -1), concentrations.split(list(sizes), -1), strict=True)
    return torch.stack([dirichlet_multinomial_nll(*part) for part in parts]).sum(0)


def focal_loss(
    logits: torch.Tensor, target: torch.Tensor, gamma: float = 2.0, alpha: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross-entropy in which examples that are already right count less.

    Parameters
    ----------
    logits : Tensor, (B, C)
    target : Tensor of int64, (B,)
    gamma : float
        Weight ``(1 - p) ** gamma`` of an example whose true class got probability ``p``; 0 is the cross-entropy.
    alpha : Tensor, (C,), optional
        Weight of each class.

    Returns
    -------
    Tensor, (B,)

    References
    ----------
    T.-Y. Lin et al., Focal loss for dense object detection, ICCV 2017, eq. 4 and 5.
    """
    log_p = F.log_softmax(logits, -1).gather(-1, target[:, None]).squeeze(-1)
    missing = (-torch.expm1(log_p)).clamp_min(1e-12)  # 1 - p; at 0 a gamma below 1 would have no finite gradient
    loss = -(missing**gamma) * log_p
    return loss if alpha is None else loss * alpha.to(loss)[target]

"""Condition-embedding perturbation: a condition that is never quite the same, against learning it by heart."""

from __future__ import annotations

import torch
from torch import nn

from priorscope.errors import InputError
from priorscope.training.aids import PerturbationConfig


class Perturbation(nn.Module):
    """Perturb condition embeddings in training mode; in evaluation mode, hand them on.

    Make it a part of a :class:`~priorscope.training.task.Task`, as one would a dropout. Give it embeddings of a class,
    a text or vote fractions before some of them are dropped for classifier-free guidance; never masks or numbers of
    tokens.

    Parameters
    ----------
    config : PerturbationConfig

    Source: Chen et al. 2024 (arXiv 2405.20494), who recommend a strength of 1.
    """

    def __init__(self, config: PerturbationConfig) -> None:
        super().__init__()
        config.check()
        self.config = config

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Embeddings (..., d), perturbed by draws from torch's global CPU generator, which the loop seeds.

        Raises
        ------
        InputError
            Whole numbers: those are classes or tokens, not their embeddings.
        """
        if not embedding.is_floating_point():
            raise InputError(f"embeddings of {embedding.dtype} cannot be perturbed", remedy="Embed them first.")
        if not self.training or self.config.kind == "none":
            return embedding
        if self.config.kind == "uniform":
            unit = torch.rand(embedding.shape) * 2 - 1
        else:
            unit = torch.randn(embedding.shape)
        return perturbed(embedding, unit, self.config.gamma)


def perturbed(embedding: torch.Tensor, unit: torch.Tensor, gamma: float = 1.0) -> torch.Tensor:
    """``embedding + gamma / sqrt(d) unit``.

    Parameters
    ----------
    embedding : Tensor (..., d)
    unit : Tensor (..., d)
        Draws of variance 1, which add about ``gamma`` to a vector's norm, or uniform ones from -1 to 1.
    gamma : float
    """
    return embedding + gamma * embedding.shape[-1] ** -0.5 * unit.to(embedding)

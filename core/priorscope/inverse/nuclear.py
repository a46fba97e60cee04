"""Nuclear diffusion: a prior for each frame of a sequence, and a background of low rank over the frames.

For haze that stands still while the tissue moves: the frames of a cine are (1 - alpha) times what the prior explains
and alpha times a background whose nuclear norm, the sum of its singular values, is kept small.
"""

from __future__ import annotations

from typing import Literal

import torch

from priorscope.diffusion.denoiser import Level, Prediction, StepInfo
from priorscope.errors import InputError
from priorscope.inverse.guidance import GradientStep, check_measurement

Update = Literal["proximal", "gradient"]


def nuclear_norm(sequences: torch.Tensor, *, weight_slope: float = 0.0) -> torch.Tensor:
    """Weighted sum of the singular values of each sequence as a matrix of frames by values, over the frames.

    Parameters
    ----------
    sequences : Tensor (S, frames, ...)
    weight_slope : float
        w: singular value i of r, from the largest, counts 1 + w i / r times, so that what varies most between frames
        costs most.

    Returns
    -------
    Tensor (S,)
        Divided by the number of frames.
    """
    values = torch.linalg.svdvals(sequences.flatten(2))
    return (values * _weights(values, weight_slope)).sum(-1) / sequences.shape[1]


def shrink_singular_values(
    sequences: torch.Tensor, threshold: torch.Tensor | float, *, weight_slope: float = 0.0
) -> torch.Tensor:
    """The proximal map of ``threshold`` times the weighted sum of singular values: each is made smaller by its share.

    Parameters
    ----------
    sequences : Tensor (S, frames, ...)
    threshold : Tensor (S,) or float
    weight_slope : float
        As for :func:`nuclear_norm`, without the division by the frames.

    Source: Cai, Candes and Shen 2010 (singular value thresholding); for rising weights Gu et al. 2014.
    """
    left, values, right = torch.linalg.svd(sequences.flatten(2), full_matrices=False)
    limit = torch.as_tensor(threshold, dtype=values.dtype, device=values.device).reshape(-1, 1)
    kept = (values - limit * _weights(values, weight_slope)).clamp(min=0)
    return (left * kept.unsqueeze(-2) @ right).reshape(sequences.shape)


class NuclearDiffusion(GradientStep):
    """Constraint and ``correct`` for sequences that are tissue plus a background of low rank.

    A step at share a of the run (0 at its start) takes y as (1 - alpha) x0 + alpha L with alpha = min(a, haze), and
    lowers omega |y - (1 - alpha) x0 - alpha L| + gamma |L|_* / frames: the sample by the gradient through the network
    after the solver's step, as :class:`~priorscope.inverse.dps.DPS` does, the background in the proximal way.

    Parameters
    ----------
    y : Tensor (S * frames, ...)
        The sequences, one after the other, in the prior's range.
    frames : int
        Frames of each sequence.
    omega, gamma : float
        Weights of misfit and of rank.
    haze : float
        The largest alpha, from 0 up to below 1.
    weight_slope : float
        See :func:`nuclear_norm`.
    update : {"proximal", "gradient"}
        How the background moves: a gradient step on the misfit and the nuclear norm's proximal map, or, as published,
        a plain (sub)gradient step on both, which never gets quite to low rank.

    Attributes
    ----------
    background : Tensor like ``y``
        L, 0 at first.

    Notes
    -----
    Norms are those of each sequence. The published code takes one over all of them.
    Source: Nuclear Diffusion (arXiv 2509.20886); zea, its ``nuclear-dps`` guidance.
    """

    def __init__(
        self,
        y: torch.Tensor,
        frames: int,
        *,
        omega: float = 1.0,
        gamma: float = 1.0,
        haze: float = 0.5,
        weight_slope: float = 0.0,
        update: Update = "proximal",
    ) -> None:
        if frames < 1 or len(y) % frames:
            raise InputError(f"{len(y)} frames are no whole sequences of {frames}", remedy="Give whole sequences.")
        if not 0 <= haze < 1 or min(omega, gamma, weight_slope) < 0:
            raise InputError(
                f"haze {haze}, omega {omega}, gamma {gamma}, weight_slope {weight_slope}",
                remedy="haze lies from 0 to below 1, the others are not negative.",
            )
        if update not in ("proximal", "gradient"):
            raise InputError(f"update {update!r}", remedy="Use 'proximal' or 'gradient'.")
        self.y, self.frames = check_measurement(y), frames
        self.omega, self.gamma, self.haze = omega, gamma, haze
        self.weight_slope, self.update = weight_slope, update
        self.background = torch.zeros_like(y)

    def __call__(self, x: torch.Tensor, t: Level, prediction: Prediction, info: StepInfo) -> Prediction:
        alpha = min(info.index / info.total, self.haze)
        misfit = self.y - (1 - alpha) * prediction.x0 - alpha * self.background
        norms = torch.linalg.vector_norm(self._sequences(misfit).flatten(1), dim=1)
        (self.gradient,) = torch.autograd.grad(self.omega * norms.sum(), x)
        with torch.no_grad():
            self._move_background(misfit.detach(), norms.detach(), alpha)
        return prediction

    def _move_background(self, misfit: torch.Tensor, norms: torch.Tensor, alpha: float) -> None:
        safe = torch.where(norms > 0, norms, 1.0).reshape(-1, *(1,) * misfit.ndim)
        sequences = self._sequences(self.background) + self.omega * alpha * self._sequences(misfit) / safe
        if self.update == "proximal":
            moved = shrink_singular_values(sequences, self.gamma / self.frames, weight_slope=self.weight_slope)
        else:
            moved = sequences - self.gamma * self._rank_gradient()
        self.background = moved.reshape(self.background.shape)

    def _rank_gradient(self) -> torch.Tensor:
        """The gradient of the nuclear norm at the background; 0 for singular values that are 0."""
        matrix = self._sequences(self.background)
        left, values, right = torch.linalg.svd(matrix.flatten(2), full_matrices=False)
        tiny = torch.finfo(values.dtype).eps * max(matrix.flatten(2).shape[1:]) * values[:, :1]
        weights = torch.where(values > tiny, _weights(values, self.weight_slope), 0.0) / self.frames
        return (left * weights.unsqueeze(-2) @ right).reshape(matrix.shape)

    def _sequences(self, items: torch.Tensor) -> torch.Tensor:
        return items.reshape(-1, self.frames, *items.shape[1:])


def _weights(values: torch.Tensor, slope: float) -> torch.Tensor:
    count = values.shape[-1]
    return 1 + slope * torch.arange(count, dtype=values.dtype, device=values.device) / count

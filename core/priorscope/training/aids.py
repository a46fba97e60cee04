"""Settings of what helps a training along. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from priorscope.errors import InputError


@dataclass(frozen=True)
class PerturbationConfig:
    """Noise on condition embeddings while training (:class:`~priorscope.training.perturbation.Perturbation`)."""

    kind: Literal["none", "uniform", "gaussian"] = "none"
    """Distribution of the noise; none switches it off."""
    gamma: float = 1.0
    """Strength: numbers are perturbed by gamma / sqrt(width of the embedding)."""

    def check(self) -> None:
        """Refuse settings that make no sense (InputError)."""
        if self.kind not in ("none", "uniform", "gaussian"):
            raise InputError(f"perturbation {self.kind!r}", remedy="Use 'none', 'uniform' or 'gaussian'.")
        if not 0 <= self.gamma < float("inf"):
            raise InputError(f"perturbation of strength {self.gamma}", remedy="Use 0 or more; 1 is usual.")


@dataclass(frozen=True)
class RoutingConfig:
    """Channels of their own for each noise level (:func:`~priorscope.training.task_routing.add_routing`)."""

    beta: float = 0.8
    """Share of the channels that one noise level uses."""
    alpha: float = 4.0
    """How unevenly levels spread over the channels: above 1, the noisier ones get more of a path to themselves."""
    tasks: int = 1000
    """Noise levels of the training schedule."""

    def check(self) -> None:
        """Refuse settings that make no sense (InputError)."""
        if not 0 < self.beta <= 1:
            raise InputError(f"a share of {self.beta} of the channels", remedy="Use a number above 0 and up to 1.")
        if not 0 < self.alpha < float("inf"):
            raise InputError(f"task routing with alpha {self.alpha}", remedy="Use a number above 0.")
        if self.tasks < 2:
            raise InputError(f"task routing among {self.tasks} levels", remedy="Use 2 or more.")


@dataclass(frozen=True)
class CurriculumConfig:
    """Noise levels from easy to hard (:class:`~priorscope.training.curriculum.DifficultyCurriculum`)."""

    clusters: int = 1
    """Groups of noise levels, the noisiest first; 1: all levels from the start."""
    by: Literal["step", "log-snr"] = "step"
    """What groups are equally wide in."""
    patience: int = 4
    """Rows of the log without a lower loss before the next group joins."""

    def check(self) -> None:
        """Refuse settings that make no sense (InputError)."""
        if self.clusters < 1 or self.patience < 1:
            raise InputError(
                f"a curriculum of {self.clusters} groups with a patience of {self.patience}", remedy="Use 1 or more."
            )
        if self.by not in ("step", "log-snr"):
            raise InputError(f"a curriculum by {self.by!r}", remedy="Use 'step' or 'log-snr'.")


@dataclass(frozen=True)
class AlignmentConfig:
    """Inner features drawn towards those of a pretrained encoder (:mod:`~priorscope.training.alignment`)."""

    features: float = 0.0
    """Weight of the loss on features; REPA and HASTE use 0.5."""
    attention: float = 0.0
    """Weight of the loss on attention weights; HASTE uses 0.5."""
    warmup: int = 0
    """First steps in which nothing but the alignment is learned (ERW); 0: none."""
    stop: int = 0
    """Step from which the alignment no longer counts (HASTE); 0: it always counts."""
    fade: bool = False
    """Let the weights fall linearly from the end of the warm-up to the stop, instead of ending at once."""

    def check(self) -> None:
        """Refuse settings that make no sense (InputError)."""
        for name in ("features", "attention", "warmup", "stop"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"alignment with {name} {getattr(self, name)}", remedy="Use 0 or more.")
        if self.stop and self.stop < self.warmup:
            raise InputError(
                f"an alignment that stops at step {self.stop}, before its warm-up of {self.warmup} steps ends",
                remedy="Use a later stop.",
            )
        if self.fade and self.stop <= self.warmup:
            raise InputError("an alignment that fades but never stops", remedy="Give a stop after the warm-up.")
        if self.warmup and not (self.features or self.attention):
            raise InputError("a warm-up by an alignment without weight", remedy="Give a weight, such as features 0.5.")

    def weights(self, step: int) -> AlignmentWeights:
        """What counts in optimiser step ``step``, from 0."""
        if step < self.warmup:
            return AlignmentWeights(0.0, self.features, self.attention)
        if self.stop and step >= self.stop:
            return AlignmentWeights(1.0, 0.0, 0.0)
        left = (self.stop - step) / (self.stop - self.warmup) if self.fade else 1.0
        return AlignmentWeights(1.0, left * self.features, left * self.attention)


@dataclass(frozen=True)
class AlignmentWeights:
    """Weights of the parts of a loss in one step."""

    denoising: float
    features: float
    attention: float

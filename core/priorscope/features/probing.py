"""What frozen features know: linear and attentive probes, and which tap at which noise level knows most.

Source: Mukhopadhyay et al. 2023 (Diffusion Models Beat GANs on Image Classification), Xiang et al. 2023 (DDAE).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from priorscope.errors import InputError

Key = TypeVar("Key", bound=Hashable)
Score = Callable[[torch.Tensor, torch.Tensor], float]


@dataclass(frozen=True)
class ProbeSettings:
    """How a probe is trained: Adam on shuffled batches, the rate falling to 0 along a cosine.

    Defaults are DDAE's; it scales the rate by the number of GPUs.
    """

    epochs: int = 15
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    batch_size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.learning_rate <= 0 or self.weight_decay < 0:
            raise InputError(f"{self}", remedy="Use at least one epoch and positive numbers.")


class Probe(nn.Module):
    """A small classifier of feature maps (B, C, h, w) or vectors (B, C), standardised by the training set.

    Attributes
    ----------
    mean, deviation : Tensor (C,)
        Buffers, set by :func:`fit_probe`.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def reduced(self, features: torch.Tensor) -> torch.Tensor:
        """What is standardised: (B, C, ...), taken from the features."""
        return as_maps(features)

    def standardise(self, features: torch.Tensor) -> None:
        """Take mean and deviation of each channel from the training set's ``features`` (N, ...)."""
        with torch.no_grad():
            values = self.reduced(features).transpose(0, 1).flatten(1).double()
            self.mean.copy_(values.mean(1))
            self.deviation.copy_(values.std(1, correction=0).clamp(min=1e-6))

    def scaled(self, features: torch.Tensor) -> torch.Tensor:
        """:meth:`reduced`, standardised."""
        values = self.reduced(features).to(self.mean)
        if values.shape[1] != len(self.mean):
            raise InputError(f"features of shape {tuple(features.shape)} for a probe of {len(self.mean)} values")
        shape = (1, -1) + (1,) * (values.ndim - 2)
        return (values - self.mean.reshape(shape)) / self.deviation.reshape(shape)


class LinearProbe(Probe):
    """Average-pool the map to ``size`` x ``size`` and classify linearly.

    Parameters
    ----------
    channels, classes : int
    size : int
        1: the mean over all positions (DDAE); 2: with a little of where.
    """

    def __init__(self, channels: int, classes: int, size: int = 1) -> None:
        if size < 1:
            raise InputError(f"a linear probe of {size} x {size} fields", remedy="Use 1 or more.")
        super().__init__(channels * size * size)
        self.size = size
        self.linear = nn.Linear(channels * size * size, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def reduced(self, features: torch.Tensor) -> torch.Tensor:
        return functional.adaptive_avg_pool2d(as_maps(features).float(), self.size).flatten(1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes)."""
        return self.linear(self.scaled(features))


class AttentiveProbe(Probe):
    """A learned query that attends to all positions of the map, then a linear classifier.

    Parameters
    ----------
    channels, classes : int
    width : int
        Of queries, keys and values; a multiple of ``heads``.
    heads : int
    """

    def __init__(self, channels: int, classes: int, *, width: int = 256, heads: int = 8) -> None:
        super().__init__(channels)
        if width % heads:
            raise InputError(f"an attentive probe of width {width} with {heads} heads", remedy="Use a multiple.")
        self.query = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.project = nn.Linear(channels, width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes)."""
        tokens = self.project(self.scaled(features).flatten(2).transpose(1, 2))
        pooled, _ = self.attention(self.query.expand(len(tokens), -1, -1), tokens, tokens, need_weights=False)
        return self.linear(self.norm(pooled[:, 0]))


def as_maps(features: torch.Tensor) -> torch.Tensor:
    """Vectors (B, C) as maps (B, C, 1, 1); maps as they are."""
    if not isinstance(features, torch.Tensor):
        raise InputError(
            f"features of type {type(features).__name__}", remedy="torch.as_tensor makes a Tensor of them."
        )
    if features.ndim == 2:
        features = features[:, :, None, None]
    if features.ndim != 4 or features.numel() == 0 or not features.is_floating_point():
        raise InputError(
            f"features of shape {tuple(features.shape)} and dtype {features.dtype}",
            remedy="Give maps (N, C, h, w) or vectors (N, C) of floating-point numbers.",
        )
    return features


def fit_probe(
    probe: Probe, features: torch.Tensor, labels: torch.Tensor | NDArray[Any], settings: ProbeSettings | None = None
) -> Probe:
    """Train ``probe`` in place on frozen features and return it in evaluation mode.

    Parameters
    ----------
    features : Tensor (N, C, h, w) or (N, C)
    labels : int Tensor or array (N,), or one (N, K) of 0 and 1
        One class (cross entropy), or several at once (binary cross entropy).
    settings : ProbeSettings
    """
    settings = settings or ProbeSettings()
    labels = _labels(labels)
    _check_labels(features, labels)
    with torch.no_grad():
        classes = probe(features[:1].to(probe.mean)).shape[1]
    labels = labels.long() if labels.ndim == 1 else labels
    named = int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]
    if named > classes or (labels.ndim == 2 and named < classes):
        raise InputError(f"labels of {named} classes for a probe of {classes}")
    if not torch.isfinite(features).all():
        raise InputError("features with NaN or infinite values")
    probe.standardise(features)
    probe.train()
    optimizer = torch.optim.Adam(probe.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    batches = -(-len(features) // settings.batch_size)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * batches)
    draw = torch.Generator().manual_seed(settings.seed)
    for _ in range(settings.epochs):
        for some in torch.randperm(len(features), generator=draw).split(settings.batch_size):
            logits = probe(features[some.to(features.device)])
            loss = _loss(logits, labels[some.to(labels.device)].to(logits.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    return probe.eval()


@torch.no_grad()
def probe_logits(probe: Probe, features: torch.Tensor, *, batch_size: int = 512) -> torch.Tensor:
    """Logits (N, classes) of a fitted probe, in batches."""
    return torch.cat([probe(some) for some in features.split(batch_size)])


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Fraction of right answers: logits (N, classes), labels (N,)."""
    return float((logits.argmax(1) == labels.to(logits.device)).float().mean())


def micro_f1(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """F1 of all answers together, at probability 0.5: logits and labels of 0 and 1 (N, K)."""
    found, real = logits > 0, labels.to(logits.device) > 0
    return float(2 * (found & real).sum() / (found.sum() + real.sum()).clamp(min=1))


@dataclass(frozen=True)
class Selection(Generic[Key]):
    """Which features to use.

    Attributes
    ----------
    best : key
        Of the features with the highest validation score (the first of equal ones).
    scores : dict of key to float
        Validation scores of all candidates, in the order given.
    probe : Probe
        The best features' probe. Its score on the validation set is the highest of many and thus flattering:
        report a test set's.
    """

    best: Key
    scores: dict[Key, float]
    probe: Probe


def select_features(
    train: Mapping[Key, torch.Tensor],
    train_labels: torch.Tensor | NDArray[Any],
    validation: Mapping[Key, torch.Tensor],
    validation_labels: torch.Tensor | NDArray[Any],
    *,
    make: Callable[[int, int], Probe] = LinearProbe,
    settings: ProbeSettings | None = None,
    score: Score | None = None,
) -> Selection[Key]:
    """Fit one probe a candidate and choose by the validation split.

    Parameters
    ----------
    train, validation : mapping of key to Tensor (N, C, h, w)
        Candidates: a key may be (noise level, tap).
    train_labels, validation_labels : Tensor or array (N,) or (N, K)
    make : callable
        ``make(channels, classes)`` gives a probe; it starts from the settings' seed for every candidate.
    score : callable, optional
        ``score(logits, labels)``, larger is better. Default: :func:`accuracy`, for labels (N, K) :func:`micro_f1`.

    Returns
    -------
    Selection
    """
    settings = settings or ProbeSettings()
    if not train or set(train) != set(validation):
        raise InputError(f"{len(train)} candidates for training and {len(validation)} for validation, not the same")
    train_labels, validation_labels = _labels(train_labels), _labels(validation_labels)
    score = score or (accuracy if train_labels.ndim == 1 else micro_f1)
    if train_labels.ndim == 1:
        classes = int(torch.cat([train_labels.cpu(), validation_labels.cpu()]).max()) + 1
    else:
        classes = train_labels.shape[1]
    scores: dict[Key, float] = {}
    best: tuple[Key, Probe] | None = None
    for key, features in train.items():
        _check_labels(validation[key], validation_labels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            probe = make(features.shape[1], classes).to(features.device)
        fit_probe(probe, features, train_labels, settings)
        scores[key] = score(probe_logits(probe, validation[key]), validation_labels)
        if best is None or scores[key] > scores[best[0]]:
            best = (key, probe)
    assert best is not None
    return Selection(best[0], scores, best[1])


def _labels(labels: Any) -> torch.Tensor:
    try:
        return torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:  # what torch raises depends on what it is given
        raise InputError(
            f"labels of type {type(labels).__name__} that are no numbers",
            remedy="Give one class number from 0 for each.",
        ) from error


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels)
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits))


def _check_labels(features: torch.Tensor, labels: torch.Tensor) -> None:
    as_maps(features)
    if labels.ndim == 1:
        wrong_kind = labels.is_floating_point() or bool((labels < 0).any())
    else:
        wrong_kind = not bool(((labels == 0) | (labels == 1)).all())
    if labels.ndim not in (1, 2) or len(labels) != len(features) or not len(labels) or wrong_kind:
        raise InputError(
            f"labels of shape {tuple(labels.shape)} and dtype {labels.dtype} for {len(features)} features",
            remedy="Give one class number from 0 for each, or rows of 0 and 1.",
        )

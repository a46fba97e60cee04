"""The second half of evidence_remote_sensing.py: heads that all descriptions of a pixel get alike."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from priorscope_remote_sensing.data.legend import UNLABELLED
from priorscope_remote_sensing.decoder import Decoder, DecoderConfig, FuserName
from priorscope_remote_sensing.fusers import ExpertFuser, GlobalFuser, LocalFuser, load_balance

CLASSES = ("forest", "grassland", "shrub and built-up")
HEADS = ("linear", "gw", "lw", "moe")
#: Penalty of the linear head, and by how much the bands are scaled up against all else (39 good numbers want a
#: smaller penalty than hundreds of redundant ones); learning rate of the others.
SETTINGS: dict[str, list[tuple[float, ...]]] = {
    "linear": list(itertools.product((10.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0), (1.0, 10.0))),
    **{head: [(1e-3,), (3e-3,), (1e-2,)] for head in HEADS[1:]},
}
DECAY, STEPS = 0.1, 60


Maps = dict[str, torch.Tensor]
"""By name (a part of the bands, or a tap): (C, H, W)."""


class Pixels(Decoder):
    """A linear layer on the sum of the fused maps of all scales."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.classes = nn.Conv2d(config.projection_dim, config.num_classes, 1)

    def decode(self, maps: Sequence[torch.Tensor], size: tuple[int, int] | None = None) -> torch.Tensor:
        return self.classes(torch.stack(list(maps)).sum(0))


class GlobalPixels(GlobalFuser, Pixels):
    """Global weights."""


class LocalPixels(LocalFuser, Pixels):
    """Localised weights."""


class ExpertPixels(ExpertFuser, Pixels):
    """Mixture of experts."""


FUSERS: dict[str, type[Decoder]] = {"gw": GlobalPixels, "lw": LocalPixels, "moe": ExpertPixels}


def new_decoder(head: FuserName, maps: Maps) -> Decoder:
    config = DecoderConfig(
        *(head, "segmentation", len(CLASSES)),
        taps=(tuple(len(value) for value in maps.values()),),
        save_steps=(0,),
        projection_dim=32,
        norm_groups=4,
        experts=4,
        top_k=2,
        warmup_steps=STEPS // 2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FUSERS[head](config)


def standardised(maps: Maps, target: np.ndarray) -> Maps:
    """By mean and deviation over the training pixels."""
    inside = torch.from_numpy(target != UNLABELLED)
    result: Maps = {}
    for name, value in maps.items():
        pixels = value[:, inside]
        result[name] = (value - pixels.mean(1)[:, None, None]) / (pixels.std(1)[:, None, None] + 1e-6)
    return result


def fit_decoder(head: FuserName, maps: Maps, target: np.ndarray, rate: float) -> np.ndarray:
    """Train on the pixels with a target, the whole scene at every step; predicted classes, [H, W]."""
    ready = {0: [torch.cat(list(standardised(maps, target).values()))[None]]}
    labels = torch.from_numpy(target.astype(np.int64))[None]
    labels[labels == UNLABELLED] = -1
    counts = torch.bincount(labels[labels >= 0], minlength=len(CLASSES)).float()
    decoder = new_decoder(head, maps)
    optimizer = torch.optim.AdamW(decoder.parameters(), rate, weight_decay=DECAY)
    course = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, STEPS, pct_start=0.1)
    for _ in range(STEPS):
        fused = decoder.fuse(ready)
        logits = decoder.decode(fused.maps)
        loss = functional.cross_entropy(logits, labels, counts.sum() / counts, ignore_index=-1)
        if head == "moe":
            loss = loss + 0.01 * load_balance(fused.gates)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        course.step()
        if isinstance(decoder, ExpertFuser):
            decoder.update_done()
    decoder.eval()
    with torch.no_grad():
        return decoder(ready)[0].argmax(0).numpy()


def fit_linear(maps: Maps, target: np.ndarray, settings: Sequence[tuple[float, ...]]) -> list[np.ndarray]:
    """Ridge regression of one-hot classes, all classes weighing alike: predictions for each (penalty, scale).

    Closed form, so that no description loses because an optimiser stopped early.
    """
    inside = torch.from_numpy(np.flatnonzero(target.ravel() != UNLABELLED))
    labels = torch.from_numpy(target.ravel().astype(np.int64))[inside]
    counts = torch.bincount(labels, minlength=len(CLASSES))
    weight = (len(labels) / (len(CLASSES) * counts))[labels][:, None].double()
    one_hot = functional.one_hot(labels, len(CLASSES)).double() - 1 / len(CLASSES)
    ready = standardised(maps, target)
    table = torch.cat(list(ready.values())).flatten(1).T.double()
    table = table - (weight * table[inside]).sum(0) / weight.sum()
    x = table[inside]
    gram, answer = (weight * x).T @ x, (weight * x).T @ one_hot
    is_band = torch.cat([torch.full((len(value),), name == "bands") for name, value in ready.items()])
    # a band scaled up by s is a band with 1 / s^2 of the penalty
    ridges = [torch.where(is_band, penalty / scale**2, penalty) for penalty, scale in settings]
    weights = [torch.linalg.solve(gram + torch.diag(ridge.double()), answer) for ridge in ridges]
    scores = (table @ torch.cat(weights, 1)).unflatten(1, (len(settings), -1)).argmax(2)
    return list(scores.T.reshape(-1, *target.shape).numpy())


def predict(head: str, maps: Maps, target: np.ndarray, settings: Sequence[tuple[float, ...]]) -> list[np.ndarray]:
    """Maps of classes for each of the settings."""
    if head == "linear":
        return fit_linear(maps, target, settings)
    return [fit_decoder(head, maps, target, setting[0]) for setting in settings]  # type: ignore[arg-type]

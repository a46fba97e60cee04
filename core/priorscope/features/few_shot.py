"""Few-shot segmentation: an image segmented like a few examples, by attention to them (DiffewS), and its metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn import functional

from priorscope.backbones.latents import LatentSpace
from priorscope.backbones.stable_diffusion import UNetNetwork, repeat_inputs
from priorscope.errors import InputError
from priorscope.features.kv_bank import KeyValueBank

#: A pixel belongs to the object above this fraction of the image's largest value (DiffewS; of values in [0, 1] here).
THRESHOLD = 0.25


class FewShotSegmenter:
    """Segment a query image like its support images, in two passes of one U-Net.

    The first pass sees the latents of each support image and of its mask side by side, and leaves keys and values;
    the second sees the query's latent, attends to them and gives the mask's latent at once.

    Parameters
    ----------
    unet : UNet2DConditionModel
    latents : LatentSpace
    text : Tensor (1, tokens, width)
        State of the prompt, the same for every image.
    conv_in_ref : nn.Conv2d, optional
        First convolution of the support pass, with twice the channels. Default: the U-Net's own with its weight
        repeated and halved, which is how the published training starts.
    label : float
        What the U-Net is told about the noise level.

    Notes
    -----
    The published schedule has betas of 1, so that the v-prediction is minus the mask's latent.

    Source: Zhu et al. 2024 (DiffewS).
    """

    def __init__(
        self,
        unet: Any,
        latents: LatentSpace,
        text: torch.Tensor,
        *,
        conv_in_ref: nn.Conv2d | None = None,
        label: float = 1.0,
    ) -> None:
        if text.ndim != 3 or text.shape[0] != 1:
            raise InputError(f"a prompt state of shape {tuple(text.shape)}", remedy="Give (1, tokens, width).")
        self.unet = unet
        self.latents = latents
        self.text = text
        self.label = label
        self.conv_in_ref = conv_in_ref or repeat_inputs(unet.conv_in)
        if self.conv_in_ref.in_channels != 2 * latents.channels:
            raise InputError(
                f"a first convolution of {self.conv_in_ref.in_channels} channels for two latents of {latents.channels}"
            )
        self.network = UNetNetwork(unet)
        self.bank = KeyValueBank(unet)

    def predict_latents(self, query: torch.Tensor, support: torch.Tensor, support_masks: torch.Tensor) -> torch.Tensor:
        """The mask's latent (B, C, h, w), for latents (B, C, h, w), (B, S, C, h, w) and (B, S, C, h, w)."""
        shots = support.shape[1]
        reference = torch.cat([support, support_masks], dim=2).flatten(0, 1)
        with self.bank.remembering(), self._seeing_pairs():
            self._ask(reference)
        with self.bank.recalling(shots):
            return -self._ask(query)

    @torch.no_grad()
    def __call__(self, query: torch.Tensor, support: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Segment ``query``.

        Parameters
        ----------
        query : Tensor (B, 3, H, W) in [-1, 1]
        support : Tensor (B, S, 3, H, W) in [-1, 1]
            S examples for each query, of the query's size.
        masks : bool Tensor (B, S, H, W)
            What is to be found in them.

        Returns
        -------
        Tensor (B, H, W) in [0, 1]
            The decoded mask, mean over its colours; :func:`binary` makes it one of yes and no.
        """
        _check_episode(query, support, masks)
        some = [self.latents.encode(each.flatten(0, 1)) for each in (support, mask_image(masks))]
        pairs = [each.unflatten(0, support.shape[:2]) for each in some]
        decoded = self.latents.decode(self.predict_latents(self.latents.encode(query), pairs[0], pairs[1]))
        return (decoded.float() / 2 + 0.5).clamp(0, 1).mean(1)

    def loss(
        self, query: torch.Tensor, support: torch.Tensor, masks: torch.Tensor, query_mask: torch.Tensor
    ) -> torch.Tensor:
        """Training loss: mean squared error of the mask's latent. ``query_mask`` is bool (B, H, W)."""
        _check_episode(query, support, masks)
        with torch.no_grad():
            some = [self.latents.encode(each.flatten(0, 1)) for each in (support, mask_image(masks))]
            target = self.latents.encode(mask_image(query_mask))
            pairs = [each.unflatten(0, support.shape[:2]) for each in some]
            query = self.latents.encode(query)
        return functional.mse_loss(self.predict_latents(query, pairs[0], pairs[1]), target)

    def _ask(self, sample: torch.Tensor) -> torch.Tensor:
        label = torch.full((len(sample),), self.label, device=sample.device)
        return self.network(sample, label, text=self.text.to(sample).expand(len(sample), -1, -1))

    @contextmanager
    def _seeing_pairs(self) -> Iterator[None]:
        single = self.unet.conv_in
        # the U-Net may have been moved since
        self.unet.conv_in = self.conv_in_ref.to(single.weight)
        try:
            yield
        finally:
            self.unet.conv_in = single


def mask_image(mask: torch.Tensor) -> torch.Tensor:
    """A mask (..., H, W) as a picture (..., 3, H, W): white (1) on black (-1)."""
    picture = mask.unsqueeze(-3).float() * 2 - 1
    return picture.expand(*mask.shape[:-2], 3, *mask.shape[-2:])


def binary(values: torch.Tensor, threshold: float = THRESHOLD) -> torch.Tensor:
    """Bool (B, H, W): above ``threshold`` times the largest value of each image."""
    return values > threshold * values.amax((-2, -1), keepdim=True)


@dataclass(frozen=True)
class FewShotScores:
    """Figures of many episodes, fractions in [0, 1].

    Attributes
    ----------
    miou : float
        Mean over classes of the foreground's intersection over union, each from summed areas.
    fb_iou : float
        Mean of the foreground's and the background's IoU, from areas summed over everything.
    by_class : dict of int to float
    episodes : int
    """

    miou: float
    fb_iou: float
    by_class: dict[int, float]
    episodes: int


class FewShotTally:
    """Sum intersections and unions of episodes.

    Source: HSNet's evaluation (Min et al. 2021), which DiffewS uses.
    """

    def __init__(self) -> None:
        # class -> [background, foreground] x [intersection, union], in pixels
        self.areas: dict[int, NDArray[np.int64]] = defaultdict(lambda: np.zeros((2, 2), np.int64))
        self.episodes = 0

    def add(self, predicted: ArrayLike, true: ArrayLike, label: int, ignore: ArrayLike | None = None) -> None:
        """Count one episode.

        Parameters
        ----------
        predicted, true : bool array [H, W]
        label : int
            The episode's class.
        ignore : bool array [H, W], optional
            Pixels that count nowhere (255 in Pascal's masks).
        """
        found, real = np.asarray(predicted), np.asarray(true)
        valid = np.ones(real.shape, bool) if ignore is None else ~np.asarray(ignore).astype(bool)
        if found.shape != real.shape or valid.shape != real.shape or real.size == 0:
            raise InputError(f"masks of shapes {found.shape} and {real.shape}, ignoring {valid.shape}")
        for mask in (found, real):
            if not np.isin(mask, (0, 1)).all():
                raise InputError("a mask with values other than 0 and 1", remedy="Mark ignored pixels by `ignore`.")
        found, real = found.astype(bool)[valid], real.astype(bool)[valid]
        for row, (ours, theirs) in enumerate(((~found, ~real), (found, real))):
            self.areas[int(label)][row] += [int((ours & theirs).sum()), int((ours | theirs).sum())]
        self.episodes += 1

    def scores(self) -> FewShotScores:
        """Figures of all episodes so far; a class that occurs nowhere counts as 0, as officially."""
        if not self.areas:
            raise InputError("no episode was counted")
        by_class = {label: _iou(*areas[1]) for label, areas in sorted(self.areas.items())}
        pooled = np.sum(list(self.areas.values()), axis=0)
        fb_iou = (_iou(*pooled[0]) + _iou(*pooled[1])) / 2
        return FewShotScores(float(np.mean(list(by_class.values()))), fb_iou, by_class, self.episodes)


def _iou(intersection: int, union: int) -> float:
    return float(intersection) / max(int(union), 1)


def _check_episode(query: torch.Tensor, support: torch.Tensor, masks: torch.Tensor) -> None:
    batch, size = query.shape[:1], query.shape[-2:]
    fits = query.ndim == 4 and support.ndim == 5 and masks.ndim == 4 and support.shape[1] > 0
    if not fits or support.shape[:1] != batch or support.shape[-2:] != size or masks.shape != support[:, :, 0].shape:
        raise InputError(
            f"a query {tuple(query.shape)} with support {tuple(support.shape)} and masks {tuple(masks.shape)}",
            remedy="Give (B, 3, H, W), (B, S, 3, H, W) and (B, S, H, W).",
        )
    if masks.dtype != torch.bool or not (torch.isfinite(query).all() and torch.isfinite(support).all()):
        raise InputError(f"masks of {masks.dtype}, or images with NaN", remedy="Give bool masks and finite images.")

"""Where the maximum of each heatmap lies, and what to say where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from priorscope.errors import InputError

#: Place of a keypoint whose heatmap is nowhere positive, in heatmap pixels. "maximum": that of the largest value (the
#: first pixel of a constant map). Parity: "outside", (-1, -1), is mmpose's; "origin", (0, 0), DCPose's. The score is
#: the maximum in every case, so 0 or negative.
WithoutPeak = Literal["maximum", "outside", "origin"]


@dataclass(frozen=True)
class Peaks:
    """The first maximum of each heatmap.

    Attributes
    ----------
    x, y : Tensor, int64, [N, K]
    scores : Tensor, float32, [N, K]
        The maximum itself; unbounded.
    positive : Tensor, bool, [N, K]
        Whether it is above 0. Only such a maximum is refined.
    """

    x: torch.Tensor
    y: torch.Tensor
    scores: torch.Tensor
    positive: torch.Tensor

    def place(self, offset: torch.Tensor, without_peak: WithoutPeak) -> torch.Tensor:
        """Keypoints [N, K, 2], float64, heatmap pixels: maximum plus ``offset`` [N, K, 2] where there is a peak."""
        maximum = torch.stack([self.x, self.y], -1).double()
        if without_peak == "maximum":
            elsewhere = maximum
        else:
            elsewhere = torch.full_like(maximum, -1.0 if without_peak == "outside" else 0.0)
        return torch.where(self.positive[..., None], maximum + offset, elsewhere)


def find_peaks(heatmaps: torch.Tensor) -> Peaks:
    """First maximum of each heatmap of [N, K, H, W].

    Raises
    ------
    InputError
        A heatmap with a NaN, or whose maximum is infinite: the network has failed.
    """
    # Row by row, and then in one row: a plain maximum is several times as fast as one that also tells its place.
    of_rows = heatmaps.amax(-1)
    y = of_rows.argmax(-1)
    row = heatmaps.gather(2, y[..., None, None].expand(-1, -1, 1, heatmaps.shape[-1]))[:, :, 0]
    x = row.argmax(-1)
    scores = row.gather(-1, x[..., None])[..., 0].float()
    if not scores.isfinite().all():
        person, joint = (~scores.isfinite()).nonzero()[0].tolist()
        raise InputError(
            f"heatmap {joint} of person {person} holds {'NaN' if scores[person, joint].isnan() else 'infinite values'}",
            remedy="Look for NaN in the weights, or use another --precision.",
        )
    return Peaks(x, y, scores, scores > 0)


def check_heatmaps(heatmaps: torch.Tensor, size: tuple[int, int], channels: int = 1) -> None:
    """Raise :class:`InputError` unless ``heatmaps`` are floats [N, channels * K, H, W] of ``size`` = (W, H)."""
    expected = f"[N, {'' if channels == 1 else f'{channels} '}K, {size[1]}, {size[0]}]"
    fits = heatmaps.ndim == 4 and tuple(heatmaps.shape[2:]) == (size[1], size[0]) and heatmaps.shape[1] % channels == 0
    if not fits or not heatmaps.is_floating_point():
        raise InputError(
            f"heatmaps of shape {list(heatmaps.shape)}, {heatmaps.dtype}; floats {expected} are expected",
            remedy="Use a codec of the network's own sizes.",
        )


def check_keypoints(
    keypoints: torch.Tensor, visible: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keypoints and visibilities in float32, and which keypoints there are: visible at least 0.5 and finite.

    A keypoint that is not finite counts as invisible; it comes back as (0, 0) with visibility 0.
    """
    if keypoints.ndim != 3 or keypoints.shape[-1] != 2:
        raise InputError(f"keypoints of shape {list(keypoints.shape)}", remedy="Give [N, K, 2].")
    if visible is None:
        visible = torch.ones(keypoints.shape[:2], device=keypoints.device)
    if visible.shape != keypoints.shape[:2]:
        raise InputError(
            f"visibilities {list(visible.shape)} for keypoints {list(keypoints.shape)}", remedy="Give [N, K]."
        )
    finite = keypoints.isfinite().all(-1)
    keypoints = torch.where(finite[..., None], keypoints, 0).float()
    visible = torch.where(finite, visible, 0).float()
    return keypoints, visible, visible >= 0.5


def check_sizes(input_size: tuple[int, int], heatmap_size: tuple[int, int], spread: float) -> None:
    """Raise :class:`InputError` for sizes below two pixels, or targets whose ``spread`` is not above 0."""
    if min(*input_size, *heatmap_size) < 2:
        raise InputError(
            f"an input of {input_size} pixels with heatmaps of {heatmap_size}", remedy="Sides have two pixels or more."
        )
    if not 0 < spread < float("inf"):
        raise InputError(f"targets of width {spread}", remedy="Give sigma (or radius_factor) above 0.")


def check_without_peak(without_peak: str) -> None:
    """Raise :class:`InputError` for an unknown place."""
    if without_peak not in get_args(WithoutPeak):
        choices = ", ".join(get_args(WithoutPeak))
        raise InputError(f"unknown place {without_peak!r} for heatmaps without a peak", remedy=f"Use one of {choices}.")

"""The three heads: classes, box codes and headings of every anchor, 1 x 1 convolutions with CoAlign's keys."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn


class HeadMaps(NamedTuple):
    """What the heads say of B frames; each channel is an anchor's: A anchors a cell.

    Attributes
    ----------
    classes : Tensor (B, A, H, W)
        Logits.
    codes : Tensor (B, 7 A, H, W)
        Seven numbers an anchor, see :mod:`priorscope_detection.box_coder`.
    direction : Tensor (B, 2 A, H, W) or None
        Logits of the two headings.
    """

    classes: torch.Tensor
    codes: torch.Tensor
    direction: torch.Tensor | None


def make_heads(width: int, anchors: int, bins: int) -> dict[str, nn.Conv2d]:
    """The heads by their keys. Scores begin at 0.01, so that the many empty anchors do not drown the first steps."""
    heads = {"cls_head": nn.Conv2d(width, anchors, 1), "reg_head": nn.Conv2d(width, 7 * anchors, 1)}
    if bins:
        heads["dir_head"] = nn.Conv2d(width, bins * anchors, 1)
    bias = heads["cls_head"].bias
    assert bias is not None
    nn.init.constant_(bias, -4.595)  # log(0.01 / 0.99); Lin et al. 2017 (focal loss)
    return heads

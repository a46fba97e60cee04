"""Features of several levels and of two networks as one descriptor: joint PCA, then concatenation (sd-dino)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from priorscope.errors import InputError


def principal_components(rows: torch.Tensor, components: int) -> torch.Tensor:
    """Coordinates of ``rows`` (N, C) along their leading principal axes, exactly and deterministically.

    Solves the smaller of the two Gram matrices in float64. Of each axis' two signs, the one that makes the
    coordinate of largest magnitude positive. Coordinates beyond the rank are 0.

    Parameters
    ----------
    rows : Tensor (N, C)
    components : int
        How many axes, in order of falling variance.

    Returns
    -------
    Tensor (N, components), the dtype of ``rows``.

    Notes
    -----
    sd-dino calls ``torch.pca_lowrank``, which draws random numbers and stops before it has converged.
    """
    if rows.ndim != 2 or rows.shape[0] < 2 or components < 1:
        raise InputError(f"{components} components of rows of shape {tuple(rows.shape)}")
    if not torch.isfinite(rows).all():
        raise InputError("features with NaN or infinite values")
    centred = rows.double() - rows.double().mean(dim=0)
    count, channels = centred.shape
    if channels <= count:
        _, axes = torch.linalg.eigh(centred.T @ centred)
        found = centred @ axes.flip(1)[:, :components]
    else:
        variances, axes = torch.linalg.eigh(centred @ centred.T)
        found = (axes * variances.clamp(min=0).sqrt()).flip(1)[:, :components]
    largest = found.gather(0, found.abs().argmax(dim=0, keepdim=True))
    found = torch.where(largest < 0, -found, found)
    return functional.pad(found, (0, components - found.shape[1])).to(rows.dtype)


def joint_pca(
    first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], components: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reduce each level of two images by one PCA over both, and stack the levels at the finest one's size.

    Parameters
    ----------
    first, second : sequence of Tensor (C_l, h_l, w_l)
        Levels of either image, finest first (sd-dino: s3, s4, s5). The two may differ in size, not in channels.
    components : sequence of int
        Channels kept of each level, in the same order (sd-dino: 256 each).

    Returns
    -------
    two Tensors (sum of components, h, w)
        Channels in the order of the levels. Each level was enlarged bilinearly to the next finer one's size, and
        from there on with it.

    Source: Zhang et al. 2023 (A Tale of Two Features), ``co_pca``; here by an exact PCA.
    """
    if not first or not len(first) == len(second) == len(components):
        raise InputError(f"{len(first)} and {len(second)} levels with {len(components)} numbers of components")
    stacked: tuple[torch.Tensor, ...] | None = None
    for one, other, kept in reversed(list(zip(first, second, components, strict=True))):
        if one.ndim != 3 or other.ndim != 3 or one.shape[0] != other.shape[0]:
            raise InputError(f"levels of shapes {tuple(one.shape)} and {tuple(other.shape)}, not two (C, h, w)")
        tokens = torch.cat([one.flatten(1).T, other.flatten(1).T])
        reduced = principal_components(tokens, kept).T
        split = one.shape[1] * one.shape[2]
        level = (reduced[:, :split].reshape(kept, *one.shape[1:]), reduced[:, split:].reshape(kept, *other.shape[1:]))
        if stacked is not None:
            level = tuple(torch.cat([fine, _resize(c, fine)]) for fine, c in zip(level, stacked, strict=True))  # type: ignore[assignment]
        stacked = level
    assert stacked is not None
    return stacked[0], stacked[1]


def fuse(families: Sequence[torch.Tensor], weights: Sequence[float] | None = None) -> torch.Tensor:
    """Concatenate maps of several networks, each vector of each network made a unit vector first.

    Parameters
    ----------
    families : sequence of Tensor (C_f, h, w)
        Maps of one size, for instance [Stable Diffusion's, DINOv2's].
    weights : sequence of float, optional
        Factor on each family's unit vectors; default 1.

    Returns
    -------
    Tensor (sum of C_f, h, w)
    """
    weights = [1.0] * len(families) if weights is None else weights
    if not families or len(weights) != len(families):
        raise InputError(f"{len(families)} feature maps with {len(weights)} weights")
    if len({tuple(family.shape[1:]) for family in families}) > 1 or families[0].ndim != 3:
        raise InputError(
            f"maps of shapes {[tuple(family.shape) for family in families]}", remedy="Bring them to one size first."
        )
    return torch.cat([functional.normalize(f, dim=0) * w for f, w in zip(families, weights, strict=True)])


def _resize(level: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(level[None], like.shape[1:], mode="bilinear", align_corners=False)[0]

"""Which point of one image is which point of another: nearest neighbours between feature maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from numpy.typing import NDArray
from torch.nn import functional

from priorscope.errors import InputError

Metric = Literal["cosine", "euclidean"]

#: Values held at once by a comparison unless told otherwise: 64 MiB of float32.
BLOCK = 2**24


class Matches(NamedTuple):
    """Where each query went: ``indices`` (N,) int64 into the candidates, ``scores`` (N,), larger is more alike."""

    indices: torch.Tensor
    scores: torch.Tensor


class MatchedPoints(NamedTuple):
    """Points found in another image: ``points`` (N, 2) as (x, y) in its pixels, ``scores`` (N,) cosines."""

    points: torch.Tensor
    scores: torch.Tensor


def descriptors(features: torch.Tensor) -> torch.Tensor:
    """Rows (N, C) of a map (C, h, w) in row-major order, or of what is (N, C) already; checked for NaN."""
    _tensor(features)
    if features.ndim == 3:
        features = features.flatten(1).T
    if features.ndim != 2 or features.numel() == 0 or not features.is_floating_point():
        raise InputError(
            f"features of shape {tuple(features.shape)} and dtype {features.dtype}",
            remedy="Give a map (C, h, w) or rows (N, C) of floating-point numbers, at least one of them.",
        )
    if not torch.isfinite(features).all():
        raise InputError("features with NaN or infinite values")
    return features


def similarity(queries: torch.Tensor, candidates: torch.Tensor, metric: Metric = "cosine") -> torch.Tensor:
    """All similarities (N, M) of rows (N, C) and (M, C): the cosine, or minus the Euclidean distance."""
    return _compared(*_prepared(queries, candidates, metric), metric)


def nearest(
    queries: torch.Tensor, candidates: torch.Tensor, *, metric: Metric = "cosine", block: int = BLOCK
) -> Matches:
    """Find the most similar candidate of every query.

    Parameters
    ----------
    queries : Tensor (N, C) or (C, h, w)
    candidates : Tensor (M, C) or (C, h, w)
        A map counts as its h w vectors in row-major order.
    metric : {"cosine", "euclidean"}
        DIFT compares cosines, sd-dino distances.
    block : int
        At most this many similarities (and never fewer than one row of them) are held at once.

    Returns
    -------
    Matches
        Of several equally good candidates the first.
    """
    queries, candidates = _prepared(queries, candidates, metric)
    best = [_compared(rows, candidates, metric).max(dim=1) for rows in _blocks(queries, len(candidates), block)]
    return Matches(torch.cat([found.indices for found in best]), torch.cat([found.values for found in best]))


def mutual_nearest(
    first: torch.Tensor, second: torch.Tensor, *, metric: Metric = "cosine", block: int = BLOCK
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs that are each other's nearest neighbour ("best buddies").

    Parameters are those of :func:`nearest`; each similarity is computed once.

    Returns
    -------
    pairs : Tensor (K, 2), int64
        Indices into the first and the second, ordered by the first.
    score : Tensor (K,)
    """
    first, second = _prepared(first, second, metric)
    back_score = torch.full((len(second),), -torch.inf, dtype=first.dtype, device=first.device)
    back = torch.zeros(len(second), dtype=torch.int64, device=first.device)
    there, scores, begin = [], [], 0
    for rows in _blocks(first, len(second), block):
        values = _compared(rows, second, metric)
        best = values.max(dim=1)
        there.append(best.indices)
        scores.append(best.values)
        column = values.max(dim=0)
        better = column.values > back_score
        back = torch.where(better, column.indices + begin, back)
        back_score = torch.where(better, column.values, back_score)
        begin += len(rows)
    forward, score = torch.cat(there), torch.cat(scores)
    index = torch.arange(len(first), device=first.device)
    mutual = back[forward] == index
    return torch.stack([index[mutual], forward[mutual]], dim=1), score[mutual]


def soft_argmax(maps: torch.Tensor, *, temperature: float = 0.02, radius: int | None = 7) -> torch.Tensor:
    """Expected position under a softmax of similarity maps, around their maximum.

    Parameters
    ----------
    maps : Tensor (N, h, w)
        Similarities, for instance cosines.
    temperature : float
        Similarities are divided by it; towards 0 this is the argmax. The default is ours.
    radius : int, optional
        Only cells at most this far from the maximum count, in each direction; None: all cells. Without a window
        a second, distant mode draws the answer to where neither is.

    Returns
    -------
    Tensor (N, 2)
        (x, y) in cells; the centre of the first cell is (0, 0).
    """
    if maps.ndim != 3 or maps.numel() == 0 or not torch.isfinite(maps).all():
        raise InputError(f"similarity maps of shape {tuple(maps.shape)}", remedy="Give finite maps (N, h, w).")
    if not temperature > 0 or (radius is not None and radius < 0):
        raise InputError(f"temperature {temperature} and radius {radius}", remedy="Use positive numbers.")
    count, height, width = maps.shape
    x = torch.arange(width, device=maps.device)
    y = torch.arange(height, device=maps.device)
    logits = maps / temperature
    if radius is not None:
        peak = maps.flatten(1).argmax(dim=1)
        near_x = (x - (peak % width)[:, None]).abs() <= radius
        near_y = (y - (peak // width)[:, None]).abs() <= radius
        logits = logits.masked_fill(~(near_y[:, :, None] & near_x[:, None, :]), -torch.inf)
    weights = logits.flatten(1).softmax(dim=1).reshape(count, height, width)
    return torch.stack([(weights.sum(1) * x).sum(1), (weights.sum(2) * y).sum(1)], dim=1)


def match_points(
    source: torch.Tensor,
    target: torch.Tensor,
    points: torch.Tensor | NDArray[Any] | Sequence[Sequence[float]],
    source_size: tuple[int, int],
    target_size: tuple[int, int],
    *,
    refine: float | None = None,
    radius: int | None = 15,
    block: int = BLOCK,
) -> MatchedPoints:
    """Find points of one image in another, both feature maps enlarged bilinearly to their images' sizes (DIFT).

    Enlarging is linear, so what is enlarged is the similarity map of each point, not the features: the result
    is that of enlarging C channels at the memory of one.

    Parameters
    ----------
    source, target : Tensor (C, h, w), (C, h', w')
        Feature maps of the two images.
    points : Tensor, array or nested list (N, 2)
        (x, y) pixels of the source image; rounded half to even and clipped to the image.
    source_size, target_size : (height, width)
        Sizes in pixels to enlarge to: those of the images (DIFT), or any other (Hyperfeatures: its load size).
    refine : float, optional
        Temperature of a :func:`soft_argmax` with ``radius`` pixels; None: the best whole pixel.
    block : int
        Values held at once.

    Returns
    -------
    MatchedPoints
        Where the cosine is largest among all pixels of the target.

    Source: Tang et al. 2023 (DIFT), eval_spair.py.
    """
    points = _points(points)
    _pair(_map(source), _map(target))
    source, target = _at_least_single(source, target)
    if min(*source_size, *target_size) < 1:
        raise InputError(f"image sizes {source_size} and {target_size}")
    vectors = at_pixels(source, points, source_size)
    rows, columns = (_enlarging(target.shape[axis], target_size[axis - 1], target) for axis in (1, 2))
    inverse_norms = 1 / _enlarged_norms(target, rows, columns, block)
    height, width = target_size
    found, scores = [], []
    for some in _blocks(functional.normalize(vectors, dim=1), height * width, block):
        maps = rows @ torch.einsum("nc,chw->nhw", some, target) @ columns.T * inverse_norms
        best = maps.flatten(1).max(dim=1)
        scores.append(best.values)
        if refine is None:
            found.append(torch.stack([best.indices % width, best.indices // width], dim=1).to(maps.dtype))
        else:
            found.append(soft_argmax(maps, temperature=refine, radius=radius))
    if not found:
        return MatchedPoints(vectors.new_zeros(0, 2), vectors.new_zeros(0))
    return MatchedPoints(torch.cat(found), torch.cat(scores))


def at_pixels(features: torch.Tensor, points: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Vectors (N, C) of a map (C, h, w), enlarged bilinearly to ``size`` (height, width), at pixels (x, y).

    Points are rounded half to even and clipped to the image, as all three official evaluations end up doing.
    """
    height, width = size
    x = points[:, 0].round().long().clamp(0, width - 1)
    y = points[:, 1].round().long().clamp(0, height - 1)
    rows = _enlarging(features.shape[1], height, features)[y]
    columns = _enlarging(features.shape[2], width, features)[x]
    return torch.einsum("nh,chw,nw->nc", rows, features, columns)


def _enlarging(length: int, size: int, like: torch.Tensor) -> torch.Tensor:
    """The matrix (size, length) of one-dimensional bilinear resizing."""
    unit = torch.eye(length, dtype=like.dtype, device=like.device)
    return functional.interpolate(unit[None], size, mode="linear", align_corners=False)[0].T


def _enlarged_norms(features: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, block: int) -> torch.Tensor:
    """Norms (H, W) of the vectors of an enlarged map, a strip of rows at a time."""
    strips = []
    strip = max(1, block // (features.shape[0] * len(columns)))
    for some in rows.split(strip):
        enlarged = torch.einsum("yh,chw,xw->cyx", some, features, columns)
        strips.append(enlarged.norm(dim=0))
    return torch.cat(strips).clamp(min=1e-12)


def _points(points: Any) -> torch.Tensor:
    remedy = "Give finite (x, y) rows, shape (N, 2)."
    try:
        points = torch.as_tensor(points)
    except (TypeError, ValueError, RuntimeError) as error:  # what torch raises depends on what it is given
        raise InputError(f"points of type {type(points).__name__} that are no numbers", remedy=remedy) from error
    if points.ndim != 2 or points.shape[1] != 2 or not torch.isfinite(points.double()).all():
        raise InputError(f"points of shape {tuple(points.shape)}", remedy=remedy)
    return points


def _map(features: torch.Tensor) -> torch.Tensor:
    _tensor(features)
    if features.ndim != 3:
        raise InputError(f"a feature map of shape {tuple(features.shape)}", remedy="Give one image's (C, h, w).")
    return features


def _tensor(features: Any) -> None:
    if not isinstance(features, torch.Tensor):
        raise InputError(
            f"features of type {type(features).__name__}", remedy="torch.as_tensor makes a Tensor of them."
        )


def _pair(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = descriptors(first), descriptors(second)
    if first.shape[1] != second.shape[1]:
        raise InputError(f"features of {first.shape[1]} and of {second.shape[1]} channels cannot be compared")
    return _at_least_single(first, second)


def _at_least_single(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in one dtype, float32 or float64: half precision ties neighbours and has no pixel beyond 2048 (256)."""
    dtype = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    return first.to(dtype), second.to(dtype)


def _prepared(first: torch.Tensor, second: torch.Tensor, metric: Metric) -> tuple[torch.Tensor, torch.Tensor]:
    """Checked rows; unit vectors where cosines are wanted, made once and not once a block."""
    if metric not in get_args(Metric):
        raise InputError(f"metric {metric!r}", remedy="Use 'cosine' or 'euclidean'.")
    first, second = _pair(first, second)
    if metric == "cosine":
        first, second = functional.normalize(first, dim=1), functional.normalize(second, dim=1)
    return first, second


def _compared(first: torch.Tensor, second: torch.Tensor, metric: Metric) -> torch.Tensor:
    """All similarities (N, M) of prepared rows."""
    if metric == "cosine":
        return first @ second.T
    return -torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def _blocks(rows: torch.Tensor, others: int, block: int) -> Iterator[torch.Tensor]:
    if block < 1:
        raise InputError(f"a block of {block} values", remedy="Use at least 1.")
    return iter(rows.split(max(1, block // others)) if len(rows) else ())

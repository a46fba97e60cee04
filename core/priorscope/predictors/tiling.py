"""Large images in overlapping tiles, blended without seams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from priorscope.errors import InputError


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """First positions of the fewest evenly spread tiles that cover ``length`` with at least ``overlap`` shared."""
    if not 0 <= overlap < tile:
        raise InputError(f"tiles of {tile} pixels cannot overlap by {overlap}")
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(index * (length - tile) / (count - 1)) for index in range(count)]


def feather(tile: int, overlap: int, *, first: bool, last: bool) -> torch.Tensor:
    """Weights of a tile along one side: a raised cosine over ``overlap`` pixels, flat at the image's border."""
    weights = torch.ones(tile)
    if overlap > 0:
        ramp = 0.5 - 0.5 * torch.cos(torch.pi * (torch.arange(overlap) + 0.5) / overlap)
        if not first:
            weights[:overlap] *= ramp
        if not last:
            weights[-overlap:] *= ramp.flip(0)
    return weights


def predict_tiled(
    image: torch.Tensor,
    predict: Callable[[torch.Tensor], torch.Tensor],
    *,
    tile: int = 768,
    overlap: int = 192,
    reference: torch.Tensor | None = None,
    batch_size: int = 1,
    blend: Literal["feather", "count"] = "feather",
) -> torch.Tensor:
    """Predict tile by tile and blend.

    Parameters
    ----------
    image : Tensor (1, C, H, W)
    predict : callable
        (B, C, h, w) -> (B, K, h, w), at the tile's own size.
    tile, overlap : int
        Side of a tile and least overlap, in pixels. Tiles are evenly spread, so they overlap by more where they
        do not divide the image.
    reference : Tensor (1, K, H, W), optional
        A prediction of the whole image, usually at low resolution and resized. Affine-invariant predictions
        have another scale and shift in every tile: each tile is fitted to the reference by least squares
        first, and a tile that would need a negative scale (it disagrees with the whole) takes the reference.
    batch_size : int
        Tiles a call.
    blend : {"feather", "count"}
        Weights that fall towards a tile's inner borders, or the plain mean of the tiles that cover a pixel
        (DiffusionEdge's; it shows seams where tiles disagree).

    Returns
    -------
    Tensor (1, K, H, W). Memory: one prediction of the whole image and ``batch_size`` tiles.
    """
    if image.ndim != 4 or image.shape[0] != 1:
        raise InputError(f"tiling takes one image (1, C, H, W), got {tuple(image.shape)}")
    if blend not in ("feather", "count"):
        raise InputError(f"tiles blended by {blend!r}", remedy="Use 'feather' or 'count'.")
    height, width = image.shape[-2:]
    rows, columns = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
    places = [(top, left) for top in rows for left in columns]
    size = (min(tile, height), min(tile, width))
    total: torch.Tensor | None = None
    weight = torch.zeros(1, 1, height, width, device=image.device)
    for begin in range(0, len(places), batch_size):
        chosen = places[begin : begin + batch_size]
        crops = [image[..., top : top + size[0], left : left + size[1]] for top, left in chosen]
        predictions = predict(torch.cat(crops)).float()
        if total is None:
            total = torch.zeros(1, predictions.shape[1], height, width, device=image.device)
        for (top, left), prediction in zip(chosen, predictions, strict=True):
            window = (..., slice(top, top + size[0]), slice(left, left + size[1]))
            if reference is not None:
                prediction = _fit(prediction, reference[window][0])
            weights = torch.ones(size)
            if blend == "feather":
                weights = _window(top, rows, size[0])[:, None] * _window(left, columns, size[1])[None, :]
            weights = weights.to(image.device)
            total[window] += weights * prediction
            weight[window] += weights
    assert total is not None
    return total / weight


def _window(start: int, starts: list[int], size: int) -> torch.Tensor:
    """Weights along one side: ramps as long as the overlap with the neighbours on each side."""
    index = starts.index(start)
    weights = torch.ones(size)
    if index > 0:
        weights *= feather(size, starts[index - 1] + size - start, first=False, last=True)
    if index < len(starts) - 1:
        weights *= feather(size, start + size - starts[index + 1], first=True, last=False)
    return weights


def _fit(prediction: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Scale and shift ``prediction`` (K, h, w) to ``reference``, jointly over channels."""
    p, r = prediction.double().flatten(), reference.double().flatten()
    centred = p - p.mean()
    power = (centred * centred).mean()
    scale = (centred * (r - r.mean())).mean() / power.clamp(min=1e-12)
    fitted = (scale * (prediction - p.mean()) + r.mean()).to(prediction.dtype)
    return torch.where(scale > 1e-9, fitted, reference.to(prediction))  # no branch: nothing waits for the GPU

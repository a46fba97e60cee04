"""Attention weights as maps, without ever holding the matrix of all pairs.

PrimeDepth resizes each query's attention over the keys, a map of h x w, to 8 x 8 by bilinear resizing, average pooling
and bilinear resizing again. All three are linear in the map. So the pooled weights are softmax(Q K^T) P with a fixed
matrix P of h w rows and 64 columns: attention whose values are P, which takes memory linear in the number of keys.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.nn import functional

from priorscope.errors import InputError

GRID = 8


def pooling_matrix(height: int, width: int, *, grid: int = GRID) -> torch.Tensor:
    """PrimeDepth's pooling of a map as a matrix.

    Returns
    -------
    Tensor (height * width, grid * grid), float32
        ``weights @ pooling_matrix(h, w)`` pools attention weights (..., h * w) to (..., grid * grid), row-major.

    Source: PrimeDepth, ``prepare_attn_map_features``: resized to the next multiple of 8 (plus 8 where it divides
    already, as there), pooled by ``side // 8``, resized to 8.
    """
    if min(height, width, grid) < 1:
        raise InputError(f"attention over {height} x {width} keys pooled to {grid} x {grid}")
    rows, columns = _pool_line(height, grid), _pool_line(width, grid)
    return torch.einsum("ia,jb->ijab", rows, columns).reshape(height * width, grid * grid)


@lru_cache(maxsize=64)
def _pool_line(side: int, grid: int) -> torch.Tensor:
    # the two axes are pooled independently, so a line's unit vectors tell everything
    line = torch.eye(side, device="cpu")[None]
    line = functional.interpolate(line, side + grid - side % grid, mode="linear", align_corners=False)
    line = functional.avg_pool1d(line, max(1, side // grid))
    return functional.interpolate(line, grid, mode="linear", align_corners=False)[0]


def pooled_attention(query: torch.Tensor, key: torch.Tensor, pool: torch.Tensor, scale: float) -> torch.Tensor:
    """``softmax(query key^T scale) pool`` in one fused attention call.

    Parameters
    ----------
    query : Tensor (B, heads, N, d)
    key : Tensor (B, heads, M, d)
    pool : Tensor (M, P)
    scale : float

    Returns
    -------
    Tensor (B, heads, N, P)
    """
    depth, pooled = query.shape[-1], pool.shape[-1]
    values = pool.to(query).expand(*key.shape[:2], -1, -1)
    # the fused kernels want one width; columns of zeros change neither the products nor the other columns
    width = max(depth, pooled)
    if depth < width:
        query, key = (functional.pad(part, (0, width - depth)) for part in (query, key))
    if pooled < width:
        values = functional.pad(values, (0, width - pooled))
    return functional.scaled_dot_product_attention(query, key, values, scale=scale)[..., :pooled]


def self_attention_map(pooled: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Pooled self-attention weights as a channel-first map.

    Parameters
    ----------
    pooled : Tensor (B, heads, h * w, K)
        As :func:`pooled_attention` gives them.
    size : (int, int)
        Height and width of the queries' grid.

    Returns
    -------
    Tensor (B, heads * K, h, w)
        Head-major, divided by its maximum over queries and pooled keys (one a head and item), hence in [0, 1].
    """
    return _channels_first(pooled / pooled.amax((-1, -2), keepdim=True), size)


def cross_attention_map(weights: torch.Tensor, size: tuple[int, int], *, blocks: int | None = None) -> torch.Tensor:
    """Attention to tokens as a channel-first map (B, heads * K, h, w), head-major.

    Parameters
    ----------
    weights : Tensor (B, heads, h * w, tokens)
    size : (int, int)
    blocks : int, optional
        Means over so many runs of consecutive tokens (PrimeDepth's ``n_ca_maps``). Default: each token for itself.
    """
    if blocks is not None:
        if blocks < 1 or weights.shape[-1] % blocks:
            raise InputError(f"{weights.shape[-1]} tokens do not divide into {blocks} blocks")
        weights = weights.unflatten(-1, (blocks, -1)).mean(-1)
    return _channels_first(weights, size)


def _channels_first(weights: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return weights.transpose(-1, -2).reshape(weights.shape[0], -1, *size)


def attention_map(
    query: torch.Tensor,
    key: torch.Tensor,
    heads: int,
    scale: float,
    size: tuple[int, int],
    *,
    key_size: tuple[int, int] | None,
) -> torch.Tensor:
    """An attention layer's weights as a channel-first map.

    Parameters
    ----------
    query : Tensor (B, N, heads * d), key : Tensor (B, M, heads * d)
        As the layer's projections give them.
    heads : int
    scale : float
    size : (int, int)
        Height and width of the queries' grid.
    key_size : (int, int) or None
        The keys' grid for self-attention; None for cross-attention, whose few tokens stay as they are.

    Returns
    -------
    Tensor (B, heads * K, h, w)
        Head-major. Self-attention: K = 64 pooled weights, divided by their maximum over queries and pooled keys (one
        a head and item), hence in [0, 1]. Cross-attention: K tokens, whose weights sum to 1.
    """
    query, key = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key))
    if key_size is None:
        return cross_attention_map((query * scale @ key.transpose(-1, -2)).softmax(-1), size)
    return self_attention_map(pooled_attention(query, key, pooling_matrix(*key_size), scale), size)

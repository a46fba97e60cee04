"""Total variation: finite differences along any axis, their exact adjoints, and shrinkage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from priorscope.errors import InputError

Boundary = Literal["neumann", "periodic"]


def difference(x: torch.Tensor, dim: int, boundary: Boundary = "neumann") -> torch.Tensor:
    """Forward difference ``x[k + 1] - x[k]`` along ``dim``, of the shape of ``x``.

    ``boundary="neumann"`` makes the last one 0; ``"periodic"`` makes it ``x[0] - x[-1]``, which ties the two ends
    of a volume together (DiffusionMBIR's choice).
    """
    if boundary == "periodic":
        return x.roll(-1, dim) - x
    _check_boundary(boundary)
    inner = x.diff(dim=dim)
    return torch.cat([inner, torch.zeros_like(x.narrow(dim, 0, 1))], dim)


def difference_adjoint(q: torch.Tensor, dim: int, boundary: Boundary = "neumann") -> torch.Tensor:
    """The exact adjoint of :func:`difference`: minus the divergence along ``dim``, of the shape of ``q``."""
    if boundary == "periodic":
        return q.roll(1, dim) - q
    _check_boundary(boundary)
    length = q.shape[dim]
    inner = q.narrow(dim, 0, length - 1)
    edge = torch.zeros_like(q.narrow(dim, 0, 1))
    return torch.cat([edge, inner], dim) - torch.cat([inner, edge], dim)


def gradient(x: torch.Tensor, dims: Sequence[int], boundary: Boundary = "neumann") -> torch.Tensor:
    """Differences along each of ``dims``, stacked in front: shape (len(dims), \\*x.shape)."""
    check_dims(dims, x.ndim)
    return torch.stack([difference(x, dim, boundary) for dim in dims])


def gradient_adjoint(q: torch.Tensor, dims: Sequence[int], boundary: Boundary = "neumann") -> torch.Tensor:
    """The exact adjoint of :func:`gradient`."""
    total = difference_adjoint(q[0], dims[0], boundary)
    for part, dim in zip(q[1:], dims[1:], strict=True):
        total = total + difference_adjoint(part, dim, boundary)
    return total


def soft_threshold(q: torch.Tensor, threshold: float) -> torch.Tensor:
    """Shrink each value's magnitude by ``threshold``, to 0 at least: the proximal map of the l1 norm.

    Anisotropic total variation's shrinkage; complex values keep their phase.
    """
    if q.is_complex():
        return _scale_down(q, q.abs(), threshold)
    return q.sign() * (q.abs() - threshold).clamp(min=0)


def group_soft_threshold(q: torch.Tensor, threshold: float, dim: int = 0) -> torch.Tensor:
    """Shrink the Euclidean length along ``dim`` by ``threshold``: the proximal map of the l2,1 norm.

    Isotropic total variation's shrinkage. A vector of length 0 stays 0 (DiffusionMBIR's ``prox_l21`` gives NaN).
    """
    return _scale_down(q, torch.linalg.vector_norm(q, dim=dim, keepdim=True), threshold)


def total_variation(
    x: torch.Tensor, dims: Sequence[int], *, isotropic: bool = True, boundary: Boundary = "neumann"
) -> torch.Tensor:
    """Total variation of ``x`` along ``dims``: a scalar, the sum over everything."""
    q = gradient(x, dims, boundary)
    return torch.linalg.vector_norm(q, dim=0).sum() if isotropic else q.abs().sum()


def _scale_down(q: torch.Tensor, length: torch.Tensor, threshold: float) -> torch.Tensor:
    kept = (length - threshold).clamp(min=0)
    return q * (kept / torch.where(length > 0, length, 1.0))


def check_dims(dims: Sequence[int], ndim: int) -> None:
    """Refuse dimensions that an array of ``ndim`` does not have, has named twice, or none at all."""
    inside = {dim % ndim for dim in dims if -ndim <= dim < ndim}
    if not dims or len(inside) != len(dims):
        raise InputError(
            f"dimensions {tuple(dims)} of an array of {ndim} to take differences along", remedy="Name each one once."
        )


def _check_boundary(boundary: str) -> None:
    if boundary != "neumann":
        raise InputError(f"boundary {boundary!r}", remedy="Use 'neumann' or 'periodic'.")

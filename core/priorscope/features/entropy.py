"""How many directions a representation uses: diffusion spectral entropy and mutual information, in bits.

Source: Liao et al. 2024 (Assessing Neural Network Representations During Training Using Noise-Resilient Diffusion
Spectral Entropy) and its code, ChenLiu-1996/DiffusionSpectralEntropy.
"""

from __future__ import annotations

import math
import random
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.errors import InputError

Kernel = Literal["diffusion", "gaussian", "neighbours"]
Sigma = float | Literal["median"]

#: Added to probabilities before the logarithm.
_TINY = float(np.finfo(np.float64).eps)


def median_distance(points: torch.Tensor, *, max_points: int = 2000, seed: int = 0) -> float:
    """Median Euclidean distance between two different points (N, C): the usual choice of a kernel's width.

    Above ``max_points`` a random subset of that size is used.
    """
    distances = torch.pdist(subset(checked(points), max_points, seed))
    median = float(distances.median())
    return median if median > 0 else float(distances.mean())


def kernel_matrix(
    points: torch.Tensor, sigma: float, kernel: Kernel = "diffusion", *, neighbours: int = 10
) -> torch.Tensor:
    """Affinities (N, N) of points (N, C), float64.

    ``"gaussian"`` is G = exp(-d^2 / (2 sigma^2)) / (sigma sqrt(2 pi)). ``"diffusion"`` is D^-1/2 G D^-1/2 with D the
    row sums: the symmetric form of the random walk D^-1 G, whose eigenvalues it has. (The official doc-string tells
    of another normalisation; this is what its code does.) ``"neighbours"`` is 1 for the nearest ``neighbours`` points,
    the point itself among them, else 0.
    """
    points = checked(points)
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    if kernel == "neighbours":
        if not 1 <= neighbours <= len(points):
            raise InputError(f"{neighbours} neighbours among {len(points)} points")
        nearest = distances.topk(neighbours, dim=1, largest=False).indices
        return torch.zeros_like(distances).scatter_(1, nearest, 1.0)
    if kernel not in get_args(Kernel):
        raise InputError(f"kernel {kernel!r}", remedy=f"Use one of {', '.join(get_args(Kernel))}.")
    if not sigma > 0 or not math.isfinite(sigma):
        raise InputError(f"kernel width {sigma}", remedy="Use a positive number; points that are all equal have none.")
    gauss = torch.exp(-(distances**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    if kernel == "gaussian":
        return gauss
    scale = gauss.sum(1).rsqrt()
    return scale[:, None] * gauss * scale


def spectral_entropy(
    points: torch.Tensor,
    *,
    sigma: Sigma = "median",
    power: float = 1.0,
    kernel: Kernel = "diffusion",
    neighbours: int = 10,
    max_points: int = 10_000,
    seed: int = 0,
) -> float:
    """Diffusion spectral entropy (DSE) of a representation, in bits.

    Parameters
    ----------
    points : Tensor (N, C)
        One row a sample. Computed in float64; O(N^3).
    sigma : float or "median"
        Width of the kernel; "median" takes :func:`median_distance`. The official default, 10, makes all points
        neighbours where features have small norms.
    power : float
        Diffusion time t: eigenvalues are raised to it.
    kernel : {"diffusion", "gaussian", "neighbours"}
        The other two give the adjacency spectral entropies that the paper compares with.
    max_points, seed : int
        Above this number a random subset is used, drawn as officially.

    Returns
    -------
    float
        From 0 (all points alike) to log2(N).
    """
    points = subset(checked(points), max_points, seed)
    width = median_distance(points) if sigma == "median" else float(sigma)
    matrix = kernel_matrix(points, width, kernel, neighbours=neighbours)
    values = torch.linalg.eigvals(matrix) if kernel == "neighbours" else torch.linalg.eigvalsh(matrix)
    return _bits(values.abs() ** power)


def entry_entropy(points: torch.Tensor, *, sigma: Sigma = "median") -> float:
    """Entropy in bits of all entries of the random walk's matrix, taken as one distribution: up to 2 log2(N)."""
    points = checked(points)
    width = median_distance(points) if sigma == "median" else float(sigma)
    matrix = kernel_matrix(points, width)
    return _bits((matrix / matrix.sum(1, keepdim=True)).flatten())


def binned_entropy(points: torch.Tensor, *, bins: int = 2) -> float:
    """Shannon entropy in bits after binning every dimension into ``bins`` equal widths of its own range."""
    points = checked(points)
    if bins < 1:
        raise InputError(f"{bins} bins")
    low = points.amin(0)
    width = points.amax(0) - low
    place = (points - low) / torch.where(width > 0, width, torch.ones_like(width)) * bins
    cells = place.floor().clamp(max=bins - 1)
    _, counts = torch.unique(cells, dim=0, return_counts=True)
    return _bits(counts.double())


def mutual_information(
    points: torch.Tensor,
    labels: torch.Tensor | NDArray[np.integer],
    *,
    sigma: Sigma = "median",
    power: float = 1.0,
    repeats: int = 5,
    max_points: int = 10_000,
    seed: int = 0,
) -> float:
    """Diffusion spectral mutual information (DSMI) between a representation and class labels, in bits.

    The entropy of a class is compared with that of random subsets of the class's size, since a spectral entropy
    grows with the number of points: sum_c p_c (mean over repeats of DSE(random n_c points) - DSE(class c)).

    Parameters
    ----------
    points : Tensor (N, C)
    labels : int array (N,)
        For a continuous variable: the index of its cluster or bin.
    sigma : float or "median"
        One width for all subsets.
    power, max_points : as in :func:`spectral_entropy`
    repeats : int
        Random subsets a class.
    seed : int
        Of Python's own generator, started anew for each class, as officially.

    Returns
    -------
    float
        May fall a little below 0 where the two are independent.
    """
    points = checked(points)
    classes = torch.as_tensor(labels)
    if classes.shape != points.shape[:1] or classes.is_floating_point() or repeats < 1:
        raise InputError(
            f"labels {tuple(classes.shape)} of {classes.dtype} for {len(points)} points, {repeats} repeats",
            remedy="Give one whole number a point.",
        )
    width = median_distance(points) if sigma == "median" else float(sigma)

    def entropy(rows: torch.Tensor) -> float:
        return spectral_entropy(rows, sigma=width, power=power, max_points=max_points, seed=seed)

    total = 0.0
    for label in torch.unique(classes):
        members = points[classes == label]
        draw = random.Random(seed)
        chosen = [draw.sample(range(len(points)), k=len(members)) for _ in range(repeats)]
        gain = float(np.mean([entropy(points[rows]) for rows in chosen])) - entropy(members)
        total += len(members) / len(points) * gain
    return total


def subset(points: torch.Tensor, size: int, seed: int) -> torch.Tensor:
    """``size`` random rows of ``points``, or all of them where there are not more."""
    if size < 2:
        raise InputError(f"a subset of {size} points", remedy="Use at least 2.")
    if len(points) <= size:
        return points
    return points[random.Random(seed).sample(range(len(points)), size)]


def checked(points: torch.Tensor) -> torch.Tensor:
    """``points`` (N, C) in float64, or an :class:`InputError`."""
    points = torch.as_tensor(points)
    if points.ndim != 2 or points.numel() == 0 or points.is_complex() or not torch.isfinite(points.double()).all():
        raise InputError(f"points of shape {tuple(points.shape)}", remedy="Give finite rows, shape (N, C).")
    return points.double()


def _bits(weights: torch.Tensor) -> float:
    shares = weights / weights.sum() + _TINY
    return float(-(shares * shares.log2()).sum())

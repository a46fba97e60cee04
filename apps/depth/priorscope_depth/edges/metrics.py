"""ODS, OIS and AC of edge maps: precision and recall with a tolerance, one edge pixel for one.

Follows the Berkeley benchmark (Martin, Fowlkes and Malik 2004; Arbelaez et al. 2011).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_depth.edges.thinning import checked_edges, crispness, suppress

#: Share of the image's diagonal by which a found edge may be off: BSDS' own; NYU Depth is measured with 0.011.
TOLERANCE = 0.0075

PostProcessing = Literal["standard", "none"]


def match_edges(
    found: NDArray[np.bool_], truth: NDArray[np.bool_], radius: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pair as many edge pixels of two maps as possible, each with at most one other within ``radius`` pixels.

    Parameters
    ----------
    found, truth : ndarray of bool (H, W)
    radius : float
        Pixels, 0 or more; a distance of just ``radius`` is within.

    Returns
    -------
    tuple of ndarray of bool (H, W)
        The paired pixels of ``found`` and of ``truth``; equally many.

    Notes
    -----
    The benchmark's own code looks for the cheapest assignment, in which to leave a pixel single costs a hundred times
    the radius: as many pairs as possible comes first there too. A largest matching has as many, whatever its lengths.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching
    from scipy.spatial import cKDTree

    if found.shape != truth.shape or found.dtype != bool or truth.dtype != bool or found.ndim != 2:
        raise InputError(
            f"edges to compare are bool [H, W] of one size, not {found.dtype} {list(found.shape)} and "
            f"{truth.dtype} {list(truth.shape)}"
        )
    if not radius >= 0:
        raise InputError(f"a tolerance of {radius} pixels", remedy="Use 0 or more.")
    paired = np.zeros_like(found), np.zeros_like(truth)
    here, there = np.argwhere(found), np.argwhere(truth)
    if not len(here) or not len(there):
        return paired
    # a little more, so that rounding does not part what lies at just the radius
    near = cKDTree(here).query_ball_tree(cKDTree(there), radius + 1e-9)
    starts = np.cumsum([0, *map(len, near)])
    columns = np.array([index for row in near for index in row], dtype=np.int32)
    graph = csr_array((np.ones(len(columns), np.int8), columns, starts), shape=(len(here), len(there)))
    partner = maximum_bipartite_matching(graph, perm_type="column")
    paired[0][tuple(here[partner >= 0].T)] = True
    paired[1][tuple(there[partner[partner >= 0]].T)] = True
    return paired


@dataclass(frozen=True)
class EdgeCounts:
    """Edge pixels of one image at each threshold, int64 (T,): found and paired of them, true and paired of them."""

    paired_found: NDArray[np.int64]
    found: NDArray[np.int64]
    paired_true: NDArray[np.int64]
    true: NDArray[np.int64]

    def f_measures(self) -> NDArray[np.float64]:
        """Harmonic mean of precision and recall, 0 where either is."""
        # 2 P R / (P + R); where nothing is found precision is 0, where nothing is true recall is
        precision = self.paired_found / np.maximum(self.found, 1)
        recall = self.paired_true / np.maximum(self.true, 1)
        return 2 * precision * recall / np.maximum(precision + recall, 1e-300)

    def at(self, index: int) -> EdgeCounts:
        """One threshold's."""
        return EdgeCounts(*(values[index : index + 1] for values in self._all()))

    def _all(self) -> tuple[NDArray[np.int64], ...]:
        return self.paired_found, self.found, self.paired_true, self.true

    @staticmethod
    def total(counts: Iterable[EdgeCounts]) -> EdgeCounts:
        """Summed over images."""
        return EdgeCounts(*(np.sum(values, axis=0) for values in zip(*(one._all() for one in counts), strict=True)))


def edge_counts(
    values: NDArray[np.floating],
    truth: NDArray[np.bool_] | Sequence[NDArray[np.bool_]],
    *,
    thresholds: int = 33,
    tolerance: float = TOLERANCE,
    processing: PostProcessing = "standard",
) -> EdgeCounts:
    """Compare one edge map with the truth at thresholds 1 / (T + 1) ... T / (T + 1).

    Parameters
    ----------
    values : ndarray (H, W) in [0, 1]
    truth : ndarray of bool (H, W), or a sequence of them
        One annotation or several. A found pixel is right if it is paired in any of them; recall is over all.
    thresholds : int
        T. The benchmark takes 99.
    tolerance : float
        Share of the image's diagonal.
    processing : {"standard", "none"}
        ``standard``: non-maximum suppression, and what is above a threshold is thinned to lines of one pixel (SEval).
        ``none``: as it is (CEval): each pixel of a thick line beyond the first counts as wrong.
    """
    from skimage.morphology import thin

    if thresholds < 1 or not 0 <= tolerance < 1:
        raise InputError(f"{thresholds} thresholds, a tolerance of {tolerance}", remedy="Use 1 or more, and a share.")
    if processing not in ("standard", "none"):
        raise InputError(f"processing {processing!r}", remedy="Use 'standard' or 'none'.")
    truths = [truth] if isinstance(truth, np.ndarray) else list(truth)
    values = suppress(values) if processing == "standard" else checked_edges(values)
    radius = tolerance * float(np.hypot(*values.shape))
    rows = []
    before: tuple[NDArray[np.bool_], list[int]] | None = None
    for threshold in np.arange(1, thresholds + 1) / (thresholds + 1):
        above = values >= threshold
        if before is None or not np.array_equal(above, before[0]):
            found = thin(above) if processing == "standard" else above
            pairs = [match_edges(found, one, radius) for one in truths]
            right = np.any([pair[0] for pair in pairs], axis=0)
            row = [right.sum(), found.sum(), sum(pair[1].sum() for pair in pairs), sum(one.sum() for one in truths)]
            before = above, [int(number) for number in row]
        rows.append(before[1])
    return EdgeCounts(*np.array(rows, dtype=np.int64).T)


@dataclass(frozen=True)
class EdgeScores:
    """Figures of a set of edge maps.

    Attributes
    ----------
    ods : float
        Best F-measure of one threshold for the whole set, counts summed over images. The benchmark's own code also
        interpolates between two thresholds, which can only raise it.
    ois : float
        F-measure with each image at its own best threshold, counts summed.
    ac : float
        Mean crispness of the maps as they are (:func:`~priorscope_depth.edges.thinning.crispness`).
    threshold, precision, recall : float
        Those of ``ods``.
    """

    ods: float
    ois: float
    ac: float
    threshold: float
    precision: float
    recall: float


def edge_scores(
    maps: Sequence[NDArray[np.floating]],
    truths: Sequence[NDArray[np.bool_] | Sequence[NDArray[np.bool_]]],
    *,
    thresholds: int = 33,
    tolerance: float = TOLERANCE,
    processing: PostProcessing = "standard",
) -> EdgeScores:
    """ODS, OIS and AC of edge maps; parameters as for :func:`edge_counts`."""
    if not maps or len(maps) != len(truths):
        raise InputError(f"{len(maps)} edge maps and {len(truths)} truths", remedy="Give one truth for each map.")
    counts = [
        edge_counts(values, truth, thresholds=thresholds, tolerance=tolerance, processing=processing)
        for values, truth in zip(maps, truths, strict=True)
    ]
    whole = EdgeCounts.total(counts)
    best = int(np.argmax(whole.f_measures()))
    own = EdgeCounts.total(one.at(int(np.argmax(one.f_measures()))) for one in counts)
    crisp = [crispness(values) for values in maps]
    known = [value for value in crisp if not np.isnan(value)]
    return EdgeScores(
        ods=float(whole.f_measures()[best]),
        ois=float(own.f_measures()[0]),
        ac=float(np.mean(known)) if known else float("nan"),
        threshold=(best + 1) / (thresholds + 1),
        precision=float(whole.paired_found[best] / max(whole.found[best], 1)),
        recall=float(whole.paired_true[best] / max(whole.true[best], 1)),
    )

"""Sparse matrices applied to many columns at once on the CPU."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.sparse
import torch

CHUNK = 32  # columns at a time: as fast as any, and the working memory does not grow with the batch


class SparseRows:
    """A CSR matrix of float32 or float64, multiplied by MKL where torch has it: 3 to 4 times faster than scipy."""

    def __init__(self, matrix: scipy.sparse.csr_array) -> None:
        self.shape = matrix.shape
        self.nbytes = sum(part.nbytes for part in (matrix.data, matrix.indices, matrix.indptr))
        self._matrix = matrix
        if torch.backends.mkl.is_available():
            starts, columns, values = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
                self._matrix = torch.sparse_csr_tensor(
                    starts, columns, values, size=matrix.shape, check_invariants=False
                )

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply (B, columns) on the CPU; returns (B, rows)."""
        out = x.new_empty((len(x), self.shape[0]))
        for begin in range(0, len(x), CHUNK):
            columns = x[begin : begin + CHUNK].T.contiguous()
            if isinstance(self._matrix, torch.Tensor):
                product = self._matrix @ columns
            else:
                product = torch.from_numpy(np.asarray(self._matrix @ columns.numpy()))
            out[begin : begin + CHUNK] = product.T
        return out


class SparsePair:
    """A CSR matrix and its transpose, both stored: each product then runs along rows."""

    def __init__(self, matrix: scipy.sparse.csr_array) -> None:
        self._rows, self._columns = SparseRows(matrix), SparseRows(matrix.T.tocsr())
        self.nbytes = self._rows.nbytes + self._columns.nbytes
        self.apply, self.apply_transpose = self._rows.apply, self._columns.apply

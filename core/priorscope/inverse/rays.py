"""Line integrals through images: every geometry is a list of rays, projected by a sparse matrix or by sampling.

A ray runs at a signed distance t from the rotation axis in direction phi: its points are
``axis + t (cos phi, -sin phi) + r (sin phi, cos phi)`` in (x to the right, y downwards). The image is sampled
bilinearly, zero outside, at steps of one pixel along r, and the sum times the pixel size is the line integral. That is
what rotating the image and adding up its rows does (scikit-image, DiffusionMBIR).
"""

from __future__ import annotations

import math
import warnings
from typing import Literal

import numpy as np
import scipy.sparse
import torch
from torch.nn import functional

from priorscope.errors import InputError
from priorscope.inverse.operator import LinearOperator, linear_map
from priorscope.inverse.sparse import CHUNK, SparsePair, SparseRows

Projector = Literal["auto", "matrix", "grid"]
VIEWS_AT_ONCE = 8  # of a matrix that is not kept
SLICES_WORTH = 8  # building a view's matrix for one use costs as much as sampling so many slices


def degrees_to_radians(angles: object) -> np.ndarray:
    """View angles in degrees, as float64 radians (views,).

    Raises
    ------
    InputError
        No view, or angles that are not finite numbers in one row. A warning where they look like radians already:
        four or more within 2 pi that spread over more than 1.
    """
    values = angles.detach().cpu().numpy() if isinstance(angles, torch.Tensor) else np.asarray(angles)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise InputError(f"view angles of shape {values.shape} and type {values.dtype}", remedy="Give a list, degrees.")
    if len(values) == 0:
        raise InputError("no view angle", remedy="Give at least one, in degrees.")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError("a view angle is not finite")
    if len(values) >= 4 and np.abs(values).max() < 2 * np.pi and np.ptp(values) > 1:
        warnings.warn(
            f"{len(values)} view angles between {values.min():.3g} and {values.max():.3g} degrees: are they radians?",
            stacklevel=3,
        )
    return np.deg2rad(values)


def length_in_mm(value: float, name: str) -> float:
    """``value`` as a float; InputError unless it is positive and finite."""
    if not 0 < value < math.inf:
        raise InputError(f"a {name} of {value} mm")
    return float(value)


def rays_over(detectors: int, count: int) -> np.ndarray:
    """Where ``count`` rays spread evenly over each detector meet the row of detectors, in detectors from the first."""
    within = (np.arange(count) - (count - 1) / 2) / count
    return (np.arange(detectors)[:, None] + within).ravel()


def steps_across(size: tuple[int, int]) -> np.ndarray:
    """Sample positions along a ray that cover the image from its middle and meet its rows where the ray is upright."""
    count = math.ceil(math.hypot(*size)) + 1
    count += (count - size[0]) % 2
    return np.arange(count) - (count - 1) / 2


class RayTransform(LinearOperator):
    """Line integrals of (B, 1, H, W) along given rays: sinograms (B, 1, detectors, views), in units of ``pixel``.

    Parameters
    ----------
    size : (int, int)
        Height and width of the image.
    distances, directions : numpy.ndarray
        (views, rays): t in mm and phi in radians.
    steps : numpy.ndarray
        Positions r of the samples along a ray, in pixels.
    axis : (float, float)
        Row and column of the rotation axis in the image, in pixels.
    pixel : float
        Side of a pixel in mm.
    rays_per_detector : int
        So many neighbouring rays are averaged into one detector.
    spacing : float
        Distance of neighbouring rays near the axis, in pixels: only the estimate of memory needs it.
    projector : {"auto", "matrix", "grid"}
        ``matrix``: a cached sparse matrix and its transpose (CPU). ``grid``: bilinear sampling, view by view, by
        torch's grid_sample and its transpose; any device. ``auto``: the matrix for tensors on the CPU, the grid
        elsewhere. Where the matrix would exceed ``memory_limit`` it is built anew at each call, some views at a time,
        for many slices, and the grid serves few; a warning says so. All are the same map to rounding.
    memory_limit : int
        Bytes that the matrix and its transpose may take. Single and double precision have one each where both fit.
    """

    def __init__(
        self,
        size: tuple[int, int],
        distances: np.ndarray,
        directions: np.ndarray,
        *,
        steps: np.ndarray,
        axis: tuple[float, float],
        pixel: float,
        rays_per_detector: int,
        spacing: float,
        projector: Projector,
        memory_limit: int,
    ) -> None:
        if projector not in ("auto", "matrix", "grid"):
            raise InputError(f"a projector named {projector!r}", remedy="Use auto, matrix or grid.")
        views, rays = distances.shape
        super().__init__((1, *size), (1, rays // rays_per_detector, views))
        self.size, self.pixel, self.axis = size, float(pixel), axis
        self.projector, self.memory_limit = projector, memory_limit
        self._rays_per_detector, self._spacing, self._steps = rays_per_detector, spacing, steps
        self._distances, self._directions = distances / pixel, directions
        cosine, sine = np.cos(directions), np.sin(directions)
        foot = np.stack([axis[1] + cosine * self._distances, axis[0] - sine * self._distances], axis=1)
        self._foot, self._along = torch.from_numpy(foot), torch.from_numpy(np.stack([sine, cosine], axis=1))
        self._warned = False
        self._pairs: dict[torch.dtype, SparsePair] = {}
        if projector == "matrix" and self.matrix_bytes() > memory_limit:
            raise InputError(
                f"the matrix of {self} would take {self.matrix_bytes() / 2**20:.0f} MB, more than the limit of "
                f"{memory_limit / 2**20:.0f} MB",
                remedy="Raise memory_limit or use projector='grid'.",
            )

    def matrix_bytes(self, dtype: torch.dtype = torch.float32) -> int:
        """Estimate (from above, without building it) of the bytes that the matrix and its transpose take."""
        height, width = self.size
        middle = self._directions.mean(axis=1)
        footprint = 2 * (np.abs(np.cos(middle)) + np.abs(np.sin(middle)))
        per_pixel = (footprint / self._spacing + self._rays_per_detector - 1) / self._rays_per_detector
        entries = min(height * width * float(per_pixel.sum()), 4.0 * self._steps.size * self._distances.size)
        return int(2 * (entries * (dtype.itemsize + 4) + 4 * (height * width + math.prod(self.range) + 2)))

    def route(self, x: torch.Tensor) -> Literal["matrix", "views", "grid"]:
        """Which way a batch like this one goes: by the kept matrix, by one built for the call, or by sampling."""
        if self.projector != "auto":
            return self.projector
        if x.device.type != "cpu":
            return "grid"
        if self.matrix_bytes(x.dtype) <= self.memory_limit:
            return "matrix"
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the matrix of {self} would take {self.matrix_bytes(x.dtype) / 2**20:.0f} MB, more than memory_limit; "
                "projecting without it takes several times longer",
                stacklevel=2,
            )
        return "views" if len(x) >= SLICES_WORTH else "grid"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Line integrals of ``x`` (B, 1, H, W) in mm times its unit: (B, 1, detectors, views)."""
        self._fit(x, self.domain, "volumes (slices on the batch axis)")
        return linear_map(self._real(x), self._project, self._backproject)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Exact transpose of :meth:`forward`: (B, 1, detectors, views) to (B, 1, H, W)."""
        return self.exact_adjoint(y)

    def exact_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """The exact transpose, also where a subclass has another :meth:`adjoint` for parity."""
        self._fit(y, self.range, "sinograms (detectors, then views)")
        return linear_map(self._real(y), self._backproject, self._project)

    def _real(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype not in (torch.float32, torch.float64):
            raise InputError(f"projections of {x.dtype}", remedy="Use float32 or float64.")
        return x

    def _pair(self, like: torch.Tensor) -> SparsePair:
        if like.device.type != "cpu":
            raise InputError(f"the matrix projector works on the CPU, not on {like.device}", remedy="Use 'grid'.")
        if like.dtype not in self._pairs:
            held = sum(pair.nbytes for pair in self._pairs.values())
            if held + self.matrix_bytes(like.dtype) > self.memory_limit:
                self._pairs.clear()
            self._pairs[like.dtype] = SparsePair(self._matrix(like.dtype))
        return self._pairs[like.dtype]

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        route = self.route(x)
        if route == "matrix":
            return self._pair(x).apply(x.flatten(1)).reshape(len(x), *self.range)
        out = x.new_zeros((len(x), *self.range))
        if route == "views":
            for views in self._groups():
                part = SparseRows(self._matrix(x.dtype, views)).apply(x.flatten(1))
                out[..., views] = part.reshape(*out.shape[:-1], -1)
            return out
        for slices in self._chunks(x):
            image = x[slices, 0][None]
            for view in range(self.range[2]):
                sampled = functional.grid_sample(image, self._grid(view, x), align_corners=False)
                rays = sampled[0].sum(-2).unflatten(-1, (self.range[1], self._rays_per_detector))
                out[slices, 0, :, view] = rays.mean(-1) * self.pixel
        return out

    def _backproject(self, y: torch.Tensor) -> torch.Tensor:
        route = self.route(y)
        if route == "matrix":
            return self._pair(y).apply_transpose(y.flatten(1)).reshape(len(y), *self.domain)
        out = y.new_zeros((len(y), *self.domain))
        if route == "views":
            for views in self._groups():
                matrix = self._matrix(y.dtype, views).T.tocsr()
                out += SparseRows(matrix).apply(y[..., views].flatten(1)).reshape(out.shape)
            return out
        for slices in self._chunks(y):
            image = out[slices, 0][None]
            for view in range(self.range[2]):
                rays = y[slices, 0, :, view].repeat_interleave(self._rays_per_detector, dim=-1)
                spread = (rays * (self.pixel / self._rays_per_detector))[None, :, None, :]
                spread = spread.expand(-1, -1, self._steps.size, -1).contiguous()
                grid = self._grid(view, y)
                part, _ = torch.ops.aten.grid_sampler_2d_backward(spread, image, grid, 0, 0, False, (True, False))
                out[slices, 0] += part[0]
        return out

    def _groups(self) -> list[slice]:
        return [slice(begin, begin + VIEWS_AT_ONCE) for begin in range(0, self.range[2], VIEWS_AT_ONCE)]

    def _chunks(self, x: torch.Tensor) -> list[slice]:
        size = CHUNK if x.device.type == "cpu" else max(1, 2**26 // (self._steps.size * self._distances.shape[1]))
        return [slice(begin, begin + size) for begin in range(0, len(x), size)]

    def _grid(self, view: int, like: torch.Tensor) -> torch.Tensor:
        """Where view samples the image, (1, steps, rays, 2) as grid_sample wants it."""
        height, width = self.size
        r = self._constant("steps", torch.from_numpy(self._steps), like)[:, None]
        base = self._constant("foot", self._foot, like)[view, :, None]
        direction = self._constant("along", self._along, like)[view, :, None]
        column, row = base + direction * r
        return torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], dim=-1)[None]

    def _matrix(self, dtype: torch.dtype, views: slice = slice(None)) -> scipy.sparse.csr_array:
        """The system matrix of some views, rows ordered as a sinogram (detectors, views) is."""
        parts = [self._view_matrix(view, dtype) for view in range(self.range[2])[views]]
        order = np.arange(self.range[1] * len(parts)).reshape(len(parts), self.range[1]).T.ravel()
        stacked = scipy.sparse.vstack(parts, format="csr")
        del parts
        return stacked[order]

    def _view_matrix(self, view: int, dtype: torch.dtype) -> scipy.sparse.csr_array:
        height, width = self.size
        foot, along = self._foot[view].numpy()[:, :, None], self._along[view].numpy()[:, :, None]
        column, row = foot + along * self._steps
        ray, step = np.nonzero((column > -1) & (column < width) & (row > -1) & (row < height))
        column, row = column[ray, step], row[ray, step]
        left, top = np.floor(column).astype(np.int32), np.floor(row).astype(np.int32)
        right, below = column - left, row - top
        corners = [
            (top, left, (1 - below) * (1 - right)),
            (top, left + 1, (1 - below) * right),
            (top + 1, left, below * (1 - right)),
            (top + 1, left + 1, below * right),
        ]
        detector = (ray // self._rays_per_detector).astype(np.int32)
        entries = []
        for at_row, at_column, weight in corners:
            # A rounding error away from a pixel's centre is its centre: weights of 1e-16 would only fill the matrix.
            inside = (at_row >= 0) & (at_row < height) & (at_column >= 0) & (at_column < width) & (weight > 1e-12)
            entries.append((weight[inside], detector[inside], (at_row * width + at_column)[inside]))
        weights, rows, columns = (np.concatenate(part) for part in zip(*entries, strict=True))
        shape = (self.range[1], height * width)
        weights *= self.pixel / self._rays_per_detector
        matrix = scipy.sparse.coo_array((weights, (rows, columns)), shape=shape)
        return matrix.tocsr().astype({torch.float32: np.float32, torch.float64: np.float64}[dtype])

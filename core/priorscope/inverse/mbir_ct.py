"""DiffusionMBIR's own tomography, for parity with published results."""

from __future__ import annotations

import math

import torch

from priorscope.inverse.fbp import FilterName, filter_sinogram
from priorscope.inverse.parallel_beam import ParallelBeam
from priorscope.inverse.rays import Projector


class OfficialParallelBeam(ParallelBeam):
    """Parallel beam as DiffusionMBIR projects, with the back-projection that it uses in place of the adjoint.

    :meth:`adjoint` interpolates linearly on the detector and multiplies by pi / (2 views). It is not the transpose of
    :meth:`forward`: the normal map is not symmetric, and conjugate gradients on it are not exact. Use
    :class:`ParallelBeam` unless published figures are to be repeated; its notes say how lambda and rho carry over.
    Pixels are 1 wide. Gradients through :meth:`forward` are true ones.

    Parameters
    ----------
    size : int
        Side of the square slices.
    angles : array of float
        (views,) degrees. DiffusionMBIR takes ``linspace(0, 180, views, endpoint=False)``, or ``arange(90)`` for a
        limited range of 90 degrees.
    circle : bool
        Slices are zero outside the inscribed circle: as many detectors as pixels in a row, and the adjoint is zero
        outside the circle. Otherwise ceil(sqrt(2) size) detectors.
    projector, memory_limit
        See :class:`priorscope.inverse.rays.RayTransform`.

    References
    ----------
    Chung et al., Solving 3D Inverse Problems using Pre-trained 2D Diffusion Models, CVPR 2023; its physics/radon.
    """

    def __init__(
        self,
        size: int,
        angles: object,
        *,
        circle: bool = False,
        projector: Projector = "auto",
        memory_limit: int = 2**30,
    ) -> None:
        super().__init__(
            size,
            angles,
            detectors=size if circle else math.ceil(math.sqrt(2) * size),
            convention="official",
            projector=projector,
            memory_limit=memory_limit,
        )
        self.circle = circle

    @property
    def mbir_weight(self) -> float:
        """1: :meth:`adjoint` has the constant in it."""
        return 1.0

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """DiffusionMBIR's A^T: unfiltered back-projection times pi / (2 views)."""
        self._fit(y, self.range, "sinograms (detectors, then views)")
        return self._official(y, self._even(math.pi / 2))

    def fbp(
        self, sinogram: torch.Tensor, filter: FilterName | None = "ramp", weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """DiffusionMBIR's filtered back-projection: by default every view weighs pi / views, whatever the range."""
        self._real(self.check_measurement(sinogram, "sinogram"))
        if weights is None:
            weights = self._even(math.pi if filter else math.pi / 2)
        return self._official(filter_sinogram(sinogram, filter), weights)

    def _even(self, arc: float) -> torch.Tensor:
        return torch.full((len(self.angles),), arc / len(self.angles), dtype=torch.float64)

    def _official(self, filtered: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        image = self._backproject_filtered(filtered, weights)
        if not self.circle:
            return image
        side = torch.linspace(-1, 1, self.size[0], dtype=torch.float64)
        inside = side[:, None] ** 2 + side[None] ** 2 <= 1
        return image * self._constant("inside", inside.double(), image)

"""Cartesian magnetic resonance imaging: one coil or several, complex images."""

from __future__ import annotations

import torch

from priorscope.errors import InputError
from priorscope.inverse.operator import LinearOperator, image_size

PLANE = (-2, -1)


def to_kspace(image: torch.Tensor) -> torch.Tensor:
    """Centred orthonormal Fourier transform over the last two axes: the middle of both is at H // 2, W // 2."""
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, PLANE), norm="ortho"), PLANE)


def from_kspace(kspace: torch.Tensor) -> torch.Tensor:
    """Inverse of :func:`to_kspace`."""
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(kspace, PLANE), norm="ortho"), PLANE)


class CartesianMRI(LinearOperator):
    """k-space of complex images, at the measured positions: (B, 1, H, W) to (B, coils, H, W), zero where unmeasured.

    ``mask * F(sensitivities * x)`` with the centred orthonormal transform F. A real image becomes complex; for a prior
    on real images compose with :class:`AsComplex`, whose adjoint takes the real part.

    Parameters
    ----------
    size : int or (int, int)
        Height and width.
    mask : torch.Tensor
        True (or 1) where measured: (W,) for whole columns, (H, W), or (slices, H, W) with one for each item of the
        batch. The centre of k-space is at H // 2, W // 2 (:mod:`priorscope.inverse.kspace_masks`).
    sensitivities : torch.Tensor, optional
        Complex, (coils, H, W), or (slices, coils, H, W) with maps for each item; none: one coil that sees everything
        alike. See :func:`priorscope.inverse.sensitivities.estimate_sensitivities`.
    """

    def __init__(
        self, size: int | tuple[int, int], mask: torch.Tensor, sensitivities: torch.Tensor | None = None
    ) -> None:
        height, width = image_size(size)
        self.mask = _checked_mask(mask, height, width)
        coils, counts = 1, {len(self.mask)} - {1}
        self.sensitivities: torch.Tensor | None = None
        if sensitivities is not None:
            sensitivities = torch.as_tensor(sensitivities)
            if not sensitivities.is_complex():
                raise InputError(f"coil sensitivities of {sensitivities.dtype}", remedy="Give complex ones.")
            maps = sensitivities if sensitivities.ndim == 4 else sensitivities[None]
            if maps.ndim != 4 or tuple(maps.shape[-2:]) != (height, width):
                raise InputError(
                    f"coil sensitivities of shape {tuple(sensitivities.shape)} for images of {height} x {width}"
                )
            if not bool(torch.isfinite(maps).all()):
                raise InputError("coil sensitivities that are not finite")
            self.sensitivities, coils = maps, maps.shape[1]
            counts |= {len(maps)} - {1}
        if len(counts) > 1:
            raise InputError(f"masks and sensitivities for different numbers of slices: {sorted(counts)}")
        items = counts.pop() if counts else None
        super().__init__((1, height, width), (coils, height, width), complex_domain=True, items=items)

    def part(self, items: slice) -> CartesianMRI:
        """The operator of these slices."""
        if self.items is None:
            return self
        mask = self.mask[items, 0] if len(self.mask) > 1 else self.mask[0, 0]
        maps = self.sensitivities
        if maps is not None and len(maps) > 1:
            maps = maps[items]
        return CartesianMRI(self.domain[1:], mask, maps)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Measured k-space (B, coils, H, W) of ``x`` (B, 1, H, W), complex."""
        self._fit(x, self.domain, "images")
        if self.sensitivities is not None:
            x = self._constant("sensitivities", self.sensitivities, x) * x
        return self._constant("mask", self.mask, x) * to_kspace(x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Images (B, 1, H, W) of measured k-space, every coil's weighted by the conjugate of its sensitivity."""
        self._fit(y, self.range, "k-space (coils on the second axis)")
        images = from_kspace(self._constant("mask", self.mask, y) * y)
        if self.sensitivities is None:
            return images
        return (self._constant("sensitivities", self.sensitivities, y).conj() * images).sum(1, keepdim=True)


class OfficialMRI(LinearOperator):
    """DiffusionMBIR's single coil, for parity: real images (B, 1, H, W), an unnormalised transform, no image centre.

    ``forward`` is fftshift(fft2(x)) * mask, and ``adjoint`` the real part of ifft2(ifftshift(y)), without the mask and
    with 1 / (H W) inside: the transpose but for that factor, so that A^T A is the real part of the projection onto
    what was measured, as with ``CartesianMRI(size, mask) @ AsComplex(...)``. Published lambda and rho hold for both.

    Parameters
    ----------
    size, mask
        As for :class:`CartesianMRI`.
    """

    def __init__(self, size: int | tuple[int, int], mask: torch.Tensor) -> None:
        height, width = image_size(size)
        self.mask = _checked_mask(mask, height, width)
        items = len(self.mask) if len(self.mask) > 1 else None
        super().__init__((1, height, width), (1, height, width), complex_range=True, items=items)

    def part(self, items: slice) -> OfficialMRI:
        """The operator of these slices."""
        return self if self.items is None else OfficialMRI(self.domain[1:], self.mask[items, 0])  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Measured k-space (B, 1, H, W), complex, of real images."""
        self._fit(x, self.domain, "images")
        return torch.fft.fftshift(torch.fft.fft2(x), PLANE) * self._constant("mask", self.mask, x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Real part of the inverse transform."""
        self._fit(y, self.range, "k-space")
        return torch.fft.ifft2(torch.fft.ifftshift(y, PLANE)).real


class AsComplex(LinearOperator):
    """Real images (B, C, H, W) as complex ones; the adjoint is the real part."""

    def __init__(self, domain: tuple[int, ...]) -> None:
        super().__init__(domain, domain, complex_range=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._fit(x, self.domain, "images")
        return x.to(x.dtype.to_complex())

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._fit(y, self.range, "images")
        return y.real


class ChannelsAsComplex(LinearOperator):
    """Real and imaginary part as two channels (B, 2, H, W) to one complex channel (B, 1, H, W)."""

    def __init__(self, size: int | tuple[int, int]) -> None:
        height, width = image_size(size)
        super().__init__((2, height, width), (1, height, width), complex_range=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._fit(x, self.domain, "images of two channels")
        return torch.complex(x[:, :1], x[:, 1:])

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._fit(y, self.range, "images")
        return torch.cat([y.real, y.imag], dim=1)


def _checked_mask(mask: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """``mask`` as booleans (1 or slices, 1, H, W)."""
    mask = torch.as_tensor(mask)
    shape = tuple(mask.shape)
    if mask.ndim == 1:
        mask = mask[None]
    if mask.ndim not in (2, 3) or mask.shape[-1] != width or mask.shape[-2] not in (1, height):
        raise InputError(f"a mask of shape {shape} for k-space of {height} x {width}")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError("a k-space mask with values other than 0 and 1")
    if not bool(mask.any()):
        raise InputError("a k-space mask that measures nothing")
    return (mask != 0).reshape(-1, 1, *mask.shape[-2:]).expand(-1, 1, height, width)

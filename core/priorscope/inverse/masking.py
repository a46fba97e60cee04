"""Inpainting: some pixels are known."""

from __future__ import annotations

import torch

from priorscope.errors import InputError
from priorscope.inverse.operator import LinearOperator


class Mask(LinearOperator):
    """Known pixels of (B, C, H, W); the others are zero in the measurement, which has the same shape.

    Parameters
    ----------
    domain : (int, int, int)
        Channels, height and width.
    known : torch.Tensor
        True (or 1) where known, of a shape that broadcasts to the domain: (H, W), (C, H, W).
    """

    def __init__(self, domain: tuple[int, ...], known: torch.Tensor) -> None:
        super().__init__(domain, domain)
        known = torch.as_tensor(known)
        if not bool(((known == 0) | (known == 1)).all()):
            raise InputError("a mask with values other than 0 and 1")
        try:
            self.known = (known != 0).expand(domain)
        except RuntimeError:
            raise InputError(f"a mask of shape {tuple(known.shape)} for images of {tuple(domain)}") from None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._fit(x, self.domain, "images")
        return x * self._constant("known", self.known, x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.forward(y)

    def pseudo_inverse(self, y: torch.Tensor) -> torch.Tensor:
        """What is known, zero elsewhere."""
        return self.forward(y)

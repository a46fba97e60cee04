"""One measurement of several parts at once: their weighted sum, or any function of them pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from priorscope.diffusion.product import Parts
from priorscope.errors import InputError
from priorscope.inverse.iterative import Operator
from priorscope.inverse.operator import LinearOperator


class WeightedSum(LinearOperator):
    """y = sum of w_i A_i x_i over the parts of a state.

    Parameters
    ----------
    parts : Parts
    weights : sequence of float
        One a part.
    operators : sequence of Operator or None, optional
        A_i; None is the identity. At least two parts need the same range, of course.
    range : tuple of int, optional
        Shape of one measurement; default: that of the first part without an operator.
    """

    def __init__(
        self,
        parts: Parts,
        weights: Sequence[float],
        operators: Sequence[Operator | None] | None = None,
        *,
        range: tuple[int, ...] | None = None,
    ) -> None:
        operators = [None] * len(parts) if operators is None else list(operators)
        if not len(parts) == len(weights) == len(operators):
            raise InputError(f"{len(weights)} weights and {len(operators)} operators for {len(parts)} parts")
        plain = [shape for shape, operator in zip(parts.shapes, operators, strict=True) if operator is None]
        if range is None:
            if not plain:
                raise InputError("a sum of operators alone", remedy="Say the shape of one measurement (range).")
            range = plain[0]
        if any(shape != tuple(range) for shape in plain):
            raise InputError(f"parts of shapes {plain} cannot be added to a measurement of shape {tuple(range)}")
        super().__init__(parts.shape, tuple(range))
        self.parts, self.weights, self.operators = parts, [float(weight) for weight in weights], operators

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        terms = [
            weight * (part if operator is None else operator.forward(part))
            for part, weight, operator in zip(self.parts.split(x), self.weights, self.operators, strict=True)
        ]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.parts.join(
            [
                weight * (y if operator is None else operator.adjoint(y))
                for weight, operator in zip(self.weights, self.operators, strict=True)
            ]
        )


class PixelwiseMeasurement:
    """y = f(x_1, x_2, ...), where each value of y depends on the values of the parts at its own place and no others.

    Parameters
    ----------
    parts : Parts
        All of one shape, which is the measurement's.
    function : callable
        ``function(*parts) -> Tensor``, differentiable and pixel by pixel.
    """

    def __init__(self, parts: Parts, function: Callable[..., torch.Tensor]) -> None:
        if len(set(parts.shapes)) != 1:
            raise InputError(
                f"parts of shapes {parts.shapes}", remedy="A pixelwise measurement takes parts of one shape."
            )
        self.parts, self.function = parts, function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Measure the state ``x`` (B, *parts.shape); returns (B, *shape of one part)."""
        return self.function(*self.parts.split(x))

    def slopes(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The measurement at ``x``, and its derivative by each value of the state (B, *parts.shape)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            y = self.forward(x)
            (slopes,) = torch.autograd.grad(y.sum(), x)
        return y.detach(), slopes

    def along(self, slopes: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """J step: what a small change of the state does to the measurement (B, *shape of one part)."""
        return torch.stack(self.parts.split(slopes * step)).sum(0)

    def back(self, slopes: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """J^T residual (B, *parts.shape)."""
        return slopes * self.parts.join([residual] * len(self.parts))


Measurement = WeightedSum | PixelwiseMeasurement


def pull_back(measurement: Measurement, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """J^T (y - f(x)): minus half the gradient of the squared misfit at the state ``x`` (B, *parts.shape)."""
    if isinstance(measurement, PixelwiseMeasurement):
        measured, slopes = measurement.slopes(x)
        return measurement.back(slopes, y - measured)
    return measurement.adjoint(y - measurement.forward(x))

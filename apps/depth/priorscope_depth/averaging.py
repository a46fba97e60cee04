"""Two predictors made into one: the second is fitted to the first in one space, then they are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.predictors.geometry import Geometry
from priorscope_depth.alignment import Space
from priorscope_depth.base import ImagePredictor, Prediction
from priorscope_depth.robust_fit import RobustFit, fit_robust

_SMALLEST = 1e-6


@dataclass(frozen=True)
class Average:
    """The mean of two predictions, half their distance at each pixel, and the fit of the second to the first."""

    values: NDArray[np.floating]
    half_distance: NDArray[np.floating]
    fit: RobustFit


def average_aligned(first: NDArray[np.floating], second: NDArray[np.floating], names: Sequence[str] = ()) -> Average:
    """Fit ``second`` to ``first`` by scale and shift and average the two.

    Parameters
    ----------
    first, second : float array (H, W)
        In one space.
    names : two str, optional
        For the message.

    Returns
    -------
    Average
        In the scale of ``first``. Where ``second = a * first + b`` with a > 0, ``first`` comes back.

    Raises
    ------
    InputError
        Either is constant, or the best scale is negative: the two contradict each other.

    Notes
    -----
    The fit is :func:`fit_robust`, so that what one of them gets wrong (a mirror, a sky) does not pull the rest.
    Marigold's ensemble (:func:`~priorscope.predictors.ensemble.ensemble_affine`) aligns all members jointly, for which
    the objective has no minimum but the start's neighbourhood; with two members of different models there is no
    need for it.
    """
    fit = fit_robust(second, first)
    if fit.scale <= 0:
        one, other = names if len(names) == 2 else ("the first", "the second")
        raise InputError(
            f"{other} contradicts {one} on this picture (best scale {fit.scale:.3g}): what one sees near is far for "
            "the other",
            remedy="Look at both alone.",
        )
    fitted = fit(second.astype(np.float64))
    return Average((first + fitted) / 2, np.abs(first - fitted) / 2, fit)


class AveragedPredictor(ImagePredictor):
    """The average of two predictors of depth or disparity, in the first one's terms.

    Parameters
    ----------
    first, second : ImagePredictor
        Results are in the space and scale of the first, which also decides about size, ensembles and tiles.
    space : {"depth", "disparity"}, optional
        Where the second is fitted and the two are averaged. An affine-invariant prediction has one space only; a
        metric one (DepthPro) can be inverted, and follows. Default: that of the affine-invariant one, else the first's.

    Raises
    ------
    InputError
        Normals, or spaces that do not go together.
    """

    def __init__(self, first: ImagePredictor, second: ImagePredictor, space: Space | None = None) -> None:
        for predictor in (first, second):
            if predictor.task != "depth":
                raise InputError(f"{predictor.name} predicts {predictor.task}: only depth and disparity are averaged")
        fixed = {p.space: p.name for p in (second, first) if p.scale == "affine-invariant"}
        if len(fixed) == 2:
            raise InputError(
                f"{fixed['depth']} predicts depth and {fixed['disparity']} disparity, both up to an unknown scale and "
                "shift: neither can be turned into the other, so they cannot be averaged",
                remedy="Choose two models of one space, or a metric one (depthpro).",
            )
        possible = next(iter(fixed), None)
        if space is not None and possible is not None and space != possible:
            raise InputError(
                f"{fixed[possible]} predicts affine-invariant {possible}, which has no {space} to fit",
                remedy=f"Use --ensemble-space {possible}, or leave it out.",
            )
        self.first, self.second = first, second
        self.aligned_in: Space = space or possible or first.space
        self.name = f"{first.name} + {second.name}"
        self.device = first.device
        self.geometry, self.benchmark_geometry = first.geometry, first.benchmark_geometry
        self.scale, self.bounded, self.stochastic = first.scale, first.bounded, first.stochastic

    @property
    def space(self) -> Literal["depth", "disparity"]:
        return self.first.space

    @property
    def network(self) -> Any:
        return self.first.network

    def with_geometry(self, geometry: Geometry) -> AveragedPredictor:
        second = self.second.with_geometry(self.second.benchmark_geometry)
        return AveragedPredictor(self.first.with_geometry(geometry), second, self.aligned_in)

    def check_items(self, items: Sequence[int | str]) -> None:
        self.first.check_items(items)  # the second is told nothing by name

    def check_request(self, *, ensemble: int = 1, tile: int = 0, batch_size: int = 1) -> None:
        self.first.check_request(ensemble=ensemble, tile=tile, batch_size=batch_size)

    def predict(
        self, rgb: torch.Tensor, *, seed: int = 0, items: Sequence[int | str] = (0,), ensemble: int = 1
    ) -> list[Prediction]:
        firsts = self.first.predict(rgb, seed=seed, items=items, ensemble=ensemble)
        seconds = self.second.predict(rgb, seed=seed, items=items)
        return [self._average(one, other) for one, other in zip(firsts, seconds, strict=True)]

    def predict_tiled(self, rgb: torch.Tensor, *, tile: int, seed: int, items: Sequence[int | str]) -> Prediction:
        tiled = self.first.predict_tiled(rgb, tile=tile, seed=seed, items=items)
        [other] = self.second.predict(rgb, seed=seed, items=items)
        return self._average(tiled, other)

    def _average(self, one: Prediction, other: Prediction) -> Prediction:
        first = self._to_space(one.values, self.first)
        second = self._to_space(other.values, self.second)
        average = average_aligned(first, second, (self.first.name, self.second.name))
        values, span = average.values, float(np.ptp(average.values))
        if self.aligned_in != self.first.space:  # a metric first model
            values = 1 / np.maximum(values, _SMALLEST)
        if self.scale == "affine-invariant" and self.bounded:
            low, high = min(float(values.min()), 0.0), max(float(values.max()), 1.0)
            values = (values - low) / (high - low)
        spread = average.half_distance / max(span, 1e-12)
        notes = {
            "ensemble": {
                "models": [self.first.name, self.second.name],
                "aligned_in": self.aligned_in,
                "scale": average.fit.scale,
                "shift": average.fit.shift,
                "inliers": float(average.fit.inliers.mean()),
            }
        }
        tensor, uncertainty = (torch.from_numpy(array.astype(np.float32))[None] for array in (values, spread))
        return Prediction(tensor, uncertainty, {**(other.notes or {}), **(one.notes or {}), **notes})

    def _to_space(self, values: torch.Tensor, predictor: ImagePredictor) -> NDArray[np.float64]:
        array = values[0].cpu().double().numpy()
        if not np.isfinite(array).all():
            raise InputError(f"{predictor.name} gives NaN or infinite values", remedy="Use --precision float32.")
        if predictor.space == self.aligned_in:
            return array
        return 1 / np.maximum(array, _SMALLEST)

"""What all predictors of the app do alike: pictures of any sizes in, typed results out, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from priorscope.data.images import check_rgb
from priorscope.errors import InputError
from priorscope.predictors.batching import equal_batches
from priorscope.predictors.geometry import Geometry
from priorscope_depth.results import DepthResult, NormalsResult

Result = DepthResult | NormalsResult
_SMALLEST_TILE = 32


class Prediction(NamedTuple):
    """What a model says about one picture."""

    values: torch.Tensor
    """(K, H, W): K = 1 for depth and disparity, 3 for normals."""
    uncertainty: torch.Tensor | None = None
    """(1, H, W), of an ensemble."""
    notes: dict[str, Any] | None = None
    """For the result's notes."""


class ImagePredictor:
    """A predictor of depth, disparity or normals; a family of models writes :meth:`predict`.

    Attributes
    ----------
    name : str
        For results and messages.
    device : torch.device
    task : {"depth", "normals"}
    space : {"depth", "disparity"}
        The space of depth values; "depth" for normals, where it says nothing.
    scale : {"affine-invariant", "metric"}
    stochastic : bool
        Whether the answer depends on noise, so that members of an ensemble differ.
    bounded : bool
        Whether affine-invariant values lie in [0, 1] as they come; others are stretched to it, picture by picture.
    geometry : Geometry
        The size at which pictures are processed.
    benchmark_geometry : Geometry
        The same where an evaluation protocol has set the size already.
    network : Module
        Whose calls are counted.
    """

    name: str
    device: torch.device
    geometry: Geometry
    benchmark_geometry: Geometry
    scale: Literal["affine-invariant", "metric"] = "affine-invariant"
    stochastic: bool = False
    bounded: bool = True

    @property
    def task(self) -> Literal["depth", "normals"]:
        return "depth"

    @property
    def space(self) -> Literal["depth", "disparity"]:
        raise NotImplementedError

    @property
    def network(self) -> Any:
        raise NotImplementedError

    def predict(
        self, rgb: torch.Tensor, *, seed: int = 0, items: Sequence[int | str] = (0,), ensemble: int = 1
    ) -> list[Prediction]:
        """A prediction for each of a batch of pictures (B, 3, H, W) in [0, 1]; names give their noise."""
        raise NotImplementedError

    def predict_tiled(self, rgb: torch.Tensor, *, tile: int, seed: int, items: Sequence[int | str]) -> Prediction:
        """A prediction for one large picture (1, 3, H, W) in tiles of its own resolution."""
        raise NotImplementedError

    def with_geometry(self, geometry: Geometry) -> ImagePredictor:
        """The same model at another processing size; models that set their own size return themselves."""
        return self

    def __call__(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        *,
        seed: int = 0,
        items: Sequence[int | str] | None = None,
        ensemble: int = 1,
        batch_size: int = 1,
        tile: int = 0,
    ) -> Any:
        """Predict for one image or several.

        Parameters
        ----------
        images : uint8 array (H, W, 3), or a sequence of such arrays of any sizes
            RGB.
        seed : int
        items : sequence of int or str, optional
            Identity of each image (a file name); its noise derives from (seed, identity), so that results do
            not depend on the order or the batch. Default: the position.
        ensemble : int
            Predictions an image, aligned and reduced; needs a generative model.
        batch_size : int
            Images a batch, among those of equal size. Memory grows with ``batch_size * ensemble``.
        tile : int
            Side of tiles for images larger than this, at full resolution; 0: none.

        Returns
        -------
        DepthResult or NormalsResult, or a list of them for a sequence.
        """
        if isinstance(images, np.ndarray) and images.ndim == 3:
            return self([images], seed=seed, items=items, ensemble=ensemble, batch_size=batch_size, tile=tile)[0]
        images = list(images)
        names: Sequence[int | str] = list(range(len(images))) if items is None else items
        if len(names) != len(images):
            raise InputError(f"{len(names)} item names for {len(images)} images")
        self.check_request(ensemble=ensemble, tile=tile, batch_size=batch_size)
        for image in images:
            check_rgb(image)
        results: list[Result | None] = [None] * len(images)
        entries = list(zip(images, names, strict=True))
        for batch in equal_batches(entries, lambda entry: entry[0].shape, batch_size):
            rgb = torch.stack([to_tensor(image) for _, (image, _) in batch])
            seeds = [name for _, (_, name) in batch]
            predictions: list[Prediction]
            if tile and max(rgb.shape[-2:]) > tile:
                predictions = [
                    self.predict_tiled(rgb[i : i + 1], tile=tile, seed=seed, items=[seeds[i]])
                    for i in range(len(batch))
                ]
            else:
                predictions = self.predict(rgb, seed=seed, items=seeds, ensemble=ensemble)
            for (index, _), prediction in zip(batch, predictions, strict=True):
                results[index] = self.result(*prediction)
        return results

    def check_items(self, items: Sequence[int | str]) -> None:
        """Raise an :class:`InputError` where what this model was told by name is of none of these images."""

    def check_request(self, *, ensemble: int = 1, tile: int = 0, batch_size: int = 1) -> None:
        """Raise an :class:`InputError` for what this model cannot be asked, whatever the images."""
        if ensemble < 1:
            raise InputError(f"an ensemble of {ensemble}", remedy="Use --ensemble 1 or more.")
        if batch_size < 1:
            raise InputError(f"a batch size of {batch_size}", remedy="Use --batch-size 1 or more.")
        if tile and tile < _SMALLEST_TILE:
            raise InputError(f"tiles of {tile} pixels", remedy=f"Use --tile {_SMALLEST_TILE} or more, or 0 for none.")
        if ensemble > 1 and not self.stochastic:
            raise InputError(
                f"an ensemble of {ensemble} from {self.name}, whose answer does not depend on noise",
                remedy="Use --ensemble 1, or a generative model.",
            )
        if tile and ensemble > 1:
            raise InputError("tiles and ensembles cannot be combined yet", remedy="Use one of --tile, --ensemble.")

    def result(
        self, values: torch.Tensor, uncertainty: torch.Tensor | None = None, notes: dict[str, Any] | None = None
    ) -> Result:
        """The typed result of one picture's prediction."""
        spread = None if uncertainty is None else uncertainty[0].cpu().numpy()
        array = values.cpu().numpy()
        if not np.isfinite(array).all():
            raise InputError(
                f"{self.name} gives NaN or infinite values",
                remedy="Use --precision float32, or download its weights again.",
            )
        if self.task == "normals":
            return NormalsResult(np.ascontiguousarray(array.transpose(1, 2, 0)), uncertainty=spread, model=self.name)
        depth = array[0]
        if self.scale == "affine-invariant" and not self.bounded:
            low, high = float(depth.min()), float(depth.max())
            depth = (depth - low) / max(high - low, 1e-12)
        return DepthResult(depth, self.space, self.scale, uncertainty=spread, model=self.name, notes=notes or {})


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) -> float32 (3, H, W) in [0, 1]."""
    # a copy: pictures that Pillow decoded are read-only, which torch warns about
    return torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1).float() / 255

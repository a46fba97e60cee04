"""Features as a transformer in scikit-learn's sense, for its pipelines; scikit-learn itself is not needed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from priorscope.errors import InputError
from priorscope.features.encoding import Images
from priorscope.features.extractor import FeatureExtractor, Taps
from priorscope.features.forward import Features


class FeatureTransformer:
    """Images to vectors: ``make_pipeline(FeatureTransformer(folder, t=100), LogisticRegression())``.

    Nothing is learned: ``fit`` loads the model. Constructor arguments are kept as they are, so that scikit-learn can
    clone the transformer and search over them.

    Parameters
    ----------
    source : str or Path
        A model, as for :meth:`FeatureExtractor.from_pretrained`.
    taps, t, ensemble, posterior, size, cache, device, precision
        As there. Published tap sets bring their own level, ensemble and size.
    grid : int
        Each map is averaged over grid x grid fields: 1 gives one vector an image, 2 keeps four corners apart.
    seed, batch_size : int
        As for the extractor's call.

    Attributes
    ----------
    extractor_ : FeatureExtractor
        After ``fit``.
    """

    def __init__(
        self,
        source: str | Path,
        taps: Taps = "dift",
        *,
        t: float | Sequence[float] | None = None,
        ensemble: int | None = None,
        posterior: str = "mode",
        size: int | tuple[int, int] | None = None,
        grid: int = 1,
        cache: str | PathLike[str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        self.source = source
        self.taps = taps
        self.t = t
        self.ensemble = ensemble
        self.posterior = posterior
        self.size = size
        self.grid = grid
        self.cache = cache
        self.device = device
        self.precision = precision
        self.seed = seed
        self.batch_size = batch_size

    def fit(self, images: Images, y: Any = None) -> FeatureTransformer:
        """Load the model; ``images`` and ``y`` are not looked at."""
        if self.grid < 1:
            raise InputError(f"a grid of {self.grid}", remedy="Use 1 or more.")
        names = ("t", "ensemble", "posterior", "size", "cache", "device", "precision")
        settings: dict[str, Any] = {name: getattr(self, name) for name in names}
        self.extractor_ = FeatureExtractor.from_pretrained(self.source, self.taps, **settings)
        return self

    def transform(self, images: Images) -> np.ndarray:
        """Vectors (N, D), float32, of N images; D is grid^2 times the channels of all maps."""
        if not hasattr(self, "extractor_"):
            raise InputError("the transformer has no model yet", remedy="Call fit first.")
        maps = self.extractor_(images, seed=self.seed, batch_size=self.batch_size)
        return pool(maps, self.grid).cpu().numpy()

    def fit_transform(self, images: Images, y: Any = None) -> np.ndarray:
        """``fit``, then ``transform``."""
        return self.fit(images, y).transform(images)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> FeatureTransformer:
        """Set constructor arguments; a model that was loaded is forgotten."""
        for name, value in params.items():
            if name not in self._names():
                raise InputError(
                    f"no parameter is called {name!r}", remedy=f"There are {', '.join(sorted(self._names()))}."
                )
            setattr(self, name, value)
        vars(self).pop("extractor_", None)
        return self

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of its estimators from 1.6 on."""
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        inputs = InputTags(two_d_array=False, three_d_array=True)
        return Tags(None, TargetTags(required=False), TransformerTags(), input_tags=inputs)

    def __repr__(self) -> str:
        return f"FeatureTransformer({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]


def pool(maps: Features, grid: int = 1) -> torch.Tensor:
    """Maps averaged over a grid and joined to vectors.

    Returns
    -------
    Tensor (B, D)
        Map by map, channel by channel, field by field in rows. grid = 1 is DDAE's global mean; larger grids are those
        of Mukhopadhyay et al. 2023.
    """
    return torch.cat([functional.adaptive_avg_pool2d(value, grid).flatten(1) for value in maps.values()], 1)

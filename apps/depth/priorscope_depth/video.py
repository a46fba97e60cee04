"""Frames of a video, one after another: with shared noise, from the last frame's latents, fitted to the last frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from priorscope.errors import InputError
from priorscope.predictors.latent import LatentMemory
from priorscope_depth.averaging import AveragedPredictor
from priorscope_depth.base import ImagePredictor, Result, to_tensor
from priorscope_depth.metric_scale import within
from priorscope_depth.output import Meaning, to_colours
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.results import DepthResult
from priorscope_depth.robust_fit import fit_robust

#: The first frame of a fitted video fills [0.1, 0.9], so that later ones may be nearer or farther.
_HEADROOM = 0.1


@dataclass(frozen=True)
class FrameOptions:
    """How frames hang together.

    Attributes
    ----------
    noise : {"shared", "independent", "previous"}
        Of generative models: one noise for all frames; each frame its own; or one noise and a start from the last
        frame's latents, noised to ``level``. Others draw none: "shared" and "independent" are the same to them.
    level : float, optional
        Of "previous"; default: the first level of the run that leaves a signal. The lower it is, the more of the last
        frame stays and the fewer steps are taken.
    align : bool
        Fit every frame to the one before by a robust scale and shift, whatever the model.
    ensemble, batch_size, tile : int
        As of :class:`ImagePredictor`.
    """

    noise: Literal["shared", "independent", "previous"] = "shared"
    level: float | None = None
    align: bool = False
    ensemble: int = 1
    batch_size: int = 1
    tile: int = 0

    def check(self, predictor: ImagePredictor) -> None:
        """InputError for what this predictor cannot do."""
        if self.level is not None and self.noise != "previous":
            raise InputError("--frame-level without --frames previous", remedy="Add it, or leave the level out.")
        if self.noise == "previous":
            if isinstance(predictor, AveragedPredictor):
                raise InputError(
                    f"--frames previous of two models ({predictor.name})",
                    remedy="Leave out --ensemble-with, or use --align-frames.",
                )
            if not isinstance(predictor, DepthPredictor) or not predictor.stochastic:
                raise InputError(
                    f"--frames previous changes nothing for {predictor.name}, whose answer does not start from noise",
                    remedy="Use --align-frames, or a generative model (Lotus-G, Marigold).",
                )
            if self.tile:
                raise InputError("--frames previous with tiles", remedy="Use one of --frames previous, --tile.")
            predictor.latent.start_level(LatentMemory(self.level))
        if self.align and predictor.task != "depth":
            raise InputError("normals have no scale and shift to fit", remedy="Leave out --align-frames.")
        if self.align and predictor.scale == "metric":
            raise InputError(
                f"{predictor.name} predicts metres, which a fit to the last frame would undo",
                remedy="Leave out --align-frames.",
            )


class FramePredictor:
    """Predict the frames of one video in order.

    Parameters
    ----------
    predictor : ImagePredictor
    name : str
        The video's, from which its noise derives.
    options : FrameOptions
    seed : int

    Attributes
    ----------
    clipped : float
        Share of all values so far that a fit took out of [0, 1] and that were cut off there.
    restarts : int
        Frames that could not be fitted to the last one (a cut, a blank frame) and began anew.
    """

    def __init__(self, predictor: ImagePredictor, name: str, options: FrameOptions, *, seed: int = 0) -> None:
        options.check(predictor)
        self.predictor = predictor
        self.name, self.options, self.seed = name, options, seed
        self.memory = LatentMemory(options.level)
        self.last: np.ndarray | None = None
        self.restarts = 0
        self._cut = self._seen = 0

    @property
    def clipped(self) -> float:
        return self._cut / max(self._seen, 1)

    def __call__(self, images: Sequence[np.ndarray], first: int) -> list[Result]:
        """Results of the next frames, uint8 (H, W, 3) each, of which the first has the number ``first``."""
        options = self.options
        results: list[Result]
        if options.noise == "previous":
            results = [self._from_previous(image) for image in images]
        else:
            own = options.noise == "independent"
            items = [f"{self.name}/{first + i}" if own else self.name for i in range(len(images))]
            results = self.predictor(
                list(images),
                seed=self.seed,
                items=items,
                ensemble=options.ensemble,
                batch_size=options.batch_size,
                tile=options.tile,
            )
        return [self._fitted(result) if options.align else result for result in results]

    def notes(self) -> dict[str, Any]:
        """What each frame's side file says."""
        said: dict[str, Any] = {"fitted_to_last_frame": self.options.align}
        if self.predictor.stochastic:
            said["noise"] = self.options.noise
        if self.options.noise == "previous" and isinstance(self.predictor, DepthPredictor):
            said["start_level"] = self.predictor.latent.start_level(self.memory)
        return {"video": said}

    def _from_previous(self, image: np.ndarray) -> Result:
        predictor = self.predictor
        assert isinstance(predictor, DepthPredictor)  # checked
        [prediction] = predictor.predict(
            to_tensor(image)[None],
            seed=self.seed,
            items=[self.name],
            ensemble=self.options.ensemble,
            memory=self.memory,
        )
        return predictor.result(*prediction)

    def _fitted(self, result: Result) -> Result:
        assert isinstance(result, DepthResult)  # checked
        values = result.values.astype(np.float64)
        fitted: np.ndarray | None = None
        if self.last is not None:
            try:
                # symmetric: a chain of regressions would lose the contrast
                fit = fit_robust(values, self.last, symmetric=True)
                fitted = fit(values) if fit.scale > 0 else None
            except InputError:
                pass  # a blank frame, or the last one was
            if fitted is None:
                self.restarts += 1
        if fitted is None:
            fitted = _HEADROOM + (1 - 2 * _HEADROOM) * values
        self.last = fitted  # before it is cut, or a far place would drag the fit of the next frame
        self._seen += fitted.size
        self._cut += int(((fitted < -1e-6) | (fitted > 1 + 1e-6)).sum())
        return replace(result, values=np.clip(fitted, 0, 1).astype(np.float32))


class FrameColours:
    """Frames as pictures, in colours that keep their meaning: they span all values of the video so far.

    Parameters
    ----------
    max_depth : float
        Metric depth beyond it is shown as none.
    """

    def __init__(self, max_depth: float) -> None:
        self.max_depth = max_depth
        self.low, self.high = np.inf, -np.inf

    def __call__(self, result: Result) -> np.ndarray:
        """uint8 (H, W, 3)."""
        if not isinstance(result, DepthResult):
            return to_colours(result.values, Meaning("normals"))
        valid = within(result, self.max_depth)
        values = np.where(valid, result.values, 0)
        if valid.any():
            self.low = min(self.low, float(values[valid].min()))
            self.high = max(self.high, float(values[valid].max()))
        span = (self.low, self.high) if self.high > self.low else None
        return to_colours(values, Meaning(result.space, result.scale), valid=valid, span=span)

"""Evaluate a depth predictor on a benchmark: resize, predict, align, measure, average.

The protocol owns the geometry: images reach the predictor at the resolution the protocol prescribes, and its
prediction is brought back to the image's own size before it is aligned. The predictor itself resizes nothing.

An affine-invariant prediction is aligned in its own space only. If p = s d + t with unknown s and t, then 1/p is
not affine in 1/d, so a depth prediction has no aligned disparity, nor the reverse. The official evaluations fit it
all the same: "least_square_disparity" fits whatever p is to 1/d. ``compat="lotus"`` or "marigold" does so too.
A metric prediction is known in both spaces: it is inverted for the other one, then aligned as all others are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal
from typing import Protocol as TypingProtocol

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_depth.alignment import SMALLEST_DISPARITY, SPACES, Space, check_space, fit_affine
from priorscope_depth.archives import DepthSample
from priorscope_depth.baselines import BASELINES, oracle_baseline
from priorscope_depth.metrics import depth_metrics
from priorscope_depth.protocols import Compat, DepthProtocol, get_compat, resized_shape
from priorscope_depth.scores import DepthEvaluation

if TYPE_CHECKING:
    import torch

    from priorscope.evaluation.run_folder import RunFolder


class EvaluatedPredictor(TypingProtocol):
    """What :func:`evaluate_depth` needs of a predictor.

    Attributes
    ----------
    space : {"depth", "disparity"}
        Which of the two the prediction is affine in.

    Where it also says ``scale = "metric"``, its values are metres (or 1/m).
    """

    @property
    def space(self) -> Space: ...

    def __call__(self, rgb: torch.Tensor) -> torch.Tensor:
        """Map float32 [B, 3, H, W] in [0, 1] to [B, H, W], without resizing inside.

        A predictor that draws noise should also take ``items``, the keys of the images, and derive the noise of each
        from its key: then results depend neither on batches nor on processes nor on where a run was resumed.
        """
        ...


class LoadsDepth(TypingProtocol):
    """A sample that can be loaded: an item of an archive, or a :class:`~priorscope_depth.archives.DepthSample`."""

    @property
    def key(self) -> str: ...

    def load(self) -> DepthSample: ...


def evaluate_depth(
    predictor: EvaluatedPredictor,
    samples: Sequence[LoadsDepth],
    protocol: DepthProtocol,
    *,
    alignments: Sequence[Space] = SPACES,
    compat: str | Compat = "priorscope",
    batch_size: int = 1,
    baselines: bool = False,
    run: RunFolder | None = None,
    progress: bool | str = True,
) -> DepthEvaluation:
    """Evaluate a predictor on a depth data set.

    Parameters
    ----------
    predictor : EvaluatedPredictor
        A callable with ``space``. Where it has a ``device``, images are moved there.
    samples : sequence
        A :class:`~priorscope_depth.archives.DepthArchive`, or any sequence of objects with ``key`` and ``load()``.
    protocol : DepthProtocol
    alignments : sequence of {"depth", "disparity"}
        Spaces to align in. By default those of the two that the prediction has: its own, or both where it is metric.
        See the module's notes.
    compat : {"priorscope", "lotus", "marigold"} or Compat
        Whose deviations to reproduce; "priorscope" has none.
    batch_size : int
        Images per call of the predictor, where their sizes agree.
    baselines : bool
        Add the oracle baselines of :mod:`priorscope_depth.baselines`, in every space asked for.
    run : RunFolder, optional
        Where rows are kept; a run that was cut off goes on from there. One data set a folder.
    progress : bool or str
        Show a progress bar on a terminal; a string is its title.

    Returns
    -------
    DepthEvaluation
        The same on every process of an ``accelerate launch``.

    Raises
    ------
    InputError
        Bad arguments, an alignment that the prediction does not have and no other asked for, or no image that
        could be evaluated. A single bad image is listed in ``failures`` and the rest goes on.

    Notes
    -----
    Memory is bounded by a batch of images: 0.3 GB for one of 24 megapixels (ETH3D), 0.8 GB with baselines, beside
    the image and the predictor.
    """
    from priorscope.evaluation.suite import run_items

    options = get_compat(compat)
    check_space(predictor.space)
    if not alignments or len(set(alignments)) != len(alignments):
        raise InputError(f"alignments {list(alignments)} must name one or two different spaces")
    for space in alignments:
        check_space(space)
    if not len(samples):
        raise InputError("there is no sample to evaluate")
    undefined: dict[str, str] = {
        space: f"the prediction is affine-invariant {predictor.space}, which cannot be turned into {space}"
        for space in alignments
        if space != predictor.space and not (is_metric(predictor) or options.any_space)
    }
    spaces = [space for space in alignments if space not in undefined]
    if not spaces and not baselines:
        raise InputError(
            f"{undefined[alignments[0]]}: there is nothing to align in {alignments[0]} space",
            remedy="Align in the prediction's own space, or ask for the official convention (lotus, marigold), "
            "which fits it anyway.",
        )

    conditions = {"data_set": protocol.name, "convention": options.name}
    wanted = {f"prediction/{space}" for space in spaces}
    if baselines:
        wanted |= {f"{kind}/{space}" for kind in BASELINES for space in alignments}

    def evaluate(items: list[LoadsDepth]) -> list[dict[str, Any]]:
        loaded = [item.load() for item in items]
        predictions = predict_at_own_size(predictor, loaded, protocol, options) if spaces else [None] * len(loaded)
        rows = []
        for sample, prediction in zip(loaded, predictions, strict=True):
            results: dict[str, dict[str, float]] = {}
            if prediction is not None:
                results = {
                    f"prediction/{space}": score_image(
                        in_space(prediction, predictor, space), sample, protocol, space, options
                    )
                    for space in spaces
                }
            if baselines:
                results |= {f"{b}/{s}": _score_baseline(b, sample, protocol, s) for b in BASELINES for s in alignments}
            rows.append({**conditions, "valid_pixels": int(sample.valid.sum()), "results": results})
        return rows

    result = run_items(samples, evaluate, key=lambda item: item.key, batch_size=batch_size, run=run, progress=progress)
    if not result.rows:
        first = result.failures[0]
        raise InputError(f"none of {len(samples)} images could be evaluated; the first, {first.key}: {first.error}")
    for row in result.rows:  # those of an earlier call are taken over as they are
        if set(row["results"]) != wanted or any(row[name] != value for name, value in conditions.items()):
            raise InputError(
                f"holds rows of another evaluation (set, convention, alignments or baselines; first: {row['key']})",
                path=None if run is None else run.path,
                remedy="Choose another run folder.",
            )
    return DepthEvaluation(protocol, options, predictor.space, result.rows, result.failures, undefined)


def is_metric(predictor: EvaluatedPredictor) -> bool:
    """Whether its values are metres (or 1/m), so that it has depth and disparity."""
    return getattr(predictor, "scale", "affine-invariant") == "metric"


def in_space(prediction: NDArray[np.float32], predictor: EvaluatedPredictor, space: Space) -> NDArray[np.float32]:
    """A prediction as it is aligned in ``space``: a metric one of the other space inverted, others as they are.

    From disparity nothing becomes farther than 1000 m, as where aligned disparities are inverted; from depth, likewise,
    nothing nearer than 1 mm. Such a pixel would else be the whole of a least-squares fit.
    """
    if space == predictor.space or not is_metric(predictor):
        return prediction
    return np.reciprocal(np.maximum(prediction, np.float32(SMALLEST_DISPARITY)))


def score_image(
    prediction: NDArray[np.floating],
    sample: DepthSample,
    protocol: DepthProtocol,
    alignment: Space,
    compat: str | Compat = "priorscope",
) -> dict[str, float]:
    """Align one prediction and measure it.

    Parameters
    ----------
    prediction : float array, [H, W]
        Relative depth or disparity at the sample's size.
    sample : DepthSample
    protocol : DepthProtocol
    alignment : {"depth", "disparity"}
    compat : {"priorscope", "lotus", "marigold"} or Compat

    Returns
    -------
    dict
        The ten metrics, ``scale`` and ``shift`` of the fit, and the pixels it used as ``fit_pixels``.
    """
    options = get_compat(compat)
    if prediction.shape != sample.depth.shape:
        raise InputError(f"prediction {list(prediction.shape)} and depth {list(sample.depth.shape)} differ in size")
    fit = fit_affine(
        prediction,
        sample.depth,
        sample.valid,
        alignment,
        max_res=protocol.alignment_max_res,
        subsampling=options.subsampling,
        positive_only=options.positive_only,
        solver=options.solver,
    )
    # only the pixels that count are aligned: full maps of ETH3D are sparse and large
    aligned = fit.depth(prediction[sample.valid], protocol.min_depth, protocol.max_depth)
    metrics = depth_metrics(aligned, sample.depth[sample.valid])
    return {**metrics, "scale": fit.scale, "shift": fit.shift, "fit_pixels": fit.pixels}


def _score_baseline(
    kind: Literal["constant", "plane"], sample: DepthSample, protocol: DepthProtocol, alignment: Space
) -> dict[str, float]:
    bounds = (protocol.min_depth, protocol.max_depth)
    return depth_metrics(
        oracle_baseline(kind, sample.depth, sample.valid, alignment, *bounds), sample.depth, sample.valid
    )


def predict_at_own_size(
    predictor: EvaluatedPredictor, samples: Sequence[DepthSample], protocol: DepthProtocol, compat: str | Compat
) -> list[NDArray[np.float32]]:
    """Resize, predict (images of one size in one call) and resize back: float32 [H, W] for each sample.

    Both resizings are bilinear with antialiasing, as torchvision's with ``antialias=True``.
    """
    import torch
    import torch.nn.functional as F

    options = get_compat(compat)
    inputs = [resized_input(s.rgb, protocol.resolution(options), rounded=options.rounds_resized_input) for s in samples]
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(inputs):
        groups.setdefault(tuple(image.shape), []).append(index)
    found: dict[int, NDArray[np.float32]] = {}
    with torch.inference_mode():
        for indices in groups.values():
            batch = torch.stack([inputs[i] for i in indices])
            predicted = call_predictor(predictor, batch, [samples[i].key for i in indices])
            expected = (len(indices), *batch.shape[2:])
            if tuple(predicted.shape) != expected:
                raise ValueError(f"the predictor gave {list(predicted.shape)} where {list(expected)} is expected")
            for i, values in zip(indices, predicted.float(), strict=True):
                if values.shape != samples[i].depth.shape:
                    size = samples[i].depth.shape
                    values = F.interpolate(
                        values[None, None], size=size, mode="bilinear", align_corners=False, antialias=True
                    )[0, 0]
                found[i] = values.cpu().numpy()
    return [found[i] for i in range(len(samples))]


def call_predictor(predictor: Callable[..., torch.Tensor], batch: torch.Tensor, keys: list[str]) -> torch.Tensor:
    """Call a predictor on its device; one that takes ``items`` is told the keys, to derive each image's noise from."""
    device = getattr(predictor, "device", None)
    batch = batch if device is None else batch.to(device)
    if "items" in inspect.signature(predictor).parameters:
        return predictor(batch, items=keys)
    return predictor(batch)


def resized_input(rgb: NDArray[np.uint8], resolution: int, *, rounded: bool = False) -> torch.Tensor:
    """Return float32 [3, h, w] in [0, 1] with ``resolution`` as longer side (0: unchanged).

    ``rounded`` rounds the resized values to 1/255, as a resize of integers does.
    """
    import torch
    import torch.nn.functional as F

    image = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))).float()
    size = resized_shape(rgb.shape[0], rgb.shape[1], resolution)
    if size != rgb.shape[:2]:
        image = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
        image = image.round() if rounded else image
    return image / 255.0

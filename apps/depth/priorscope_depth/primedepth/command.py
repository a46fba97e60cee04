"""PrimeDepth as the command line's model options describe it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from priorscope.errors import InputError
from priorscope_depth.configs import ModelConfig

if TYPE_CHECKING:
    from priorscope_depth.primedepth.captions import Captions
    from priorscope_depth.primedepth.predictor import PrimeDepthPredictor


def load_primedepth(settings: ModelConfig) -> PrimeDepthPredictor:
    """The predictor; says on stderr what of the checkpoint is not used, and where captions come from.

    Raises
    ------
    InputError
        Options of other families; what :meth:`PrimeDepthPredictor.load` refuses.
    """
    from priorscope_depth.assemble import refuse_patches
    from priorscope_depth.primedepth.predictor import PrimeDepthPredictor, official_geometry

    for name, value in (("family", settings.family), ("steps", settings.steps)):
        if value is not None:
            raise InputError(f"--{name} {value} for PrimeDepth, which looks once", remedy=f"Leave out --{name}.")
    if settings.task not in (None, "depth") or settings.space not in (None, "disparity"):
        raise InputError("PrimeDepth predicts depth, in disparity space", remedy="Leave out --task and --space.")
    if settings.deterministic and settings.posterior == "sample":
        raise InputError("--deterministic with --posterior sample, which draws", remedy="Leave out one of them.")
    predictor = PrimeDepthPredictor.load(
        settings.model,
        captions=captions_of(settings),
        posterior=settings.posterior,
        deterministic=settings.deterministic,
        geometry=official_geometry() if settings.official_geometry else None,
        resolution=settings.resolution,
        device=settings.device,
        precision=settings.precision,
        tiled_vae=settings.tiled_vae,
        compile=settings.compile,
        revision=settings.revision,
    )
    if settings.official_geometry:
        refuse_patches(settings.model, predictor.model.latents)
    for remark in (*predictor.remarks, f"caption: {predictor.captions.describe()}"):
        print(f"{predictor.name}: {remark}", file=sys.stderr)
    return predictor


def captions_of(settings: ModelConfig) -> Captions:
    """The captions that ``--caption`` and ``--caption-file`` ask for."""
    from priorscope_depth.primedepth.captions import Captions

    if settings.caption == "blip2":
        if settings.caption_file is not None:
            raise InputError("--caption blip2 and --caption-file", remedy="Give one of the two.")
        return Captions(model=settings.caption_model)
    if settings.caption_file is not None:
        return Captions.from_file(settings.caption_file, settings.caption)
    return Captions(settings.caption)

"""``priorscope depth edges``: edge maps of images and folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np

from priorscope.data.arrays import write_npy
from priorscope.data.files import refuse_existing, write_text
from priorscope.data.images import ImageFile, find_images, read_image, write_png
from priorscope.errors import InputError
from priorscope.evaluation.suite import conclude, run_items
from priorscope_depth.configs import refuse_idle
from priorscope_depth.edges.configs import EdgeFormat, EdgesConfig
from priorscope_depth.edges.predictor import EdgePredictor
from priorscope_depth.edges.thinning import suppress


def predict_edges(config: EdgesConfig) -> int:
    """Run ``priorscope depth edges``.

    Returns
    -------
    int
        0; 1 when some inputs failed, which are listed and do not stop the others.
    """
    if not config.inputs:
        raise InputError("no input", remedy="Give images or folders: priorscope depth edges photo.jpg")
    unknown = [name for name in config.formats if name not in get_args(EdgeFormat)]
    if unknown or not config.formats:
        raise InputError(f"formats {list(config.formats)}", remedy="Known: png, npy.")
    if not config.tile:
        refuse_idle(config, ("overlap", "blend"), "with --tile 0: there are no tiles")
    images = find_images(config.inputs)
    predictor = EdgePredictor.from_pretrained(config.model, device=config.device, precision=config.precision)
    if not predictor.generates:
        raise InputError(
            "holds the autoencoder of train-edges, which only comes first",
            path=config.model,
            remedy="Give OUT/diffusion/model of the same training.",
        )
    if not config.overwrite:
        refuse_existing([path for image in images for path in _targets(image, config)])

    def evaluate(batch: list[ImageFile]) -> list[dict[str, Any]]:
        for image in batch:
            result = predictor(
                read_image(image.path),
                seed=config.seed,
                items=[image.stem],
                steps=config.steps,
                ensemble=config.ensemble,
                tile=config.tile,
                overlap=config.overlap,
                blend=config.blend,
                batch_size=config.batch_size,
            )[0]
            _write(image, result.values, predictor.name, config)
        return [{} for _ in batch]

    outcome = run_items(images, evaluate, key=lambda image: str(image.path), progress=True if len(images) > 1 else None)
    return conclude(list(outcome.failures), len(images), config.out)


def _targets(image: ImageFile, config: EdgesConfig) -> list[Path]:
    return [config.out / f"{image.stem}_edges.{suffix}" for suffix in (*config.formats, "json")]


def _write(image: ImageFile, values: np.ndarray, model: str, config: EdgesConfig) -> None:
    if config.crest:
        values = suppress(values).astype(np.float32)
    for path in _targets(image, config):
        if path.suffix == ".png":
            write_png(path, (values * 255).round().astype(np.uint8), overwrite=True)
        elif path.suffix == ".npy":
            write_npy(path, values, overwrite=True)
        else:
            about = {
                "kind": "edges",
                "convention": "strength in [0, 1], 1 = edge; png: times 255",
                "suppressed": config.crest,
                "model": model,
                "seed": config.seed,
                "steps": config.steps,
                "size": {"height": values.shape[0], "width": values.shape[1]},
            }
            write_text(path, json.dumps(about, indent=2) + "\n", overwrite=True)

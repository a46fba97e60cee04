"""What a feature extractor keeps on disk: the latents of images and their maps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from priorscope.backbones.latents import LatentSpace
from priorscope.diffusion.denoiser import Denoiser
from priorscope.features.cache import FeatureCache, content_hash, fingerprint
from priorscope.features.forward import Features
from priorscope.features.modes import Key, Viewer


class FeatureStore:
    """Latents and maps of an extractor under one folder.

    Latents are kept by what encodes them, maps by everything that decides about them; both by the image's content.

    Parameters
    ----------
    folder : path-like
    viewer : Viewer
    latents : LatentSpace
    size : (int, int) or None
        To which images are resized.
    settings : mapping
        What else the maps depend on; JSON values.
    dtype : torch.dtype, optional
        What maps are stored as. Default: float32.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        viewer: Viewer,
        latents: LatentSpace,
        size: tuple[int, int] | None,
        settings: Mapping[str, Any],
        dtype: torch.dtype | None = None,
    ) -> None:
        vae = getattr(latents, "vae", None)
        encoder = {
            "space": f"{type(latents).__name__} {latents.factor} {latents.channels}",
            "vae": fingerprint([vae] if isinstance(vae, nn.Module) else []),
            "tiled": bool(getattr(vae, "use_tiling", False)),
            "size": size,
        }
        network = {
            "network": fingerprint([viewer.taps.network]),
            "denoiser": _describe(viewer.denoiser),
            "condition": {name: content_hash(value.float()) for name, value in (viewer.condition or {}).items()},
            "taps": [asdict(tap) for tap in viewer.taps.taps],
        }
        self._latents = FeatureCache(Path(folder) / "latents", encoder)
        self._maps = FeatureCache(Path(folder) / "maps", {**encoder, **network, **settings}, dtype=dtype)

    def latents(self, image: str) -> dict[str, torch.Tensor] | None:
        """Mean and std (C, h, w) of the image with this content hash, if they are kept."""
        return self._latents.get(image)

    def keep_latents(self, image: str, pair: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keep them, and give them back as they are kept."""
        return self._latents.put(image, pair)

    def maps(self, image: str, item: int | str, seed: int) -> dict[Key, Features] | None:
        """The maps (C, h, w) by level and name, mapped from disk, if they are kept."""
        flat = self._maps.get(json.dumps([image, str(item), seed]))
        if flat is None:
            return None
        maps: dict[Key, Features] = {}
        for label, value in flat.items():
            key, name = json.loads(label)
            maps.setdefault(key, {})[name] = value
        return maps

    def keep_maps(self, image: str, item: int | str, seed: int, maps: Mapping[Key, Features]) -> dict[Key, Features]:
        """Keep them, and give them back as they are kept."""
        flat = {json.dumps([key, name]): value for key, part in maps.items() for name, value in part.items()}
        stored = iter(self._maps.put(json.dumps([image, str(item), seed]), flat).values())
        return {key: {name: next(stored) for name in part} for key, part in maps.items()}


def _describe(denoiser: Denoiser) -> list[Any]:
    """What a denoiser does to its network, in numbers: its levels, and what it tells the network at some of them."""
    schedule = denoiser.schedule
    levels = [schedule.start, (schedule.start + schedule.end) // 2, schedule.end]
    label = denoiser.time_label
    told = [float(label(t)) for t in levels] if callable(label) else label
    scale = denoiser.input_scale
    scaled = None if scale is None else [float(scale(*schedule(t))) for t in levels]
    return [type(schedule).__name__, denoiser.prediction_type, [schedule(t) for t in levels], told, scaled]

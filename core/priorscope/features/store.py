"""What a feature extractor keeps on disk: the latents of images and their maps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from priorscope.backbones.latents import LatentDistribution, LatentSpace
from priorscope.diffusion.denoiser import Denoiser
from priorscope.errors import InputError
from priorscope.features.cache import TensorFolder, content_hash, fingerprint
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
        encoder = {**describe_space(latents), "size": size}
        self.latents = TensorFolder(Path(folder) / "latents", encoder)
        self._maps = TensorFolder(
            Path(folder) / "maps", {**encoder, **describe_viewer(viewer), **settings}, dtype=dtype
        )

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


def describe_space(space: LatentSpace) -> dict[str, Any]:
    """What latents depend on besides the image: JSON values, for the key of a cache."""
    vae = getattr(space, "vae", None)
    return {
        **space.describe(),
        "vae": fingerprint([vae] if isinstance(vae, nn.Module) else []),
        "tiled": bool(getattr(vae, "use_tiling", False)),
    }


def describe_viewer(viewer: Viewer) -> dict[str, Any]:
    """What maps depend on besides the latents and the way to a level: JSON values, for the key of a cache."""
    return {
        "network": fingerprint([viewer.taps.network]),
        "denoiser": _describe_denoiser(viewer.denoiser),
        "condition": {name: content_hash(value.float()) for name, value in (viewer.condition or {}).items()},
        "taps": [asdict(tap) for tap in viewer.taps.taps],
    }


def kept_posterior(
    space: LatentSpace,
    hashes: Sequence[str],
    images: Callable[[list[int]], torch.Tensor],
    cache: TensorFolder | None,
    device: torch.device,
) -> LatentDistribution:
    """What a latent space says about images: read where it is kept, the rest encoded in one call and kept.

    Parameters
    ----------
    space : LatentSpace
    hashes : sequence of str
        What each image's latents are kept under.
    images : callable
        Gives the images at these places (B, C, H, W), as `space` takes them.
    cache : TensorFolder, optional
    device : torch.device
        Where the latents shall be.

    Raises
    ------
    InputError
        Latents of different sizes.
    """
    found = [None if cache is None else cache.get(name) for name in hashes]
    missing = [place for place, pair in enumerate(found) if pair is None]
    if missing:
        encoded = space.posterior(images(missing))
        for row, place in enumerate(missing):
            pair = {"mean": encoded.mean[row], "std": encoded.std[row]}
            found[place] = pair if cache is None else cache.put(hashes[place], pair)
    pairs = [pair for pair in found if pair is not None]
    refuse_unequal([pair["mean"] for pair in pairs])
    mean, std = (torch.stack([pair[name].to(device) for pair in pairs]) for name in ("mean", "std"))
    return LatentDistribution(mean, std)


def refuse_unequal(maps: Sequence[torch.Tensor]) -> None:
    """Raise an :class:`InputError` if maps (..., h, w) are not all of one size."""
    sizes = {tuple(value.shape[-2:]) for value in maps}
    if len(sizes) > 1:
        raise InputError(f"images of different sizes: {sorted(sizes)[:3]}", remedy="Give the extractor a size.")


def _describe_denoiser(denoiser: Denoiser) -> list[Any]:
    """What a denoiser does to its network, in numbers: its levels, and what it tells the network at some of them."""
    schedule = denoiser.schedule
    levels = [schedule.start, (schedule.start + schedule.end) // 2, schedule.end]
    label = denoiser.time_label
    told = [float(label(t)) for t in levels] if callable(label) else label
    scale = denoiser.input_scale
    scaled = None if scale is None else [float(scale(*schedule(t))) for t in levels]
    return [type(schedule).__name__, denoiser.prediction_type, [schedule(t) for t in levels], told, scaled]

"""Features of images of any bands for a decoder; latents and maps are kept on disk where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import torch

from priorscope.backbones.latents import LatentDistribution
from priorscope.errors import InputError
from priorscope.features.cache import TensorFolder, content_hash
from priorscope.features.extractor import FeatureExtractor
from priorscope.features.store import describe_space, describe_viewer, kept_posterior
from priorscope_remote_sensing.backbone import DiffusionSat
from priorscope_remote_sensing.metadata import Metadata
from priorscope_remote_sensing.prior import TerrainPrior
from priorscope_remote_sensing.satdifuser import SatDiFuserModel

Maps = dict[int, list[torch.Tensor]]
Backbone = DiffusionSat | TerrainPrior


class KeptFeatures:
    """What a model's decoder takes, for images as its band recipe gives them.

    Parameters
    ----------
    model : SatDiFuserModel
    backbone : DiffusionSat or TerrainPrior
    keep : {"none", "latents", "maps"}
        What is kept in ``folder``: nothing; what the autoencoder says of each image; or also the maps, in float16.
    folder : Path, optional
    seed : int
        The noise derives from it and each image's content.
    batch_size : int
        Images a call of the network.
    """

    def __init__(
        self,
        model: SatDiFuserModel,
        backbone: Backbone,
        *,
        keep: Literal["none", "latents", "maps"] = "none",
        folder: Path | None = None,
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        if keep != "none" and folder is None:
            raise InputError(f"keep={keep!r} without a folder")
        self.model = model
        self.backbone = backbone
        self.seed = seed
        self.batch_size = batch_size
        self._extractors: dict[Metadata | None, FeatureExtractor] = {}
        self._latents = self._maps = None
        self.schedule = backbone.denoiser.schedule
        if folder is not None and keep != "none":
            encoder = describe_space(backbone.latents)
            if hasattr(backbone.latents, "vae"):  # cutting images into patches is quicker than reading a file
                self._latents = TensorFolder(folder / "latents", encoder)
            if keep == "maps":
                extractor = self.extractor(None)
                settings = {"mode": repr(extractor.mode), "posterior": extractor.posterior, "seed": seed}
                described = {**encoder, **describe_viewer(extractor.viewer), **settings}
                self._maps = TensorFolder(folder / "maps", described, dtype=torch.float16)

    def extractor(self, metadata: Metadata | None) -> FeatureExtractor:
        """The extractor for images with this metadata; all share the network."""
        if metadata not in self._extractors:
            self._extractors[metadata] = self.model.extractor(
                cast(DiffusionSat, self.backbone),
                metadata=metadata,  # a TerrainPrior offers the same
            )
        return self._extractors[metadata]

    def tap_widths(self, height: int, width: int) -> tuple[tuple[int, ...], ...]:
        """Channels of the backbone's taps by scale, for images of this size, the widest map first."""
        latents = self.backbone.latents
        factor = latents.factor
        zeros = torch.zeros(1, latents.channels, height // factor, width // factor, device=self.backbone.device)
        extractor = self.extractor(None)
        taken = extractor.extract_latents(LatentDistribution(zeros, zeros), items=[0])
        widths: dict[tuple[int, int], list[int]] = {}
        for value in next(iter(taken.values())).values():
            widths.setdefault((value.shape[-1], value.shape[-2]), []).append(value.shape[1])
        return tuple(tuple(widths[size]) for size in sorted(widths, reverse=True))

    @torch.no_grad()
    def __call__(
        self, images: torch.Tensor, *, metadata: Sequence[Metadata | None] | None = None, draw: int = 0
    ) -> Maps:
        """Features by save step, each a list of scales (B, C_s, h_s, w_s), float32.

        Parameters
        ----------
        images : Tensor (B, bands, H, W)
        metadata : sequence of Metadata or None, optional
            Of each image, its ground sampling distance that of the image as given.
        draw : int
            Which noise an image gets; kept maps are of draw 0 whatever is asked for.
        """
        # a training's mixed precision must not reach the frozen networks: predictions run without it
        with torch.autocast(self.backbone.device.type, enabled=False):
            return self._maps_of(images, metadata, draw)

    def _maps_of(self, images: torch.Tensor, metadata: Sequence[Metadata | None] | None, draw: int) -> Maps:
        prepared = self.model.preprocess(images, self.backbone.latents.factor).to(self.backbone.device, torch.float32)
        hashes = [content_hash(image) for image in prepared]
        told = self._told(metadata, images, prepared)
        keys = [f"{name} {entry}" for name, entry in zip(hashes, told, strict=True)]
        found: list[Mapping[str, torch.Tensor] | None] = [None] * len(keys)
        if self._maps is not None:
            found = [self._maps.get(key) for key in keys]
            draw = 0
        for entry in dict.fromkeys(told):
            rows = [row for row in range(len(keys)) if found[row] is None and told[row] == entry]
            for begin in range(0, len(rows), self.batch_size):
                part = rows[begin : begin + self.batch_size]
                for row, maps in zip(part, self._fresh(prepared[part], hashes, part, entry, draw), strict=True):
                    found[row] = maps if self._maps is None else self._maps.put(keys[row], maps)
        whole = [maps for maps in found if maps is not None]
        joined: Maps = {}
        for name in whole[0]:
            step = int(name.split("/")[0])
            stacked = torch.stack([maps[name].to(self.backbone.device, torch.float32) for maps in whole])
            joined.setdefault(step, []).append(stacked)
        return joined

    def _fresh(
        self, prepared: torch.Tensor, hashes: list[str], rows: list[int], metadata: Metadata | None, draw: int
    ) -> list[dict[str, torch.Tensor]]:
        """The maps of some images, "step/scale" -> (C, h, w)."""
        items = [hashes[row] if draw == 0 else f"{hashes[row]}/{draw}" for row in rows]
        encoded = kept_posterior(
            self.backbone.latents,
            [hashes[row] for row in rows],
            prepared.__getitem__,
            self._latents,
            self.backbone.device,
        )
        taken = self.extractor(metadata).extract_latents(
            encoded, items=items, seed=self.seed, batch_size=self.batch_size
        )
        steps = self.model.by_save_step(taken, self.schedule)
        return [
            {f"{step}/{scale}": maps[place] for step, scales in steps.items() for scale, maps in enumerate(scales)}
            for place in range(len(rows))
        ]

    def _told(
        self, metadata: Sequence[Metadata | None] | None, images: torch.Tensor, prepared: torch.Tensor
    ) -> list[Metadata | None]:
        """What the network is told of each image: nothing, where the model was trained without."""
        if metadata is None or not self.model.settings.use_metadata:
            return [None] * len(images)
        if len(metadata) != len(images):
            raise InputError(f"{len(metadata)} metadata for {len(images)} images")
        sizes = images.shape[-1], prepared.shape[-1]
        return [None if entry is None else entry.resized(*sizes) for entry in metadata]

"""Features of images from a pretrained diffusion model: images in, named maps out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from priorscope.backbones.latents import LatentDistribution, LatentSpace, Posterior, load_latent_space
from priorscope.backbones.loading import model_folder
from priorscope.backbones.prompt import Padding, prompt_state
from priorscope.backbones.stable_diffusion import UNetNetwork, load_schedule, load_unet
from priorscope.backbones.table import published_models
from priorscope.device import Precision, inference_layout, resolve_device, resolve_dtype
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope.features.cache import content_hash
from priorscope.features.encoding import Images, Source, as_sources, prepare
from priorscope.features.forward import Features, Tapped
from priorscope.features.modes import PUBLISHED_MODES, AtLevels, Key, Mode, Viewer
from priorscope.features.published import find_taps
from priorscope.features.store import FeatureStore, kept_posterior, refuse_unequal
from priorscope.features.tap import Tap, TapSet

Taps = str | Tap | TapSet | Sequence[Tap | str]

_PARTS = ["model_index.json", "empty_prompt.safetensors", "unet", "vae", "scheduler", "text_encoder", "tokenizer"]


class FeatureExtractor:
    """Maps of features for images.

    ``extractor = FeatureExtractor.from_pretrained(folder, taps="dift")``, then ``extractor(images)``: a dictionary of
    maps (B, C, h, w). An image's maps do not depend on what else is in the batch.

    Parameters
    ----------
    denoiser : Denoiser
        Its network is a :class:`~priorscope.backbones.UNetNetwork`, or a module itself.
    latents : LatentSpace
    condition : Condition
        What holds for every image: the prompt's state.
    taps : TapSet, sequence of Tap or str, or str
    mode : Mode
        At which levels to look (:mod:`priorscope.features.modes`).
    ensemble : int
        Noisy copies whose maps are averaged; the image is encoded once.
    posterior : {"mode", "sample"}
        Whether each copy starts from the latent's mean or from a draw of its own.
    size : int or (int, int), optional
        Images are resized to this height and width in pixels, an int to a square (DIFT's way). Default: each image's
        own size, rounded to what the latent space divides.
    cache : path-like, optional
        Folder that keeps latents and maps (:class:`TensorFolder`).
    cache_dtype : torch.dtype, optional
        What maps are kept as there. Default: float32, exact.
    name : str
    device : torch.device or str
        Where the networks are; the maps stay there.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        latents: LatentSpace,
        condition: Condition | None,
        taps: Taps,
        *,
        mode: Mode,
        ensemble: int = 1,
        posterior: Posterior = "mode",
        size: int | tuple[int, int] | None = None,
        cache: str | PathLike[str] | None = None,
        cache_dtype: torch.dtype | None = None,
        name: str = "",
        device: torch.device | str = "cpu",
    ) -> None:
        if ensemble < 1:
            raise InputError(f"an ensemble of {ensemble}", remedy="Use 1 or more.")
        if posterior not in ("mode", "sample"):
            raise InputError(f"posterior {posterior!r}", remedy="Use 'mode' or 'sample'.")
        sides = (size, size) if isinstance(size, int) else size
        if sides is not None and (len(sides) != 2 or min(sides) < latents.factor):
            raise InputError(f"a size of {size} pixels", remedy=f"Use {latents.factor} or more, or (height, width).")
        if not callable(mode):
            raise InputError(f"mode {mode!r}", remedy="Give AtLevels(...), Inversion(...) or Generation(...).")
        network: Any = getattr(denoiser.network, "unet", denoiser.network)
        self.viewer = Viewer(denoiser, Tapped(network, taps), condition)
        self.latents = latents
        self.mode = mode
        self.ensemble = ensemble
        self.posterior: Posterior = posterior
        self.size = sides
        self.name = name
        self.device = torch.device(device)
        self.store: FeatureStore | None = None
        if cache is not None:
            settings = {"mode": repr(mode), "ensemble": ensemble, "posterior": posterior}
            self.store = FeatureStore(cache, self.viewer, latents, self.size, settings, cache_dtype)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        taps: Taps = "dift",
        *,
        t: float | Sequence[float] | None = None,
        mode: Mode | None = None,
        ensemble: int | None = None,
        posterior: Posterior = "mode",
        size: int | tuple[int, int] | None = None,
        text: str | torch.Tensor = "",
        prompt_padding: Padding = "max_length",
        cache: str | PathLike[str] | None = None,
        cache_dtype: torch.dtype | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        tiled_vae: bool = False,
        revision: str | None = None,
    ) -> FeatureExtractor:
        """Load a Stable-Diffusion-shaped model by its name in the model table, from a hub id or from a folder.

        Parameters
        ----------
        source : str or Path
            A folder in diffusers' layout: ``unet``, ``vae``, ``scheduler`` and ``text_encoder`` with ``tokenizer``, or
            ``empty_prompt.safetensors``.
        taps : str, TapSet, or sequence of Tap or str
            A published set brings its levels, ensemble and size with it, unless they are given here. The official
            code mostly samples the posterior (``PUBLISHED[name].posterior``, parity); the default here is its mean.
            It also resizes in other ways (SatDiFuser bilinearly, sd-dino into a :class:`Letterbox`); here all is
            resized bicubically, so for published numbers give images of the right size.
        t : float or sequence of float, optional
            Levels, as steps of the training schedule; each image is noised to each of them.
        mode : Mode, optional
            Another way to a level, such as ``Inversion()``, instead of ``t``.
        ensemble, posterior, size, cache, cache_dtype
            As for the class. ``size=0`` keeps images at their own size.
        text : str, or Tensor (1, tokens, width)
            A prompt, or its state.
        prompt_padding : {"none", "max_length"}
            Of a prompt; Stable Diffusion's pipelines pad.
        device, precision : str
        tiled_vae : bool
            Bounds the autoencoder's memory on large images.
        revision : str, optional
            On the hub.

        Raises
        ------
        InputError
            Unknown names, incomplete folders, U-Nets that take more than a noisy latent.
        """
        tapset = find_taps(taps)
        if mode is None:
            levels = tapset.levels if t is None else tuple(np.atleast_1d(t).tolist())
            mode = AtLevels(levels) if levels else PUBLISHED_MODES.get(tapset.name)
            if mode is None:
                raise InputError(f"the taps {tapset.name!r} state no level", remedy="Give t=261, say, or a mode.")
        elif t is not None:
            raise InputError("both t and a mode were given", remedy="The mode says at which levels to look.")
        folder = model_folder(source, _PARTS, published_models(), revision=revision)
        where = resolve_device(device)
        schedule, predicts = load_schedule(folder / "scheduler")
        latents = load_latent_space(folder / "vae", tiled=tiled_vae)
        prompt = prompt_state(folder, text, padding=prompt_padding) if isinstance(text, str) else text
        expected = {
            "in_channels": latents.channels,
            "cross_attention_dim": prompt.shape[-1],
            "class_embed_type": None,
        }
        unet = load_unet(folder / "unet", dtype=resolve_dtype(precision, where), expect=expected)
        layout = inference_layout(where)
        unet.to(where, memory_format=layout)
        latents.to(where, memory_format=layout)
        latents.lean()
        denoiser = Denoiser(UNetNetwork(unet), schedule, predicts)
        if size is None:
            size = tapset.size
        return cls(
            denoiser,
            latents,
            Condition({"text": prompt}, shared=["text"]).to(where),
            tapset,
            mode=mode,
            ensemble=tapset.ensemble if ensemble is None else ensemble,
            posterior=posterior,
            size=size or None,
            cache=cache,
            cache_dtype=cache_dtype,
            name=str(source),
            device=where,
        )

    @property
    def taps(self) -> TapSet:
        """What is looked at."""
        return self.viewer.taps.taps

    def __call__(
        self,
        images: Images,
        *,
        items: Sequence[int | str] | None = None,
        condition: Condition | None = None,
        seed: int = 0,
        batch_size: int = 8,
    ) -> Features:
        """The maps of images.

        Parameters
        ----------
        images : uint8 array (H, W, 3) or (B, H, W, 3), sequence of such, or float Tensor (B, 3, H, W) in [0, 1]
            RGB. Where the extractor has no ``size``, all of one size.
        items : sequence of int or str, optional
            Identity of each image; its noise derives from (seed, identity). Default: its content, so that an image
            gets the same maps wherever it stands.
        condition : Condition, optional
            What differs from image to image (metadata, prompts), one row each; it wins over the extractor's own.
        seed : int
        batch_size : int
            Rows a call of the network: images times members. Memory grows with it, the result is the same.

        Returns
        -------
        dict of str to Tensor (B, C, h, w), float32
            By tap, in the order of the taps; with several levels ``"name@level"``. A map covers the whole image.
        """
        return flatten(self.extract(images, items=items, condition=condition, seed=seed, batch_size=batch_size))

    def extract(
        self,
        images: Images,
        *,
        items: Sequence[int | str] | None = None,
        condition: Condition | None = None,
        seed: int = 0,
        batch_size: int = 8,
    ) -> dict[Key, Features]:
        """As a call, by level or save step: ``{261: {name: Tensor (B, C, h, w)}}``."""
        if batch_size < 1:
            raise InputError(f"a batch size of {batch_size}", remedy="Use 1 or more.")
        sources = as_sources(images)
        hashes = self._hashes(sources, needed=items is None)
        names: Sequence[int | str] = hashes if items is None else items
        if len(names) != len(sources):
            raise InputError(f"{len(names)} item names for {len(sources)} images")
        if condition is not None:
            condition.expand(len(sources))  # refuses another number of rows
        told = [Condition() if condition is None else condition.select([row]) for row in range(len(sources))]
        keys = [_key(image, part) for image, part in zip(hashes, told, strict=True)]
        found: list[dict[Key, Features] | None] = [None] * len(sources)
        if self.store is not None:
            found = [self.store.maps(key, name, seed) for key, name in zip(keys, names, strict=True)]
        missing = [index for index, maps in enumerate(found) if maps is None]
        for begin in range(0, len(missing), batch_size):
            group = missing[begin : begin + batch_size]
            latents = self._encode([sources[index] for index in group], [hashes[index] for index in group])
            maps = self.extract_latents(
                latents,
                items=[names[index] for index in group],
                condition=None if condition is None else condition.select(group),
                seed=seed,
                batch_size=batch_size,
            )
            self._check_finite(maps)  # before anything is kept
            for row, index in enumerate(group):
                one = {key: {name: value[row] for name, value in part.items()} for key, part in maps.items()}
                if self.store is not None:
                    one = self.store.keep_maps(keys[index], names[index], seed, one)
                found[index] = one
        whole = [maps for maps in found if maps is not None]
        return {key: {name: self._stack(whole, key, name) for name in whole[0][key]} for key in whole[0]}

    def encode(self, images: Images, *, batch_size: int = 8) -> LatentDistribution:
        """What the autoencoder says about images, each encoded once (or read from the cache)."""
        if batch_size < 1:
            raise InputError(f"a batch size of {batch_size}", remedy="Use 1 or more.")
        sources = as_sources(images)
        parts = [sources[begin : begin + batch_size] for begin in range(0, len(sources), batch_size)]
        encoded = [self._encode(part, self._hashes(part)) for part in parts]
        refuse_unequal([part.mean for part in encoded])
        return LatentDistribution(torch.cat([part.mean for part in encoded]), torch.cat([part.std for part in encoded]))

    @torch.no_grad()
    def extract_latents(
        self,
        distribution: LatentDistribution,
        *,
        items: Sequence[int | str] = (),
        condition: Condition | None = None,
        seed: int = 0,
        batch_size: int = 8,
        noise: Noise | None = None,
        posterior_noise: Noise | None = None,
    ) -> dict[Key, Features]:
        """The maps for encoded images, averaged over the ensemble.

        Parameters
        ----------
        distribution : LatentDistribution of B rows
        items : sequence of int or str
            B identities for the noise.
        condition : Condition, optional
            B rows that differ from image to image; it wins over the extractor's own.
        noise, posterior_noise : Noise, optional
            Instead of the items': B * ensemble rows each, item-major.

        Returns
        -------
        dict of level or save step to dict of name to Tensor (B, C, h, w), float32
        """
        count = len(distribution.mean)
        if noise is None and len(items) != count:
            raise InputError(f"{len(items)} item names for {count} latents")
        members = [f"{item}/{member}" for item in items for member in range(self.ensemble)]
        noise = noise or Noise.for_items(seed, members)
        rows = distribution.rows(torch.arange(count, device=distribution.mean.device).repeat_interleave(self.ensemble))
        latents = rows.mean
        if self.posterior == "sample":
            draw = posterior_noise or Noise.for_items(seed, [f"{member}/posterior" for member in members])
            latents = latents + rows.std * draw.like(latents)
        eps = noise.like(latents)
        own = self.viewer.condition or Condition()
        told = own if condition is None else own.merged(condition.to(latents.device).repeat(self.ensemble))
        sums: dict[Key, Features] = {}
        for begin in range(0, len(latents), batch_size):
            part = slice(begin, begin + batch_size)
            viewer = Viewer(self.viewer.denoiser, self.viewer.taps, told.select(part))
            for key, maps in self.mode(viewer, latents[part], eps[part]).items():
                total = sums.setdefault(key, {})
                for name, value in maps.items():
                    if name not in total:
                        total[name] = value.new_zeros((count, *value.shape[1:]))
                    self._add(total[name], value, begin)
        return {key: {name: value / self.ensemble for name, value in maps.items()} for key, maps in sums.items()}

    def _add(self, total: torch.Tensor, value: torch.Tensor, begin: int) -> None:
        """Add maps of the rows from ``begin`` on to their images' sums; on a GPU index_add_ has no fixed order."""
        end, members = begin + len(value), self.ensemble
        if members == 1:
            total[begin:end] = value
            return
        for owner in range(begin // members, (end - 1) // members + 1):
            total[owner] += value[max(owner * members - begin, 0) : (owner + 1) * members - begin].sum(0)

    def _hashes(self, sources: Sequence[Source], *, needed: bool = False) -> list[str]:
        """Hashes of the images' content, or nothing where it is not asked for: images on a GPU would be copied."""
        needed = needed or self.store is not None
        return [content_hash(source) if needed else "" for source in sources]

    def _check_finite(self, maps: Mapping[Key, Features]) -> None:
        finite = [(name, value.isfinite().all()) for part in maps.values() for name, value in part.items()]
        if not torch.stack([whole for _, whole in finite]).all():  # one word with the GPU
            name = next(name for name, whole in finite if not whole)
            raise InputError(
                f"{self.name or 'the network'} gives NaN or infinite values at {name}",
                remedy="Use precision='float32', or download its weights again.",
            )

    @torch.no_grad()
    def _encode(self, sources: Sequence[Source], hashes: Sequence[str]) -> LatentDistribution:
        """One batch: what is kept is read, the rest is encoded in one call."""

        def prepared(places: list[int]) -> torch.Tensor:
            images = [prepare(sources[place], self.size, self.latents.factor, self.device) for place in places]
            refuse_unequal(images)
            return torch.cat(images)

        cache = None if self.store is None else self.store.latents
        return kept_posterior(self.latents, hashes, prepared, cache, self.device)

    def _stack(self, whole: list[dict[Key, Features]], key: Key, name: str) -> torch.Tensor:
        values = [maps[key][name] for maps in whole]
        refuse_unequal(values)
        return torch.stack(values).to(self.device, torch.float32)


def flatten(maps: Mapping[Key, Features]) -> Features:
    """Maps by level as one dictionary: names as they are for one level, ``"name@level"`` for several."""
    if len(maps) == 1:
        return next(iter(maps.values()))
    return {f"{name}@{key:g}": value for key, part in maps.items() for name, value in part.items()}


def _key(image: str, condition: Condition) -> str:
    """What an image's maps are kept under: its content, and what was told about it alone."""
    told = [f"{name} {content_hash(value)}" for name, value in sorted(condition.items())]
    return "\n".join([image, *told])

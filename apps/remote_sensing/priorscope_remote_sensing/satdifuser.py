"""A trained SatDiFuser: decoder, classes, bands and the way its features are taken, in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.nn import functional

from priorscope.backbones.loading import read_config
from priorscope.backbones.prompt import prompt_state
from priorscope.data.files import atomic_path, refuse_overwrite, write_text
from priorscope.data.weights_file import save_file
from priorscope.diffusion.schedule import Schedule
from priorscope.diffusion.spacing import spaced_times
from priorscope.errors import InputError
from priorscope.features.cache import content_hash
from priorscope.features.extractor import FeatureExtractor
from priorscope.features.forward import by_scale
from priorscope.features.modes import AtLevels, Inversion, Mode
from priorscope_remote_sensing.backbone import DiffusionSat
from priorscope_remote_sensing.decoder import Decoder, DecoderConfig, Features
from priorscope_remote_sensing.fusers import ExpertFuser
from priorscope_remote_sensing.metadata import Metadata
from priorscope_remote_sensing.models import build_decoder
from priorscope_remote_sensing.settings import SatDiFuserSettings

_SETTINGS = "priorscope.json"
_WEIGHTS = "decoder.safetensors"
_PROMPT = "prompt.safetensors"


class SatDiFuserModel:
    """Features of a frozen diffusion model in, class probabilities out.

    Parameters
    ----------
    decoder : Decoder
    settings : SatDiFuserSettings
    prompt : Tensor (1, tokens, width), optional
        The text encoder's state for ``settings.prompt``, kept with the model so that no text encoder is needed.
    """

    def __init__(self, decoder: Decoder, settings: SatDiFuserSettings, *, prompt: torch.Tensor | None = None) -> None:
        if decoder.config.head != settings.head or decoder.config.num_classes != len(settings.classes):
            raise InputError(
                f"a decoder for {decoder.config.head} with {decoder.config.num_classes} classes does not serve "
                f"{settings.task} with {len(settings.classes)}"
            )
        self.decoder = decoder
        self.settings = settings
        self.prompt = prompt

    @property
    def device(self) -> torch.device:
        """Where the decoder is."""
        return next(self.decoder.parameters()).device

    def to(self, device: torch.device | str) -> SatDiFuserModel:
        """Move the decoder."""
        self.decoder.to(device)
        return self

    def resize(self, images: torch.Tensor, multiple: int = 8) -> torch.Tensor:
        """Images at the size that the backbone sees.

        Parameters
        ----------
        images : Tensor (B, bands, H, W)
            As the band recipe gives them. Any size; not NaN.
        multiple : int
            Sides become multiples of this, the factor of the latent space.

        Returns
        -------
        Tensor (B, bands, h, w)
            The longer side ``image_size``, the other in proportion, both rounded to ``multiple``; bilinear with
            antialiasing. Square images are resized exactly as officially.
        """
        bands = len(self.settings.bands.bands)
        if images.ndim != 4 or images.shape[1] != bands or 0 in images.shape:
            raise InputError(
                f"images of shape {tuple(images.shape)}; expected (B, {bands}, H, W)",
                remedy=f"The model takes {', '.join(self.settings.bands.bands)}, in this order.",
            )
        if not bool(images.isfinite().all()):
            raise InputError("an image holds NaN or infinite values", remedy="Fill pixels without data first.")
        longer = max(images.shape[-2:])
        size = [
            max(round(side * self.settings.image_size / longer / multiple), 1) * multiple for side in images.shape[-2:]
        ]
        if size == list(images.shape[-2:]):
            return images
        return functional.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)

    def preprocess(self, images: torch.Tensor, multiple: int = 8) -> torch.Tensor:
        """Resized (:meth:`resize`) and normalised: what the backbone's latent space encodes."""
        return (self.resize(images, multiple) - self.settings.mean) / self.settings.std

    def extractor(
        self,
        backbone: DiffusionSat,
        *,
        metadata: Metadata | None = None,
        ensemble: int = 1,
        cache: str | Path | None = None,
        cache_dtype: torch.dtype | None = None,
    ) -> FeatureExtractor:
        """The extractor that this model's features come from.

        Parameters
        ----------
        backbone : DiffusionSat
        metadata : Metadata, optional
            Of all images.
        ensemble : int
            Noisy copies whose maps are averaged.
        cache, cache_dtype
            Folder that keeps latents and maps, and what maps are kept as.

        Notes
        -----
        The text encoder runs the first time only: the model then knows its prompt's state. Latents are the mean of
        the posterior; in the mode "official" they are drawn from it, as SatDiFuser does.
        """
        if self.prompt is None:
            self.prompt = prompt_state(backbone.folder, self.settings.prompt, padding="max_length")
        return FeatureExtractor(
            backbone.denoiser,
            backbone.latents,
            backbone.condition(self.prompt, metadata),
            "satdifuser",
            mode=self.mode(backbone.denoiser.schedule),
            ensemble=ensemble,
            posterior="sample" if self.settings.mode == "official" else "mode",
            cache=cache,
            cache_dtype=cache_dtype,
            name=self.settings.backbone,
            device=backbone.device,
        )

    def features(
        self,
        extractor: FeatureExtractor,
        images: torch.Tensor,
        *,
        items: Sequence[int | str] | None = None,
        seed: int = 0,
        batch_size: int = 8,
    ) -> dict[int, list[torch.Tensor]]:
        """Features of images, for the decoder.

        Parameters
        ----------
        extractor : FeatureExtractor
            Of :meth:`extractor`. Its cache serves images of three bands in 0 ... 1.
        images : Tensor (B, bands, H, W)
            As the band recipe gives them.
        items : sequence of int or str, optional
            Identities from which the noise derives. Default: each image's content.
        seed, batch_size : int
        """
        factor = extractor.latents.factor
        given: dict[str, Any] = {"seed": seed, "batch_size": batch_size}
        if len(self.settings.bands.bands) == 3 and self.settings.mean == self.settings.std == 0.5:
            resized = self.resize(images, factor)
            # rounding of the interpolation
            inside = resized.clamp(0, 1) if float((resized - resized.clamp(0, 1)).abs().max()) < 1e-5 else resized
            taken = extractor.extract(inside, items=items, **given)
        else:
            prepared = self.preprocess(images, factor).to(extractor.device, torch.float32)
            names = [content_hash(image) for image in prepared] if items is None else items
            with torch.no_grad():
                encoded = extractor.latents.posterior(prepared)
            taken = extractor.extract_latents(encoded, items=names, **given)
        return self.by_save_step(taken, extractor.viewer.denoiser.schedule)

    def mode(self, schedule: Schedule) -> Mode:
        """The way to the features, for :class:`priorscope.features.Viewer` and extractors."""
        save = self.decoder.config.save_steps
        if self.settings.mode == "levels":
            return AtLevels(tuple(save_step_levels(save, schedule, self.settings.steps)))
        return Inversion(self.settings.steps, save, official=self.settings.mode == "official")

    def by_save_step(
        self, taken: Mapping[float, Mapping[str, torch.Tensor]], schedule: Schedule
    ) -> dict[int, list[torch.Tensor]]:
        """What a :meth:`mode` gave, as the decoder takes it.

        Parameters
        ----------
        taken : dict of level or save step to dict of tap name to Tensor (B, C, h, w)
        schedule : Schedule
            That of the backbone, with which the levels were chosen.
        """
        save = self.decoder.config.save_steps
        keys: list[float] = list(save)
        if self.settings.mode == "levels":
            keys = save_step_levels(save, schedule, self.settings.steps)
        lacking = [key for key in keys if key not in taken]
        if lacking:
            raise InputError(f"no features at {lacking}", remedy=f"There are {list(taken)}.")
        features = {step: by_scale(dict(taken[key])) for key, step in zip(keys, save, strict=True)}
        wanted = len(self.decoder.config.taps)
        if any(len(scales) != wanted for scales in features.values()):
            raise InputError(
                f"the maps have {len(next(iter(features.values())))} different sizes, but the decoder takes {wanted}",
                remedy="Use a larger image_size: the coarsest maps of small images are equal in size.",
            )
        return features

    def probabilities(self, features: Features, size: tuple[int, int] | None = None) -> torch.Tensor:
        """Class probabilities.

        Parameters
        ----------
        features : dict of save step to list of Tensor (B, C_s, h_s, w_s)
        size : (int, int), optional
            Of a segmentation's map: the height and width of the original image.

        Returns
        -------
        Tensor (B, classes) or (B, classes, H, W), float32
            Sum to 1 over the classes, except for multi-label classification.
        """
        self.decoder.eval()
        with torch.no_grad():
            logits = self.decoder(features, size).float()
        if not bool(logits.isfinite().all()):
            raise InputError(
                "the features or the weights hold NaN or infinite values",
                remedy="Take the features in float32, or copy the model again.",
            )
        return logits.sigmoid() if self.settings.task == "multi-label" else logits.softmax(1)

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> None:
        """Write settings and weights; refuses to write over a model.

        Parameters
        ----------
        folder : str or Path
        half : bool
            Weights in float16.
        """
        folder = Path(folder)
        refuse_overwrite(folder / _SETTINGS)
        content: dict[str, Any] = {"model": "satdifuser", "settings": self.settings.to_dict()}
        content["decoder"] = self.decoder.config.to_dict()
        if isinstance(self.decoder, ExpertFuser):
            content["updates_done"] = int(self.decoder.updates_done)
        weights = {
            key: (value.half() if half and value.is_floating_point() else value).cpu().contiguous()
            for key, value in self.decoder.state_dict().items()
            if key != "updates_done"
        }
        parts = {_WEIGHTS: weights}
        if self.prompt is not None:
            parts[_PROMPT] = {"state": self.prompt.float().cpu().contiguous()}
        for name, tensors in parts.items():
            with atomic_path(folder / name, overwrite=True) as aside:
                save_file(tensors, aside, {"format": "pt"})
        # last: a folder with settings is a whole model, and one that was cut short can be written again
        write_text(folder / _SETTINGS, json.dumps(content, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: torch.device | str = "cpu") -> SatDiFuserModel:
        """Read a folder that :meth:`save_pretrained` wrote.

        Raises
        ------
        InputError
            No such folder, another kind of model, or weights that do not fit to the last key.
        """
        folder = Path(folder).expanduser()
        content = read_config(folder, _SETTINGS)
        if content.get("model") != "satdifuser":
            raise InputError("is no SatDiFuser model", path=folder / _SETTINGS)
        try:
            settings = SatDiFuserSettings.from_dict(_section(content, "settings"))
            decoder = build_decoder(DecoderConfig.from_dict(_section(content, "decoder")))
            prompt = _read(folder / _PROMPT).get("state") if (folder / _PROMPT).exists() else None
            model = cls(decoder, settings, prompt=prompt)
        except InputError as error:
            raise InputError(error.fact, path=error.path or folder / _SETTINGS, remedy=error.remedy) from None
        weights = _read(folder / _WEIGHTS)
        try:
            decoder.load_state_dict(
                {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
            )
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"the weights do not fit: {reason}", path=folder / _WEIGHTS) from None
        if isinstance(decoder, ExpertFuser):
            done = content.get("updates_done", decoder.config.warmup_steps)
            if not isinstance(done, int):
                raise InputError(f"updates_done is {done!r}, not a number", path=folder / _SETTINGS)
            decoder.updates_done.fill_(done)
        decoder.eval()
        return model.to(device)


def save_step_levels(save_steps: tuple[int, ...], schedule: Schedule, steps: int = 50) -> list[float]:
    """The level at which the network is asked at each save step of an inversion.

    Save step ``steps - 1`` is the clean latent itself, which no network was trained on: asked for directly it is
    an InputError. For 50 steps of Stable Diffusion's 1000, save steps 47, 45, 40 are levels 21, 61, 161.
    """
    times = spaced_times(schedule, steps, "leading", offset=1)[:-1]
    wrong = [step for step in save_steps if not 0 <= step < steps - 1]
    if wrong:
        raise InputError(f"save steps {wrong} have no level", remedy=f"Use 0 ... {steps - 2}, or the inversion.")
    return [times[step + 1] for step in save_steps]


def _section(content: dict[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name)
    if not isinstance(section, dict):
        raise InputError(f"has no {name}")
    return section


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError("is missing", path=path, remedy="Was the model folder copied completely?") from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot be read ({error})", path=path, remedy="Copy the model folder again.") from None

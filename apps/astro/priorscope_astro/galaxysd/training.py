"""Training GalaxySD further: U-Net and text encoder on pictures and captions, the autoencoder as it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from priorscope.backbones.latents import AutoencoderSpace
from priorscope.backbones.loading import save_component
from priorscope.backbones.stable_diffusion import UNetNetwork
from priorscope.data.weights_file import save_file
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.losses import denoising_loss
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.schedule import VPSchedule
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.order import Order
from priorscope.training.task import Task
from priorscope_astro.configs import TrainConfig
from priorscope_astro.data.galaxies import GalaxySet
from priorscope_astro.data.learnt import Learnt, learnt_from
from priorscope_astro.diffusion.scaling import display_values
from priorscope_astro.diffusion.symmetry import COUNT, turned
from priorscope_astro.galaxysd.levels import BETA_END, BETA_START, TRAIN_STEPS
from priorscope_astro.galaxysd.loading import GalaxySDParts, load_galaxysd
from priorscope_astro.galaxysd.text import PromptEncoder

#: Stable Diffusion 1.5's schedule, as the configuration of a scheduler.
SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_start": BETA_START,
    "beta_end": BETA_END,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": TRAIN_STEPS,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}


@dataclass(frozen=True, eq=False)
class CaptionedFeed:
    """A :class:`priorscope.training.Feed`: pictures and the tokens of their captions.

    A batch holds ``image`` (B, 3, side, side) in [-1, 1], ``tokens`` (B, 77), ``t`` (B,) in 0 ... 999, ``eps`` of the
    latents' shape, and ``key``. Everything about an example follows from (seed, pass, galaxy).

    Parameters
    ----------
    galaxies : GalaxySet
        Of displays.
    tokens : int64 Tensor (N, 77)
        Of the captions; see :func:`caption_tokens`.
    empty : int64 Tensor (77,)
        Of the empty caption, which a dropped one becomes.
    side, latent_channels, factor : int
        Pixels, and the latent space.
    batch_size, seed : int
    dropout : float
        Share of the captions that are dropped: what guidance needs. 0 was published.
    turn : bool
        Turn and mirror. False was published.
    """

    galaxies: GalaxySet
    tokens: torch.Tensor
    empty: torch.Tensor
    side: int
    latent_channels: int
    factor: int
    batch_size: int
    seed: int = 0
    dropout: float = 0.1
    turn: bool = True

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        places = Order(len(self.galaxies), self.seed).batch(step, self.batch_size)
        chosen = [places[row] for row in rows]
        images, tokens, levels = [], [], []
        for place in chosen:
            random = place.generator(self.seed)
            name = self.galaxies.ids[place.item]
            image = display_values(np.asarray(self.galaxies.image(place.item)), self.side, what=f"object {name}")
            which = int(random.integers(COUNT)) if self.turn else 0
            images.append(turned(image * 2 - 1, which))
            levels.append(int(random.integers(TRAIN_STEPS)))
            tokens.append(self.empty if random.random() < self.dropout else self.tokens[place.item])
        noise = Noise.per_item(place.noise_seed(self.seed) for place in chosen)
        side = self.side // self.factor
        return {
            "image": torch.from_numpy(np.stack(images)),
            "tokens": torch.stack(tokens),
            "t": torch.tensor(levels, dtype=torch.float32),
            "eps": noise.draw((len(chosen), self.latent_channels, side, side)),
            "key": [self.galaxies.ids[place.item] for place in chosen],
        }


class TrainedNetworks(nn.Module):
    """What is trained: ``unet`` and ``text_encoder``."""

    def __init__(self, unet: Any, text_encoder: Any) -> None:
        super().__init__()
        self.unet: Any = unet
        self.text_encoder: Any = text_encoder

    def enable_gradient_checkpointing(self) -> None:
        """Compute activations twice and keep fewer of them."""
        self.unet.enable_gradient_checkpointing()
        self.text_encoder.gradient_checkpointing_enable()


class GalaxySDTask(Task):
    """The squared error of the noise at uniform levels, as published: no weighting by signal-to-noise ratio.

    Parameters
    ----------
    parts : GalaxySDParts
        In float32; its autoencoder stays as it is.
    held_out : dict, optional
        A batch of :class:`CaptionedFeed` that no step sees.
    save_half : bool
        Save weights as float16.
    learnt : Learnt, optional
        The galaxies of the training, and of what it begins with.
    """

    def __init__(
        self,
        parts: GalaxySDParts,
        held_out: dict[str, Any] | None = None,
        *,
        save_half: bool = True,
        learnt: Learnt | None = None,
    ) -> None:
        super().__init__(TrainedNetworks(parts.unet, parts.text_encoder))
        self.model.requires_grad_(True)
        # hidden from parameters(): neither is trained nor saved in checkpoints
        self._fixed = (parts.latents, parts.tokenizer)
        self._held_out, self._save_half, self._learnt = held_out, save_half, learnt
        schedule = VPSchedule.from_scheduler_config(SCHEDULER)
        self._denoiser = Denoiser(UNetNetwork(parts.unet), schedule, "epsilon")

    @property
    def _networks(self) -> TrainedNetworks:
        assert isinstance(self.model, TrainedNetworks)
        return self.model

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            x0 = self._fixed[0].encode(batch["image"]).float()
        text = self._networks.text_encoder(batch["tokens"])[0]
        loss = denoising_loss(self._denoiser, x0, batch["eps"], batch["t"], Condition({"text": text}))
        return {"loss": loss}

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        """``held_out_loss``, of fixed levels and noise."""
        if self._held_out is None:
            return {}
        device = next(self.model.parameters()).device
        batch = {name: v.to(device) if isinstance(v, torch.Tensor) else v for name, v in self._held_out.items()}
        return {"held_out_loss": float(self.forward(batch)["loss"])}

    def save(self, folder: Path) -> None:
        """Write a diffusers folder, with the published names of the text encoder's weights."""
        latents, tokenizer = self._fixed
        dtype = torch.float16 if self._save_half else torch.float32

        save_component(self._networks.unet, folder / "unet", dtype=dtype)
        encoder = self._networks.text_encoder
        state = {
            f"text_model.{key}": v.detach().to("cpu", dtype).contiguous() for key, v in encoder.state_dict().items()
        }
        (folder / "text_encoder").mkdir()
        save_file(state, folder / "text_encoder/model.safetensors", metadata={"format": "pt"})
        encoder.config.to_json_file(folder / "text_encoder/config.json")
        assert isinstance(latents, AutoencoderSpace)
        save_component(latents.vae, folder / "vae", dtype=dtype)
        tokenizer.save_pretrained(folder / "tokenizer")
        (folder / "scheduler").mkdir()
        (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2) + "\n")
        if self._learnt is not None:
            self._learnt.write(folder)


def captioned(galaxies: GalaxySet, seed: int = 0) -> GalaxySet:
    """The galaxies with captions: their own, else the tags of their votes, shuffled.

    Raises
    ------
    InputError
        There are neither.
    """
    return galaxies if galaxies.captions is not None else galaxies.with_captions(shuffle=seed)


def caption_tokens(encoder: PromptEncoder, captions: Sequence[str], ids: Sequence[str]) -> torch.Tensor:
    """Token numbers (N, 77) of captions.

    Raises
    ------
    InputError
        A caption is too long, or has weights, which only prompts may have; names the object.
    """
    known: dict[str, torch.Tensor] = {}
    for caption, name in zip(captions, ids, strict=True):
        if caption in known:
            continue
        try:
            tokens, weights = encoder.tokens(caption)
        except InputError as error:
            raise InputError(f"object {name}: {error.fact}", remedy=error.remedy) from None
        if any(weight != 1 for weight in weights):
            raise InputError(f"object {name}: the caption {caption!r} has weights", remedy="Those are for prompts.")
        known[caption] = tokens[0]
    return torch.stack([known[caption] for caption in captions])


def prepare(
    config: TrainConfig, learnt: GalaxySet, looked_at: GalaxySet | None, device: torch.device
) -> tuple[GalaxySDTask, CaptionedFeed]:
    """Task and feed of a training that ``config`` describes.

    Raises
    ------
    InputError
        A model that cannot be loaded, captions that do not fit, or a side that is no multiple of 8.
    """
    if config.side % 8:
        raise InputError(f"--side {config.side}", remedy="Use a multiple of 8; 424 as published.")
    parts = load_galaxysd(config.start, base=config.base)
    parts.latents.to(device)
    encoder = PromptEncoder(parts.tokenizer, parts.text_encoder)
    empty = encoder.tokens("")[0][0]

    def feed_of(galaxies: GalaxySet, batch: int, seed: int, dropout: float, turn: bool) -> CaptionedFeed:
        captions = captioned(galaxies, config.loop.seed).captions
        assert captions is not None
        tokens = caption_tokens(encoder, captions, galaxies.ids)
        latents = parts.latents
        return CaptionedFeed(
            galaxies, tokens, empty, config.side, latents.channels, latents.factor, batch, seed, dropout, turn
        )

    held_out = None
    if looked_at is not None:
        count = min(config.loop.batch_size, len(looked_at))
        held_out = feed_of(looked_at, count, 0, 0.0, False).batch(0, range(count))
    feed = feed_of(learnt, config.loop.batch_size, config.loop.seed, config.condition_dropout, config.turn)
    known = learnt_from(learnt.ids, parts.learnt, new=False)
    return GalaxySDTask(parts, held_out, save_half=not config.save_float32, learnt=known), feed

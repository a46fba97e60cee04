"""PrimeDepth as one function: an image in [-1, 1] to three channels of inverse depth."""

from __future__ import annotations

from typing import Any

import torch

from priorscope.backbones.latents import AutoencoderSpace, LatentSpace, Posterior
from priorscope.backbones.stable_diffusion import UNetNetwork
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.schedule import VPSchedule
from priorscope.errors import InputError
from priorscope.features.forward import Features
from priorscope.predictors.compiling import compiler_failures
from priorscope_depth.primedepth.labeller import Labeller
from priorscope_depth.primedepth.preimage import LEVEL, PreimageReader


class PrimeDepthModel:
    """The frozen U-Net, the latent space and the trained part, put together.

    Parameters
    ----------
    unet : UNet2DConditionModel
    latents : LatentSpace
    labeller : Labeller
    text : Tensor (1, tokens, width)
        State of the caption where a call brings none.
    posterior : {"mode", "sample"}
        How images are encoded; the official code samples.
    label : float, optional
        What the U-Net is told about the noise; default: the level itself. One-step models know one number only.
    task : Tensor (1, n), optional
        Task switcher, for U-Nets that have one.
    noisy : bool
        Add the little noise of the level to the latents, as in training. False: only scale them by its share of signal
        (0.99915), so that nothing is drawn and the answer is the same whatever the seed.
    """

    def __init__(
        self,
        unet: Any,
        latents: LatentSpace,
        labeller: Labeller,
        text: torch.Tensor,
        *,
        posterior: Posterior = "mode",
        label: float | None = None,
        task: torch.Tensor | None = None,
        noisy: bool = True,
    ) -> None:
        self.denoiser = Denoiser(UNetNetwork(unet), VPSchedule.from_betas(), "epsilon", time_label=label)
        self.latents = latents
        self.labeller = labeller
        self.text = text
        self.posterior: Posterior = posterior
        self.noisy = noisy
        self.task = task
        self.reader = PreimageReader(self.denoiser, labeller.steps, task)

    @property
    def unet(self) -> Any:
        return self.denoiser.network.unet  # type: ignore[attr-defined]

    @property
    def stochastic(self) -> bool:
        """Whether noise is added, so that members of an ensemble differ."""
        return self.noisy

    def compile(self) -> None:
        """``torch.compile`` the depth head, where it does not stream: hooks watch the U-Net, which hides it from one.

        The trained decoder stays as it is: it is asked step by step, and every step has other sizes.
        """
        if isinstance(self.latents, AutoencoderSpace):
            self.latents.compile()  # its decoder is the depth head
        else:
            self.labeller.depth_predictor.compile()

    def noised(self, latents: torch.Tensor, noise: Noise | None) -> torch.Tensor:
        """Latents at the level that the U-Net is shown."""
        if not self.noisy:
            return latents * self.denoiser.schedule(LEVEL)[0]
        if noise is None:
            raise InputError("the latents need noise", remedy="Pass noise=Noise.per_item(seeds), or noisy=False.")
        return self.denoiser.schedule.add_noise(latents, LEVEL, noise.like(latents))

    def preimage(self, x: torch.Tensor, text: torch.Tensor) -> Features:
        """What the U-Net tells about noised latents ``x`` (B, 4, h, w) with captions ``text`` (B, tokens, width)."""
        return self.reader(x, text)

    def embedding(self, like: torch.Tensor) -> torch.Tensor:
        """The U-Net's embedding of the level, and of its task (1, time width), float32."""
        unet = self.unet
        level = self.denoiser.label(LEVEL, like[:1])
        embedding = unet.time_embedding(unet.get_time_embed(like.new_zeros(1, dtype=unet.dtype), level))
        if self.task is not None:
            embedding = embedding + unet.class_embedding(self.task.to(embedding))
        return embedding.float()

    @torch.no_grad()
    def __call__(
        self,
        image: torch.Tensor,
        noise: Noise | None = None,
        *,
        posterior_noise: Noise | None = None,
        members: int = 1,
        text: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predict.

        Parameters
        ----------
        image : Tensor (B, 3, H, W) in [-1, 1]
        noise : Noise, optional
            B * ``members`` rows, item-major; for noisy models.
        posterior_noise : Noise, optional
            For a sampled posterior: B rows.
        members : int
            Predictions an image; it is encoded once.
        text : Tensor (B or 1, tokens, width), optional
            States of the images' captions.

        Returns
        -------
        Tensor (B * members, 3, H, W)
            Unbounded inverse depth, known up to scale and shift; larger is nearer.
        """
        latents = self.latents.encode(image, self.posterior, posterior_noise).float()
        text = (self.text if text is None else text).float().expand(len(image), -1, -1)
        if members > 1:
            latents, text = (part.repeat_interleave(members, 0) for part in (latents, text))
        x = self.noised(latents, noise)
        with compiler_failures():
            return self.labeller(self.preimage(x, text), text, self.embedding(x))


def move(model: PrimeDepthModel, device: torch.device, layout: torch.memory_format) -> None:
    """Put the networks on a device and make the parts that stream there lean; for inference."""
    networks: list[Any] = [model.unet, model.labeller, model.latents]
    for network in networks:
        network.to(device, memory_format=layout)
    if isinstance(model.latents, AutoencoderSpace):
        model.latents.lean()
    model.text = model.text.to(device)
    model.task = None if model.task is None else model.task.to(device)

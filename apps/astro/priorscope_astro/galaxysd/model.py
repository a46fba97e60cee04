"""GalaxySD as one object: prompts in, pictures out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.backbones.stable_diffusion import UNetNetwork
from priorscope.device import Precision, inference_layout, resolve_device, resolve_dtype
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.guidance import ClassifierFreeGuidance
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.solvers import SOLVERS
from priorscope.errors import InputError
from priorscope_astro.galaxysd.levels import GUIDANCE, SOLVER, STEPS, denoiser_of, noise_levels
from priorscope_astro.galaxysd.loading import GalaxySDParts, load_galaxysd
from priorscope_astro.galaxysd.names import Kind
from priorscope_astro.galaxysd.pool import (
    LatentMoments,
    ReferencePool,
    encode,
    moments,
    start_from_moments,
    start_from_references,
)
from priorscope_astro.galaxysd.text import PromptEncoder, Rescale

Start = Literal["reference", "moments", "noise"]
#: Side of the published pictures, in pixels: 53 latents.
SIDE = 424


class GalaxySD:
    """The model, ready to draw. Its pictures are displays (8-bit RGB), not flux.

    Parameters
    ----------
    parts : GalaxySDParts
    device : torch.device
    rescale : {"mean", "rms", "none"}
        Of weighted prompts; ``mean`` as published.
    """

    def __init__(self, parts: GalaxySDParts, device: torch.device | str = "cpu", *, rescale: Rescale = "mean") -> None:
        self.device = torch.device(device)
        self.parts = parts
        parts.unet.to(self.device, memory_format=inference_layout(self.device))
        parts.text_encoder.to(self.device)
        parts.latents.to(self.device)
        self.prompts = PromptEncoder(parts.tokenizer, parts.text_encoder, rescale=rescale)
        self.denoiser = denoiser_of(UNetNetwork(parts.unet))
        self._moments: tuple[ReferencePool, int, LatentMoments] | None = None

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        base: str | Path | None = None,
        kind: Kind = "base",
        device: str = "auto",
        precision: Precision = "auto",
        rescale: Rescale = "mean",
        revision: str | None = None,
    ) -> GalaxySD:
        """Load a published model; see :func:`priorscope_astro.galaxysd.load_galaxysd`."""
        where = resolve_device(device)
        dtype = resolve_dtype(precision, where)
        return cls(load_galaxysd(source, base=base, kind=kind, dtype=dtype, revision=revision), where, rescale=rescale)

    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        start: Start = "reference",
        pool: ReferencePool | None = None,
        references: Sequence[str] | None = None,
        negative: str = "",
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        solver: str = SOLVER,
        side: int = SIDE,
        cache: Any = None,
        progress: bool = False,
    ) -> NDArray[np.uint8]:
        """Draw one picture for each prompt; with its defaults the published run.

        Parameters
        ----------
        prompts : sequence of str
            With or without weights: ``sdss, in-between round galaxy, {dust lane:1.3}``.
        seeds : sequence of int
            Of each picture; it does not depend on what else is in the batch.
        start : {"reference", "moments", "noise"}
            Noised reference galaxies (published); noise with the mean and variance of the pool's noised latents; or
            noise alone, which gives pictures that are too bright.
        pool : ReferencePool
            For the first two.
        references : sequence of str, optional
            Which of the pool each picture starts from. Default: one chosen by the picture's seed.
        negative : str
            What guidance moves away from.
        steps, guidance, solver
            40 steps, 6.5 and ``euler-ancestral`` as published; solvers are those of
            :data:`priorscope.diffusion.solvers.SOLVERS`.
        side : int
            Of the square pictures, a multiple of 8.
        cache : Method of priorscope.caching, optional
            Makes most steps cheaper, at some loss.
        progress : bool
            Show a bar.

        Returns
        -------
        uint8 array (B, side, side, 3)

        Raises
        ------
        InputError
            For what does not fit together, and values that make no sense.
        """
        self._check(prompts, seeds, start, pool, references, solver, side, guidance)
        sigmas, _ = noise_levels(steps)
        text = self.prompts(prompts)
        unconditional = Condition({"text": self.prompts([negative])}, shared=["text"])
        noise = Noise.per_item(seeds)
        x = self.start(start, seeds, noise, sigmas[0], pool=pool, references=references, side=side)
        model = ClassifierFreeGuidance(self.denoiser, unconditional, guidance)
        working: AbstractContextManager[Any] = nullcontext() if cache is None else cache.on(model)
        with working:
            latents = sample(
                model,
                x,
                sigmas,
                step=SOLVERS[solver],
                noise=noise,
                condition=Condition({"text": text}),
                progress=progress,
            )
        return self._decoded(latents)

    def start(
        self,
        kind: Start,
        seeds: Sequence[int],
        noise: Noise,
        sigma: float,
        *,
        pool: ReferencePool | None = None,
        references: Sequence[str] | None = None,
        side: int = SIDE,
    ) -> torch.Tensor:
        """The noisy latents (B, 4, side / 8, side / 8) that a run begins with, in float32."""
        latents = self.parts.latents
        if kind == "noise":
            shape = (len(seeds), latents.channels, side // latents.factor, side // latents.factor)
            return sigma * noise.draw(shape, device=self.device)
        assert pool is not None
        if kind == "moments":
            if self._moments is None or self._moments[:2] != (pool, side):
                self._moments = (pool, side, moments(latents, pool, side, self.device))
            return start_from_moments(self._moments[2], len(seeds), sigma, noise)
        names = references or [pool.choose(seed) for seed in seeds]
        images = [pool.read(name, side) for name in names]
        return start_from_references(encode(latents, images, self.device), sigma, noise)

    def _decoded(self, latents: torch.Tensor) -> NDArray[np.uint8]:
        # one by one: decoding takes more memory than all else
        pictures = []
        for row in latents:
            with torch.no_grad():
                image = self.parts.latents.decode(row[None]).float()
            pictures.append(((image[0] / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())
        return np.stack(pictures)

    def _check(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        start: str,
        pool: ReferencePool | None,
        references: Sequence[str] | None,
        solver: str,
        side: int,
        guidance: float,
    ) -> None:
        if not prompts or len(prompts) != len(seeds):
            raise InputError(f"{len(prompts)} prompts and {len(seeds)} seeds", remedy="Give one seed a prompt.")
        if start not in ("reference", "moments", "noise"):
            raise InputError(f"start {start!r}", remedy="Use 'reference', 'moments' or 'noise'.")
        if start != "noise" and pool is None:
            raise InputError(
                f"a start from {'references' if start == 'reference' else 'their moments'} needs a pool",
                remedy="Give real galaxies, or start from noise, which gives pictures that are too bright.",
            )
        if references is not None and len(references) != len(prompts):
            raise InputError(f"{len(references)} references for {len(prompts)} prompts")
        if solver not in SOLVERS:
            raise InputError(f"solver {solver!r}", remedy=f"There are {', '.join(SOLVERS)}.")
        if side < 8 or side % 8:
            raise InputError(f"a side of {side} pixels", remedy="Use a multiple of 8, such as 424.")
        if not 0 <= guidance < float("inf"):
            raise InputError(f"guidance {guidance}", remedy="Use 0 or more; 1 is no guidance.")

"""Dense prediction by a diffusion model in a latent space: an image in, an image-like prediction out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from priorscope.backbones.folding import fold_constants, lean
from priorscope.backbones.latents import LatentSpace, Posterior
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.solvers import Step, ddim
from priorscope.diffusion.warm_start import late_start
from priorscope.errors import InputError
from priorscope.predictors.compiling import compiler_failures


@dataclass
class LatentMemory:
    """What one frame of a video leaves to the next: a generative run then starts from it (:func:`late_start`).

    Attributes
    ----------
    level : float or None
        Where the run starts, in the schedule's unit; None: the first of its levels that leaves a signal.
    latents : Tensor or None
        The last prediction's, kept by :meth:`LatentPredictor.predict_latents`; None at the first frame.
    """

    level: float | None = None
    latents: torch.Tensor | None = None


class LatentPredictor:
    """Lotus, Marigold, E2E-FT and GenPercept as settings of one function.

    Parameters
    ----------
    denoiser : Denoiser
        Its network takes the image latent as condition ``image``, and the noisy latent where it is generative.
    latents : LatentSpace
    condition : Condition
        What holds for every image: the prompt's state, the task.
    times : sequence of float
        Levels of the run. One level: a regression, whose answer is the x0 of a single call on zeros; two or
        more: a run of the loop from noise.
    posterior : {"mode", "sample"}
        How images are encoded; "sample" is Lotus' official behaviour.
    solver : step function
        For runs of more than one step.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        latents: LatentSpace,
        condition: Condition,
        times: Sequence[float],
        *,
        posterior: Posterior = "mode",
        solver: Step = ddim,
    ) -> None:
        if not times:
            raise InputError("a predictor needs at least one level")
        self.denoiser = denoiser
        self.latents = latents
        self.condition = condition
        self.times = [float(t) for t in times]
        self.posterior: Posterior = posterior
        self.solver = solver

    @property
    def stochastic(self) -> bool:
        """Whether a run starts from noise, so that members of an ensemble differ."""
        return len(self.times) > 1

    def fold(self) -> None:
        """Make the network cheaper, in place and for good (:mod:`priorscope.backbones.folding`).

        A network that is always told the same gets level, prompt and task folded in; one that is told several levels,
        leaner blocks only. The results are the same to rounding; ``condition`` no longer matters to a folded one.
        """
        unet = getattr(self.denoiser.network, "unet", None)
        if unet is None:
            return
        label = self.denoiser.time_label
        one_call = len(self.times) == 1 or (len(self.times) == 2 and self.solver is ddim)
        if callable(label) or (label is None and not one_call):
            lean(unet)
            return
        told = float(self.denoiser.schedule.label(self.times[0]) if label is None else label)
        fold_constants(unet, told, self.condition["text"], self.condition.get("task"))

    def compile(self) -> None:
        """``torch.compile`` the network and the decoder, in place."""
        unet = getattr(self.denoiser.network, "unet", None)
        if unet is not None:
            unet.compile()
        self.latents.compile()

    def encode(self, image: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """Latents of ``image`` (B, 3, H, W) in [-1, 1]."""
        return self.latents.encode(image, self.posterior, noise)

    def start_level(self, memory: LatentMemory) -> float:
        """The level at which a run with a memory starts; InputError where none would let the memory through."""
        schedule = self.denoiser.schedule
        if not self.stochastic:
            raise InputError("a regression starts from no noise: nothing of the last frame can enter")
        levels = self.times[:-1]
        if memory.level is None:
            found = next((t for t in levels if schedule(t)[0] > 0), None)
            if found is None:
                raise InputError(
                    "the run starts from pure noise in its only step: nothing of the last frame can enter",
                    remedy="Use 2 steps or more.",
                )
            return found
        if len(levels) == 1 and memory.level != levels[0]:
            raise InputError(
                f"a start at level {memory.level:g} of a one-step model, which knows level {levels[0]:g} only"
            )
        if not min(self.times) < memory.level <= max(self.times):
            raise InputError(
                f"a start at level {memory.level:g}", remedy=f"Use above {min(self.times):g}, to {max(self.times):g}."
            )
        return memory.level

    def predict_latents(
        self, image_latents: torch.Tensor, noise: Noise | None = None, memory: LatentMemory | None = None
    ) -> torch.Tensor:
        """The predicted latents (B, C, h, w) for image latents of the same size."""
        condition = self.condition.merged(Condition({"image": image_latents}))
        if len(self.times) == 1:
            return self.denoiser(torch.zeros_like(image_latents), self.times[0], condition).x0
        if noise is None:
            raise InputError("a generative predictor needs noise", remedy="Pass noise=Noise.per_item(seeds).")
        if memory is None or memory.latents is None:
            start, times = noise.like(image_latents), self.times
        else:
            level = self.start_level(memory)
            start, times = late_start(memory.latents, self.times, self.denoiser.schedule, level, noise)
        found = sample(self.denoiser, start, times, step=self.solver, noise=noise, condition=condition)
        if memory is not None:
            memory.latents = found
        return found

    @torch.no_grad()
    def __call__(
        self,
        image: torch.Tensor,
        noise: Noise | None = None,
        *,
        posterior_noise: Noise | None = None,
        members: int = 1,
        memory: LatentMemory | None = None,
    ) -> torch.Tensor:
        """Predict.

        Parameters
        ----------
        image : Tensor (B, 3, H, W) in [-1, 1]
            Sides as the latent space needs them (:class:`~priorscope.predictors.Geometry`).
        noise : Noise, optional
            For generative predictors: B * ``members`` rows, item-major.
        posterior_noise : Noise, optional
            For a sampled posterior: B rows.
        members : int
            Predictions an image; the image is encoded once.
        memory : LatentMemory, optional
            For frames of a video, one call a frame: the last call's latents, replaced by this one's.

        Returns
        -------
        Tensor (B * members, 3, H, W), nominally in [-1, 1].
        """
        if members < 1:
            raise InputError(f"an ensemble of {members}")
        with compiler_failures():
            image_latents = self.encode(image, posterior_noise)
            if members > 1:
                image_latents = image_latents.repeat_interleave(members, 0)
            return self.latents.decode(self.predict_latents(image_latents, noise, memory))

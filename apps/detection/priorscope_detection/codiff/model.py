"""CoDiff as the paper means it (our form): the fused feature, diffused in a latent, given what each agent sees.

What is learned: the latent of the feature that the agents would give with right poses and no delay. What it is given:
the latent of the coarse feature, fused with the poses and messages at hand, and each agent's own latent, carried into
the ego's frame. The target is never among the conditions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.losses import masked_mean
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.own_runs import runs_at_calls
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.schedule import VPSchedule
from priorscope.diffusion.solvers import Step, ddim
from priorscope.diffusion.spacing import spaced_times
from priorscope.errors import InputError
from priorscope_detection.codiff.codec import FeatureCodec
from priorscope_detection.codiff.denoiser import SetDenoiser
from priorscope_detection.fusion.agents import as_sets, presence
from priorscope_detection.fusion.warp import Extent, coverage, warp_to_ego
from priorscope_detection.network.spec import CoDiffSpec, Start

#: Steps of the runs that are trained on.
_RUNS = (1, 2, 4, 8)
#: Agents that numbers are drawn for, however few the batch holds: what an item sees must not depend on its neighbours.
_DRAWN = 16


class AgentSet(NamedTuple):
    """What the denoiser is told.

    Attributes
    ----------
    coarse : Tensor (B, latent, H, W)
        Latent of the coarse fused feature.
    has_coarse : bool Tensor (B,)
    agents : Tensor (B, L, latent, H, W)
        Latents of the agents in the ego's frame, the ego at index 0.
    seen : bool Tensor (B, L, H, W)
        Which agents take part, and where.
    kinds : int64 Tensor (B, L)
    delays : Tensor (B, L)
        Seconds.
    """

    coarse: torch.Tensor
    has_coarse: torch.Tensor
    agents: torch.Tensor
    seen: torch.Tensor
    kinds: torch.Tensor
    delays: torch.Tensor


class DiffusionEstimate(NamedTuple):
    """Loss of the diffusion at one random level, and the latent (B, latent, H, W) that it estimates there."""

    loss: torch.Tensor
    latent: torch.Tensor


class CoDiff(nn.Module):
    """Codec and denoiser.

    Parameters
    ----------
    width : int
        Channels of the features.
    spec : CoDiffSpec
    """

    def __init__(self, width: int, spec: CoDiffSpec) -> None:
        super().__init__()
        self.spec = spec
        self.codec = FeatureCodec(width, spec.latent)
        self.network = SetDenoiser(spec)
        self.schedule = VPSchedule.from_betas("cosine", num_steps=spec.noise_steps)

    @property
    def denoiser(self) -> Denoiser:
        """The network as the core's denoiser; it is told the level on a scale of 0 to 1000."""
        scale = 1000 / self.spec.noise_steps
        return Denoiser(self.network, self.schedule, self.spec.prediction, time_label=lambda t: t * scale)

    def agent_set(
        self,
        coarse: torch.Tensor,
        own: torch.Tensor,
        agents: Sequence[int],
        to_ego: torch.Tensor,
        extent: Extent,
        kinds: torch.Tensor,
        delays: torch.Tensor,
    ) -> AgentSet:
        """Encode what is known.

        Parameters
        ----------
        coarse : Tensor (B, C, H, W)
            The fused feature.
        own : Tensor (N, C, H, W)
            Each agent's own feature in its own frame; its latent is all of it that others need.
        agents, to_ego, kinds, delays
            As in :class:`~priorscope_detection.network.batch.AgentBatch`.
        extent : tuple of float
            Of the maps, in metres.
        """
        latents = warp_to_ego(self.codec.encode(own), to_ego, extent)
        covered = coverage(to_ego, extent, *own.shape[2:]).to(own.device)
        seen = as_sets(covered, agents) & presence(agents, own.device)[:, :, None, None]
        return AgentSet(
            self.codec.encode(coarse),
            torch.ones(len(coarse), dtype=torch.bool, device=coarse.device),
            as_sets(latents, agents),
            seen,
            as_sets(kinds.to(own.device), agents),
            as_sets(delays.to(own), agents),
        )

    def dropped(self, told: AgentSet, noise: Noise) -> AgentSet:
        """Leave out other agents than the ego, and the coarse feature, with the chances of the settings (training)."""
        frames, most = told.seen.shape[:2]
        draw = _uniform(noise.draw((frames, max(most, _DRAWN)), device=told.seen.device))[:, :most]
        keep = draw >= self.spec.drop_agent
        keep[:, 0] = True
        keep_coarse = draw[:, 0] >= self.spec.drop_coarse
        return told._replace(has_coarse=told.has_coarse & keep_coarse, seen=told.seen & keep[:, :, None, None])

    def condition(self, told: AgentSet, late: torch.Tensor) -> Condition:
        """What stays the same in all steps of a run, computed once; ``late`` (B,): it starts from the coarse latent."""
        key, value = self.network.reader.prepare(told.agents, told.seen, told.kinds, told.delays)
        given = {"coarse": told.coarse, "has_coarse": told.has_coarse, "late": late}
        return Condition(given | {"key": key, "value": value, "seen": told.seen})

    def estimate(self, target: torch.Tensor, told: AgentSet, noise: Noise) -> DiffusionEstimate:
        """One training step of the diffusion.

        Parameters
        ----------
        target : Tensor (B, latent, H, W)
            Latent of the feature fused with right poses and no delay.
        told : AgentSet
            From the poses and messages at hand, :meth:`dropped` or not.
        noise : Noise
            Draws the levels, uniformly, and the noise.

        Returns
        -------
        DiffusionEstimate
            The loss is the squared error of the network's output, where cells with more than the mean energy count as
            much as the many others; the latent carries a gradient, for a loss of what the heads make of it.

        Notes
        -----
        With settings that start from the coarse feature half the items learn that run, the others the one from noise.
        Half of either are at the level where the run starts: each run makes that call, one of one step no other, and
        only there x says nothing of the target.
        """
        frames = len(target)
        draw = _uniform(noise.draw((frames, 3), device=target.device))
        late = (draw[:, 1] < 0.5) & told.has_coarse & (self.spec.start == "coarse")
        first = torch.where(late, self.times(1, "coarse")[0], self.spec.noise_steps - 1)
        t = (draw[:, 0] * (first + 1)).floor().clamp(max=self.spec.noise_steps - 1)
        t = torch.where(draw[:, 2] < 0.5, first, t)
        eps = self.effective_noise(target, told.coarse, noise.like(target), late)
        denoiser = self.denoiser
        x = self.schedule.add_noise(target, t, eps)
        output = denoiser.raw(x, t, self.condition(told, late))
        error = (output.float() - denoiser.target(target, eps, t).float()).square()
        loss = masked_mean(error * balance(target.float()))
        alpha, sigma = self.schedule.coefficients(t, x)
        return DiffusionEstimate(loss, denoiser.split(output, x, alpha, sigma).x0)

    def estimate_of_run(self, target: torch.Tensor, told: AgentSet, noise: Noise) -> DiffusionEstimate:
        """One training step on a whole run of the network's own, of 1, 2, 4 or 8 steps.

        In :meth:`estimate` x holds the target itself, in a run only what earlier calls made of it: a network that has
        learned to trust x carries their errors on. Here x comes from its own earlier calls; the gradient goes through
        the last call.

        Parameters
        ----------
        target, told, noise
            As for :meth:`estimate`. With settings that start from the coarse feature three of four items do so, the
            others start from noise.

        Returns
        -------
        DiffusionEstimate
            The loss is the squared error of the latent that the run ends with.
        """
        draw = _uniform(noise.draw((len(target), 2), device="cpu"))
        late = draw[:, 0] < (0.75 if self.spec.start == "coarse" else 0.0)
        steps = [_RUNS[min(int(value * len(_RUNS)), len(_RUNS) - 1)] for value in draw[:, 1]]
        times = [self.times(count, "coarse" if one else "noise") for count, one in zip(steps, late, strict=True)]
        late = late.to(target.device)
        told = told._replace(has_coarse=told.has_coarse | late)
        x = self._first_state(told, noise, [levels[0] for levels in times], late)
        condition = self.condition(told, late)
        x, t = runs_at_calls(self.denoiser, x, times, [count - 1 for count in steps], condition)
        latent = self.denoiser(x, t, condition).x0
        error = (latent.float() - target.float()).square()
        return DiffusionEstimate(masked_mean(error * balance(target.float())), latent)

    def effective_noise(
        self, target: torch.Tensor, coarse: torch.Tensor, eps: torch.Tensor, late: torch.Tensor
    ) -> torch.Tensor:
        """The noise of a run that ends at ``target``, for items ``late`` (B,) one that starts from the coarse latent.

        Such a run starts at ``alpha coarse + sigma eps``, which is ``alpha target + sigma eps'`` with
        ``eps' = eps + (alpha / sigma) (coarse - target)``; a deterministic solver with the right x0 keeps eps' to the
        end. A network that never saw it takes the coarse feature's errors for what the target is like (ours; the idea
        is that of a shifted residual, Yue et al. 2023, "ResShift").
        """
        alpha, sigma = self.schedule(self.times(1, "coarse")[0])
        return eps + late[:, None, None, None] * (alpha / sigma) * (coarse - target)

    def refine(
        self,
        told: AgentSet,
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        start: Start | None = None,
        step: Step = ddim,
    ) -> torch.Tensor:
        """The latent of the fused feature, by a deterministic run.

        Parameters
        ----------
        told : AgentSet
        seeds : sequence of int
            One a frame: a frame's result does not depend on what else is in the batch.
        steps : int, optional
            Network calls, 1 or more, without retraining; default: the settings'.
        start : {"noise", "coarse"}, optional
            From noise, or at the settings' ``start_level`` from the coarse latent and noise; default: the settings'.
        step : solver
            See :mod:`priorscope.diffusion.solvers`.

        Returns
        -------
        Tensor (B, latent, H, W)

        Raises
        ------
        InputError
            Another number of seeds than of frames, steps below 1, an unknown start, no coarse feature to start from.
        """
        steps = self.spec.steps if steps is None else steps
        start = self.spec.start if start is None else start
        if len(seeds) != len(told.coarse):
            raise InputError(f"{len(seeds)} seeds for {len(told.coarse)} frames")
        if start not in ("noise", "coarse"):
            raise InputError(f"a run from {start!r}", remedy="Use 'noise' or 'coarse'.")
        with torch.no_grad():
            times, x, condition = self._begin(told, Noise.per_item(seeds), steps, start)
            return sample(self.denoiser, x, times, step=step, condition=condition)

    def _begin(
        self, told: AgentSet, noise: Noise, steps: int, start: Start
    ) -> tuple[list[float], torch.Tensor, Condition]:
        """Levels, first state and condition of a run."""
        times = self.times(steps, start)
        late = torch.full_like(told.has_coarse, start == "coarse")
        return times, self._first_state(told, noise, times[:1] * len(late), late), self.condition(told, late)

    def _first_state(self, told: AgentSet, noise: Noise, levels: Sequence[float], late: torch.Tensor) -> torch.Tensor:
        """Where runs of B items begin: noise at their first levels, on the coarse latent for those that start late."""
        alpha, sigma = self.schedule.coefficients(torch.tensor(levels), told.coarse)
        shown = (late & told.has_coarse)[:, None, None, None]
        return sigma * noise.like(told.coarse) + alpha * shown * told.coarse

    def times(self, steps: int, start: Start) -> list[float]:
        """Levels of a run: equal parts of the way down from where it starts; the last is clean."""
        last = self.spec.noise_steps - 1
        first = last if start == "noise" else max(round(self.spec.start_level * last), 1)
        if steps < 1 or steps > first:
            raise InputError(f"{steps} steps from level {first}", remedy=f"Use 1 to {min(first, 8)}.")
        if steps == 1:
            return [float(first), self.schedule.end]
        return spaced_times(self.schedule, [first * (steps - i) / steps for i in range(steps)])

    def feature(self, latent: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """What the heads see (B, C, H, W): the decoded latent and the coarse feature, mixed by the settings."""
        blend = self.spec.blend
        decoded = self.codec.decode(latent)
        return decoded if blend == 0 else blend * coarse + (1 - blend) * decoded


def balance(target: torch.Tensor) -> torch.Tensor:
    """Weights (B, 1, H, W), mean 1: cells of more than the mean energy count as much together as all others."""
    energy = target.square().mean(1, keepdim=True)
    strong = energy > energy.mean((2, 3), keepdim=True)
    share = strong.float().mean((2, 3), keepdim=True).clamp(1e-6, 1 - 1e-6)
    return torch.where(strong, 0.5 / share, 0.5 / (1 - share))


def _uniform(normal: torch.Tensor) -> torch.Tensor:
    return 0.5 * (1 + torch.erf(normal / math.sqrt(2)))

"""Diffusion of heatmaps in x0 form on the core's loop: features once, the decoder once a step and draw."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser, Level, Prediction, StepInfo
from priorscope.diffusion.noise import Noise, item_seed
from priorscope.diffusion.own_runs import runs_at_calls
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.schedule import Schedule, VPSchedule
from priorscope.diffusion.solvers import ddim
from priorscope.diffusion.spacing import spaced_times
from priorscope.errors import InputError
from priorscope_pose.diffpose.decoder import PoseDecoder
from priorscope_pose.diffpose.spec import DiffPoseSpec


def heatmap_schedule(kind: str = "cosine", steps: int = 1000) -> VPSchedule:
    """The noise schedule: Nichol and Dhariwal's cosine (as DiffusionDet), or DDPM's linear one. -1 is clean."""
    if kind == "linear":
        return VPSchedule.from_betas("linear", beta_start=1e-4, beta_end=0.02, num_steps=steps)
    return VPSchedule.from_betas("cosine", num_steps=steps)


def to_signal(heatmaps: torch.Tensor, scale: float) -> torch.Tensor:
    """Heatmaps in [0, 1] as they are diffused: (2 h - 1) s."""
    return (2 * heatmaps - 1) * scale


def to_heatmaps(signal: torch.Tensor, scale: float) -> torch.Tensor:
    """The way back; not cut."""
    return (signal / scale + 1) / 2


class HeatmapDiffusion:
    """A decoder as the core's denoiser of scaled heatmaps: it answers (x0, eps).

    Parameters
    ----------
    decoder : callable
        ``decoder(noisy, t, **pyramid)``: a :class:`~priorscope_pose.diffpose.decoder.PoseDecoder`, or anything alike.
        Is given noisy signals over s, and gives heatmaps.
    spec : DiffPoseSpec

    Notes
    -----
    All ours, since the paper does not say: the signal (2 h - 1) s, both clamps, the schedule's form. They are those of
    DiffusionDet, whose maths the golden family ``heatmap_diffusion`` holds. With ``clamp_output`` the noise is
    derived from the cut estimate, as there.
    """

    def __init__(self, decoder: PoseDecoder, spec: DiffPoseSpec) -> None:
        self.decoder = decoder
        self.spec = spec
        self.schedule: Schedule = heatmap_schedule(spec.schedule, spec.noise_steps)
        self.denoiser = Denoiser(self._signal, self.schedule, "sample")

    def __call__(
        self, x: torch.Tensor, t: Level, condition: Condition | None = None, info: StepInfo | None = None
    ) -> Prediction:
        """What the solvers ask; clamped as the settings say."""
        raw = self.denoiser.raw(x, t, condition)
        if self.spec.clamp_output:
            raw = raw.clamp(-self.spec.scale, self.spec.scale)
        return self.denoiser.split(raw, x, *self.schedule.coefficients(t, x))

    def noised(self, heatmaps: torch.Tensor, t: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """The noisy signal of heatmaps (B, K, h, w) in [0, 1] at levels (B,)."""
        return self.schedule.add_noise(to_signal(heatmaps, self.spec.scale), t, eps)

    def of_own_runs(
        self, eps: torch.Tensor, steps: torch.Tensor, call: torch.Tensor, pyramid: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the network meets at a call of a run of its own (:func:`~priorscope.diffusion.runs_at_calls`).

        Parameters
        ----------
        eps : Tensor (B, K, h, w)
            Noise that the runs start from.
        steps, call : int64 Tensor (B,)
            Solver steps of each person's run, and which of them, from 0.
        pyramid : dict of Tensor (B, ...)

        Returns
        -------
        x : Tensor (B, K, h, w)
            As in :func:`sample_heatmaps`.
        t : Tensor (B,)
        """
        times = [spaced_times(self.schedule, count, "trailing") for count in steps.tolist()]
        x = self.schedule(times[0][0])[1] * eps
        return runs_at_calls(self, x, times, call.tolist(), Condition(pyramid))

    def heatmaps(self, x: torch.Tensor, t: torch.Tensor, pyramid: dict[str, torch.Tensor]) -> torch.Tensor:
        """Estimated heatmaps of a noisy signal, for the loss; not cut."""
        return self.decoder(self.seen(x), t, **pyramid)

    def seen(self, x: torch.Tensor) -> torch.Tensor:
        """What the decoder is shown of a noisy signal: over s, cut to [-1, 1] as the settings say."""
        x = x / self.spec.scale
        return x.clamp(-1, 1) if self.spec.clamp_input else x

    def _signal(self, x: torch.Tensor, t: torch.Tensor, **pyramid: torch.Tensor) -> torch.Tensor:
        return to_signal(self.decoder(self.seen(x), t, **pyramid).to(x.dtype), self.spec.scale)


def sample_heatmaps(
    diffusion: HeatmapDiffusion,
    pyramid: dict[str, torch.Tensor],
    seeds: Sequence[int],
    *,
    steps: int | Sequence[float] = 4,
    ensemble: int = 1,
    eta: float = 0.0,
    max_batch: int = 64,
) -> torch.Tensor:
    """Draw heatmaps of persons whose features are known.

    Parameters
    ----------
    diffusion : HeatmapDiffusion
    pyramid : dict of Tensor (B, ...)
        From :meth:`PoseDecoder.pyramid`; computed once whatever steps and ensemble are.
    seeds : sequence of int
        One a person. Draw e of a person depends on its seed and e only, not on what else is in the batch.
    steps : int or sequence of float
        S, solver steps; or the levels themselves. Any number, without retraining.
    ensemble : int
        Noise draws a person.
    eta : float
        DDIM's; 0 is deterministic given the start (ours).
    max_batch : int
        Persons times draws that the decoder sees at once; bounds memory.

    Returns
    -------
    Tensor (B, K, h, w), float32
        Mean over the draws (ours: of heatmaps, not of poses). In [0, 1] where the output is clamped.
    """
    if ensemble < 1 or max_batch < 1:
        raise InputError(f"an ensemble of {ensemble} in batches of {max_batch}", remedy="Use 1 or more.")
    spec = diffusion.spec
    persons = len(seeds)
    given = next(iter(pyramid.values()))
    if len(given) != persons:
        raise InputError(f"{persons} seeds for {len(given)} persons")
    width, height = spec.heatmap_size
    times = spaced_times(diffusion.schedule, steps, "trailing")
    if not persons:
        return given.new_zeros((0, spec.keypoints, height, width), dtype=torch.float32)
    total = torch.zeros(persons, spec.keypoints, height, width, device=given.device)
    for rows in _parts(persons, max_batch):
        condition = Condition(pyramid).select(rows)
        count = rows.stop - rows.start
        for draws in _parts(ensemble, max(1, max_batch // count)):
            members = range(draws.start, draws.stop)
            # draws of a person lie side by side, as Condition.repeat has it
            noise = Noise.per_item(item_seed(seeds[row], e) for row in range(rows.start, rows.stop) for e in members)
            shape = (count * len(members), spec.keypoints, height, width)
            x = diffusion.schedule(times[0])[1] * noise.draw(shape, device=given.device)
            repeated = condition if len(members) == 1 else condition.repeat(len(members))
            x = sample(diffusion, x, times, step=partial(ddim, eta=eta), noise=noise, condition=repeated)
            total[rows] += to_heatmaps(x, spec.scale).unflatten(0, (count, len(members))).sum(1)
    return total / ensemble


def _parts(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]

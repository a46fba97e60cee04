"""At which noise levels, and by which way there, a network is looked at.

Three ways: draw from q(x_t | x_0) at given levels; follow DDIM inversion up from the clean latent; noise the latent
once and follow the sampler down. Each is a small value that is called with a :class:`Viewer`, latents and noise, and
gives the maps of every level asked for, by level or by save step.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser, Level, Prediction, StepInfo
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.schedule import Schedule, VPSchedule
from priorscope.diffusion.spacing import Spacing, spaced_times
from priorscope.errors import InputError
from priorscope.features.forward import Features, Tapped

Key = float | int


class Viewer:
    """A denoiser with a condition and taps in its network.

    Parameters
    ----------
    denoiser : Denoiser
        Its network runs the module that ``taps`` looks into.
    taps : Tapped
    condition : Condition, optional
    """

    def __init__(self, denoiser: Denoiser, taps: Tapped, condition: Condition | None = None) -> None:
        self.denoiser = denoiser
        self.taps = taps
        self.condition = condition

    def look(self, x: torch.Tensor, t: Level) -> Features:
        """The maps for the noisy sample ``x`` (B, C, h, w) at level ``t``; nothing after the last tap runs."""
        return self.taps.watch(lambda: self.denoiser.raw(x, t, self.condition))[1]

    def ask(self, x: torch.Tensor, t: Level) -> tuple[Prediction, Features]:
        """The prediction and the maps, by one whole call."""
        prediction, maps = self.taps.watch(lambda: self.denoiser(x, t, self.condition), stop=False)
        assert prediction is not None
        return prediction, maps

    def take(self, x: torch.Tensor, t: Level, *, x0: bool = False) -> Features:
        """:meth:`look`, or with ``x0`` a whole call whose predicted clean sample joins the maps under that name."""
        if not x0:
            return self.look(x, t)
        prediction, maps = self.ask(x, t)
        return {**maps, "x0": prediction.x0}

    def follow(
        self, x: torch.Tensor, levels: Sequence[float], save: Collection[int], *, x0: bool = False
    ) -> dict[int, Features]:
        """The maps along a deterministic DDIM run through ``levels``, upwards or downwards.

        Parameters
        ----------
        x : Tensor (B, C, h, w)
            The sample at ``levels[0]``.
        levels : sequence of float
        save : collection of int
            Positions in ``levels`` at which to look; the run ends, truncated, at the largest.
        x0 : bool
            Add the predicted clean sample to the maps of each position, under that name; the last call is then whole.

        Returns
        -------
        dict
            Position in ``levels`` -> maps, in the order of the run.
        """
        if not save or min(save) < 0 or max(save) >= len(levels):
            raise InputError(f"positions {sorted(save)} of a run with {len(levels)} levels")
        last = max(save)
        run = _Followed(self, save, x0)
        with torch.no_grad():
            if last > 0:
                x = sample(run, x, levels[: last + 1], condition=self.condition)
            run.seen[last] = self.take(x, levels[last], x0=x0)
        return run.seen


class _Followed:
    """A viewer as the sampling loop sees it: a model that looks at the calls that are to be saved."""

    def __init__(self, viewer: Viewer, save: Collection[int], x0: bool) -> None:
        self.schedule: Schedule = viewer.denoiser.schedule
        self.viewer = viewer
        self.save = save
        self.x0 = x0
        self.seen: dict[int, Features] = {}

    def __call__(
        self, x: torch.Tensor, t: Level, condition: Condition | None = None, info: StepInfo | None = None
    ) -> Prediction:
        index = 0 if info is None else info.index
        if index not in self.save:
            return self.viewer.denoiser(x, t, condition)
        prediction, maps = self.viewer.ask(x, t)
        self.seen[index] = {**maps, "x0": prediction.x0} if self.x0 else maps
        return prediction


class Mode(Protocol):
    """How features are taken: called with a viewer, clean latents and noise; the maps by level or save step."""

    def __call__(
        self, viewer: Viewer, latents: torch.Tensor, noise: torch.Tensor, *, x0: bool = False
    ) -> dict[Key, Features]: ...


@dataclass(frozen=True)
class AtLevels:
    """Noise the latent to each level and look: one truncated call a level.

    Parameters
    ----------
    levels : sequence of float
        Steps of the training schedule. All levels share one draw of the noise, so that what one level gives does not
        depend on which others are asked for.
    """

    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        try:
            levels = tuple(float(level) for level in self.levels)
        except (TypeError, ValueError):
            raise InputError(f"noise levels {self.levels!r}", remedy="Give numbers, as AtLevels((261,)).") from None
        if not levels:
            raise InputError("no noise level to look at", remedy="Give t=261, say.")
        object.__setattr__(self, "levels", levels)  # a cache knows a mode by its text: 21 and 21.0 are one level

    def __call__(
        self, viewer: Viewer, latents: torch.Tensor, noise: torch.Tensor, *, x0: bool = False
    ) -> dict[Key, Features]:
        """The maps by level, for latents and noise (B, C, h, w)."""
        schedule = viewer.denoiser.schedule
        return {t: viewer.take(schedule.add_noise(latents, t, noise), t, x0=x0) for t in self.levels}


@dataclass(frozen=True)
class Inversion:
    """Follow DDIM inversion from the clean latent and look at some of its calls.

    Parameters
    ----------
    steps : int
        Of the run from noise to image that is followed backwards.
    save : sequence of int
        Save steps as SatDiFuser and Diffusion Hyperfeatures number them: 0 is pure noise, the last but one of the
        run's levels is ``steps - 1``, whose call sees the clean latent. The call of save step s comes
        ``len(timesteps) - 1 - s`` calls after that one.
    spacing, offset
        Of the timesteps (:func:`~priorscope.diffusion.spaced_times`); diffusers' Stable Diffusion has 1 as offset,
        Diffusion Hyperfeatures 0.
    timesteps : sequence of float, optional
        The run's timesteps, descending, where they follow no spacing.
    official : bool
        As the official code does it (parity): every output is read as epsilon, whatever the network predicts; the
        first call tells t = -1; and with more timesteps than steps (PNDM) the smallest save steps are left out
        without a word. Ours reads the output for what it is and tells step 0 in the first call.

    Source: SatDiFuser ``LDMExtractor``; Diffusion Hyperfeatures ``generalized_steps``.
    """

    steps: int = 50
    save: tuple[int, ...] = (47, 45, 40)
    spacing: Spacing = "leading"
    offset: int = 1
    timesteps: tuple[float, ...] | None = None
    official: bool = False

    def __call__(
        self, viewer: Viewer, latents: torch.Tensor, noise: torch.Tensor | None = None, *, x0: bool = False
    ) -> dict[Key, Features]:
        """The maps by save step, least noise first, for clean latents (B, C, h, w); ``noise`` is not used."""
        schedule = viewer.denoiser.schedule
        times = _timesteps(self, schedule)
        _check_save(self.save, len(times))
        wanted = [step for step in self.save if not self.official or len(times) - step <= self.steps - min(self.save)]
        if isinstance(schedule, VPSchedule):
            schedule = replace(schedule, last="clean")  # the run begins at the latent itself
        levels = [schedule.end, *reversed(times)]
        positions = {len(times) - 1 - step: step for step in wanted}
        seen = _reading(viewer, schedule, self.official).follow(latents, levels, positions.keys(), x0=x0)
        return {positions[position]: maps for position, maps in seen.items()}


@dataclass(frozen=True)
class Generation:
    """Noise the latent to the first save step's level and follow the sampler down from there.

    Parameters
    ----------
    steps, save, spacing, offset, timesteps
        As for :class:`Inversion`; the call of save step s is at ``timesteps[s]``. The official code takes one save
        step only.
    official : bool
        Read every output as epsilon (parity); matters from the second save step on.

    Source: SatDiFuser ``LDMExtractor``, diffusion_mode "generation".
    """

    steps: int = 50
    save: tuple[int, ...] = (45,)
    spacing: Spacing = "leading"
    offset: int = 1
    timesteps: tuple[float, ...] | None = None
    official: bool = False

    def __call__(
        self, viewer: Viewer, latents: torch.Tensor, noise: torch.Tensor, *, x0: bool = False
    ) -> dict[Key, Features]:
        """The maps by save step, most noise first, for latents and noise (B, C, h, w)."""
        schedule = viewer.denoiser.schedule
        times = _timesteps(self, schedule)
        _check_save(self.save, len(times))
        first = min(self.save)
        x = schedule.add_noise(latents, times[first], noise)
        reading = _reading(viewer, schedule, self.official)
        seen = reading.follow(x, times[first:], {step - first for step in self.save}, x0=x0)
        return {position + first: maps for position, maps in seen.items()}


#: The ways of the published sets that state no level; for SatDiFuser's own way instead of its levels' shortcut.
PUBLISHED_MODES: dict[str, Mode] = {
    "satdifuser": Inversion(),
    "hyperfeatures": Inversion(save=(49, *range(45, -1, -5)), offset=0),
}


def _timesteps(mode: Inversion | Generation, schedule: Schedule) -> list[float]:
    steps: int | Sequence[float] = mode.steps if mode.timesteps is None else mode.timesteps
    return spaced_times(schedule, steps, mode.spacing, offset=mode.offset)[:-1]


def _check_save(save: Sequence[int], count: int) -> None:
    fits = isinstance(save, Sequence) and len(set(save)) == len(save) > 0
    if not fits or min(save) < 0 or max(save) >= count or any(step != int(step) for step in save):
        raise InputError(f"save steps {save} of a run with {count} timesteps", remedy=f"Use 0 ... {count - 1}.")


def _reading(viewer: Viewer, schedule: Schedule, official: bool) -> Viewer:
    """The viewer on another schedule; officially its outputs are epsilon and its label is the level as it is."""
    old = viewer.denoiser
    denoiser = Denoiser(
        old.network,
        schedule,
        "epsilon" if official else old.prediction_type,
        time_label=(lambda t: t) if official else old.time_label,
        input_scale=old.input_scale,
    )
    return Viewer(denoiser, viewer.taps, viewer.condition)


def shared_noise(size: tuple[int, int], *, channels: int = 4, seed: int = 42) -> torch.Tensor:
    """ODISE's noise (parity): one fixed draw at 64 x 64, resized bicubically to the latent's size.

    Returns
    -------
    Tensor (1, channels, height, width)
        Not of unit variance unless ``size`` is 64 x 64. Source: ODISE, ``LdmExtractor``, ``shared_noise``.
    """
    noise = Noise.shared(seed).draw((1, channels, 64, 64))
    if tuple(size) == (64, 64):
        return noise
    return torch.nn.functional.interpolate(noise, size, mode="bicubic", align_corners=False)

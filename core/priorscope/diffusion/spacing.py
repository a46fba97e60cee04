"""Where a run stops on its way from noise to data: the list of levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from priorscope.diffusion.schedule import EDMSchedule, Schedule, VPSchedule
from priorscope.errors import InputError

Spacing = Literal["leading", "trailing", "linspace", "quadratic", "karras"]


def spaced_times(
    schedule: Schedule,
    steps: int | Sequence[float],
    spacing: Spacing = "trailing",
    *,
    offset: int = 0,
    rho: float = 7.0,
) -> list[float]:
    """Levels of a run, from the first noisy one down to ``schedule.end``, which is always appended.

    Parameters
    ----------
    schedule : Schedule
    steps : int or sequence of float
        Number of solver steps, or the explicit levels at which the network is asked.
    spacing : {"leading", "trailing", "linspace", "quadratic", "karras"}
        For a discrete schedule of T steps: ``leading`` takes multiples of T // steps plus ``offset`` (it never
        reaches the noisiest step), ``trailing`` counts down from T in steps of T / steps, ``linspace`` includes
        both ends, ``quadratic`` too, with steps that grow linearly from the clean end (Song et al. 2021, DDIM), but no
        level twice. For a continuous schedule the first two are equal steps from ``start``, not including
        ``end``, and ``linspace`` is the same. ``karras`` spaces sigma evenly in its ``rho``-th root
        (Karras et al. 2022, equation 5) and needs an :class:`EDMSchedule`.
    offset : int
        diffusers' ``steps_offset``, for ``leading``.

    Returns
    -------
    list of float
        ``steps + 1`` levels, or the explicit ones and the end.

    Raises
    ------
    InputError
        No step, more than the schedule has, a spacing that the schedule does not know, levels that are no numbers.

    Notes
    -----
    A single step of ``linspace`` is the clean end, as diffusers has it.
    Source of the discrete spacings: Lin et al. 2024, table 2; diffusers schedulers.
    """
    if isinstance(steps, float | str):
        raise InputError(f"{steps!r} steps", remedy="Give a whole number, or a list of levels.")
    if isinstance(steps, np.integer):
        steps = int(steps)
    if not isinstance(steps, int):
        times = [float(t) for t in steps]
        if not times or any(t != t for t in times):
            raise InputError("an explicit list of levels is empty or has NaN")
        if times[-1] == schedule.end:
            times.pop()
        return [*times, schedule.end]
    if steps < 1:
        raise InputError(f"{steps} steps", remedy="Ask for at least one.")
    if isinstance(schedule, VPSchedule):
        return [*_discrete(schedule.num_steps, steps, spacing, offset), schedule.end]
    if spacing == "karras":
        if not isinstance(schedule, EDMSchedule):
            raise InputError("the karras spacing places sigmas", remedy="Use it with an EDMSchedule.")
        ramp = np.linspace(schedule.sigma_max ** (1 / rho), schedule.sigma_min ** (1 / rho), steps)
        return [*(ramp**rho).tolist(), schedule.end]
    if spacing == "quadratic":
        raise InputError("the quadratic spacing counts steps", remedy="Use it with a VPSchedule.")
    if spacing not in ("leading", "trailing", "linspace"):
        raise InputError(f"spacing {spacing!r}", remedy="Use 'leading', 'trailing', 'linspace' or 'karras'.")
    return np.linspace(schedule.start, schedule.end, steps + 1).tolist()


def _discrete(total: int, steps: int, spacing: str, offset: int) -> list[float]:
    if steps > total:
        raise InputError(f"{steps} steps, but the schedule was trained with {total}")
    times: np.ndarray
    if spacing == "leading":
        times = (np.arange(steps) * (total // steps))[::-1] + offset
    elif spacing == "trailing":
        times = np.round(np.arange(total, 0, -total / steps)[:steps]) - 1
    elif spacing == "linspace":
        times = np.round(np.linspace(0, total - 1, steps))[::-1]
    elif spacing == "quadratic":
        rising = np.round((total - 1) * (np.arange(steps) / max(steps - 1, 1)) ** 2)
        places = np.arange(steps)
        # levels that would coincide near 0 move up by the least that keeps them apart
        times = np.minimum(places + np.maximum.accumulate(rising - places), total - steps + places)[::-1]
        if steps == 1:
            times = np.array([total - 1.0])
    else:
        raise InputError(
            f"spacing {spacing!r} for a discrete schedule",
            remedy="Use 'leading', 'trailing', 'linspace' or 'quadratic'.",
        )
    return np.clip(times, 0, total - 1).astype(float).tolist()

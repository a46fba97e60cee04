"""Which wave the elements have sent, from the times at which they fired."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_medical.ultrasound.beamforming import transmit_delay
from priorscope_medical.ultrasound.channel_data import Transmit

Numbers = NDArray[np.float64]


def moment_of_passing(
    wave: Transmit,
    elements: Numbers,
    delays: Numbers,
    weights: Numbers | None,
    speed: float,
    carrier: float | None,
    path: Path | None = None,
) -> float:
    """When the wave passes its origin, on the clock of ``delays``.

    Parameters
    ----------
    wave : Transmit
    elements : ndarray (elements, 3)
        In m.
    delays : ndarray (elements,)
        When each fires, in s.
    weights : ndarray (elements,), optional
        Elements of weight 0 are silent.
    speed : float
        In m/s.
    carrier : float, optional
        In Hz; delays that differ from the wave's by more than a period of it are refused.
    """
    fires = np.ones(len(delays), bool) if weights is None else np.asarray(weights) != 0
    if not fires.any():
        raise InputError("no element fires in a transmit", path=path)
    offsets = (delays - transmit_delay(wave, elements, speed))[fires]
    spread = float(np.abs(offsets - np.median(offsets)).max())
    if carrier is not None and spread > 1 / carrier:
        raise InputError(
            f"the delays of the elements differ by up to {1e6 * spread:.3g} us from those of the wave that is stated",
            path=path,
            remedy="Check angles, focus, speed of sound and units (seconds, metres, radians).",
        )
    return float(np.median(offsets))


def wave_of_delays(
    elements: Numbers, delays: Numbers, start: float, speed: float, carrier: float, path: Path | None = None
) -> Transmit:
    """The plane, diverging or focused wave that elements at these ``delays`` send.

    Parameters
    ----------
    start : float
        Time of the first sample on the clock of the delays, in s. Silent elements have NaN.
    elements, delays, speed, carrier
        As for :func:`moment_of_passing`.

    Raises
    ------
    InputError
        No such wave is within a quarter of a period of the delays.
    """
    fires = np.isfinite(delays)
    if fires.sum() < 1:
        raise InputError("no element fires in a transmit", path=path)
    where, when = elements[fires], delays[fires]
    limit = 0.25 / carrier
    slope = 0.0
    if len(when) > 1 and np.ptp(where[:, 0]) > 0:
        slope = float(np.polyfit(where[:, 0], when, 1)[0])
    candidates = [Transmit(angle=float(np.arcsin(np.clip(speed * slope, -1, 1))))]
    if len(when) > 3:
        candidates += _spherical(where, when, speed)
    errors = [_misfit(wave, where, when, speed) for wave in candidates]
    best = 0 if errors[0] <= limit else int(np.argmin(errors))
    if errors[best] > limit:
        raise InputError(
            f"the transmit delays are no plane, diverging or focused wave: {1e6 * errors[best]:.3g} us off at best",
            path=path,
            remedy="Check their unit (seconds) and the positions of the elements.",
        )
    wave = candidates[best]
    passing = moment_of_passing(wave, where, when, None, speed, None, path)
    return Transmit(start - passing, wave.angle, wave.source)


def _misfit(wave: Transmit, where: Numbers, when: Numbers, speed: float) -> float:
    offsets = when - transmit_delay(wave, where, speed)
    return float(np.abs(offsets - np.median(offsets)).max())


def _spherical(where: Numbers, when: Numbers, speed: float) -> list[Transmit]:
    """The best diverging and the best focused wave, by least squares on the place of the source."""
    from scipy.optimize import least_squares

    width = float(np.ptp(where[:, 0]))
    found = []
    for sign in (-1.0, 1.0):  # behind, in front

        def error(values: Numbers, sign: float = sign) -> Numbers:
            source = np.array([values[0], 0.0, sign * np.exp(values[1])])
            time = -sign * np.linalg.norm(where - source, axis=1) / speed
            difference = time - when
            return speed * (difference - difference.mean())

        for depth in (0.5 * width, 2 * width):
            fit = least_squares(error, [float(where[:, 0].mean()), np.log(depth)], x_scale=[width, 1.0])
            found.append(Transmit(source=(float(fit.x[0]), 0.0, float(sign * np.exp(fit.x[1])))))
    return found

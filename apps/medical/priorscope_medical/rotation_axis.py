"""Where the rotation axis falls on the detector, found from the projections themselves. For research use only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.inverse.rays import degrees_to_radians


def find_axis(data: NDArray[Any], angles: object, pitch: float = 1.0) -> float:
    """Offset of the rotation axis on the detector, in mm from its middle towards higher detectors.

    A view half a turn later is the mirror image of the first, about the axis. Pairs that are opposite within a
    twentieth of the step between views are correlated; where there is none (as in a half turn whose end is excluded)
    the centre of mass tells: over the views it moves on a sine around the axis.

    Parameters
    ----------
    data : ndarray [slices, 1, detectors, views]
        Line integrals, of objects that the detector sees whole.
    angles : array of float
        (views,) in degrees.
    pitch : float
        Distance of detectors in mm.

    Raises
    ------
    InputError
        Nothing in the sinogram, or neither opposite views nor three that tell a sine.
    """
    turns = np.rad2deg(degrees_to_radians(angles))
    values = np.asarray(data, np.float64)[:, 0]
    detectors = values.shape[1]
    if values.shape[2] != len(turns):
        raise InputError(f"{values.shape[2]} views and {len(turns)} angles")
    if not values.sum() > 0:
        raise InputError("a sinogram in which nothing absorbs", remedy="The axis shows only by an object.")
    apart = np.abs((turns[:, None] - turns) % 360 - 180)
    order = np.unique(turns % 360)
    step = float(np.diff(order).min()) if len(order) > 1 else 0.0
    first, second = np.nonzero(np.triu(apart <= 0.05 * step + 1e-6))
    if len(first):
        length = 2 * detectors
        ahead = np.fft.rfft(values[:, :, first], n=length, axis=1)
        mirrored = np.fft.rfft(values[:, ::-1, second], n=length, axis=1)
        finer = 16
        match = np.fft.irfft((ahead * mirrored.conj()).sum((0, 2)), n=length * finer)
        at = int(match.argmax())
        before, top, after = match[[at - 1, at, (at + 1) % len(match)]]
        curve = before - 2 * top + after
        peak = at + (0.5 * (before - after) / curve if curve < 0 else 0.0)
        shift = (peak / finer + detectors) % length - detectors
        return float(shift / 2 * pitch)
    radians = np.deg2rad(turns)
    model = np.stack([np.ones_like(radians), np.cos(radians), np.sin(radians)], axis=1)
    if len(turns) < 3 or np.linalg.cond(model) > 100:
        raise InputError(
            f"{len(turns)} views from {turns.min():.4g} to {turns.max():.4g} degrees do not show the axis",
            remedy="Give its offset, or views over a larger range.",
        )
    place = (np.arange(detectors) - (detectors - 1) / 2)[:, None]
    middle = (place * values).sum((0, 1)) / values.sum((0, 1))
    return float(np.linalg.lstsq(model, middle, rcond=None)[0][0] * pitch)

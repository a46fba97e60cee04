"""Joint angles of a body: what a motion says at one moment, whatever the body's size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RAISE, OUT, TWIST, BEND, END = range(5)
"""Columns of `Posture.arms` and `Posture.legs`."""


def _zeros() -> Array:
    return np.zeros((2, 5))


@dataclass(frozen=True)
class Posture:
    """Angles in radians; all zero is a body that stands at attention and faces -y, its left side towards +x.

    Attributes
    ----------
    yaw, lean, roll : float
        Of the pelvis: turned to the left about the vertical, tipped forwards, tipped to the left.
    bend, side, turn : float
        Of the chest against the pelvis: forwards, to the left, turned to the left.
    nod, tilt, look : float
        The same of the head against the chest.
    arms, legs : ndarray, (2, 5)
        Left, right. Raised forwards, raised outwards, twisted inwards; elbow or knee bent; wrist bent inwards or foot
        lifted towards the shin.
    lift : float
        Metres between the lowest point of the body and the ground.
    travel : (float, float)
        Metres of the pelvis along x and y since the motion began.
    """

    yaw: float = 0.0
    lean: float = 0.0
    roll: float = 0.0
    bend: float = 0.0
    side: float = 0.0
    turn: float = 0.0
    nod: float = 0.0
    tilt: float = 0.0
    look: float = 0.0
    arms: Array = field(default_factory=_zeros)
    legs: Array = field(default_factory=_zeros)
    lift: float = 0.0
    travel: tuple[float, float] = (0.0, 0.0)

    def mirrored(self) -> Posture:
        """The posture seen in a mirror across x: left and right change places."""
        swapped = {name: -getattr(self, name) for name in ("yaw", "roll", "side", "turn", "tilt", "look")}
        travel = (-self.travel[0], self.travel[1])
        return replace(self, **swapped, arms=self.arms[::-1].copy(), legs=self.legs[::-1].copy(), travel=travel)

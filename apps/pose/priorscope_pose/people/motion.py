"""What people do: motions that give a posture at any time, each in a style of its own.

To add one, write a function ``(style, t) -> Posture`` that is smooth in the time t (seconds) and list it in `ACTIONS`.
`style` are 16 numbers of 0 to 1 that stay the same through the motion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .posture import Posture

Array = NDArray[np.float64]
Action = Callable[[Array, float], Posture]


def _limbs(left: tuple[float, ...], right: tuple[float, ...]) -> Array:
    """Angles in degrees of a left and a right limb: raised, out, twisted in, bent, end."""
    angles = np.zeros((2, 5))
    angles[0, : len(left)], angles[1, : len(right)] = left, right
    return np.radians(angles)


def _degrees(**angles: float) -> dict[str, Any]:
    return {name: float(np.radians(value)) for name, value in angles.items()}


def _between(share: float, low: float, high: float) -> float:
    return low + share * (high - low)


def stand(s: Array, t: float) -> Posture:
    """At ease: arms hang, rest on the hips, are crossed or hold something before the chest."""
    sway = np.sin(2 * np.pi * 0.3 * t + 6 * s[0])
    kind = s[1]
    hang = (_between(s[2], -8, 12), _between(s[3], 4, 16), 10.0, _between(s[4], 5, 30))
    left, right = hang, (_between(s[5], -8, 12), _between(s[3], 4, 16), 10.0, _between(s[6], 5, 30))
    if kind > 0.8:
        left = right = (-18.0, 42.0, 55.0, 95.0)
        right = right if s[7] < 0.6 else hang
    elif kind > 0.62:
        left, right = (28.0, 12.0, 62.0, 105.0), (36.0, 14.0, 66.0, 100.0)
    elif kind > 0.44:
        left = (_between(s[7], 15, 40), 8.0, 25.0, _between(s[8], 90, 130))
        right = left if s[9] < 0.6 else right
    apart = _between(s[10], 1, 9)
    one = _between(s[11], 0, 25) if s[12] < 0.4 else 4.0
    legs = _limbs((one * 0.5, apart, -8, one), (2, apart, -8, 4))
    return Posture(
        **_degrees(roll=2 * sway, side=-3 * sway, bend=_between(s[13], -4, 14)), arms=_limbs(left, right), legs=legs
    )


def walk(s: Array, t: float) -> Posture:
    speed = _between(s[0], 0.7, 1.7)
    phase = 2 * np.pi * ((0.55 + 0.3 * speed) * t + s[1])
    a, b = _between(s[2], 18, 30), _between(s[3], 8, 34)
    swing = np.sin(phase)
    steps = [
        (a * w + 3, 2, -5, 8 + 52 * max(0.0, c) ** 1.4, 8 * w)
        for w, c in ((swing, np.cos(phase)), (-swing, -np.cos(phase)))
    ]
    elbow = _between(s[4], 8, 45)
    arms = _limbs((-b * swing, 7, 8, elbow + 10 * max(0, -swing)), (b * swing, 7, 8, elbow + 10 * max(0, swing)))
    body = _degrees(lean=_between(s[5], 0, 7), turn=7 * swing, roll=2.5 * np.cos(phase))
    return Posture(**body, arms=arms, legs=_limbs(*steps), travel=(0.0, -speed * t))


def run(s: Array, t: float) -> Posture:
    speed = _between(s[0], 2.2, 5.0)
    phase = 2 * np.pi * (_between(s[6], 1.3, 1.6) * t + s[1])
    a = _between(s[2], 30, 48)
    swing = np.sin(phase)
    steps = [
        (a * w + 14, 1, -4, 22 + 85 * max(0.0, c) ** 1.2, 10 * w)
        for w, c in ((swing, np.cos(phase)), (-swing, -np.cos(phase)))
    ]
    elbow, b = _between(s[3], 75, 105), _between(s[4], 25, 50)
    arms = _limbs((-b * swing - 8, 10, 18, elbow), (b * swing - 8, 10, 18, elbow))
    body = _degrees(lean=_between(s[5], 6, 18), turn=11 * swing, bend=4)
    return Posture(**body, arms=arms, legs=_limbs(*steps), lift=0.07 * np.sin(phase) ** 2, travel=(0.0, -speed * t))


def wave(s: Array, t: float) -> Posture:
    beat = np.sin(2 * np.pi * (_between(s[0], 0.8, 1.9) * t + s[1]))
    base = stand(s, t)
    arms = base.arms.copy()
    out, twist = _between(s[2], 60, 135), _between(s[3], -95, -50)
    arms[0] = np.radians([_between(s[4], 0, 30), out + 6 * beat, twist, _between(s[5], 45, 95) + 28 * beat, 10 * beat])
    if s[6] < 0.2:
        arms[1] = np.radians(
            [_between(s[4], 0, 30), out - 6 * beat, twist, _between(s[5], 45, 95) - 28 * beat, -10 * beat]
        )
    return replace(base, arms=arms, **_degrees(side=-4))


def squat(s: Array, t: float) -> Posture:
    down = 0.5 - 0.5 * np.cos(2 * np.pi * (_between(s[0], 0.3, 0.7) * t + s[1]))
    deep = down * _between(s[2], 0.6, 1.1)
    apart = _between(s[3], 6, 24)
    leg = (105 * deep, apart, -apart, 118 * deep, 26 * deep)
    arm = (_between(s[4], 30, 95) * deep, 10, 10, _between(s[5], 5, 90))
    body = _degrees(lean=26 * deep, bend=12 * deep, nod=-20 * deep)
    return Posture(**body, arms=_limbs(arm, arm), legs=_limbs(leg, leg))


def throw(s: Array, t: float) -> Posture:
    """From winding up to letting go, again and again; the left hand throws."""
    phase = 2 * np.pi * (_between(s[0], 0.5, 0.9) * t + s[1])
    go = 0.5 - 0.5 * np.cos(phase)
    hand = (_between(go, -25, 95), _between(go, 95, 40), _between(go, -100, 10), _between(go, 100, 15))
    other = (_between(go, 70, -10), _between(go, 40, 25), 10, _between(go, 20, 60))
    stride = _between(s[2], 12, 34)
    legs = _limbs((-stride * _between(go, 0.3, 1), 4, -15, _between(go, 35, 12)), (stride, 4, -6, _between(go, 12, 40)))
    return Posture(
        **_degrees(turn=_between(go, 45, -35), lean=_between(go, -8, 16), side=8 - 14 * go),
        arms=_limbs(hand, other),
        legs=legs,
    )


def sit(s: Array, t: float) -> Posture:
    """On a seat, hands on the knees, in the lap, raised or hanging."""
    sway = np.sin(2 * np.pi * 0.35 * t + 6 * s[0])
    apart = _between(s[1], 3, 24)
    low = _between(s[2], 72, 100)
    left = (low + 6, apart, -5, _between(s[3], 55, 105))
    right = (low + (14 if s[4] < 0.3 else 0), apart if s[4] > 0.3 else -6, -5, _between(s[5], 55, 105))
    rest = (_between(s[6], 15, 45), 8.0, 25.0, _between(s[7], 35, 80))
    other = (
        rest
        if s[8] < 0.5
        else (_between(s[9], -10, 80), _between(s[10], 5, 60), _between(s[11], -40, 40), _between(s[12], 10, 120))
    )
    body = _degrees(lean=_between(s[13], -16, 14), bend=_between(s[14], 0, 28) + 3 * sway, side=3 * sway)
    return Posture(**body, arms=_limbs(rest, other), legs=_limbs(left, right))


def reach(s: Array, t: float) -> Posture:
    """Up to a shelf, out to the side or down to the ground."""
    far = 0.55 + 0.45 * np.sin(2 * np.pi * (_between(s[0], 0.2, 0.5) * t + s[1]))
    both = s[2] < 0.35
    if s[3] < 0.5:
        arm = (_between(s[4], 110, 175) * far, 12, 0, 40 * (1 - far))
        body, leg = _degrees(bend=-8 * far, nod=-25 * far), (4.0, 3.0, -5.0, 6.0, -25 * far)
    elif s[3] < 0.75:
        arm = (_between(s[4], 40, 100) * far, 15, 0, 25 * (1 - far))
        body, leg = _degrees(lean=22 * far, bend=16 * far), (20 * far, 6.0, -8.0, 14 * far, 5.0)
    else:
        arm = (_between(s[4], 60, 95) * far, 8, 0, 20 * (1 - far))
        body, leg = (
            _degrees(lean=62 * far, bend=34 * far, nod=-20 * far),
            (62 * far, 5.0, -6.0, _between(s[5], 12, 70) * far, 4.0),
        )
    rest = (_between(s[6], -10, 30), 12, 12, _between(s[7], 10, 70))
    return Posture(**body, arms=_limbs(arm, arm if both else rest), legs=_limbs(leg, leg))


def jump(s: Array, t: float) -> Posture:
    phase = (_between(s[0], 0.8, 1.2) * t + s[1]) % 1.0
    # crouched at the beginning and the end, in the air in the middle half of the time
    air = max(0.0, np.sin(np.pi * np.clip((phase - 0.25) / 0.5, 0, 1)))
    crouch = (
        np.cos(np.pi * np.clip(phase / 0.25, 0, 1)) * 0.5 + 0.5
        if phase < 0.5
        else 0.5 + 0.5 * np.cos(np.pi * np.clip((1 - phase) / 0.25, 0, 1))
    )
    star = s[2] < 0.4
    leg = (
        65 * crouch + (0 if star else 50 * air),
        4 + (32 * air if star else 0),
        -6,
        85 * crouch + (5 if star else 75 * air),
        20 * crouch - 25 * air,
    )
    arm = (_between(s[3], 90, 170) * air - 40 * crouch, 12 + (110 * air if star else 0), 0, 15 + 20 * crouch)
    if star:
        arm = (10 * air - 40 * crouch, arm[1], 0, 12.0)
    body = _degrees(lean=30 * crouch, bend=12 * crouch)
    return Posture(**body, arms=_limbs(arm, arm), legs=_limbs(leg, leg), lift=_between(s[4], 0.15, 0.5) * air)


def kick(s: Array, t: float) -> Posture:
    """With the left leg."""
    go = 0.5 - 0.5 * np.cos(2 * np.pi * (_between(s[0], 0.5, 1.0) * t + s[1]))
    high = _between(s[2], 45, 95)
    legs = _limbs((_between(go, -30, high), 6, -8, _between(go, 85, 12), -15), (_between(go, 14, -4), 3, -8, 14, 8))
    arms = _limbs((_between(go, 35, -30), 30, 0, 35), (_between(go, -30, 45), 45, 0, 30))
    return Posture(**_degrees(lean=_between(go, 8, -14), turn=_between(go, 12, -18)), arms=arms, legs=legs)


def kneel(s: Array, t: float) -> Posture:
    sway = np.sin(2 * np.pi * 0.4 * t + 6 * s[0])
    one = s[1] < 0.65
    front = (_between(s[2], 78, 96), 8, -5, _between(s[3], 85, 100))
    back = (_between(s[4], -6, 14), 5, 0, _between(s[5], 85, 118), -50)
    legs = _limbs(front, back) if one else _limbs((back[0] + 6, 7, 0, back[3], -50), back)
    arms = _limbs(
        (_between(s[6], 10, 85), 8, 20, _between(s[7], 10, 80)), (_between(s[8], 10, 85), 8, 20, _between(s[9], 10, 80))
    )
    return Posture(
        **_degrees(lean=_between(s[10], -4, 16), bend=_between(s[11], 0, 32) + 4 * sway), arms=arms, legs=legs
    )


def lie(s: Array, t: float) -> Posture:
    """On the back or on the belly."""
    stir = np.sin(2 * np.pi * 0.4 * t + 6 * s[0])
    way = s[1]
    body = _degrees(lean=-90) if way < 0.55 else _degrees(lean=90, nod=-30)
    back = way < 0.55
    # on the belly the arms lie flat on the ground, on the back they may point up
    up = _between(s[2], 0, 60) if back else 0.0
    high, bent = (30.0, 90.0) if back else (-4.0, 12.0)
    arms = _limbs(
        (_between(s[3], -5, high), _between(s[4], 8, 150), 0, _between(s[5], 3, bent) + 2 * stir),
        (_between(s[6], -5, high), _between(s[7], 8, 150), 0, _between(s[8], 3, bent)),
    )
    legs = _limbs((up + 4 * stir, _between(s[9], 2, 22), -10, 1.4 * max(up, 0)), (0, _between(s[10], 2, 22), -10, 6))
    return Posture(**body, arms=arms, legs=legs)


def dance(s: Array, t: float) -> Posture:
    """Limbs that swing each at its own beat, within what joints can do."""
    beat = 2 * np.pi * _between(s[0], 0.4, 1.1) * t

    def go(k: int, low: float, high: float) -> float:
        return _between(0.5 + 0.5 * np.sin(beat * (1 + k % 2) + 2 * np.pi * s[k] + k), low, high)

    arms = _limbs(
        (go(1, -20, 120), go(2, 10, 130), go(3, -70, 50), go(4, 5, 120)),
        (go(5, -20, 120), go(6, 10, 130), go(7, -70, 50), go(8, 5, 120)),
    )
    legs = _limbs(
        (go(9, -15, 60), go(10, 0, 28), -10, go(11, 5, 80)), (go(12, -10, 35), go(13, 0, 22), -10, go(14, 5, 45))
    )
    body = _degrees(
        turn=go(15, -30, 30), side=go(1, -14, 14), bend=go(2, -8, 20), roll=go(3, -6, 6), lean=go(4, -4, 12)
    )
    return Posture(**body, arms=arms, legs=legs)


ACTIONS: dict[str, tuple[Action, float]] = {
    "stand": (stand, 0.2),
    "walk": (walk, 0.16),
    "run": (run, 0.1),
    "wave": (wave, 0.07),
    "squat": (squat, 0.06),
    "throw": (throw, 0.07),
    "sit": (sit, 0.12),
    "reach": (reach, 0.08),
    "jump": (jump, 0.05),
    "kick": (kick, 0.05),
    "kneel": (kneel, 0.04),
    "lie": (lie, 0.03),
    "dance": (dance, 0.15),
}
"""Actions by name, with their shares."""


@dataclass(frozen=True)
class Motion:
    """One person's motion: `at` gives the posture at any time in seconds, always the same one."""

    action: str
    style: Array
    yaw: float
    mirror: bool
    idle: Array

    def at(self, t: float) -> Posture:
        posture = ACTIONS[self.action][0](self.style, t)
        if self.mirror:
            posture = posture.mirrored()
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        x, y = posture.travel
        slow = np.sin(2 * np.pi * (0.25 * t + self.idle[:3]))
        look, nod, tilt = (self.idle[3:6] - 0.5) * np.radians([90, 44, 24]) + np.radians([9, 5, 3]) * slow
        limbs = (self.idle[6:26] - 0.5).reshape(2, 2, 5) * np.radians([10, 6, 14, 10, 14])
        arms, legs = posture.arms + limbs[0], posture.legs + 0.6 * limbs[1]
        for limb in (arms, legs):
            # neither an elbow nor a knee bends the wrong way
            limb[:, 3] = np.maximum(limb[:, 3], 0.02)
        return replace(
            posture,
            yaw=posture.yaw + self.yaw,
            travel=(float(c * x - s * y), float(s * x + c * y)),
            look=posture.look + float(look),
            nod=posture.nod + float(nod),
            tilt=posture.tilt + float(tilt),
            arms=arms,
            legs=legs,
        )


def random_motion(rng: np.random.Generator, action: str | None = None) -> Motion:
    """An action (a given one, or any by its share) in a random style, towards a random side."""
    shares = np.array([share for _, share in ACTIONS.values()])
    drawn = list(ACTIONS)[int(np.searchsorted(np.cumsum(shares), rng.uniform() * shares.sum(), side="right"))]
    return Motion(
        drawn if action is None else action,
        rng.uniform(size=16),
        rng.uniform(0, 2 * np.pi),
        bool(rng.uniform() < 0.5),
        rng.uniform(size=26),
    )

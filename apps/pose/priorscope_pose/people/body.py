"""Bodies of all builds, and where the joints and the limbs' frames lie in a posture (forward kinematics)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorscope.scenes.geometry import rotation_x, rotation_y, rotation_z

from .posture import BEND, END, OUT, RAISE, TWIST, Posture

Array = NDArray[np.float64]

SIDES = ("left", "right")


@dataclass(frozen=True)
class Build:
    """Proportions of one body; lengths in metres. The defaults are those of a person of 1.75 m.

    Widths are halves: of the distance between the shoulder joints, between the hip joints. `girth` scales all radii,
    `belly` the depth of the waist, `head` the head, `chest` the depth of the chest.
    """

    height: float = 1.75
    shoulder: float = 0.185
    hip: float = 0.092
    upper_arm: float = 0.30
    forearm: float = 0.255
    hand: float = 0.18
    thigh: float = 0.43
    shin: float = 0.43
    foot: float = 0.26
    waist_up: float = 0.17
    chest_up: float = 0.335
    neck: float = 0.095
    head: float = 1.0
    girth: float = 1.0
    belly: float = 1.0
    chest: float = 1.0
    hips_wide: float = 1.0


def random_build(rng: np.random.Generator) -> Build:
    """A grown-up or, one time in six, a child; lean or stout."""
    child = rng.uniform() < 1 / 6
    height = rng.uniform(1.05, 1.5) if child else float(np.clip(rng.normal(1.71, 0.1), 1.45, 2.02))
    scale = height / 1.75

    def part(length: float, spread: float = 0.04) -> float:
        return float(length * scale * np.clip(rng.normal(1.0, spread), 1 - 2 * spread, 1 + 2 * spread))

    grown = 1.0 if not child else 0.94
    broad = rng.uniform(-1, 1)
    stout = float(np.exp(rng.normal(0.02, 0.13)))
    return Build(
        height,
        shoulder=part(0.185 * (1 + 0.1 * broad) * grown),
        hip=part(0.092 * (1 - 0.08 * broad)),
        upper_arm=part(0.30 * grown),
        forearm=part(0.255 * grown),
        hand=part(0.18),
        thigh=part(0.43 * grown),
        shin=part(0.43 * grown),
        foot=part(0.26),
        waist_up=part(0.17),
        chest_up=part(0.335),
        neck=part(0.095, 0.08),
        # the head grows much less than the rest
        head=float(scale**0.45 * rng.uniform(0.94, 1.08)),
        girth=scale * stout * (1.05 if child else 1.0),
        belly=float(np.clip(stout ** rng.uniform(0.5, 2.2) * rng.uniform(0.9, 1.1), 0.8, 1.6)),
        chest=rng.uniform(0.9, 1.2),
        hips_wide=1 - 0.08 * broad,
    )


@dataclass(frozen=True)
class Frames:
    """Where a body is: for each segment its upper joint, (3,), and its rotation, (3, 3), body to world.

    In its own frame a segment hangs down along -z with its front towards -y and the body's left towards +x.
    """

    points: dict[str, Array]
    turns: dict[str, Array]


def place(build: Build, posture: Posture) -> Frames:
    """Frames of all segments with the middle between the hip joints at the origin.

    Points are named ``pelvis, waist, chest`` (the middle between the shoulders), ``neck`` (where the head begins),
    ``left_shoulder, left_elbow, left_wrist, left_hand`` (finger tips), ``left_hip, left_knee, left_ankle`` and the
    same of the right; turns ``pelvis, chest, head, left_upper_arm, left_forearm, left_hand, left_thigh, left_shin,
    left_foot``.
    """
    points: dict[str, Array] = {"pelvis": np.zeros(3)}
    pelvis = rotation_z(posture.yaw) @ rotation_y(posture.roll) @ rotation_x(posture.lean)
    chest = pelvis @ rotation_z(posture.turn) @ rotation_y(posture.side) @ rotation_x(posture.bend)
    head = chest @ rotation_z(posture.look) @ rotation_y(posture.tilt) @ rotation_x(posture.nod)
    turns = {"pelvis": pelvis, "chest": chest, "head": head}
    points["waist"] = build.waist_up * pelvis[:, 2]
    points["chest"] = points["waist"] + build.chest_up * chest[:, 2]
    points["neck"] = points["chest"] + chest @ np.array([0.0, -0.012, build.neck])
    for number, side in enumerate(SIDES):
        sign = 1 - 2 * number
        arm, leg = posture.arms[number], posture.legs[number]
        shoulder = points["chest"] + sign * build.shoulder * chest[:, 0] - 0.012 * chest[:, 2]
        upper = chest @ _ball(arm, sign)
        fore = upper @ rotation_x(-arm[BEND])
        hand = fore @ rotation_y(sign * arm[END])
        elbow = shoulder - build.upper_arm * upper[:, 2]
        wrist = elbow - build.forearm * fore[:, 2]
        tips = wrist - build.hand * hand[:, 2]
        hip = sign * build.hip * pelvis[:, 0]
        thigh = pelvis @ _ball(leg, sign)
        shin = thigh @ rotation_x(leg[BEND])
        knee = hip - build.thigh * thigh[:, 2]
        ankle = knee - build.shin * shin[:, 2]
        limbs = ("shoulder", shoulder), ("elbow", elbow), ("wrist", wrist), ("hand", tips), ("hip", hip)
        for name, point in (*limbs, ("knee", knee), ("ankle", ankle)):
            points[f"{side}_{name}"] = point
        segments = ("upper_arm", upper), ("forearm", fore), ("hand", hand), ("thigh", thigh), ("shin", shin)
        for name, turn in (*segments, ("foot", shin @ rotation_x(-leg[END]))):
            turns[f"{side}_{name}"] = turn
    return Frames(points, turns)


def _ball(limb: Array, sign: int) -> Array:
    """The rotation of an arm at the shoulder or of a leg at the hip."""
    return rotation_y(-sign * limb[OUT]) @ rotation_x(-limb[RAISE]) @ rotation_z(-sign * limb[TWIST])

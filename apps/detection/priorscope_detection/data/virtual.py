"""Two virtual agents out of one real sweep: real points, made-up cooperation.

No cooperative recording can be shipped with a program; this lets the whole path from poses to fused boxes run on real
LiDAR. What it cannot show is what cooperation is for: the second agent sees nothing that the sweep did not see.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope_detection.data.frame import Agent, Frame
from priorscope_detection.data.rigid import inverse, move_points, pose_matrix

Split = Literal["azimuth", "random"]


def virtual_agents(
    frame: Frame,
    *,
    pose: ArrayLike = (12.0, 4.0, 0.0, 0.0, 30.0, 0.0),
    how: Split = "azimuth",
    seed: int = 0,
) -> Frame:
    """Split a frame's one sweep between its agent and a second, virtual one.

    Parameters
    ----------
    frame : Frame
        With one agent.
    pose : (6,)
        Where the second agent's frame stands in the first's: x, y, z (metres), roll, yaw, pitch (degrees). Its
        points are expressed there, so they come back only with the right pose.
    how : {"azimuth", "random"}
        The first agent keeps the half before it (x > 0) and the second gets the half behind; or each point goes to
        either by chance.
    seed : int
        Of that chance, with the frame's name.

    Raises
    ------
    InputError
        The frame has several agents.
    """
    if len(frame.agents) != 1:
        raise InputError(
            f"frame {frame.name} has {len(frame.agents)} agents", remedy="One sweep is split, not several."
        )
    one = frame.ego
    if how == "azimuth":
        first = one.points[:, 0] > 0
    else:
        first = np.random.default_rng(item_seed(seed, frame.name)).random(len(one.points)) < 0.5
    move = pose_matrix(pose)
    theirs = move_points(inverse(move), one.points[~first])
    second = Agent("virtual", theirs, one.pose @ move, one.clean_pose @ move, one.kind, one.delay)
    return replace(frame, agents=(replace(one, points=one.points[first]), second))

"""Drawn people with exact joints: training and test data for pose models, without a camera and without annotators.

Articulated bodies of many builds in many clothes walk, run, wave, squat, throw, sit, ... in rooms, before backdrops and
outdoors, ray-cast on the CPU. `draw_people` gives one picture, `draw_clip` a clip with motion blur and things that pass
in front; `write_coco` and `write_posetrack` write data sets in those layouts. See `truth` for what is known of them.
"""

from __future__ import annotations

from .draw import GENERATOR_VERSION, HELD_OUT_SEED, draw_clip, draw_people
from .motion import ACTIONS
from .truth import PersonTruth, Truth
from .write import write_coco, write_posetrack

__all__ = [
    "ACTIONS",
    "GENERATOR_VERSION",
    "HELD_OUT_SEED",
    "PersonTruth",
    "Truth",
    "draw_clip",
    "draw_people",
    "write_coco",
    "write_posetrack",
]

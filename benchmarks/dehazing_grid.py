"""What each method of dehazing.py is tuned over: options on four cines, of other seeds than the judged ones."""

from __future__ import annotations

import math
from itertools import product
from typing import Any


def _grid(**choices: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


_AMOUNTS = (0.5, 0.7, 0.85, 1.0)
GRID: dict[str, list[dict[str, Any]]] = {
    "hazy": [{}],
    "gain": _grid(gain=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
    "high-pass": _grid(frames=(0.7, 1.0, 1.5, 2.0, math.inf), amount=_AMOUNTS),
    "svd": _grid(rank=(1, 2, 3), amount=_AMOUNTS, block=(None, [256, 32])),
    "non-local means": _grid(h=(3.0, 8.0), floor=(-45.0, -35.0, -25.0, -20.0)),
    "wiener": _grid(by_depth=(False, True), over=(0.25, 0.5, 1.0, 2.0, 4.0)),
    "subtraction": _grid(by_depth=(False, True), over=(1.0, 2.0, 4.0, 8.0), smooth=(1.0, 2.0), floor=(0.05, 0.3)),
}
#: Of one sample: its mean is judged with the same options.
JOINT_GRID: list[dict[str, Any]] = [
    *_grid(steps=(8, 16), eta=(0.0, 1.0, 100.0), start=(1.0,)),
    *_grid(steps=(6,), eta=(1.0, 100.0), start=(0.3, 0.5)),
]
#: Runs of few calls. ``estimate``: what they begin from; ``last``: the last level's noise.
_FEW: dict[str, Any] = {"eta": 100.0, "samples": 1}
LATE_GRID: dict[str, list[dict[str, Any]]] = {
    "late, from the SVD filter": [
        {"steps": 5, "start": start, "last": last, "estimate": "svd"} | _FEW
        for start, last in ((0.63, 0.2), (0.63, 0.4), (0.51, 0.4))
    ],
    "late, from the frames before": [
        {"steps": 5, "start": start, "last": last, "estimate": "frames before"} | _FEW
        for start, last in ((0.31, 0.2), (0.63, 0.2), (0.63, 0.4))
    ],
    "few levels": [{"steps": 5, "start": 1.0, "last": last} | _FEW for last in (0.4, 0.5)],
}
